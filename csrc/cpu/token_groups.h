// Tokens in groups whose size the compiler knows: a kernel keeps one register for each.
#pragma once

#include "cpu/simd.h"

namespace tl::TL_LEVEL {

// Calls f<T>(), T = n, for 0 < n <= Max.
template <int Max, class F> TL_INLINE void with_count(int n, F f) {
    if constexpr (Max > 1) {
        if (n < Max) return with_count<Max - 1>(n, f);
    }
    f.template operator()<Max>();
}

// Calls f<T>(first token) for all tokens, in groups of Max and a last one of those that are left.
template <int Max, class F> TL_INLINE void in_groups(int num_tokens, F f) {
    for (int token = 0; token < num_tokens; token += Max) {
        const int count = num_tokens - token < Max ? num_tokens - token : Max;
        with_count<Max>(count, [&]<int T>() { f.template operator()<T>(token); });
    }
}

}  // namespace tl::TL_LEVEL
