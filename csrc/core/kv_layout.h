// How keys and values lie in a page of the KV cache.
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/activations.h"

namespace tl {

// Tokens per page; the Python side has the same constant (backends/base.py) and compares it at import.
inline constexpr int kPageTokens = 32;

// kQ8_0 and kQ4_0 hold whole numbers with one float16 scale for kKvBlock neighbouring elements of a token's head.
enum class KvType : uint8_t { kF32, kF16, kBF16, kQ8_0, kQ4_0 };

inline constexpr int kKvBlock = 32;

TL_SHARED_CONSTEXPR bool kv_has_scales(KvType type) { return type == KvType::kQ8_0 || type == KvType::kQ4_0; }
TL_SHARED_CONSTEXPR int kv_blocks(int width) { return (width + kKvBlock - 1) / kKvBlock; }

// Bytes of one token's elements, scales apart.
TL_SHARED_CONSTEXPR size_t kv_row_bytes(KvType type, int width) {
    switch (type) {
        case KvType::kF32:
            return size_t(width) * 4;
        case KvType::kF16:
        case KvType::kBF16:
            return size_t(width) * 2;
        case KvType::kQ8_0:
            return size_t(width);
        case KvType::kQ4_0:
            return size_t(kv_blocks(width)) * kKvBlock / 2;
    }
    return 0;
}

// A page holds kPageTokens positions for all layers that keep keys and values, each with heads of its own size (PagePool):
//   page = [layer][K of all kv heads | V of all kv heads]
//   K of a head: [kPageTokens / 16 groups][head_dim][16 keys]   keys in lanes: scores need no horizontal sum
//   V of a head: [kPageTokens keys][value_width]                head dimensions in lanes; value_width is head_dim
//                                                               rounded up to 16, the padding is zero
// q8_0 holds int8 in place of floats. In q4_0 a byte holds element j of a block (low half) and element j + 16 (high
// half) of the same token, each plus 8, so K has 16 rows of 16 bytes for a block and V 16 bytes. Their float16 scales
// follow the elements of the head:
//   K: [groups][blocks][16 keys]   V: [blocks][kPageTokens keys]
// No two tokens share a byte, so tokens of one page may be written at the same time.
struct KvLayout {
    KvType k_type, v_type;
    int num_kv_heads;
    int head_dim;

    TL_SHARED_CONSTEXPR int value_width() const { return (head_dim + 15) / 16 * 16; }
    // Bytes of the elements of a head; scales begin there.
    TL_SHARED_CONSTEXPR size_t k_data_bytes() const { return kPageTokens * kv_row_bytes(k_type, head_dim); }
    TL_SHARED_CONSTEXPR size_t v_data_bytes() const { return kPageTokens * kv_row_bytes(v_type, value_width()); }
    TL_SHARED_CONSTEXPR size_t k_head_bytes() const { return k_data_bytes() + scale_bytes(k_type); }
    TL_SHARED_CONSTEXPR size_t v_head_bytes() const { return v_data_bytes() + scale_bytes(v_type); }
    TL_SHARED_CONSTEXPR size_t k_offset(int head) const { return size_t(head) * k_head_bytes(); }
    TL_SHARED_CONSTEXPR size_t v_offset(int head) const {
        return num_kv_heads * k_head_bytes() + size_t(head) * v_head_bytes();
    }
    TL_SHARED_CONSTEXPR size_t layer_bytes() const {
        return align_up(num_kv_heads * (k_head_bytes() + v_head_bytes()), kRowAlignment);
    }

 private:
    TL_SHARED_CONSTEXPR size_t scale_bytes(KvType type) const {
        return kv_has_scales(type) ? size_t(kPageTokens) * kv_blocks(head_dim) * 2 : 0;
    }
};

}  // namespace tl
