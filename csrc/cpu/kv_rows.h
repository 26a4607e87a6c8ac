// A page's keys or values of one head, read as rows of float vectors (layout: core/kv_layout.h).
//
// A row of keys is one dimension, its lanes are keys; a row of values is one key, its lanes are dimensions. Reading is
// exact for every type: float16 and bfloat16 widen, and a whole number of at most 8 bits times a float16 scale fits the 24
// bits of a float32. So it makes no difference to any bit whether rows are read in place or widened beforehand.
#pragma once

#include "core/kv_layout.h"
#include "cpu/simd.h"

namespace tl::TL_LEVEL {

// The type of pages that were widened to float32 beforehand: as kF32, but in the cache already.
inline constexpr KvType kWidened = KvType(0xff);

// Bytes that 16 elements of a type take.
template <KvType type> TL_INLINE constexpr size_t vector_bytes() {
    return type == kWidened ? 4 * kLanes : kv_row_bytes(type, 2 * kLanes) / 2;
}

template <KvType type> TL_INLINE F32 load_elements(const uint8_t* p) {
    if constexpr (type == KvType::kF32 || type == kWidened) return load(reinterpret_cast<const float*>(p));
    if constexpr (type == KvType::kF16) return load_f16(reinterpret_cast<const uint16_t*>(p));
    if constexpr (type == KvType::kBF16) return load_bf16(reinterpret_cast<const uint16_t*>(p));
    if constexpr (type == KvType::kQ8_0) return to_float(load_i8(reinterpret_cast<const int8_t*>(p)));
}

// One head's keys or values in a page. The scales of a quantised type are widened: data holds none.
struct HeadPage {
    const uint8_t* data;
    const float* scales;   // as in the page; null for a type without
    const uint8_t* ahead;  // what is needed later, as many bytes
};

template <KvType type> struct KeyRows {
    HeadPage page;
    int head_dim;

    // Dimension `row` of 16 keys, group v of the page.
    TL_INLINE F32 at(int row, int v) const {
        if constexpr (!kv_has_scales(type)) {
            return load_elements<type>(page.data + (size_t(v) * head_dim + row) * vector_bytes<type>());
        } else {
            const F32 scale = load(page.scales + (size_t(v) * kv_blocks(head_dim) + row / kKvBlock) * kLanes);
            if constexpr (type == KvType::kQ8_0) {
                return load_elements<type>(page.data + (size_t(v) * head_dim + row) * kLanes) * scale;
            } else {
                const size_t index = size_t(v) * kv_blocks(head_dim) * kLanes + row / kKvBlock * kLanes + row % kLanes;
                const uint8_t* p = page.data + index * kLanes;
                return (row & kLanes ? load_high_nibbles(p) : load_low_nibbles(p)) * scale;
            }
        }
    }
};

template <KvType type> struct ValueRows {
    HeadPage page;
    int value_width;

    // Dimensions 16 v .. 16 v + 15 of key `row`.
    TL_INLINE F32 at(int row, int v) const {
        if constexpr (!kv_has_scales(type)) {
            const size_t row_bytes = size_t(value_width / kLanes) * vector_bytes<type>();
            return load_elements<type>(page.data + row * row_bytes + v * vector_bytes<type>());
        } else {
            const F32 scale = set1(page.scales[v / 2 * kPageTokens + row]);
            if constexpr (type == KvType::kQ8_0) {
                return load_elements<type>(page.data + size_t(row) * value_width + v * kLanes) * scale;
            } else {
                const uint8_t* p = page.data + (size_t(row) * kv_blocks(value_width) + v / 2) * kLanes;
                return (v & 1 ? load_high_nibbles(p) : load_low_nibbles(p)) * scale;
            }
        }
    }
};

}  // namespace tl::TL_LEVEL
