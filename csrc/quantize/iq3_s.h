// IQ3_S: four magnitudes are an entry of a codebook of 512 patterns of the levels 1, 3, .., 15, and signs are free
// (torchless/quants/iq3_s.py describes the bytes).
//
// The nearest entry is found among all of them: with a step given, the error of four weights is a sum over two pairs, and
// a pair has 64 patterns. So 2 * 64 numbers are made for the sixteen groups in the lanes, and an entry costs an
// addition, a comparison and two selections. Around that the fit is that of scaled.h.
#pragma once

#include "quantize/k_scaled.h"
#include "quants/grids.h"

namespace tl::TL_LEVEL {

// The codebook's entries of eight groups of four, as numbers.
using GridEntries = Columns<8>;

struct GridFit {
    using Result = GridEntries;
    static constexpr int kTrials = 9;
    static constexpr float kSpread = 2.5f;  // of trial steps, in levels

    // The codebook is searched in so many parts at a time: a comparison waits for the one before it.
#if defined(TL_LEVEL_AVX512)
    static constexpr int kChains = 4;
#else
    static constexpr int kChains = 2;
#endif
    static constexpr int kChainEntries = 512 / kChains;

    Columns<32> w, wx;  // weights, and weights times magnitudes
    F32 peak = zero();

    GridFit(const Columns<32>& values, const Columns<32>& weights) : w(weights) {
        for (int i = 0; i < 32; i++) {
            const F32 x = abs(values.at(i));
            peak = max(peak, x);
            wx.put(i, w.at(i) * x);
        }
    }

    // Costs of a weight less that of zero: w (step v)^2 - 2 w x step v of the eight levels v.
    TL_INLINE void level_costs(int i, F32 step, float (*costs)[kLanes]) const {
        const F32 square = w.at(i) * step * step, twice = wx.at(i) * step * set1(2.0f);
        for (int level = 0; level < 8; level++) {
            const F32 v = set1(float(2 * level + 1));
            store(costs[level], v * (square * v - twice));
        }
    }

    // Costs of the 64 patterns of weights i and i + 1, the first in the low three bits.
    TL_INLINE void pair_costs(int i, F32 step, float (*costs)[kLanes]) const {
        alignas(64) float first[8][kLanes], second[8][kLanes];
        level_costs(i, step, first);
        level_costs(i + 1, step, second);
        for (int pattern = 0; pattern < 64; pattern++) {
            store(costs[pattern], load(first[pattern & 7]) + load(second[pattern >> 3]));
        }
    }

    // The least error at a step, less that of zeros; `put(g, entry)` is told the entries behind it.
    template <bool kPut, class Put> TL_INLINE F32 least(F32 step, Put put) const {
        alignas(64) float low[64][kLanes], high[64][kLanes];
        F32 total = zero();
        for (int g = 0; g < 8; g++) {
            pair_costs(4 * g, step, low);
            pair_costs(4 * g + 2, step, high);
            Regs<F32, kChains> best, entry;
            each(best, entry, [](int, F32& c, F32& e) TL_LAMBDA {
                c = set1(INFINITY);
                e = zero();
            });
            F32 number = zero();
            TL_UNROLL(1)
            for (int k = 0; k < kChainEntries; k++) {
                each(best, entry, [&](int chain, F32& c, F32& e) TL_LAMBDA {
                    const int pattern = kGridIq3S[chain * kChainEntries + k];
                    const F32 cost = load(low[pattern & 63]) + load(high[pattern >> 6]);
                    if constexpr (kPut) e = select_above(c, cost, number, e);
                    c = min(c, cost);
                });
                number = number + set1(1.0f);
            }
            F32 found = set1(INFINITY), where = zero();
            each(best, entry, [&](int chain, F32& c, F32& e) TL_LAMBDA {
                if constexpr (kPut) where = select_above(found, c, e + set1(float(chain * kChainEntries)), where);
                found = min(found, c);
            });
            put(g, where);
            total = total + found;
        }
        return total;
    }

    __attribute__((noinline)) F32 error(F32 step) const {
        return least<false>(step, [](int, F32) TL_LAMBDA {});
    }

    __attribute__((noinline)) void choose(F32 step, GridEntries& entries) const {
        least<true>(step, [&](int g, F32 entry) TL_LAMBDA { entries.put(g, entry); });
    }

