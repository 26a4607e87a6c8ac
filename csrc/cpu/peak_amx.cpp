// The roof of the tile unit: products of tiles that stay where they are.
#include "cpu/amx_tiles.h"
#include "cpu/level.h"

namespace tl::TL_LEVEL {

double run_dots(DotKind kind, int num_rounds) {
    if (kind == DotKind::kF32) return avx512::kernels().run_dots(kind, num_rounds);
    const Tiles tiles(kTileTokens, kTileBytes);
    alignas(64) uint8_t numbers[kTileTokens][kTileBytes];
    for (auto& row : numbers) {
        for (uint8_t& byte : row) byte = 0x3f;  // 63 as a byte, 0.747 as bfloat16
    }
    for_constants<8>([&]<int I>() TL_LAMBDA { tile_load<I>(numbers, kTileBytes); });
    for (int i = 0; i < num_rounds; i++) {
        for_constants<4>([&]<int C>() TL_LAMBDA {
            if (kind == DotKind::kInt8)
                tile_dot_signed<C, 4 + C / 2, 6 + C % 2>();
            else
                tile_dot_bf16<C, 4 + C / 2, 6 + C % 2>();
        });
    }
    const int per_dot = kind == DotKind::kInt8 ? kTileBytes : kTileBytes / 2;
    return 2.0 * num_rounds * 4 * kTileTokens * kTileRows * per_dot;
}

}  // namespace tl::TL_LEVEL
