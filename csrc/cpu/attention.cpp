// Attention of a few query rows of one sequence with one key/value head, page by page with an online softmax:
//
//   out = sum_j 2^(s_j - m) v_j / sum_j 2^(s_j - m),   s_j = log2(e) * scale * (q . k_j)
//
// over the keys j that the row sees; m, which cancels, keeps the powers in range. A *pair* is one (row, query head of
// the group); pairs are numbered row by row. All pairs of a call meet a page of keys and values together, so the page is
// read once for all of them.
//
// Layout (core/kv_layout.h): keys lie in lanes for the scores, head dimensions in lanes for the values. Both halves of
// the work are then the same small product, left[pair][i] broadcast times matrix[i][lanes], and neither needs a
// horizontal sum. Why this shape: a block of 8 pairs x 2 vectors keeps 16 of AVX-512's 32 registers busy as accumulators
// (8 would cover the latency of fma on two ports), and a step of 16 fma needs 2 vector loads and 8 broadcasts, so loads
// (two a cycle) take 5 of its 8 cycles. AVX2 has half the registers of half the width: 4 pairs x 1 vector. Fewer pairs
// take more vectors. Decoding is bound by memory: what comes next is prefetched while the processor multiplies.
//
// The promise: every number of a pair is the result of float operations whose order depends only on the pair's own
// row. Lanes never mix; a score is one fma chain over ascending dimensions; pages are taken at absolute positions; a
// value is one fma chain over the ascending keys that this row sees. Keys that it does not see never enter its
// arithmetic, whatever memory they hold. How pairs are grouped into register blocks changes nothing.
#include <cfloat>

#include "cpu/kv_element.h"
#include "cpu/level.h"

