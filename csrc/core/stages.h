// The stages of a compiled plan: each runs on all threads and hands its work out in chunks.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "core/best.h"
#include "core/experts.h"
#include "core/page_pool.h"
#include "core/state_pool.h"
#include "core/thread_pool.h"
#include "core/weights.h"
#include "cpu/kernels.h"

namespace tl {

class RowStage;

// A value of the plan in the step arena: rows of one number format.
struct Buffer {
    size_t offset;  // in the arena
    bool outputs;   // one row per wanted output instead of one per token
    ActLayout layout;
    size_t row_bytes;
    int copies = 1;                   // rows for each token or output: one for each expert of a token
    int spare = 0;                    // further rows, where experts' rows begin at multiples of sixteen
    const RowStage* maker = nullptr;  // with few rows its readers call this instead (see RowStage)
};

// One step's batch, checked, with what all stages share. Written by Executor::step before the stages run.
struct Step {
    int num_tokens = 0;
    int num_outputs = 0;
    int num_runs = 0;
    const int32_t* token_ids = nullptr;
    const int32_t* positions = nullptr;
    const int32_t* run_starts = nullptr;
    const int32_t* page_ids = nullptr;
    const int32_t* page_starts = nullptr;
    const int32_t* output_rows = nullptr;
    const int32_t* state_slots = nullptr;  // of each run; null for a plan without states
    const int32_t* row_runs = nullptr;     // run of each token row
    const int32_t* parents = nullptr;      // the row before each, counted from its run's first; -1 for that one

    // Attention work: item i is rows [row, row + kAttentionRows) of a run. Filled once, used by every layer.
    struct RowBlock {
        int run, begin, end;  // token rows of the batch
        bool is_tree;         // of a run in which not every row follows the one before it
    };
    const RowBlock* row_blocks = nullptr;
    int num_row_blocks = 0;

    // Pages whose first token this step writes.
    const int32_t* new_pages = nullptr;
    int num_new_pages = 0;

    // Where a row's keys and values lie in its sequence: at its position, but for a tree's, which lie in the order of rows.
    int slot(int row) const {
        const int first = run_starts[row_runs[row]];
        return positions[first] + (row - first);
    }

    // Largest logits wanted of each output row instead of all of them; 0 = all of them.
    int num_best = 0;

    // Token rows from here on are multiplied in fast arithmetic where there is any.
    int first_fast_row = INT32_MAX;
};

// What stages may touch: owned by the executor.
struct Machine {
    const Kernels& kernels;
    ThreadPool& pool;
    Weights& weights;
    PagePool* pages;    // null for a plan without attention
    StatePool* states;  // null for a plan without recurrent state
    uint8_t* arena;
    uint8_t* scratch;  // scratch_bytes per thread
    size_t scratch_bytes;
    uint8_t* shared;  // of the stage that runs, for all its threads
    size_t shared_bytes;
    BestLists* best;  // null without make_head
    Routes* routes;   // null without make_route
    bool is_fast;     // steps may have rows in fast arithmetic
    std::vector<Buffer> buffers;

