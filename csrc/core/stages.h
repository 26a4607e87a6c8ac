// The stages of a compiled plan: each runs on all threads and hands its work out in chunks.
#pragma once

#include <memory>
#include <vector>

#include "core/page_pool.h"
#include "core/thread_pool.h"
#include "core/weights.h"
#include "cpu/kernels.h"

namespace tl {

// A value of the plan in the step arena: rows of one number format.
struct Buffer {
    size_t offset;  // in the arena
    bool outputs;   // one row per wanted output instead of one per token
    ActLayout layout;
    size_t row_bytes;
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
    const int32_t* row_runs = nullptr;  // run of each token row

    // Attention work: item i is rows [row, row + kAttentionRows) of a run. Filled once, used by every layer.
    struct RowBlock {
        int run, begin, end;  // token rows of the batch
    };
    const RowBlock* row_blocks = nullptr;
    int num_row_blocks = 0;

    // Pages whose first token this step writes.
    const int32_t* new_pages = nullptr;
    int num_new_pages = 0;
};

// What stages may touch: owned by the executor.
struct Machine {
    const Kernels& kernels;
    ThreadPool& pool;
    Weights& weights;
    PagePool* pages;  // null for a plan without attention
    uint8_t* arena;
    uint8_t* scratch;  // scratch_bytes per thread
    size_t scratch_bytes;
    uint8_t* shared;  // of the stage that runs, for all its threads
    size_t shared_bytes;
    std::vector<Buffer> buffers;

    uint8_t* row(int buffer, int row) const {
        return arena + buffers[buffer].offset + size_t(row) * buffers[buffer].row_bytes;
    }
    float* floats(int buffer, int row = 0) const { return reinterpret_cast<float*>(this->row(buffer, row)); }
    size_t stride_floats(int buffer) const { return buffers[buffer].row_bytes / sizeof(float); }
    int num_rows(int buffer, const Step& step) const {
        return buffers[buffer].outputs ? step.num_outputs : step.num_tokens;
    }
    uint8_t* thread_scratch(int thread) const { return scratch + size_t(thread) * scratch_bytes; }
};

class Stage {
 public:
    virtual ~Stage() = default;
    // Called on one thread before a step: sets up `work_`.
    virtual void prepare(const Machine& machine, const Step& step) = 0;
    // Called on every thread. Must not allocate or throw.
    virtual void run(const Machine& machine, const Step& step, int thread) = 0;
    // Scratch memory that one thread needs.
    virtual size_t scratch_bytes(const Machine&) const { return 0; }
    // Memory that its threads share; what it holds is lost when the next stage runs.
    virtual size_t shared_bytes(const Machine&) const { return 0; }

 protected:
    WorkRanges work_;
};

// Angles of a rope for the step's positions: cos and sin of each (token, pair).
struct RopeTable {
    RopeLayout layout;
    std::vector<double> inv_freq;
    double magnitude;
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
    int num_heads;
    int head_dim;
    int rope;  // index of a RopeTable
};

// Zeroes the pages that the step begins to use (see Kernels::kv_write).
std::unique_ptr<Stage> make_clear_pages();
std::unique_ptr<Stage> make_embed(int table, int out, float scale);
std::unique_ptr<Stage> make_rope_table(const RopeTable& table);
std::unique_ptr<Stage> make_convert(int x, int out);
std::unique_ptr<Stage> make_rms_norm(int x, int weight, float eps, int out);
std::unique_ptr<Stage> make_matmul(int x, std::vector<MatmulPart> parts);
// Rotates in place, then stores keys and values of this step in the layer's pages.
std::unique_ptr<Stage> make_rope_kv(std::vector<RopePart> parts, const std::vector<RopeTable>& ropes, int k, int v,
                                    int layer);
struct AttentionShape {
    int num_heads;
    float scale;
    int window;                 // 0 = all keys
    float softcap;              // 0 = none
    std::vector<float> slopes;  // ALiBi, one per query head; empty = none
    int sinks;                  // a vector with one score per query head, or -1
};
std::unique_ptr<Stage> make_attention(int q, int out, int layer, AttentionShape shape);
// Memory that its threads share, for a cache of num_pages.
size_t attention_shared_bytes(const KvLayout& layout, int num_heads, int num_pages);
std::unique_ptr<Stage> make_glu(int gate, int up, int out, GluActivation activation);
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
size_t gated_matmul_scratch_bytes();
std::unique_ptr<Stage> make_add(int a, int b, int out);
std::unique_ptr<Stage> make_select(int x, int out);

}  // namespace tl
