// The AVX-512 level (F, BW, VL, DQ, VNNI, BF16): 16 lanes in one register. Included by simd.h only; what an operation
// means is said here, the other levels compute the same.
#pragma once

#include <immintrin.h>

namespace tl::TL_LEVEL {

// F32 values that the register file holds.
inline constexpr int kRegisters = 32;
// Token rows that one pass of a matrix micro-kernel holds in registers.
inline constexpr int kMicroTokens = 8;
// Tokens that one pass over packed weights multiplies.
inline constexpr int kDirectTokens = 8;

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
// The bytes e as powers of two, 2^(e - 128); the two smallest are subnormal.
TL_INLINE F32 load_half_e8m0(const uint8_t* p) {
    const __m512i e = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i*)p));
    const __m512i normal = _mm512_slli_epi32(_mm512_sub_epi32(e, _mm512_set1_epi32(1)), 23);
    const __mmask16 small = _mm512_cmplt_epi32_mask(e, _mm512_set1_epi32(2));
    return {_mm512_castsi512_ps(_mm512_mask_sllv_epi32(normal, small, _mm512_set1_epi32(0x00200000), e))};
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
TL_INLINE I32 operator-(I32 a, I32 b) { return {_mm512_sub_epi32(a.v, b.v)}; }
TL_INLINE I32 operator*(I32 a, I32 b) { return {_mm512_mullo_epi32(a.v, b.v)}; }
template <int N> TL_INLINE I32 shift_left(I32 a) { return {_mm512_slli_epi32(a.v, N)}; }
template <int N> TL_INLINE I32 shift_right(I32 a) { return {_mm512_srai_epi32(a.v, N)}; }
TL_INLINE I32 load_u8(const uint8_t* p) { return {_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i*)p))}; }
TL_INLINE I32 load_i8(const int8_t* p) { return {_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i*)p))}; }
// Sixteen bytes' low or high halves, 0 .. 15, minus 8. A permutation looks at an index's low four bits only.
TL_INLINE __m512 nibble_values(__m512i a) {
    return _mm512_permutexvar_ps(a, _mm512_setr_ps(-8, -7, -6, -5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5, 6, 7));
}
TL_INLINE F32 load_low_nibbles(const uint8_t* p) { return {nibble_values(load_u8(p).v)}; }
TL_INLINE F32 load_high_nibbles(const uint8_t* p) { return {nibble_values(_mm512_srli_epi32(load_u8(p).v, 4))}; }
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
// Byte N of each dword lane, unsigned.
template <int N> TL_INLINE I32 lane_byte(Bytes a) {
    return {_mm512_and_si512(_mm512_srli_epi32(a.v, 8 * N), _mm512_set1_epi32(0xff))};
}
// Shifts whole dword lanes.
template <int N> TL_INLINE Bytes lane_shift_right(Bytes a) { return {_mm512_srli_epi32(a.v, N)}; }
// Bytes 0, 2, 4 ... (1, 3, 5 ...) as uint16.
TL_INLINE Bytes even_bytes(Bytes a) { return {_mm512_and_si512(a.v, _mm512_set1_epi16(0xff))}; }
TL_INLINE Bytes odd_bytes(Bytes a) { return {_mm512_srli_epi16(a.v, 8)}; }
// 16-bit arithmetic, modulo 2^16.
TL_INLINE Bytes add16(Bytes a, Bytes b) { return {_mm512_add_epi16(a.v, b.v)}; }
TL_INLINE Bytes multiply16(Bytes a, Bytes b) { return {_mm512_mullo_epi16(a.v, b.v)}; }
TL_INLINE Bytes set16(int16_t x) { return {_mm512_set1_epi16(x)}; }
// 32 unsigned bytes widened to 32 uint16.
TL_INLINE Bytes widen_u8(const uint8_t* p) { return {_mm512_cvtepu8_epi16(_mm256_loadu_si256((const __m256i*)p))}; }
TL_INLINE Bytes widen_i8(const int8_t* p) { return {_mm512_cvtepi8_epi16(_mm256_loadu_si256((const __m256i*)p))}; }
// The low (high) int16 of each dword lane.
TL_INLINE I32 low_halves(Bytes a) { return {_mm512_srai_epi32(_mm512_slli_epi32(a.v, 16), 16)}; }
TL_INLINE I32 high_halves(Bytes a) { return {_mm512_srai_epi32(a.v, 16)}; }
// For each dword lane: low >> L in the low half, high >> H in the high half. The results must fit in 16 bits, and the bits
// that shifting takes off must be zero.
template <int L, int H> TL_INLINE Bytes join_halves(I32 low, I32 high) {
    const __m512i down = L ? _mm512_srli_epi32(low.v, L) : low.v;
    return {_mm512_mask_blend_epi16(0xaaaaaaaau, down, _mm512_slli_epi32(high.v, 16 - H))};
}

