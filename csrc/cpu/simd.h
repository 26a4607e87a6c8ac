// The thin SIMD layer: 16 lanes of float or int32, 64 raw bytes, and the few operations the kernels need.
//
// Every kernel is written once over these types and compiled once per level (TL_LEVEL_SCALAR, _AVX2, _AVX512).
// Sixteen lanes are the sixteen output rows of a weight tile, so no kernel needs a horizontal sum in its loop.
// AVX-512 holds them in one register, AVX2 in two, the scalar level in an array.
// All names live in the namespace of the level, so the linker can never mix code of two levels.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

#include "core/half.h"

#if defined(TL_LEVEL_AVX512) || defined(TL_LEVEL_AVX2)
#include <immintrin.h>
#endif

#if defined(TL_LEVEL_AVX512)
#define TL_LEVEL avx512
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

#if defined(TL_LEVEL_AVX512)

// F32 values that the register file holds.
inline constexpr int kRegisters = 32;
// Token rows that one pass of a matrix micro-kernel holds in registers.
inline constexpr int kMicroTokens = 8;

struct F32 { __m512 v; };
struct I32 { __m512i v; };
struct Bytes { __m512i v; };

TL_INLINE F32 zero() { return {_mm512_setzero_ps()}; }
TL_INLINE F32 set1(float x) { return {_mm512_set1_ps(x)}; }
TL_INLINE F32 load(const float* p) { return {_mm512_loadu_ps(p)}; }
TL_INLINE void store(float* p, F32 a) { _mm512_storeu_ps(p, a.v); }
// The first n lanes (0 <= n <= 16) of memory; nothing beyond them is touched. Lanes not loaded are zero.
TL_INLINE F32 load_first(int n, const float* p) { return {_mm512_maskz_loadu_ps(__mmask16((1u << n) - 1), p)}; }
TL_INLINE void store_first(int n, float* p, F32 a) { _mm512_mask_storeu_ps(p, __mmask16((1u << n) - 1), a.v); }
TL_INLINE F32 load_f16(const uint16_t* p) { return {_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i*)p))}; }
TL_INLINE F32 load_bf16(const uint16_t* p) {
    return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)p)), 16))};
}
TL_INLINE void store_f16(uint16_t* p, F32 a) {
    _mm256_storeu_si256((__m256i*)p, _mm512_cvtps_ph(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
TL_INLINE void store_bf16(uint16_t* p, F32 a) { _mm256_storeu_si256((__m256i*)p, (__m256i)_mm512_cvtneps_pbh(a.v)); }
TL_INLINE F32 operator+(F32 a, F32 b) { return {_mm512_add_ps(a.v, b.v)}; }
TL_INLINE F32 operator-(F32 a, F32 b) { return {_mm512_sub_ps(a.v, b.v)}; }
TL_INLINE F32 operator*(F32 a, F32 b) { return {_mm512_mul_ps(a.v, b.v)}; }
TL_INLINE F32 operator/(F32 a, F32 b) { return {_mm512_div_ps(a.v, b.v)}; }
TL_INLINE F32 fma(F32 a, F32 b, F32 c) { return {_mm512_fmadd_ps(a.v, b.v, c.v)}; }  // a * b + c
TL_INLINE F32 fms(F32 a, F32 b, F32 c) { return {_mm512_fmsub_ps(a.v, b.v, c.v)}; }  // a * b - c
TL_INLINE F32 max(F32 a, F32 b) { return {_mm512_max_ps(a.v, b.v)}; }
TL_INLINE F32 min(F32 a, F32 b) { return {_mm512_min_ps(a.v, b.v)}; }
TL_INLINE F32 abs(F32 a) { return {_mm512_abs_ps(a.v)}; }
TL_INLINE F32 round(F32 a) { return {_mm512_roundscale_ps(a.v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)}; }
TL_INLINE float reduce_add(F32 a) { return _mm512_reduce_add_ps(a.v); }
TL_INLINE float reduce_max(F32 a) { return _mm512_reduce_max_ps(a.v); }
// Whether a lane of a is greater than that of b; NaN is not.
TL_INLINE bool any_above(F32 a, F32 b) { return _mm512_cmp_ps_mask(a.v, b.v, _CMP_GT_OQ) != 0; }
TL_INLINE bool any_nan(F32 a) { return _mm512_cmp_ps_mask(a.v, a.v, _CMP_UNORD_Q) != 0; }
// a * 2^n for integral-valued n.
TL_INLINE F32 scale_by_power(F32 a, F32 n) { return {_mm512_scalef_ps(a.v, n.v)}; }
// The first n lanes of a (0 <= n <= 16), the others of b.
TL_INLINE F32 first_lanes(int n, F32 a, F32 b) { return {_mm512_mask_blend_ps(__mmask16((1u << n) - 1), b.v, a.v)}; }

TL_INLINE I32 izero() { return {_mm512_setzero_si512()}; }
TL_INLINE I32 iset1(int32_t x) { return {_mm512_set1_epi32(x)}; }
TL_INLINE I32 iload(const int32_t* p) { return {_mm512_loadu_si512(p)}; }
TL_INLINE void istore(int32_t* p, I32 a) { _mm512_storeu_si512(p, a.v); }
TL_INLINE I32 operator+(I32 a, I32 b) { return {_mm512_add_epi32(a.v, b.v)}; }
TL_INLINE I32 operator*(I32 a, I32 b) { return {_mm512_mullo_epi32(a.v, b.v)}; }
template <int N> TL_INLINE I32 shift_left(I32 a) { return {_mm512_slli_epi32(a.v, N)}; }
template <int N> TL_INLINE I32 shift_right(I32 a) { return {_mm512_srai_epi32(a.v, N)}; }
TL_INLINE I32 load_u8(const uint8_t* p) { return {_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i*)p))}; }
TL_INLINE I32 load_i8(const int8_t* p) { return {_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i*)p))}; }
TL_INLINE F32 to_float(I32 a) { return {_mm512_cvtepi32_ps(a.v)}; }
TL_INLINE I32 to_int(F32 a) { return {_mm512_cvtps_epi32(a.v)}; }  // rounds to nearest even
TL_INLINE void store_i8(int8_t* p, I32 a) { _mm_storeu_si128((__m128i*)p, _mm512_cvtsepi32_epi8(a.v)); }
// Lane i is the sum of the four bytes p[4 i] .. p[4 i + 3].
TL_INLINE I32 sum4(const int8_t* p) {
    return {_mm512_dpbusd_epi32(_mm512_setzero_si512(), _mm512_set1_epi8(1), _mm512_loadu_si512(p))};
}

