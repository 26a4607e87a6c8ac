// The AVX2 level (with FMA and F16C): 16 lanes in two registers; and AVX-VNNI, which is AVX2 with the dot products of
// bytes of AVX-512. Included by simd.h only.
#pragma once

#include <immintrin.h>

namespace tl::TL_LEVEL {

inline constexpr int kRegisters = 8;
inline constexpr int kMicroTokens = 2;
inline constexpr int kDirectTokens = 2;

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
TL_INLINE __m256 half_e8m0(__m128i bytes) {
    const __m256i e = _mm256_cvtepu8_epi32(bytes);
    const __m256i normal = _mm256_slli_epi32(_mm256_sub_epi32(e, _mm256_set1_epi32(1)), 23);
    const __m256i small = _mm256_sllv_epi32(_mm256_set1_epi32(0x00200000), e);
    return _mm256_castsi256_ps(_mm256_blendv_epi8(normal, small, _mm256_cmpgt_epi32(_mm256_set1_epi32(2), e)));
}
TL_INLINE F32 load_half_e8m0(const uint8_t* p) {
    const __m128i bytes = _mm_loadu_si128((const __m128i*)p);
    return {half_e8m0(bytes), half_e8m0(_mm_srli_si128(bytes, 8))};
}
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
TL_INLINE __m256i join_bf16(__m256 low, __m256 high) {
    return _mm256_or_si256(round_to_bf16(low), _mm256_slli_epi32(round_to_bf16(high), 16));
}
TL_INLINE Bytes join_bf16(F32 low, F32 high) { return {join_bf16(low.lo, high.lo), join_bf16(low.hi, high.hi)}; }
TL_INLINE F32 low_bf16(Bytes a) {
    return {_mm256_castsi256_ps(_mm256_slli_epi32(a.lo, 16)), _mm256_castsi256_ps(_mm256_slli_epi32(a.hi, 16))};
}
TL_INLINE F32 high_bf16(Bytes a) {
    const __m256i upper = _mm256_set1_epi32((int)0xffff0000u);
    return {_mm256_castsi256_ps(_mm256_and_si256(a.lo, upper)), _mm256_castsi256_ps(_mm256_and_si256(a.hi, upper))};
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
TL_INLINE I32 operator-(I32 a, I32 b) { return {_mm256_sub_epi32(a.lo, b.lo), _mm256_sub_epi32(a.hi, b.hi)}; }
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
// Sixteen bytes' low or high halves, 0 .. 15, minus 8.
TL_INLINE F32 load_low_nibbles(const uint8_t* p) {
    const I32 a = load_u8(p);
    const __m256i low = _mm256_set1_epi32(15);
    return to_float({_mm256_and_si256(a.lo, low), _mm256_and_si256(a.hi, low)}) - set1(8.0f);
}
TL_INLINE F32 load_high_nibbles(const uint8_t* p) {
    const I32 a = load_u8(p);
    return to_float({_mm256_srli_epi32(a.lo, 4), _mm256_srli_epi32(a.hi, 4)}) - set1(8.0f);
}
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
template <int N> TL_INLINE Bytes lane_shift_right(Bytes a) {
    return {_mm256_srli_epi32(a.lo, N), _mm256_srli_epi32(a.hi, N)};
}
template <int N> TL_INLINE I32 lane_byte(Bytes a) {
    const Bytes v = lane_shift_right<8 * N>(a);
    const __m256i mask = _mm256_set1_epi32(0xff);
    return {_mm256_and_si256(v.lo, mask), _mm256_and_si256(v.hi, mask)};
}
TL_INLINE Bytes even_bytes(Bytes a) {
    const __m256i mask = _mm256_set1_epi16(0xff);
    return {_mm256_and_si256(a.lo, mask), _mm256_and_si256(a.hi, mask)};
}
TL_INLINE Bytes odd_bytes(Bytes a) { return bshift_right<8>(a); }
TL_INLINE Bytes add16(Bytes a, Bytes b) { return {_mm256_add_epi16(a.lo, b.lo), _mm256_add_epi16(a.hi, b.hi)}; }
TL_INLINE Bytes multiply16(Bytes a, Bytes b) {
    return {_mm256_mullo_epi16(a.lo, b.lo), _mm256_mullo_epi16(a.hi, b.hi)};
}
TL_INLINE Bytes set16(int16_t x) { return {_mm256_set1_epi16(x), _mm256_set1_epi16(x)}; }
TL_INLINE Bytes widen_u8(const uint8_t* p) {
    return {_mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i*)p)),
            _mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i*)(p + 16)))};
}

