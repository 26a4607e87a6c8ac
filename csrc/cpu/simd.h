// The thin SIMD layer: 16 lanes of float or int32, 64 raw bytes, and the few operations the kernels need.
//
// Every kernel is written once over these types and compiled once per level (TL_LEVEL_SCALAR, _AVX2, _AVXVNNI,
// _AVX512); the operations of each level are in simd_<level>.h, those of AVX-VNNI in simd_avx2.h. The level _AMX is
// AVX-512 with matrix products of its own (matmul_amx.cpp).
// Sixteen lanes are the sixteen output rows of a weight tile, so no kernel needs a horizontal sum in its loop.
// AVX-512 holds them in one register, AVX2 in two, the scalar level in an array.
// All names live in the namespace of the level, so the linker can never mix code of two levels.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "core/half.h"

#if defined(TL_LEVEL_AMX)
#define TL_LEVEL amx
#elif defined(TL_LEVEL_AVX512)
#define TL_LEVEL avx512
#elif defined(TL_LEVEL_AVXVNNI)
#define TL_LEVEL avxvnni
#elif defined(TL_LEVEL_AVX2)
#define TL_LEVEL avx2
#elif defined(TL_LEVEL_SCALAR)
#define TL_LEVEL scalar
#else
#error "compile with one TL_LEVEL_* macro"
#endif

#define TL_PRAGMA(x) _Pragma(#x)
#if defined(TL_LEVEL_SCALAR)
// The slow twin is built to compile quickly: nothing is forced into one function or unrolled.
#define TL_INLINE inline
#define TL_LAMBDA
#define TL_UNROLL(n)
#else
#define TL_INLINE __attribute__((always_inline)) inline
#define TL_LAMBDA __attribute__((always_inline))
#define TL_UNROLL(n) TL_PRAGMA(GCC unroll n)
#endif

namespace tl::TL_LEVEL {

inline constexpr int kLanes = 16;

}  // namespace tl::TL_LEVEL

#if defined(TL_LEVEL_AVX512) || defined(TL_LEVEL_AMX)
#include "cpu/simd_avx512.h"
#elif defined(TL_LEVEL_AVXVNNI) || defined(TL_LEVEL_AVX2)
#include "cpu/simd_avx2.h"
#else
#include "cpu/simd_scalar.h"
#endif

namespace tl::TL_LEVEL {

// e^x by 2^n * p(f), |error| < 3e-7 relative for x in [-87, 88]; below, 0 (flushes where 2^n would be subnormal).
// Cephes expf polynomial (Moshier 1989).
TL_INLINE F32 exp(F32 x) {
    x = max(set1(-87.3f), min(set1(88.0f), x));  // in this order of operands NaN passes through
    const F32 n = round(x * set1(1.44269504088896341f));
    const F32 f = fma(n, set1(2.12194440e-4f), fma(n, set1(-0.693359375f), x));
    F32 p = set1(1.9875691500e-4f);
    p = fma(p, f, set1(1.3981999507e-3f));
    p = fma(p, f, set1(8.3334519073e-3f));
    p = fma(p, f, set1(4.1665795894e-2f));
    p = fma(p, f, set1(1.6666665459e-1f));
    p = fma(p, f, set1(5.0000001201e-1f));
    return scale_by_power(fma(p, f * f, f) + set1(1.0f), n);
}

// 2^x for x <= 127, |error| < 2e-7 relative; x below -126 counts as -126. NaN stays NaN.
// Cephes exp2f polynomial (Moshier 1989).
TL_INLINE F32 exp2(F32 x) {
    x = max(set1(-126.0f), x);
    const F32 n = round(x);
    const F32 f = x - n;
    F32 p = set1(1.535336188319500e-4f);
    p = fma(p, f, set1(1.339887440266574e-3f));
    p = fma(p, f, set1(9.618437357674640e-3f));
    p = fma(p, f, set1(5.550332471162809e-2f));
    p = fma(p, f, set1(2.402264791363012e-1f));
    p = fma(p, f, set1(6.931472028550421e-1f));
    return scale_by_power(fma(p, f, set1(1.0f)), n);
}

// Asks for the cache line at p; any address is allowed. It goes to the second level or further out: the first
// level's few fill buffers would make the processor wait for them.
TL_INLINE void prefetch(const void* p) { __builtin_prefetch(p, 0, 1); }

// f.operator()<0>(), <1>, ... <N - 1>: an unrolled loop whose index is a constant.
template <int N, class F> TL_INLINE void for_constants(F f) {
    if constexpr (N > 0) {
        for_constants<N - 1>(f);
        f.template operator()<N - 1>();
    }
}

// The same, into the L2 cache only.
TL_INLINE void prefetch_far(const void* p) { __builtin_prefetch(p, 0, 2); }

// A fixed number of accumulators as a recursive struct: GCC keeps its members in registers, where it spills an
// array once the loop around it is unrolled.
template <class T, int N> struct Regs {
    Regs<T, N - 1> rest;
    T last;
};
template <class T> struct Regs<T, 0> {};

// f(index, element) for each element.
template <class T, int N, class F> TL_INLINE void each(Regs<T, N>& a, F f) {
    if constexpr (N > 0) {
        each(a.rest, f);
        f(N - 1, a.last);
    }
}
template <class A, class B, int N, class F> TL_INLINE void each(Regs<A, N>& a, Regs<B, N>& b, F f) {
    if constexpr (N > 0) {
        each(a.rest, b.rest, f);
        f(N - 1, a.last, b.last);
    }
}
template <class A, class B, class C, int N, class F>
TL_INLINE void each(Regs<A, N>& a, Regs<B, N>& b, Regs<C, N>& c, F f) {
    if constexpr (N > 0) {
        each(a.rest, b.rest, c.rest, f);
        f(N - 1, a.last, b.last, c.last);
    }
}

}  // namespace tl::TL_LEVEL