TL_INLINE Bytes bload(const void* p) { return {_mm512_loadu_si512(p)}; }
TL_INLINE void bstore(void* p, Bytes a) { _mm512_storeu_si512(p, a.v); }
TL_INLINE Bytes bset1(uint8_t x) { return {_mm512_set1_epi8((char)x)}; }
TL_INLINE Bytes operator&(Bytes a, Bytes b) { return {_mm512_and_si512(a.v, b.v)}; }
TL_INLINE Bytes operator|(Bytes a, Bytes b) { return {_mm512_or_si512(a.v, b.v)}; }
// Shifts whole 16-bit units: mask the result to the bits of one byte.
template <int N> TL_INLINE Bytes bshift_right(Bytes a) { return {_mm512_srli_epi16(a.v, N)}; }
template <int N> TL_INLINE Bytes bshift_left(Bytes a) { return {_mm512_slli_epi16(a.v, N)}; }
// 32 unsigned bytes widened to 32 uint16.
TL_INLINE Bytes widen_u8(const uint8_t* p) { return {_mm512_cvtepu8_epi16(_mm256_loadu_si256((const __m256i*)p))}; }

// acc[lane] += sum of w[4 lane + i] * a[i], i = 0..3; w unsigned, a signed. The four activations are read by the
// instruction's own broadcast, which costs no extra port.
TL_INLINE void dot4(I32& acc, Bytes w, const int8_t* a) {
    asm("vpdpbusd %2%{1to16%}, %1, %0" : "+v"(acc.v) : "v"(w.v), "m"(*(const int32_t*)a));
}
// As dot4, for weights below 128 (a cheaper instruction at levels without VNNI).
TL_INLINE void dot4_small(I32& acc, Bytes w, const int8_t* a) { dot4(acc, w, a); }
// acc[lane] += w16[2 lane] * a[0] + w16[2 lane + 1] * a[1], int16.
TL_INLINE void dot2(I32& acc, Bytes w, const int16_t* a) {
    asm("vpdpwssd %2%{1to16%}, %1, %0" : "+v"(acc.v) : "v"(w.v), "m"(*(const int32_t*)a));
}
// acc[lane] += w[2 lane] * a[0] + w[2 lane + 1] * a[1], bfloat16 products summed in float32.
TL_INLINE void dot2_bf16(F32& acc, Bytes w, const uint16_t* a) {
    asm("vdpbf16ps %2%{1to16%}, %1, %0" : "+v"(acc.v) : "v"(w.v), "m"(*(const int32_t*)a));
}