    uint8_t* row(int buffer, int row) const {
        return arena + buffers[buffer].offset + size_t(row) * buffers[buffer].row_bytes;
    }
    float* floats(int buffer, int row = 0) const { return reinterpret_cast<float*>(this->row(buffer, row)); }
    size_t stride_floats(int buffer) const { return buffers[buffer].row_bytes / sizeof(float); }
    int num_rows(int buffer, const Step& step) const {
        return buffers[buffer].outputs ? step.num_outputs : step.num_tokens;
    }
    // Whether so many rows of a layout are interleaved for products (see InterleavedLayout).
    bool interleaves(const ActLayout& layout, int num_rows) const {
        return kernels.interleaves && num_rows >= kInterleavedRows && InterleavedLayout{layout}.is_possible();
    }
    // Whether a buffer's rows are interleaved in this step; put_row writes them either way.
    bool is_interleaved(int buffer, const Step& step) const {
        return interleaves(buffers[buffer].layout, num_rows(buffer, step));
    }
    // Puts columns first_column .. + part.width - 1 of a row in their place.
    void put_row(int buffer, const Step& step, int row, ActLayout part, int first_column, const uint8_t* from) const {
        const ActLayout& layout = buffers[buffer].layout;
        if (!is_interleaved(buffer, step))
            return place_columns(layout, part, first_column, from, this->row(buffer, row));
        InterleavedLayout{layout}.put(part, from, first_column, row % kInterleavedRows,
                                      this->row(buffer, row / kInterleavedRows * kInterleavedRows));
    }
    uint8_t* thread_scratch(int thread) const { return scratch + size_t(thread) * scratch_bytes; }
};

class Stage {
 public:
    virtual ~Stage() = default;
    // Called on one thread before a step, in the order of execution: sets up `work_`.
    virtual void prepare(const Machine& machine, const Step& step) = 0;
    // Whether this step runs it; asked once all stages are prepared. A stage whose work its readers do is left out.
    virtual bool is_needed(const Machine&, const Step&) const { return true; }
    // Whether it reads nothing but the batch and the weights: such neighbours need no barrier between them.
    virtual bool reads_batch_only() const { return false; }
    // Called on every thread. Must not allocate or throw.
    virtual void run(const Machine& machine, const Step& step, int thread) = 0;
    // Writes to the memory of the weights that a thread will most likely read, so that it lies near that thread. Called on
    // every thread, after prepare, before the weights are packed.
    virtual void touch_weights(const Machine&, int) {}
    // Scratch memory that one thread needs.
    virtual size_t scratch_bytes(const Machine&) const { return 0; }
    // Memory that its threads share; what it holds is lost when the next stage runs.
    virtual size_t shared_bytes(const Machine&) const { return 0; }

 protected:
    WorkRanges work_;
};

// Makes rows of one number format out of rows of floats, each by itself. With few rows a stage of its own would cost
// more in its barrier than in its work: when it may be shared (`set_shared`), every thread of the product that reads the
// rows makes them again, in its own scratch.
inline constexpr int kSharedRows = 4;

class RowStage : public Stage {
 public:
    explicit RowStage(int out) : out_(out) {}
    void set_shared() { is_shared_ = true; }
    void prepare(const Machine& m, const Step& step) override;
    void run(const Machine& m, const Step& step, int thread) override;
    bool is_needed(const Machine& m, const Step& step) const override {
        return !is_shared_ || m.num_rows(out_, step) > kSharedRows;
    }
    size_t scratch_bytes(const Machine& m) const override { return m.buffers[out_].row_bytes; }
    // Rows [begin, end) to `out`, one after another.
    virtual void make_rows(const Machine& m, const Step& step, int begin, int end, uint8_t* out) const = 0;

 protected:
    int out_;

