// Q4_K: 4-bit weights in super-blocks of 256 with 6-bit scales and minima. 4.5 bits per weight.
//
// In the file a block is 144 bytes: d (f16), dmin (f16), scales[12], qs[128]. Sub-block s (32 elements) has a 6-bit
// scale sc and minimum m; an element is d * sc * q - dmin * m. qs byte 32c + l holds element 64c + l in its low
// nibble (sub-block 2c) and 64c + 32 + l in its high nibble (2c + 1).
// scales: j < 4: sc = b[j] & 63, m = b[j + 4] & 63; else sc = (b[j + 4] & 15) | (b[j - 4] >> 6) << 4,
//         m = (b[j + 4] >> 4) | (b[j] >> 6) << 4.
//
// Packed, a block of 16 rows is the same 16 * 144 = 2304 bytes:
//   d[16] f16 | dmin[16] f16 | low[2][64] | high[64] | q[32][64]
//   q[8c + j]: dword lane r = bytes 32c + 4j .. + 3 of row r
//   low[h] byte p: low nibble = low 4 bits of sc of (sub-block 4h + p / 16, row p % 16),
//                  high nibble = low 4 bits of m of (sub-block 4h + 2 (p / 32) + p % 2, row p % 32 / 2)
//   high byte p: the two top bits of: sc of low[0][p], sc of low[1][p], m of low[0][p], m of low[1][p]
// Minima lie as pairs of sub-blocks per row, so that one 16-bit dot product handles two sub-blocks.
//
// Arithmetic per 256 elements and (row, token), a = int8 activations with scale s:
//   I = sum over sub-blocks sc * (q . a)   exact int32, |I| <= 256 * 15 * 63 * 127 = 3.1e7
//   M = sum over sub-blocks m * sum(a)     exact int32
//   acc += s * (d * I - dmin * M)          three float roundings, blocks in ascending order
#pragma once

#include "quants/format.h"

namespace tl::TL_LEVEL {

struct Q4K {
    static constexpr int kType = 12;
    static constexpr int kBlock = 256;
    static constexpr size_t kBlockBytes = 144;
    static constexpr size_t kTileBlockBytes = 2304;
    static constexpr ActFormat kActivations = ActFormat::kInt8x256;
    static_assert(kTileBlockBytes == kTileRows * kBlockBytes);

    static constexpr size_t kLow = 64, kHigh = 192, kQ = 256;  // offsets in a packed block

    static void scale_and_min(const uint8_t* b, int j, int& sc, int& m) {
        if (j < 4) {
            sc = b[j] & 63;
            m = b[j + 4] & 63;
        } else {
            sc = (b[j + 4] & 15) | (b[j - 4] >> 6) << 4;
            m = (b[j + 4] >> 4) | (b[j] >> 6) << 4;
        }
    }

    static void decode_block(const uint8_t* block, float* out) {
        const float d = read_f16(block), dmin = read_f16(block + 2);
        for (int s = 0; s < 8; s++) {
            int sc, m;
            scale_and_min(block + 4, s, sc, m);
            const uint8_t* q = block + 16 + 32 * (s / 2);
            const float scale = d * float(sc), minimum = dmin * float(m);
            for (int l = 0; l < 32; l++) {
                const int nibble = s % 2 ? q[l] >> 4 : q[l] & 15;
                out[32 * s + l] = scale * float(nibble) - minimum;
            }
        }
    }

    // The first 256 bytes of a packed block.
    static void pack_scales(const uint8_t* const* rows, uint8_t* tile) {
        interleave2(rows, 0, tile);
        interleave2(rows, 2, tile + 32);
        uint8_t sc[8][16] = {}, m[8][16] = {};
        for (int r = 0; r < kTileRows; r++) {
            for (int s = 0; s < 8 && rows[r]; s++) {
                int scale, minimum;
                scale_and_min(rows[r] + 4, s, scale, minimum);
                sc[s][r] = uint8_t(scale);
                m[s][r] = uint8_t(minimum);
            }
        }
        for (int p = 0; p < 64; p++) {
            uint8_t high = 0;
            for (int h = 0; h < 2; h++) {
                const int scale = sc[4 * h + p / 16][p % 16];
                const int minimum = m[4 * h + 2 * (p / 32) + p % 2][p % 32 / 2];
                tile[kLow + 64 * h + p] = uint8_t((scale & 15) | (minimum & 15) << 4);
                high |= uint8_t((scale >> 4) << (2 * h) | (minimum >> 4) << (4 + 2 * h));
            }
            tile[kHigh + p] = high;
        }
    }

    static void pack_block(const uint8_t* const* rows, uint8_t* tile) {
        pack_scales(rows, tile);
        for (int j = 0; j < 32; j++) interleave4(rows, 16 + 4 * j, tile + kQ + 64 * j);
    }

    // The 6-bit scales as bytes [8 sub-blocks][16 rows] and minima as bytes [4 pairs][16 rows][2].
    struct alignas(64) Scales {
        uint8_t sc[128];
        uint8_t m[128];
    };

    TL_INLINE static void unpack_scales(const uint8_t* tile, Scales& s) {
        const Bytes low0 = bload(tile + kLow), low1 = bload(tile + kLow + 64), high = bload(tile + kHigh);
        const Bytes nibble = bset1(0x0f), top = bset1(0x30);
        bstore(s.sc, (low0 & nibble) | (bshift_left<4>(high) & top));
        bstore(s.sc + 64, (low1 & nibble) | (bshift_left<2>(high) & top));
        bstore(s.m, (bshift_right<4>(low0) & nibble) | (high & top));
        bstore(s.m + 64, (bshift_right<4>(low1) & nibble) | (bshift_right<2>(high) & top));
    }

