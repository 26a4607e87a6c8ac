// The end of every matrix product: the results of one tile of weights go to where they are wanted.
#pragma once

#include "cpu/kernels.h"
#include "cpu/simd.h"

namespace tl::TL_LEVEL {

// Writes one tile's results of tokens token .. token + T - 1: bias, residual, and the partly filled last tile.
template <int T> TL_INLINE void write_tile(const MatmulArgs& args, int tile, int token, Regs<F32, T>& acc) {
    const int row = tile * kTileRows;
    const int num_valid = args.num_rows - row < kTileRows ? args.num_rows - row : kTileRows;
    float* out = args.out + size_t(token) * args.out_stride + row - args.out_row;
    if (args.bias) {
        const F32 bias = load_first(num_valid, args.bias + row);
        each(acc, [&](int, F32& f) TL_LAMBDA { f = f + bias; });
    }
    if (num_valid == kTileRows) {
        if (args.accumulate) {
            each(acc, [&](int t, F32& f) TL_LAMBDA { f = load(out + size_t(t) * args.out_stride) + f; });
        }
        each(acc, [&](int t, F32& f) TL_LAMBDA { store(out + size_t(t) * args.out_stride, f); });
        return;
    }
    each(acc, [&](int t, F32& f) TL_LAMBDA {
        float* to = out + size_t(t) * args.out_stride;
        store_first(num_valid, to, args.accumulate ? load_first(num_valid, to) + f : f);
    });
}

}  // namespace tl::TL_LEVEL
