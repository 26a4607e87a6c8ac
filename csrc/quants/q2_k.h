// Q2_K: 2-bit weights in super-blocks of 256 with 4-bit scales and minima per 16. 2.625 bits per weight.
//
// In the file a block is 84 bytes: scales[16], qs[64], d (f16), dmin (f16). Sub-block s (16 elements) has the scale
// sc = scales[s] & 15 and the minimum m = scales[s] >> 4; an element is d * sc * q - dmin * m. For half n (128
// elements), quarter t < 4 and l < 32, q of element 128n + 32t + l is (qs[32n + l] >> 2t) & 3; s = 8n + 2t + (l >= 16).
//
// Packed, a block of 16 rows is the same 16 * 84 = 1344 bytes:
//   d[16] f16 | dmin[16] f16 | scales[8 pairs of sub-blocks][16 rows][2] | q[2][8][64]
//   q[n][j]: dword lane r = bytes 32n + 4j .. + 3 of row r
//
// Arithmetic per 256 elements and (row, token), a = int8 activations with scale s:
//   I = sum over sub-blocks sc * (q . a)   exact int32, |I| <= 256 * 15 * 3 * 127 = 1.5e6
//   M = sum over sub-blocks m * sum(a)     exact int32
//   acc += s * (d * I - dmin * M)          three float roundings, blocks in ascending order
// Few tokens: quarters are multiplied in place (4^t times too large). Sums of a sub-block fit in 16 bits, so one dot
// product of 16-bit pairs scales two of them.
// Many tokens: the panel holds the products sc * q, at most 45, and nothing is left to scale.
#pragma once

#include "quants/q4_k.h"

namespace tl::TL_LEVEL {

struct Q2K {
    static constexpr int kType = 10;
    static constexpr int kBlock = 256;
    static constexpr size_t kBlockBytes = 84;
    static constexpr size_t kTileBlockBytes = 1344;
    static constexpr ActFormat kActivations = ActFormat::kInt8x256;
    static_assert(kTileBlockBytes == kTileRows * kBlockBytes);

    static constexpr size_t kScales = 64, kQ = 320;  // offsets in a packed block

    static void decode_block(const uint8_t* block, float* out) {
        const float d = read_f16(block + 80), dmin = read_f16(block + 82);
        for (int i = 0; i < 256; i++) {
            const int sc = block[i / 16] & 15, m = block[i / 16] >> 4;
            const int q = block[16 + 32 * (i / 128) + i % 32] >> (2 * (i / 32 % 4)) & 3;
            out[i] = d * float(sc) * float(q) - dmin * float(m);
        }
    }

    static void pack_block(const uint8_t* const* rows, uint8_t* tile) {
        interleave2(rows, 80, tile);
        interleave2(rows, 82, tile + 32);
        for (int pair = 0; pair < 8; pair++) interleave2(rows, 2 * pair, tile + kScales + 32 * pair);
        for (int j = 0; j < 16; j++) interleave4(rows, 16 + 4 * j, tile + kQ + 64 * j);
    }

    // The scales and the minima of a pair of sub-blocks as int16 halves of each row's lane.
    TL_INLINE static Bytes scale_pair(const uint8_t* tile, int pair) {
        return widen_u8(tile + kScales + 32 * pair) & bset1(0x0f);
    }
    TL_INLINE static Bytes minimum_pair(const uint8_t* tile, int pair) {
        return bshift_right<4>(widen_u8(tile + kScales + 32 * pair));
    }

    // The weights of one quarter, 2^kShift<Quarter> times too large.
    template <int Quarter> static constexpr int kShift = kWideDot || Quarter < 3 ? 2 * Quarter : 4;
    template <int Quarter> TL_INLINE static Bytes weights(Bytes v) {
        if constexpr (2 * Quarter != kShift<Quarter>) v = bshift_right<2>(v);
        return v & bset1(uint8_t(3 << kShift<Quarter>));
    }

    template <int T>
    TL_INLINE static void dot_minima(const uint8_t* tile, int b, const ActRows& x, Regs<I32, T>& minima) {
        clear(minima);
        TL_UNROLL(8)
        for (int pair = 0; pair < 8; pair++) {
            const Bytes m = minimum_pair(tile, pair);
            each(minima, [&](int t, I32& v) TL_LAMBDA { dot2(v, m, x.sum16(t) + 16 * b + 2 * pair); });
        }
    }

