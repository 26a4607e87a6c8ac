// The scalar level: 16 lanes in an array; the slow twin of every kernel, for any processor. Included by simd.h only.
#pragma once

namespace tl::TL_LEVEL {

inline constexpr int kRegisters = 4;  // of the smallest vectors a processor may have
inline constexpr int kMicroTokens = 2;
inline constexpr int kDirectTokens = 4;

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
TL_INLINE F32 load_half_e8m0(const uint8_t* p) {
    F32 r;
    TL_EACH r.v[i] = half_e8m0_to_float(p[i]);
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
// NaN where n is NaN, which no int can be.
TL_INLINE F32 scale_by_power(F32 a, F32 n) {
    TL_EACH a.v[i] = n.v[i] == n.v[i] ? std::ldexp(a.v[i], int(n.v[i])) : n.v[i];
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
TL_INLINE I32 operator-(I32 a, I32 b) {
    TL_EACH a.v[i] -= b.v[i];
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
// Sixteen bytes' low or high halves, 0 .. 15, minus 8.
TL_INLINE F32 load_low_nibbles(const uint8_t* p) {
    F32 r;
    TL_EACH r.v[i] = float((p[i] & 15) - 8);
    return r;
}
TL_INLINE F32 load_high_nibbles(const uint8_t* p) {
    F32 r;
    TL_EACH r.v[i] = float((p[i] >> 4) - 8);
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
template <int N> TL_INLINE I32 lane_byte(Bytes a) {
    I32 r;
    TL_EACH r.v[i] = a.v[4 * i + N];
    return r;
}
template <int N> TL_INLINE Bytes lane_shift_right(Bytes a) {
    uint32_t lanes[16];
    std::memcpy(lanes, a.v, 64);
    for (uint32_t& x : lanes) x >>= N;
    std::memcpy(a.v, lanes, 64);
    return a;
}
TL_INLINE Bytes odd_bytes(Bytes a) { return bshift_right<8>(a); }
TL_INLINE Bytes even_bytes(Bytes a) { return odd_bytes(bshift_left<8>(a)); }
TL_INLINE Bytes add16(Bytes a, Bytes b) {
    uint16_t x[32], y[32];
    std::memcpy(x, a.v, 64);
    std::memcpy(y, b.v, 64);
    for (int i = 0; i < 32; i++) x[i] = uint16_t(x[i] + y[i]);
    return bload(x);
}
TL_INLINE Bytes multiply16(Bytes a, Bytes b) {
    uint16_t x[32], y[32];
    std::memcpy(x, a.v, 64);
    std::memcpy(y, b.v, 64);
    for (int i = 0; i < 32; i++) x[i] = uint16_t(uint32_t(x[i]) * y[i]);
    return bload(x);
}
TL_INLINE Bytes set16(int16_t x) {
    int16_t w[32];
    for (int16_t& word : w) word = x;
    return bload(w);
}
TL_INLINE Bytes widen_u8(const uint8_t* p) {
    uint16_t w[32];
    for (int i = 0; i < 32; i++) w[i] = p[i];
    return bload(w);
}
TL_INLINE Bytes widen_i8(const int8_t* p) {
    int16_t w[32];
    for (int i = 0; i < 32; i++) w[i] = p[i];
    return bload(w);
}
TL_INLINE I32 half_lanes(Bytes a, int half) {
    int16_t w[32];
    std::memcpy(w, a.v, 64);
    I32 r;
    TL_EACH r.v[i] = w[2 * i + half];
    return r;
}
TL_INLINE I32 low_halves(Bytes a) { return half_lanes(a, 0); }
TL_INLINE I32 high_halves(Bytes a) { return half_lanes(a, 1); }
template <int L, int H> TL_INLINE Bytes join_halves(I32 low, I32 high) {
    uint32_t lanes[kLanes];
    TL_EACH lanes[i] = (uint32_t(low.v[i] >> L) & 0xffff) | uint32_t(high.v[i] >> H) << 16;
    return bload(lanes);
}
TL_INLINE Bytes join_bf16(F32 low, F32 high) {
    uint16_t words[32];
    TL_EACH words[2 * i] = float_to_bf16(low.v[i]), words[2 * i + 1] = float_to_bf16(high.v[i]);
    return bload(words);
}
TL_INLINE F32 half_bf16(Bytes a, int half) {
    uint16_t words[32];
    std::memcpy(words, a.v, 64);
    F32 r;
    TL_EACH r.v[i] = bf16_to_float(words[2 * i + half]);
    return r;
}
TL_INLINE F32 low_bf16(Bytes a) { return half_bf16(a, 0); }
TL_INLINE F32 high_bf16(Bytes a) { return half_bf16(a, 1); }

inline constexpr int kSignedOffset = 128;
TL_INLINE Bytes signed_form(Bytes a) { return a; }
struct Table { int8_t v[16]; };
TL_INLINE Table load_table(const int8_t* p) {
    Table table;
    std::memcpy(table.v, p, 16);
    return table;
}
TL_INLINE Bytes lookup(Table table, Bytes codes) {
    for (uint8_t& byte : codes.v) byte = uint8_t(table.v[byte] + kSignedOffset);
    return codes;
}

TL_INLINE void settle(I32&) {}
TL_INLINE void settle(F32&) {}
TL_INLINE void park(F32&) {}
TL_INLINE void dot4(I32& acc, Bytes w, const int8_t* a) {
    TL_EACH for (int j = 0; j < 4; j++) acc.v[i] += int32_t(w.v[4 * i + j]) * a[j];
}
TL_INLINE void dot4_small(I32& acc, Bytes w, const int8_t* a) { dot4(acc, w, a); }
TL_INLINE void dot4_signed(I32& acc, Bytes w, const int8_t* a) { dot4(acc, w, a); }
TL_INLINE void dot2(I32& acc, Bytes w, const int16_t* a) {
    int16_t words[32];
    std::memcpy(words, w.v, 64);
    TL_EACH acc.v[i] += int32_t(words[2 * i]) * a[0] + int32_t(words[2 * i + 1]) * a[1];
}
TL_INLINE void dot2(I32& acc, Bytes a, Bytes b) {
    int16_t x[32], y[32];
    std::memcpy(x, a.v, 64);
    std::memcpy(y, b.v, 64);
    TL_EACH acc.v[i] += int32_t(x[2 * i]) * y[2 * i] + int32_t(x[2 * i + 1]) * y[2 * i + 1];
}
TL_INLINE void dot2_bf16(F32& acc, Bytes w, const uint16_t* a) {
    uint16_t words[32];
    std::memcpy(words, w.v, 64);
    TL_EACH acc.v[i] += bf16_to_float(words[2 * i]) * bf16_to_float(a[0]);
    TL_EACH acc.v[i] += bf16_to_float(words[2 * i + 1]) * bf16_to_float(a[1]);
}

#undef TL_EACH

}  // namespace tl::TL_LEVEL
