// Q3_K: 3-bit weights in super-blocks of 256 with 6-bit scales per 16. 3.4375 bits per weight.
//
// In the file a block is 110 bytes: high[32], low[64], scales[12], d (f16). For half n (128 elements), quarter t < 4 and
// l < 32, element 128n + 32t + l is d * (sc[8n + 2t + (l >= 16)] - 32) * (q - 4), with
//   q = (low[32n + l] >> 2t) & 3 | ((high[l] >> (4n + t)) & 1) << 2
// sc of sub-block s: low 4 bits in scales[s % 8] (low nibble for s < 8, else high), upper 2 bits in bits 2 (s / 4) and
// 2 (s / 4) + 1 of scales[8 + s % 4].
//
// Packed, a block of 16 rows is the same 16 * 110 = 1760 bytes:
//   d[16] f16 | nibbles[2][64] | tops[64] | per pair of sub-blocks (32 columns): planes[3][64]
//   A plane's dword lane r belongs to row r, byte k of the dword to column k of a group of 4 columns. Groups 0 .. 3 are
//   the first sub-block of the pair, 4 .. 7 the second.
//   plane p: bits 0-2 = weight of group p, bits 3-5 = weight of group p + 4
//   bits 6-7 of planes 2, 1 and 0, in this order from the lowest: the 3 bits of group 3, then those of group 7
//   nibbles[h] byte 4r + i: low 4 bits of sc of (sub-block 8h + kOrder[i], row r), then of (8h + 4 + kOrder[i], r)
//   tops byte 4r + i: bits 2v and 2v + 1 = upper 2 bits of sc of (sub-block 4v + kOrder[i], row r)
// kOrder = 0 2 1 3, so that the even bytes of a lane are the scales of one pair of sub-blocks, the odd ones of the next.
//
// Arithmetic per 256 elements and (row, token), a = int8 activations with scale s:
//   I = sum over sub-blocks (sc - 32) * ((q - 4) . a)   exact int32, |I| <= 256 * 32 * 4 * 127 = 4.2e6
//   acc += (d * s) * I
// Few tokens: the second group is multiplied in place (8 times too large). Sums of a sub-block fit in 16 bits, so one
// dot product of 16-bit pairs scales two of them; another takes out the 4s.
// Many tokens: the panel holds the bytes (sc - 32) * (4 - q), -128 .. 124, and nothing is left to scale.
#pragma once

#include "quants/format.h"

namespace tl::TL_LEVEL {

struct Q3K {
    static constexpr int kType = 11;
    static constexpr int kBlock = 256;
    static constexpr size_t kBlockBytes = 110;
    static constexpr size_t kTileBlockBytes = 1760;
    static constexpr ActFormat kActivations = ActFormat::kInt8x256;
    static_assert(kTileBlockBytes == kTileRows * kBlockBytes);

    static constexpr size_t kNibbles = 32, kTops = 160, kQ = 224, kPairBytes = 192;  // in a packed block

    static int scale(const uint8_t* b, int s) {
        return (b[s % 8] >> (s < 8 ? 0 : 4) & 15) | (b[8 + s % 4] >> (2 * (s / 4)) & 3) << 4;
    }

    static void decode_block(const uint8_t* block, float* out) {
        const uint8_t *high = block, *low = block + 32;
        const float d = read_f16(block + 108);
        for (int i = 0; i < 256; i++) {
            const int pair = i / 32, l = i % 32;
            const int q = (low[32 * (pair / 4) + l] >> (2 * (pair % 4)) & 3) | (high[l] >> pair & 1) << 2;
            out[i] = d * float(scale(block + 96, i / 16) - 32) * float(q - 4);
        }
    }

    static void pack_scales(const uint8_t* const* rows, uint8_t* tile) {
        constexpr int kOrder[4] = {0, 2, 1, 3};
        std::memset(tile + kNibbles, 0, 192);
        for (int p = 0; p < 64; p++) {
            for (int v = 0; v < 4 && rows[p / 4]; v++) {
                const int sc = scale(rows[p / 4] + 96, 4 * v + kOrder[p % 4]);
                uint8_t &nibbles = tile[kNibbles + 64 * (v / 2) + p], &tops = tile[kTops + p];
                nibbles = uint8_t(nibbles | (sc & 15) << (4 * (v % 2)));
                tops = uint8_t(tops | (sc >> 4) << (2 * v));
            }
        }
    }

    // The dwords of one row in the three planes of a pair of sub-blocks.
    static void pack_pair(const uint8_t* block, int pair, uint8_t* planes) {
        uint32_t g[8];
        for (int i = 0; i < 8; i++) {
            uint32_t high, low;
            std::memcpy(&high, block + 4 * i, 4);
            std::memcpy(&low, block + 32 + 32 * (pair / 4) + 4 * i, 4);
            g[i] = (low >> (2 * (pair % 4)) & 0x03030303u) | (high >> pair & 0x01010101u) << 2;
        }
        const uint32_t six = g[3] | g[7] << 3;
        for (int p = 0; p < 3; p++) {
            const uint32_t two = six >> (4 - 2 * p) & 0x03030303u;
            const uint32_t dword = g[p] | g[p + 4] << 3 | two << 6;
            std::memcpy(planes + 64 * p, &dword, 4);
        }
    }

