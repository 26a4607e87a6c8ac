// IQ1_S: eight weights an entry of a codebook of 2048 patterns of -1, 0, 1, super-blocks of 256. 1.5625 bits per weight.
//
// In the file a block is 50 bytes: d (f16), the low 8 bits of 32 entries, then per 32 weights a 16-bit number: the high
// three bits of its four entries, s (three bits), and whether its weights are shifted down by 1/8 or up. Packed and
// multiplied as grid_codes.h says.
#pragma once

#include "quants/grid_codes.h"

namespace tl::TL_LEVEL {

struct IQ1SLayout {
    static constexpr int kType = 19, kSubBlock = 32;
    static constexpr size_t kBlockBytes = 50;
    static constexpr float kFactor = 0.125f;
    static constexpr const int8_t* kValues = kIq1Values;

    static uint16_t scale_bits(const uint8_t* block) { return read_u16(block); }
    static void read(const uint8_t* block, uint8_t* codes, uint8_t* scales) {
        for (int s = 0; s < 8; s++) {
            const int high = read_u16(block + 34 + 2 * s);
            scales[s] = high >> 12 & 7;
            for (int g = 0; g < 4; g++) {
                const int entry = block[2 + 4 * s + g] | (high >> (3 * g) & 7) << 8;
                write_codes<8>(kGridIq1[entry], high & 0x8000 ? 255 : 0, codes + 32 * s + 8 * g);
            }
        }
    }
};

using IQ1S = GridCoded<IQ1SLayout>;

}  // namespace tl::TL_LEVEL