// For each dword lane: four numbers 0 .. 255 as its bytes.
TL_INLINE Bytes join_bytes(I32 a, I32 b, I32 c, I32 d) {
    const __m512i low = _mm512_or_si512(a.v, _mm512_slli_epi32(b.v, 8));
    return {_mm512_or_si512(low, _mm512_or_si512(_mm512_slli_epi32(c.v, 16), _mm512_slli_epi32(d.v, 24)))};
}

// For each dword lane: `low` as bfloat16 in the low half, `high` in the high half, rounded to nearest even.
TL_INLINE Bytes join_bf16(F32 low, F32 high) {
    const __m512i lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    const __m512i order = _mm512_or_si512(lanes, _mm512_slli_epi32(_mm512_add_epi32(lanes, _mm512_set1_epi32(16)), 16));
    return {_mm512_permutexvar_epi16(order, (__m512i)_mm512_cvtne2ps_pbh(high.v, low.v))};
}
// The halves of each dword lane as the bfloat16 numbers that they are.
TL_INLINE F32 low_bf16(Bytes a) { return {_mm512_castsi512_ps(_mm512_slli_epi32(a.v, 16))}; }
TL_INLINE F32 high_bf16(Bytes a) {
    return {_mm512_castsi512_ps(_mm512_and_si512(a.v, _mm512_set1_epi32(int(0xffff0000))))};
}

// Signed weights: a byte holds value + kSignedOffset, in the form that dot4_signed takes.
inline constexpr int kSignedOffset = 128;
// value + 128 in that form.
TL_INLINE Bytes signed_form(Bytes a) { return a; }
// Sixteen values to look up.
struct Table { __m512i v; };
TL_INLINE Table load_table(const int8_t* p) {
    const __m128i values = _mm_loadu_si128((const __m128i*)p);
    return {_mm512_broadcast_i32x4(_mm_xor_si128(values, _mm_set1_epi8(-128)))};
}
// For each byte, 0 .. 15, the value in that place as a signed weight.
TL_INLINE Bytes lookup(Table table, Bytes codes) { return {_mm512_shuffle_epi8(table.v, codes.v)}; }

// The value is computed before the next such point: a compiler that puts additions off until all their operands are there
// runs out of registers.
TL_INLINE void settle(I32& a) { asm volatile("" : "+v"(a.v)); }
TL_INLINE void settle(F32& a) { asm volatile("" : "+v"(a.v)); }
// The value waits in memory from here to its next use: leaves a register to the loop in between.
TL_INLINE void park(F32& a) { asm volatile("" : "+m"(a.v)); }

// acc[lane] += sum of w[4 lane + i] * a[i], i = 0..3; w unsigned, a signed. The four activations are read by the
// instruction's own broadcast, which costs no extra port.
TL_INLINE void dot4(I32& acc, Bytes w, const int8_t* a) {
    asm("vpdpbusd %2%{1to16%}, %1, %0" : "+v"(acc.v) : "v"(w.v), "m"(*(const int32_t*)a));
}
// As dot4, for weights below 128 (a cheaper instruction at levels without VNNI).
TL_INLINE void dot4_small(I32& acc, Bytes w, const int8_t* a) { dot4(acc, w, a); }
// As dot4, for signed weights (see kSignedOffset): acc[lane] += sum of (value + kSignedOffset) * a[i].
TL_INLINE void dot4_signed(I32& acc, Bytes w, const int8_t* a) { dot4(acc, w, a); }
// acc[lane] += w16[2 lane] * a[0] + w16[2 lane + 1] * a[1], int16.
TL_INLINE void dot2(I32& acc, Bytes w, const int16_t* a) {
    asm("vpdpwssd %2%{1to16%}, %1, %0" : "+v"(acc.v) : "v"(w.v), "m"(*(const int32_t*)a));
}
// acc[lane] += a[2 lane] * b[2 lane] + a[2 lane + 1] * b[2 lane + 1], int16.
TL_INLINE void dot2(I32& acc, Bytes a, Bytes b) { acc.v = _mm512_dpwssd_epi32(acc.v, a.v, b.v); }
// acc[lane] += w[2 lane] * a[0] + w[2 lane + 1] * a[1], bfloat16 products summed in float32.
TL_INLINE void dot2_bf16(F32& acc, Bytes w, const uint16_t* a) {
    asm("vdpbf16ps %2%{1to16%}, %1, %0" : "+v"(acc.v) : "v"(w.v), "m"(*(const int32_t*)a));
}

}  // namespace tl::TL_LEVEL
