// The weighted sum of rows: out[i] = (out[i] +) w0 row0[i] + w1 row1[i] + ..., in this order, one fused multiply-add for
// each row after the first. Mixes the outputs of a token's experts.
#include "cpu/act_row.h"
#include "cpu/level.h"

namespace tl::TL_LEVEL {

void combine(const float* const* rows, const float* weights, int num_rows, bool accumulate, float* out,
             int num_elements) {
    for (int i = 0; i < num_elements; i += kLanes) {
        const int n = num_elements - i < kLanes ? num_elements - i : kLanes;
        F32 sum = set1(weights[0]) * load_up_to(n, rows[0] + i);
        for (int r = 1; r < num_rows; r++) sum = fma(set1(weights[r]), load_up_to(n, rows[r] + i), sum);
        if (accumulate) sum = load_up_to(n, out + i) + sum;
        store_first(n, out + i, sum);
    }
}

}  // namespace tl::TL_LEVEL
