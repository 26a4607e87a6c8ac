// Q1_0: weights of one bit in blocks of 128 with one scale. 1.125 bits per weight. Layout and arithmetic: bit_codes.h.
#pragma once

#include "quants/bit_codes.h"

namespace tl::TL_LEVEL {

using Q1_0 = BitCodes<41, 1>;

}  // namespace tl::TL_LEVEL