namespace tl::TL_LEVEL {
namespace {

// A function of its own with everything inlined into it: only then do accumulators stay in registers.
#define TL_KERNEL __attribute__((flatten, noinline))

constexpr int kPageVectors = kPageTokens / kLanes;
// Pairs of a register block, and accumulators in it.
constexpr int kBlockPairs = kRegisters >= 32 ? 8 : kRegisters >= 8 ? 4 : 1;
constexpr int kBlockVectors = kRegisters >= 32 ? 16 : kRegisters >= 8 ? 4 : 1;

constexpr int min_int(int a, int b) { return a < b ? a : b; }
constexpr int max_int(int a, int b) { return a > b ? a : b; }
constexpr int clamp(int x, int low, int high) { return min_int(max_int(x, low), high); }

// ---- Scratch memory ------------------------------------------------------------------------------------------------

// Per pair: the running maximum, the running sum of weights by lanes and the accumulated values. For the block at
// hand: scores, which become weights. For the page at hand: keys and values widened to float32.
struct Scratch { float *maxima, *sums, *values, *scores, *wide_keys, *wide_values; };

constexpr size_t floats_padded(size_t n) { return align_up(n, kRowAlignment / sizeof(float)); }

// Carves the parts out of base (null: only measures); returns the bytes that they take.
size_t place(const KvLayout& layout, int group, float* base, Scratch& s) {
    const size_t pairs = size_t(kAttentionRows) * group;
    size_t taken = 0;
    const auto take = [&](size_t n) {
        float* part = base ? base + taken : nullptr;
        taken += floats_padded(n);
        return part;
    };
    s.maxima = take(pairs);
    s.sums = take(pairs * kLanes);
    s.values = take(pairs * layout.value_width());
    s.scores = take(kBlockPairs * kPageTokens);
    s.wide_keys = take(size_t(kPageTokens) * layout.head_dim);
    s.wide_values = take(size_t(kPageTokens) * layout.value_width());
    return taken * sizeof(float);
}

// ---- Which keys a row sees -----------------------------------------------------------------------------------------

// Keys begin .. end - 1 of a page.
struct KeyRange { int begin, end; };

int first_visible(const AttentionArgs& a, int row) {
    const int position = a.first_position + row;
    return a.window > 0 ? max_int(position - a.window + 1, 0) : 0;
}

KeyRange visible_keys(const AttentionArgs& a, int row, int page) {
    const int start = page * kPageTokens;
    return {clamp(first_visible(a, row) - start, 0, kPageTokens),
            clamp(a.first_position + row + 1 - start, 0, kPageTokens)};
}

// Lanes of vector v that lie in the range keep a's value, the others b's.
TL_INLINE F32 keep_visible(KeyRange range, int v, F32 a, F32 b) {
    const F32 from_begin = first_lanes(clamp(range.begin - v * kLanes, 0, kLanes), b, a);
    return first_lanes(clamp(range.end - v * kLanes, 0, kLanes), from_begin, b);
}

// ---- The product that both halves share ----------------------------------------------------------------------------

// A matrix of stored elements: row i, vector v at data + i * row_step + v * vector_step. While it is read, as many bytes
// from `ahead` on are brought into the cache: what is needed next. Without this, reading waits for multiplying: the
// instructions of one step fill the window in which the processor itself looks ahead.
template <KvType type> struct Matrix {
    const KvElement<type>* data;
    size_t row_step, vector_step;
    const KvElement<type>* ahead;
};

// The left factor, P rows of floats: anywhere (queries), or side by side (weights).
template <int P> struct ScatteredRows {
    const float* rows[P];
    TL_INLINE float at(int p, int i) const { return rows[p][i]; }
};
template <int kStride> struct AdjacentRows {
    const float* data;
    TL_INLINE float at(int p, int i) const { return data[p * kStride + i]; }
};

// out[p][v] (+)= sum over i < count of left[p][i] * matrix[i][v], in ascending i.
template <KvType type, int P, int V, class Left>
TL_INLINE void multiply(const Left& left, Matrix<type> matrix, int count, bool accumulate, float* out,
                        size_t out_stride) {
    constexpr size_t kStepBytes = V * kLanes * sizeof(KvElement<type>);
    const KvElement<type>* b = matrix.data;
    const uint8_t* ahead = reinterpret_cast<const uint8_t*>(matrix.ahead);
    Regs<Regs<F32, V>, P> acc;
    each(acc, [&](int p, Regs<F32, V>& row) {
        each(row, [&](int v, F32& a) { a = accumulate ? load(out + p * out_stride + v * kLanes) : zero(); });
    });
    for (int i = 0; i < count; i++, b += matrix.row_step, ahead += kStepBytes) {
        if constexpr (type != KvType::kF32) {  // float32 is what widened pages hold: they are in the cache
            for (size_t line = 0; line < kStepBytes; line += 64) prefetch(ahead + line);
        }
        Regs<F32, V> lanes;
        each(lanes, [&](int v, F32& x) { x = load_kv<type>(b + v * matrix.vector_step); });
        each(acc, [&](int p, Regs<F32, V>& row) {
            const F32 x = set1(left.at(p, i));
            each(row, lanes, [&](int, F32& a, F32 y) { a = fma(x, y, a); });
        });
    }
    each(acc, [&](int p, Regs<F32, V>& row) {
        each(row, [&](int v, F32 a) { store(out + p * out_stride + v * kLanes, a); });
    });
}

// As multiply, for any number of vectors: V at a time, then half as many.
template <KvType type, int P, int V, class Left>
TL_INLINE void multiply_wide(const Left& left, Matrix<type> matrix, int num_vectors, int count, bool accumulate,
                             float* out, size_t out_stride) {
    while (num_vectors >= V) {
        multiply<type, P, V>(left, matrix, count, accumulate, out, out_stride);
        num_vectors -= V;
        matrix.data += V * matrix.vector_step;
        matrix.ahead += size_t(count) * V * kLanes;
        out += V * kLanes;
    }
    if constexpr (V > 1) {
        if (num_vectors) {
            multiply_wide<type, P, V / 2>(left, matrix, num_vectors, count, accumulate, out, out_stride);
        }
    }
}

// Vectors beside each other for so many pairs: they, too, must fit the registers.
constexpr int vectors_for(int pairs) { return min_int(kBlockVectors / pairs, kRegisters / 4); }

// ---- One page --------------------------------------------------------------------------------------------------------

// A page's keys and values of one head, as stored or widened.
template <KvType type> struct PageView { const KvElement<type>*keys, *values, *next_keys, *next_values; };

struct Call {
    const AttentionArgs& args;
    Scratch scratch;
    int head_dim, value_width;

