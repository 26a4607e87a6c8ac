// Q2_0: weights of two bits in blocks of 64 with one scale. 2.25 bits per weight. Layout and arithmetic: bit_codes.h.
#pragma once

#include "quants/bit_codes.h"

namespace tl::TL_LEVEL {

using Q2_0 = BitCodes<42, 2>;

}  // namespace tl::TL_LEVEL
