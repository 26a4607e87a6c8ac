// How Q5_0, Q5_1 and Q5_K pack the 5-bit weights of 32 columns of 16 rows: five planes of 64 bytes, 320 bytes.
//
//   dword lane r of a plane belongs to row r, byte k of the dword to column k of a group of 4 columns
//   plane j < 4:  bits 0-4 = weight of group j, bits 5-7 = the upper 3 bits of the weight of group j + 4
//   plane 4:      bits 2j and 2j + 1 = the lower 2 bits of the weight of group j + 4
//
// Half of the weights then cost one AND, the other half two shifts, an AND and an AND-OR. Nibbles with a plane of
// fifth bits would cost half as much again. The planes are one sequential stream.
#pragma once

#include "quants/format.h"

namespace tl::TL_LEVEL {

inline constexpr size_t kFiveBitBytes = 320;

// Bits 0 .. 3 of `bits` as the fifth bits of four bytes.
TL_INLINE uint32_t spread_fifth_bits(uint32_t bits) { return ((bits & 15) * 0x00204081u & 0x01010101u) << 4; }

// The weights of a block of 32 as Q5_0 and Q5_1 store them (qh, then qs[16]) in groups of four bytes.
TL_INLINE void split_five_bits(const uint8_t* qh_and_qs, uint32_t (&groups)[8]) {
    uint32_t words[5];
    std::memcpy(words, qh_and_qs, sizeof words);
    for (int j = 0; j < 4; j++) {
        groups[j] = (words[1 + j] & 0x0f0f0f0fu) | spread_fifth_bits(words[0] >> (4 * j));
        groups[j + 4] = (words[1 + j] >> 4 & 0x0f0f0f0fu) | spread_fifth_bits(words[0] >> (4 * j + 16));
    }
}

// Writes the dwords of one row; groups[g] holds the weights of columns 4g .. 4g + 3, one in each byte.
TL_INLINE void pack_five_bits(const uint32_t (&groups)[8], int row, uint8_t* planes) {
    uint32_t low = 0;
    for (int j = 0; j < 4; j++) {
        const uint32_t first = groups[j], second = groups[j + 4];
        const uint32_t dword = first | (second >> 2 & 0x07070707u) << 5;
        std::memcpy(planes + 64 * j + 4 * row, &dword, 4);
        low |= (second & 0x03030303u) << (2 * j);
    }
    std::memcpy(planes + 256 + 4 * row, &low, 4);
}

// Bits 2j and 2j + 1 of each byte at the bottom of the byte.
TL_INLINE Bytes low_bits(Bytes plane, int j) {
    const Bytes mask = bset1(0x03);
    if (j == 0) return plane & mask;
    if (j == 1) return bshift_right<2>(plane) & mask;
    return (j == 2 ? bshift_right<4>(plane) : bshift_right<6>(plane)) & mask;
}

// Calls f(group, weights as bytes 0 .. 31) for the eight groups of columns.
template <int T, class F> TL_INLINE void for_five_bits(const uint8_t* planes, F f) {
    for (int j = 0; j < 5; j++) stream_line<T>(planes + 64 * j);  // in order: out of order memory is slower
    const Bytes five = bset1(0x1f), upper = bset1(0x1c), low = bload(planes + 256);
    TL_UNROLL(4)
    for (int j = 0; j < 4; j++) {
        const Bytes v = bload(planes + 64 * j);
        f(j, v & five);
        f(j + 4, (bshift_right<3>(v) & upper) | low_bits(low, j));
    }
}

}  // namespace tl::TL_LEVEL
