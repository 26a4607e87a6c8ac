// Fits x ~ step * q per sub-block, q one of a code's levels, step a small multiple of a half-precision number of the
// super-block: formats without minimums, with evenly spaced levels or a code book.
//
// Minimised is sum w (step q - x)^2, as in affine.h: trial steps and least squares first, then a search among the
// multiples of d with the real error, and d refitted.
#pragma once

#include "quantize/lanes.h"

namespace tl::TL_LEVEL {

// Levels Low, Low + 1, .., High.
template <int Low, int High> struct EvenLevels {
    static constexpr float kLow = Low, kHigh = High;
    TL_INLINE static F32 nearest(F32 v) { return clamp(round(v), set1(float(Low)), set1(float(High))); }
};

// The sixteen levels of IQ4_NL and IQ4_XS: closer together around zero, where most weights are.
inline constexpr float kIq4Levels[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};
struct Iq4Levels {
    static constexpr float kLow = -127, kHigh = 113;
    TL_INLINE static F32 nearest(F32 v) {
        F32 level = set1(kIq4Levels[0]);
        TL_UNROLL(15)
        for (int i = 1; i < 16; i++) {
            level = select_above(v, set1((kIq4Levels[i - 1] + kIq4Levels[i]) * 0.5f), set1(kIq4Levels[i]), level);
        }
        return level;
    }
};

template <int Size, class Levels> struct ScaledFit {
    using Result = Columns<Size>;  // levels

    const Columns<Size>& x;
    const Columns<Size>& w;
    Columns<Size> wx;

    ScaledFit(const Columns<Size>& values, const Columns<Size>& weights) : x(values), w(weights) {
        for (int i = 0; i < Size; i++) wx.put(i, w.at(i) * x.at(i));
    }

    TL_INLINE void sums(F32 inverse, F32& xq, F32& qq) const {
        xq = qq = zero();
        for (int i = 0; i < Size; i++) {
            const F32 q = Levels::nearest(x.at(i) * inverse);
            xq = xq + wx.at(i) * q;
            qq = qq + w.at(i) * q * q;
        }
    }

    // The best free step of each lane, of either sign. Trials put the weight of largest magnitude on the lowest
    // level, and (`both`) on the highest, give or take `spread` in `num_trials` steps.
    F32 fit(float spread, int num_trials, bool both) const {
        F32 peak = x.at(0);
        for (int i = 0; i < Size; i++) peak = select_above(abs(x.at(i)), abs(peak), x.at(i), peak);
        F32 best = zero(), best_gain = zero();
        const auto attempt = [&](F32 inverse) {
            F32 xq, qq;
            sums(inverse, xq, qq);
            const F32 step = ratio(xq, qq), gain = step * xq;
            best = select_above(gain, best_gain, step, best);
            best_gain = max(gain, best_gain);
        };
        for (int i = 0; i < num_trials; i++) {
            const float shift = num_trials > 1 ? spread * (2.0f * float(i) / float(num_trials - 1) - 1.0f) : 0.0f;
            attempt(ratio(set1(Levels::kLow + shift), peak));
            if (both) attempt(ratio(set1(Levels::kHigh + shift), peak));
        }
        for (int i = 0; i < 2; i++) attempt(ratio(set1(1.0f), best));
        return best;
    }

    TL_INLINE F32 error(F32 step) const {
        const F32 inverse = ratio(set1(1.0f), step);
        F32 sum = zero();
        for (int i = 0; i < Size; i++) {
            const F32 r = step * Levels::nearest(x.at(i) * inverse) - x.at(i);
            sum = sum + w.at(i) * r * r;
        }
        return sum;
    }

    TL_INLINE void quantise(F32 inverse, Columns<Size>& q) const {
        for (int i = 0; i < Size; i++) q.put(i, Levels::nearest(x.at(i) * inverse));
    }
};

// Steps d * low, d * (low + 1), .., d * high; low is the one that is furthest from zero.
struct EveryMultiple {
    int low, high;

    TL_INLINE F32 nearest(F32 multiple) const { return round(multiple); }
    TL_INLINE F32 limit(F32 multiple) const { return clamp(multiple, set1(float(low)), set1(float(high))); }
    TL_INLINE float peak() const { return float(low); }
    TL_INLINE float stride() const { return 1.0f; }
};

struct ScaledGrid { F32 d, scale, error; };

template <class Fit, class Multiples>
TL_INLINE void search_multiples(const Fit& fit, F32 step, Multiples multiples, ScaledGrid& grid) {
    const F32 scale = multiples.nearest(ratio(step, grid.d));
    grid.error = set1(INFINITY);
    grid.scale = zero();
    for (int i = -1; i <= 1; i++) {
        const F32 s = multiples.limit(scale + set1(float(i) * multiples.stride()));
        const F32 error = fit.error(grid.d * s);
        grid.scale = select_above(grid.error, error, s, grid.scale);
        grid.error = min(grid.error, error);
    }
}

// The whole fit of 16 / Width super-blocks, from the best free step of each sub-block: a multiple of d for each, and `q`,
// the codes that the fit chooses at these steps.
template <int Width, class Fit, class Multiples>
TL_INLINE ScaledGrid fit_scaled(const Fit& fit, F32 step, Multiples multiples, typename Fit::Result& q) {
    ScaledGrid best{through_f16(peak_lanes<Width>(step) * set1(1.0f / multiples.peak())), zero(), zero()};
    search_multiples(fit, step, multiples, best);
    for (int pass = 0; pass < 2; pass++) {
        F32 xq, qq;
        fit.sums(ratio(set1(1.0f), best.d * best.scale), xq, qq);
        const F32 sx = sum_lanes<Width>(best.scale * xq), ss = sum_lanes<Width>(best.scale * best.scale * qq);
        ScaledGrid next{through_f16(ratio(sx, ss)), zero(), zero()};
        search_multiples(fit, step, multiples, next);
        const F32 before = sum_lanes<Width>(best.error), after = sum_lanes<Width>(next.error);
        best.d = select_above(before, after, next.d, best.d);
        best.scale = select_above(before, after, next.scale, best.scale);
        best.error = select_above(before, after, next.error, best.error);
    }
    fit.quantise(ratio(set1(1.0f), best.d * best.scale), q);
    return best;
}

}  // namespace tl::TL_LEVEL
