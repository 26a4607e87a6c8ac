// The tile registers of AMX: eight of up to 16 rows of 64 bytes, and their dot products.
//
// A product C += A B takes A as rows of activations (16 tokens x 64 bytes), C as 16 tokens x 16 dwords, and B as 16
// groups of four bytes (or two bfloat16) x 16 columns: which is what sixteen rows of our packed weights are.
// The instructions are written as assembly because compilers may not move tile configuration and loads past each other,
// and some do. Roles: 0 .. 3 are sums, 4 and 5 activations, 6 and 7 weights.
#pragma once

#include <cstddef>
#include <cstdint>

#include "cpu/simd.h"

namespace tl::TL_LEVEL {

inline constexpr int kTileTokens = 16;
inline constexpr int kTileBytes = 64;  // of a row

// Configures the tiles of this thread: sums and activations of `tokens` rows, `bytes` (a multiple of 4) of K a step.
// Gives them back at the end, so that a thread that sleeps has no tiles to be saved.
class Tiles {
 public:
    Tiles(int tokens, int bytes) {
        struct alignas(64) Config {
            uint8_t palette, start_row, reserved[14];
            uint16_t row_bytes[16];
            uint8_t rows[16];
        } config{};
        config.palette = 1;
        for (int i = 0; i < 8; i++) {
            const bool weights = i >= 6, activations = i == 4 || i == 5;
            config.row_bytes[i] = uint16_t(activations ? bytes : kTileBytes);
            config.rows[i] = uint8_t(weights ? bytes / 4 : tokens);
        }
        asm volatile("ldtilecfg %0" ::"m"(config) : "memory");
    }
    Tiles(const Tiles&) = delete;
    Tiles& operator=(const Tiles&) = delete;
    ~Tiles() { asm volatile("tilerelease" ::: "memory"); }
};

template <int Tile> TL_INLINE void tile_zero() { asm volatile("tilezero %%tmm%c0" ::"i"(Tile)); }
template <int Tile> TL_INLINE void tile_load(const void* p, size_t stride) {
    asm volatile("tileloadd (%1,%2,1), %%tmm%c0" ::"i"(Tile), "r"(p), "r"(stride) : "memory");
}
template <int Tile> TL_INLINE void tile_store(void* p, size_t stride) {
    asm volatile("tilestored %%tmm%c0, (%1,%2,1)" ::"i"(Tile), "r"(p), "r"(stride) : "memory");
}
// C += A B: int8 activations with unsigned or signed bytes, and bfloat16.
template <int C, int A, int B> TL_INLINE void tile_dot_unsigned() {
    asm volatile("tdpbsud %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(C), "i"(A), "i"(B));
}
template <int C, int A, int B> TL_INLINE void tile_dot_signed() {
    asm volatile("tdpbssd %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(C), "i"(A), "i"(B));
}
template <int C, int A, int B> TL_INLINE void tile_dot_bf16() {
    asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(C), "i"(A), "i"(B));
}

}  // namespace tl::TL_LEVEL