    static void pack_block(const uint8_t* const* rows, uint8_t* tile) {
        interleave2(rows, 108, tile);
        pack_scales(rows, tile);
        std::memset(tile + kQ, 0, 8 * kPairBytes);
        for (int r = 0; r < kTileRows; r++) {
            for (int pair = 0; pair < 8 && rows[r]; pair++)
                pack_pair(rows[r], pair, tile + kQ + kPairBytes * pair + 4 * r);
        }
    }

    // sc - 32 of sub-blocks 2 P and 2 P + 1 as int16 halves of each row's lane.
    template <int P> TL_INLINE static Bytes scale_pair(const uint8_t* tile) {
        constexpr int V = P / 2;
        const Bytes nibbles = bload(tile + kNibbles + 64 * (V / 2)), tops = bload(tile + kTops);
        const Bytes low = (V % 2 ? bshift_right<4>(nibbles) : nibbles) & bset1(0x0f), mask = bset1(0x30);
        Bytes sc;
        if constexpr (V == 0) sc = low | (bshift_left<4>(tops) & mask);
        if constexpr (V == 1) sc = low | (bshift_left<2>(tops) & mask);
        if constexpr (V == 2) sc = low | (tops & mask);
        if constexpr (V == 3) sc = low | (bshift_right<2>(tops) & mask);
        return add16(P % 2 ? odd_bytes(sc) : even_bytes(sc), set16(-32));
    }

    // Calls f(g, weights of groups g and g + 4) for g = 2, 1, 0, 3: bits 0-2 of a byte are the weight of the first group,
    // bits 3-5 that of the second, others are to be masked off.
    template <int T, class F> TL_INLINE static void for_groups(const uint8_t* planes, F f) {
        const Bytes top = bset1(0xc0);
        const Bytes plane2 = stream<T>(planes + 128);
        f(2, plane2);
        Bytes rest = bshift_right<2>(plane2 & top);
        const Bytes plane1 = stream<T>(planes + 64);
        f(1, plane1);
        rest = bshift_right<2>(rest | (plane1 & top));
        const Bytes plane0 = stream<T>(planes);
        f(0, plane0);
        f(3, bshift_right<2>(rest | (plane0 & top)));
    }

    template <int T>
    TL_INLINE static void finish(F32 d, Regs<I32, T>& sums, int b, const ActRows& x, Regs<F32, T>& acc) {
        each(sums, acc, [&](int t, I32& i, F32& f) TL_LAMBDA { f = fma(d * set1(x.scale(t)[b]), to_float(i), f); });
    }

    // Per pair of sub-blocks: 3 loads, 8 shifts, 14 logic operations (AND and OR fuse), 8 T dot products; scales, and
    // 4 T operations to scale.
    template <int T>
    TL_INLINE static void dot_pair(const uint8_t* planes, Bytes scales, Regs<const int8_t*, T>& a, Regs<I32, T>& sums) {
        Regs<I32, T> first, second;
        clear(first);
        clear(second);
        for_groups<T>(planes, [&](int g, Bytes v) TL_LAMBDA {
            const Bytes low = v & bset1(0x07), high = v & bset1(0x38);
            each(first, second, a, [&](int, I32& f, I32& s, const int8_t*& row) TL_LAMBDA {
                dot4_small(f, low, row + 4 * g);
                dot4_small(s, high, row + 16 + 4 * g);
            });
        });
        each(first, second, sums,
             [&](int, I32& f, I32& s, I32& i) TL_LAMBDA { dot2(i, join_halves<0, 3>(f, s), scales); });
    }

    // The same in two passes, for few registers: the second reads the planes from the L1 cache.
    template <int T>
    TL_INLINE static void dot_pair_twice(const uint8_t* planes, Bytes scales, Regs<const int8_t*, T>& a,
                                         Regs<I32, T>& sums) {
        for_constants<2>([&]<int Second>() TL_LAMBDA {
            Regs<I32, T> part;
            clear(part);
            asm volatile("" : "+r"(planes));  // The compiler must not keep the planes of the first pass.
            for_groups<Second ? 0 : T>(planes, [&](int g, Bytes v) TL_LAMBDA {
                const Bytes w = v & bset1(Second ? 0x38 : 0x07);
                each(part, a,
                     [&](int, I32& p, const int8_t*& row) TL_LAMBDA { dot4_small(p, w, row + 16 * Second + 4 * g); });
            });
            const I32 sc = Second ? high_halves(scales) : low_halves(scales);
            each(part, sums, [&](int, I32& p, I32& i) TL_LAMBDA {
                i = i + (Second ? shift_right<3>(p) : p) * sc;
                settle(i);
            });
        });
    }