TL_INLINE Bytes widen_i8(const int8_t* p) {
    return {_mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i*)p)),
            _mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i*)(p + 16)))};
}
TL_INLINE I32 high_halves(Bytes a) { return {_mm256_srai_epi32(a.lo, 16), _mm256_srai_epi32(a.hi, 16)}; }
TL_INLINE I32 low_halves(Bytes a) { return high_halves({_mm256_slli_epi32(a.lo, 16), _mm256_slli_epi32(a.hi, 16)}); }
template <int L, int H> TL_INLINE Bytes join_halves(I32 low, I32 high) {
    return {_mm256_blend_epi16(_mm256_srli_epi32(low.lo, L), _mm256_slli_epi32(high.lo, 16 - H), 0xaa),
            _mm256_blend_epi16(_mm256_srli_epi32(low.hi, L), _mm256_slli_epi32(high.hi, 16 - H), 0xaa)};
}

#if defined(TL_LEVEL_AVXVNNI)
inline constexpr int kSignedOffset = 128;
#else
inline constexpr int kSignedOffset = 0;
#endif
TL_INLINE Bytes signed_form(Bytes a) {
    const __m256i change = _mm256_set1_epi8(char(128 - kSignedOffset));
    return {_mm256_xor_si256(a.lo, change), _mm256_xor_si256(a.hi, change)};
}
struct Table { __m256i v; };
TL_INLINE Table load_table(const int8_t* p) {
    const __m128i values = _mm_loadu_si128((const __m128i*)p);
    return {_mm256_broadcastsi128_si256(_mm_xor_si128(values, _mm_set1_epi8(char(kSignedOffset))))};
}
TL_INLINE Bytes lookup(Table table, Bytes codes) {
    return {_mm256_shuffle_epi8(table.v, codes.lo), _mm256_shuffle_epi8(table.v, codes.hi)};
}

TL_INLINE void settle(I32& a) { asm volatile("" : "+x"(a.lo), "+x"(a.hi)); }
TL_INLINE void settle(F32& a) { asm volatile("" : "+x"(a.lo), "+x"(a.hi)); }
TL_INLINE void park(F32& a) { asm volatile("" : "+m"(a.lo), "+m"(a.hi)); }

