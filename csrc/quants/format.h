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
//   widen(panel, put)                          its weights as floats, the numbers of decode_block: put(pair, even, odd) for
//                                              each pair of columns, for products with float activations
// dot and panel_dot must perform the same float operations per (row, token) in the same order: the results are
// bit-identical however tokens are grouped. matmul.cpp turns a format into a matrix product.
#pragma once

#include <cstdint>
#include <cstring>

#include "core/activations.h"
#include "cpu/kernels.h"
#include "cpu/processor.h"
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

// Token rows that one pass of a kernel multiplies at most.
inline constexpr int kMaxTokens = 8;

// The activation rows of one pass: where each begins, and where the parts of a row lie (see ActLayout). Pointers, not
// a stride: the compiler would compute every address of an unrolled loop anew.
struct ActRows {
    const uint8_t* row[kMaxTokens];
    size_t scale_offset, sum32_offset, sum16_offset;

    explicit ActRows(ActLayout layout)
        : scale_offset(layout.scale_offset()),
          sum32_offset(layout.sum32_offset()),
          sum16_offset(layout.sum16_offset()) {}

    void set(const uint8_t* first, size_t stride, int num_rows) {
        for (int t = 0; t < num_rows; t++) row[t] = first + size_t(t) * stride;
    }
    template <class Element> TL_INLINE const Element* at(int t, size_t offset) const {
        return (const Element*)(row[t] + offset);
    }
    TL_INLINE const int8_t* q(int t) const { return at<int8_t>(t, 0); }
    TL_INLINE const float* scale(int t) const { return at<float>(t, scale_offset); }
    template <class Sum> TL_INLINE const Sum* sum32(int t) const { return at<Sum>(t, sum32_offset); }
    TL_INLINE const int16_t* sum16(int t) const { return at<int16_t>(t, sum16_offset); }
    TL_INLINE const float* f32(int t) const { return at<float>(t, 0); }
    TL_INLINE const uint16_t* bf16(int t) const { return at<uint16_t>(t, 0); }
};

// The int8 activations of T tokens from a column on. The compiler must not know where the pointers come from, or it
// computes addresses between the dot products instead of putting the distance into each instruction.
template <int T> TL_INLINE Regs<const int8_t*, T> columns(const ActRows& x, int column) {
    Regs<const int8_t*, T> a;
    each(a, [&](int t, const int8_t*& p) TL_LAMBDA {
        p = x.q(t) + column;
        asm("" : "+r"(p));
    });
    return a;
}

// Loads of packed weights in `dot` of T tokens (0: outside of it): each also asks for the bytes that this thread will want
// soon.
//
// One or two tokens wait for memory. Between the bursts of arithmetic of a block the hardware prefetcher of Intel cores
// falls behind even so; measured on Sapphire Rapids, Q4_K, two threads: 27.5 GB/s without, 30 with it, 30 for reading
// alone. Zen 5 falls behind by half: Q4_K, two threads, 43 GB/s without, 86 with requests 8 KiB ahead (4 KiB: 78, 16 KiB: 77),
// where reading alone has 83. Zen 4 keeps up by itself and lost a fifth to software prefetches: its distance is 0, which asks
// for what is being loaded. With more tokens the arithmetic takes as long as reading does, and Zen 4 and 5 do the one after
// the other: eight tokens of Q4_K took Zen 4 10.2 ms without, 6.1 with requests 16 KiB ahead (4 KiB: 6.6), where the
// arithmetic alone takes 6.1.
#if defined(TL_LEVEL_SCALAR)
template <int T> TL_INLINE void stream_line(const uint8_t*) {}
#else
struct StreamAhead {
    ptrdiff_t few, many;  // tokens; bytes
};
static const StreamAhead kStreamAhead = is_intel()           ? StreamAhead{2048, 2048}
                                        : is_zen5_or_later() ? StreamAhead{8192, 8192}
                                                             : StreamAhead{0, 16384};
template <int T> TL_INLINE void stream_line(const uint8_t* p) {
    if constexpr (T > 0) prefetch_far(p + (T < 3 ? kStreamAhead.few : kStreamAhead.many));
}
#endif
template <int T> TL_INLINE Bytes stream(const uint8_t* p) {
    stream_line<T>(p);
    return bload(p);
}
template <int T> TL_INLINE F32 stream_f16(const uint8_t* p) {
    stream_line<T>(p);
    return load_f16((const uint16_t*)p);
}

template <int T> TL_INLINE void clear(Regs<I32, T>& a) {
    each(a, [](int, I32& v) { v = izero(); });
}
template <int T> TL_INLINE void clear(Regs<F32, T>& a) {
    each(a, [](int, F32& v) { v = zero(); });
}

// Levels with many registers and a dot4 for any unsigned byte use high nibbles in place (value * 16, divided out once
// per sub-block, in sums of their own); the others shift first.
#if defined(TL_LEVEL_AVX2) || defined(TL_LEVEL_AVXVNNI)
inline constexpr bool kWideDot = false;
#else
inline constexpr bool kWideDot = true;
#endif

// The two nibbles of each byte, for dot4_nibbles. High ones are worth kHighNibble times their value.
inline constexpr int kHighNibble = kWideDot ? 16 : 1;
TL_INLINE Bytes low_nibbles(Bytes v) { return v & bset1(0x0f); }
TL_INLINE Bytes high_nibbles(Bytes v) { return kWideDot ? v & bset1(0xf0) : bshift_right<4>(v) & bset1(0x0f); }
TL_INLINE void dot4_nibbles(I32& acc, Bytes w, const int8_t* a) {
    if constexpr (kWideDot)
        dot4(acc, w, a);
    else
        dot4_small(acc, w, a);
}

// Calls put(pair, even, odd) for the two pairs of columns in each of `count` groups of a panel's bytes: scale(byte as a
// float) is the weight.
template <class Scale, class Put>
TL_INLINE void widen_groups(const uint8_t (*groups)[64], int first, int count, Scale scale, Put put) {
    TL_UNROLL(1)
    for (int g = first; g < first + count; g++) {
        const Bytes v = bload(groups[g]);
        put(2 * g, scale(to_float(lane_byte<0>(v))), scale(to_float(lane_byte<1>(v))));
        put(2 * g + 1, scale(to_float(lane_byte<2>(v))), scale(to_float(lane_byte<3>(v))));
    }
}
// The same for bytes in signed_form.
template <class Scale, class Put>
TL_INLINE void widen_signed_groups(const uint8_t (*groups)[64], int first, int count, Scale scale, Put put) {
    TL_UNROLL(1)
    for (int g = first; g < first + count; g++) {
        const Bytes v = signed_form(bload(groups[g]));  // undoes itself
        const auto value = [&](I32 byte) TL_LAMBDA { return scale(to_float(byte - iset1(128))); };
        put(2 * g, value(lane_byte<0>(v)), value(lane_byte<1>(v)));
        put(2 * g + 1, value(lane_byte<2>(v)), value(lane_byte<3>(v)));
    }
}

// The same number, of which the compiler knows nothing: keeps a loop of few rounds a loop.
TL_INLINE int opaque(int n) {
    asm("" : "+r"(n));
    return n;
}

// Takes byte 0 of each dword lane and moves the next one down.
TL_INLINE I32 take_byte(Bytes& v) {
    const I32 byte = lane_byte<0>(v);
    v = lane_shift_right<8>(v);
    return byte;
}

}  // namespace tl::TL_LEVEL
