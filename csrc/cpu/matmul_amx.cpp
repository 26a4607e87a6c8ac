// Matrix products on the tile registers of AMX, for sixteen tokens and more, whose rows are interleaved (activations.h);
// fewer are left to the AVX-512 kernels, but for bfloat16. A weight tile of 16 rows is the B operand, 16 tokens are the
// rows of A and of C (see amx_tiles.h).
//
// Integer sums are exact and everything after them is rounded as the AVX-512 kernels round it: the results of the two
// levels are bit-identical. bfloat16 is not: TDPBF16PS has sums of its own, so at this level all token counts use it.
//
// Multiplying a block takes the tile unit about as long as the vector unit needs to scale the sums of another. So the two
// are interleaved: while the tiles of one group of tokens are multiplied, the sums of the group before are finished.
#include "cpu/amx_operands.h"
#include "cpu/amx_tiles.h"
#include "cpu/level.h"
#include "cpu/write_tile.h"
#include "quants/floats.h"

namespace tl::TL_LEVEL {
namespace {

// The AVX-512 kernels of a format.
template <class Q> FormatKernels kNarrow;

using TileSums = int32_t[kTileTokens][kTileRows];

// The groups of sixteen tokens of a product, interleaved.
struct Groups {
    const uint8_t* x;
    size_t group_bytes, block_bytes;
    int num_tokens;

