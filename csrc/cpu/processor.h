// Whose processor this is, for the few constants of kernels that differ between makers and generations.
#pragma once

#include "cpu/simd.h"

#if !defined(TL_LEVEL_SCALAR)
#include <cpuid.h>

namespace tl::TL_LEVEL {

inline bool is_intel() {
    __builtin_cpu_init();
    return __builtin_cpu_is("intel") != 0;
}

// Zen 5 and what follows it: family 0x1a (leaf 1, EAX: base family in bits 8-11, which is 15, and the extended one in bits
// 20-27). Compilers know no name for it yet.
inline bool is_zen5_or_later() {
    unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
    __builtin_cpu_init();
    if (!__builtin_cpu_is("amd") || !__get_cpuid(1, &eax, &ebx, &ecx, &edx)) return false;
    return (eax >> 8 & 15) + (eax >> 20 & 255) >= 0x1a;
}

}  // namespace tl::TL_LEVEL
#endif