 private:
    bool is_shared_ = false;
};

// The rows of buffer x that a product reads: those in the arena, or made here, in `scratch` (shared_row_bytes).
inline const uint8_t* input_rows(const Machine& m, const Step& step, int x, uint8_t* scratch) {
    const RowStage* maker = m.buffers[x].maker;
    const int num_rows = m.num_rows(x, step);
    if (!maker || num_rows > kSharedRows) return m.row(x, 0);
    maker->make_rows(m, step, 0, num_rows, scratch);
    return scratch;
}
inline size_t shared_row_bytes(const ActLayout& layout) { return kSharedRows * layout.row_bytes(); }

// Angles of a rope for the step's positions: cos and sin of each (token, pair), both times magnitude and
// 1 + temperature * ln(1 + floor(position / interval)).
struct RopeTable {
    RopeLayout layout;
    std::vector<double> inv_freq;
    double magnitude, temperature;  // temperature 0: none
    int interval;                   // at least 1
    int cos_buffer, sin_buffer;
};

struct MatmulPart {
    int matrix;
    int bias;  // vector index or -1
    int out;
    bool accumulate;
};

struct RopePart {
    int buffer;
    int source;  // what is normalised, if not the buffer itself: a part before the one that changes it
    int num_heads;
    int head_dim;
    int rope;  // index of a RopeTable; -1: none
    int norm;  // vector of an RMS norm of each head, before it is rotated; -1: none
    float eps;
};

// Zeroes the pages that the step begins to use (see Kernels::kv_write).
std::unique_ptr<Stage> make_clear_pages();
// Row `first` + the token's id, position or type of a table. An id in a batch is type * num_ids + id.
enum class EmbedIndex : uint8_t { kToken, kPosition, kType };
struct EmbedParts {
    int table;
    EmbedIndex index;
    int first;
    int num_ids;
    float scale;
    int out;
};
std::unique_ptr<Stage> make_embed(const EmbedParts& parts);
std::unique_ptr<Stage> make_rope_table(const RopeTable& table);
std::unique_ptr<RowStage> make_convert(int x, int out);
// When x has a row per token and out one per output, a norm takes the rows of the outputs.
std::unique_ptr<RowStage> make_rms_norm(int x, int weight, float eps, int out);
std::unique_ptr<RowStage> make_layer_norm(int x, int weight, int bias, float eps, int out);  // bias: a vector or -1
std::unique_ptr<Stage> make_matmul(int x, std::vector<MatmulPart> parts);
// The product that makes the logits: Machine::best gets the best of each row when the step asks for them.
std::unique_ptr<Stage> make_head(int x, const MatmulPart& part);
// Scratch of one thread for it, beside that of the matrix kernels.
size_t head_scratch_bytes();
// Rotates in place, then stores keys and values of this step in the layer's pages; k, v -1: nothing.
class RopeKvStage : public Stage {
 public:
    bool is_needed(const Machine&, const Step&) const override { return !is_left_; }
    // Whether this step leaves its work to the attention behind it.
    void leave(bool is_left) { is_left_ = is_left; }
    // One row's share of one key/value head and the query heads of its group.
    virtual void rotate_and_store(const Machine& m, const Step& step, int row, int kv_head) const = 0;

