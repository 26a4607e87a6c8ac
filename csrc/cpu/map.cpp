// One function of every element of a row, written in the format that the next matrix reads.
//
//   scale         parameter * x
//   soft cap      parameter * tanh(x / parameter)
//   activations   SiLU, GELU, GELU by tanh, max(x, 0) and its square
#include "cpu/act_row.h"
#include "cpu/gelu.h"
#include "cpu/level.h"
#include "cpu/sigmoid.h"

namespace tl::TL_LEVEL {
namespace {

template <class Function>
void map_all(const float* x, size_t stride, int num_rows, ActLayout layout, uint8_t* out, Function function) {
    for (int r = 0; r < num_rows; r++) {
        const float* row = x + r * stride;
        write_row(layout, out + r * layout.row_bytes(), [&](int i, int n) { return function(load_up_to(n, row + i)); });
    }
}

}  // namespace

void map_rows(MapFunction function, float parameter, const float* x, size_t stride, int num_rows, ActLayout layout,
              uint8_t* out) {
    const F32 p = set1(parameter);
    switch (function) {
        case MapFunction::kScale:
            return map_all(x, stride, num_rows, layout, out, [&](F32 v) { return v * p; });
        case MapFunction::kSoftCap:
            return map_all(x, stride, num_rows, layout, out, [&](F32 v) { return tanh(v / p) * p; });
        case MapFunction::kSilu:
            return map_all(x, stride, num_rows, layout, out, [](F32 v) { return silu(v); });
        case MapFunction::kGelu:
            return map_all(x, stride, num_rows, layout, out, [](F32 v) { return gelu(v); });
        case MapFunction::kGeluTanh:
            return map_all(x, stride, num_rows, layout, out, [](F32 v) { return gelu_tanh(v); });
        case MapFunction::kRelu:
            return map_all(x, stride, num_rows, layout, out, [](F32 v) { return at_least(0.0f, v); });
        case MapFunction::kReluSquared:
            return map_all(x, stride, num_rows, layout, out, [](F32 v) {
                v = at_least(0.0f, v);
                return v * v;
            });
    }
}

}  // namespace tl::TL_LEVEL
