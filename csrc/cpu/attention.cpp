// Attention of a few query rows of one sequence with one key/value head, page by page with an online softmax:
//
//   out = sum_j 2^(s_j - m) v_j / sum_j 2^(s_j - m),   s_j = log2(e) * score_j
//
// over the keys j that the row sees; m, which cancels, keeps the powers in range. A *pair* is one (row, query head of
// the group). All pairs of a call meet a page of keys and values together, so the page is read once for all of them.
//
//   score_j = scale * (q . k_j), then optionally cap * tanh(score / cap), then + slope * (j - position)   (ALiBi)
//
// and a sink adds one more term to the denominator, a score without a value.
//
// Keys in lanes for the scores, head dimensions in lanes for the values: both halves of the work are then the same
// small product (attention_product.h).
//
// Positions are cut into ranges of kAttentionRange keys. Each gives a *partial*, the m, the sum of powers and the sum of
// weighted values of its keys alone, and partials are folded in ascending order:
//
//   M = max(m1, m2),   sum = sum1 2^(m1 - M) + sum2 2^(m2 - M)   and so for each value.
//
// Whether one call takes all ranges of a row or many threads take one each, the same numbers are folded in the same order.
//
// The promise: every number of a pair is the result of float operations whose order depends only on the pair's own
// row. Lanes never mix; a score is one fma chain over ascending dimensions; pages and ranges lie at absolute positions;
// a value is one fma chain over the ascending keys of a range that this row sees. Keys that it does not see never enter
// its arithmetic, whatever memory they hold. How pairs are grouped into register blocks changes nothing.
//
// A tree of drafted tokens: pages before it are met by all rows, as ever; those that hold its tokens are laid out for each
// row as its path fills them, so that the same operations follow in the same order as for a plain sequence.
#include <cfloat>
#include <cstring>

#include "core/kv_copy.h"
#include "cpu/attention_scores.h"
#include "cpu/level.h"

