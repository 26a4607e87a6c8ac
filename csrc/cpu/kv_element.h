// How an element of the KV cache is stored: 16 lanes at a time, float32 in registers.
#pragma once

#include <type_traits>

#include "core/kv_layout.h"
#include "cpu/simd.h"

namespace tl::TL_LEVEL {

template <KvType type> using KvElement = std::conditional_t<type == KvType::kF32, float, uint16_t>;

template <KvType type> TL_INLINE F32 load_kv(const KvElement<type>* p) {
    if constexpr (type == KvType::kF32) return load(p);
    if constexpr (type == KvType::kF16) return load_f16(p);
    if constexpr (type == KvType::kBF16) return load_bf16(p);
}

// Rounds to nearest even.
template <KvType type> TL_INLINE void store_kv(KvElement<type>* p, F32 a) {
    if constexpr (type == KvType::kF32) store(p, a);
    if constexpr (type == KvType::kF16) store_f16(p, a);
    if constexpr (type == KvType::kBF16) store_bf16(p, a);
}

}  // namespace tl::TL_LEVEL