#elif defined(TL_LEVEL_AVX2)

inline constexpr int kRegisters = 8;
inline constexpr int kMicroTokens = 2;

struct F32 { __m256 lo, hi; };
struct I32 { __m256i lo, hi; };
struct Bytes { __m256i lo, hi; };

TL_INLINE F32 zero() { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
TL_INLINE F32 set1(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
TL_INLINE F32 load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
TL_INLINE void store(float* p, F32 a) { _mm256_storeu_ps(p, a.lo), _mm256_storeu_ps(p + 8, a.hi); }
struct LaneMask { __m256i lo, hi; };
TL_INLINE LaneMask first_mask(int n) {
    const __m256i count = _mm256_set1_epi32(n);
    return {_mm256_cmpgt_epi32(count, _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7)),
            _mm256_cmpgt_epi32(count, _mm256_setr_epi32(8, 9, 10, 11, 12, 13, 14, 15))};
}
TL_INLINE F32 load_first(int n, const float* p) {
    const LaneMask mask = first_mask(n);
    return {_mm256_maskload_ps(p, mask.lo), _mm256_maskload_ps(p + 8, mask.hi)};
}
TL_INLINE void store_first(int n, float* p, F32 a) {
    const LaneMask mask = first_mask(n);
    _mm256_maskstore_ps(p, mask.lo, a.lo);
    _mm256_maskstore_ps(p + 8, mask.hi, a.hi);
}
TL_INLINE F32 load_f16(const uint16_t* p) {
    return {_mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)p)),
            _mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)(p + 8)))};
}
TL_INLINE __m256 widen_bf16(const uint16_t* p) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i*)p)), 16));
}
TL_INLINE F32 load_bf16(const uint16_t* p) { return {widen_bf16(p), widen_bf16(p + 8)}; }
TL_INLINE void store_f16(uint16_t* p, F32 a) {
    constexpr int kRound = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
    _mm_storeu_si128((__m128i*)p, _mm256_cvtps_ph(a.lo, kRound));
    _mm_storeu_si128((__m128i*)(p + 8), _mm256_cvtps_ph(a.hi, kRound));
}
// The upper halves in dwords: rounded to nearest even, NaN kept (and made quiet).
TL_INLINE __m256i round_to_bf16(__m256 a) {
    const __m256i bits = _mm256_castps_si256(a), upper = _mm256_srli_epi32(bits, 16);
    const __m256i bias = _mm256_add_epi32(_mm256_and_si256(upper, _mm256_set1_epi32(1)), _mm256_set1_epi32(0x7fff));
    const __m256i rounded = _mm256_srli_epi32(_mm256_add_epi32(bits, bias), 16);
    const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(a, a, _CMP_UNORD_Q));
    return _mm256_blendv_epi8(rounded, _mm256_or_si256(upper, _mm256_set1_epi32(0x40)), nan);
}
TL_INLINE void store_bf16(uint16_t* p, F32 a) {
    const __m256i packed = _mm256_packus_epi32(round_to_bf16(a.lo), round_to_bf16(a.hi));
    _mm256_storeu_si256((__m256i*)p, _mm256_permute4x64_epi64(packed, 0xd8));
}
TL_INLINE F32 operator+(F32 a, F32 b) { return {_mm256_add_ps(a.lo, b.lo), _mm256_add_ps(a.hi, b.hi)}; }
TL_INLINE F32 operator-(F32 a, F32 b) { return {_mm256_sub_ps(a.lo, b.lo), _mm256_sub_ps(a.hi, b.hi)}; }
TL_INLINE F32 operator*(F32 a, F32 b) { return {_mm256_mul_ps(a.lo, b.lo), _mm256_mul_ps(a.hi, b.hi)}; }
TL_INLINE F32 operator/(F32 a, F32 b) { return {_mm256_div_ps(a.lo, b.lo), _mm256_div_ps(a.hi, b.hi)}; }
TL_INLINE F32 fma(F32 a, F32 b, F32 c) {
    return {_mm256_fmadd_ps(a.lo, b.lo, c.lo), _mm256_fmadd_ps(a.hi, b.hi, c.hi)};
}
TL_INLINE F32 fms(F32 a, F32 b, F32 c) {
    return {_mm256_fmsub_ps(a.lo, b.lo, c.lo), _mm256_fmsub_ps(a.hi, b.hi, c.hi)};
}
TL_INLINE F32 max(F32 a, F32 b) { return {_mm256_max_ps(a.lo, b.lo), _mm256_max_ps(a.hi, b.hi)}; }
TL_INLINE F32 min(F32 a, F32 b) { return {_mm256_min_ps(a.lo, b.lo), _mm256_min_ps(a.hi, b.hi)}; }
TL_INLINE F32 abs(F32 a) {
    const __m256 mask = _mm256_castsi256_ps(_mm256_set1_epi32(0x7fffffff));
    return {_mm256_and_ps(a.lo, mask), _mm256_and_ps(a.hi, mask)};
}
TL_INLINE F32 round(F32 a) {
    constexpr int kRound = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
    return {_mm256_round_ps(a.lo, kRound), _mm256_round_ps(a.hi, kRound)};
}
TL_INLINE float reduce_add(F32 a) {
    __m256 s = _mm256_add_ps(a.lo, a.hi);
    __m128 q = _mm_add_ps(_mm256_castps256_ps128(s), _mm256_extractf128_ps(s, 1));
    q = _mm_add_ps(q, _mm_movehl_ps(q, q));
    return _mm_cvtss_f32(_mm_add_ss(q, _mm_movehdup_ps(q)));
}
TL_INLINE float reduce_max(F32 a) {
    __m256 s = _mm256_max_ps(a.lo, a.hi);
    __m128 q = _mm_max_ps(_mm256_castps256_ps128(s), _mm256_extractf128_ps(s, 1));
    q = _mm_max_ps(q, _mm_movehl_ps(q, q));
    return _mm_cvtss_f32(_mm_max_ss(q, _mm_movehdup_ps(q)));
}
TL_INLINE bool any_above(F32 a, F32 b) {
    const __m256 lo = _mm256_cmp_ps(a.lo, b.lo, _CMP_GT_OQ), hi = _mm256_cmp_ps(a.hi, b.hi, _CMP_GT_OQ);
    return _mm256_movemask_ps(_mm256_or_ps(lo, hi)) != 0;
}
TL_INLINE bool any_nan(F32 a) { return _mm256_movemask_ps(_mm256_cmp_ps(a.lo, a.hi, _CMP_UNORD_Q)) != 0; }
TL_INLINE __m256 power_of_two(__m256 n) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127)), 23));
}
// a * 2^n for integral n in [-126, 127].
TL_INLINE F32 scale_by_power(F32 a, F32 n) {
    return {_mm256_mul_ps(a.lo, power_of_two(n.lo)), _mm256_mul_ps(a.hi, power_of_two(n.hi))};
}

