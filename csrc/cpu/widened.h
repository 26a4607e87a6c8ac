// Products of weights with activations of a number format of their own: the weights are widened to it first.
//
//   out[t][n] (+)= sum over k of widen(W[n][k]) * x[t][k] (+ bias[n])
//
// A tile is taken 256 columns at a time: widened once into a panel that stays in the L1 cache, which looks like a tile of
// that many columns in the other format, then multiplied with every group of tokens. Sums wait in memory between two
// panels, unrounded. So a row's products are added up in the order of K as in a tile of plain floats (quants/floats.h),
// however many tokens there are, and the bits are the same.
//
// Cost per 16 x 4 weights: a load, 8 integer operations, 4 conversions, 4 to 8 float operations, and for bfloat16 4 to pair
// them up; shared by all tokens. One token pays it alone, and would wait for its sum at every step: it takes four tiles at
// once.
#pragma once

#include "cpu/token_groups.h"
#include "cpu/write_tile.h"
#include "quants/floats.h"

namespace tl::TL_LEVEL {

inline constexpr int kPanelColumns = 256;  // whole blocks of every format
// Tokens whose sums wait in scratch; more are done in rounds.
inline constexpr int kWidenedTokens = 256;
inline constexpr int kTilesOfOne = 4;  // that one token takes at once
// Tokens multiplied together: registers for sums, and in the narrower levels halves of weights and activations.
inline constexpr int kWidenedGroup = kRegisters >= 32 ? 8 : kMicroTokens;

// Where widened weights go: the tile layouts of Float32 and BFloat16.
template <class N> TL_INLINE void put_pair(uint8_t* panel, int pair, F32 even, F32 odd) {
    if constexpr (N::kBytes == 4) {
        store((float*)panel + 32 * pair, even);
        store((float*)panel + 32 * pair + 16, odd);
    } else {
        bstore(panel + 64 * pair, join_bf16(even, odd));
    }
}

// Weights in blocks of a quantised format.
template <class Q> struct BlockWeights {
    static_assert(kPanelColumns % Q::kBlock == 0);
    using Unpacked = typename Q::Panel;

    template <class N>
    __attribute__((noinline)) static void widen(const uint8_t* tile, int column, int num_columns, Unpacked& unpacked,
                                                uint8_t* panel) {
        for (int b = 0; b < num_columns / Q::kBlock; b++) {
            Q::unpack(tile + size_t(column / Q::kBlock + b) * Q::kTileBlockBytes, unpacked);
            uint8_t* to = panel + size_t(b) * Q::kBlock * kTileRows * N::kBytes;
            Q::widen(unpacked, [&](int pair, F32 even, F32 odd) TL_LAMBDA { put_pair<N>(to, pair, even, odd); });
        }
    }
};

// bfloat16 weights, which lie in pairs.
struct BF16Weights {
    struct Unpacked {};

