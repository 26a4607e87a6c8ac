// The logistic function and what is made of it: activations of gated products and of convolutions.
#pragma once

#include "cpu/simd.h"

namespace tl::TL_LEVEL {

// a where it is above the bound; the order of operands lets NaN through.
TL_INLINE F32 at_least(float bound, F32 a) { return max(set1(bound), a); }
TL_INLINE F32 at_most(float bound, F32 a) { return min(set1(bound), a); }

// x / (1 + e^-u).
TL_INLINE F32 x_sigmoid(F32 x, F32 u) { return x / (set1(1.0f) + exp(zero() - u)); }

// x / (1 + e^-x), by one exponential and one division. Below the bound the result is zero to float precision; the bound
// keeps it from growing again where e^-x is cut off.
TL_INLINE F32 silu(F32 x) {
    x = at_least(-87.0f, x);
    return x_sigmoid(x, x);
}

TL_INLINE F32 tanh(F32 x) { return set1(1.0f) - set1(2.0f) / (exp(x + x) + set1(1.0f)); }

}  // namespace tl::TL_LEVEL
