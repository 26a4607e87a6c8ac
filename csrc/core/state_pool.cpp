#include "core/state_pool.h"

#include <stdexcept>

#include "core/activations.h"

namespace tl {
namespace {

constexpr size_t kSlotAlignment = 4096;

size_t bytes_of_state(size_t floats) { return align_up(floats * sizeof(float), kRowAlignment); }

}  // namespace

size_t StatePool::bytes_of_slot(const std::vector<size_t>& sizes) {
    size_t bytes = 0;
    for (const size_t floats : sizes) bytes += bytes_of_state(floats);
    return align_up(bytes, kSlotAlignment);
}

// Small pages: a slot that is never used takes nothing.
StatePool::StatePool(int num_slots, const std::vector<size_t>& sizes) : slot_bytes_(bytes_of_slot(sizes)) {
    if (num_slots < 1 || sizes.empty()) throw std::invalid_argument("recurrent state needs slots and sizes");
    size_t offset = 0;
    for (const size_t floats : sizes) {
        if (floats < 1) throw std::invalid_argument("a state without elements");
        offsets_.push_back(offset);
        offset += bytes_of_state(floats);
    }
    positions_.assign(size_t(num_slots), int(kUnknown));
    memory_ = MappedBuffer(slot_bytes_ * size_t(num_slots), PageSize::kSmall);
}

uint8_t* StatePool::slot(int slot) const {
    if (slot < 0 || slot >= num_slots()) throw std::invalid_argument("state slot out of range");
    return memory_.data() + size_t(slot) * slot_bytes_;
}

}  // namespace tl
