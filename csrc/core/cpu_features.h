// Which instruction-set levels of this build the processor and the operating system can run.
#pragma once

#include <string>
#include <vector>

namespace tl {

// Names of usable levels, slowest first; always begins with "scalar".
std::vector<std::string> available_levels();

}  // namespace tl
