// Weights of one or two bits with one scale d per block and no other number: Q1_0 and Q2_0.
//
// In the file a block is 18 bytes: d (f16), q[16], with weight i in bits i * kBits of q, the lowest first. A weight is
// d * (q - 1) of two bits, d * (2q - 1) of one.
//
// Packed, a block of 16 rows is the same 16 * 18 = 288 bytes: d[16] f16 | planes[4][64]. Byte c < 4 of dword lane r of plane
// v holds, for k < 8 / kBits, column 4 (8 / kBits v + k) + c of row r in bits k * kBits: a shift and an AND make a
// column group of four.
//
// Arithmetic per 32 elements and (row, token), a = int8 activations with scale s:
//   I = q . a - sum(a), or 2 (q . a) - sum(a)   exact int32;   acc += (d * s) * I
#pragma once

#include "quants/format.h"

namespace tl::TL_LEVEL {

template <int kTypeNumber, int kBits> struct BitCodes {
    static constexpr int kType = kTypeNumber;
    static constexpr int kBlock = 128 / kBits;
    static constexpr size_t kBlockBytes = 18;
    static constexpr size_t kTileBlockBytes = 288;
    static constexpr ActFormat kActivations = ActFormat::kInt8x32;
    static_assert(kTileBlockBytes == kTileRows * kBlockBytes);

    static constexpr size_t kQ = 32;  // offset in a packed block
    static constexpr int kParts = kBlock / 32, kFactor = kBits == 1 ? 2 : 1;

    static int code(const uint8_t* block, int i) {
        return block[2 + i * kBits / 8] >> (i * kBits % 8) & ((1 << kBits) - 1);
    }

    static void decode_block(const uint8_t* block, float* out) {
        const float d = read_f16(block);
        for (int i = 0; i < kBlock; i++) out[i] = d * float(kFactor * code(block, i) - 1);
    }

    static void pack_block(const uint8_t* const* rows, uint8_t* tile) {
        interleave2(rows, 0, tile);
        std::memset(tile + kQ, 0, 256);
        for (int r = 0; r < kTileRows; r++) {
            for (int i = 0; i < kBlock && rows[r]; i++) {
                const int group = i / 4, plane = group * kBits / 8, shift = group * kBits % 8;
                uint8_t& to = tile[kQ + size_t(64 * plane + 4 * r + i % 4)];
                to = uint8_t(to | code(rows[r], i) << shift);
            }
        }
    }

    // Calls f(group, weights) for the eight column groups of 32 columns.
    template <int T, class F> TL_INLINE static void for_groups(const uint8_t* tile, int part, F f) {
        for_constants<kBits>([&]<int Plane>() TL_LAMBDA {
            const Bytes v = stream<T>(tile + kQ + 64 * (kBits * part + Plane));
            for_constants<8 / kBits>([&]<int K>() TL_LAMBDA {
                f(Plane * (8 / kBits) + K, (K ? bshift_right<kBits * K>(v) : v) & bset1((1 << kBits) - 1));
            });
        });
    }

    template <int T>
    TL_INLINE static void finish(F32 d, Regs<I32, T>& sums, int part, const ActRows& x, Regs<F32, T>& acc) {
        each(sums, acc, [&](int t, I32& i, F32& f) TL_LAMBDA {
            const I32 sum = shift_left<kFactor - 1>(i) - iset1(x.sum32<int32_t>(t)[part]);
            f = fma(d * set1(x.scale(t)[part]), to_float(sum), f);
        });
    }

    template <int T>
    TL_INLINE static void dot(const uint8_t* tile, int b, const ActRows& x, Regs<F32, T>& acc) {
        Regs<const int8_t*, T> a = columns<T>(x, kBlock * b);
        const F32 d = stream_f16<T>(tile);
        TL_UNROLL(1)
        for (int part = 0; part < kParts; part++) {
            Regs<I32, T> sums;
            clear(sums);
            for_groups<T>(tile, part, [&](int g, Bytes w) TL_LAMBDA {
                each(sums, a, [&](int, I32& v, const int8_t*& row) TL_LAMBDA { dot4_small(v, w, row + 4 * g); });
            });
            finish<T>(d, sums, kParts * b + part, x, acc);
            each(a, [](int, const int8_t*& row) TL_LAMBDA { row += 32; });
        }
    }

    struct alignas(64) Panel {
        uint8_t q[kBlock / 4][64];  // [column group of 4][row, column]
        float d[16];
    };

    TL_INLINE static void unpack(const uint8_t* tile, Panel& p) {
        store(p.d, load_f16((const uint16_t*)tile));
        for (int part = 0; part < kParts; part++) {
            for_groups<0>(tile, part, [&](int g, Bytes w) TL_LAMBDA { bstore(p.q[8 * part + g], w); });
        }
    }

    template <int T>
    TL_INLINE static void panel_dot(const Panel& p, int b, const ActRows& x, Regs<F32, T>& acc) {
        Regs<const int8_t*, T> a = columns<T>(x, kBlock * b);
        TL_UNROLL(1)
        for (int part = 0; part < kParts; part++) {
            Regs<I32, T> sums;
            clear(sums);
            TL_UNROLL(8)
            for (int g = 0; g < 8; g++) {
                const Bytes w = bload(p.q[8 * part + g]);
                each(sums, a, [&](int, I32& v, const int8_t*& row) TL_LAMBDA { dot4_small(v, w, row + 4 * g); });
            }
            finish<T>(load(p.d), sums, kParts * b + part, x, acc);
            each(a, [](int, const int8_t*& row) TL_LAMBDA { row += 32; });
        }
    }

    template <class Put> TL_INLINE static void widen(const Panel& p, Put put) {
        const F32 d = load(p.d), one = set1(1), factor = set1(kFactor);
        widen_groups(p.q, 0, kBlock / 4, [&](F32 q) TL_LAMBDA { return d * (factor * q - one); }, put);
    }
};

}  // namespace tl::TL_LEVEL
