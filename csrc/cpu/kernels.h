// The table of kernels: one set per instruction-set level, chosen once at import (dispatch.cpp).
//
// Every function here is a pure computation on memory that the caller owns: no allocation, no locks, no threads.
// Work is split by the caller into ranges; the value of an output never depends on how it was split, on the number
// of rows computed together, or on the batch (the promise: bit-identical results).
#pragma once

#include <cstddef>
#include <cstdint>

#include "core/activations.h"
#include "core/kv_layout.h"

namespace tl {

// A weight matrix packed into tiles of 16 output rows; see csrc/quants for the bytes of a tile.
inline constexpr int kTileRows = 16;

struct MatmulArgs {
    const uint8_t* weights;  // packed tiles
    size_t tile_bytes;       // bytes of one tile (16 rows x all of K)
    int num_inputs;          // K
    int num_rows;            // N, output rows that exist; the last tile may be partly padding
    const uint8_t* x;        // activation rows in the format's ActFormat
    size_t x_stride;         // bytes
    int num_tokens;          // M
    float* out;              // out[token * out_stride + row - out_row]
    size_t out_stride;       // floats
    const float* bias;       // per row, or null
    bool accumulate;         // out += result (a residual) instead of out = result
    int out_row = 0;         // the output row that out[0] stands for
    // x is sixteen rows after sixteen, interleaved (InterleavedLayout), 16 * x_stride bytes from one to the next.
    bool interleaved = false;
};

// How exactly products take their activations: as int8 with scales, or at least as bfloat16 or float. Weights are then
// multiplied as such numbers, whatever they are stored as.
enum class Precision : uint8_t { kInt8, kBF16, kF32 };
inline constexpr int kNumPrecisions = 3;

// What the executor needs to know of one weight format at one level and precision.
struct FormatKernels {
    int gguf_type;          // GGUF tensor type id
    int block;              // elements of one block of a row
    size_t block_bytes;     // bytes of one block of a row, as in the file
    ActFormat activations;  // what `matmul` reads
    // Bytes of one packed tile of 16 rows and num_inputs columns, a multiple of 32.
    size_t (*tile_bytes)(int num_inputs);
    // Packs 16 rows of num_inputs elements (a null row is padding, packed so that it decodes to zero).
    void (*pack)(const uint8_t* const* rows, int num_inputs, uint8_t* tile);
    // Computes tiles [tile_begin, tile_end) for all tokens; scratch has matmul_scratch_bytes(K), 64-aligned.
    void (*matmul)(const MatmulArgs& args, int tile_begin, int tile_end, uint8_t* scratch);
    size_t (*matmul_scratch_bytes)(int num_inputs);
    // Decodes one row straight from the file's bytes: embedding look-up, and the slow twin of tests.
    void (*decode_row)(const uint8_t* row, int num_elements, float* out);
};

// Products of a format in fast mode (fast.cpp): weights as int8 with one scale per 256 columns, activations as in the exact
// product with int8. Only for formats whose activations are kInt8x256.
struct FastKernels {
    int gguf_type;
    // As FormatKernels::matmul, with rows that are not interleaved; scratch has scratch_bytes, 64-aligned.
    void (*matmul)(const MatmulArgs& args, int tile_begin, int tile_end, uint8_t* scratch);
    size_t scratch_bytes;
};

struct AttentionArgs {
    const float* q;           // query rows of the run; row t is q + t * q_stride, head h at h * head_dim
    size_t q_stride;          // floats
    float* out;               // same shape as q
    size_t out_stride;        // floats
    const uint8_t* pages;     // address of page 0 at this layer
    size_t page_bytes;        // distance of two pages
    const int32_t* page_ids;  // the sequence's page table: position p lies in page_ids[p / kPageTokens]
    int first_position;       // of the run's row 0; row t is at first_position + t
    // Null, or what a tree of drafted tokens has instead: of each row of the run, its position and the row before it (-1
    // for row 0). A row sees the positions before the run's and the rows that it follows, directly or not. Keys and
    // values of row t lie where those of position first_position + t would.
    const int32_t* positions;
    const int32_t* parents;
    int row_begin, row_end;  // query rows to compute (at most kAttentionRows)
    int kv_head;             // computes query heads kv_head * group .. + group - 1
    int group;               // query heads per key/value head
    const KvLayout* layout;
    float scale;
    int window;  // keys visible, counting the token itself; 0 = all
    // The keys of positions below this are visible to every row, those behind it too; 0 = up to its own position.
    int num_keys;
    // Shape of the scores, after scale: cap * tanh(score / cap) where softcap > 0, then + slope of the query head times
    // (key position - query position) where slopes (one per query head) is not null. sinks (one per query head, or
    // null) are scores without a value, added to the denominator.
    float softcap;
    const float* slopes;
    const float* sinks;
    // Ranges of kAttentionRange positions to work on. Without `partials` these are all ranges that the rows see, and
    // out is written. With it, `attention` leaves each range's result there, range_begin's first, and
    // `attention_merge`, called for all ranges, folds them and writes out. The bits are the same.
    int range_begin, range_end;
    float* partials;
    size_t partial_stride;  // floats from one range's to the next
    uint8_t* scratch;       // attention_scratch_bytes(), 64-aligned
};

// Query rows of one attention call: enough to reuse each page of K and V, small enough to split work finely.
inline constexpr int kAttentionRows = 16;
// Positions whose keys are summed up on their own, whoever does it: a part of the arithmetic. Several pages, so that
// folding costs little; few enough to give every thread work when a long context has few heads.
inline constexpr int kAttentionRange = 512;
static_assert(kAttentionRange % kPageTokens == 0);

// Floats of one range's partial results for the pairs (row, query head) of a call.
TL_SHARED_CONSTEXPR size_t attention_partial_floats(const KvLayout& layout, int num_pairs) {
    return align_up(size_t(num_pairs) * (2 + layout.value_width()), kRowAlignment / sizeof(float));
}

// A convolution over the rows of a run, channel by channel, and SiLU.
inline constexpr int kMaxTaps = 16;
struct CausalConvArgs {
    const float* x;        // num_rows rows
    float* out;            // as x, not x itself
    size_t stride;         // floats, of both
    const float* weights;  // num_taps rows: weights[j] meets the row num_taps - 1 - j before
    size_t weight_stride;
    float* history;  // num_taps - 1 rows before x; then those before what follows
    size_t history_stride;
    int num_taps, num_rows, num_channels;
};

// The gated delta rule over the rows of a run, for some columns of one head: whole blocks of kDeltaColumns, but for the last.
inline constexpr int kDeltaColumns = 32;
struct GatedDeltaArgs {
    const float *q, *k, *v;  // of the run's first row: q and k of the key head, v of these columns
    size_t x_stride;         // floats
    const float *step, *beta;
    size_t step_stride, beta_stride;
    float decay, step_bias;
    float* state;  // of each block (key_dim, kDeltaColumns); columns that do not exist are zero
    float* out;
    size_t out_stride;
    int num_rows, key_dim;
    int num_columns;
    float* scratch;  // gated_delta_scratch_floats()
};

enum class GluActivation : uint8_t { kSilu, kGeluTanh, kGelu, kSwigluClamped, kSigmoid };
// What is done with each element of a value; scale and soft cap have a parameter.
enum class MapFunction : uint8_t { kScale, kSoftCap, kSilu, kGelu, kGeluTanh, kRelu, kReluSquared };
// What a matrix product multiplies: bytes, bfloat16 pairs or floats.
enum class DotKind : uint8_t { kInt8, kBF16, kF32 };
enum class RopeLayout : uint8_t { kInterleaved, kHalf };

struct Kernels {
    const char* level;                             // "scalar", "avx2", "avxvnni", "avx512", "amx"
    const FormatKernels* formats[kNumPrecisions];  // the same formats in the same order; all but products is alike
    int num_formats;
    const FastKernels* fast;  // null: none at this level
    int num_fast;
    // Whether products of kInterleavedRows or more rows read them interleaved, where their layout allows it.
    bool interleaves;

