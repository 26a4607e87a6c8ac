// Q8_0: 8-bit weights in blocks of 32 with one scale. 8.5 bits per weight.
//
// In the file a block is 34 bytes: d (f16), qs[32] (int8); an element is d * q.
//
// Packed, a block of 16 rows is the same 16 * 34 = 544 bytes: d[16] f16 | q[8][64], where dword lane r of q[j] is
// bytes 4j .. 4j + 3 of row r, each XOR 0x80: the dot product wants unsigned weights, so q + 128 is stored and
// 128 sum(a) is taken off.
//
// Arithmetic per 32 elements and (row, token), a = int8 activations with scale s:
//   I = q . a   exact int32;   acc += (d * s) * I
#pragma once

#include "quants/format.h"

namespace tl::TL_LEVEL {

struct Q8_0 {
    static constexpr int kType = 8;
    static constexpr int kBlock = 32;
    static constexpr size_t kBlockBytes = 34;
    static constexpr size_t kTileBlockBytes = 544;
    static constexpr ActFormat kActivations = ActFormat::kInt8x32;
    static_assert(kTileBlockBytes == kTileRows * kBlockBytes);

    static void decode_block(const uint8_t* block, float* out) {
        const float d = read_f16(block);
        for (int i = 0; i < 32; i++) out[i] = d * float((int8_t)block[2 + i]);
    }

    static void pack_block(const uint8_t* const* rows, uint8_t* tile) {
        interleave2(rows, 0, tile);
        for (int j = 0; j < 8; j++) interleave4(rows, 2 + 4 * j, tile + 32 + 64 * j);
        for (int i = 32; i < 544; i++) tile[i] ^= 0x80;
    }

    template <int T, bool kStream>
    TL_INLINE static void dot_scaled(F32 d, const uint8_t* q, int b, const ActRows& x, Regs<F32, T>& acc) {
        Regs<const int8_t*, T> a = columns<T>(x, 32 * b);
        Regs<I32, T> sums;
        clear(sums);
        TL_UNROLL(8)
        for (int j = 0; j < 8; j++) {
            const Bytes w = kStream ? stream<T>(q + 64 * j) : bload(q + 64 * j);
            each(sums, a, [&](int, I32& v, const int8_t*& row) TL_LAMBDA { dot4(v, w, row + 4 * j); });
        }
        each(sums, acc, [&](int t, I32& i, F32& f) TL_LAMBDA {
            const I32 offset = shift_left<7>(iset1(x.sum32<int32_t>(t)[b]));
            f = fma(d * set1(x.scale(t)[b]), to_float(i - offset), f);
        });
    }

    template <int T>
    TL_INLINE static void dot(const uint8_t* tile, int b, const ActRows& x, Regs<F32, T>& acc) {
        dot_scaled<T, true>(stream_f16<T>(tile), tile + 32, b, x, acc);
    }

    struct alignas(64) Panel {
        uint8_t q[8][64];
        float d[16];
    };

    TL_INLINE static void unpack(const uint8_t* tile, Panel& p) {
        store(p.d, load_f16((const uint16_t*)tile));
        for (int j = 0; j < 8; j++) bstore(p.q[j], bload(tile + 32 + 64 * j));
    }

    template <int T>
    TL_INLINE static void panel_dot(const Panel& p, int b, const ActRows& x, Regs<F32, T>& acc) {
        dot_scaled<T, false>(load(p.d), p.q[0], b, x, acc);
    }

    template <class Put> TL_INLINE static void widen(const Panel& p, Put put) {
        const F32 d = load(p.d), zero = set1(128);
        widen_groups(p.q, 0, 8, [&](F32 q) TL_LAMBDA { return d * (q - zero); }, put);
    }
};

}  // namespace tl::TL_LEVEL
