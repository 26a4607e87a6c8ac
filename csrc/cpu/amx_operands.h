// What the AMX products need of each weight format: its panel (csrc/quants) as bytes of weight tiles, and the end of its
// arithmetic.
//
// Blocks of 32 have one scale: SmallBlock, signed bytes, one tile of K = 32.
// Blocks of 256 have integer scales inside: SuperBlock. Its weights are the exact products (scale * weight), up to 16 bits
// wide, in two planes of bytes: w = low + 256 * high, low unsigned, high signed. The sum over a whole block then needs no
// scale, and is the same integer that the other kernels compute: so are all results.
#pragma once

#include "quants/iq4_nl.h"
#include "quants/iq4_xs.h"
#include "quants/mxfp4.h"
#include "quants/q2_k.h"
#include "quants/q3_k.h"
#include "quants/q4_0.h"
#include "quants/q4_1.h"
#include "quants/q4_k.h"
#include "quants/q5_0.h"
#include "quants/q5_1.h"
#include "quants/q5_k.h"
#include "quants/q6_k.h"
#include "quants/q8_0.h"

namespace tl::TL_LEVEL {

// -- blocks of 32 ----------------------------------------------------------------------------------------------------

// The weight's zero as a byte of the panel.
template <class Q> inline constexpr int kZeroByte = kSignedOffset;  // codes of a table
template <> inline constexpr int kZeroByte<Q8_0> = 128;
template <> inline constexpr int kZeroByte<Q4_0> = 8;
template <> inline constexpr int kZeroByte<Q5_0> = 16;
template <> inline constexpr int kZeroByte<Q4_1> = 0;
template <> inline constexpr int kZeroByte<Q5_1> = 0;

template <class Q> struct SmallBlock {
    static constexpr bool kAffine = kZeroByte<Q> == 0;  // d * q + m instead of d * (q - zero)
    using Panel = typename Q::Panel;

    TL_INLINE static void unpack(const uint8_t* tile, Panel& p) {
        Q::unpack(tile, p);
        if constexpr (kAffine) return;
        for (int j = 0; j < 8; j++) {
            bstore(p.q[j], {_mm512_sub_epi8(bload(p.q[j]).v, _mm512_set1_epi8(char(kZeroByte<Q>)))});
        }
    }

    // What one block's sums of a token are multiplied with.
    struct Scales {
        F32 d, m;
        TL_INLINE explicit Scales(const Panel& p) : d(load(p.d)), m(zero()) {
            if constexpr (kAffine) m = load(p.m);
        }
        TL_INLINE F32 finish(F32 sum, float scale, int32_t sum32, F32 acc) const {
            if constexpr (kAffine) {
                return fma(fma(d, sum, m * to_float(iset1(sum32))), set1(scale), acc);
            } else {
                return fma(d * set1(scale), sum, acc);
            }
        }
    };
};

// -- blocks of 256 ---------------------------------------------------------------------------------------------------

// Four weights of each of 16 rows times the row's scale (in both halves of its lane) as two planes.
TL_INLINE void split_planes(Bytes even, Bytes odd, uint8_t* low, uint8_t* high) {
    const __mmask64 odd_bytes = 0xaaaaaaaaaaaaaaaaull;
    bstore(low, {_mm512_mask_blend_epi8(odd_bytes, even.v, _mm512_slli_epi16(odd.v, 8))});
    bstore(high, {_mm512_mask_blend_epi8(odd_bytes, _mm512_srli_epi16(even.v, 8), odd.v)});
}
template <int kZero> TL_INLINE void scaled_planes(Bytes q, Bytes scale, uint8_t* low, uint8_t* high) {
    Bytes even = even_bytes(q), odd = odd_bytes(q);
    if constexpr (kZero != 0) {
        even = add16(even, set16(-kZero));
        odd = add16(odd, set16(-kZero));
    }
    split_planes(multiply16(even, scale), multiply16(odd, scale), low, high);
}
// The same number in both halves of a lane.
TL_INLINE Bytes both_halves(I32 a) { return join_halves<0, 0>(a, a); }

template <int kPlanes> struct alignas(64) Planes {
    uint8_t bytes[kPlanes][64][64];
};  // [low, high][4 columns][row, column]

// Tokens first .. of the sixteen of an interleaved block of kInt8x256, from its address on.
struct BlockRows {
    const uint8_t* block;
    int first;
    static constexpr InterleavedLayout kLayout{{ActFormat::kInt8x256, 256}};
    TL_INLINE float scale(int t) const { return ((const float*)(block + kLayout.scale_offset()))[first + t]; }
    TL_INLINE const int16_t* sum32(int t) const {
        return (const int16_t*)(block + kLayout.sum32_offset()) + 8 * (first + t);
    }
    TL_INLINE const int16_t* sum16(int t) const {
        return (const int16_t*)(block + kLayout.sum16_offset()) + 16 * (first + t);
    }
};

// A row's scale d, and nothing else.
template <class Q> struct PlainScales {
    float d[16];
    TL_INLINE void take(const typename Q::Panel& p) { store(d, load(p.d)); }
    template <int T> TL_INLINE void finish(Regs<I32, T>& sums, BlockRows x, Regs<F32, T>& acc) const {
        each(sums, acc, [&](int t, I32& i, F32& f) TL_LAMBDA { f = fma(load(d) * set1(x.scale(t)), to_float(i), f); });
    }
};

// d, dmin, and minima of kBlock columns each, in pairs.
template <class Q, int kMinimumColumns> struct alignas(64) AffineScales {
    static constexpr int kPairs = 128 / kMinimumColumns;
    uint8_t m[kPairs][64];
    float d[16], dmin[16];
    TL_INLINE void take(const typename Q::Panel& p) {
        for (int i = 0; i < kPairs; i++) bstore(m[i], bload(p.m[i]));
        store(d, load(p.d));
        store(dmin, load(p.dmin));
    }
    template <int T> TL_INLINE void finish(Regs<I32, T>& sums, BlockRows x, Regs<F32, T>& acc) const {
        Regs<I32, T> minima;
        clear(minima);
        TL_UNROLL(8)
        for (int i = 0; i < kPairs; i++) {
            const Bytes pair = bload(m[i]);
            each(minima, [&](int t, I32& v)
                             TL_LAMBDA { dot2(v, pair, (kMinimumColumns == 32 ? x.sum32(t) : x.sum16(t)) + 2 * i); });
        }
        each(sums, minima, acc, [&](int t, I32& i, I32& low, F32& f) TL_LAMBDA {
            f = fma(fms(load(d), to_float(i), load(dmin) * to_float(low)), set1(x.scale(t)), f);
        });
    }
};

template <class Q> struct SuperBlock;

template <> struct SuperBlock<Q4K> {
    static constexpr int kPlanes = 2;
    using Scales = AffineScales<Q4K, 32>;
    TL_INLINE static void planes(const Q4K::Panel& p, Planes<2>& to) {
        for (int s = 0; s < 8; s++) {
            const Bytes scale = both_halves(to_int(load(p.sc[s])));
            TL_UNROLL(8)
            for (int j = 8 * s; j < 8 * s + 8; j++)
                scaled_planes<0>(bload(p.q[j]), scale, to.bytes[0][j], to.bytes[1][j]);
        }
    }
};
template <> struct SuperBlock<Q5K> : SuperBlock<Q4K> {};

template <> struct SuperBlock<Q6K> {
    static constexpr int kPlanes = 2;
    using Scales = PlainScales<Q6K>;
    TL_INLINE static void planes(const Q6K::Panel& p, Planes<2>& to) {
        for (int s = 0; s < 16; s++) {
            // Signed scales: the half that join_halves takes from below must have nothing above it.
            const __m512i sc = iload(p.sc[s]).v;
            const Bytes scale = {_mm512_mask_blend_epi16(0xaaaaaaaau, sc, _mm512_slli_epi32(sc, 16))};
            TL_UNROLL(4)
            for (int j = 4 * s; j < 4 * s + 4; j++)
                scaled_planes<32>(bload(p.q[j]), scale, to.bytes[0][j], to.bytes[1][j]);
        }
    }
};

template <> struct SuperBlock<IQ4XS> {
    static constexpr int kPlanes = 2;
    using Scales = PlainScales<IQ4XS>;
    TL_INLINE static void planes(const IQ4XS::Panel& p, Planes<2>& to) {
        for (int s = 0; s < 8; s++) {
            const __m512i pair = bload(p.pairs[s / 2]).v, low = _mm512_slli_epi32(pair, 16),
                          high = _mm512_srli_epi32(pair, 16);
            const Bytes scale = {s % 2 ? _mm512_mask_blend_epi16(0xaaaaaaaau, high, pair)
                                       : _mm512_mask_blend_epi16(0xaaaaaaaau, pair, low)};
            TL_UNROLL(8)
            for (int j = 8 * s; j < 8 * s + 8; j++)
                scaled_planes<kSignedOffset>(bload(p.q[j]), scale, to.bytes[0][j], to.bytes[1][j]);
        }
    }
};

// The panels of these hold scale * weight already, in one byte.
template <> struct SuperBlock<Q2K> {
    static constexpr int kPlanes = 1;
    static constexpr bool kSigned = false;
    using Scales = AffineScales<Q2K, 16>;
    TL_INLINE static void planes(const Q2K::Panel& p, Planes<1>& to) {
        for (int j = 0; j < 64; j++) bstore(to.bytes[0][j], bload(p.w[j]));
    }
};
template <> struct SuperBlock<Q3K> {
    static constexpr int kPlanes = 1;
    static constexpr bool kSigned = true;
    using Scales = PlainScales<Q3K>;
    TL_INLINE static void planes(const Q3K::Panel& p, Planes<1>& to) {
        for (int j = 0; j < 64; j++) {
            bstore(to.bytes[0][j], {_mm512_xor_si512(bload(p.w[j]).v, _mm512_set1_epi8(char(kSignedOffset)))});
        }
    }
};

}  // namespace tl::TL_LEVEL
