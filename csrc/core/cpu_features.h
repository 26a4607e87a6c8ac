// Which instruction-set levels this processor and operating system offer.
#pragma once

#include <string>
#include <vector>

namespace tl {

// Names of usable levels, slowest first; always begins with "scalar".
std::vector<std::string> available_levels();

}  // namespace tl