TL_INLINE F32 first_lanes(int n, F32 a, F32 b) {
    const __m256i count = _mm256_set1_epi32(n);
    const __m256i lo = _mm256_cmpgt_epi32(count, _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
    const __m256i hi = _mm256_cmpgt_epi32(count, _mm256_setr_epi32(8, 9, 10, 11, 12, 13, 14, 15));
    return {_mm256_blendv_ps(b.lo, a.lo, _mm256_castsi256_ps(lo)),
            _mm256_blendv_ps(b.hi, a.hi, _mm256_castsi256_ps(hi))};
}

TL_INLINE I32 izero() { return {_mm256_setzero_si256(), _mm256_setzero_si256()}; }
TL_INLINE I32 iset1(int32_t x) { return {_mm256_set1_epi32(x), _mm256_set1_epi32(x)}; }
TL_INLINE I32 iload(const int32_t* p) {
    return {_mm256_loadu_si256((const __m256i*)p), _mm256_loadu_si256((const __m256i*)(p + 8))};
}
TL_INLINE void istore(int32_t* p, I32 a) {
    _mm256_storeu_si256((__m256i*)p, a.lo);
    _mm256_storeu_si256((__m256i*)(p + 8), a.hi);
}
TL_INLINE I32 operator+(I32 a, I32 b) { return {_mm256_add_epi32(a.lo, b.lo), _mm256_add_epi32(a.hi, b.hi)}; }
TL_INLINE I32 operator*(I32 a, I32 b) { return {_mm256_mullo_epi32(a.lo, b.lo), _mm256_mullo_epi32(a.hi, b.hi)}; }
template <int N> TL_INLINE I32 shift_left(I32 a) { return {_mm256_slli_epi32(a.lo, N), _mm256_slli_epi32(a.hi, N)}; }
template <int N> TL_INLINE I32 shift_right(I32 a) { return {_mm256_srai_epi32(a.lo, N), _mm256_srai_epi32(a.hi, N)}; }
TL_INLINE I32 load_u8(const uint8_t* p) {
    const __m128i bytes = _mm_loadu_si128((const __m128i*)p);
    return {_mm256_cvtepu8_epi32(bytes), _mm256_cvtepu8_epi32(_mm_srli_si128(bytes, 8))};
}
TL_INLINE I32 load_i8(const int8_t* p) {
    const __m128i bytes = _mm_loadu_si128((const __m128i*)p);
    return {_mm256_cvtepi8_epi32(bytes), _mm256_cvtepi8_epi32(_mm_srli_si128(bytes, 8))};
}
TL_INLINE F32 to_float(I32 a) { return {_mm256_cvtepi32_ps(a.lo), _mm256_cvtepi32_ps(a.hi)}; }
TL_INLINE I32 to_int(F32 a) { return {_mm256_cvtps_epi32(a.lo), _mm256_cvtps_epi32(a.hi)}; }
TL_INLINE void store_i8(int8_t* p, I32 a) {
    const __m256i words = _mm256_permute4x64_epi64(_mm256_packs_epi32(a.lo, a.hi), 0xd8);
    const __m128i bytes = _mm_packs_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
    _mm_storeu_si128((__m128i*)p, bytes);
}
TL_INLINE __m256i sum4_half(const int8_t* p) {
    const __m256i pairs = _mm256_maddubs_epi16(_mm256_set1_epi8(1), _mm256_loadu_si256((const __m256i*)p));
    return _mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
}
TL_INLINE I32 sum4(const int8_t* p) { return {sum4_half(p), sum4_half(p + 32)}; }

TL_INLINE Bytes bload(const void* p) {
    return {_mm256_loadu_si256((const __m256i*)p), _mm256_loadu_si256((const __m256i*)p + 1)};
}
TL_INLINE void bstore(void* p, Bytes a) {
    _mm256_storeu_si256((__m256i*)p, a.lo);
    _mm256_storeu_si256((__m256i*)p + 1, a.hi);
}
TL_INLINE Bytes bset1(uint8_t x) { return {_mm256_set1_epi8((char)x), _mm256_set1_epi8((char)x)}; }
TL_INLINE Bytes operator&(Bytes a, Bytes b) { return {_mm256_and_si256(a.lo, b.lo), _mm256_and_si256(a.hi, b.hi)}; }
TL_INLINE Bytes operator|(Bytes a, Bytes b) { return {_mm256_or_si256(a.lo, b.lo), _mm256_or_si256(a.hi, b.hi)}; }
template <int N> TL_INLINE Bytes bshift_right(Bytes a) {
    return {_mm256_srli_epi16(a.lo, N), _mm256_srli_epi16(a.hi, N)};
}
template <int N> TL_INLINE Bytes bshift_left(Bytes a) {
    return {_mm256_slli_epi16(a.lo, N), _mm256_slli_epi16(a.hi, N)};
}
TL_INLINE Bytes widen_u8(const uint8_t* p) {
    return {_mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i*)p)),
            _mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i*)(p + 16)))};
}

