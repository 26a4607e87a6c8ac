// The first half of attention: a block of pairs' scores for a page of keys, and what they weigh. Included by
// attention.cpp alone.
#pragma once

#include <cfloat>

#include "cpu/attention_call.h"
#include "cpu/sigmoid.h"

namespace tl::TL_LEVEL {
namespace {

// A page's keys and values of one head, as stored or widened.
struct PageView {
    KvType k_type, v_type;
    HeadPage keys, values;
};

// scores[i][key] = q_i . k_key for all keys of the page; what a row does not see is dropped by the softmax.
template <KvType type, int P> TL_KERNEL void score_block(const Call& call, const PageView& view, int pair) {
    ScatteredRows<P> queries;
    for (int i = 0; i < P; i++) queries.rows[i] = call.scratch.pairs[pair + i].query;
    const KeyRows<type> keys{view.keys, call.head_dim};
    multiply_wide<type, P, min_int(vectors_for(P), kPageVectors)>(
        queries, keys, 0, kPageVectors, {0, call.head_dim}, {call.scores(0), kPageTokens, false}, view.keys.ahead);
}

template <int P> void score(const Call& call, const PageView& view, int pair) {
    if (view.k_type == kWidened) return score_block<kWidened, P>(call, view, pair);
    switch (view.k_type) {
        case KvType::kF32:
            return score_block<KvType::kF32, P>(call, view, pair);
        case KvType::kF16:
            return score_block<KvType::kF16, P>(call, view, pair);
        case KvType::kBF16:
            return score_block<KvType::kBF16, P>(call, view, pair);
        case KvType::kQ8_0:
            return score_block<KvType::kQ8_0, P>(call, view, pair);
        case KvType::kQ4_0:
            return score_block<KvType::kQ4_0, P>(call, view, pair);
    }
}

// Lanes of vector v that lie in the range keep a's value, the others b's.
TL_INLINE F32 keep_visible(RowRange range, int v, F32 a, F32 b) {
    const F32 from_begin = first_lanes(clamp(range.begin - v * kLanes, 0, kLanes), b, a);
    return first_lanes(clamp(range.end - v * kLanes, 0, kLanes), from_begin, b);
}

bool is_shaped(const AttentionArgs& a) { return a.softcap > 0.0f || a.slopes; }

// Scales, caps and tilts a pair's scores of a page: what a plain softmax does by its scale alone.
TL_KERNEL void shape_scores(const AttentionArgs& a, const Pair& pair, int page, float* scores) {
    static constexpr float kIota[kLanes] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    const F32 cap = set1(a.softcap), slope = set1(a.slopes ? a.slopes[pair.head] : 0.0f);
    for (int v = 0; v < kPageVectors; v++) {
        F32 x = load(scores + v * kLanes) * set1(a.scale);
        if (a.softcap > 0.0f) x = tanh(x / cap) * cap;
        const F32 distance = set1(float(page * kPageTokens + v * kLanes - pair.position)) + load(kIota);
        store(scores + v * kLanes, fma(slope, distance, x));
    }
}

// A weight may grow to 2^8 before the pair's sums are scaled to a new maximum: with ordinary scores the first page's
// maximum then stands. Sums in float32 are as accurate with weights up to 256 as up to 1. Whether to scale is decided
// by the row's own numbers alone.
constexpr float kHeadroom = 8.0f;

// Takes the page's largest visible score, in powers of two, as the pair's maximum.
TL_KERNEL void raise_maximum(const Call& call, int pair, RowRange range, const float* scores, F32 scale) {
    F32 highest = set1(-FLT_MAX);
    for (int v = 0; v < kPageVectors; v++) {
        highest = max(highest, keep_visible(range, v, load(scores + v * kLanes) * scale, highest));
    }
    float& maximum = call.scratch.maxima[pair];
    const float raised = reduce_max(highest);
    const F32 factor = exp2(set1(maximum) - set1(raised));
    maximum = raised;
    float* const sums = call.scratch.sums + pair * kLanes;
    float* const values = call.values(pair);
    store(sums, load(sums) * factor);
    for (int d = 0; d < call.value_width; d += kLanes) store(values + d, load(values + d) * factor);
}

// Turns a pair's scores of this page into weights 2^(s - m) and adds them to its sums. Weights of keys that the row does
// not see have no meaning and are used by nobody.
TL_INLINE void weigh(const Call& call, int pair, RowRange range, float* scores, F32 scale) {
    const bool whole = range.begin == 0 && range.end == kPageTokens;
    const F32 hidden = set1(-FLT_MAX);
    const float* maximum = call.scratch.maxima + pair;
    Regs<F32, kPageVectors> x;
    const auto exponents = [&] {
        F32 highest = hidden;
        each(x, [&](int v, F32& e) {
            e = fms(load(scores + v * kLanes), scale, set1(*maximum));
            highest = max(highest, whole ? e : keep_visible(range, v, e, hidden));
        });
        return highest;
    };
    if (any_above(exponents(), set1(kHeadroom))) {
        raise_maximum(call, pair, range, scores, scale);
        exponents();
    }
    float* const sums = call.scratch.sums + pair * kLanes;
    F32 sum = load(sums);
    each(x, [&](int v, F32 e) {
        const F32 weight = exp2(e);
        store(scores + v * kLanes, weight);
        sum = sum + (whole ? weight : keep_visible(range, v, weight, zero()));
    });
    store(sums, sum);
}

// Weights of a block's pairs; they are independent, so their latencies overlap.
template <int P> TL_KERNEL void weigh_block(const Call& call, int pair, const RowRange* ranges, bool shaped) {
    const F32 scale = set1(shaped ? kLog2E : call.args.scale * kLog2E);
    for (int i = 0; i < P; i++) weigh(call, pair + i, ranges[i], call.scores(i), scale);
}

}  // namespace
}  // namespace tl::TL_LEVEL
