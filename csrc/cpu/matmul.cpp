// Matrix products of packed weights with activation rows, for every weight format.
//
//   out[t][n] (+)= sum over k of W[n][k] * x[t][k] (+ bias[n])
//
// Sixteen output rows (a tile) lie in the lanes, tokens in registers. Few tokens: the packed bytes are multiplied as
// they stream in (decode is bound by memory). Many tokens: a tile is unpacked once into a panel that stays in the L2
// cache, and every group of tokens runs over it. Both add up the same numbers in the same order.
#include "cpu/bf16_widened.h"
#include "cpu/level.h"
#include "cpu/token_groups.h"
#include "cpu/widened.h"
#include "cpu/write_tile.h"
#include "quants/floats.h"
#include "quants/iq1_m.h"
#include "quants/iq1_s.h"
#include "quants/iq2_s.h"
#include "quants/iq2_xs.h"
#include "quants/iq2_xxs.h"
#include "quants/iq3_s.h"
#include "quants/iq3_xxs.h"
#include "quants/iq4_nl.h"
#include "quants/iq4_xs.h"
#include "quants/mxfp4.h"
#include "quants/numbers.h"
#include "quants/nvfp4.h"
#include "quants/q1_0.h"
#include "quants/q2_0.h"
#include "quants/q2_k.h"
#include "quants/q3_k.h"
#include "quants/q4_0.h"
#include "quants/q4_1.h"
#include "quants/q4_k.h"
#include "quants/q5_0.h"
#include "quants/q5_1.h"
#include "quants/q5_k.h"
#include "quants/q6_k.h"
#include "quants/q8_0.h"
#include "quants/tq1_0.h"
#include "quants/tq2_0.h"