    int row_of(int pair) const { return args.row_begin + pair / args.group; }
    const float* query(int pair) const {
        const int head = args.kv_head * args.group + pair % args.group;
        return args.q + row_of(pair) * args.q_stride + size_t(head) * head_dim;
    }
    float* output(int pair) const {
        const int head = args.kv_head * args.group + pair % args.group;
        return args.out + row_of(pair) * args.out_stride + size_t(head) * head_dim;
    }
    float* values(int pair) const { return scratch.values + size_t(pair) * value_width; }
    float* scores(int i) const { return scratch.scores + i * kPageTokens; }
};

// scores[i][key] = q_i . k_key for all keys of the page; what a row does not see is dropped by the softmax.
template <KvType type, int P>
TL_KERNEL void score_block(const Call& call, PageView<type> view, int pair) {
    ScatteredRows<P> queries;
    for (int i = 0; i < P; i++) queries.rows[i] = call.query(pair + i);
    const Matrix<type> matrix{view.keys, size_t(kLanes), size_t(call.head_dim) * kLanes, view.next_keys};
    multiply_wide<type, P, min_int(vectors_for(P), kPageVectors)>(queries, matrix, kPageVectors, call.head_dim, false,
                                                                  call.scores(0), kPageTokens);
}

// A weight may grow to 2^8 before the pair's sums are scaled to a new maximum: with ordinary scores the first page's
// maximum then stands. Sums in float32 are as accurate with weights up to 256 as up to 1. Whether to scale is decided
// by the row's own numbers alone.
constexpr float kHeadroom = 8.0f;

// Takes the page's largest visible score, in powers of two, as the pair's maximum.
TL_KERNEL void raise_maximum(const Call& call, int pair, KeyRange range, const float* scores, F32 scale) {
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

// Turns a pair's scores of this page into weights 2^(s log2(e) scale - m) and adds them to its sums. Weights of keys
// that the row does not see have no meaning and are used by nobody.
TL_INLINE void weigh(const Call& call, int pair, KeyRange range, float* scores) {
    const bool whole = range.begin == 0 && range.end == kPageTokens;
    const F32 scale = set1(call.args.scale * 1.44269504088896341f), hidden = set1(-FLT_MAX);
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
template <int P> TL_KERNEL void weigh_block(const Call& call, int pair, const KeyRange* ranges) {
    for (int i = 0; i < P; i++) weigh(call, pair + i, ranges[i], call.scores(i));
}

// values[pair + i] += sum of the weights of pair `first + i` times the values of keys range.begin .. range.end - 1.
template <KvType type, int P>
TL_KERNEL void add_values(const Call& call, PageView<type> view, int pair, int first, KeyRange range) {
    if (range.begin >= range.end) return;
    const AdjacentRows<kPageTokens> weights{call.scores(first) + range.begin};
    const Matrix<type> matrix{view.values + size_t(range.begin) * call.value_width, size_t(call.value_width),
                              size_t(kLanes), view.next_values};
    multiply_wide<type, P, vectors_for(P)>(weights, matrix, call.value_width / kLanes, range.end - range.begin, true,
                                           call.values(pair), size_t(call.value_width));
}

// Keys that only some rows of a block see are added for each of its pairs alone, in its own order: first those before
// the keys that all see, then these, then those after.
template <KvType type, int P>
void value_block(const Call& call, PageView<type> view, int pair, const KeyRange* ranges) {
    KeyRange shared{0, kPageTokens};
    for (int i = 0; i < P; i++) {
        shared = {max_int(shared.begin, ranges[i].begin), min_int(shared.end, ranges[i].end)};
    }
    if (shared.begin >= shared.end) shared = {kPageTokens, kPageTokens};
    for (int i = 0; i < P; i++) {
        add_values<type, 1>(call, view, pair + i, i, {ranges[i].begin, min_int(ranges[i].end, shared.begin)});
    }
    add_values<type, P>(call, view, pair, 0, shared);
    for (int i = 0; i < P; i++) {
        add_values<type, 1>(call, view, pair + i, i, {max_int(ranges[i].begin, shared.end), ranges[i].end});
    }
}

// Pairs pair .. end - 1 meet the page, P at a time, then half as many.
template <KvType type, int P> void attend_pairs(const Call& call, PageView<type> view, int page, int pair, int end) {
    for (; pair + P <= end; pair += P) {
        KeyRange ranges[P];
        for (int i = 0; i < P; i++) ranges[i] = visible_keys(call.args, call.row_of(pair + i), page);
        score_block<type, P>(call, view, pair);
        weigh_block<P>(call, pair, ranges);
        value_block<type, P>(call, view, pair, ranges);
    }
    if constexpr (P > 1) {
        if (pair < end) attend_pairs<type, P / 2>(call, view, page, pair, end);
    }
}

template <KvType type> void widen(const KvElement<type>* from, size_t count, float* to) {
    for (size_t i = 0; i < count; i += kLanes) store(to + i, load_kv<type>(from + i));
}

template <KvType type> PageView<type> page_view(const AttentionArgs& a, int page) {
    const auto part = [&](int index, size_t offset) {
        return reinterpret_cast<const KvElement<type>*>(a.pages + size_t(a.page_ids[index]) * a.page_bytes + offset);
    };
    const int next = min_int(page + 1, (a.first_position + a.row_end - 1) / kPageTokens);
    const size_t k_offset = a.layout->k_offset(a.kv_head), v_offset = a.layout->v_offset(a.kv_head);
    return {part(page, k_offset), part(page, v_offset), part(next, k_offset), part(next, v_offset)};
}

// For more pairs than this a page is widened once for all blocks of pairs. Widening is exact, so it changes no bit.
constexpr int kDirectPairs = 2 * kBlockPairs;

// Rows that see nothing of the page are left out; those that do are neighbours.
template <KvType type> void attend_page(const Call& call, int page) {
    const AttentionArgs& a = call.args;
    const int start = page * kPageTokens;
    int begin = max_int(a.row_begin, start - a.first_position), end = begin;
    while (end < a.row_end && first_visible(a, end) < start + kPageTokens) end++;
    const int first_pair = (begin - a.row_begin) * a.group, end_pair = (end - a.row_begin) * a.group;

    const PageView<type> stored = page_view<type>(a, page);
    if (type == KvType::kF32 || end_pair - first_pair <= kDirectPairs) {
        return attend_pairs<type, kBlockPairs>(call, stored, page, first_pair, end_pair);
    }
    widen<type>(stored.keys, size_t(kPageTokens) * call.head_dim, call.scratch.wide_keys);
    widen<type>(stored.values, size_t(kPageTokens) * call.value_width, call.scratch.wide_values);
    const float* keys = call.scratch.wide_keys;
    const PageView<KvType::kF32> wide{keys, call.scratch.wide_values, keys, keys};
    attend_pairs<KvType::kF32, kBlockPairs>(call, wide, page, first_pair, end_pair);
}

// ---- The call ----------------------------------------------------------------------------------------------------------

void clear(const Call& call, int num_pairs) {
    const size_t num_sums = size_t(num_pairs) * kLanes, num_values = size_t(num_pairs) * call.value_width;
    for (int pair = 0; pair < num_pairs; pair++) call.scratch.maxima[pair] = -FLT_MAX;
    for (size_t i = 0; i < num_sums; i += kLanes) store(call.scratch.sums + i, zero());
    for (size_t i = 0; i < num_values; i += kLanes) store(call.scratch.values + i, zero());
}

void write_output(const Call& call, int pair) {
    const F32 sum = set1(reduce_add(load(call.scratch.sums + pair * kLanes)));
    const float* values = call.values(pair);
    float* out = call.output(pair);
    for (int d = 0; d < call.head_dim; d += kLanes) {
        store_first(min_int(call.head_dim - d, kLanes), out + d, load(values + d) / sum);
    }
}

template <KvType type> void attend(const AttentionArgs& args) {
    Call call{args, {}, args.layout->head_dim, args.layout->value_width()};
    place(*args.layout, args.group, reinterpret_cast<float*>(args.scratch), call.scratch);
    const int num_pairs = (args.row_end - args.row_begin) * args.group;
    clear(call, num_pairs);
    const int first_page = first_visible(args, args.row_begin) / kPageTokens;
    const int last_page = (args.first_position + args.row_end - 1) / kPageTokens;
    for (int page = first_page; page <= last_page; page++) attend_page<type>(call, page);
    for (int pair = 0; pair < num_pairs; pair++) write_output(call, pair);
}

}  // namespace

void attention(const AttentionArgs& args) {
    if (args.row_begin >= args.row_end) return;
    switch (args.layout->type) {
        case KvType::kF32:
            return attend<KvType::kF32>(args);
        case KvType::kF16:
            return attend<KvType::kF16>(args);
        case KvType::kBF16:
            return attend<KvType::kBF16>(args);
    }
}

size_t attention_scratch_bytes(const KvLayout& layout, int group) {
    Scratch parts;
    return place(layout, group, nullptr, parts);
}

}  // namespace tl::TL_LEVEL
