// How keys and values lie in a page of the KV cache.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/activations.h"

namespace tl {

// Tokens per page; the Python side has the same constant (backends/base.py) and compares it at import.
inline constexpr int kPageTokens = 32;

enum class KvType : uint8_t { kF32, kF16, kBF16 };

TL_SHARED_CONSTEXPR size_t kv_element_bytes(KvType type) { return type == KvType::kF32 ? 4 : 2; }

// A page holds kPageTokens positions for all layers:
//   page = [layer][K of all kv heads | V of all kv heads]
//   K of a head: [kPageTokens / 16 groups][head_dim][16 keys]   keys in lanes: scores need no horizontal sum
//   V of a head: [kPageTokens keys][value_width]                head dimensions in lanes; value_width is head_dim
//                                                               rounded up to 16, the padding is zero
struct KvLayout {
    KvType type;
    int num_layers;
    int num_kv_heads;
    int head_dim;

    TL_SHARED_CONSTEXPR int value_width() const { return (head_dim + 15) / 16 * 16; }
    TL_SHARED_CONSTEXPR size_t k_head_bytes() const { return size_t(kPageTokens) * head_dim * kv_element_bytes(type); }
    TL_SHARED_CONSTEXPR size_t v_head_bytes() const {
        return size_t(kPageTokens) * value_width() * kv_element_bytes(type);
    }
    TL_SHARED_CONSTEXPR size_t k_offset(int head) const { return size_t(head) * k_head_bytes(); }
    TL_SHARED_CONSTEXPR size_t v_offset(int head) const {
        return num_kv_heads * k_head_bytes() + size_t(head) * v_head_bytes();
    }
    TL_SHARED_CONSTEXPR size_t layer_bytes() const {
        return align_up(num_kv_heads * (k_head_bytes() + v_head_bytes()), kRowAlignment);
    }
    TL_SHARED_CONSTEXPR size_t page_bytes() const { return align_up(num_layers * layer_bytes(), 4096); }
};

}  // namespace tl
