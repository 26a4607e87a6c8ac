// IQ2_XS: eight weights an entry of a codebook of 512 patterns, super-blocks of 256. 2.3125 bits per weight.
//
// In the file a block is 74 bytes: d (f16), 32 numbers of 16 bits (an entry of 9 bits, 7 signs: even_signs), 8 bytes with
// the numbers s of 16 sub-blocks of 16, the even one in the low nibble. Packed and multiplied as grid_codes.h says.
#pragma once

#include "quants/grid_codes.h"

namespace tl::TL_LEVEL {

struct IQ2XSLayout {
    static constexpr int kType = 17, kSubBlock = 16;
    static constexpr size_t kBlockBytes = 74;
    static constexpr float kFactor = 0.125f;
    static constexpr const int8_t* kValues = kIq2Values;

    static uint16_t scale_bits(const uint8_t* block) { return read_u16(block); }
    static void read(const uint8_t* block, uint8_t* codes, uint8_t* scales) {
        for (int s = 0; s < 16; s++) scales[s] = block[66 + s / 2] >> (4 * (s % 2)) & 15;
        for (int g = 0; g < 32; g++) {
            const uint16_t group = read_u16(block + 2 + 2 * g);
            write_codes<8>(kGridIq2Xs[group & 511], even_signs(group >> 9), codes + 8 * g);
        }
    }
};

using IQ2XS = GridCoded<IQ2XSLayout>;

}  // namespace tl::TL_LEVEL
