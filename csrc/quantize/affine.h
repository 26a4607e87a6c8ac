// Fits x ~ step * q - offset per sub-block, q an integer in [0, Top], step and offset small multiples of two
// half-precision numbers of the super-block: the K-quants with minimums.
//
// Minimised is sum w (step q - offset - x)^2. First freely: for trial steps q is rounded, and least squares give
// the best step and offset for these q. Then on the grid: the integer multiples of d and dmin are searched around
// the free solution with the real error, d and dmin are refitted to the q found, and the search is repeated; what
// does not lower a super-block's error is dropped.
#pragma once

#include "quantize/lanes.h"

namespace tl::TL_LEVEL {

struct AffineLine { F32 step, low; };  // x ~ step * q + low, low <= 0

// The sums that decide the best line through given q.
struct AffineSums {
    F32 w, x;                                  // sum w, sum w x
    F32 q = zero(), qq = zero(), xq = zero();  // sum w q, sum w q q, sum w x q

    TL_INLINE void add(F32 weight, F32 weighted_x, F32 quant) {
        const F32 wq = weight * quant;
        q = q + wq;
        qq = qq + wq * quant;
        xq = xq + weighted_x * quant;
    }

    // The best line, and what it takes off sum w x^2 (negative: no line).
    TL_INLINE F32 solve(AffineLine& line) const {
        const F32 determinant = w * qq - q * q;
        const F32 inverse = ratio(set1(1.0f), determinant);
        const F32 step = (w * xq - q * x) * inverse, low = (qq * x - q * xq) * inverse;
        // Only an offset below zero can be stored: else the best line through zero.
        const F32 through_zero = ratio(xq, qq);
        line.step = select_above(low, zero(), through_zero, step);
        line.low = min(low, zero());
        const F32 gain = line.step * xq + line.low * x;
        const F32 valid = select_above(determinant, zero(), line.step, set1(-1.0f));
        return select_above(valid, zero(), gain, set1(-1.0f));
    }
};

template <int Size, int Top> struct AffineFit {
    const Columns<Size>& x;
    const Columns<Size>& w;
    Columns<Size> wx;
    F32 sum_w, sum_x;

    AffineFit(const Columns<Size>& values, const Columns<Size>& weights) : x(values), w(weights) {
        sum_w = sum_x = zero();
        for (int i = 0; i < Size; i++) {
            const F32 product = w.at(i) * x.at(i);
            wx.put(i, product);
            sum_w = sum_w + w.at(i);
            sum_x = sum_x + product;
        }
    }

    TL_INLINE F32 improve(F32 inverse, F32 low, AffineLine& line) const {
        AffineSums sums{sum_w, sum_x};
        const F32 shift = low * inverse;
        for (int i = 0; i < Size; i++) {
            const F32 q = clamp(round(x.at(i) * inverse - shift), zero(), set1(float(Top)));
            sums.add(w.at(i), wx.at(i), q);
        }
        return sums.solve(line);
    }

    // The best free line of each lane.
    AffineLine fit(float first_shift, float shift_step, int num_shifts) const {
        F32 high = x.at(0), least = zero();
        for (int i = 0; i < Size; i++) {
            high = max(high, x.at(i));
            least = min(least, x.at(i));
        }
        high = max(high, least);
        AffineLine best{ratio(high - least, set1(float(Top))), least};
        F32 best_gain = set1(-1.0f);
        const auto keep = [&](F32 gain, const AffineLine& line) {
            best.step = select_above(gain, best_gain, line.step, best.step);
            best.low = select_above(gain, best_gain, line.low, best.low);
            best_gain = max(gain, best_gain);
        };
        AffineLine line;
        for (int i = 0; i < num_shifts; i++) {
            const F32 steps = set1(float(Top) + first_shift + shift_step * float(i));
            keep(improve(ratio(steps, high - best.low), best.low, line), line);
        }
        for (int i = 0; i < 3; i++) keep(improve(ratio(set1(1.0f), best.step), best.low, line), line);
        return best;
    }

    TL_INLINE F32 error(F32 step, F32 offset) const {
        const F32 inverse = ratio(set1(1.0f), step), shift = offset * inverse;
        F32 sum = zero();
        for (int i = 0; i < Size; i++) {
            const F32 q = clamp(round(x.at(i) * inverse + shift), zero(), set1(float(Top)));
            const F32 r = step * q - offset - x.at(i);
            sum = sum + w.at(i) * r * r;
        }
        return sum;
    }
};

// A super-block's numbers on their grid: per lane, step = d * scale, offset = dmin * minimum.
struct AffineGrid { F32 d, dmin, scale, minimum, error; };

// Searches the multiples around the free solution.
template <int Size, int Top>
TL_INLINE void search_multiples(const AffineFit<Size, Top>& fit, const AffineLine& line, float largest,
                                AffineGrid& grid) {
    const F32 scale = round(ratio(line.step, grid.d)), minimum = round(ratio(zero() - line.low, grid.dmin));
    grid.error = set1(INFINITY);
    grid.scale = grid.minimum = zero();
    for (int i = -1; i <= 1; i++) {
        for (int j = -1; j <= 1; j++) {
            const F32 s = clamp(scale + set1(float(i)), zero(), set1(largest));
            const F32 m = clamp(minimum + set1(float(j)), zero(), set1(largest));
            const F32 error = fit.error(grid.d * s, grid.dmin * m);
            grid.scale = select_above(grid.error, error, s, grid.scale);
            grid.minimum = select_above(grid.error, error, m, grid.minimum);
            grid.error = min(grid.error, error);
        }
    }
}

// d and dmin that suit the q of a grid best: least squares over the super-block.
template <int Size, int Width, int Top>
TL_INLINE void refit_units(const AffineFit<Size, Top>& fit, const AffineGrid& grid, F32& d, F32& dmin) {
    const F32 step = grid.d * grid.scale, offset = grid.dmin * grid.minimum;
    const F32 inverse = ratio(set1(1.0f), step), shift = offset * inverse;
    AffineSums sums{fit.sum_w, fit.sum_x};
    for (int i = 0; i < Size; i++) {
        const F32 q = clamp(round(fit.x.at(i) * inverse + shift), zero(), set1(float(Top)));
        sums.add(fit.w.at(i), fit.wx.at(i), q);
    }
    const F32 s = grid.scale, m = grid.minimum;
    const F32 ss = sum_lanes<Width>(s * s * sums.qq), sm = sum_lanes<Width>(s * m * sums.q);
    const F32 mm = sum_lanes<Width>(m * m * sums.w);
    const F32 sx = sum_lanes<Width>(s * sums.xq), mx = sum_lanes<Width>(m * sums.x);
    const F32 determinant = ss * mm - sm * sm;
    const F32 inverse_determinant = ratio(set1(1.0f), determinant);
    const F32 both_d = (sx * mm - mx * sm) * inverse_determinant, both_m = (sx * sm - mx * ss) * inverse_determinant;
    // Without minimums, or with a line that cannot be solved, d alone.
    const F32 solvable = select_above(determinant, zero(), both_m, set1(-1.0f));
    d = through_f16(select_above(solvable, zero(), both_d, ratio(sx, ss)));
    dmin = through_f16(select_above(solvable, zero(), both_m, zero()));
}

// The whole fit of 16 / Width super-blocks; q is written as numbers 0..Top.
template <int Size, int Width, int Top>
TL_INLINE AffineGrid fit_affine(const AffineFit<Size, Top>& fit, const AffineLine& line, float largest,
                                Columns<Size>& q) {
    const auto unit = [&](F32 peak) { return through_f16(peak_lanes<Width>(peak) * set1(1.0f / largest)); };
    AffineGrid best{unit(line.step), unit(line.low * set1(-1.0f)), zero(), zero(), zero()};
    search_multiples(fit, line, largest, best);
    for (int pass = 0; pass < 2; pass++) {
        AffineGrid next = best;
        refit_units<Size, Width, Top>(fit, best, next.d, next.dmin);
        search_multiples(fit, line, largest, next);
        const F32 before = sum_lanes<Width>(best.error), after = sum_lanes<Width>(next.error);
        const auto pick = [&](F32& a, F32 b) { a = select_above(before, after, b, a); };
        pick(best.d, next.d);
        pick(best.dmin, next.dmin);
        pick(best.scale, next.scale);
        pick(best.minimum, next.minimum);
        pick(best.error, next.error);
    }
    const F32 step = best.d * best.scale, offset = best.dmin * best.minimum;
    const F32 inverse = ratio(set1(1.0f), step), shift = offset * inverse;
    for (int i = 0; i < Size; i++) {
        q.put(i, clamp(round(fit.x.at(i) * inverse + shift), zero(), set1(float(Top))));
    }
    return best;
}

}  // namespace tl::TL_LEVEL
