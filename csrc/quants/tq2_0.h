// TQ2_0: weights of -1, 0, 1 in two bits, blocks of 256 with one scale. 2.0625 bits per weight.
//
// In the file a block is 66 bytes: qs[64], d (f16). For half n, quarter t < 4 and l < 32, element 128n + 32t + l is
// d * (q - 1) with q = (qs[32n + l] >> 2t) & 3.
//
// Packed, a block of 16 rows is the same 16 * 66 = 1056 bytes: d[16] f16 | q[2][8][64]; q[n][j]: dword lane r = bytes
// 32n + 4j .. + 3 of row r.
//
// Arithmetic per 256 elements and (row, token), a = int8 activations with scale s:
//   I = q . a - sum(a)   exact int32;   acc += (d * s) * I
#pragma once

#include "quants/format.h"

namespace tl::TL_LEVEL {

struct TQ2_0 {
    static constexpr int kType = 35;
    static constexpr int kBlock = 256;
    static constexpr size_t kBlockBytes = 66;
    static constexpr size_t kTileBlockBytes = 1056;
    static constexpr ActFormat kActivations = ActFormat::kInt8x256;
    static_assert(kTileBlockBytes == kTileRows * kBlockBytes);

    static constexpr size_t kQ = 32;  // offset in a packed block

    static void decode_block(const uint8_t* block, float* out) {
        const float d = read_f16(block + 64);
        for (int i = 0; i < 256; i++)
            out[i] = d * float((block[32 * (i / 128) + i % 32] >> (2 * (i / 32 % 4)) & 3) - 1);
    }

    static void pack_block(const uint8_t* const* rows, uint8_t* tile) {
        interleave2(rows, 64, tile);
        for (int j = 0; j < 16; j++) interleave4(rows, 4 * j, tile + kQ + 64 * j);
    }

    // Columns 4j .. 4j + 3 of a quarter.
    template <int Quarter> TL_INLINE static Bytes weights(Bytes plane) {
        return (Quarter ? bshift_right<2 * Quarter>(plane) : plane) & bset1(3);
    }

    // I starts at -sum(a).
    template <int T> TL_INLINE static void start(int b, const ActRows& x, Regs<I32, T>& sums) {
        clear(sums);
        const Bytes minus_one = set16(-1);
        for_constants<4>([&]<int I>() TL_LAMBDA {
            each(sums, [&](int t, I32& v) TL_LAMBDA { dot2(v, minus_one, x.sum32<int16_t>(t) + 8 * b + 2 * I); });
        });
    }

    template <int T>
    TL_INLINE static void finish(F32 d, Regs<I32, T>& sums, int b, const ActRows& x, Regs<F32, T>& acc) {
        each(sums, acc, [&](int t, I32& i, F32& f) TL_LAMBDA { f = fma(d * set1(x.scale(t)[b]), to_float(i), f); });
    }

    // Per plane: 1 load, 7 logic operations, 4 T dot products.
    template <int T>
    TL_INLINE static void dot(const uint8_t* tile, int b, const ActRows& x, Regs<F32, T>& acc) {
        Regs<const int8_t*, T> a = columns<T>(x, 256 * b);
        Regs<I32, T> sums;
        start<T>(b, x, sums);
        TL_UNROLL(1)
        for (int n = 0; n < 2; n++) {
            TL_UNROLL(8)
            for (int j = 0; j < 8; j++) {
                const Bytes plane = stream<T>(tile + kQ + 512 * n + 64 * j);
                for_constants<4>([&]<int Quarter>() TL_LAMBDA {
                    const Bytes w = weights<Quarter>(plane);
                    each(sums, a, [&](int, I32& v, const int8_t*& row) TL_LAMBDA {
                        dot4_small(v, w, row + 32 * Quarter + 4 * j);
                    });
                });
            }
            each(a, [](int, const int8_t*& row) TL_LAMBDA { row += 128; });
        }
        finish<T>(load_f16((const uint16_t*)tile), sums, b, x, acc);
    }

    struct alignas(64) Panel {
        uint8_t q[64][64];  // [column group of 4][row, column], 0 .. 3
        float d[16];
    };

    TL_INLINE static void unpack(const uint8_t* tile, Panel& p) {
        store(p.d, load_f16((const uint16_t*)tile));
        for (int i = 0; i < 16; i++) {
            const Bytes plane = bload(tile + kQ + 64 * i);
            for_constants<4>([&]<int Quarter>() TL_LAMBDA {
                bstore(p.q[32 * (i / 8) + 8 * Quarter + i % 8], weights<Quarter>(plane));
            });
        }
    }

    template <int T>
    TL_INLINE static void panel_dot(const Panel& p, int b, const ActRows& x, Regs<F32, T>& acc) {
        Regs<const int8_t*, T> a = columns<T>(x, 256 * b);
        Regs<I32, T> sums;
        start<T>(b, x, sums);
        TL_UNROLL(1)
        for (int first = 0; first < 64; first += 16) {
            TL_UNROLL(16)
            for (int g = 0; g < 16; g++) {
                const Bytes w = bload(p.q[first + g]);
                each(sums, a, [&](int, I32& v, const int8_t*& row) TL_LAMBDA { dot4_small(v, w, row + 4 * g); });
            }
            each(a, [](int, const int8_t*& row) TL_LAMBDA { row += 64; });
        }
        finish<T>(load(p.d), sums, b, x, acc);
    }

    template <class Put> TL_INLINE static void widen(const Panel& p, Put put) {
        const F32 d = load(p.d), one = set1(1);
        widen_groups(p.q, 0, 64, [&](F32 q) TL_LAMBDA { return d * (q - one); }, put);
    }
};

}  // namespace tl::TL_LEVEL