    template <class N> static void widen(const uint8_t* tile, int column, int num_columns, Unpacked&, uint8_t* panel) {
        for (int pair = 0; pair < (num_columns + 1) / 2; pair++) {
            const Bytes v = bload(tile + 64 * size_t(column / 2 + pair));
            put_pair<N>(panel, pair, low_bf16(v), high_bf16(v));
        }
    }
};

// sums[t] += the products of a panel of so many steps with T tokens; the first panel starts them.
template <class N, int T>
__attribute__((noinline)) void widened_float_tile(const uint8_t* panel, int steps, const ActRows& rows, bool is_first,
                                                  float (*sums)[kTileRows]) {
    Regs<F32, T> acc;
    clear(acc);
    if (!is_first) each(acc, [&](int t, F32& f) TL_LAMBDA { f = load(sums[t]); });
    TL_UNROLL(4)
    for (int k = 0; k < steps; k++) {
        const typename N::Weights w = N::weights(panel, k);
        each(acc, [&](int t, F32& f) TL_LAMBDA { N::multiply(f, w, N::activation(rows, t, k)); });
    }
    each(acc, [&](int t, F32& f) TL_LAMBDA { store(sums[t], f); });
}

template <class N> inline constexpr size_t kPanelBytes = size_t(kPanelColumns) * kTileRows * N::kBytes;

// The same with one token and the panels of R tiles, whose sums fill each other's waits.
template <class N, int R>
__attribute__((noinline)) void widened_float_tile_of_one(const uint8_t* panels, int steps, const ActRows& rows,
                                                         bool is_first, float (*sums)[kTileRows]) {
    Regs<F32, R> acc;
    clear(acc);
    if (!is_first) each(acc, [&](int r, F32& f) TL_LAMBDA { f = load(sums[r]); });
    TL_UNROLL(2)
    for (int k = 0; k < steps; k++) {
        const auto x = N::activation(rows, 0, k);
        each(acc,
             [&](int r, F32& f) TL_LAMBDA { N::multiply(f, N::weights(panels + size_t(r) * kPanelBytes<N>, k), x); });
    }
    each(acc, [&](int r, F32& f) TL_LAMBDA { store(sums[r], f); });
}

template <class W, class N> struct WidenedScratch {
    alignas(64) uint8_t panel[kTilesOfOne * kPanelBytes<N>];
    alignas(64) float sums[kWidenedTokens][kTileRows];
    typename W::Unpacked unpacked;
};

// One tile with at most kWidenedTokens tokens from `token` on.
template <class W, class N>
void widened_tile(const MatmulArgs& args, int tile, int token, int count, WidenedScratch<W, N>& scratch) {
    const uint8_t* weights = args.weights + size_t(tile) * args.tile_bytes;
    const uint8_t* x = args.x + size_t(token) * args.x_stride;
    ActRows rows({N::kActivations, args.num_inputs});
    for (int column = 0; column < args.num_inputs; column += kPanelColumns) {
        const int left = args.num_inputs - column, width = left < kPanelColumns ? left : kPanelColumns;
        W::template widen<N>(weights, column, width, scratch.unpacked, scratch.panel);
        const int steps = (width + N::kColumns - 1) / N::kColumns;
        in_groups<kWidenedGroup>(count, [&]<int T>(int t) {
            rows.set(x + size_t(t) * args.x_stride + size_t(column) * N::kBytes, args.x_stride, T);
            widened_float_tile<N, T>(scratch.panel, steps, rows, column == 0, scratch.sums + t);
        });
    }
    in_groups<kWidenedGroup>(count, [&]<int T>(int t) {
        Regs<F32, T> acc;
        each(acc, [&](int i, F32& f) TL_LAMBDA { f = load(scratch.sums[t + i]); });
        write_tile<T>(args, tile, token + t, acc);
    });
}

// R tiles with one token.
template <class W, class N, int R> void widened_tiles_of_one(const MatmulArgs& args, int tile,
                                                             WidenedScratch<W, N>& scratch) {
    ActRows rows({N::kActivations, args.num_inputs});
    for (int column = 0; column < args.num_inputs; column += kPanelColumns) {
        const int left = args.num_inputs - column, width = left < kPanelColumns ? left : kPanelColumns;
        for (int r = 0; r < R; r++) {
            const uint8_t* weights = args.weights + size_t(tile + r) * args.tile_bytes;
            W::template widen<N>(weights, column, width, scratch.unpacked, scratch.panel + size_t(r) * kPanelBytes<N>);
        }
        rows.set(args.x + size_t(column) * N::kBytes, 0, 1);
        const int steps = (width + N::kColumns - 1) / N::kColumns;
        widened_float_tile_of_one<N, R>(scratch.panel, steps, rows, column == 0, scratch.sums);
    }
    for (int r = 0; r < R; r++) {
        Regs<F32, 1> acc{{}, load(scratch.sums[r])};
        write_tile<1>(args, tile + r, 0, acc);
    }
}

template <class W, class N>
void widened_matmul(const MatmulArgs& args, int tile_begin, int tile_end, uint8_t* scratch) {
    if (args.num_tokens == 1) {
        auto& own = *(WidenedScratch<W, N>*)scratch;
        int tile = tile_begin;
        for (; tile + kTilesOfOne <= tile_end; tile += kTilesOfOne)
            widened_tiles_of_one<W, N, kTilesOfOne>(args, tile, own);
        for (; tile < tile_end; tile++) widened_tiles_of_one<W, N, 1>(args, tile, own);
        return;
    }
    for (int token = 0; token < args.num_tokens; token += kWidenedTokens) {
        const int left = args.num_tokens - token, count = left < kWidenedTokens ? left : kWidenedTokens;
        for (int tile = tile_begin; tile < tile_end; tile++) {
            widened_tile<W, N>(args, tile, token, count, *(WidenedScratch<W, N>*)scratch);
        }
    }
}

template <class W, class N> size_t widened_scratch_bytes(int) { return sizeof(WidenedScratch<W, N>); }

// Makes the products of a format those of weights W with activations of N.
template <class W, class N> constexpr void set_widened(FormatKernels& kernels) {
    kernels.activations = N::kActivations;
    kernels.matmul = widened_matmul<W, N>;
    kernels.matmul_scratch_bytes = widened_scratch_bytes<W, N>;
}

}  // namespace tl::TL_LEVEL
