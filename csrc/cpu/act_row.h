// The last step of every kernel that produces activations: sixteen floats at a time become one row of an ActFormat.
//
// A producer is a callable F32 at(int i, int n): the values i .. i + n - 1 of the row, n = 16 except at the end of a
// row whose width is no multiple of 16; lanes beyond n must be zero. It is called once for each i, in ascending order.
#pragma once

#include <cfloat>
#include <cmath>
#include <cstring>

#include "core/activations.h"
#include "cpu/simd.h"

namespace tl::TL_LEVEL {

// Sixteen floats of x at i, or the n that are left.
TL_INLINE F32 load_up_to(int n, const float* x) { return n == kLanes ? load(x) : load_first(n, x); }

// The row's bytes are padded to kRowAlignment, so the last vector is written whole; its lanes beyond the width are zero.
template <class At> TL_INLINE void write_f32_row(int width, uint8_t* out, At at) {
    float* row = reinterpret_cast<float*>(out);
    int i = 0;
    for (; i + kLanes <= width; i += kLanes) store(row + i, at(i, kLanes));
    if (i < width) store(row + i, at(i, width - i));
}

template <class At> TL_INLINE void write_bf16_row(int width, uint8_t* out, At at) {
    uint16_t* row = reinterpret_cast<uint16_t*>(out);
    int i = 0;
    for (; i + kLanes <= width; i += kLanes) store_bf16(row + i, at(i, kLanes));
    if (i < width) store_bf16(row + i, at(i, width - i));
}

// The scale of an int8 block and its inverse, from the largest magnitude. A block whose scale would not be a normal
// number counts as zeros.
struct BlockScale { float scale, inverse; };
TL_INLINE BlockScale block_scale(float largest) {
    if (largest < 127.0f * FLT_MIN) return {0.0f, 0.0f};
    return {largest / 127.0f, 127.0f / largest};
}

// The sums of q that activations.h describes. The last 64 bytes may reach into the padding behind q.
template <int kBlock> TL_INLINE void write_sums(ActLayout layout, uint8_t* out) {
    const int8_t* q = reinterpret_cast<const int8_t*>(out);
    int16_t* sum16 = reinterpret_cast<int16_t*>(out + layout.sum16_offset());
    uint8_t* sum32 = out + layout.sum32_offset();
    for (int begin = 0; begin < layout.width; begin += 64) {
        int32_t fours[kLanes];
        istore(fours, sum4(q + begin));
        const int num_halves = layout.width - begin < 64 ? 1 : 2;
        for (int half = 0; half < num_halves; half++) {
            const int32_t* s = fours + 8 * half;
            const int first = s[0] + s[1] + s[2] + s[3], second = s[4] + s[5] + s[6] + s[7];
            const int i = begin / 32 + half;
            if constexpr (kBlock == 256) {
                sum16[2 * i] = int16_t(first);
                sum16[2 * i + 1] = int16_t(second);
                reinterpret_cast<int16_t*>(sum32)[i] = int16_t(first + second);
            } else {
                reinterpret_cast<int32_t*>(sum32)[i] = first + second;
            }
        }
    }
}

// q = round(x * 127 / max|x|) by blocks, then the sums. A block with an infinity or NaN in it becomes zeros with the
// scale NaN: the row's outputs are then NaN, as they would be in float, and nothing else happens.
template <int kBlock, class At> TL_INLINE void write_int8_row(ActLayout layout, uint8_t* out, At at) {
    int8_t* q = reinterpret_cast<int8_t*>(out);
    float* scales = reinterpret_cast<float*>(out + layout.scale_offset());
    for (int begin = 0; begin < layout.width; begin += kBlock) {
        float values[kBlock];
        F32 largest = zero(), poison = zero();
        for (int i = 0; i < kBlock; i += kLanes) {
            const F32 x = at(begin + i, kLanes);
            store(values + i, x);
            largest = max(largest, abs(x));
            poison = fma(x, zero(), poison);  // NaN once an x is not finite
        }
        const bool finite = !any_nan(poison);
        const BlockScale s = finite ? block_scale(reduce_max(largest)) : BlockScale{NAN, 0.0f};
        scales[begin / kBlock] = s.scale;
        if (!finite) std::memset(values, 0, sizeof values);
        for (int i = 0; i < kBlock; i += kLanes) {
            store_i8(q + begin + i, to_int(load(values + i) * set1(s.inverse)));
        }
    }
    write_sums<kBlock>(layout, out);
}

// Writes one row of layout.row_bytes() bytes.
template <class At> TL_INLINE void write_row(ActLayout layout, uint8_t* out, At at) {
    switch (layout.format) {
        case ActFormat::kF32:
            return write_f32_row(layout.width, out, at);
        case ActFormat::kBF16:
            return write_bf16_row(layout.width, out, at);
        case ActFormat::kInt8x32:
            return write_int8_row<32>(layout, out, at);
        case ActFormat::kInt8x256:
            return write_int8_row<256>(layout, out, at);
    }
}

}  // namespace tl::TL_LEVEL