namespace tl::TL_LEVEL {
namespace {

// ---- Values ------------------------------------------------------------------------------------------------------------

// values[pair + i] += sum of the weights of pair `first + i` times the values of keys range.begin .. range.end - 1.
template <KvType type, int P>
TL_KERNEL void value_block(const Call& call, const PageView& view, int pair, int first, RowRange range) {
    const AdjacentRows<kPageTokens> weights{call.scores(first)};
    const ValueRows<type> values{view.values, call.value_width};
    multiply_wide<type, P, vectors_for(P)>(weights, values, 0, call.value_width / kLanes, range,
                                           {call.values(pair), size_t(call.value_width), true}, view.values.ahead);
}

template <int P> void add_values(const Call& call, const PageView& view, int pair, int first, RowRange range) {
    if (range.begin >= range.end) return;
    if (view.v_type == kWidened) return value_block<kWidened, P>(call, view, pair, first, range);
    switch (view.v_type) {
        case KvType::kF32:
            return value_block<KvType::kF32, P>(call, view, pair, first, range);
        case KvType::kF16:
            return value_block<KvType::kF16, P>(call, view, pair, first, range);
        case KvType::kBF16:
            return value_block<KvType::kBF16, P>(call, view, pair, first, range);
        case KvType::kQ8_0:
            return value_block<KvType::kQ8_0, P>(call, view, pair, first, range);
        case KvType::kQ4_0:
            return value_block<KvType::kQ4_0, P>(call, view, pair, first, range);
    }
}

// Keys that only some rows of a block see are added for each of its pairs alone, in its own order: first those before
// the keys that all see, then these, then those after.
template <int P> void add_visible_values(const Call& call, const PageView& view, int pair, const RowRange* ranges) {
    RowRange shared{0, kPageTokens};
    for (int i = 0; i < P; i++) {
        shared = {max_int(shared.begin, ranges[i].begin), min_int(shared.end, ranges[i].end)};
    }
    if (shared.begin >= shared.end) shared = {kPageTokens, kPageTokens};
    for (int i = 0; i < P; i++) {
        add_values<1>(call, view, pair + i, i, {ranges[i].begin, min_int(ranges[i].end, shared.begin)});
    }
    add_values<P>(call, view, pair, 0, shared);
    for (int i = 0; i < P; i++) {
        add_values<1>(call, view, pair + i, i, {max_int(ranges[i].begin, shared.end), ranges[i].end});
    }
}

// ---- One page ----------------------------------------------------------------------------------------------------------

// Pairs pair .. end - 1 meet the page, P at a time, then half as many.
template <int P> void attend_pairs(const Call& call, const PageView& view, int page, int pair, int end) {
    const bool shaped = is_shaped(call.args);
    for (; pair + P <= end; pair += P) {
        RowRange ranges[P];
        for (int i = 0; i < P; i++) ranges[i] = call.scratch.pairs[pair + i].visible(page);
        score<P>(call, view, pair);
        if (shaped) {
            for (int i = 0; i < P; i++) shape_scores(call.args, call.scratch.pairs[pair + i], page, call.scores(i));
        }
        weigh_block<P>(call, pair, ranges, shaped);
        add_visible_values<P>(call, view, pair, ranges);
    }
    if constexpr (P > 1) {
        if (pair < end) attend_pairs<P / 2>(call, view, page, pair, end);
    }
}

// The scales behind a head's elements, widened.
const float* widen_scales(KvType type, const uint8_t* head, size_t data_bytes, int blocks, float* to) {
    if (!kv_has_scales(type)) return nullptr;
    const uint16_t* scales = reinterpret_cast<const uint16_t*>(head + data_bytes);
    for (int i = 0; i < blocks * kPageTokens; i += kLanes) store(to + i, load_f16(scales + i));
    return to;
}

// A head's keys and values in memory, and what is read later.
struct HeadMemory { const uint8_t *keys, *values; };

HeadMemory head_of_page(const AttentionArgs& a, int page) {
    const uint8_t* memory = a.pages + size_t(a.page_ids[page]) * a.page_bytes;
    return {memory + a.layout->k_offset(a.kv_head), memory + a.layout->v_offset(a.kv_head)};
}

PageView view_head(const Call& call, HeadMemory here, HeadMemory ahead) {
    const KvLayout& layout = *call.args.layout;
    const int blocks = kv_blocks(layout.head_dim);
    const Scratch& s = call.scratch;
    const float* k = widen_scales(layout.k_type, here.keys, layout.k_data_bytes(), blocks, s.key_scales);
    const float* v = widen_scales(layout.v_type, here.values, layout.v_data_bytes(), blocks, s.value_scales);
    return {layout.k_type, layout.v_type, {here.keys, k, ahead.keys}, {here.values, v, ahead.values}};
}

PageView view_page(const Call& call, int page) {
    const int next = min_int(page + 2, call.last_page);
    return view_head(call, head_of_page(call.args, page), head_of_page(call.args, next));
}

template <KvType type> TL_KERNEL void widen_keys(const Call& call, const HeadPage& page) {
    const KeyRows<type> keys{page, call.head_dim};
    float* to = call.scratch.wide_keys;
    for (int v = 0; v < kPageVectors; v++) {
        for (int d = 0; d < call.head_dim; d++, to += kLanes) store(to, keys.at(d, v));
    }
}

template <KvType type> TL_KERNEL void widen_values(const Call& call, const HeadPage& page) {
    const ValueRows<type> values{page, call.value_width};
    float* to = call.scratch.wide_values;
    for (int key = 0; key < kPageTokens; key++) {
        for (int v = 0; v < call.value_width / kLanes; v++, to += kLanes) store(to, values.at(key, v));
    }
}

using Widen = void (*)(const Call&, const HeadPage&);
constexpr Widen kWidenKeys[] = {nullptr, widen_keys<KvType::kF16>, widen_keys<KvType::kBF16>, widen_keys<KvType::kQ8_0>,
                                widen_keys<KvType::kQ4_0>};
constexpr Widen kWidenValues[] = {nullptr, widen_values<KvType::kF16>, widen_values<KvType::kBF16>,
                                  widen_values<KvType::kQ8_0>, widen_values<KvType::kQ4_0>};

// The page as float32, in the cache.
PageView widen(const Call& call, PageView view) {
    const uint8_t* keys = reinterpret_cast<const uint8_t*>(call.scratch.wide_keys);
    const uint8_t* values = reinterpret_cast<const uint8_t*>(call.scratch.wide_values);
    if (view.k_type != KvType::kF32) {
        kWidenKeys[int(view.k_type)](call, view.keys);
        view.keys = {keys, nullptr, keys};
    }
    if (view.v_type != KvType::kF32) {
        kWidenValues[int(view.v_type)](call, view.values);
        view.values = {values, nullptr, values};
    }
    view.k_type = view.v_type = kWidened;
    return view;
}

// For more pairs than this a page is widened once for all blocks of pairs. Widening is exact, so it changes no bit.
constexpr int kDirectPairs = 2 * kBlockPairs;

bool sees_page(const Call& call, int pair, int page) {
    const RowRange range = call.scratch.pairs[pair].visible(page);
    return range.begin < range.end;
}

void attend_view(const Call& call, const PageView& view, int page, int begin, int end) {
    attend_pairs<kBlockPairs>(call, end - begin > kDirectPairs ? widen(call, view) : view, page, begin, end);
}

// Rows that see nothing of the page are left out. Those that do are neighbours, but for a tree's behind a window, where one
// between them may see nothing: then nothing is added to its numbers.
void attend_page(const Call& call, int page) {
    const int group = call.args.group;
    int begin = 0, end = call.num_pairs;
    while (begin < end && !sees_page(call, begin, page)) begin += group;
    while (end > begin && !sees_page(call, end - group, page)) end -= group;
    if (begin < end) attend_view(call, view_page(call, page), page, begin, end);
}

// ---- Pages of a tree ---------------------------------------------------------------------------------------------------

// Puts the keys and values of a row and of those before it that lie on this page where a plain sequence has them.
void lay_path(const Call& call, int row, int page) {
    const AttentionArgs& a = call.args;
    for (; row >= 0 && a.positions[row] >= page * kPageTokens; row = a.parents[row]) {
        if (a.positions[row] / kPageTokens > page) continue;
        const int from = a.first_position + row, to = a.positions[row] % kPageTokens;
        const HeadMemory memory = head_of_page(a, from / kPageTokens);
        copy_key(*a.layout, memory.keys, from % kPageTokens, call.scratch.path_keys, to);
        copy_value(*a.layout, memory.values, from % kPageTokens, call.scratch.path_values, to);
    }
}

// A page that holds, or would hold, tokens of the tree: each row meets it as its own path fills it. What the path of
// another row left there lies behind the row's own position, or is written over.
void attend_paths(const Call& call, int page) {
    const AttentionArgs& a = call.args;
    if (page * kPageTokens < a.first_position) {
        const HeadMemory memory = head_of_page(a, page);
        std::memcpy(call.scratch.path_keys, memory.keys, a.layout->k_head_bytes());
        std::memcpy(call.scratch.path_values, memory.values, a.layout->v_head_bytes());
    }
    const HeadMemory path{call.scratch.path_keys, call.scratch.path_values};
    for (int pair = 0; pair < call.num_pairs; pair += a.group) {
        if (!sees_page(call, pair, page)) continue;
        lay_path(call, a.row_begin + pair / a.group, page);
        attend_view(call, view_head(call, path, path), page, pair, pair + a.group);
    }
}

// ---- Ranges ------------------------------------------------------------------------------------------------------------

// A range's result for one pair.
struct Partial {
    float maximum, sum;
    const float* values;
};

void fold(const Call& call, int pair, int range, const Partial& partial) {
    float &maximum = call.scratch.folded_maxima[pair], &sum = call.scratch.folded_sums[pair];
    float* values = call.folded_values(pair);
    if (call.scratch.pairs[pair].first_visible / kAttentionRange == range) {  // the first that it sees
        maximum = partial.maximum, sum = partial.sum;
        for (int d = 0; d < call.value_width; d += kLanes) store(values + d, load(partial.values + d));
        return;
    }
    const float highest = partial.maximum > maximum ? partial.maximum : maximum;
    const F32 before = exp2(set1(maximum) - set1(highest)), here = exp2(set1(partial.maximum) - set1(highest));
    maximum = highest;
    float sums[kLanes];
    store(sums, fma(set1(sum), before, set1(partial.sum) * here));
    sum = sums[0];
    for (int d = 0; d < call.value_width; d += kLanes) {
        store(values + d, fma(load(values + d), before, load(partial.values + d) * here));
    }
}

// Where a range's partials go when another call folds them: maxima, sums and values of all pairs.
struct PartialMemory { float *maxima, *sums, *values; };

PartialMemory partial_memory(const Call& call, int range) {
    float* base = call.args.partials + (range - call.args.range_begin) * call.args.partial_stride;
    return {base, base + call.num_pairs, base + 2 * call.num_pairs};
}

void attend_range(const Call& call, int range) {
    const AttentionArgs& a = call.args;
    const Scratch& s = call.scratch;
    for (int i = 0; i < call.num_pairs; i++) s.maxima[i] = -FLT_MAX;
    for (int i = 0; i < call.num_pairs * kLanes; i += kLanes) store(s.sums + i, zero());
    for (int i = 0; i < call.num_pairs * call.value_width; i += kLanes) store(s.values + i, zero());
    constexpr int kPages = kAttentionRange / kPageTokens;
    const int first = max_int(call.first_page, range * kPages);
    const int last = min_int(call.last_page, range * kPages + kPages - 1);
    const int first_tree_page = a.positions ? a.first_position / kPageTokens : INT_MAX;
    for (int page = first; page <= last; page++) {
        page < first_tree_page ? attend_page(call, page) : attend_paths(call, page);
    }
    for (int pair = 0; pair < call.num_pairs; pair++) {
        if (!s.pairs[pair].sees(range)) continue;
        const Partial partial{s.maxima[pair], reduce_add(load(s.sums + pair * kLanes)), call.values(pair)};
        if (!a.partials) {
            fold(call, pair, range, partial);
            continue;
        }
        const PartialMemory to = partial_memory(call, range);
        to.maxima[pair] = partial.maximum, to.sums[pair] = partial.sum;
        float* values = to.values + size_t(pair) * call.value_width;
        for (int d = 0; d < call.value_width; d += kLanes) store(values + d, load(partial.values + d));
    }
}

void write_output(const Call& call, int pair) {
    float* out = call.scratch.pairs[pair].out;
    const float* values = call.folded_values(pair);
    F32 sum = set1(call.scratch.folded_sums[pair]), factor = set1(1.0f);
    if (call.args.sinks) {
        const float maximum = call.scratch.folded_maxima[pair];
        const float sink = call.args.sinks[call.scratch.pairs[pair].head] * kLog2E;
        const F32 highest = set1(sink > maximum ? sink : maximum);
        factor = exp2(set1(maximum) - highest);
        sum = fma(sum, factor, exp2(set1(sink) - highest));
    }
    for (int d = 0; d < call.head_dim; d += kLanes) {
        store_first(min_int(call.head_dim - d, kLanes), out + d, load(values + d) * factor / sum);
    }
}

}  // namespace

void attention(const AttentionArgs& args) {
    if (args.row_begin >= args.row_end) return;
    const Call call = make_call(args);
    for (int range = args.range_begin; range < args.range_end; range++) attend_range(call, range);
    if (args.partials) return;
    for (int pair = 0; pair < call.num_pairs; pair++) write_output(call, pair);
}

void attention_merge(const AttentionArgs& args) {
    const Call call = make_call(args);
    for (int pair = 0; pair < call.num_pairs; pair++) {
        for (int range = args.range_begin; range < args.range_end; range++) {
            if (!call.scratch.pairs[pair].sees(range)) continue;
            const PartialMemory from = partial_memory(call, range);
            fold(call, pair, range,
                 {from.maxima[pair], from.sums[pair], from.values + size_t(pair) * call.value_width});
        }
        write_output(call, pair);
    }
}

size_t attention_scratch_bytes(const KvLayout& layout, int group) {
    Scratch parts;
    return place(layout, group, nullptr, parts);
}

}  // namespace tl::TL_LEVEL
