// Q5_K: 5-bit weights in super-blocks of 256 with 6-bit scales and minima. 5.5 bits per weight.
//
// In the file a block is 176 bytes: d (f16), dmin (f16), scales[12], qh[32], qs[128]. All is as in Q4_K (see there)
// but for the fifth bit: bit s of qh byte l belongs to element l of sub-block s.
//
// Packed, a block of 16 rows is the same 16 * 176 = 2816 bytes: the first 256 as in Q4_K, then for each of the eight
// sub-blocks the planes of five_bits.h [320].
//
// Arithmetic per 256 elements and (row, token), a = int8 activations with scale s:
//   I = sum over sub-blocks sc * (q . a)   exact int32, |I| <= 256 * 31 * 63 * 127 = 6.3e7
//   M = sum over sub-blocks m * sum(a)     exact int32
//   acc += s * (d * I - dmin * M)          three float roundings, blocks in ascending order
#pragma once

#include "quants/five_bits.h"
#include "quants/q4_k.h"

namespace tl::TL_LEVEL {

struct Q5K {
    static constexpr int kType = 13;
    static constexpr int kBlock = 256;
    static constexpr size_t kBlockBytes = 176;
    static constexpr size_t kTileBlockBytes = 2816;
    static constexpr ActFormat kActivations = ActFormat::kInt8x256;
    static_assert(kTileBlockBytes == kTileRows * kBlockBytes);

    static constexpr size_t kQ = 256;  // offset in a packed block
    static constexpr int kGroup = 2;   // sub-blocks whose sum floats hold: 64 * 31 * 63 * 127 < 2^24

    static void decode_block(const uint8_t* block, float* out) {
        const float d = read_f16(block), dmin = read_f16(block + 2);
        for (int s = 0; s < 8; s++) {
            int sc, m;
            Q4K::scale_and_min(block + 4, s, sc, m);
            const uint8_t *qh = block + 16, *q = block + 48 + 32 * (s / 2);
            const float scale = d * float(sc), minimum = dmin * float(m);
            for (int l = 0; l < 32; l++) {
                const int nibble = s % 2 ? q[l] >> 4 : q[l] & 15;
                out[32 * s + l] = scale * float(nibble | (qh[l] >> s & 1) << 4) - minimum;
            }
        }
    }

    static void pack_block(const uint8_t* const* rows, uint8_t* tile) {
        Q4K::pack_scales(rows, tile);
        for (int r = 0; r < kTileRows; r++) {
            uint32_t words[40] = {};  // qh[8], qs[32]
            if (rows[r]) std::memcpy(words, rows[r] + 16, sizeof words);
            for (int s = 0; s < 8; s++) {
                uint32_t groups[8];
                for (int g = 0; g < 8; g++) {
                    const uint32_t nibbles = words[8 + 8 * (s / 2) + g] >> (4 * (s % 2)) & 0x0f0f0f0fu;
                    groups[g] = nibbles | (words[g] >> s & 0x01010101u) << 4;
                }
                pack_five_bits(groups, r, tile + kQ + kFiveBitBytes * s);
            }
        }
    }

    // Sub-blocks s .. s + kGroup - 1; takes their scales from `sc` and moves `a` on.
    template <int T>
    TL_INLINE static void dot_group(const uint8_t* tile, int s, Regs<const int8_t*, T>& a, Bytes& sc,
                                    Regs<I32, T>& sums) {
        Regs<F32, T> group;
        clear(group);
        const int count = T == 1 ? kGroup : opaque(kGroup);  // one token: no loop, since all fits the registers
        int i = 0;
        do {
            Regs<I32, T> part;
            clear(part);
            for_five_bits<T>(tile + kQ + kFiveBitBytes * (s + i), [&](int g, Bytes w) TL_LAMBDA {
                each(part, a, [&](int, I32& v, const int8_t*& row) TL_LAMBDA { dot4_small(v, w, row + 4 * g); });
            });
            Q4K::add_scaled<T>(part, to_float(take_byte(sc)), group);
            each(a, [](int, const int8_t*& row) TL_LAMBDA { row += 32; });
        } while (++i < count);
        Q4K::add_group<T>(group, sums);
    }

    // Per sub-block: 5 planes, 7 shifts, 12 logic operations (AND and OR fuse), 8 T dot products, T multiply-adds.
    template <int T>
    TL_INLINE static void dot(const uint8_t* tile, int b, const ActRows& x, Regs<F32, T>& acc) {
        Regs<const int8_t*, T> a = columns<T>(x, 256 * b);
        Regs<I32, T> sums, minima;
        clear(sums);
        if constexpr (4 * T > kRegisters - 5) each(acc, [](int, F32& f) TL_LAMBDA { park(f); });
        for (int i = 0; i < int(kQ); i += 64) stream_line<T>(tile + i);
        for_constants<2>([&]<int H>() TL_LAMBDA {
            Bytes sc = Q4K::scales<H>(tile);
            for (int s = 4 * H; s < 4 * H + 4; s += kGroup) dot_group<T>(tile, s, a, sc, sums);
        });
        Q4K::dot_minima<T>(tile, b, x, minima);
        Q4K::finish<T>(load_f16((const uint16_t*)tile), load_f16((const uint16_t*)(tile + 32)), sums, minima, x, b,
                       acc);
    }

    // Unpacked, Q5_K differs from Q4_K only in the range of q.
    using Panel = Q4K::Panel;

    TL_INLINE static void unpack(const uint8_t* tile, Panel& p) {
        Q4K::unpack_scales(tile, p);
        for (int s = 0; s < 8; s++) {
            for_five_bits<0>(tile + kQ + kFiveBitBytes * s,
                             [&](int g, Bytes w) TL_LAMBDA { bstore(p.q[8 * s + g], w); });
        }
    }

    template <int T>
    TL_INLINE static void panel_dot(const Panel& p, int b, const ActRows& x, Regs<F32, T>& acc) {
        Q4K::panel_dot<T, kGroup>(p, b, x, acc);
    }

    template <class Put> TL_INLINE static void widen(const Panel& p, Put put) { Q4K::widen(p, put); }
};

}  // namespace tl::TL_LEVEL
