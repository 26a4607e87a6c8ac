// Q6_K: 6-bit weights in super-blocks of 256 with 8-bit scales per 16. 6.5625 bits per weight.
//
// In the file a block is 210 bytes: ql[128], qh[64], scales[16] (int8), d (f16). For half n (128 elements), quarter
// t < 4 and l < 32, element 128n + 32t + l is d * sc[8n + 2t + (l >= 16)] * (q - 32), with
//   q = nibble of ql[64n + 32 (t & 1) + l] (low if t < 2, else high) | ((qh[32n + l] >> 2t) & 3) << 4
//
// Packed, a block of 16 rows is the same 16 * 210 = 3360 bytes:
//   d[16] f16 | scales[16 sub-blocks][16 rows] int8 | per half n, j < 8: even[64] odd[64] top[64]
//   even, odd: dword lane r = ql[64n + 4j ..] and ql[64n + 32 + 4j ..] of row r; top: qh[32n + 4j ..]
// The three planes of a column group lie together, so a thread reads one sequential stream.
//
// Arithmetic per 256 elements and (row, token), a = int8 activations with scale s:
//   I = sum over sub-blocks sc * (q . a - 32 sum(a))   exact int32, |I| <= 256 * 32 * 128 * 127 = 1.4e8
//   acc += (d * s) * I
// The offset costs nothing: the accumulator starts at -32 sum(a).
// With a full-range dot product the planes are multiplied in place, unshifted: nibble planes and 2-bit planes in
// separate accumulators, combined by shifts once per 16 columns (8 ANDs instead of 14 logic operations per group).
#pragma once

#include "quants/format.h"

namespace tl::TL_LEVEL {

struct Q6K {
    static constexpr int kType = 14;
    static constexpr int kBlock = 256;
    static constexpr size_t kBlockBytes = 210;
    static constexpr size_t kTileBlockBytes = 3360;
    static constexpr ActFormat kActivations = ActFormat::kInt8x256;
    static_assert(kTileBlockBytes == kTileRows * kBlockBytes);

    static constexpr size_t kScales = 32, kQ = 288;  // offsets in a packed block

    static void decode_block(const uint8_t* block, float* out) {
        const uint8_t *ql = block, *qh = block + 128;
        const int8_t* scales = (const int8_t*)block + 192;
        const float d = read_f16(block + 208);
        for (int n = 0; n < 2; n++) {
            for (int t = 0; t < 4; t++) {
                for (int l = 0; l < 32; l++) {
                    const int byte = ql[64 * n + 32 * (t & 1) + l];
                    const int q = (t < 2 ? byte & 15 : byte >> 4) | ((qh[32 * n + l] >> (2 * t)) & 3) << 4;
                    out[128 * n + 32 * t + l] = d * float(scales[8 * n + 2 * t + l / 16]) * float(q - 32);
                }
            }
        }
    }

    static void pack_block(const uint8_t* const* rows, uint8_t* tile) {
        interleave2(rows, 208, tile);
        for (int r = 0; r < kTileRows; r++) {
            for (int s = 0; s < 16; s++) tile[kScales + 16 * s + r] = rows[r] ? rows[r][192 + s] : 0;
        }
        for (int n = 0; n < 2; n++) {
            for (int j = 0; j < 8; j++) {
                uint8_t* group = tile + kQ + 192 * (8 * n + j);
                interleave4(rows, 64 * n + 4 * j, group);
                interleave4(rows, 64 * n + 32 + 4 * j, group + 64);
                interleave4(rows, 128 + 32 * n + 4 * j, group + 128);
            }
        }
    }

    template <int T>
    TL_INLINE static void finish(F32 d, Regs<I32, T>& sums, const ActRows& x, int b, Regs<F32, T>& acc) {
        each(sums, acc, [&](int t, I32& i, F32& f) { f = fma(d * set1(x.scale(t)[b]), to_float(i), f); });
    }

