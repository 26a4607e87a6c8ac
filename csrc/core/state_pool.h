// Recurrent state of the sequences that are under way: a slot for each, which holds all states of the plan.
#pragma once

#include <vector>

#include "core/memory.h"

namespace tl {

class StatePool {
 public:
    // sizes: floats of each state. Memory is committed as slots are used. Throws std::invalid_argument.
    StatePool(int num_slots, const std::vector<size_t>& sizes);

    // Bytes of one slot with these states: each begins at a cache line, a slot at a page of memory.
    static size_t bytes_of_slot(const std::vector<size_t>& sizes);

    int num_slots() const { return int(positions_.size()); }
    size_t slot_bytes() const { return slot_bytes_; }
    // All states of a slot, slot_bytes() long. Throws std::invalid_argument for a slot out of range.
    uint8_t* slot(int slot) const;
    float* state(int state, int slot) const {
        return reinterpret_cast<float*>(memory_.data() + size_t(slot) * slot_bytes_ + offsets_[state]);
    }

    // Where the sequence in a slot goes on; kUnknown before its first step, during a step and after one that broke off.
    static constexpr int kUnknown = -1;
    int position(int slot) const { return positions_[slot]; }
    void set_position(int slot, int position) { positions_[slot] = position; }

 private:
    size_t slot_bytes_;
    std::vector<size_t> offsets_;
    std::vector<int> positions_;
    MappedBuffer memory_;
};

}  // namespace tl