TL_INLINE __m256i broadcast4(const void* a) {
    int32_t bits;
    std::memcpy(&bits, a, 4);
    return _mm256_set1_epi32(bits);
}
#if defined(TL_LEVEL_AVXVNNI)
TL_INLINE void dot4(I32& acc, Bytes w, const int8_t* a) {
    const __m256i x = broadcast4(a);
    acc.lo = _mm256_dpbusd_avx_epi32(acc.lo, w.lo, x);
    acc.hi = _mm256_dpbusd_avx_epi32(acc.hi, w.hi, x);
}
TL_INLINE void dot4_small(I32& acc, Bytes w, const int8_t* a) { dot4(acc, w, a); }
TL_INLINE void dot4_signed(I32& acc, Bytes w, const int8_t* a) { dot4(acc, w, a); }
TL_INLINE void dot2(I32& acc, Bytes w, const int16_t* a) {
    const __m256i x = broadcast4(a);
    acc.lo = _mm256_dpwssd_avx_epi32(acc.lo, w.lo, x);
    acc.hi = _mm256_dpwssd_avx_epi32(acc.hi, w.hi, x);
}
TL_INLINE void dot2(I32& acc, Bytes a, Bytes b) {
    acc.lo = _mm256_dpwssd_avx_epi32(acc.lo, a.lo, b.lo);
    acc.hi = _mm256_dpwssd_avx_epi32(acc.hi, a.hi, b.hi);
}
#else
// vpmaddubsw saturates at int16, so the weights must stay below 128: 2 * 127 * 127 = 32258 fits.
TL_INLINE void dot4_small(I32& acc, Bytes w, const int8_t* a) {
    const __m256i x = broadcast4(a), ones = _mm256_set1_epi16(1);
    acc.lo = _mm256_add_epi32(acc.lo, _mm256_madd_epi16(_mm256_maddubs_epi16(w.lo, x), ones));
    acc.hi = _mm256_add_epi32(acc.hi, _mm256_madd_epi16(_mm256_maddubs_epi16(w.hi, x), ones));
    settle(acc);
}
// Full-range bytes: the top bit (worth 128; 2 * 128 * 127 = 32512 fits too) is multiplied on its own.
TL_INLINE void dot4(I32& acc, Bytes w, const int8_t* a) {
    dot4_small(acc, w & bset1(0x7f), a);
    const __m256i small = _mm256_set1_epi8(0x7f);
    dot4_small(acc, {_mm256_andnot_si256(small, w.lo), _mm256_andnot_si256(small, w.hi)}, a);
}
// The sign of a weight moves to the activation; 2 * 128 * 127 fits as above.
TL_INLINE void dot4_signed(I32& acc, Bytes w, const int8_t* a) {
    const __m256i x = broadcast4(a), ones = _mm256_set1_epi16(1);
    const __m256i lo = _mm256_maddubs_epi16(_mm256_abs_epi8(w.lo), _mm256_sign_epi8(x, w.lo));
    const __m256i hi = _mm256_maddubs_epi16(_mm256_abs_epi8(w.hi), _mm256_sign_epi8(x, w.hi));
    acc.lo = _mm256_add_epi32(acc.lo, _mm256_madd_epi16(lo, ones));
    acc.hi = _mm256_add_epi32(acc.hi, _mm256_madd_epi16(hi, ones));
    settle(acc);
}
TL_INLINE void dot2(I32& acc, Bytes w, const int16_t* a) {
    const __m256i x = broadcast4(a);
    acc.lo = _mm256_add_epi32(acc.lo, _mm256_madd_epi16(w.lo, x));
    acc.hi = _mm256_add_epi32(acc.hi, _mm256_madd_epi16(w.hi, x));
}
TL_INLINE void dot2(I32& acc, Bytes a, Bytes b) {
    acc.lo = _mm256_add_epi32(acc.lo, _mm256_madd_epi16(a.lo, b.lo));
    acc.hi = _mm256_add_epi32(acc.hi, _mm256_madd_epi16(a.hi, b.hi));
}
#endif
TL_INLINE void dot2_bf16(F32& acc, Bytes w, const uint16_t* a) {
    const __m256i x = broadcast4(a), upper = _mm256_set1_epi32((int)0xffff0000u);
    const __m256 x0 = _mm256_castsi256_ps(_mm256_slli_epi32(x, 16)),
                 x1 = _mm256_castsi256_ps(_mm256_and_si256(x, upper));
    acc.lo = _mm256_fmadd_ps(_mm256_castsi256_ps(_mm256_slli_epi32(w.lo, 16)), x0, acc.lo);
    acc.hi = _mm256_fmadd_ps(_mm256_castsi256_ps(_mm256_slli_epi32(w.hi, 16)), x0, acc.hi);
    acc.lo = _mm256_fmadd_ps(_mm256_castsi256_ps(_mm256_and_si256(w.lo, upper)), x1, acc.lo);
    acc.hi = _mm256_fmadd_ps(_mm256_castsi256_ps(_mm256_and_si256(w.hi, upper)), x1, acc.hi);
}

}  // namespace tl::TL_LEVEL
