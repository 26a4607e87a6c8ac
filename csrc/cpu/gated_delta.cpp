// The gated delta rule for one value head and some columns of its state, token by token (Yang, Kautz & Hatamizadeh 2024,
// "Gated delta networks"):
//
//   q, k  = q / |q| / sqrt(K), k / |k|                          |x| = sqrt(sum x^2 + 1e-6)
//   S     = g S,  g = exp(decay softplus(step + step_bias))     S is (K, columns)
//   d     = sigmoid(beta) (v - k S)
//   S     = S + k d
//   out   = q S
//
// Columns of S never meet, so a block of kDeltaColumns of them is work of its own: 16 kB for 128 rows, which stay in the
// first-level cache over kDeltaRows tokens. What the blocks share of these tokens is made once. With the old S, k S and q S are g (k S_old) and g (q S_old) + (q k) d: a token reads S
// once. Its own change to S waits until the next token reads S again (`kPending`), or the end of these tokens; which of the
// two makes no difference to a bit. A row costs, for each register of columns, one load, one store and four multiply-adds;
// the sums over rows are one chain for each register, in the order of the rows.
#include <cmath>

#include "cpu/act_row.h"
#include "cpu/level.h"

namespace tl::TL_LEVEL {
namespace {

constexpr int kRegs = kDeltaColumns / kLanes;
constexpr int kDeltaRows = 16;
using Columns = Regs<F32, kRegs>;

// What a token changes: S = decay S + key delta.
struct Change {
    float decay;
    const float* key;
    Columns delta;
};

TL_INLINE void clear(Columns& columns) {
    each(columns, [](int, F32& c) { c = zero(); });
}

// x / sqrt(sum x^2 + 1e-6) * scale.
void normalise(const float* x, int n, float scale, float* out) {
    F32 sum = zero();
    for (int i = 0; i < n; i += kLanes) {
        const F32 v = load_up_to(n - i < kLanes ? n - i : kLanes, x + i);
        sum = fma(v, v, sum);
    }
    const F32 factor = set1(scale / std::sqrt(reduce_add(sum) + 1e-6f));
    for (int i = 0; i < n; i += kLanes) {
        const int rest = n - i < kLanes ? n - i : kLanes;
        store_first(rest, out + i, load_up_to(rest, x + i) * factor);
    }
}

float dot(const float* a, const float* b, int n) {
    F32 sum = zero();
    for (int i = 0; i < n; i += kLanes) {
        const int rest = n - i < kLanes ? n - i : kLanes;
        sum = fma(load_up_to(rest, a + i), load_up_to(rest, b + i), sum);
    }
    return reduce_add(sum);
}

// Sums over the rows of S: k S and q S. kPending: makes the change of the token before on the way.
template <bool kPending>
TL_INLINE void read_state(float* state, int num_rows, Change& change, const float* k, const float* q, Columns& with_k,
                          Columns& with_q) {
    const F32 decay = set1(change.decay);
    for (int i = 0; i < num_rows; i++) {
        float* row = state + size_t(i) * kDeltaColumns;
        const F32 old_k = set1(kPending ? change.key[i] : 0.0f), new_k = set1(k[i]), new_q = set1(q[i]);
        each(change.delta, with_k, with_q, [&](int r, F32& delta, F32& sum_k, F32& sum_q) {
            F32 s = load(row + r * kLanes);
            if constexpr (kPending) {
                s = fma(old_k, delta, decay * s);
                store(row + r * kLanes, s);
            }
            sum_k = fma(s, new_k, sum_k);
            sum_q = fma(s, new_q, sum_q);
        });
    }
}

void make_change(float* state, int num_rows, Change& change) {
    const F32 decay = set1(change.decay);
    for (int i = 0; i < num_rows; i++) {
        float* row = state + size_t(i) * kDeltaColumns;
        const F32 key = set1(change.key[i]);
        each(change.delta,
             [&](int r, F32& delta) { store(row + r * kLanes, fma(key, delta, decay * load(row + r * kLanes))); });
    }
}

float softplus(float x) { return x > 20.0f ? x : std::log1p(std::exp(x)); }

// What all columns share of some tokens: q and k, normalised, and the numbers of the head.
struct Rows {
    float *q, *k;  // kDeltaRows rows
    size_t stride;
    float decay[kDeltaRows], rate[kDeltaRows], same[kDeltaRows];  // g, sigmoid(beta), q k
};

void prepare(const GatedDeltaArgs& a, int first, int num_rows, Rows& rows) {
    const float query_scale = 1.0f / std::sqrt(float(a.key_dim));
    for (int i = 0; i < num_rows; i++) {
        const size_t t = size_t(first + i);
        float *q = rows.q + i * rows.stride, *k = rows.k + i * rows.stride;
        normalise(a.q + t * a.x_stride, a.key_dim, query_scale, q);
        normalise(a.k + t * a.x_stride, a.key_dim, 1.0f, k);
        rows.decay[i] = std::exp(a.decay * softplus(a.step[t * a.step_stride] + a.step_bias));
        rows.rate[i] = 1.0f / (1.0f + std::exp(-a.beta[t * a.beta_stride]));
        rows.same[i] = dot(q, k, a.key_dim);
    }
}

// The same tokens for one block of columns, of which num_columns exist.
void advance(const GatedDeltaArgs& a, int first, int num_rows, const Rows& rows, int column, float* state) {
    Change change{1.0f, nullptr, {}};
    clear(change.delta);
    for (int i = 0; i < num_rows; i++) {
        const float *q = rows.q + i * rows.stride, *k = rows.k + i * rows.stride;
        Columns with_k, with_q;
        clear(with_k);
        clear(with_q);
        if (i == 0) {
            read_state<false>(state, a.key_dim, change, k, q, with_k, with_q);
        } else {
            read_state<true>(state, a.key_dim, change, k, q, with_k, with_q);
        }
        change.decay = rows.decay[i];
        change.key = k;
        const F32 decay = set1(rows.decay[i]), rate = set1(rows.rate[i]), same = set1(rows.same[i]);
        const float* v = a.v + size_t(first + i) * a.x_stride + column;
        float* out = a.out + size_t(first + i) * a.out_stride + column;
        each(change.delta, with_k, with_q, [&](int r, F32& delta, F32& sum_k, F32& sum_q) {
            const int left = a.num_columns - column - r * kLanes;  // lanes that exist
            const int n = left < 0 ? 0 : left < kLanes ? left : kLanes;
            delta = rate * (load_up_to(n, v + r * kLanes) - decay * sum_k);
            store_first(n, out + r * kLanes, fma(same, delta, decay * sum_q));
        });
    }
    make_change(state, a.key_dim, change);
}

}  // namespace

void gated_delta(const GatedDeltaArgs& a) {
    Rows rows;
    rows.stride = align_up(size_t(a.key_dim), kLanes);
    rows.q = a.scratch;
    rows.k = a.scratch + kDeltaRows * rows.stride;
    for (int first = 0; first < a.num_rows; first += kDeltaRows) {
        const int num_rows = a.num_rows - first < kDeltaRows ? a.num_rows - first : kDeltaRows;
        prepare(a, first, num_rows, rows);
        float* state = a.state;
        for (int column = 0; column < a.num_columns; column += kDeltaColumns) {
            advance(a, first, num_rows, rows, column, state);
            state += size_t(a.key_dim) * kDeltaColumns;
        }
    }
}

size_t gated_delta_scratch_floats(int key_dim) { return 2 * kDeltaRows * align_up(size_t(key_dim), kLanes); }

}  // namespace tl::TL_LEVEL
