// Copies of keys and values from one place of a page to another, byte by byte: exact for every number format.
#pragma once

#include "core/kv_layout.h"

namespace tl {

// One token's keys, or values, of one head: from slot `from_slot` of a page to slot `to_slot` of the same or another page.
// from, to: where the head's keys, or values, begin (KvLayout::k_offset, v_offset).
void copy_key(const KvLayout& layout, const uint8_t* from, int from_slot, uint8_t* to, int to_slot);
void copy_value(const KvLayout& layout, const uint8_t* from, int from_slot, uint8_t* to, int to_slot);

}  // namespace tl
