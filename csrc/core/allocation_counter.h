// Counts the heap allocations of the core, so that a test can prove that a decoded token makes none.
#pragma once

#include <cstdint>

namespace tl {

uint64_t allocation_count();

}  // namespace tl
