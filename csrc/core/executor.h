// A compiled plan: weights, memory and stages, and the step that runs a batch through them.
#pragma once

#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "core/stages.h"

namespace tl {

struct ExecutorSizes {
    int num_threads;
    int max_tokens;   // token rows of one step
    int max_outputs;  // output rows of one step
    size_t weight_bytes;
    Precision precision;
    std::vector<int> cpus;  // of each thread, or none (see ThreadPool)
    bool is_fast;           // steps may have rows in fast arithmetic
};

// The batch of one step, as backends/base.py describes it.
struct BatchArrays {
    const int32_t* token_ids;
    const int32_t* positions;
    size_t num_tokens;
    const int32_t* run_starts;
    const int32_t* page_starts;
    size_t num_runs;
    const int32_t* page_ids;
    size_t num_page_ids;
    const int32_t* output_rows;
    size_t num_outputs;
    const int32_t* state_slots;
    size_t num_state_slots;
    int first_fast_row;  // num_tokens: no row is multiplied in fast arithmetic
    const int32_t* tree_parents;
    size_t num_tree_parents;
};

class Executor {
 public:
    explicit Executor(const ExecutorSizes& sizes);

    // -- building: weights, buffers, stages, then finish() ------------------------------------------
    Weights& weights() { return weights_; }
    ThreadPool& pool() { return pool_; }
    void set_kv_cache(std::vector<KvLayout> layers, int num_pages);
    // sizes: floats of each state that stages keep.
    void set_states(int num_slots, const std::vector<size_t>& sizes);
    // copies: rows for each token or output; spare: further rows.
    int add_buffer(size_t offset, bool outputs, ActFormat format, int width, int copies, int spare);
    int add_rope(RopeTable table);
    const std::vector<RopeTable>& ropes() const { return ropes_; }
    void add_stage(std::unique_ptr<Stage> stage) { stages_.push_back(std::move(stage)); }
    // is_shared: with few rows, the products that read `out` make its rows themselves.
    void add_row_stage(std::unique_ptr<RowStage> stage, int out, bool is_shared);
    // Attention that rotates and stores for itself where it can, if `does_rope_kv`: the stage before it is its RopeKv.
    void add_attention(int q, int out, int layer, AttentionShape shape, bool does_rope_kv);
    void add_embed(const EmbedParts& parts);
    void add_head(int x, const MatmulPart& part);
    void add_route(const RouteParts& parts);
    void add_experts_gated(const ExpertsGatedParts& parts, int num_experts);
    void add_experts_down(int x, const ExpertMatrices& down, int out, bool accumulate, const Routing& routing);
    void add_causal_conv(int x, int weights, int num_taps, int out, int state);
    void add_gated_delta(const GatedDeltaParts& parts);
    void add_gated_norm(const GatedNormParts& parts);
    void add_heads_norm(const HeadsNormParts& parts);
    void add_glu(int gate, int up, int up_start, int out, GluActivation activation);
    void add_rope_kv(std::vector<RopePart> parts, int k, int v, int layer);
    // Allocates the arena and each thread's scratch. `logits` is the buffer that a step returns. merge_inputs: stages
    // that read the batch alone share one barrier.
    void finish(size_t arena_bytes, int logits, int output_width, bool merge_inputs);

    // Spreads the memory of the weights over the threads that will read it; before they are packed.
    void place_weights();

    // What reading tiles [begin, end) of a mapped matrix costs: see try_tiles. After finish.
    void try_tiles(int matrix, int begin, int end);

    // -- running ------------------------------------------------------------------------------------
    // Runs one step. `poll` is called now and then on the calling thread; when it returns false, or while the step is
    // interrupted, it is given up at the next stage and false is returned. With num_best > 0 only the best of each
    // row are found (best()), and logits() is not written. Throws std::invalid_argument for a malformed batch.
    bool step(const BatchArrays& batch, int num_best, bool (*poll)());
    // Runs the batch, whose output rows are the last of each run, and then num_steps - 1 more steps of one token per run:
    // the best one behind its last. Writes the best of each, (num_steps, runs, num_best). Pages must cover all of them.
    bool step_chain(BatchArrays batch, int num_best, int num_steps, int32_t* ids, float* logits, bool (*poll)());
    // Any thread may call it, also during a step.
    void set_interrupted(bool is_interrupted) { interrupted_.store(is_interrupted, std::memory_order_relaxed); }
    const BestLists& best() const { return best_; }
    // Most that num_best may be for this many output rows.
    int max_best(int num_outputs) const { return best_.is_usable() && num_outputs <= kMaxBestRows ? kMaxBest : 0; }
    // Barriers of the last step, the one that ended it included.
    int num_barriers() const { return num_barriers_; }

