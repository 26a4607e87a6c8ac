// GELU and its approximation by a hyperbolic tangent, for activations with and without a gate. Hendrycks & Gimpel 2016.
#pragma once

#include "cpu/sigmoid.h"

namespace tl::TL_LEVEL {

TL_INLINE F32 gelu_tanh(F32 x) {
    x = at_least(-16.0f, x);
    const F32 cubic = fma(x * x * x, set1(0.044715f), x);
    return x_sigmoid(x, cubic * set1(1.5957691216057308f));  // 2 sqrt(2 / pi)
}

// 1 - erf(z) for z >= 0, |error| < 1.5e-7: Abramowitz and Stegun, Handbook of Mathematical Functions, 7.1.26.
TL_INLINE F32 erfc(F32 z) {
    const F32 t = set1(1.0f) / fma(set1(0.3275911f), z, set1(1.0f));
    F32 p = set1(1.061405429f);
    p = fma(p, t, set1(-1.453152027f));
    p = fma(p, t, set1(1.421413741f));
    p = fma(p, t, set1(-0.284496736f));
    p = fma(p, t, set1(0.254829592f));
    return p * t * exp(zero() - z * z);
}

// With erfc of |x| both tails come without cancellation: x > 0: x - x/2 erfc, x < 0: x/2 erfc.
TL_INLINE F32 gelu(F32 x) {
    const F32 magnitude = min(abs(x), set1(14.0f));
    const F32 tail = set1(0.5f) * magnitude * erfc(magnitude * set1(0.70710678118654752f));
    return at_least(0.0f, x) - tail;
}

}  // namespace tl::TL_LEVEL
