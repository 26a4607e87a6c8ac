// Q6_K: 6-bit weights in super-blocks of 256 with 8-bit scales per 16. 6.5625 bits per weight.
//
// In the file a block is 210 bytes: ql[128], qh[64], scales[16] (int8), d (f16). For half n (128 elements), quarter
// t < 4 and l < 32, element 128n + 32t + l is d * sc[8n + 2t + (l >= 16)] * (q - 32), with
//   q = nibble of ql[64n + 32 (t & 1) + l] (low if t < 2, else high) | ((qh[32n + l] >> 2t) & 3) << 4
//
// Packed, a block of 16 rows is the same 16 * 210 = 3360 bytes:
//   d[16] f16 | scales[8 pairs of sub-blocks][16 rows][2] int8 | per half n, j < 8: even[64] odd[64] top[64]
//   even, odd: dword lane r = ql[64n + 4j ..] and ql[64n + 32 + 4j ..] of row r; top: qh[32n + 4j ..]
// The three planes of a column group lie together, so a thread reads one sequential stream.
//
// Arithmetic per 256 elements and (row, token), a = int8 activations with scale s:
//   I = sum over sub-blocks sc * (q . a - 32 sum(a))   exact int32, |I| <= 256 * 32 * 128 * 127 = 1.4e8
//   acc += (d * s) * I
// The offset is a dot product of its own, of scales with sums of a, two sub-blocks in each instruction.
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
            for (int s = 0; s < 16; s++) tile[kScales + 32 * (s / 2) + 2 * r + s % 2] = rows[r] ? rows[r][192 + s] : 0;
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

    // Columns 4j .. 4j + 3 of a quarter of a half, as bytes 0 .. 63, from the three planes of j.
    template <int Quarter> TL_INLINE static Bytes weights(Bytes even, Bytes odd, Bytes top) {
        const Bytes ql = Quarter % 2 ? odd : even, two = bset1(0x30);
        const Bytes low = low_nibbles(Quarter < 2 ? ql : bshift_right<4>(ql));
        if constexpr (Quarter == 0) return low | (bshift_left<4>(top) & two);
        if constexpr (Quarter == 1) return low | (bshift_left<2>(top) & two);
        if constexpr (Quarter == 2) return low | (top & two);
        return low | (bshift_right<2>(top) & two);
    }

    // The scales of sub-blocks 2i and 2i + 1 as int16 halves of each row's lane.
    TL_INLINE static Bytes scale_pair(const uint8_t* tile, int i) {
        return widen_i8((const int8_t*)tile + kScales + 32 * i);
    }

    // I starts at the sum of -32 sc sum(a), two sub-blocks in each 16-bit dot product.
    template <int T>
    TL_INLINE static void start(const uint8_t* tile, int b, const ActRows& x, Regs<I32, T>& sums) {
        clear(sums);
        TL_UNROLL(2)
        for (int i = 0; i < 8; i++) {
            const Bytes pair = scale_pair(tile, i);
            each(sums, [&](int t, I32& v) TL_LAMBDA { dot2(v, pair, x.sum16(t) + 16 * b + 2 * i); });
        }
        each(sums, [](int, I32& v) TL_LAMBDA { v = v * iset1(-32); });
    }

    template <int T>
    TL_INLINE static void finish(F32 d, Regs<I32, T>& sums, const ActRows& x, int b, Regs<F32, T>& acc) {
        each(sums, acc, [&](int t, I32& i, F32& f) TL_LAMBDA { f = fma(d * set1(x.scale(t)[b]), to_float(i), f); });
    }

    // sums += sc * part, for a quarter of half n and 16 of its 32 columns.
    template <int Half, int T>
    TL_INLINE static void add_scaled(const uint8_t* tile, int pair, Regs<I32, T>& part, Regs<I32, T>& sums) {
        const Bytes scales = scale_pair(tile, pair);
        const I32 sc = Half ? high_halves(scales) : low_halves(scales);
        each(sums, part, [&](int, I32& s, I32& v) TL_LAMBDA {
            s = s + v * sc;
            settle(s);
        });
    }

    // 16 columns of each quarter of half n, all four at once: every plane is loaded once, and the loads come at an even
    // pace, which is what memory is read fastest by (97 % of the speed of reading alone, 83 % with the quarters in turn).
    // Per 4 columns: 3 loads, 14 logic operations, 4 T dot products.
    template <int T, int Half>
    TL_INLINE static void dot_quarters(const uint8_t* tile, int n, Regs<const int8_t*, T>& a, Regs<I32, T>& sums) {
        Regs<I32, T> first, second, third, fourth;
        each(first, second, [](int, I32& v, I32& w) { v = w = izero(); });
        each(third, fourth, [](int, I32& v, I32& w) { v = w = izero(); });
        TL_UNROLL(4)
        for (int j = 4 * Half; j < 4 * Half + 4; j++) {
            const uint8_t* group = tile + kQ + 192 * (8 * n + j);
            const Bytes even = stream<T>(group), odd = stream<T>(group + 64), top = stream<T>(group + 128);
            const Bytes w0 = weights<0>(even, odd, top), w1 = weights<1>(even, odd, top);
            each(first, second, a, [&](int, I32& v, I32& w, const int8_t*& row) TL_LAMBDA {
                dot4_small(v, w0, row + 4 * j);
                dot4_small(w, w1, row + 32 + 4 * j);
            });
            const Bytes w2 = weights<2>(even, odd, top), w3 = weights<3>(even, odd, top);
            each(third, fourth, a, [&](int, I32& v, I32& w, const int8_t*& row) TL_LAMBDA {
                dot4_small(v, w2, row + 64 + 4 * j);
                dot4_small(w, w3, row + 96 + 4 * j);
            });
        }
        add_scaled<Half>(tile, 4 * n, first, sums);
        add_scaled<Half>(tile, 4 * n + 1, second, sums);
        add_scaled<Half>(tile, 4 * n + 2, third, sums);
        add_scaled<Half>(tile, 4 * n + 3, fourth, sums);
    }

    // The same one quarter after another, with a quarter of the sums alive; planes come from the L1 cache again.
    template <int T, int Half, int Quarter>
    TL_INLINE static void dot_quarter(const uint8_t* tile, int n, Regs<const int8_t*, T>& a, Regs<I32, T>& sums) {
        Regs<I32, T> part;
        clear(part);
        TL_UNROLL(4)
        for (int j = 4 * Half; j < 4 * Half + 4; j++) {
            const uint8_t* group = tile + kQ + 192 * (8 * n + j);
            if constexpr (Quarter == 0)
                for_constants<3>([&]<int Plane>() TL_LAMBDA { stream_line<T>(group + 64 * Plane); });
            const Bytes w = weights<Quarter>(bload(group), bload(group + 64), bload(group + 128));
            each(part, a,
                 [&](int, I32& v, const int8_t*& row) TL_LAMBDA { dot4_small(v, w, row + 32 * Quarter + 4 * j); });
        }
        add_scaled<Half>(tile, 4 * n + Quarter, part, sums);
    }

    template <int T>
    TL_INLINE static void dot(const uint8_t* tile, int b, const ActRows& x, Regs<F32, T>& acc) {
        Regs<const int8_t*, T> a = columns<T>(x, 256 * b);
        Regs<I32, T> sums;
        for (int i = 0; i < int(kQ); i += 64) stream_line<T>(tile + i);
        start<T>(tile, b, x, sums);
        TL_UNROLL(1)
        for (int n = 0; n < 2; n++) {
            if constexpr (6 * T <= kRegisters - 8) {
                for_constants<2>([&]<int Half>() TL_LAMBDA { dot_quarters<T, Half>(tile, n, a, sums); });
            } else {
                for_constants<4>([&]<int Quarter>() TL_LAMBDA {
                    for_constants<2>([&]<int Half>() TL_LAMBDA { dot_quarter<T, Half, Quarter>(tile, n, a, sums); });
                });
            }
            each(a, [](int, const int8_t*& row) TL_LAMBDA { row += 128; });
        }
        finish<T>(load_f16((const uint16_t*)tile), sums, x, b, acc);
    }

    struct alignas(64) Panel {
        uint8_t q[64][64];   // [column group of 4][row, column], 0 .. 63
        int32_t sc[16][16];  // [sub-block][row]
        float d[16];
    };

    TL_INLINE static void unpack(const uint8_t* tile, Panel& p) {
        store(p.d, load_f16((const uint16_t*)tile));
        for (int i = 0; i < 8; i++) {
            const Bytes scales = scale_pair(tile, i);
            istore(p.sc[2 * i], low_halves(scales));
            istore(p.sc[2 * i + 1], high_halves(scales));
        }
        for (int n = 0; n < 2; n++) {
            for (int j = 0; j < 8; j++) {
                const uint8_t* group = tile + kQ + 192 * (8 * n + j);
                const Bytes even = bload(group), odd = bload(group + 64), top = bload(group + 128);
                for_constants<4>([&]<int Quarter>() TL_LAMBDA {
                    bstore(p.q[32 * n + 8 * Quarter + j], weights<Quarter>(even, odd, top));
                });
            }
        }
    }

    template <int T>
    TL_INLINE static void panel_dot(const Panel& p, int b, const ActRows& x, Regs<F32, T>& acc) {
        Regs<const int8_t*, T> a = columns<T>(x, 256 * b);
        Regs<I32, T> sums;
        clear(sums);
        TL_UNROLL(1)
        for (int s = 0; s < 16; s++) {
            Regs<I32, T> part;
            each(part, [&](int t, I32& v) TL_LAMBDA { v = iset1(-32 * x.sum16(t)[16 * b + s]); });
            TL_UNROLL(4)
            for (int j = 0; j < 4; j++) {
                const Bytes w = bload(p.q[4 * s + j]);
                each(part, a, [&](int, I32& v, const int8_t*& row) TL_LAMBDA { dot4_small(v, w, row + 4 * j); });
            }
            const I32 sc = iload(p.sc[s]);
            each(sums, part, [&](int, I32& i, I32& v) TL_LAMBDA {
                i = i + v * sc;
                settle(i);
            });
            each(a, [](int, const int8_t*& row) TL_LAMBDA { row += 16; });
        }
        finish<T>(load(p.d), sums, x, b, acc);
    }

    template <class Put> TL_INLINE static void widen(const Panel& p, Put put) {
        const F32 d = load(p.d), zero = set1(32);
        TL_UNROLL(1)
        for (int s = 0; s < 16; s++) {
            const F32 scale = d * to_float(iload(p.sc[s]));
            widen_groups(p.q, 4 * s, 4, [&](F32 q) TL_LAMBDA { return scale * (q - zero); }, put);
        }
    }
};

}  // namespace tl::TL_LEVEL