    // Per quarter of a half: 8 loads, 8 ANDs, 8 T dot products; 5 T operations to scale.
    template <int T>
    TL_INLINE static void dot(const uint8_t* tile, int b, const ActRows& x, Regs<F32, T>& acc) {
        Regs<const int8_t*, T> a = columns<T>(x, 256 * b);
        Regs<I32, T> sums, minima;
        clear(sums);
        for (int i = 0; i < int(kTileBlockBytes); i += 64) stream_line<T>(tile + i);
        TL_UNROLL(1)
        for (int n = 0; n < 2; n++) {
            const uint8_t* q = tile + kQ + 512 * n;
            for_constants<4>([&]<int Quarter>() TL_LAMBDA {
                Regs<I32, T> first, second;
                clear(first);
                clear(second);
                TL_UNROLL(4)
                for (int j = 0; j < 4; j++) {
                    const Bytes w = weights<Quarter>(bload(q + 64 * j)), v = weights<Quarter>(bload(q + 256 + 64 * j));
                    each(first, second, a, [&](int, I32& f, I32& s, const int8_t*& row) TL_LAMBDA {
                        dot4_nibbles(f, w, row + 32 * Quarter + 4 * j);
                        dot4_nibbles(s, v, row + 32 * Quarter + 16 + 4 * j);
                    });
                }
                const Bytes scales = scale_pair(tile, 4 * n + Quarter);
                each(first, second, sums, [&](int, I32& f, I32& s, I32& i) TL_LAMBDA {
                    dot2(i, join_halves<kShift<Quarter>, kShift<Quarter>>(f, s), scales);
                });
            });
            each(a, [](int, const int8_t*& row) TL_LAMBDA { row += 128; });
        }
        dot_minima<T>(tile, b, x, minima);
        Q4K::finish<T>(load_f16((const uint16_t*)tile), load_f16((const uint16_t*)(tile + 32)), sums, minima, x, b,
                       acc);
    }

    struct alignas(64) Panel {
        uint8_t w[64][64];  // [column group of 4][row, column]: sc * q
        uint8_t m[8][64];   // [pair of sub-blocks][row, 2] as int16
        float d[16], dmin[16];
    };

    TL_INLINE static void unpack(const uint8_t* tile, Panel& p) {
        store(p.d, load_f16((const uint16_t*)tile));
        store(p.dmin, load_f16((const uint16_t*)(tile + 32)));
        TL_UNROLL(1)
        for (int n = 0; n < 2; n++) {
            for_constants<4>([&]<int Quarter>() TL_LAMBDA {
                const int pair = 4 * n + Quarter;
                bstore(p.m[pair], minimum_pair(tile, pair));
                const Bytes scales = scale_pair(tile, pair);
                const I32 first = low_halves(scales), second = high_halves(scales);
                const Bytes factor[2] = {join_halves<0, 0>(first, first), join_halves<0, 0>(second, second)};
                TL_UNROLL(8)
                for (int j = 0; j < 8; j++) {
                    const Bytes v = weights<Quarter>(bload(tile + kQ + 512 * n + 64 * j));
                    // Two bytes in one product: none exceeds 45, so nothing is carried.
                    bstore(p.w[8 * pair + j], multiply16(bshift_right<kShift<Quarter>>(v), factor[j / 4]));
                }
            });
        }
    }

    template <int T>
    TL_INLINE static void panel_dot(const Panel& p, int b, const ActRows& x, Regs<F32, T>& acc) {
        Regs<const int8_t*, T> a = columns<T>(x, 256 * b);
        Regs<I32, T> sums, minima;
        clear(sums);
        TL_UNROLL(1)
        for (int first = 0; first < 64; first += 16) {
            TL_UNROLL(16)
            for (int g = 0; g < 16; g++) {
                const Bytes w = bload(p.w[first + g]);
                each(sums, a, [&](int, I32& v, const int8_t*& row) TL_LAMBDA { dot4_small(v, w, row + 4 * g); });
            }
            each(a, [](int, const int8_t*& row) TL_LAMBDA { row += 64; });
        }
        clear(minima);
        TL_UNROLL(8)
        for (int pair = 0; pair < 8; pair++) {
            const Bytes m = bload(p.m[pair]);
            each(minima, [&](int t, I32& v) TL_LAMBDA { dot2(v, m, x.sum16(t) + 16 * b + 2 * pair); });
        }
        Q4K::finish<T>(load(p.d), load(p.dmin), sums, minima, x, b, acc);
    }

    template <class Put> TL_INLINE static void widen(const Panel& p, Put put) {
        const F32 d = load(p.d), dmin = load(p.dmin);
        TL_UNROLL(1)
        for (int s = 0; s < 16; s++) {
            const Bytes pair = bload(p.m[s / 2]);
            const F32 minimum = dmin * to_float(s % 2 ? high_halves(pair) : low_halves(pair));
            widen_groups(p.w, 4 * s, 4, [&](F32 w) TL_LAMBDA { return d * w - minimum; }, put);
        }
    }
};

}  // namespace tl::TL_LEVEL
