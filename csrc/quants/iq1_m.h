// IQ1_M: eight weights an entry of a codebook of 2048 patterns of -1, 0, 1, super-blocks of 256. 1.75 bits per weight.
//
// In the file a block is 56 bytes: the low 8 bits of 32 entries, 16 bytes with a nibble per entry (its high three bits, and
// whether its weights are shifted down by 1/8 or up), four numbers of 16 bits: four times s (three bits) of a sub-block of
// 16, and a nibble of d (f16), the lowest first. Packed and multiplied as grid_codes.h says.
#pragma once

#include "quants/grid_codes.h"

namespace tl::TL_LEVEL {

struct IQ1MLayout {
    static constexpr int kType = 29, kSubBlock = 16;
    static constexpr size_t kBlockBytes = 56;
    static constexpr float kFactor = 0.125f;
    static constexpr const int8_t* kValues = kIq1Values;

    static uint16_t scale_bits(const uint8_t* block) {
        int bits = 0;
        for (int i = 0; i < 4; i++) bits |= (block[49 + 2 * i] >> 4) << (4 * i);
        return uint16_t(bits);
    }
    static void read(const uint8_t* block, uint8_t* codes, uint8_t* scales) {
        for (int s = 0; s < 16; s++) scales[s] = read_u16(block + 48 + 2 * (s / 4)) >> (3 * (s % 4)) & 7;
        for (int g = 0; g < 32; g++) {
            const int high = block[32 + g / 2] >> (4 * (g % 2));
            write_codes<8>(kGridIq1[block[g] | (high & 7) << 8], high & 8 ? 255 : 0, codes + 8 * g);
        }
    }
};

using IQ1M = GridCoded<IQ1MLayout>;

}  // namespace tl::TL_LEVEL