 private:
    bool is_left_ = false;
};
std::unique_ptr<RopeKvStage> make_rope_kv(std::vector<RopePart> parts, const std::vector<RopeTable>& ropes, int k,
                                          int v, int layer);
struct AttentionShape {
    int num_heads;
    float scale;
    int window;                 // 0 = all keys
    float softcap;              // 0 = none
    std::vector<float> slopes;  // ALiBi, one per query head; empty = none
    int sinks;                  // a vector with one score per query head, or -1
    bool causal;                // false: every row sees all keys of its sequence, which is whole in a step
};
// rope_kv: the stage before it, whose work it does itself when nobody else needs it (null: never).
std::unique_ptr<Stage> make_attention(int q, int out, int layer, AttentionShape shape, RopeKvStage* rope_kv);
// Memory that its threads share, for a cache of num_pages.
size_t attention_shared_bytes(const KvLayout& layout, int num_heads, int num_pages);
// up_start: the first column of `up` that is multiplied.
std::unique_ptr<Stage> make_glu(int gate, int up, int up_start, int out, GluActivation activation);
// activation(gate(x)) * up(x), a group of columns at a time: neither product is ever held as a whole.
// The width is a multiple of kGroupColumns.
struct GatedMatmul {
    int x;
    int gate, gate_bias;  // matrix, vector index or -1
    int up, up_bias;
    int out;
    GluActivation activation;
};
std::unique_ptr<Stage> make_gated_matmul(const GatedMatmul& parts);
// Scratch of one thread for it, beside that of the matrix kernels.
size_t gated_matmul_scratch_bytes(bool is_fast);
// out = function(x), element by element.
std::unique_ptr<RowStage> make_map(int x, int out, MapFunction function, float parameter);
std::unique_ptr<Stage> make_add(int a, int b, int out);

// A mixture of experts, in three stages: experts chosen and pairs sorted; the gated product; the down product and the sum.
inline constexpr int kMaxExpertsUsed = 64;  // by one token
// Matrices `first`, first + 1, ... of a layer's experts, and a vector of all their biases or -1.
struct ExpertMatrices { int first, bias; };
struct RouteParts {
    int logits;              // buffer of floats, one for each expert
    int bias, expert_scale;  // vectors or -1: see choose_experts
    int width;               // of the gated product
    Routing routing;
};
struct ExpertsGatedParts {
    int x, up_x;  // the same rows for gate and up, in the number format of each
    ExpertMatrices gate, up;
    int out;  // rows of pairs, not of tokens
    GluActivation activation;
};
struct ExpertsDownParts {
    int x;
    ExpertMatrices down;
    int out;
    bool accumulate;
    int num_used;
    int max_tokens;  // of a step
};
// Throws std::invalid_argument when the matrices differ.
void check_experts(const Weights& weights, const ExpertMatrices& matrices, int num_experts, const char* name);
std::unique_ptr<Stage> make_route(const RouteParts& parts);
std::unique_ptr<Stage> make_experts_gated(const ExpertsGatedParts& parts);
std::unique_ptr<Stage> make_experts_down(const ExpertsDownParts& parts);
// Scratch of one thread: of the gated product, whose kernels need `kernel` bytes, and of the sum, beside its kernel's.
size_t experts_gated_scratch_bytes(const ActLayout& x, const ActLayout& up_x, size_t kernel);
size_t experts_part_bytes(int max_tokens, int num_used);
// Columns of buffers side by side: every piece, then every piece `stride` further, `count` times in all.
struct ColumnPiece { int buffer, start, width, stride; };
std::unique_ptr<Stage> make_columns(std::vector<ColumnPiece> pieces, int count, int out);
// Heads of float rows, each normalised by itself: to = from / sqrt(mean(from^2) + eps) * weight (a vector). May be in place.
inline constexpr int kMaxNormedHead = 1024;
void normalise_heads(const Machine& m, const float* from, int weight, float eps, int num_heads, int head_dim,
                     float* to);
struct HeadsNormParts {
    int x, weight, num_heads;
    float eps;
    int out;
};
std::unique_ptr<Stage> make_heads_norm(const HeadsNormParts& parts);
// Each head of x times a matrix of its own: matrices first, first + 1, ...
std::unique_ptr<Stage> make_heads_matmul(int x, int first, int num_heads, int out);
size_t heads_scratch_bytes(const ActLayout& layout, size_t kernel);
// What follows keeps recurrent state: `state` is the number of it in a slot. A run at position 0 starts with zeros.
// weights: a vector with a row of channels for each tap.
std::unique_ptr<Stage> make_causal_conv(int x, int weights, int num_taps, int out, int state);
size_t causal_conv_state_floats(int num_channels, int num_taps);
// One number for each head: those of a row of `buffer` from `start` on, `width` and then `stride` further, and so on.
struct HeadColumns { int buffer, start, width, stride; };
struct GatedDeltaParts {
    int x;
    HeadColumns step, beta;
    int decay, step_bias;  // vectors
    int num_key_heads, num_heads, key_dim, value_dim;
    bool is_tiled;  // key head h % num_key_heads serves value head h
    int out;
    int state;
};
std::unique_ptr<Stage> make_gated_delta(const GatedDeltaParts& parts);
size_t gated_delta_state_floats(int num_heads, int key_dim, int value_dim);
// Heads of x normalised, then activation(gate) * the result.
struct GatedNormParts {
    int x, weight, num_heads;
    float eps;
    int gate;
    GluActivation activation;
    int out;
};
std::unique_ptr<Stage> make_gated_norm(const GatedNormParts& parts);
size_t gated_norm_scratch_bytes(const ActLayout& out);
// Rows of x times the sigmoid of their one number in gate.
std::unique_ptr<Stage> make_gate_rows(int x, int gate, int out);
std::unique_ptr<Stage> make_select(int x, int out);
// out = base + the terms' rows by each row's coefficients, those from column `first` on.
std::unique_ptr<Stage> make_weighted_sum(int base, std::vector<int> terms, int coefficients, int first, int out);
// Rows of x as large as those of `like`: by their roots of mean squares, x's square counted as `floor` at least.
std::unique_ptr<Stage> make_match_magnitude(int x, int like, float floor, int out);
// What of each row lies above its mean plus so many standard deviations, else 0.
std::unique_ptr<Stage> make_keep_above(int x, float deviations, int out);
// Columns of x by the elements of a vector.
std::unique_ptr<Stage> make_scale_columns(int x, int weight, int out);

}  // namespace tl
