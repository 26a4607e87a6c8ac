// Matrix products in fast mode: weights in Q4_K, Q5_K, Q6_K and IQ4_XS become int8 with one scale for a row's 256 columns, on the
// way to the dot products.
//
//   s[n] = max |w| / 127 over row n of a block, v = round(w / s[n])       w: the weights as decode_block has them
//   out[t][n] (+)= sum over blocks of (v . a[t]) * (s[n] * scale[t]) (+ bias[n])
//
// The exact products (quants/*.h) put a multiply-add with a sub-block's scale behind every 16 or 32 columns, and minima
// have dot products of their own. Here 256 columns are one chain of dot products, then one multiply-add:
// 64 T dot products, 2 T other operations per block and group of T tokens. The price is a second rounding of the
// weights (docs/performance.md says what it costs), and making the int8 panel: about 9 operations per 16 weights, shared
// by all tokens of a call.
//
// Four tiles' panels (16 KB) stay in the L1 cache while a group of tokens meets them one after another; the sums of all
// tokens wait in memory between two blocks, unrounded. So the bits of a row do not depend on the tokens beside it.
//
// At AVX-512 only. Measured and left out: AVX2, whose dot product of signed bytes is so dear that the exact products are
// 1.3 times as fast; Q2_K and Q3_K, whose exact panels hold scaled weights already (3 to 5 %).
#include <cfloat>

#include "cpu/level.h"
#include "cpu/token_groups.h"
#include "cpu/write_tile.h"
#include "quants/iq4_xs.h"
#include "quants/q4_k.h"
#include "quants/q5_k.h"
#include "quants/q6_k.h"