    // Sums of w x q and w q^2 with the entries chosen at a step of 1 / inverse.
    TL_INLINE void sums(F32 inverse, F32& xq, F32& qq) const {
        GridEntries entries;
        choose(ratio(set1(1.0f), inverse), entries);
        xq = qq = zero();
        for (int g = 0; g < 8; g++) {
            alignas(64) float levels[4][kLanes];
            int32_t numbers[kLanes];
            istore(numbers, to_int(entries.at(g)));
            for (int lane = 0; lane < kLanes; lane++) {
                const int pattern = kGridIq3S[numbers[lane]];
                for (int i = 0; i < 4; i++) levels[i][lane] = float(2 * (pattern >> 3 * i & 7) + 1);
            }
            for (int i = 0; i < 4; i++) {
                const F32 q = load(levels[i]);
                xq = xq + wx.at(4 * g + i) * q;
                qq = qq + w.at(4 * g + i) * q * q;
            }
        }
    }

    TL_INLINE void quantise(F32 inverse, GridEntries& entries) const { choose(ratio(set1(1.0f), inverse), entries); }

    // The best free step of each lane. Trials put the largest magnitude around the highest level; least squares move on
    // from the best of them.
    F32 fit() const {
        F32 best = zero(), least_error = zero();
        for (int i = 0; i < kTrials; i++) {
            const float top = 15.0f + kSpread * (2.0f * float(i) / float(kTrials - 1) - 1.0f);
            const F32 step = peak * set1(1.0f / top), found = error(step);
            best = select_above(least_error, found, step, best);
            least_error = min(least_error, found);
        }
        for (int i = 0; i < 2; i++) {
            F32 xq, qq;
            sums(ratio(set1(1.0f), best), xq, qq);
            best = ratio(xq, qq);
        }
        return best;
    }
};

// Steps of IQ3_S: d (2 s + 1), s of 0 .. 15.
struct OddMultiples {
    static constexpr float kPeak = 31.0f, kStride = 2.0f;

    TL_INLINE F32 nearest(F32 multiple) const {
        return round((multiple - set1(1.0f)) * set1(0.5f)) * set1(2.0f) + set1(1.0f);
    }
    TL_INLINE F32 limit(F32 multiple) const { return clamp(multiple, set1(1.0f), set1(31.0f)); }
    TL_INLINE float peak() const { return kPeak; }
    TL_INLINE float stride() const { return kStride; }
};

// The sub-blocks first .. first + 7.
TL_INLINE void write_iq3_s(const Columns<32>& values, const GridEntries& entries, const ScaledGrid& grid, int first,
                           uint8_t* out) {
    float d[kLanes], multiples[kLanes];
    store(d, grid.d);
    store(multiples, grid.scale);
    std::memset(out, 0, 110);
    write_f16(out, d[first]);
    for (int s = 0; s < 8; s++) {
        const int lane = first + s, scale = (int(multiples[lane]) - 1) / 2;
        out[106 + s / 2] |= uint8_t(scale << 4 * (s % 2));
        for (int g = 0; g < 8; g++) {
            const int entry = int(entries.v[g][lane]);
            out[2 + 8 * s + g] = uint8_t(entry & 255);
            out[66 + s] |= uint8_t((entry >> 8) << g);
        }
        for (int i = 0; i < 32; i++) out[74 + 4 * s + i / 8] |= uint8_t((values.v[i][lane] < 0.0f) << i % 8);
    }
}

// Without importance a weight counts with its square and the mean square of its super-block. The square alone, as
// in k_scaled.h, would buy exact large weights with twice the plain error here, where levels are few; so both are lower
// than those of llama.cpp's quantiser.
TL_INLINE void add_mean_square(const Columns<32>& values, Columns<32>& weights) {
    F32 squares = zero();
    for (int i = 0; i < 32; i++) squares = squares + values.at(i) * values.at(i);
    const F32 mean = sum_lanes<8>(squares) * set1(1.0f / 256.0f);
    for (int i = 0; i < 32; i++) weights.put(i, weights.at(i) + mean);
}

inline void quantise_iq3_s(const QuantiserInput& in, uint8_t* out) {
    for (size_t begin = 0; begin < in.num_weights; begin += 512) {
        const int count = count_sub_blocks<32>(in, begin);
        Columns<32> values, weights;
        gather_weighted<32, 8>(in, begin, count, 2.0f, values, weights);
        if (!in.importance) add_mean_square(values, weights);
        const GridFit fit(values, weights);
        GridEntries entries;
        const ScaledGrid grid = fit_scaled<8>(fit, fit.fit(), OddMultiples{}, entries);
        for (int first = 0; first < count; first += 8, out += 110) write_iq3_s(values, entries, grid, first, out);
    }
}

}  // namespace tl::TL_LEVEL