    // Sixteen columns of each of the four quarters: half n, part h (columns 16h .. 16h + 15 of each quarter).
    template <int T>
    TL_INLINE static void dot_part(const uint8_t* tile, int n, int h, int b, const ActRows& x, Regs<I32, T>& sums) {
        const int8_t* scales = (const int8_t*)tile + kScales + 16 * (8 * n + h);
        const uint8_t* group = tile + kQ + 192 * (8 * n + 4 * h);
        // Two quarters at a time (pass p: quarters 2p and 2p + 1) bounds the live registers.
        TL_UNROLL(2)
        for (int p = 0; p < 2; p++) {
            Regs<I32, T> even, odd, even_top, odd_top;
            each(even, odd, [&](int t, I32& e, I32& o) {
                const int16_t* sum = x.sum16(t) + 16 * b + 8 * n + 4 * p + h;
                // High nibbles count 16 times until the shift below.
                const int offset = kWideDot && p ? -512 : -32;
                e = iset1(offset * sum[0]);
                o = iset1(offset * sum[2]);
            });
            clear(even_top);
            clear(odd_top);
            TL_UNROLL(4)
            for (int j = 0; j < 4; j++) {
                const Bytes ql0 = bload(group + 192 * j), ql1 = bload(group + 192 * j + 64),
                            qh = bload(group + 192 * j + 128);
                const int column = 256 * b + 128 * n + 64 * p + 16 * h + 4 * j;
                if constexpr (kWideDot) {
                    const Bytes nibble = bset1(p ? 0xf0 : 0x0f);
                    const Bytes e = ql0 & nibble, o = ql1 & nibble;
                    const Bytes te = qh & bset1(p ? 0x30 : 0x03), to = qh & bset1(p ? 0xc0 : 0x0c);
                    each(even, even_top, [&](int t, I32& v, I32& top) {
                        dot4(v, e, x.q(t) + column);
                        dot4(top, te, x.q(t) + column);
                    });
                    each(odd, odd_top, [&](int t, I32& v, I32& top) {
                        dot4(v, o, x.q(t) + column + 32);
                        dot4(top, to, x.q(t) + column + 32);
                    });
                } else {
                    const Bytes nibble = bset1(0x0f), two = bset1(0x30);
                    const Bytes e =
                        p ? (bshift_right<4>(ql0) & nibble) | (qh & two) : (ql0 & nibble) | (bshift_left<4>(qh) & two);
                    const Bytes o = p ? (bshift_right<4>(ql1) & nibble) | (bshift_right<2>(qh) & two)
                                      : (ql1 & nibble) | (bshift_left<2>(qh) & two);
                    each(even, odd, [&](int t, I32& v, I32& w) {
                        dot4_small(v, e, x.q(t) + column);
                        dot4_small(w, o, x.q(t) + column + 32);
                    });
                }
            }
            const I32 sc_even = load_i8(scales + 16 * (4 * p)), sc_odd = load_i8(scales + 16 * (4 * p + 2));
            each(sums, even, even_top, [&](int, I32& s, I32& v, I32& top) {
                if constexpr (kWideDot) v = p ? shift_right<4>(v) + top : v + shift_left<4>(top);
                s = s + v * sc_even;
            });
            each(sums, odd, odd_top, [&](int, I32& s, I32& v, I32& top) {
                if constexpr (kWideDot) v = p ? shift_right<4>(v) + shift_right<2>(top) : v + shift_left<2>(top);
                s = s + v * sc_odd;
            });
        }
    }

    template <int T>
    TL_INLINE static void dot(const uint8_t* tile, int b, const ActRows& x, Regs<F32, T>& acc) {
        Regs<I32, T> sums;
        clear(sums);
        TL_UNROLL(1)
        for (int part = 0; part < 4; part++) dot_part<T>(tile, part / 2, part % 2, b, x, sums);
        finish<T>(load_f16((const uint16_t*)tile), sums, x, b, acc);
    }

    struct alignas(64) Panel {
        uint8_t q[64][64];   // [column group of 4][row, column], 0 .. 63
        int32_t sc[16][16];  // [sub-block][row]
        float d[16];
    };

    TL_INLINE static void unpack(const uint8_t* tile, Panel& p) {
        store(p.d, load_f16((const uint16_t*)tile));
        for (int s = 0; s < 16; s++) istore(p.sc[s], load_i8((const int8_t*)tile + kScales + 16 * s));
        const Bytes nibble = bset1(0x0f), two = bset1(0x30);
        for (int n = 0; n < 2; n++) {
            for (int j = 0; j < 8; j++) {
                const uint8_t* group = tile + kQ + 192 * (8 * n + j);
                const Bytes ql0 = bload(group), ql1 = bload(group + 64), qh = bload(group + 128);
                bstore(p.q[32 * n + j], (ql0 & nibble) | (bshift_left<4>(qh) & two));
                bstore(p.q[32 * n + 8 + j], (ql1 & nibble) | (bshift_left<2>(qh) & two));
                bstore(p.q[32 * n + 16 + j], (bshift_right<4>(ql0) & nibble) | (qh & two));
                bstore(p.q[32 * n + 24 + j], (bshift_right<4>(ql1) & nibble) | (bshift_right<2>(qh) & two));
            }
        }
    }

    template <int T>
    TL_INLINE static void panel_dot(const Panel& p, int b, const ActRows& x, Regs<F32, T>& acc) {
        Regs<I32, T> sums;
        clear(sums);
        for (int s = 0; s < 16; s++) {
            Regs<I32, T> part;
            each(part, [&](int t, I32& v) { v = iset1(-32 * x.sum16(t)[16 * b + s]); });
            TL_UNROLL(4)
            for (int j = 0; j < 4; j++) {
                const Bytes w = bload(p.q[4 * s + j]);
                each(part, [&](int t, I32& v) { dot4_small(v, w, x.q(t) + 256 * b + 16 * s + 4 * j); });
            }
            const I32 sc = iload(p.sc[s]);
            each(sums, part, [&](int, I32& i, I32& v) { i = i + v * sc; });
        }
        finish<T>(load(p.d), sums, x, b, acc);
    }
};

}  // namespace tl::TL_LEVEL