TL_INLINE __m256i broadcast4(const void* a) {
    int32_t bits;
    std::memcpy(&bits, a, 4);
    return _mm256_set1_epi32(bits);
}
// vpmaddubsw saturates at int16, so the weights must stay below 128: 2 * 127 * 127 = 32258 fits.
TL_INLINE void dot4_small(I32& acc, Bytes w, const int8_t* a) {
    const __m256i x = broadcast4(a), ones = _mm256_set1_epi16(1);
    acc.lo = _mm256_add_epi32(acc.lo, _mm256_madd_epi16(_mm256_maddubs_epi16(w.lo, x), ones));
    acc.hi = _mm256_add_epi32(acc.hi, _mm256_madd_epi16(_mm256_maddubs_epi16(w.hi, x), ones));
}
// Full-range bytes: the top bit (worth 128; 2 * 128 * 127 = 32512 fits too) is multiplied on its own.
TL_INLINE void dot4(I32& acc, Bytes w, const int8_t* a) {
    dot4_small(acc, w & bset1(0x7f), a);
    dot4_small(acc, w & bset1(0x80), a);
}
TL_INLINE void dot2(I32& acc, Bytes w, const int16_t* a) {
    const __m256i x = broadcast4(a);
    acc.lo = _mm256_add_epi32(acc.lo, _mm256_madd_epi16(w.lo, x));
    acc.hi = _mm256_add_epi32(acc.hi, _mm256_madd_epi16(w.hi, x));
}
TL_INLINE void dot2_bf16(F32& acc, Bytes w, const uint16_t* a) {
    const __m256i x = broadcast4(a), upper = _mm256_set1_epi32((int)0xffff0000u);
    const __m256 x0 = _mm256_castsi256_ps(_mm256_slli_epi32(x, 16)),
                 x1 = _mm256_castsi256_ps(_mm256_and_si256(x, upper));
    acc.lo = _mm256_fmadd_ps(_mm256_castsi256_ps(_mm256_slli_epi32(w.lo, 16)), x0, acc.lo);
    acc.hi = _mm256_fmadd_ps(_mm256_castsi256_ps(_mm256_slli_epi32(w.hi, 16)), x0, acc.hi);
    acc.lo = _mm256_fmadd_ps(_mm256_castsi256_ps(_mm256_and_si256(w.lo, upper)), x1, acc.lo);
    acc.hi = _mm256_fmadd_ps(_mm256_castsi256_ps(_mm256_and_si256(w.hi, upper)), x1, acc.hi);
}

