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
//   low[h]: byte i of dword lane r: low nibble = low 4 bits of sc of (sub-block 4h + i, row r),
//           high nibble = low 4 bits of m of (sub-block 4h + {0, 2, 1, 3}[i], row r)
//   high: the two top bits of, in each byte: sc of low[0], sc of low[1], m of low[0], m of low[1]
// So a row's scales stay in its dword lane and a shift takes them out. Minima of sub-blocks 2g and 2g + 1 are the two
// 16-bit halves of a lane once every other byte is masked off: one 16-bit dot product handles both.
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
                constexpr int kMinimum[4] = {0, 2, 1, 3};
                const int scale = sc[4 * h + p % 4][p / 4];
                const int minimum = m[4 * h + kMinimum[p % 4]][p / 4];
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

    // The 6-bit scales of sub-blocks 4h .. 4h + 3 and the minima of the same, as bytes of each row's lane (see above).
    template <int H> TL_INLINE static Bytes scales(const uint8_t* tile) {
        const Bytes low = bload(tile + kLow + 64 * H), high = bload(tile + kHigh);
        return (low & bset1(0x0f)) | (bshift_left<4 - 2 * H>(high) & bset1(0x30));
    }
    template <int H> TL_INLINE static Bytes minima(const uint8_t* tile) {
        const Bytes low = bload(tile + kLow + 64 * H), high = bload(tile + kHigh);
        return (bshift_right<4>(low) & bset1(0x0f)) | (bshift_right<2 * H>(high) & bset1(0x30));
    }

    // M of T tokens.
    template <int T>
    TL_INLINE static void dot_minima(const uint8_t* tile, int b, const ActRows& x, Regs<I32, T>& sums) {
        clear(sums);
        for_constants<2>([&]<int H>() TL_LAMBDA {
            const Bytes m = minima<H>(tile);
            const Bytes first = even_bytes(m), second = odd_bytes(m);
            each(sums, [&](int t, I32& v) TL_LAMBDA {
                dot2(v, first, x.sum32<int16_t>(t) + 8 * b + 4 * H);
                dot2(v, second, x.sum32<int16_t>(t) + 8 * b + 4 * H + 2);
            });
        });
    }

    // acc += s * (d * I - dmin * M), the one place where floats are rounded.
    template <int T>
    TL_INLINE static void finish(F32 d, F32 dmin, Regs<I32, T>& sums, Regs<I32, T>& minima, const ActRows& x, int b,
                                 Regs<F32, T>& acc) {
        each(sums, minima, acc, [&](int t, I32& i, I32& m, F32& f) TL_LAMBDA {
            f = fma(fms(d, to_float(i), dmin * to_float(m)), set1(x.scale(t)[b]), f);
        });
    }

    // group += sc * part. A float multiply-add costs a third of an integer one, and is exact while the sum of a group of
    // sub-blocks stays below 2^24: four sub-blocks here (128 * 15 * 63 * 127 = 1.5e7), two in Q5_K.
    template <int T> TL_INLINE static void add_scaled(Regs<I32, T>& part, F32 sc, Regs<F32, T>& group) {
        each(part, group, [&](int, I32& v, F32& g) TL_LAMBDA {
            g = fma(to_float(v), sc, g);
            settle(g);
        });
    }
    // sums += group.
    template <int T> TL_INLINE static void add_group(Regs<F32, T>& group, Regs<I32, T>& sums) {
        each(group, sums, [](int, F32& g, I32& i) TL_LAMBDA { i = i + to_int(g); });
    }

    // The 64 columns of one chunk, both nibbles of a byte at a time.
    template <int T>
    TL_INLINE static void dot_chunk(const uint8_t* q, Regs<const int8_t*, T>& a, Bytes& sc, Regs<F32, T>& group) {
        Regs<I32, T> low, high;
        clear(low);
        clear(high);
        TL_UNROLL(8)
        for (int j = 0; j < 8; j++) {
            const Bytes v = stream<T>(q + 64 * j), lo = low_nibbles(v), hi = high_nibbles(v);
            each(low, high, a, [&](int, I32& l, I32& h, const int8_t*& row) TL_LAMBDA {
                dot4_small(l, lo, row + 4 * j);
                dot4_nibbles(h, hi, row + 32 + 4 * j);
            });
        }
        add_scaled<T>(low, to_float(take_byte(sc)), group);
        add_scaled<T>(high, to_float(take_byte(sc)) * set1(1.0f / kHighNibble), group);
    }

    // The same in two passes, with half as many sums alive: the second reads the weights from the L1 cache.
    template <int T>
    TL_INLINE static void dot_chunk_twice(const uint8_t* q, Regs<const int8_t*, T>& a, Bytes& sc, Regs<F32, T>& group) {
        for_constants<2>([&]<int High>() TL_LAMBDA {
            Regs<I32, T> part;
            clear(part);
            TL_UNROLL(8)
            for (int j = 0; j < 8; j++) {
                const Bytes v = High ? bload(q + 64 * j) : stream<T>(q + 64 * j),
                            w = High ? high_nibbles(v) : low_nibbles(v);
                each(part, a,
                     [&](int, I32& p, const int8_t*& row) TL_LAMBDA { dot4_nibbles(p, w, row + 32 * High + 4 * j); });
            }
            const F32 scale = to_float(take_byte(sc));
            add_scaled<T>(part, High ? scale * set1(1.0f / kHighNibble) : scale, group);
        });
    }

    // Four sub-blocks; moves `a` on.
    template <int T, int H>
    TL_INLINE static void dot_half(const uint8_t* tile, Regs<const int8_t*, T>& a, Regs<I32, T>& sums) {
        Bytes sc = scales<H>(tile);
        Regs<F32, T> group;
        clear(group);
        const int end = opaque(2 * H + 2);
        int c = 2 * H;
        do {
            if constexpr (6 * T <= kRegisters - 4)
                dot_chunk<T>(tile + kQ + 512 * c, a, sc, group);
            else
                dot_chunk_twice<T>(tile + kQ + 512 * c, a, sc, group);
            each(a, [](int, const int8_t*& row) TL_LAMBDA { row += 64; });
        } while (++c < end);
        add_group<T>(group, sums);
    }

    // Per chunk of 64 columns: 8 loads, 16 ANDs, 16 T dot products; per sub-block T conversions and T FMAs.
    template <int T>
    TL_INLINE static void dot(const uint8_t* tile, int b, const ActRows& x, Regs<F32, T>& acc) {
        Regs<const int8_t*, T> a = columns<T>(x, 256 * b);
        Regs<I32, T> sums, minima;
        clear(sums);
        if constexpr (4 * T > kRegisters - 5) each(acc, [](int, F32& f) TL_LAMBDA { park(f); });
        for (int i = 0; i < int(kQ); i += 64) stream_line<T>(tile + i);
        dot_half<T, 0>(tile, a, sums);
        dot_half<T, 1>(tile, a, sums);
        dot_minima<T>(tile, b, x, minima);
        finish<T>(load_f16((const uint16_t*)tile), load_f16((const uint16_t*)(tile + 32)), sums, minima, x, b, acc);
    }

    struct alignas(64) Panel {
        uint8_t q[64][64];  // [column group of 4][row, column]
        float sc[8][16];    // [sub-block][row]
        uint8_t m[4][64];   // [pair of sub-blocks][row, 2] as int16
        float d[16], dmin[16];
    };

    // All of a panel but q.
    TL_INLINE static void unpack_scales(const uint8_t* tile, Panel& p) {
        for_constants<2>([&]<int H>() TL_LAMBDA {
            const Bytes sc = scales<H>(tile), m = minima<H>(tile);
            for_constants<4>([&]<int I>() TL_LAMBDA { store(p.sc[4 * H + I], to_float(lane_byte<I>(sc))); });
            bstore(p.m[2 * H], even_bytes(m));
            bstore(p.m[2 * H + 1], odd_bytes(m));
        });
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

    // kGroup: sub-blocks whose sum a float holds exactly.
    template <int T, int kGroup = 4>
    TL_INLINE static void panel_dot(const Panel& p, int b, const ActRows& x, Regs<F32, T>& acc) {
        Regs<const int8_t*, T> a = columns<T>(x, 256 * b);
        Regs<I32, T> sums, minima;
        clear(sums);
        TL_UNROLL(1)
        for (int first = 0; first < 8; first += kGroup) {
            Regs<F32, T> group;
            clear(group);
            TL_UNROLL(1)
            for (int s = first; s < first + kGroup; s++) {
                Regs<I32, T> part;
                clear(part);
                TL_UNROLL(8)
                for (int j = 0; j < 8; j++) {
                    const Bytes w = bload(p.q[8 * s + j]);
                    each(part, a, [&](int, I32& v, const int8_t*& row) TL_LAMBDA { dot4_small(v, w, row + 4 * j); });
                }
                add_scaled<T>(part, load(p.sc[s]), group);
                each(a, [](int, const int8_t*& row) TL_LAMBDA { row += 32; });
            }
            add_group<T>(group, sums);
        }
        clear(minima);
        TL_UNROLL(4)
        for (int g = 0; g < 4; g++) {
            const Bytes pair = bload(p.m[g]);
            each(minima, [&](int t, I32& v) TL_LAMBDA { dot2(v, pair, x.sum32<int16_t>(t) + 8 * b + 2 * g); });
        }
        finish<T>(load(p.d), load(p.dmin), sums, minima, x, b, acc);
    }

    template <class Put> TL_INLINE static void widen(const Panel& p, Put put) {
        const F32 d = load(p.d), dmin = load(p.dmin);
        TL_UNROLL(1)
        for (int s = 0; s < 8; s++) {
            const Bytes pair = bload(p.m[s / 2]);
            const F32 scale = d * load(p.sc[s]);
            const F32 minimum = dmin * to_float(s % 2 ? high_halves(pair) : low_halves(pair));
            widen_groups(p.q, 8 * s, 8, [&](F32 q) TL_LAMBDA { return scale * q - minimum; }, put);
        }
    }
};

}  // namespace tl::TL_LEVEL
