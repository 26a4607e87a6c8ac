// What a weight format is to the core, and the packing step that all formats share.
//
// One header per format describes its block in prose and holds everything that knows the layout:
//   kType, kBlock, kBlockBytes, kActivations   facts, compared with the Python side at import
//   kTileBlockBytes                            bytes of one block of 16 rows, packed
//   decode_block(block, out)                   scalar: the definition; every other function must agree with it
//   pack_block(rows, tile)                     16 blocks (one per row) -> one packed block of the tile
//   dot<T>(tile, b, x, acc)                    16 rows x T tokens straight from the packed bytes of block b (decode)
//   Panel, unpack, panel_dot<T>                the block made ready for the dot product, then 16 rows x T tokens
//                                              (prefill: unpacked once, used for many tokens)
// dot and panel_dot must perform the same float operations per (row, token) in the same order: the results are
// bit-identical however tokens are grouped. matmul.cpp turns a format into a matrix product.
#pragma once

#include <cstdint>
#include <cstring>

#include "core/activations.h"
#include "cpu/kernels.h"
#include "cpu/simd.h"

namespace tl::TL_LEVEL {

// Copies one 4-byte group of each of 16 rows side by side: dword lane r of the result belongs to row r.
// `offset` is the group's position in each row's block. Null rows give zero.
TL_INLINE void interleave4(const uint8_t* const* rows, size_t offset, uint8_t* out) {
    for (int r = 0; r < kTileRows; r++) {
        uint32_t group = 0;
        if (rows[r]) std::memcpy(&group, rows[r] + offset, 4);
        std::memcpy(out + 4 * r, &group, 4);
    }
}

// Copies one 16-bit field of each of 16 rows side by side.
TL_INLINE void interleave2(const uint8_t* const* rows, size_t offset, uint8_t* out) {
    for (int r = 0; r < kTileRows; r++) {
        uint16_t field = 0;
        if (rows[r]) std::memcpy(&field, rows[r] + offset, 2);
        std::memcpy(out + 2 * r, &field, 2);
    }
}

TL_INLINE float read_f16(const uint8_t* p) {
    uint16_t bits;
    std::memcpy(&bits, p, 2);
    return f16_to_float(bits);
}

// The activation rows of one matmul call: row t starts at x + t * stride. See ActLayout for the parts of a row.
struct ActRows {
    const uint8_t* x;
    size_t stride;
    size_t scale_offset, sum32_offset, sum16_offset;

    ActRows(const uint8_t* rows, size_t row_stride, ActLayout layout)
        : x(rows),
          stride(row_stride),
          scale_offset(layout.scale_offset()),
          sum32_offset(layout.sum32_offset()),
          sum16_offset(layout.sum16_offset()) {}

    template <class Element> TL_INLINE const Element* at(int t, size_t offset) const {
        return (const Element*)(x + size_t(t) * stride + offset);
    }
    TL_INLINE const int8_t* q(int t) const { return at<int8_t>(t, 0); }
    TL_INLINE const float* scale(int t) const { return at<float>(t, scale_offset); }
    template <class Sum> TL_INLINE const Sum* sum32(int t) const { return at<Sum>(t, sum32_offset); }
    TL_INLINE const int16_t* sum16(int t) const { return at<int16_t>(t, sum16_offset); }
    TL_INLINE const float* f32(int t) const { return at<float>(t, 0); }
    TL_INLINE const uint16_t* bf16(int t) const { return at<uint16_t>(t, 0); }
    TL_INLINE ActRows from(int t) const {
        ActRows rows = *this;
        rows.x += size_t(t) * stride;
        return rows;
    }
};

template <int T> TL_INLINE void clear(Regs<I32, T>& a) {
    each(a, [](int, I32& v) { v = izero(); });
}
template <int T> TL_INLINE void clear(Regs<F32, T>& a) {
    each(a, [](int, F32& v) { v = zero(); });
}

// Levels whose dot4 takes any unsigned byte at full speed use high nibbles in place (value * 16, shifted back
// once per sub-block); the others shift first.
#if defined(TL_LEVEL_AVX2)
inline constexpr bool kWideDot = false;
#else
inline constexpr bool kWideDot = true;
#endif

}  // namespace tl::TL_LEVEL