#else  // scalar

inline constexpr int kRegisters = 4;  // of the smallest vectors a processor may have
inline constexpr int kMicroTokens = 2;

struct F32 { float v[kLanes]; };
struct I32 { int32_t v[kLanes]; };
struct Bytes { uint8_t v[64]; };

#define TL_EACH for (int i = 0; i < kLanes; i++)

TL_INLINE F32 set1(float x) {
    F32 r;
    TL_EACH r.v[i] = x;
    return r;
}
TL_INLINE F32 zero() { return set1(0.0f); }
TL_INLINE F32 load(const float* p) {
    F32 r;
    TL_EACH r.v[i] = p[i];
    return r;
}
TL_INLINE void store(float* p, F32 a) { TL_EACH p[i] = a.v[i]; }
TL_INLINE F32 load_first(int n, const float* p) {
    F32 r;
    TL_EACH r.v[i] = i < n ? p[i] : 0.0f;
    return r;
}
TL_INLINE void store_first(int n, float* p, F32 a) {
    for (int i = 0; i < n; i++) p[i] = a.v[i];
}
TL_INLINE F32 load_f16(const uint16_t* p) {
    F32 r;
    TL_EACH r.v[i] = f16_to_float(p[i]);
    return r;
}
TL_INLINE F32 load_bf16(const uint16_t* p) {
    F32 r;
    TL_EACH r.v[i] = bf16_to_float(p[i]);
    return r;
}
TL_INLINE void store_f16(uint16_t* p, F32 a) { TL_EACH p[i] = float_to_f16(a.v[i]); }
TL_INLINE void store_bf16(uint16_t* p, F32 a) { TL_EACH p[i] = float_to_bf16(a.v[i]); }
TL_INLINE F32 operator+(F32 a, F32 b) {
    TL_EACH a.v[i] += b.v[i];
    return a;
}
TL_INLINE F32 operator-(F32 a, F32 b) {
    TL_EACH a.v[i] -= b.v[i];
    return a;
}
TL_INLINE F32 operator*(F32 a, F32 b) {
    TL_EACH a.v[i] *= b.v[i];
    return a;
}
TL_INLINE F32 operator/(F32 a, F32 b) {
    TL_EACH a.v[i] /= b.v[i];
    return a;
}
// Multiplies and adds with two roundings: a baseline processor has no fused instruction.
TL_INLINE F32 fma(F32 a, F32 b, F32 c) {
    TL_EACH a.v[i] = a.v[i] * b.v[i] + c.v[i];
    return a;
}
TL_INLINE F32 fms(F32 a, F32 b, F32 c) {
    TL_EACH a.v[i] = a.v[i] * b.v[i] - c.v[i];
    return a;
}
TL_INLINE F32 max(F32 a, F32 b) {
    TL_EACH a.v[i] = a.v[i] > b.v[i] ? a.v[i] : b.v[i];
    return a;
}
TL_INLINE F32 min(F32 a, F32 b) {
    TL_EACH a.v[i] = a.v[i] < b.v[i] ? a.v[i] : b.v[i];
    return a;
}
TL_INLINE F32 abs(F32 a) {
    TL_EACH a.v[i] = std::fabs(a.v[i]);
    return a;
}
TL_INLINE F32 round(F32 a) {
    TL_EACH a.v[i] = std::nearbyintf(a.v[i]);
    return a;
}
TL_INLINE float reduce_add(F32 a) {
    float s = 0;
    TL_EACH s += a.v[i];
    return s;
}
TL_INLINE float reduce_max(F32 a) {
    float m = a.v[0];
    TL_EACH m = a.v[i] > m ? a.v[i] : m;
    return m;
}
TL_INLINE bool any_above(F32 a, F32 b) {
    bool r = false;
    TL_EACH r |= a.v[i] > b.v[i];
    return r;
}
TL_INLINE bool any_nan(F32 a) {
    bool r = false;
    TL_EACH r |= a.v[i] != a.v[i];
    return r;
}
TL_INLINE F32 scale_by_power(F32 a, F32 n) {
    TL_EACH a.v[i] = std::ldexp(a.v[i], int(n.v[i]));
    return a;
}
TL_INLINE F32 first_lanes(int n, F32 a, F32 b) {
    TL_EACH a.v[i] = i < n ? a.v[i] : b.v[i];
    return a;
}

