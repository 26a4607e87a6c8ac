// The gated delta rule for one value head and kDeltaColumns columns of its state, token by token (Yang, Kautz &
// Hatamizadeh 2024, "Gated delta networks"):
//
//   q, k  = q / |q| / sqrt(K), k / |k|                          |x| = sqrt(sum x^2 + 1e-6)
//   S     = g S,  g = exp(decay softplus(step + step_bias))     S is (K, columns)
//   d     = sigmoid(beta) (v - k S)
//   S     = S + k d
//   out   = q S
//
// Columns of S never meet, so each block of columns is work of its own: 16 kB for 128 rows, which stay in the first-level
// cache over all tokens of a run. With the old S, k S and q S are g (k S_old) and g (q S_old) + (q k) d: a token reads S
// once. Its own change to S waits until the next token reads S again (`pending`), or the end of the run; which of the two
// makes no difference to a bit. A row costs, for each register of columns, one load, one store and four multiply-adds;
// the sums over rows are one chain for each register, in the order of the rows.
#include <cmath>

#include "cpu/act_row.h"
#include "cpu/level.h"

namespace tl::TL_LEVEL {
namespace {

constexpr int kRegs = kDeltaColumns / kLanes;
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

// Columns of the head that exist, in a register of the block.
TL_INLINE int num_lanes(const GatedDeltaArgs& a, int r) {
    const int n = a.num_columns - r * kLanes;
    return n < 0 ? 0 : n < kLanes ? n : kLanes;
}

float softplus(float x) { return x > 20.0f ? x : std::log1p(std::exp(x)); }

}  // namespace

void gated_delta(const GatedDeltaArgs& a) {
    const int stride = int(align_up(size_t(a.key_dim), kLanes));
    float* const q = a.scratch;
    float* keys[2] = {a.scratch + stride, a.scratch + 2 * stride};  // this token's and the one before's
    const float query_scale = 1.0f / std::sqrt(float(a.key_dim));
    Change change{1.0f, nullptr, {}};
    clear(change.delta);
    for (int t = 0; t < a.num_rows; t++) {
        float* const k = keys[t % 2];
        normalise(a.q + size_t(t) * a.x_stride, a.key_dim, query_scale, q);
        normalise(a.k + size_t(t) * a.x_stride, a.key_dim, 1.0f, k);
        Columns with_k, with_q;
        clear(with_k);
        clear(with_q);
        if (t == 0) {
            read_state<false>(a.state, a.key_dim, change, k, q, with_k, with_q);
        } else {
            read_state<true>(a.state, a.key_dim, change, k, q, with_k, with_q);
        }
        const float step = a.step[size_t(t) * a.step_stride] + a.step_bias;
        change.decay = std::exp(a.decay * softplus(step));
        change.key = k;
        const float rate = 1.0f / (1.0f + std::exp(-a.beta[size_t(t) * a.beta_stride]));
        const F32 decay = set1(change.decay), beta = set1(rate), same = set1(dot(q, k, a.key_dim));
        const float* v = a.v + size_t(t) * a.x_stride;
        float* out = a.out + size_t(t) * a.out_stride;
        each(change.delta, with_k, with_q, [&](int r, F32& delta, F32& sum_k, F32& sum_q) {
            const int n = num_lanes(a, r);
            delta = beta * (load_up_to(n, v + r * kLanes) - decay * sum_k);
            store_first(n, out + r * kLanes, fma(same, delta, decay * sum_q));
        });
    }
    make_change(a.state, a.key_dim, change);
}

size_t gated_delta_scratch_floats(int key_dim) { return 3 * align_up(size_t(key_dim), kLanes); }

}  // namespace tl::TL_LEVEL
