// IQ2_XXS: eight weights an entry of a codebook of 256 patterns, super-blocks of 256. 2.0625 bits per weight.
//
// In the file a block is 66 bytes: d (f16), then per 32 weights two 32-bit numbers: four entries of 8 bits, and four
// times 7 signs (even_signs) with s in the top four bits. Packed and multiplied as grid_codes.h says.
#pragma once

#include "quants/grid_codes.h"

namespace tl::TL_LEVEL {

struct IQ2XXSLayout {
    static constexpr int kType = 16, kSubBlock = 32;
    static constexpr size_t kBlockBytes = 66;
    static constexpr float kFactor = 0.125f;
    static constexpr const int8_t* kValues = kIq2Values;

    static uint16_t scale_bits(const uint8_t* block) { return read_u16(block); }
    static void read(const uint8_t* block, uint8_t* codes, uint8_t* scales) {
        for (int s = 0; s < 8; s++) {
            const uint8_t* part = block + 2 + 8 * s;
            const uint32_t signs = read_u32(part + 4);
            scales[s] = uint8_t(signs >> 28);
            for (int g = 0; g < 4; g++)
                write_codes<8>(kGridIq2Xxs[part[g]], even_signs(signs >> (7 * g) & 127), codes + 32 * s + 8 * g);
        }
    }
};

using IQ2XXS = GridCoded<IQ2XXSLayout>;

}  // namespace tl::TL_LEVEL
