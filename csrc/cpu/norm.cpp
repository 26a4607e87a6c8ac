// Conversion of float rows to activation rows, norms fused with it, and the addition of a residual.
//
//   rms_norm(x)[i]   = x[i] / sqrt(mean(x^2) + eps) * weight[i]
//   layer_norm(x)[i] = (x[i] - mean(x)) / sqrt(mean((x - mean(x))^2) + eps) * weight[i] + bias[i]
//
// A norm reads a row twice, a layer norm three times (it stays in the first-level cache), and writes it once, already in
// the format that the next matrix reads. The order of additions depends on the width alone.
#include <cmath>

#include "cpu/act_row.h"
#include "cpu/level.h"

namespace tl::TL_LEVEL {
namespace {

// Elements summed in the registers before their sum joins the total: two short chains instead of a long one keep the
// rounding error near 1e-7 for any width.
constexpr int kChunk = 1024;

// add(sum, v, n): sum with the n values of v added to it, or something of them.
template <class Add> TL_INLINE F32 sum_of_chunk(const float* x, int width, Add add) {
    constexpr int kChains = 4;  // covers the latency of an fma
    Regs<F32, kChains> sums;
    each(sums, [](int, F32& sum) { sum = zero(); });
    int i = 0;
    for (; i + kChains * kLanes <= width; i += kChains * kLanes) {
        each(sums, [&](int chain, F32& sum) { sum = add(sum, load(x + i + chain * kLanes), kLanes); });
    }
    F32 rest = zero();
    for (; i < width; i += kLanes) {
        const int n = width - i < kLanes ? width - i : kLanes;
        rest = add(rest, load_up_to(n, x + i), n);
    }
    each(sums, [&](int, F32& sum) { rest = rest + sum; });
    return rest;
}

template <class Add> TL_INLINE float sum_of_row(const float* x, int width, Add add) {
    F32 total = zero();
    for (int i = 0; i < width; i += kChunk) {
        total = total + sum_of_chunk(x + i, width - i < kChunk ? width - i : kChunk, add);
    }
    return reduce_add(total);
}

float sum(const float* x, int width) {
    return sum_of_row(x, width, [](F32 sum, F32 v, int) { return sum + v; });
}

float sum_of_squares(const float* x, int width) {
    return sum_of_row(x, width, [](F32 sum, F32 v, int) { return fma(v, v, sum); });
}

// Of x - mean. Lanes behind the last value are zero and stay so: there is no mean in them.
float sum_of_squared_deviations(const float* x, int width, float mean) {
    float means[kLanes];
    store(means, set1(mean));
    return sum_of_row(x, width, [&](F32 sum, F32 v, int n) {
        const F32 d = v - load_up_to(n, means);
        return fma(d, d, sum);
    });
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

void layer_norm_rows(const float* x, size_t x_stride, const float* weight, const float* bias, float eps, int num_rows,
                     ActLayout layout, uint8_t* out) {
    for (int r = 0; r < num_rows; r++) {
        const float* row = x + r * x_stride;
        const float mean = sum(row, layout.width) / float(layout.width);
        const float variance = sum_of_squared_deviations(row, layout.width, mean) / float(layout.width);
        const F32 middle = set1(mean), scale = set1(1.0f / std::sqrt(variance + eps));
        write_row(layout, out + r * layout.row_bytes(), [&](int i, int n) {
            // Where there are no values the weight is zero, and so is the result.
            const F32 scaled = (load_up_to(n, row + i) - middle) * scale * load_up_to(n, weight + i);
            return bias ? scaled + load_up_to(n, bias + i) : scaled;
        });
    }
}

void add(const float* a, const float* b, float* out, size_t num_elements) {
    size_t i = 0;
    for (; i + kLanes <= num_elements; i += kLanes) store(out + i, load(a + i) + load(b + i));
    for (; i < num_elements; i++) out[i] = a[i] + b[i];
}

}  // namespace tl::TL_LEVEL
