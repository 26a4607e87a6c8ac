// IQ2_S: eight weights an entry of a codebook of 1024 patterns, super-blocks of 256. 2.5625 bits per weight.
//
// In the file a block is 82 bytes: d (f16), the low 8 bits of 32 entries, 32 bytes of signs, 8 bytes with the two high bits
// of four entries each, 8 bytes with the numbers s of 16 sub-blocks of 16, the even one in the low nibble. Packed and
// multiplied as grid_codes.h says.
#pragma once

#include "quants/grid_codes.h"

namespace tl::TL_LEVEL {

struct IQ2SLayout {
    static constexpr int kType = 22, kSubBlock = 16;
    static constexpr size_t kBlockBytes = 82;
    static constexpr float kFactor = 0.125f;
    static constexpr const int8_t* kValues = kIq2Values;

    static uint16_t scale_bits(const uint8_t* block) { return read_u16(block); }
    static void read(const uint8_t* block, uint8_t* codes, uint8_t* scales) {
        for (int s = 0; s < 16; s++) scales[s] = block[74 + s / 2] >> (4 * (s % 2)) & 15;
        for (int g = 0; g < 32; g++) {
            const int entry = block[2 + g] | (block[66 + g / 4] >> (2 * (g % 4)) & 3) << 8;
            write_codes<8>(kGridIq2S[entry], block[34 + g], codes + 8 * g);
        }
    }
};

using IQ2S = GridCoded<IQ2SLayout>;

}  // namespace tl::TL_LEVEL
