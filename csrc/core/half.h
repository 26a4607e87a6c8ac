// Scalar conversions of 16-bit floats. Used at the edges and by the scalar level; kernels convert whole vectors.
#pragma once

#include <cstdint>
#include <cstring>

#include "core/inline.h"

namespace tl {

TL_SHARED_INLINE float float_from_bits(uint32_t bits) {
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

TL_SHARED_INLINE uint32_t bits_from_float(float value) {
    uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    return bits;
}

// bfloat16 is the upper half of a float32.
TL_SHARED_INLINE float bf16_to_float(uint16_t value) { return float_from_bits(uint32_t(value) << 16); }

// Round to nearest, ties to even; NaN stays a (quiet) NaN.
TL_SHARED_INLINE uint16_t float_to_bf16(float value) {
    uint32_t bits = bits_from_float(value);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return uint16_t((bits >> 16) | 0x40u);
    return uint16_t((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

// IEEE binary16, subnormals included.
TL_SHARED_INLINE float f16_to_float(uint16_t value) {
    const uint32_t sign = uint32_t(value & 0x8000u) << 16;
    const uint32_t exponent = (value >> 10) & 0x1fu;
    const uint32_t mantissa = value & 0x3ffu;
    if (exponent == 0) {  // zero or subnormal: mantissa * 2^-24, exact in float32
        const float magnitude = float(mantissa) * 5.9604644775390625e-8f;
        return float_from_bits(bits_from_float(magnitude) | sign);
    }
    if (exponent == 0x1f) return float_from_bits(sign | 0x7f800000u | (mantissa << 13));
    return float_from_bits(sign | ((exponent + 112u) << 23) | (mantissa << 13));
}

// Round to nearest, ties to even; overflow gives infinity.
TL_SHARED_INLINE uint16_t float_to_f16(float value) {
    const uint32_t bits = bits_from_float(value);
    const uint16_t sign = uint16_t((bits >> 16) & 0x8000u);
    const uint32_t magnitude = bits & 0x7fffffffu;
    if (magnitude > 0x7f800000u) return uint16_t(sign | 0x7e00u | ((magnitude >> 13) & 0x1ffu));
    if (magnitude >= 0x477ff000u) return uint16_t(sign | 0x7c00u);  // >= 65520 rounds to infinity
    if (magnitude < 0x38800000u) {                                  // below 2^-14: subnormal half
        // Adding 0.5 aligns the value so that the hardware's own rounding leaves the half in the low bits.
        const float aligned = float_from_bits(magnitude) + 0.5f;
        return uint16_t(sign | (bits_from_float(aligned) - 0x3f000000u));
    }
    const uint32_t rounded = magnitude - 0x38000000u + 0xfffu + ((magnitude >> 13) & 1u);
    return uint16_t(sign | (rounded >> 13));
}

// 2^(e - 128): half of an E8M0 scale. The two smallest are subnormal.
TL_SHARED_INLINE float half_e8m0_to_float(uint8_t e) {
    return float_from_bits(e < 2 ? 0x00200000u << e : uint32_t(e - 1) << 23);
}

}  // namespace tl
