// TQ1_0: weights of -1, 0, 1, five in a byte, blocks of 256 with one scale. 1.6875 bits per weight.
//
// In the file a block is 54 bytes: qs[48], qh[4], d (f16). A byte is a fraction v / 256 of digits to base 3: digit k is the
// whole part of 3 (3^k v mod 256) / 256. Digit k of qs[i] is element 32k + i for i < 32, of qs[32 + i] element
// 160 + 16k + i for i < 16 (k < 5 both); that of qh[i] is element 240 + 4k + i (k < 4). An element is d * (digit - 1).
//
// Packed as TQ2_0: digits in two bits each take a fifth more memory and no arithmetic.
#pragma once

#include "quants/tq2_0.h"

namespace tl::TL_LEVEL {

struct TQ1_0 : TQ2_0 {
    static constexpr int kType = 34;
    static constexpr size_t kBlockBytes = 54;

    static int digit(const uint8_t* block, int i) {
        static constexpr uint8_t kPowers[5] = {1, 3, 9, 27, 81};
        const int byte = i < 160 ? i % 32 : i < 240 ? 32 + (i - 160) % 16 : 48 + (i - 240) % 4;
        const int k = i < 160 ? i / 32 : i < 240 ? (i - 160) / 16 : (i - 240) / 4;
        return uint8_t(block[byte] * kPowers[k]) * 3 >> 8;
    }

    static void decode_block(const uint8_t* block, float* out) {
        const float d = read_f16(block + 52);
        for (int i = 0; i < 256; i++) out[i] = d * float(digit(block, i) - 1);
    }

    static void pack_block(const uint8_t* const* rows, uint8_t* tile) {
        uint8_t blocks[kTileRows][TQ2_0::kBlockBytes];
        const uint8_t* sources[kTileRows];
        for (int r = 0; r < kTileRows; r++) {
            sources[r] = rows[r] ? blocks[r] : nullptr;
            if (!rows[r]) continue;
            std::memset(blocks[r], 0, 64);
            std::memcpy(blocks[r] + 64, rows[r] + 52, 2);
            for (int i = 0; i < 256; i++) {
                uint8_t& to = blocks[r][32 * (i / 128) + i % 32];
                to = uint8_t(to | digit(rows[r], i) << (2 * (i / 32 % 4)));
            }
        }
        TQ2_0::pack_block(sources, tile);
    }
};

}  // namespace tl::TL_LEVEL
