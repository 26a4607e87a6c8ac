// IQ3_XXS: four weights an entry of a codebook of 256 patterns, super-blocks of 256. 3.0625 bits per weight.
//
// In the file a block is 98 bytes: d (f16), 64 entries of 8 bits, then per 32 weights a 32-bit number: four times 7 signs
// of eight weights (even_signs) with s in the top four bits. Packed and multiplied as grid_codes.h says.
#pragma once

#include "quants/grid_codes.h"

namespace tl::TL_LEVEL {

// The eight levels, and below zero.
static constexpr int8_t kIq3XxsValues[16] = {4, 12, 20, 28, 36, 44, 52, 62, -4, -12, -20, -28, -36, -44, -52, -62};

struct IQ3XXSLayout {
    static constexpr int kType = 18, kSubBlock = 32;
    static constexpr size_t kBlockBytes = 98;
    static constexpr float kFactor = 0.25f;
    static constexpr const int8_t* kValues = kIq3XxsValues;

    static uint16_t scale_bits(const uint8_t* block) { return read_u16(block); }
    static void read(const uint8_t* block, uint8_t* codes, uint8_t* scales) {
        for (int s = 0; s < 8; s++) {
            const uint32_t signs = read_u32(block + 66 + 4 * s);
            scales[s] = uint8_t(signs >> 28);
            for (int g = 0; g < 8; g++) {
                const int flags = even_signs(signs >> (7 * (g / 2)) & 127) >> (4 * (g % 2));
                write_codes<4>(kGridIq3Xxs[block[2 + 8 * s + g]], flags, codes + 32 * s + 4 * g);
            }
        }
    }
};

using IQ3XXS = GridCoded<IQ3XXSLayout>;

}  // namespace tl::TL_LEVEL