    // out (ActFormat rows, stride bytes) = x (float rows, stride floats), converted.
    void (*convert_rows)(const float* x, size_t x_stride, int num_rows, ActLayout layout, uint8_t* out);
    // out = rms_norm(x) * weight, converted to the layout: x / sqrt(mean(x^2) + eps) * weight.
    void (*rms_norm_rows)(const float* x, size_t x_stride, const float* weight, float eps, int num_rows,
                          ActLayout layout, uint8_t* out);
    // The same of the deviations from the row's mean, and bias, where it is not null, added to the result.
    void (*layer_norm_rows)(const float* x, size_t x_stride, const float* weight, const float* bias, float eps,
                            int num_rows, ActLayout layout, uint8_t* out);
    // out = activation(gate) * up, converted to the layout.
    void (*glu_rows)(GluActivation activation, const float* gate, const float* up, size_t stride, int num_rows,
                     ActLayout layout, uint8_t* out);
    // out = function(x), converted to the layout.
    void (*map_rows)(MapFunction function, float parameter, const float* x, size_t stride, int num_rows,
                     ActLayout layout, uint8_t* out);
    // out[i] = a[i] + b[i] for num_elements.
    void (*add)(const float* a, const float* b, float* out, size_t num_elements);
    // out[i] = (out[i] if accumulate +) the sum of weights[r] * rows[r][i], in the order of r; num_rows > 0.
    void (*combine)(const float* const* rows, const float* weights, int num_rows, bool accumulate, float* out,
                    int num_elements);
    void (*causal_conv)(const CausalConvArgs& args);
    void (*gated_delta)(const GatedDeltaArgs& args);
    size_t (*gated_delta_scratch_floats)(int key_dim);
    // Rotates num_heads heads of one row in place. cos and sin have `pairs` entries, the magnitude folded in.
    void (*rope_row)(float* row, int num_heads, int head_dim, RopeLayout layout, int pairs, const float* cos,
                     const float* sin);
    // Writes one token's keys and values (float, num_kv_heads * head_dim each; of them key/value heads head_begin ..
    // head_end - 1) into its page at `slot`
    // (position % kPageTokens). page points at the page's bytes for this layer. Tokens of one page may be
    // written by several threads at once. The executor clears a page before its first token is written, so that stale
    // numbers of an earlier sequence can never meet a weight of zero as NaN.
    void (*kv_write)(const float* k, const float* v, const KvLayout& layout, int slot, int head_begin, int head_end,
                     uint8_t* page);
    // Flash-style attention of a few query rows of one sequence with one key/value head.
    void (*attention)(const AttentionArgs& args);
    void (*attention_merge)(const AttentionArgs& args);
    size_t (*attention_scratch_bytes)(const KvLayout& layout, int group);
    // Reads num_bytes (a multiple of 256) and returns something that depends on all of them.
    uint64_t (*read_bytes)(const uint8_t* p, size_t num_bytes);
    // Computes dot products in registers for some rounds; returns the operations (two per multiply-add) that it made.
    double (*run_dots)(DotKind kind, int num_rounds);
};

// Filled by each level's translation units.
namespace scalar {
const Kernels& kernels();
}
namespace avx2 {
const Kernels& kernels();
}
namespace avxvnni {
const Kernels& kernels();
}
namespace avx512 {
const Kernels& kernels();
}
namespace amx {
const Kernels& kernels();
}

// The level chosen at import (see dispatch.cpp). Throws std::runtime_error naming the levels for an unknown or
// unavailable TORCHLESS_ISA.
const Kernels& active_kernels();

}  // namespace tl