    explicit Groups(const MatmulArgs& args, ActFormat format)
        : x(args.x),
          group_bytes(kTileTokens * args.x_stride),
          block_bytes(InterleavedLayout{{format, args.num_inputs}}.block_bytes()),
          num_tokens(args.num_tokens) {}
    int count() const { return (num_tokens + kTileTokens - 1) / kTileTokens; }
    const uint8_t* block(int group, int b) const { return x + size_t(group) * group_bytes + size_t(b) * block_bytes; }
};

// Writes the results of a group, as many as there are tokens.
TL_INLINE void write_group(const MatmulArgs& args, int tile, int group, Regs<F32, kTileTokens>& acc) {
    const int token = group * kTileTokens, count = args.num_tokens - token;
    if (count >= kTileTokens) return write_tile<kTileTokens>(args, tile, token, acc);
    each(acc, [&](int t, F32& f) TL_LAMBDA {
        Regs<F32, 1> one{{}, f};
        if (t < count) write_tile<1>(args, tile, token + t, one);
    });
}

// -- blocks of 32: a tile product each, whose sums are scaled while the next one runs ---------------------------------

constexpr InterleavedLayout kBlocksOf32{{ActFormat::kInt8x32, 32}};

// Beside the tile unit only one vector port multiplies and converts at full width, but two add. So a sum becomes a float
// in two additions: of the bits of 1.5 * 2^23, which makes the bits of 1.5 * 2^23 + sum, and of -1.5 * 2^23. All exact:
// |sum| <= 32 * 128 * 127 < 2^22.
TL_INLINE F32 float_of_sum(const int32_t* sum) {
    const __m512i shifted = _mm512_add_epi32(iload(sum).v, _mm512_set1_epi32(0x4b400000));
    return F32{_mm512_castsi512_ps(shifted)} - set1(12582912.0f);
}

template <int kSums>
TL_INLINE void dot_block(const uint8_t* x, const uint8_t (*weights)[kTileBytes]) {
    tile_zero<kSums>();
    tile_load<4 + kSums>(x, 32);
    tile_load<6 + kSums>(weights, kTileBytes);
    tile_dot_signed<kSums, 4 + kSums, 6 + kSums>();
}

template <class Q>
TL_INLINE void finish_block(const uint8_t* x, const typename Q::Panel& panel, const TileSums& sums,
                            Regs<F32, kTileTokens>& acc) {
    const float* scale = (const float*)(x + kBlocksOf32.scale_offset());
    const int32_t* sum32 = (const int32_t*)(x + kBlocksOf32.sum32_offset());
    const typename SmallBlock<Q>::Scales scales(panel);
    each(acc, [&](int t, F32& f) TL_LAMBDA {
        f = scales.finish(float_of_sum(sums[t]), scale[t], sum32[t], f);
        settle(f);
    });
}

template <class Q>
__attribute__((noinline)) void small_group(const MatmulArgs& args, const typename Q::Panel* panel, const Groups& groups,
                                           int tile, int group) {
    constexpr size_t kStep = kBlocksOf32.block_bytes();
    alignas(64) TileSums sums[4];
    const int num_blocks = args.num_inputs / 32;
    const uint8_t* x = groups.block(group, 0);
    Regs<F32, kTileTokens> acc;
    clear(acc);
    dot_block<0>(x, panel[0].q);
    // Block b + 1 is multiplied and block b - 2 finished before the sums of block b are stored: a load waits for the
    // addresses of all stores before it, and these are known when their product is there.
    for (int b = 0; b < num_blocks + 2; b += 2) {
        for_constants<2>([&]<int I>() TL_LAMBDA {
            const int now = b + I;
            if (now + 1 < num_blocks) dot_block<1 - I>(x + (now + 1) * kStep, panel[now + 1].q);
            if (now >= 2 && now < num_blocks + 2) {
                finish_block<Q>(x + (now - 2) * kStep, panel[now - 2], sums[(now - 2) % 4], acc);
            }
            if (now < num_blocks) tile_store<I>(sums[now % 4], kTileBytes);
        });
    }
    write_group(args, tile, group, acc);
}

// Tiles whose panels are made together: each reads a group's activations while the L2 cache has them.
template <class Q> int small_tiles(int num_inputs) {
    constexpr size_t kPanelBytes = 320 << 10;
    const size_t fitting = kPanelBytes / (size_t(num_inputs / 32) * sizeof(typename Q::Panel));
    return fitting < 1 ? 1 : fitting > 4 ? 4 : int(fitting);
}

template <class Q> size_t small_scratch_bytes(int num_inputs) {
    return small_tiles<Q>(num_inputs) * size_t(num_inputs / 32) * sizeof(typename Q::Panel);
}

template <class Q> void small_matmul(const MatmulArgs& args, int tile_begin, int tile_end, uint8_t* scratch) {
    if (!args.interleaved) return kNarrow<Q>.matmul(args, tile_begin, tile_end, scratch);
    const Tiles tiles(kTileTokens, 32);
    const Groups groups(args, Q::kActivations);
    const int num_blocks = args.num_inputs / 32, most = small_tiles<Q>(args.num_inputs);
    auto* panels = (typename Q::Panel*)scratch;
    for (int tile = tile_begin; tile < tile_end; tile += most) {
        const int count = tile_end - tile < most ? tile_end - tile : most;
        for (int i = 0; i < count; i++) {
            const uint8_t* weights = args.weights + size_t(tile + i) * args.tile_bytes;
            for (int b = 0; b < num_blocks; b++) {
                SmallBlock<Q>::unpack(weights + b * Q::kTileBlockBytes, panels[i * num_blocks + b]);
            }
        }
        for (int g = 0; g < groups.count(); g++) {
            for (int i = 0; i < count; i++) small_group<Q>(args, panels + i * num_blocks, groups, tile + i, g);
        }
    }
}

// -- blocks of 256 ---------------------------------------------------------------------------------------------------

// Tokens whose sums are kept while the blocks of a few tiles pass.
constexpr int kChunkGroups = 32;

template <class Q> struct alignas(64) SuperPanel {
    Planes<SuperBlock<Q>::kPlanes> planes;
    typename SuperBlock<Q>::Scales scales;
};

// R tiles at once; each has one sum register per plane, four together.
template <class Q> inline constexpr int kMaxSuperTiles = 4 / SuperBlock<Q>::kPlanes;

// Adds up 64 columns of a group for R tiles.
template <class Q, int R> TL_INLINE void dot_columns(const SuperPanel<Q>* panels, const uint8_t* x, int k) {
    tile_load<4>(x + 1024 * k, kTileBytes);
    for_constants<R>([&]<int I>() TL_LAMBDA {
        const auto& planes = panels[I].planes.bytes;
        if constexpr (SuperBlock<Q>::kPlanes == 2) {
            tile_load<6>(planes[0][16 * k], kTileBytes);
            tile_dot_unsigned<2 * I, 4, 6>();
            tile_load<7>(planes[1][16 * k], kTileBytes);
            tile_dot_signed<2 * I + 1, 4, 7>();
        } else {
            tile_load<6 + I % 2>(planes[0][16 * k], kTileBytes);
            if constexpr (SuperBlock<Q>::kSigned)
                tile_dot_signed<I, 4, 6 + I % 2>();
            else
                tile_dot_unsigned<I, 4, 6 + I % 2>();
        }
    });
}

// By a shuffle, on the port that does not multiply.
TL_INLINE I32 times_256(I32 a) {
    const __m128i up = _mm_setr_epi8(-1, 0, 1, 2, -1, 4, 5, 6, -1, 8, 9, 10, -1, 12, 13, 14);
    return {_mm512_shuffle_epi8(a.v, _mm512_broadcast_i32x4(up))};
}

template <class Q, int R> struct SuperSums { alignas(64) TileSums of[R * SuperBlock<Q>::kPlanes]; };

// Scales the sums of tokens t .. t + 3 of a group, whose block of activations is x.
template <class Q, int R>
TL_INLINE void finish_tokens(const SuperPanel<Q>* panels, const SuperSums<Q, R>& sums, const uint8_t* x, int t,
                             float (*acc)[R][kTileRows]) {
    for_constants<R>([&]<int I>() TL_LAMBDA {
        Regs<I32, 4> i;
        Regs<F32, 4> f;
        each(i, f, [&](int n, I32& v, F32& to) TL_LAMBDA {
            if constexpr (SuperBlock<Q>::kPlanes == 2)
                v = iload(sums.of[2 * I][t + n]) + times_256(iload(sums.of[2 * I + 1][t + n]));
            else
                v = iload(sums.of[I][t + n]);
            to = load(acc[t + n][I]);
        });
        panels[I].scales.template finish<4>(i, BlockRows{x, t}, f);
        each(f, [&](int n, F32& to) TL_LAMBDA { store(acc[t + n][I], to); });
    });
}

template <class Q, int R>
__attribute__((noinline)) void super_block(const SuperPanel<Q>* panels, const uint8_t* x, size_t group_bytes,
                                           int num_groups, float (*acc)[R][kTileRows]) {
    constexpr int kSums = R * SuperBlock<Q>::kPlanes;
    SuperSums<Q, R> sums[2];
    for (int g = 0; g <= num_groups; g++, x += group_bytes) {
        const bool is_last = g == num_groups;
        if (!is_last) for_constants<kSums>([&]<int I>() TL_LAMBDA { tile_zero<I>(); });
        for (int k = 0; k < 4; k++) {
            if (!is_last) dot_columns<Q, R>(panels, x, k);
            if (g > 0) {
                finish_tokens<Q, R>(panels, sums[(g - 1) % 2], x - group_bytes, 4 * k, acc + (g - 1) * kTileTokens);
            }
        }
        if (!is_last) for_constants<kSums>([&]<int I>() TL_LAMBDA { tile_store<I>(sums[g % 2].of[I], kTileBytes); });
    }
}

template <class Q, int R>
void super_tiles(const MatmulArgs& args, const Groups& groups, int tile, int first_group, int num_groups,
                 uint8_t* scratch) {
    auto* panels = (SuperPanel<Q>*)scratch;
    auto* unpacked = (typename Q::Panel*)(panels + R);
    auto* acc = (float (*)[R][kTileRows])(unpacked + 1);
    std::memset(acc, 0, size_t(num_groups) * kTileTokens * sizeof *acc);
    for (int b = 0; b < args.num_inputs / 256; b++) {
        for (int i = 0; i < R; i++) {
            Q::unpack(args.weights + size_t(tile + i) * args.tile_bytes + b * Q::kTileBlockBytes, *unpacked);
            SuperBlock<Q>::planes(*unpacked, panels[i].planes);
            panels[i].scales.take(*unpacked);
        }
        super_block<Q, R>(panels, groups.block(first_group, b), groups.group_bytes, num_groups, acc);
    }
    for (int g = 0; g < num_groups; g++) {
        for (int i = 0; i < R; i++) {
            Regs<F32, kTileTokens> f;
            each(f, [&](int t, F32& v) TL_LAMBDA { v = load(acc[g * kTileTokens + t][i]); });
            write_group(args, tile + i, first_group + g, f);
        }
    }
}

template <class Q> size_t super_scratch_bytes() {
    return kMaxSuperTiles<Q> * (sizeof(SuperPanel<Q>) + kChunkGroups * sizeof(TileSums)) +
           align_up(sizeof(typename Q::Panel), 64);
}

template <class Q> void super_matmul(const MatmulArgs& args, int tile_begin, int tile_end, uint8_t* scratch) {
    if (!args.interleaved) return kNarrow<Q>.matmul(args, tile_begin, tile_end, scratch);
    const Tiles tiles(kTileTokens, kTileBytes);
    const Groups groups(args, Q::kActivations);
    constexpr int R = kMaxSuperTiles<Q>;
    for (int first = 0; first < groups.count(); first += kChunkGroups) {
        const int count = groups.count() - first < kChunkGroups ? groups.count() - first : kChunkGroups;
        int tile = tile_begin;
        for (; tile + R <= tile_end; tile += R) super_tiles<Q, R>(args, groups, tile, first, count, scratch);
        for (; tile < tile_end; tile++) super_tiles<Q, 1>(args, groups, tile, first, count, scratch);
    }
}

// -- bfloat16: sums stay in their tiles along K ------------------------------------------------------------------------

constexpr int kBf16Columns = 32;  // of a step
// The activations of two groups for so many steps stay in the first-level cache while the tiles of a call pass.
constexpr int kBf16Steps = 8;
constexpr int kBf16Tiles = 8;

using FloatSums = float[kTileTokens][kTileRows];

// Steps [begin, end) of R tiles with G groups; sums[tile][group] has what came before.
template <int R, int G>
__attribute__((noinline)) void bf16_steps(const uint8_t* weights, size_t tile_bytes, const uint8_t* x,
                                          size_t group_bytes, size_t x_stride, int begin, int end,
                                          FloatSums (*sums)[2]) {
    for_constants<R * G>([&]<int I>() TL_LAMBDA {
        if (begin == 0)
            tile_zero<I>();
        else
            tile_load<I>(sums[I / G][I % G], kTileBytes);
    });
    for (int k = begin; k < end; k++) {
        const uint8_t* w = weights + size_t(k) * 1024;
        if (G == 1) {
            for (int line = 0; line < 1024; line += 64) stream_line<1>(w + line);
        }
        for_constants<G>([&]<int J>() TL_LAMBDA {
            // Few tokens are rows of their own; x_stride says how far apart.
            tile_load<4 + J>(x + J * group_bytes + size_t(k) * (x_stride == kTileBytes ? 1024 : 64), x_stride);
        });
        for_constants<R>([&]<int I>() TL_LAMBDA {
            tile_load<6 + I>(w + I * tile_bytes, kTileBytes);
            for_constants<G>([&]<int J>() TL_LAMBDA { tile_dot_bf16<I * G + J, 4 + J, 6 + I>(); });
        });
    }
    for_constants<R * G>([&]<int I>() TL_LAMBDA { tile_store<I>(sums[I / G][I % G], kTileBytes); });
}

TL_INLINE void write_sums(const MatmulArgs& args, int tile, int token, const FloatSums& sums) {
    for (int t = 0; t < kTileTokens && token + t < args.num_tokens; t++) {
        Regs<F32, 1> f{{}, load(sums[t])};
        write_tile<1>(args, tile, token + t, f);
    }
}

// Rows that are not interleaved, up to sixteen at a time: one pass over the weights, as fast as memory delivers them.
void bf16_stream(const MatmulArgs& args, int tile_begin, int tile_end) {
    alignas(64) FloatSums sums[1][2];
    for (int token = 0; token < args.num_tokens; token += kTileTokens) {
        const int count = args.num_tokens - token < kTileTokens ? args.num_tokens - token : kTileTokens;
        const Tiles tiles(count, kTileBytes);
        for (int tile = tile_begin; tile < tile_end; tile++) {
            bf16_steps<1, 1>(args.weights + size_t(tile) * args.tile_bytes, 0, args.x + size_t(token) * args.x_stride,
                             0, args.x_stride, 0, args.num_inputs / kBf16Columns, sums);
            write_sums(args, tile, token, sums[0][0]);
        }
    }
}

// One or two groups of tokens with up to kBf16Tiles tiles.
template <int G> void bf16_tiles(const MatmulArgs& args, const Groups& groups, int first_group, int tile,
                                 int num_tiles) {
    const int steps = args.num_inputs / kBf16Columns;
    alignas(64) FloatSums sums[kBf16Tiles][2];
    for (int begin = 0; begin < steps; begin += kBf16Steps) {
        const int end = begin + kBf16Steps < steps ? begin + kBf16Steps : steps;
        for (int i = 0; i < num_tiles; i += 2) {
            const auto run = i + 1 < num_tiles ? bf16_steps<2, G> : bf16_steps<1, G>;
            run(args.weights + size_t(tile + i) * args.tile_bytes, args.tile_bytes, groups.block(first_group, 0),
                groups.group_bytes, kTileBytes, begin, end, sums + i);
        }
    }
    for (int i = 0; i < num_tiles; i++) {
        for (int g = 0; g < G; g++) write_sums(args, tile + i, (first_group + g) * kTileTokens, sums[i][g]);
    }
}

void bf16_matmul(const MatmulArgs& args, int tile_begin, int tile_end, uint8_t* scratch) {
    if (args.num_inputs % kBf16Columns != 0) return kNarrow<BFloat16>.matmul(args, tile_begin, tile_end, scratch);
    if (!args.interleaved) return bf16_stream(args, tile_begin, tile_end);
    const Tiles tiles(kTileTokens, kTileBytes);
    const Groups groups(args, ActFormat::kBF16);
    for (int tile = tile_begin; tile < tile_end; tile += kBf16Tiles) {
        const int count = tile_end - tile < kBf16Tiles ? tile_end - tile : kBf16Tiles;
        int g = 0;
        for (; g + 1 < groups.count(); g += 2) bf16_tiles<2>(args, groups, g, tile, count);
        if (g < groups.count()) bf16_tiles<1>(args, groups, g, tile, count);
    }
}

// -- the table: that of AVX-512 with other products ---------------------------------------------------------------------

template <class Q> size_t scratch_bytes(int num_inputs) {
    const size_t narrow = kNarrow<Q>.matmul_scratch_bytes(num_inputs);
    size_t wide;
    if constexpr (Q::kBlock == 32)
        wide = small_scratch_bytes<Q>(num_inputs);
    else
        wide = super_scratch_bytes<Q>();
    return narrow > wide ? narrow : wide;
}

constexpr int kMaxFormats = 64;
// The AVX-512 kernels of formats without a product here.
template <Precision P> FormatKernels kByRows[kMaxFormats];

// Takes interleaved rows apart, some at a time, for a product that knows rows only.
constexpr int kRowsAtOnce = 32;

template <Precision P, int I> void matmul_by_rows(const MatmulArgs& args, int tile_begin, int tile_end,
                                                  uint8_t* scratch) {
    if (!args.interleaved) return kByRows<P>[I].matmul(args, tile_begin, tile_end, scratch);
    const InterleavedLayout layout{{kByRows<P>[I].activations, args.num_inputs}};
    MatmulArgs part = args;
    part.interleaved = false;
    part.x = scratch;
    for (int token = 0; token < args.num_tokens; token += kRowsAtOnce) {
        part.num_tokens = args.num_tokens - token < kRowsAtOnce ? args.num_tokens - token : kRowsAtOnce;
        part.out = args.out + size_t(token) * args.out_stride;
        for (int t = 0; t < part.num_tokens; t++) {
            const int group = (token + t) / kInterleavedRows * kInterleavedRows;
            layout.take(args.x + size_t(group) * args.x_stride, (token + t) % kInterleavedRows,
                        scratch + size_t(t) * args.x_stride);
        }
        kByRows<P>[I].matmul(part, tile_begin, tile_end, scratch + kRowsAtOnce * args.x_stride);
    }
}
template <Precision P, int I> size_t by_rows_scratch_bytes(int num_inputs) {
    return kRowsAtOnce * ActLayout{kByRows<P>[I].activations, num_inputs}.row_bytes() +
           kByRows<P>[I].matmul_scratch_bytes(num_inputs);
}

template <Precision P> struct Formats {
    FormatKernels table[kMaxFormats];
    int count = 0;

    FormatKernels& of(int type) {
        int i = 0;
        while (table[i].gguf_type != type) i++;
        return table[i];
    }
    template <class Q> FormatKernels& take() {
        kNarrow<Q> = kByRows<P>[&of(Q::kType) - table];
        return of(Q::kType);
    }
    template <class Q> void small() {
        FormatKernels& kernels = take<Q>();
        kernels.matmul = small_matmul<Q>;
        kernels.matmul_scratch_bytes = scratch_bytes<Q>;
    }
    template <class Q> void super() {
        FormatKernels& kernels = take<Q>();
        kernels.matmul = super_matmul<Q>;
        kernels.matmul_scratch_bytes = scratch_bytes<Q>;
    }

    Formats() {
        const Kernels& avx512 = avx512::kernels();
        for (; count < avx512.num_formats && count < kMaxFormats; count++) table[count] = avx512.formats[int(P)][count];
        for_constants<kMaxFormats>([&]<int I>() {
            if (I >= count || table[I].activations == ActFormat::kF32) return;
            kByRows<P>[I] = table[I];
            table[I].matmul = matmul_by_rows<P, I>;
            table[I].matmul_scratch_bytes = by_rows_scratch_bytes<P, I>;
        });
        if constexpr (P == Precision::kInt8) set_products_of_bytes();
        if constexpr (P != Precision::kF32) take<BFloat16>().matmul = bf16_matmul;
    }

    void set_products_of_bytes() {
        small<Q8_0>();
        small<Q4_0>();
        small<Q4_1>();
        small<Q5_0>();
        small<Q5_1>();
        small<IQ4NL>();
        small<MXFP4>();
        super<Q2K>();
        super<Q3K>();
        super<Q4K>();
        super<Q5K>();
        super<Q6K>();
        super<IQ4XS>();
    }
};

}  // namespace

const Kernels& kernels() {
    static const Formats<Precision::kInt8> bytes;
    static const Formats<Precision::kBF16> halves;
    static const Formats<Precision::kF32> floats;
    static const Kernels table = [] {
        Kernels k = avx512::kernels();
        k.level = "amx";
        k.formats[int(Precision::kInt8)] = bytes.table;
        k.formats[int(Precision::kBF16)] = halves.table;
        k.formats[int(Precision::kF32)] = floats.table;
        k.interleaves = true;
        k.fast = nullptr;  // its rows are interleaved, and its tiles multiply exactly
        k.num_fast = 0;
        k.run_dots = run_dots;
        return k;
    }();
    return table;
}

}  // namespace tl::TL_LEVEL
