// Conversion of float rows to activation rows, RMS normalisation fused with it, and the addition of a residual.
//
//   rms_norm(x)[i] = x[i] / sqrt(mean(x^2) + eps) * weight[i]
//
// A norm reads a row twice (it stays in the first-level cache) and writes it once, already in the format that the next
// matrix reads. The order of additions depends on the width alone.
#include <cmath>

#include "cpu/act_row.h"
#include "cpu/level.h"

namespace tl::TL_LEVEL {
namespace {

// Elements summed in the registers before their sum joins the total: two short chains instead of a long one keep the
// rounding error near 1e-7 for any width.
constexpr int kChunk = 1024;

F32 squares_of_chunk(const float* x, int width) {
    constexpr int kChains = 4;  // covers the latency of an fma
    Regs<F32, kChains> sums;
    each(sums, [](int, F32& sum) { sum = zero(); });
    int i = 0;
    for (; i + kChains * kLanes <= width; i += kChains * kLanes) {
        each(sums, [&](int chain, F32& sum) {
            const F32 v = load(x + i + chain * kLanes);
            sum = fma(v, v, sum);
        });
    }
    F32 rest = zero();
    for (; i < width; i += kLanes) {
        const F32 v = load_up_to(width - i < kLanes ? width - i : kLanes, x + i);
        rest = fma(v, v, rest);
    }
    each(sums, [&](int, F32& sum) { rest = rest + sum; });
    return rest;
}

float sum_of_squares(const float* x, int width) {
    F32 total = zero();
    for (int i = 0; i < width; i += kChunk) {
        total = total + squares_of_chunk(x + i, width - i < kChunk ? width - i : kChunk);
    }
    return reduce_add(total);
}

}  // namespace

void convert_rows(const float* x, size_t x_stride, int num_rows, ActLayout layout, uint8_t* out) {
    for (int r = 0; r < num_rows; r++) {
        const float* row = x + r * x_stride;
        write_row(layout, out + r * layout.row_bytes(), [&](int i, int n) { return load_up_to(n, row + i); });
    }
}

void rms_norm_rows(const float* x, size_t x_stride, const float* weight, float eps, int num_rows, ActLayout layout,
                   uint8_t* out) {
    for (int r = 0; r < num_rows; r++) {
        const float* row = x + r * x_stride;
        const float mean = sum_of_squares(row, layout.width) / float(layout.width);
        const F32 scale = set1(1.0f / std::sqrt(mean + eps));
        write_row(layout, out + r * layout.row_bytes(),
                  [&](int i, int n) { return load_up_to(n, row + i) * scale * load_up_to(n, weight + i); });
    }
}

void add(const float* a, const float* b, float* out, size_t num_elements) {
    size_t i = 0;
    for (; i + kLanes <= num_elements; i += kLanes) store(out + i, load(a + i) + load(b + i));
    for (; i < num_elements; i++) out[i] = a[i] + b[i];
}

}  // namespace tl::TL_LEVEL