    // sums -= 4 times scales times the sums of a, of one pair of sub-blocks.
    template <int T>
    TL_INLINE static void add_offset(Bytes scales, int pair, int b, const ActRows& x, Regs<I32, T>& sums) {
        const Bytes offset = multiply16(scales, set16(-4));
        each(sums, [&](int t, I32& v) TL_LAMBDA {
            dot2(v, offset, x.sum16(t) + 16 * b + 2 * pair);
            settle(v);
        });
    }

    template <int T>
    TL_INLINE static void dot(const uint8_t* tile, int b, const ActRows& x, Regs<F32, T>& acc) {
        Regs<const int8_t*, T> a = columns<T>(x, 256 * b);
        Regs<I32, T> sums;
        clear(sums);
        constexpr bool kFew = kRegisters < 16 && T > 1;  // registers
        if constexpr (kFew) each(acc, [](int, F32& f) TL_LAMBDA { park(f); });
        for (int i = 0; i < int(kQ); i += 64) stream_line<T>(tile + i);
        for_constants<8>([&]<int P>() TL_LAMBDA {
            if constexpr (kFew) asm volatile("" : "+r"(tile));  // Not all scales at once.
            const uint8_t* planes = tile + kQ + kPairBytes * P;
            const Bytes scales = scale_pair<P>(tile);
            if constexpr (kFew)
                dot_pair_twice<T>(planes, scales, a, sums);
            else
                dot_pair<T>(planes, scales, a, sums);
            add_offset<T>(scales, P, b, x, sums);
            each(a, [](int, const int8_t*& row) TL_LAMBDA { row += 32; });
        });
        finish<T>(load_f16((const uint16_t*)tile), sums, b, x, acc);
    }

    struct alignas(64) Panel {
        uint8_t w[64][64];  // [column group of 4][row, column]: (sc - 32) * (4 - q) in signed_form
        float d[16];        // negated, as the weights are
    };

    // Two products at once: the bytes of sc' * q + c, c = 128 - 4 sc', lie in 0 .. 252 for sc' = 32 - sc, so that 16-bit
    // arithmetic carries nothing from one to the other.
    TL_INLINE static Bytes offset_form(Bytes factor) {
        return multiply16(add16(multiply16(factor, set16(-4)), set16(128)), set16(257));
    }
    TL_INLINE static void unpack_pair(const uint8_t* planes, Bytes scales, uint8_t (*w)[64]) {
        const Bytes factors = multiply16(scales, set16(-1));
        const I32 first = low_halves(factors), second = high_halves(factors);
        const Bytes factor[2] = {join_halves<0, 0>(first, first), join_halves<0, 0>(second, second)};
        const Bytes constant[2] = {offset_form(factor[0]), offset_form(factor[1])};
        for_groups<0>(planes, [&](int g, Bytes v) TL_LAMBDA {
            const Bytes q[2] = {v & bset1(0x07), bshift_right<3>(v & bset1(0x38))};
            for (int i = 0; i < 2; i++) {
                bstore(w[4 * i + g], signed_form(add16(multiply16(q[i], factor[i]), constant[i])));
            }
        });
    }

    TL_INLINE static void unpack(const uint8_t* tile, Panel& p) {
        store(p.d, load_f16((const uint16_t*)tile) * set1(-1.0f));
        for_constants<8>([&]<int P>()
                             TL_LAMBDA { unpack_pair(tile + kQ + kPairBytes * P, scale_pair<P>(tile), p.w + 8 * P); });
    }

    template <int T>
    TL_INLINE static void panel_dot(const Panel& p, int b, const ActRows& x, Regs<F32, T>& acc) {
        Regs<const int8_t*, T> a = columns<T>(x, 256 * b);
        Regs<I32, T> sums;
        clear(sums);
        if constexpr (kSignedOffset != 0) {
            const Bytes offset = set16(-kSignedOffset);
            TL_UNROLL(4)
            for (int i = 0; i < 4; i++) {
                each(sums, [&](int t, I32& v) TL_LAMBDA { dot2(v, offset, x.sum32<int16_t>(t) + 8 * b + 2 * i); });
            }
        }
        TL_UNROLL(1)
        for (int first = 0; first < 64; first += 16) {
            TL_UNROLL(16)
            for (int g = 0; g < 16; g++) {
                const Bytes w = bload(p.w[first + g]);
                each(sums, a, [&](int, I32& v, const int8_t*& row) TL_LAMBDA { dot4_signed(v, w, row + 4 * g); });
            }
            each(a, [](int, const int8_t*& row) TL_LAMBDA { row += 64; });
        }
        finish<T>(load(p.d), sums, b, x, acc);
    }

    template <class Put> TL_INLINE static void widen(const Panel& p, Put put) {
        const F32 d = load(p.d);
        widen_signed_groups(p.w, 0, 64, [&](F32 w) TL_LAMBDA { return d * w; }, put);
    }
};

}  // namespace tl::TL_LEVEL
