// Weights of codebooks as 4-bit codes: IQ1, IQ2 and IQ3.
//
// In these formats a group of four or eight weights is an entry of a codebook (grids.h) with signs, or a shift, of its
// own: cheap to store, slow to look up. But a single weight has at most 16 values, eight levels with a flag. So the
// packed form holds a code for each weight, and the lookups happen once, at load. The price is memory:
// 4.19 (sub-blocks of 32) or 4.31 (of 16) bits per weight, where the files have 1.56 to 3.44.
//
// Every format is super-blocks of 256 with a scale d (f16) and a 4-bit number s per sub-block:
//   weight = d * kFactor * (2s + 1) * kValues[code]
// kFactor is a power of two and the products have at most 22 bits, so the floats are exact in any order.
//
// Packed, a block of 16 rows:
//   d[16] f16 | scales[pairs of sub-blocks][16 rows], the even one in the low nibble | planes of codes.h [8][256]
//
// Arithmetic per 256 elements and (row, token), a = int8 activations with scale x:
//   I = sum over sub-blocks (2s + 1) * (w . a)   exact int32, |I| <= 256 * 31 * (128 + 62) * 127 = 1.9e8
//   acc += (d * x) * I
// Where weights are held 128 too high (kSignedOffset), each sub-block starts at -128 sum(a).
//
// A format F gives: kType, kBlockBytes, kSubBlock, kFactor, kValues, scale_bits(block), and
// read(block, codes, scales): 256 codes and 256 / kSubBlock numbers s.
#pragma once

#include "quants/codes.h"
#include "quants/grids.h"

