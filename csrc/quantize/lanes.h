// Quantisers work on sixteen sub-blocks at a time, one per lane: no sum crosses lanes, so the order of every sum is
// that of a plain loop over one sub-block, whatever the level.
#pragma once

#include "cpu/simd.h"
#include "quantize/quantiser.h"

namespace tl::TL_LEVEL {

// Where a > b the lane of x, else that of y.
TL_INLINE F32 select_above(F32 a, F32 b, F32 x, F32 y) {
#if defined(TL_LEVEL_AVX512)
    return {_mm512_mask_blend_ps(_mm512_cmp_ps_mask(a.v, b.v, _CMP_GT_OQ), y.v, x.v)};
#elif defined(TL_LEVEL_AVX2) || defined(TL_LEVEL_AVXVNNI)
    return {_mm256_blendv_ps(y.lo, x.lo, _mm256_cmp_ps(a.lo, b.lo, _CMP_GT_OQ)),
            _mm256_blendv_ps(y.hi, x.hi, _mm256_cmp_ps(a.hi, b.hi, _CMP_GT_OQ))};
#else
    for (int i = 0; i < kLanes; i++) y.v[i] = a.v[i] > b.v[i] ? x.v[i] : y.v[i];
    return y;
#endif
}

TL_INLINE F32 sqrt(F32 a) {
#if defined(TL_LEVEL_AVX512)
    return {_mm512_sqrt_ps(a.v)};
#elif defined(TL_LEVEL_AVX2) || defined(TL_LEVEL_AVXVNNI)
    return {_mm256_sqrt_ps(a.lo), _mm256_sqrt_ps(a.hi)};
#else
    for (int i = 0; i < kLanes; i++) a.v[i] = std::sqrt(a.v[i]);
    return a;
#endif
}

// a / b, and 0 where b is 0.
TL_INLINE F32 ratio(F32 a, F32 b) {
    const F32 is_zero = select_above(abs(b), zero(), zero(), set1(1.0f));
    return select_above(is_zero, zero(), zero(), a / (b + is_zero));
}

// The nearest half-precision number, as float.
TL_INLINE F32 through_f16(F32 a) {
    uint16_t bits[kLanes];
    store_f16(bits, a);
    return load_f16(bits);
}

TL_INLINE F32 clamp(F32 a, F32 low, F32 high) { return max(low, min(high, a)); }

// Sixteen sub-blocks of `Size` elements: element i of sub-block s at [i][s].
template <int Size> struct alignas(64) Columns {
    float v[Size][kLanes];

    TL_INLINE F32 at(int i) const { return load(v[i]); }
    TL_INLINE void put(int i, F32 a) { store(v[i], a); }
};

// The sub-blocks that lie one after the other at `x`; lanes from `count` on repeat the last, and are not used.
template <int Size> TL_INLINE void gather_columns(const float* x, int count, Columns<Size>& out) {
    for (int lane = 0; lane < kLanes; lane++) {
        const float* from = x + size_t(lane < count ? lane : count - 1) * Size;
        for (int i = 0; i < Size; i++) out.v[i][lane] = from[i];
    }
}

// The importance of the columns of those sub-blocks, the first of which begins at weight `begin`.
template <int Size>
TL_INLINE void gather_importance(const QuantiserInput& in, size_t begin, int count, Columns<Size>& out) {
    for (int lane = 0; lane < kLanes; lane++) {
        const float* from = in.importance + (begin + size_t(lane < count ? lane : count - 1) * Size) % in.columns;
        for (int i = 0; i < Size; i++) out.v[i][lane] = from[i];
    }
}

// Sub-blocks of a group that begins at weight `begin`: sixteen, or what is left.
template <int Size> TL_INLINE int count_sub_blocks(const QuantiserInput& in, size_t begin) {
    const size_t rest = (in.num_weights - begin) / Size;
    return rest < size_t(kLanes) ? int(rest) : kLanes;
}

// Sum (or largest) over the `Width` lanes of a super-block, in all of its lanes.
template <int Width> TL_INLINE F32 sum_lanes(F32 a) {
    float v[kLanes];
    store(v, a);
    for (int begin = 0; begin < kLanes; begin += Width) {
        float sum = 0.0f;
        for (int i = 0; i < Width; i++) sum += v[begin + i];
        for (int i = 0; i < Width; i++) v[begin + i] = sum;
    }
    return load(v);
}
// The lane of largest magnitude, with its sign.
template <int Width> TL_INLINE F32 peak_lanes(F32 a) {
    float v[kLanes];
    store(v, a);
    for (int begin = 0; begin < kLanes; begin += Width) {
        float peak = 0.0f;
        for (int i = 0; i < Width; i++) {
            if (std::fabs(v[begin + i]) > std::fabs(peak)) peak = v[begin + i];
        }
        for (int i = 0; i < Width; i++) v[begin + i] = peak;
    }
    return load(v);
}

// Importance times a number that grows with the weight itself: large weights matter more than their squared error
// says. `Width` lanes share a super-block; sigma_factor times its mean square is the weight of a zero.
template <int Size, int Width>
TL_INLINE void weigh_by_importance(const Columns<Size>& x, float sigma_factor, Columns<Size>& w) {
    F32 squares = zero();
    for (int i = 0; i < Size; i++) squares = squares + x.at(i) * x.at(i);
    const F32 sigma = sum_lanes<Width>(squares) * set1(sigma_factor / float(Size * Width));
    for (int i = 0; i < Size; i++) w.put(i, w.at(i) * sqrt(sigma + x.at(i) * x.at(i)));
}

TL_INLINE void write_f16(uint8_t* p, float value) {
    const uint16_t bits = float_to_f16(value);
    std::memcpy(p, &bits, 2);
}

}  // namespace tl::TL_LEVEL