TL_INLINE I32 iset1(int32_t x) {
    I32 r;
    TL_EACH r.v[i] = x;
    return r;
}
TL_INLINE I32 izero() { return iset1(0); }
TL_INLINE I32 iload(const int32_t* p) {
    I32 r;
    TL_EACH r.v[i] = p[i];
    return r;
}
TL_INLINE void istore(int32_t* p, I32 a) { TL_EACH p[i] = a.v[i]; }
TL_INLINE I32 operator+(I32 a, I32 b) {
    TL_EACH a.v[i] += b.v[i];
    return a;
}
TL_INLINE I32 operator*(I32 a, I32 b) {
    TL_EACH a.v[i] *= b.v[i];
    return a;
}
template <int N> TL_INLINE I32 shift_left(I32 a) {
    TL_EACH a.v[i] = int32_t(uint32_t(a.v[i]) << N);
    return a;
}
template <int N> TL_INLINE I32 shift_right(I32 a) {
    TL_EACH a.v[i] >>= N;
    return a;
}
TL_INLINE I32 load_u8(const uint8_t* p) {
    I32 r;
    TL_EACH r.v[i] = p[i];
    return r;
}
TL_INLINE I32 load_i8(const int8_t* p) {
    I32 r;
    TL_EACH r.v[i] = p[i];
    return r;
}
TL_INLINE F32 to_float(I32 a) {
    F32 r;
    TL_EACH r.v[i] = float(a.v[i]);
    return r;
}
TL_INLINE I32 to_int(F32 a) {
    I32 r;
    TL_EACH r.v[i] = int32_t(std::nearbyintf(a.v[i]));
    return r;
}
TL_INLINE void store_i8(int8_t* p, I32 a) { TL_EACH p[i] = int8_t(a.v[i] > 127 ? 127 : a.v[i] < -128 ? -128 : a.v[i]); }
TL_INLINE I32 sum4(const int8_t* p) {
    I32 r;
    TL_EACH r.v[i] = p[4 * i] + p[4 * i + 1] + p[4 * i + 2] + p[4 * i + 3];
    return r;
}