    float* logits() const { return machine_->floats(logits_); }
    size_t logits_stride() const { return machine_->stride_floats(logits_); }
    int output_width() const { return output_width_; }
    int max_outputs() const { return sizes_.max_outputs; }
    size_t scratch_bytes() const {
        const size_t routes = routes_ ? Routes::num_bytes(sizes_.max_tokens, max_experts_, max_used_) : 0;
        return arena_.size() + thread_scratch_.size() + shared_.size() + routes;
    }
    size_t page_bytes() const { return pages_ ? pages_->page_bytes() : 0; }
    void release_page(int page);
    PagePool* pages() { return pages_.get(); }     // null for a plan without attention
    StatePool* states() { return states_.get(); }  // null for a plan without recurrent state
    size_t slot_bytes() const { return states_ ? states_->slot_bytes() : 0; }

    // Measures, while on, how long every stage takes from barrier to barrier. Turning it on starts from zero.
    void time_stages(bool on);
    // Nanoseconds by stage, in the order of execution; empty while off.
    const std::vector<uint64_t>& stage_ns() const { return stage_ns_; }

 private:
    void accept(const BatchArrays& batch);                   // checks the batch and fills step_
    bool accept_parents(const BatchArrays& batch, int run);  // checks parents and positions of a run; is it a tree?
    void accept_slots(const BatchArrays& batch);
    void set_positions(bool is_done);  // of the step's state slots
    void check_state(int state, size_t floats) const;
    const Buffer& floats_of(int buffer, int width) const;
    void check_head_norm(int weight, int head_dim) const;
    void check_layer(int layer) const;
    void choose_stages();  // fills active_
    static void run_stages(void* context, int thread);

    ExecutorSizes sizes_;
    const Kernels& kernels_;
    ThreadPool pool_;
    Weights weights_;
    std::unique_ptr<PagePool> pages_;
    std::unique_ptr<StatePool> states_;
    std::vector<size_t> state_sizes_;
    std::vector<Buffer> buffers_;
    std::vector<RopeTable> ropes_;
    std::vector<std::unique_ptr<Stage>> stages_;
    bool merge_inputs_ = false;
    BestLists best_;
    int max_experts_ = 0, max_used_ = 0;  // of all layers with experts
    std::unique_ptr<Routes> routes_;
    MappedBuffer arena_, thread_scratch_, shared_;
    std::unique_ptr<Machine> machine_;
    int logits_ = -1, output_width_ = 0;
    // What the batch may ask for: rows of the tables that are looked up, and whether sequences must be whole.
    int num_token_ids_ = INT32_MAX, num_positions_ = INT32_MAX, num_types_ = INT32_MAX;
    bool needs_whole_runs_ = false;

    // Written by accept(), read by all stages of the step.
    Step step_;
    std::vector<int32_t> row_runs_, parents_;
    std::vector<int32_t> chain_ids_, chain_positions_, chain_starts_;  // of the steps of a chain, a row for each run
    std::vector<Step::RowBlock> row_blocks_;
    std::vector<int32_t> new_pages_;

    // The stages that this step runs. Written by choose_stages(); as long as stages_ from the start.
    struct Active {
        Stage* stage;
        int index;  // in stages_
        bool has_barrier;
    };
    std::vector<Active> active_;
    int num_active_ = 0, num_barriers_ = 0;

    bool (*poll_)() = nullptr;
    std::atomic<bool> interrupted_{false};
    std::vector<uint64_t> stage_ns_;  // written by thread 0 in a step; empty while stages are not timed
    // The step is given up at the first barrier from this active stage on. Written by thread 0 before that barrier; a
    // thread that is still behind an earlier one may see it already, and must go on to the same barrier as all others.
    static constexpr int kAllStages = INT32_MAX;
    std::atomic<int> last_stage_{kAllStages};
};

}  // namespace tl
