#include "core/kv_copy.h"

#include <cstring>

namespace tl {
namespace {

constexpr int kKeyLanes = 16;  // keys of a group

// Rows of one element for each of 16 keys: lane `from_lane` of them to lane `to_lane`.
template <class Element> void copy_lane(const uint8_t* from, int from_lane, uint8_t* to, int to_lane, int num_rows) {
    const Element* source = reinterpret_cast<const Element*>(from) + from_lane;
    Element* target = reinterpret_cast<Element*>(to) + to_lane;
    for (int i = 0; i < num_rows; i++) target[i * kKeyLanes] = source[i * kKeyLanes];
}

}  // namespace

void copy_key(const KvLayout& layout, const uint8_t* from, int from_slot, uint8_t* to, int to_slot) {
    const int from_group = from_slot / kKeyLanes, to_group = to_slot / kKeyLanes;
    const int from_lane = from_slot % kKeyLanes, to_lane = to_slot % kKeyLanes;
    const size_t group_bytes = layout.k_data_bytes() / (kPageTokens / kKeyLanes);
    const uint8_t* source = from + from_group * group_bytes;
    uint8_t* target = to + to_group * group_bytes;
    const int blocks = kv_blocks(layout.head_dim);
    switch (layout.k_type) {
        case KvType::kF32:
            copy_lane<float>(source, from_lane, target, to_lane, layout.head_dim);
            break;
        case KvType::kF16:
        case KvType::kBF16:
            copy_lane<uint16_t>(source, from_lane, target, to_lane, layout.head_dim);
            break;
        case KvType::kQ8_0:
            copy_lane<uint8_t>(source, from_lane, target, to_lane, layout.head_dim);
            break;
        case KvType::kQ4_0:
            copy_lane<uint8_t>(source, from_lane, target, to_lane, blocks * kKvBlock / 2);
            break;
    }
    if (!kv_has_scales(layout.k_type)) return;
    const size_t scale_bytes = size_t(blocks) * kKeyLanes * sizeof(uint16_t);
    copy_lane<uint16_t>(from + layout.k_data_bytes() + from_group * scale_bytes, from_lane,
                        to + layout.k_data_bytes() + to_group * scale_bytes, to_lane, blocks);
}

void copy_value(const KvLayout& layout, const uint8_t* from, int from_slot, uint8_t* to, int to_slot) {
    const size_t row_bytes = kv_row_bytes(layout.v_type, layout.value_width());
    std::memmove(to + to_slot * row_bytes, from + from_slot * row_bytes, row_bytes);
    if (!kv_has_scales(layout.v_type)) return;
    const uint16_t* source = reinterpret_cast<const uint16_t*>(from + layout.v_data_bytes()) + from_slot;
    uint16_t* target = reinterpret_cast<uint16_t*>(to + layout.v_data_bytes()) + to_slot;
    for (int b = 0; b < kv_blocks(layout.head_dim); b++) target[b * kPageTokens] = source[b * kPageTokens];
}

}  // namespace tl
