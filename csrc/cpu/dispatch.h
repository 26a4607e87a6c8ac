// The kernel tables by level name.
#pragma once

#include <string>

#include "cpu/kernels.h"

namespace tl {

// Null when the level is unknown or this machine lacks it.
const Kernels* kernels_of_level(const std::string& level);

}  // namespace tl
