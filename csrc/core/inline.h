// Forced inlining for functions that kernels of several instruction-set levels include.
//
// Were one emitted out of line by the AVX-512 objects, the linker could give that copy to every caller, and an older
// processor would stop at its first instruction. scripts/check_levels proves that none is.
#pragma once

#define TL_SHARED_INLINE __attribute__((always_inline)) inline
#define TL_SHARED_CONSTEXPR __attribute__((always_inline)) constexpr