namespace tl::TL_LEVEL {

// Seven signs and the eighth that makes the number of negative weights even.
inline int even_signs(uint32_t seven) { return int(seven | uint32_t(__builtin_parity(seven)) << 7); }

// Codes of a group: level i of the pattern, with bit i of the flags as bit 3.
template <int kCount> void write_codes(uint16_t pattern, int flags, uint8_t* codes) {
    constexpr int kBits = kCount == 4 ? 3 : 2;
    for (int i = 0; i < kCount; i++) {
        codes[i] = uint8_t((pattern >> (kBits * i) & ((1 << kBits) - 1)) | (flags >> i & 1) << 3);
    }
}

// The levels of IQ2: 8, 25, 43.
static constexpr int8_t kIq2Values[16] = {8, 25, 43, 0, 0, 0, 0, 0, -8, -25, -43, 0, 0, 0, 0, 0};
// The levels of IQ1, -1 to 1, and a shift by 1/8 up or down; in eighths.
static constexpr int8_t kIq1Values[16] = {-7, 1, 9, 0, 0, 0, 0, 0, -9, -1, 7, 0, 0, 0, 0, 0};

inline uint16_t read_u16(const uint8_t* p) {
    uint16_t v;
    std::memcpy(&v, p, 2);
    return v;
}
inline uint32_t read_u32(const uint8_t* p) {
    uint32_t v;
    std::memcpy(&v, p, 4);
    return v;
}

template <class F> struct GridCoded {
    static constexpr int kType = F::kType;
    static constexpr int kBlock = 256;
    static constexpr size_t kBlockBytes = F::kBlockBytes;
    static constexpr ActFormat kActivations = ActFormat::kInt8x256;

    static constexpr int kSub = F::kSubBlock, kSubs = 256 / kSub;
    static_assert(kSub == 16 || kSub == 32);
    static constexpr size_t kScales = 32, kCodes = kScales + size_t(kSubs / 2) * 16;  // offsets in a packed block
    static constexpr size_t kTileBlockBytes = kCodes + 8 * kCodeBytes;

    static void decode_block(const uint8_t* block, float* out) {
        uint8_t codes[256], scales[kSubs];
        F::read(block, codes, scales);
        const float d = f16_to_float(F::scale_bits(block)) * F::kFactor;
        for (int i = 0; i < 256; i++) out[i] = d * float(2 * scales[i / kSub] + 1) * float(F::kValues[codes[i]]);
    }

    static void pack_block(const uint8_t* const* rows, uint8_t* tile) {
        std::memset(tile, 0, kTileBlockBytes);
        for (int r = 0; r < kTileRows; r++) {
            if (!rows[r]) continue;
            uint8_t codes[256], scales[kSubs];
            F::read(rows[r], codes, scales);
            const uint16_t d = F::scale_bits(rows[r]);
            std::memcpy(tile + 2 * r, &d, 2);
            for (int i = 0; i < kSubs / 2; i++)
                tile[kScales + 16 * size_t(i) + size_t(r)] = uint8_t(scales[2 * i] | scales[2 * i + 1] << 4);
            for (int s = 0; s < 8; s++) {
                for (int i = 0; i < 16; i++) {
                    const int at = 256 * s + 64 * (i / 4) + 4 * r + i % 4;
                    tile[kCodes + size_t(at)] = uint8_t(codes[32 * s + i] | codes[32 * s + 16 + i] << 4);
                }
            }
        }
    }

    template <int T> TL_INLINE static F32 load_scale(const uint8_t* tile) {
        stream_line<T>(tile);
        return load_f16((const uint16_t*)tile) * set1(F::kFactor);
    }

    // 2s + 1 of the even or odd sub-block of a pair.
    template <int Odd> TL_INLINE static I32 factor(const uint8_t* tile, int pair) {
        const I32 both = load_u8(tile + kScales + 16 * pair), high = shift_right<4>(both);
        return shift_left<1>(Odd ? high : both - shift_left<4>(high)) + iset1(1);
    }

    // What the sum of a sub-block starts at.
    template <int T> TL_INLINE static void start(int s, int b, const ActRows& x, Regs<I32, T>& part) {
        if constexpr (kSignedOffset == 0) {
            clear(part);
        } else {
            each(part, [&](int t, I32& v) TL_LAMBDA {
                const int sum = kSub == 16 ? x.sum16(t)[16 * b + s] : x.sum32<int16_t>(t)[8 * b + s];
                v = iset1(-kSignedOffset * sum);
            });
        }
    }

    template <int T> TL_INLINE static void add_scaled(Regs<I32, T>& part, I32 sc, Regs<I32, T>& sums) {
        each(sums, part, [&](int, I32& i, I32& v) TL_LAMBDA {
            i = i + v * sc;
            settle(i);
        });
    }

    template <int T>
    TL_INLINE static void finish(F32 d, Regs<I32, T>& sums, int b, const ActRows& x, Regs<F32, T>& acc) {
        each(sums, acc, [&](int t, I32& i, F32& f) TL_LAMBDA { f = fma(d * set1(x.scale(t)[b]), to_float(i), f); });
    }

    // One sub-block of a pair; the columns of `a` begin at the pair. Sub-blocks of 16 are one nibble of their planes.
    template <int Odd, int T>
    TL_INLINE static void dot_sub(const uint8_t* tile, int pair, Table table, Regs<const int8_t*, T>& a,
                                  Regs<I32, T>& part) {
        if constexpr (kSub == 32) {
            for_codes<T>(tile + kCodes + kCodeBytes * size_t(2 * pair + Odd), table, [&](int g, Bytes w) TL_LAMBDA {
                each(part, a,
                     [&](int, I32& v, const int8_t*& row) TL_LAMBDA { dot4_signed(v, w, row + 32 * Odd + 4 * g); });
            });
        } else {
            TL_UNROLL(4)
            for (int j = 0; j < 4; j++) {
                const uint8_t* plane = tile + kCodes + kCodeBytes * size_t(pair) + 64 * j;
                const Bytes v = Odd ? bshift_right<4>(bload(plane)) : stream<T>(plane);
                const Bytes w = lookup(table, v & bset1(0x0f));
                each(part, a,
                     [&](int, I32& i, const int8_t*& row) TL_LAMBDA { dot4_signed(i, w, row + 16 * Odd + 4 * j); });
            }
        }
    }

    // Per sub-block: 4 planes of codes.h (of 16: 4 halves of planes) and T integer multiply-adds.
    template <int T>
    TL_INLINE static void dot(const uint8_t* tile, int b, const ActRows& x, Regs<F32, T>& acc) {
        Regs<const int8_t*, T> a = columns<T>(x, 256 * b);
        const Table table = load_table(F::kValues);
        Regs<I32, T> sums;
        clear(sums);
        TL_UNROLL(1)
        for (int pair = 0; pair < kSubs / 2; pair++) {
            for_constants<2>([&]<int Odd>() TL_LAMBDA {
                Regs<I32, T> part;
                start<T>(2 * pair + Odd, b, x, part);
                dot_sub<Odd, T>(tile, pair, table, a, part);
                add_scaled<T>(part, factor<Odd>(tile, pair), sums);
            });
            each(a, [](int, const int8_t*& row) TL_LAMBDA { row += 2 * kSub; });
        }
        finish<T>(load_scale<T>(tile), sums, b, x, acc);
    }

    struct alignas(64) Panel {
        uint8_t q[64][64];      // [column group of 4][row, column], in signed_form
        int32_t sc[kSubs][16];  // [sub-block][row]: 2s + 1
        float d[16];
    };

    TL_INLINE static void unpack(const uint8_t* tile, Panel& p) {
        store(p.d, load_scale<0>(tile));
        const Table table = load_table(F::kValues);
        for (int pair = 0; pair < kSubs / 2; pair++) {
            istore(p.sc[2 * pair], factor<0>(tile, pair));
            istore(p.sc[2 * pair + 1], factor<1>(tile, pair));
        }
        TL_UNROLL(1)
        for (int s = 0; s < 8; s++) {
            for_codes<0>(tile + kCodes + kCodeBytes * size_t(s), table,
                         [&](int g, Bytes w) TL_LAMBDA { bstore(p.q[8 * s + g], w); });
        }
    }

    template <int T>
    TL_INLINE static void panel_dot(const Panel& p, int b, const ActRows& x, Regs<F32, T>& acc) {
        Regs<const int8_t*, T> a = columns<T>(x, 256 * b);
        Regs<I32, T> sums;
        clear(sums);
        TL_UNROLL(1)
        for (int s = 0; s < kSubs; s++) {
            Regs<I32, T> part;
            start<T>(s, b, x, part);
            TL_UNROLL(8)
            for (int g = 0; g < kSub / 4; g++) {
                const Bytes w = bload(p.q[kSub / 4 * s + g]);
                each(part, a, [&](int, I32& v, const int8_t*& row) TL_LAMBDA { dot4_signed(v, w, row + 4 * g); });
            }
            add_scaled<T>(part, iload(p.sc[s]), sums);
            each(a, [](int, const int8_t*& row) TL_LAMBDA { row += kSub; });
        }
        finish<T>(load(p.d), sums, b, x, acc);
    }

    template <class Put> TL_INLINE static void widen(const Panel& p, Put put) {
        const F32 d = load(p.d);
        TL_UNROLL(1)
        for (int s = 0; s < kSubs; s++) {
            const F32 scale = d * to_float(iload(p.sc[s]));
            widen_signed_groups(p.q, kSub / 4 * s, kSub / 4, [&](F32 value) TL_LAMBDA { return scale * value; }, put);
        }
    }
};

}  // namespace tl::TL_LEVEL
