// Q5_1: 5-bit weights in blocks of 32 with a scale and a minimum. 6 bits per weight.
//
// In the file a block is 24 bytes: d (f16), m (f16), qh (32 bits), qs[16]; byte i holds the low 4 bits of element i in
// its low nibble and of element i + 16 in its high nibble, bit i of qh is the fifth bit of element i; an element is
// d * q + m.
//
// Packed, a block of 16 rows is the same 16 * 24 = 384 bytes: d[16] f16 | m[16] f16 | the planes of five_bits.h [320].
//
// Arithmetic per 32 elements and (row, token), a = int8 activations with scale s:
//   I = q . a                          exact int32
//   acc += s * (d * I + m * sum(a))    three float roundings
#pragma once

#include "quants/five_bits.h"

namespace tl::TL_LEVEL {

struct Q5_1 {
    static constexpr int kType = 7;
    static constexpr int kBlock = 32;
    static constexpr size_t kBlockBytes = 24;
    static constexpr size_t kTileBlockBytes = 384;
    static constexpr ActFormat kActivations = ActFormat::kInt8x32;
    static_assert(kTileBlockBytes == kTileRows * kBlockBytes);

    static constexpr size_t kM = 32, kQ = 64;  // offsets in a packed block

    static void decode_block(const uint8_t* block, float* out) {
        const float d = read_f16(block), m = read_f16(block + 2);
        uint32_t qh;
        std::memcpy(&qh, block + 4, 4);
        for (int i = 0; i < 16; i++) {
            const int q0 = (block[8 + i] & 15) | int(qh >> i & 1) << 4;
            const int q1 = block[8 + i] >> 4 | int(qh >> (i + 16) & 1) << 4;
            out[i] = d * float(q0) + m;
            out[i + 16] = d * float(q1) + m;
        }
    }

    static void pack_block(const uint8_t* const* rows, uint8_t* tile) {
        interleave2(rows, 0, tile);
        interleave2(rows, 2, tile + kM);
        for (int r = 0; r < kTileRows; r++) {
            uint32_t groups[8] = {};
            if (rows[r]) split_five_bits(rows[r] + 4, groups);
            pack_five_bits(groups, r, tile + kQ);
        }
    }

    template <int T>
    TL_INLINE static void finish(F32 d, F32 m, Regs<I32, T>& sums, int b, const ActRows& x, Regs<F32, T>& acc) {
        each(sums, acc, [&](int t, I32& i, F32& f) TL_LAMBDA {
            const F32 offset = m * to_float(iset1(x.sum32<int32_t>(t)[b]));
            f = fma(fma(d, to_float(i), offset), set1(x.scale(t)[b]), f);
        });
    }

    template <int T>
    TL_INLINE static void dot(const uint8_t* tile, int b, const ActRows& x, Regs<F32, T>& acc) {
        Regs<const int8_t*, T> a = columns<T>(x, 32 * b);
        Regs<I32, T> sums;
        clear(sums);
        for_five_bits<T>(tile + kQ, [&](int g, Bytes w) TL_LAMBDA {
            each(sums, a, [&](int, I32& v, const int8_t*& row) TL_LAMBDA { dot4_small(v, w, row + 4 * g); });
        });
        finish<T>(stream_f16<T>(tile), load_f16((const uint16_t*)(tile + kM)), sums, b, x, acc);
    }

    struct alignas(64) Panel {
        uint8_t q[8][64];
        float d[16], m[16];
    };

    TL_INLINE static void unpack(const uint8_t* tile, Panel& p) {
        store(p.d, load_f16((const uint16_t*)tile));
        store(p.m, load_f16((const uint16_t*)(tile + kM)));
        for_five_bits<0>(tile + kQ, [&](int g, Bytes w) TL_LAMBDA { bstore(p.q[g], w); });
    }

    template <int T>
    TL_INLINE static void panel_dot(const Panel& p, int b, const ActRows& x, Regs<F32, T>& acc) {
        Regs<const int8_t*, T> a = columns<T>(x, 32 * b);
        Regs<I32, T> sums;
        clear(sums);
        TL_UNROLL(8)
        for (int g = 0; g < 8; g++) {
            const Bytes w = bload(p.q[g]);
            each(sums, a, [&](int, I32& v, const int8_t*& row) TL_LAMBDA { dot4_small(v, w, row + 4 * g); });
        }
        finish<T>(load(p.d), load(p.m), sums, b, x, acc);
    }

    template <class Put> TL_INLINE static void widen(const Panel& p, Put put) {
        const F32 d = load(p.d), m = load(p.m);
        widen_groups(p.q, 0, 8, [&](F32 q) TL_LAMBDA { return d * q + m; }, put);
    }
};

}  // namespace tl::TL_LEVEL
