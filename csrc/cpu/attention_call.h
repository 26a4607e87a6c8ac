// One call of attention: its pairs, which keys they see, and its scratch memory. Included by attention.cpp alone.
#pragma once

#include <climits>

#include "cpu/attention_product.h"
#include "cpu/kernels.h"

namespace tl::TL_LEVEL {
namespace {

// A function of its own with everything inlined into it: only then do accumulators stay in registers.
#define TL_KERNEL __attribute__((flatten, noinline))

constexpr int kPageVectors = kPageTokens / kLanes;
constexpr float kLog2E = 1.44269504088896341f;

// One (row, query head): where its numbers are and which positions it sees.
struct Pair {
    const float* query;
    float* out;
    int head, first_visible, last_visible, position;

    // Keys begin .. end - 1 of a page that it sees.
    RowRange visible(int page) const {
        const int start = page * kPageTokens;
        return {clamp(first_visible - start, 0, kPageTokens), clamp(last_visible + 1 - start, 0, kPageTokens)};
    }
    bool sees(int range) const {
        return first_visible < (range + 1) * kAttentionRange && last_visible >= range * kAttentionRange;
    }
};

// Numbers of each pair for the range at hand: running maximum, sum of weights by lanes, accumulated values; and for the
// ranges before it, folded: the same, with the lanes added up. For the block at hand: scores, which become weights. For
// the page at hand: scales widened, and keys and values widened. For a row of a tree: the page as its path fills it.
struct Scratch {
    Pair* pairs;
    float *maxima, *sums, *values;
    float *folded_maxima, *folded_sums, *folded_values;
    float *scores, *key_scales, *value_scales, *wide_keys, *wide_values;
    uint8_t *path_keys, *path_values;
};

// Carves the parts out of base (null: only measures); returns the bytes that they take.
size_t place(const KvLayout& layout, int group, uint8_t* base, Scratch& s) {
    const size_t pairs = size_t(kAttentionRows) * group, width = layout.value_width();
    size_t taken = 0;
    const auto take = [&](auto*& part, size_t n) {
        part = reinterpret_cast<decltype(+part)>(base ? base + taken : nullptr);
        taken += align_up(n * sizeof(*part), kRowAlignment);
    };
    take(s.pairs, pairs);
    take(s.maxima, pairs);
    take(s.sums, pairs * kLanes);
    take(s.values, pairs * width);
    take(s.folded_maxima, pairs);
    take(s.folded_sums, pairs);
    take(s.folded_values, pairs * width);
    take(s.scores, kBlockPairs * kPageTokens);
    take(s.key_scales, size_t(kPageTokens) * kv_blocks(layout.head_dim));
    take(s.value_scales, size_t(kPageTokens) * kv_blocks(layout.head_dim));
    take(s.wide_keys, size_t(kPageTokens) * layout.head_dim);
    take(s.wide_values, size_t(kPageTokens) * width);
    take(s.path_keys, layout.k_head_bytes());
    take(s.path_values, layout.v_head_bytes());
    return taken;
}

struct Call {
    const AttentionArgs& args;
    Scratch scratch;
    int num_pairs, head_dim, value_width;
    int first_page, last_page;  // that any pair sees

    float* values(int pair) const { return scratch.values + size_t(pair) * value_width; }
    float* folded_values(int pair) const { return scratch.folded_values + size_t(pair) * value_width; }
    float* scores(int i) const { return scratch.scores + i * kPageTokens; }
};

int position_of(const AttentionArgs& a, int row) { return a.positions ? a.positions[row] : a.first_position + row; }

int first_visible(const AttentionArgs& a, int row) {
    return a.window > 0 ? max_int(position_of(a, row) - a.window + 1, 0) : 0;
}

int last_visible(const AttentionArgs& a, int row) {
    return (a.num_keys > 0 ? a.num_keys : position_of(a, row) + 1) - 1;
}

Call make_call(const AttentionArgs& a) {
    Call call{a, {}, (a.row_end - a.row_begin) * a.group, a.layout->head_dim, a.layout->value_width(), INT_MAX, 0};
    place(*a.layout, a.group, a.scratch, call.scratch);
    Pair* pair = call.scratch.pairs;
    for (int row = a.row_begin; row < a.row_end; row++) {
        call.first_page = min_int(call.first_page, first_visible(a, row) / kPageTokens);
        call.last_page = max_int(call.last_page, last_visible(a, row) / kPageTokens);
        for (int h = 0; h < a.group; h++) {
            const int head = a.kv_head * a.group + h;
            const size_t offset = size_t(head) * call.head_dim;
            *pair++ = {a.q + row * a.q_stride + offset,
                       a.out + row * a.out_stride + offset,
                       head,
                       first_visible(a, row),
                       last_visible(a, row),
                       position_of(a, row)};
        }
    }
    return call;
}

}  // namespace
}  // namespace tl::TL_LEVEL
