// IQ3_S: four weights an entry of a codebook of 512 patterns, super-blocks of 256. 3.4375 bits per weight.
//
// In the file a block is 110 bytes: d (f16), the low 8 bits of 64 entries, 8 bytes with the ninth bit of eight entries each,
// 32 bytes of signs, 4 bytes with the numbers s of 8 sub-blocks of 32, the even one in the low nibble. Packed and
// multiplied as grid_codes.h says.
#pragma once

#include "quants/grid_codes.h"

namespace tl::TL_LEVEL {

// The eight levels, and below zero.
static constexpr int8_t kIq3SValues[16] = {1, 3, 5, 7, 9, 11, 13, 15, -1, -3, -5, -7, -9, -11, -13, -15};

struct IQ3SLayout {
    static constexpr int kType = 21, kSubBlock = 32;
    static constexpr size_t kBlockBytes = 110;
    static constexpr float kFactor = 1;
    static constexpr const int8_t* kValues = kIq3SValues;

    static uint16_t scale_bits(const uint8_t* block) { return read_u16(block); }
    static void read(const uint8_t* block, uint8_t* codes, uint8_t* scales) {
        for (int s = 0; s < 8; s++) scales[s] = block[106 + s / 2] >> (4 * (s % 2)) & 15;
        for (int g = 0; g < 64; g++) {
            const int entry = block[2 + g] | (block[66 + g / 8] >> (g % 8) & 1) << 8;
            write_codes<4>(kGridIq3S[entry], block[74 + g / 2] >> (4 * (g % 2)), codes + 4 * g);
        }
    }
};

using IQ3S = GridCoded<IQ3SLayout>;

}  // namespace tl::TL_LEVEL