TL_INLINE Bytes bload(const void* p) {
    Bytes r;
    std::memcpy(r.v, p, 64);
    return r;
}
TL_INLINE void bstore(void* p, Bytes a) { std::memcpy(p, a.v, 64); }
TL_INLINE Bytes bset1(uint8_t x) {
    Bytes r;
    std::memset(r.v, x, 64);
    return r;
}
TL_INLINE Bytes operator&(Bytes a, Bytes b) {
    for (int i = 0; i < 64; i++) a.v[i] &= b.v[i];
    return a;
}
TL_INLINE Bytes operator|(Bytes a, Bytes b) {
    for (int i = 0; i < 64; i++) a.v[i] |= b.v[i];
    return a;
}
template <int N> TL_INLINE Bytes bshift_right(Bytes a) {
    uint16_t w[32];
    std::memcpy(w, a.v, 64);
    for (uint16_t& x : w) x = uint16_t(x >> N);
    std::memcpy(a.v, w, 64);
    return a;
}
template <int N> TL_INLINE Bytes bshift_left(Bytes a) {
    uint16_t w[32];
    std::memcpy(w, a.v, 64);
    for (uint16_t& x : w) x = uint16_t(x << N);
    std::memcpy(a.v, w, 64);
    return a;
}
TL_INLINE Bytes widen_u8(const uint8_t* p) {
    uint16_t w[32];
    for (int i = 0; i < 32; i++) w[i] = p[i];
    return bload(w);
}
TL_INLINE void dot4(I32& acc, Bytes w, const int8_t* a) {
    TL_EACH for (int j = 0; j < 4; j++) acc.v[i] += int32_t(w.v[4 * i + j]) * a[j];
}
TL_INLINE void dot4_small(I32& acc, Bytes w, const int8_t* a) { dot4(acc, w, a); }
TL_INLINE void dot2(I32& acc, Bytes w, const int16_t* a) {
    int16_t words[32];
    std::memcpy(words, w.v, 64);
    TL_EACH acc.v[i] += int32_t(words[2 * i]) * a[0] + int32_t(words[2 * i + 1]) * a[1];
}
TL_INLINE void dot2_bf16(F32& acc, Bytes w, const uint16_t* a) {
    uint16_t words[32];
    std::memcpy(words, w.v, 64);
    TL_EACH acc.v[i] += bf16_to_float(words[2 * i]) * bf16_to_float(a[0]);
    TL_EACH acc.v[i] += bf16_to_float(words[2 * i + 1]) * bf16_to_float(a[1]);
}

#undef TL_EACH
#endif

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

// Asks for the cache line at p; any address is allowed.
TL_INLINE void prefetch(const void* p) { __builtin_prefetch(p); }

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
