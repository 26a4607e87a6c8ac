// Q4_1: 4-bit weights in blocks of 32 with a scale and a minimum. 5 bits per weight.
//
// In the file a block is 20 bytes: d (f16), m (f16), qs[16]; byte i holds element i in its low nibble and element
// i + 16 in its high nibble; an element is d * q + m.
//
// Packed, a block of 16 rows is the same 16 * 20 = 320 bytes: d[16] f16 | m[16] f16 | q[4][64], where dword lane r of
// q[j] is bytes 4j .. 4j + 3 of row r.
//
// Arithmetic per 32 elements and (row, token), a = int8 activations with scale s:
//   I = q . a                          exact int32
//   acc += s * (d * I + m * sum(a))    three float roundings
#pragma once

#include "quants/format.h"

namespace tl::TL_LEVEL {

struct Q4_1 {
    static constexpr int kType = 3;
    static constexpr int kBlock = 32;
    static constexpr size_t kBlockBytes = 20;
    static constexpr size_t kTileBlockBytes = 320;
    static constexpr ActFormat kActivations = ActFormat::kInt8x32;
    static_assert(kTileBlockBytes == kTileRows * kBlockBytes);

    static constexpr size_t kM = 32, kQ = 64;  // offsets in a packed block

    static void decode_block(const uint8_t* block, float* out) {
        const float d = read_f16(block), m = read_f16(block + 2);
        for (int i = 0; i < 16; i++) {
            out[i] = d * float(block[4 + i] & 15) + m;
            out[i + 16] = d * float(block[4 + i] >> 4) + m;
        }
    }

    static void pack_block(const uint8_t* const* rows, uint8_t* tile) {
        interleave2(rows, 0, tile);
        interleave2(rows, 2, tile + kM);
        for (int j = 0; j < 4; j++) interleave4(rows, 4 + 4 * j, tile + kQ + 64 * j);
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
        Regs<I32, T> low, high;
        clear(low);
        clear(high);
        TL_UNROLL(4)
        for (int j = 0; j < 4; j++) {
            const Bytes v = stream<T>(tile + kQ + 64 * j), lo = low_nibbles(v), hi = high_nibbles(v);
            each(low, high, a, [&](int, I32& l, I32& h, const int8_t*& row) TL_LAMBDA {
                dot4_small(l, lo, row + 4 * j);
                dot4_nibbles(kHighNibble == 1 ? l : h, hi, row + 16 + 4 * j);
            });
        }
        each(low, high, [](int, I32& l, I32& h) TL_LAMBDA {
            if constexpr (kHighNibble > 1) l = l + shift_right<4>(h);
        });
        finish<T>(stream_f16<T>(tile), load_f16((const uint16_t*)(tile + kM)), low, b, x, acc);
    }

    struct alignas(64) Panel {
        uint8_t q[8][64];
        float d[16], m[16];
    };

    TL_INLINE static void unpack(const uint8_t* tile, Panel& p) {
        store(p.d, load_f16((const uint16_t*)tile));
        store(p.m, load_f16((const uint16_t*)(tile + kM)));
        const Bytes mask = bset1(0x0f);
        for (int j = 0; j < 4; j++) {
            const Bytes v = bload(tile + kQ + 64 * j);
            bstore(p.q[j], v & mask);
            bstore(p.q[4 + j], bshift_right<4>(v) & mask);
        }
    }

    template <int T>
    TL_INLINE static void panel_dot(const Panel& p, int b, const ActRows& x, Regs<F32, T>& acc) {
        Regs<const int8_t*, T> a = columns<T>(x, 32 * b);
        Regs<I32, T> sums;
        clear(sums);
        TL_UNROLL(8)
        for (int j = 0; j < 8; j++) {
            const Bytes w = bload(p.q[j]);
            each(sums, a, [&](int, I32& v, const int8_t*& row) TL_LAMBDA { dot4_small(v, w, row + 4 * j); });
        }
        finish<T>(load(p.d), load(p.m), sums, b, x, acc);
    }

    template <class Put> TL_INLINE static void widen(const Panel& p, Put put) {
        const F32 d = load(p.d), m = load(p.m);
        widen_groups(p.q, 0, 8, [&](F32 q) TL_LAMBDA { return d * q + m; }, put);
    }
};

}  // namespace tl::TL_LEVEL
