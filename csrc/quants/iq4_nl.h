// IQ4_NL: 4-bit codes of a table of 16 uneven steps in blocks of 32 with one scale. 4.5 bits per weight.
//
// In the file a block is 18 bytes: d (f16), codes[16] (see codes.h); an element is d * kIq4Values[code].
//
// Packed, a block of 16 rows is the same 16 * 18 = 288 bytes: d[16] f16 | the planes of codes.h [256].
//
// Arithmetic per 32 elements and (row, token): that of CodedBlock in codes.h.
#pragma once

#include "quants/codes.h"

namespace tl::TL_LEVEL {

struct IQ4NL {
    static constexpr int kType = 20;
    static constexpr int kBlock = 32;
    static constexpr size_t kBlockBytes = 18;
    static constexpr size_t kTileBlockBytes = 288;
    static constexpr ActFormat kActivations = ActFormat::kInt8x32;
    static_assert(kTileBlockBytes == kTileRows * kBlockBytes);

    static constexpr size_t kCodes = 32;  // offset in a packed block

    static void decode_block(const uint8_t* block, float* out) {
        decode_codes(block + 2, read_f16(block), kIq4Values, out);
    }

    static void pack_block(const uint8_t* const* rows, uint8_t* tile) {
        interleave2(rows, 0, tile);
        for (int j = 0; j < 4; j++) interleave4(rows, 2 + 4 * j, tile + kCodes + 64 * j);
    }

    template <int T>
    TL_INLINE static void dot(const uint8_t* tile, int b, const ActRows& x, Regs<F32, T>& acc) {
        CodedBlock::dot<T>(stream_f16<T>(tile), tile + kCodes, kIq4Values, b, x, acc);
    }

    using Panel = CodedBlock::Panel;

    TL_INLINE static void unpack(const uint8_t* tile, Panel& p) {
        CodedBlock::unpack(load_f16((const uint16_t*)tile), tile + kCodes, kIq4Values, p);
    }

    template <int T>
    TL_INLINE static void panel_dot(const Panel& p, int b, const ActRows& x, Regs<F32, T>& acc) {
        CodedBlock::panel_dot<T>(p, b, x, acc);
    }

    template <class Put> TL_INLINE static void widen(const Panel& p, Put put) { CodedBlock::widen(p, put); }
};

}  // namespace tl::TL_LEVEL