namespace tl::TL_LEVEL {
#if defined(TL_LEVEL_AVX512)
namespace {

constexpr int kColumns = 256;      // of a panel: one block of every format here
constexpr int kTiles = 4;          // whose panels are held at once
constexpr int kRoundTokens = 512;  // whose sums are held at once; more are done in rounds

// Four columns of sixteen rows in 64 bytes, as the dot products take them.
struct alignas(64) FastPanel {
    uint8_t q[kColumns / 4][64];
    float scale[kTileRows];
};

template <class Q> struct Scratch {
    FastPanel panels[kTiles];
    alignas(64) float sums[kTiles][kRoundTokens][kTileRows];
    alignas(64) float weights[kColumns][kTileRows];  // of one block, column by column
    typename Q::Panel unpacked;
};

// weights / largest * 127, rounded. A row of zeros, or so small that its scale is no normal number, becomes zeros.
TL_INLINE void requantise(const float (*weights)[kTileRows], F32 largest, FastPanel& panel) {
    alignas(64) float inverse[kTileRows];
    store(inverse, largest);
    for (int r = 0; r < kTileRows; r++) {
        const bool is_zero = inverse[r] < 127.0f * FLT_MIN;
        panel.scale[r] = is_zero ? 0.0f : inverse[r] / 127.0f;
        inverse[r] = is_zero ? 0.0f : 127.0f / inverse[r];
    }
    const F32 factor = load(inverse), offset = set1(128.0f);
    TL_UNROLL(1)
    for (int g = 0; g < kColumns / 4; g++) {
        const auto code = [&](int k) TL_LAMBDA { return to_int(load(weights[4 * g + k]) * factor + offset); };
        bstore(panel.q[g], signed_form(join_bytes(code(0), code(1), code(2), code(3))));
    }
}

template <class Q>
__attribute__((noinline)) void make_panel(const uint8_t* block, Scratch<Q>& scratch, FastPanel& panel) {
    static_assert(Q::kBlock == kColumns);
    Q::unpack(block, scratch.unpacked);
    F32 largest = zero();
    Q::widen(scratch.unpacked, [&](int pair, F32 even, F32 odd) TL_LAMBDA {
        store(scratch.weights[2 * pair], even);
        store(scratch.weights[2 * pair + 1], odd);
        largest = max(largest, max(abs(even), abs(odd)));
    });
    requantise(scratch.weights, largest, panel);
}

// Where the dot products of block b with num_tokens rows start: at the opposite of what the offset of the weights' bytes
// will add to them.
void find_starts(const ActRows& x, int b, int num_tokens, int32_t* starts) {
    for (int t = 0; t < num_tokens; t++) {
        const int16_t* sum32 = x.sum32<int16_t>(t) + kColumns / 32 * b;
        int sum = 0;
        for (int i = 0; i < kColumns / 32; i++) sum += sum32[i];
        starts[t] = -kSignedOffset * sum;
    }
}

// sums[t] += block b of T tokens; the first block starts them.
template <int T>
__attribute__((noinline)) void fast_tile(const FastPanel& panel, int b, const ActRows& x, const int32_t* starts,
                                         float (*sums)[kTileRows]) {
    Regs<const int8_t*, T> a = columns<T>(x, kColumns * b);
    Regs<I32, T> part;
    each(part, [&](int t, I32& v) TL_LAMBDA { v = iset1(starts[t]); });
    TL_UNROLL(16)
    for (int g = 0; g < kColumns / 4; g++) {
        const Bytes w = bload(panel.q[g]);
        each(part, a, [&](int, I32& v, const int8_t*& row) TL_LAMBDA { dot4_signed(v, w, row + 4 * g); });
    }
    const F32 scale = load(panel.scale);
    each(part, [&](int t, I32& v) TL_LAMBDA {
        const F32 before = b == 0 ? zero() : load(sums[t]);
        store(sums[t], fma(to_float(v), scale * set1(x.scale(t)[b]), before));
    });
}

// At most kTiles tiles and kRoundTokens tokens from `token` on.
template <class Q>
void run_round(const MatmulArgs& args, int tile, int num_tiles, int token, int count, Scratch<Q>& scratch) {
    const uint8_t* x = args.x + size_t(token) * args.x_stride;
    ActRows rows({Q::kActivations, args.num_inputs});
    for (int b = 0; b < args.num_inputs / kColumns; b++) {
        for (int i = 0; i < num_tiles; i++) {
            const uint8_t* weights = args.weights + size_t(tile + i) * args.tile_bytes;
            make_panel<Q>(weights + size_t(b) * Q::kTileBlockBytes, scratch, scratch.panels[i]);
        }
        in_groups<kMicroTokens>(count, [&]<int T>(int t) {
            rows.set(x + size_t(t) * args.x_stride, args.x_stride, T);
            int32_t starts[T];
            find_starts(rows, b, T, starts);
            for (int i = 0; i < num_tiles; i++) fast_tile<T>(scratch.panels[i], b, rows, starts, scratch.sums[i] + t);
        });
    }
    for (int i = 0; i < num_tiles; i++) {
        in_groups<kMicroTokens>(count, [&]<int T>(int t) {
            Regs<F32, T> acc;
            each(acc, [&](int k, F32& f) TL_LAMBDA { f = load(scratch.sums[i][t + k]); });
            write_tile<T>(args, tile + i, token + t, acc);
        });
    }
}

template <class Q> void fast_matmul(const MatmulArgs& args, int tile_begin, int tile_end, uint8_t* scratch) {
    for (int tile = tile_begin; tile < tile_end; tile += kTiles) {
        const int num_tiles = tile_end - tile < kTiles ? tile_end - tile : kTiles;
        for (int token = 0; token < args.num_tokens; token += kRoundTokens) {
            const int left = args.num_tokens - token, count = left < kRoundTokens ? left : kRoundTokens;
            run_round<Q>(args, tile, num_tiles, token, count, *(Scratch<Q>*)scratch);
        }
    }
}

template <class Q> constexpr FastKernels fast() {
    static_assert(Q::kActivations == ActFormat::kInt8x256);
    return {Q::kType, fast_matmul<Q>, sizeof(Scratch<Q>)};
}

constexpr FastKernels kFast[] = {fast<Q4K>(), fast<Q5K>(), fast<Q6K>(), fast<IQ4XS>()};

}  // namespace

const FastKernels* fast_kernels(int& count) {
    count = int(sizeof kFast / sizeof kFast[0]);
    return kFast;
}
#else
const FastKernels* fast_kernels(int& count) {
    count = 0;
    return nullptr;
}
#endif

}  // namespace tl::TL_LEVEL