    // M of T tokens.
    template <int T>
    TL_INLINE static void dot_minima(const Scales& s, int b, const ActRows& x, Regs<I32, T>& minima) {
        clear(minima);
        TL_UNROLL(4)
        for (int g = 0; g < 4; g++) {
            const Bytes pair = widen_u8(s.m + 32 * g);
            each(minima, [&](int t, I32& v) { dot2(v, pair, x.sum32<int16_t>(t) + 8 * b + 2 * g); });
        }
    }

    // acc += s * (d * I - dmin * M), the one place where floats are rounded.
    template <int T>
    TL_INLINE static void finish(F32 d, F32 dmin, Regs<I32, T>& sums, Regs<I32, T>& minima, const ActRows& x, int b,
                                 Regs<F32, T>& acc) {
        each(sums, minima, acc, [&](int t, I32& i, I32& m, F32& f) {
            f = fma(fms(d, to_float(i), dmin * to_float(m)), set1(x.scale(t)[b]), f);
        });
    }

    // Per chunk of 64 columns: 8 loads, 16 ANDs, 16 T dot products; per sub-block one integer multiply-add.
    template <int T>
    TL_INLINE static void dot(const uint8_t* tile, int b, const ActRows& x, Regs<F32, T>& acc) {
        Scales scales;
        unpack_scales(tile, scales);
        Regs<I32, T> sums, minima;
        clear(sums);
        dot_minima<T>(scales, b, x, minima);
        const Bytes low_mask = bset1(0x0f), high_mask = bset1(0xf0);
        TL_UNROLL(4)
        for (int c = 0; c < 4; c++) {
            Regs<I32, T> low, high;
            clear(low);
            clear(high);
            TL_UNROLL(8)
            for (int j = 0; j < 8; j++) {
                const Bytes v = bload(tile + kQ + 512 * c + 64 * j);
                const Bytes lo = v & low_mask;
                const Bytes hi = kWideDot ? v & high_mask : bshift_right<4>(v) & low_mask;
                each(low, high, [&](int t, I32& l, I32& h) {
                    const int8_t* a = x.q(t) + 256 * b + 64 * c + 4 * j;
                    dot4_small(l, lo, a);
                    if constexpr (kWideDot)
                        dot4(h, hi, a + 32);
                    else
                        dot4_small(h, hi, a + 32);
                });
            }
            const I32 sc0 = load_u8(scales.sc + 32 * c), sc1 = load_u8(scales.sc + 32 * c + 16);
            each(sums, low, high,
                 [&](int, I32& s, I32& l, I32& h) { s = s + l * sc0 + (kWideDot ? shift_right<4>(h) : h) * sc1; });
        }
        finish<T>(load_f16((const uint16_t*)tile), load_f16((const uint16_t*)(tile + 32)), sums, minima, x, b, acc);
    }

    struct alignas(64) Panel {
        uint8_t q[64][64];  // [column group of 4][row, column]
        int32_t sc[8][16];  // [sub-block][row]
        uint8_t m[4][64];   // [pair of sub-blocks][row, 2] as int16
        float d[16], dmin[16];
    };

    // All of a panel but q.
    TL_INLINE static void unpack_scales(const uint8_t* tile, Panel& p) {
        Scales scales;
        unpack_scales(tile, scales);
        for (int s = 0; s < 8; s++) istore(p.sc[s], load_u8(scales.sc + 16 * s));
        for (int g = 0; g < 4; g++) bstore(p.m[g], widen_u8(scales.m + 32 * g));
        store(p.d, load_f16((const uint16_t*)tile));
        store(p.dmin, load_f16((const uint16_t*)(tile + 32)));
    }

    TL_INLINE static void unpack(const uint8_t* tile, Panel& p) {
        unpack_scales(tile, p);
        const Bytes mask = bset1(0x0f);
        for (int c = 0; c < 4; c++) {
            for (int j = 0; j < 8; j++) {
                const Bytes v = bload(tile + kQ + 512 * c + 64 * j);
                bstore(p.q[16 * c + j], v & mask);
                bstore(p.q[16 * c + 8 + j], bshift_right<4>(v) & mask);
            }
        }
    }

    template <int T>
    TL_INLINE static void panel_dot(const Panel& p, int b, const ActRows& x, Regs<F32, T>& acc) {
        Regs<I32, T> sums;
        clear(sums);
        for (int s = 0; s < 8; s++) {
            Regs<I32, T> part;
            clear(part);
            TL_UNROLL(8)
            for (int j = 0; j < 8; j++) {
                const Bytes w = bload(p.q[8 * s + j]);
                each(part, [&](int t, I32& v) { dot4_small(v, w, x.q(t) + 256 * b + 32 * s + 4 * j); });
            }
            const I32 sc = iload(p.sc[s]);
            each(sums, part, [&](int, I32& i, I32& v) { i = i + v * sc; });
        }
        Regs<I32, T> minima;
        clear(minima);
        TL_UNROLL(4)
        for (int g = 0; g < 4; g++) {
            const Bytes pair = bload(p.m[g]);
            each(minima, [&](int t, I32& v) { dot2(v, pair, x.sum32<int16_t>(t) + 8 * b + 2 * g); });
        }
        finish<T>(load(p.d), load(p.dmin), sums, minima, x, b, acc);
    }
};

}  // namespace tl::TL_LEVEL
