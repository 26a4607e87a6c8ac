// Writes one token's keys and values into its page (layout: core/kv_layout.h), rounded to nearest even.
//
// A key goes into one lane of its group of 16: head_dim stores, 16 elements apart. A value is one contiguous row, padded
// with zeros. Only the bytes of this slot are written, so tokens of one page may be written at the same time.
#include "cpu/act_row.h"
#include "cpu/kv_element.h"
#include "cpu/level.h"

namespace tl::TL_LEVEL {
namespace {

template <KvType type> void write_key(const float* k, int head_dim, int slot, uint8_t* page_keys) {
    using E = KvElement<type>;
    E* lane = reinterpret_cast<E*>(page_keys) + size_t(slot / kLanes) * head_dim * kLanes + slot % kLanes;
    for (int d = 0; d < head_dim; d += kLanes) {
        const int n = head_dim - d < kLanes ? head_dim - d : kLanes;
        E rounded[kLanes];
        store_kv<type>(rounded, load_up_to(n, k + d));
        for (int i = 0; i < n; i++) lane[size_t(d + i) * kLanes] = rounded[i];
    }
}

// The row is padded to whole vectors with zeros.
template <KvType type> void write_value(const float* v, int head_dim, int value_width, int slot, uint8_t* page_values) {
    using E = KvElement<type>;
    E* row = reinterpret_cast<E*>(page_values) + size_t(slot) * value_width;
    for (int d = 0; d < head_dim; d += kLanes) {
        const int n = head_dim - d < kLanes ? head_dim - d : kLanes;
        store_kv<type>(row + d, load_up_to(n, v + d));
    }
}

template <KvType type>
void write_token(const float* k, const float* v, const KvLayout& layout, int slot, uint8_t* page) {
    const int head_dim = layout.head_dim;
    for (int h = 0; h < layout.num_kv_heads; h++) {
        write_key<type>(k + size_t(h) * head_dim, head_dim, slot, page + layout.k_offset(h));
        write_value<type>(v + size_t(h) * head_dim, head_dim, layout.value_width(), slot, page + layout.v_offset(h));
    }
}

}  // namespace

void kv_write(const float* k, const float* v, const KvLayout& layout, int slot, uint8_t* page) {
    switch (layout.type) {
        case KvType::kF32:
            return write_token<KvType::kF32>(k, v, layout, slot, page);
        case KvType::kF16:
            return write_token<KvType::kF16>(k, v, layout, slot, page);
        case KvType::kBF16:
            return write_token<KvType::kBF16>(k, v, layout, slot, page);
    }
}

}  // namespace tl::TL_LEVEL
