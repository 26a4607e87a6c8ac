// A short convolution over the tokens of a sequence, channel by channel, then SiLU:
//
//   out[t][c] = silu(w[0][c] x[t - taps + 1][c] + ... + w[taps - 1][c] x[t][c])
//
// The sum is taken in this order, one fused multiply-add for each tap after the first. Rows before x come from the
// history, which holds the last taps - 1 rows before the run and afterwards those before the next one. A tap costs two
// loads (weights are stored tap by tap, so that channels are contiguous); with four taps the exponential and the
// division of SiLU are half of the work.
#include <cstring>

#include "cpu/act_row.h"
#include "cpu/level.h"
#include "cpu/sigmoid.h"

namespace tl::TL_LEVEL {
namespace {

// Row t - back of x, or of the history.
TL_INLINE const float* row_before(const CausalConvArgs& a, int t, int back) {
    const int row = t - back;
    return row >= 0 ? a.x + size_t(row) * a.stride : a.history + size_t(a.num_taps - 1 + row) * a.history_stride;
}

void convolve_row(const CausalConvArgs& a, int t) {
    const float* rows[kMaxTaps];
    for (int j = 0; j < a.num_taps; j++) rows[j] = row_before(a, t, a.num_taps - 1 - j);
    float* out = a.out + size_t(t) * a.stride;
    for (int c = 0; c < a.num_channels; c += kLanes) {
        const int n = a.num_channels - c < kLanes ? a.num_channels - c : kLanes;
        F32 sum = load_up_to(n, a.weights + c) * load_up_to(n, rows[0] + c);
        for (int j = 1; j < a.num_taps; j++) {
            sum = fma(load_up_to(n, a.weights + size_t(j) * a.weight_stride + c), load_up_to(n, rows[j] + c), sum);
        }
        store_first(n, out + c, silu(sum));
    }
}

}  // namespace

void causal_conv(const CausalConvArgs& a) {
    for (int t = 0; t < a.num_rows; t++) convolve_row(a, t);
    // Ascending: a row that the history passes on lies behind the one that it fills.
    for (int back = a.num_taps - 1; back > 0; back--) {
        const float* from = row_before(a, a.num_rows, back);
        float* to = a.history + size_t(a.num_taps - 1 - back) * a.history_stride;
        if (from != to) std::memcpy(to, from, size_t(a.num_channels) * sizeof(float));
    }
}

}  // namespace tl::TL_LEVEL
