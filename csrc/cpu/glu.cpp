// Gated activations: out[i] = activation(gate[i]) * up[i], written in the format that the next matrix reads.
//
//   SiLU       x / (1 + e^-x)
//   GELU tanh  x / 2 (1 + tanh(u)) = x / (1 + e^-2u),  u = sqrt(2 / pi) (x + 0.044715 x^3)
//   GELU       x / 2 (1 + erf(x / sqrt 2))
//   sigmoid    1 / (1 + e^-x)
//   clamped    of g = min(gate, 7) and u = up held within -7 .. 7: g / (1 + e^-1.702 g) * (u + 1). gpt-oss.
//
// Each costs one exponential and one division per element. Below a bound the result is zero to float precision, so x is
// held above it: this keeps x / (1 + e^-x) from growing again where e^-x is cut off. NaN stays NaN.
#include "cpu/act_row.h"
#include "cpu/gelu.h"
#include "cpu/level.h"
#include "cpu/sigmoid.h"

namespace tl::TL_LEVEL {
namespace {

TL_INLINE F32 swiglu_clamped(F32 gate, F32 up) {
    gate = at_least(-50.0f, at_most(7.0f, gate));
    up = at_least(-7.0f, at_most(7.0f, up));
    return x_sigmoid(gate, gate * set1(1.702f)) * (up + set1(1.0f));
}

template <class Gated>
void glu_all(const float* gate, const float* up, size_t stride, int num_rows, ActLayout layout, uint8_t* out,
             Gated gated) {
    for (int r = 0; r < num_rows; r++) {
        const float *g = gate + r * stride, *u = up + r * stride;
        write_row(layout, out + r * layout.row_bytes(),
                  [&](int i, int n) { return gated(load_up_to(n, g + i), load_up_to(n, u + i)); });
    }
}

}  // namespace

void glu_rows(GluActivation activation, const float* gate, const float* up, size_t stride, int num_rows,
              ActLayout layout, uint8_t* out) {
    switch (activation) {
        case GluActivation::kSilu:
            return glu_all(gate, up, stride, num_rows, layout, out, [](F32 g, F32 u) { return silu(g) * u; });
        case GluActivation::kGeluTanh:
            return glu_all(gate, up, stride, num_rows, layout, out, [](F32 g, F32 u) { return gelu_tanh(g) * u; });
        case GluActivation::kGelu:
            return glu_all(gate, up, stride, num_rows, layout, out, [](F32 g, F32 u) { return gelu(g) * u; });
        case GluActivation::kSigmoid:
            return glu_all(gate, up, stride, num_rows, layout, out,
                           [](F32 g, F32 u) { return x_sigmoid(u, at_least(-87.0f, g)); });
        case GluActivation::kSwigluClamped:
            return glu_all(gate, up, stride, num_rows, layout, out, [](F32 g, F32 u) { return swiglu_clamped(g, u); });
    }
}

}  // namespace tl::TL_LEVEL