namespace tl::TL_LEVEL {
namespace {

// Up to this many tokens the packed bytes are used directly: unpacking a panel would cost more than it saves. Where eight
// tokens share a pass, six passes still beat a panel.
constexpr int kMaxDirectTokens = kDirectTokens == 8 ? 48 : 8;
// Up to this many tokens plain floats are one stream of tiles; more take two tiles at once.
constexpr int kMaxStreamTokens = 8;

template <class Q> size_t tile_bytes(int num_inputs) {
    return align_up(size_t(num_inputs / Q::kBlock) * Q::kTileBlockBytes, 32);
}

template <class Q> void pack(const uint8_t* const* rows, int num_inputs, uint8_t* tile) {
    for (int b = 0; b < num_inputs / Q::kBlock; b++) {
        const uint8_t* blocks[kTileRows];
        for (int r = 0; r < kTileRows; r++) blocks[r] = rows[r] ? rows[r] + b * Q::kBlockBytes : nullptr;
        Q::pack_block(blocks, tile + b * Q::kTileBlockBytes);
    }
}

template <class Q> void decode_row(const uint8_t* row, int num_elements, float* out) {
    for (int b = 0; b < num_elements / Q::kBlock; b++) Q::decode_block(row + b * Q::kBlockBytes, out + b * Q::kBlock);
}

template <class Q> size_t scratch_bytes(int num_inputs) {
    return size_t(num_inputs / Q::kBlock) * sizeof(typename Q::Panel);
}

template <class Q, int T>
__attribute__((noinline)) void direct_tile(const MatmulArgs& args, const ActRows& rows, int tile, int token) {
    const uint8_t* weights = args.weights + size_t(tile) * args.tile_bytes;
    const int num_blocks = args.num_inputs / Q::kBlock;
    Regs<F32, T> acc;
    clear(acc);
    for (int b = 0; b < num_blocks; b++) Q::template dot<T>(weights + b * Q::kTileBlockBytes, b, rows, acc);
    write_tile<T>(args, tile, token, acc);
}

template <class Q, int T>
__attribute__((noinline)) void panel_tile(const MatmulArgs& args, const typename Q::Panel* panel, const ActRows& rows,
                                          int tile, int token) {
    const int num_blocks = args.num_inputs / Q::kBlock;
    Regs<F32, T> acc;
    clear(acc);
    for (int b = 0; b < num_blocks; b++) Q::template panel_dot<T>(panel[b], b, rows, acc);
    write_tile<T>(args, tile, token, acc);
}

template <class Q> void matmul(const MatmulArgs& args, int tile_begin, int tile_end, uint8_t* scratch) {
    ActRows x({Q::kActivations, args.num_inputs});
    if (args.num_tokens <= kMaxDirectTokens) {
        for (int tile = tile_begin; tile < tile_end; tile++) {
            in_groups<kDirectTokens>(args.num_tokens, [&]<int T>(int t) {
                x.set(args.x + size_t(t) * args.x_stride, args.x_stride, T);
                direct_tile<Q, T>(args, x, tile, t);
            });
        }
        return;
    }
    auto* panel = (typename Q::Panel*)scratch;
    for (int tile = tile_begin; tile < tile_end; tile++) {
        const uint8_t* weights = args.weights + size_t(tile) * args.tile_bytes;
        for (int b = 0; b < args.num_inputs / Q::kBlock; b++) Q::unpack(weights + b * Q::kTileBlockBytes, panel[b]);
        in_groups<kMicroTokens>(args.num_tokens, [&]<int T>(int t) {
            x.set(args.x + size_t(t) * args.x_stride, args.x_stride, T);
            panel_tile<Q, T>(args, panel, x, tile, t);
        });
    }
}

template <Precision P, class Q> constexpr FormatKernels quantized() {
    FormatKernels kernels{Q::kType, Q::kBlock, Q::kBlockBytes,   Q::kActivations, tile_bytes<Q>,
                          pack<Q>,  matmul<Q>, scratch_bytes<Q>, decode_row<Q>};
    if constexpr (P == Precision::kBF16) set_widened<BlockWeights<Q>, BFloat16>(kernels);
    if constexpr (P == Precision::kF32) set_widened<BlockWeights<Q>, Float32>(kernels);
    return kernels;
}

// Plain floats need no panel: a column of the tile is one load in any case.

template <class N> int num_steps(int num_inputs) { return (num_inputs + N::kColumns - 1) / N::kColumns; }

template <class N> size_t float_tile_bytes(int num_inputs) {
    return size_t(num_steps<N>(num_inputs)) * N::kColumns * kTileRows * N::kBytes;
}

template <class N> void float_pack(const uint8_t* const* rows, int num_inputs, uint8_t* tile) {
    std::memset(tile, 0, float_tile_bytes<N>(num_inputs));
    for (int r = 0; r < kTileRows; r++) {
        if (!rows[r]) continue;
        for (int k = 0; k < num_inputs; k++) {
            const size_t index = size_t(k / N::kColumns * kTileRows + r) * N::kColumns + k % N::kColumns;
            std::memcpy(tile + index * N::kBytes, rows[r] + size_t(k) * N::kBytes, N::kBytes);
        }
    }
}

size_t no_scratch(int) { return 0; }

// kStream: the weights come from memory.
template <class N, int T, bool kStream>
__attribute__((noinline)) void float_tile(const MatmulArgs& args, const ActRows& rows, int tile, int token) {
    const uint8_t* weights = args.weights + size_t(tile) * args.tile_bytes;
    const int steps = num_steps<N>(args.num_inputs);
    Regs<F32, T> acc;
    clear(acc);
    TL_UNROLL(4)
    for (int k = 0; k < steps; k++) {
        if constexpr (kStream) stream_line<T>(weights + size_t(k) * kTileRows * N::kColumns * N::kBytes);
        const typename N::Weights w = N::weights(weights, k);
        each(acc, [&](int t, F32& f) TL_LAMBDA { N::multiply(f, w, N::activation(rows, t, k)); });
    }
    write_tile<T>(args, tile, token, acc);
}

// Two tiles at once: each activation is read once for both.
template <class N, int T>
__attribute__((noinline)) void float_tile_pair(const MatmulArgs& args, const ActRows& rows, int tile, int token) {
    const uint8_t* weights = args.weights + size_t(tile) * args.tile_bytes;
    const int steps = num_steps<N>(args.num_inputs);
    Regs<F32, T> first, second;
    clear(first);
    clear(second);
    TL_UNROLL(1)
    for (int k = 0; k < steps; k++) {
        const typename N::Weights w0 = N::weights(weights, k), w1 = N::weights(weights + args.tile_bytes, k);
        each(first, second, [&](int t, F32& f, F32& g) TL_LAMBDA {
            const auto x = N::activation(rows, t, k);
            N::multiply(f, w0, x);
            N::multiply(g, w1, x);
        });
    }
    write_tile<T>(args, tile, token, first);
    write_tile<T>(args, tile + 1, token, second);
}

template <class N> void float_matmul(const MatmulArgs& args, int tile_begin, int tile_end, uint8_t*) {
    ActRows x({N::kActivations, args.num_inputs});
    int tile = tile_begin;
    // Few tokens: one stream of weights, as fast as memory delivers it.
    for (; N::kPairs && args.num_tokens > kMaxStreamTokens && tile + 1 < tile_end; tile += 2) {
        in_groups<kMicroTokens>(args.num_tokens, [&]<int T>(int t) {
            x.set(args.x + size_t(t) * args.x_stride, args.x_stride, T);
            float_tile_pair<N, T>(args, x, tile, t);
        });
    }
    for (; tile < tile_end; tile++) {
        in_groups<kMicroTokens>(args.num_tokens, [&]<int T>(int t) {
            x.set(args.x + size_t(t) * args.x_stride, args.x_stride, T);
            if (t == 0)
                float_tile<N, T, true>(args, x, tile, t);
            else
                float_tile<N, T, false>(args, x, tile, t);
        });
    }
}

#if defined(TL_LEVEL_AVX512)
template <int T>
__attribute__((noinline)) void float_tile_pair_widened(const MatmulArgs& args, const float* x, int tile, int token) {
    const uint8_t* weights = args.weights + size_t(tile) * args.tile_bytes;
    Regs<F32, T> first, second;
    widened_dot<T>(weights, weights + args.tile_bytes, num_steps<BFloat16>(args.num_inputs), x,
                   widened_stride(args.num_inputs), first, second);
    write_tile<T>(args, tile, token, first);
    write_tile<T>(args, tile + 1, token, second);
}

size_t bf16_scratch_bytes(int num_inputs) {
    return kWidenBf16 ? kMicroTokens * widened_stride(num_inputs) * sizeof(float) : 0;
}

void bf16_matmul(const MatmulArgs& args, int tile_begin, int tile_end, uint8_t* scratch) {
    int end = tile_begin;  // of what is done here
    if (kWidenBf16 && args.num_tokens > kMaxStreamTokens) {
        end += (tile_end - tile_begin) / 2 * 2;
        float* x = (float*)scratch;
        in_groups<kMicroTokens>(args.num_tokens, [&]<int T>(int t) {
            widen_rows(args, t, T, x);
            for (int tile = tile_begin; tile < end; tile += 2) float_tile_pair_widened<T>(args, x, tile, t);
        });
    }
    float_matmul<BFloat16>(args, end, tile_end, nullptr);
}
#endif

template <class N> constexpr FormatKernels plain() {
    return {N::kType,        1,          N::kBytes,    N::kActivations, float_tile_bytes<N>, float_pack<N>,
            float_matmul<N>, no_scratch, N::decode_row};
}

template <class N> constexpr FormatKernels converted() {
    FormatKernels kernels = plain<Float32>();
    kernels.gguf_type = N::kType;
    kernels.block_bytes = N::kBytes;
    kernels.pack = N::pack;
    kernels.decode_row = N::decode_row;
    return kernels;
}

template <Precision P> constexpr FormatKernels bf16() {
    FormatKernels kernels = plain<BFloat16>();
    if constexpr (P == Precision::kF32) {
        set_widened<BF16Weights, Float32>(kernels);
        return kernels;
    }
#if defined(TL_LEVEL_AVX512)
    kernels.matmul = bf16_matmul;
    kernels.matmul_scratch_bytes = bf16_scratch_bytes;
#endif
    return kernels;
}

template <Precision P>
constexpr FormatKernels kFormats[] = {plain<Float32>(),       plain<Float16>(),      bf16<P>(),
                                      quantized<P, Q8_0>(),   quantized<P, Q4_0>(),  quantized<P, Q4_1>(),
                                      quantized<P, Q5_0>(),   quantized<P, Q5_1>(),  quantized<P, Q5K>(),
                                      quantized<P, Q4K>(),    quantized<P, Q6K>(),   quantized<P, Q2K>(),
                                      quantized<P, Q3K>(),    quantized<P, IQ4NL>(), quantized<P, IQ4XS>(),
                                      quantized<P, MXFP4>(),  quantized<P, NVFP4>(), quantized<P, IQ3S>(),
                                      quantized<P, IQ3XXS>(), quantized<P, IQ2S>(),  quantized<P, IQ2XS>(),
                                      quantized<P, IQ2XXS>(), quantized<P, IQ1M>(),  quantized<P, IQ1S>(),
                                      quantized<P, TQ1_0>(),  quantized<P, TQ2_0>(), quantized<P, Q1_0>(),
                                      quantized<P, Q2_0>(),   converted<Float64>(),  converted<Int8>(),
                                      converted<Int16>(),     converted<Int32>(),    converted<Int64>()};

template <Precision P> const FormatKernels* table(int& count) {
    count = int(sizeof kFormats<P> / sizeof kFormats<P>[0]);
    return kFormats<P>;
}

}  // namespace

const FormatKernels* formats(Precision precision, int& count) {
    if (precision == Precision::kBF16) return table<Precision::kBF16>(count);
    if (precision == Precision::kF32) return table<Precision::kF32>(count);
    return table<Precision::kInt8>(count);
}

}  // namespace tl::TL_LEVEL
