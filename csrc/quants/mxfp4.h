// MXFP4: floats of four bits (E2M1) in blocks of 32 with one power of two as their scale. 4.25 bits per weight.
//
// In the file a block is 17 bytes: e (E8M0), codes[16] (see codes.h); an element is 2^(e - 128) * kE2M1Values[code],
// the table holding twice the values of E2M1. Standard: OCP Microscaling Formats (MX) 1.0.
//
// Packed, a block of 16 rows is the same 16 * 17 = 272 bytes: e[16] | the planes of codes.h [256].
//
// Arithmetic per 32 elements and (row, token): that of CodedBlock in codes.h, d = 2^(e - 128).
#pragma once

#include "quants/codes.h"

namespace tl::TL_LEVEL {

struct MXFP4 {
    static constexpr int kType = 39;
    static constexpr int kBlock = 32;
    static constexpr size_t kBlockBytes = 17;
    static constexpr size_t kTileBlockBytes = 272;
    static constexpr ActFormat kActivations = ActFormat::kInt8x32;
    static_assert(kTileBlockBytes == kTileRows * kBlockBytes);

    static constexpr size_t kCodes = 16;  // offset in a packed block

    static void decode_block(const uint8_t* block, float* out) {
        decode_codes(block + 1, half_e8m0_to_float(block[0]), kE2M1Values, out);
    }

    static void pack_block(const uint8_t* const* rows, uint8_t* tile) {
        for (int r = 0; r < kTileRows; r++) tile[r] = rows[r] ? rows[r][0] : 0;
        for (int j = 0; j < 4; j++) interleave4(rows, 1 + 4 * j, tile + kCodes + 64 * j);
    }

    template <int T>
    TL_INLINE static void dot(const uint8_t* tile, int b, const ActRows& x, Regs<F32, T>& acc) {
        stream_line<T>(tile);
        CodedBlock::dot<T>(load_half_e8m0(tile), tile + kCodes, kE2M1Values, b, x, acc);
    }

    using Panel = CodedBlock::Panel;

    TL_INLINE static void unpack(const uint8_t* tile, Panel& p) {
        CodedBlock::unpack(load_half_e8m0(tile), tile + kCodes, kE2M1Values, p);
    }

    template <int T>
    TL_INLINE static void panel_dot(const Panel& p, int b, const ActRows& x, Regs<F32, T>& acc) {
        CodedBlock::panel_dot<T>(p, b, x, acc);
    }

    template <class Put> TL_INLINE static void widen(const Panel& p, Put put) { CodedBlock::widen(p, put); }
};

}  // namespace tl::TL_LEVEL
