#include "core/executor.h"

#if defined(__GLIBC__)
#include <malloc.h>
#endif

#include <algorithm>
#include <chrono>
#include <numeric>
#include <stdexcept>

#include "core/mapped.h"

namespace tl {
namespace {

constexpr auto kPollInterval = std::chrono::milliseconds(50);

[[noreturn]] void bad_batch(const std::string& what) { throw std::invalid_argument("malformed batch: " + what); }

}  // namespace

Executor::Executor(const ExecutorSizes& sizes)
    : sizes_(sizes),
      kernels_(active_kernels()),
      pool_(sizes.num_threads, sizes.cpus),
      weights_(kernels_, sizes.precision, sizes.weight_bytes),
      row_runs_(sizes.max_tokens),
      parents_(sizes.max_tokens),
      row_blocks_(sizes.max_tokens),
      new_pages_(sizes.max_tokens) {
#if defined(__GLIBC__)
    malloc_trim(0);  // what was opened before left holes on the heap (a large tokenizer's tens of megabytes)
#endif
    if (sizes.max_tokens < 1 || sizes.max_outputs < 1) throw std::invalid_argument("a step needs at least one row");
}

void Executor::set_kv_cache(std::vector<KvLayout> layers, int num_pages) {
    pages_ = std::make_unique<PagePool>(std::move(layers), num_pages);
    stages_.push_back(make_clear_pages());
}

void Executor::set_states(int num_slots, const std::vector<size_t>& sizes) {
    states_ = std::make_unique<StatePool>(num_slots, sizes);
    state_sizes_ = sizes;
}

int Executor::add_buffer(size_t offset, bool outputs, ActFormat format, int width, int copies, int spare) {
    const ActLayout layout{format, width};
    if (width < 1 || copies < 1 || spare < 0 || (layout.is_int8() && width % layout.block() != 0)) {
        throw std::invalid_argument("a buffer of width " + std::to_string(width) + " does not divide into its blocks");
    }
    buffers_.push_back({offset, outputs, layout, layout.row_bytes(), copies, spare});
    return int(buffers_.size()) - 1;
}

int Executor::add_rope(RopeTable table) {
    stages_.push_back(make_rope_table(table));
    ropes_.push_back(std::move(table));
    return int(ropes_.size()) - 1;
}

void Executor::add_row_stage(std::unique_ptr<RowStage> stage, int out, bool is_shared) {
    if (is_shared) {
        stage->set_shared();
        buffers_.at(out).maker = stage.get();
    }
    stages_.push_back(std::move(stage));
}

void Executor::add_attention(int q, int out, int layer, AttentionShape shape, bool does_rope_kv) {
    check_layer(layer);
    RopeKvStage* rope_kv = nullptr;
    if (does_rope_kv) rope_kv = stages_.empty() ? nullptr : dynamic_cast<RopeKvStage*>(stages_.back().get());
    if (does_rope_kv && !rope_kv) throw std::invalid_argument("the stage before this attention is no rope_kv");
    needs_whole_runs_ |= !shape.causal;
    stages_.push_back(make_attention(q, out, layer, std::move(shape), rope_kv));
}

void Executor::add_embed(const EmbedParts& parts) {
    const RowTable& table = weights_.table(parts.table);
    floats_of(parts.out, table.num_columns);
    const int num_rows = table.num_rows - parts.first;
    if (parts.first < 0 || num_rows < 1) throw std::invalid_argument("an embedding that begins outside its table");
    if (parts.num_ids < 1) throw std::invalid_argument("an embedding of no token ids");
    if (parts.index == EmbedIndex::kToken) num_token_ids_ = std::min(num_token_ids_, num_rows);
    if (parts.index == EmbedIndex::kType) num_types_ = std::min(num_types_, num_rows);
    if (parts.index == EmbedIndex::kPosition) num_positions_ = std::min(num_positions_, num_rows);
    stages_.push_back(make_embed(parts));
}

void Executor::add_head(int x, const MatmulPart& part) {
    if (best_.is_usable()) throw std::invalid_argument("a second head");
    best_ = BestLists(pool_.size());
    stages_.push_back(make_head(x, part));
}

void Executor::add_route(const RouteParts& parts) {
    const Routing& r = parts.routing;
    if (r.num_used < 1 || r.num_used > std::min(r.num_experts, kMaxExpertsUsed)) {
        throw std::invalid_argument(std::to_string(r.num_used) + " of " + std::to_string(r.num_experts) +
                                    " experts; a token takes 1 to " + std::to_string(kMaxExpertsUsed));
    }
    const int group = r.num_groups > 0 && r.num_experts % r.num_groups == 0 ? r.num_experts / r.num_groups : 0;
    if (r.num_used_groups < 1 || r.num_used_groups > r.num_groups || group * r.num_used_groups < r.num_used ||
        r.group_best < 1 || r.group_best > std::min(2, group)) {
        throw std::invalid_argument("groups of experts that do not fit the number of experts");
    }
    const Buffer& logits = buffers_.at(parts.logits);
    if (logits.layout.format != ActFormat::kF32 || logits.layout.width != r.num_experts || logits.outputs ||
        parts.width < 1) {
        throw std::invalid_argument("a router needs one number for each expert");
    }
    for (const int vector : {parts.bias, parts.expert_scale}) {
        if (vector >= 0 && weights_.vector(vector).size() != size_t(r.num_experts)) {
            throw std::invalid_argument("a router needs one weight for each expert");
        }
    }
    max_experts_ = std::max(max_experts_, r.num_experts);
    max_used_ = std::max(max_used_, r.num_used);
    stages_.push_back(make_route(parts));
}

void Executor::add_experts_gated(const ExpertsGatedParts& parts, int num_experts) {
    check_experts(weights_, parts.gate, num_experts, "gate");
    check_experts(weights_, parts.up, num_experts, "up");
    stages_.push_back(make_experts_gated(parts));
}

void Executor::add_experts_down(int x, const ExpertMatrices& down, int out, bool accumulate, const Routing& routing) {
    check_experts(weights_, down, routing.num_experts, "down");
    stages_.push_back(make_experts_down({x, down, out, accumulate, routing.num_used, sizes_.max_tokens}));
}

void Executor::check_state(int state, size_t floats) const {
    if (state < 0 || size_t(state) >= state_sizes_.size() || state_sizes_[state] != floats) {
        throw std::invalid_argument("a stage whose recurrent state was not announced");
    }
}

const Buffer& Executor::floats_of(int buffer, int width) const {
    const Buffer& found = buffers_.at(buffer);
    if (found.layout.format != ActFormat::kF32 || found.layout.width != width) {
        throw std::invalid_argument("a stage that needs rows of " + std::to_string(width) + " floats");
    }
    return found;
}

void Executor::add_causal_conv(int x, int weights, int num_taps, int out, int state) {
    const int num_channels = buffers_.at(x).layout.width;
    floats_of(x, num_channels);
    floats_of(out, num_channels);
    if (num_taps < 2 || num_taps > kMaxTaps || x == out ||
        weights_.vector(weights).size() != size_t(num_taps) * num_channels) {
        throw std::invalid_argument("a convolution needs 2 to " + std::to_string(kMaxTaps) + " weights per channel");
    }
    check_state(state, causal_conv_state_floats(num_channels, num_taps));
    stages_.push_back(make_causal_conv(x, weights, num_taps, out, state));
}

void Executor::add_gated_delta(const GatedDeltaParts& p) {
    if (p.num_key_heads < 1 || p.key_dim < 1 || p.value_dim < 1 || p.num_heads < 1 ||
        p.num_heads % p.num_key_heads != 0) {
        throw std::invalid_argument("a gated delta rule needs heads for its keys and values");
    }
    floats_of(p.x, 2 * p.num_key_heads * p.key_dim + p.num_heads * p.value_dim);
    floats_of(p.out, p.num_heads * p.value_dim);
    for (const HeadColumns& c : {p.step, p.beta}) {
        const int width = buffers_.at(c.buffer).layout.width;
        floats_of(c.buffer, width);
        const int repeats = c.width > 0 && p.num_heads % c.width == 0 ? p.num_heads / c.width : 0;
        if (!repeats || c.start < 0 || c.stride < 0 || c.start + (repeats - 1) * c.stride + c.width > width) {
            throw std::invalid_argument("a gated delta rule needs one number for each head");
        }
    }
    for (const int vector : {p.decay, p.step_bias}) {
        if (weights_.vector(vector).size() != size_t(p.num_heads)) {
            throw std::invalid_argument("a gated delta rule needs one weight for each head");
        }
    }
    check_state(p.state, gated_delta_state_floats(p.num_heads, p.key_dim, p.value_dim));
    stages_.push_back(make_gated_delta(p));
}

void Executor::add_gated_norm(const GatedNormParts& p) {
    const int width = buffers_.at(p.out).layout.width;
    floats_of(p.x, width);
    floats_of(p.gate, width);
    if (p.num_heads < 1 || width % p.num_heads != 0 ||
        weights_.vector(p.weight).size() != size_t(width / p.num_heads)) {
        throw std::invalid_argument("a norm of heads needs one weight for each element of a head");
    }
    stages_.push_back(make_gated_norm(p));
}

void Executor::add_heads_norm(const HeadsNormParts& p) {
    const int width = buffers_.at(p.out).layout.width;
    floats_of(p.out, width);
    floats_of(p.x, width);
    check_head_norm(p.weight, p.num_heads < 1 || width % p.num_heads != 0 ? 0 : width / p.num_heads);
    stages_.push_back(make_heads_norm(p));
}

void Executor::add_glu(int gate, int up, int up_start, int out, GluActivation activation) {
    const int width = buffers_.at(out).layout.width;
    floats_of(gate, width);
    if (up_start < 0 || up_start > floats_of(up, buffers_.at(up).layout.width).layout.width - width) {
        throw std::invalid_argument("columns behind the end of a row");
    }
    stages_.push_back(make_glu(gate, up, up_start, out, activation));
}

void Executor::add_rope_kv(std::vector<RopePart> parts, int k, int v, int layer) {
    check_layer(layer);
    for (const RopePart& part : parts) {
        if (part.norm >= 0) check_head_norm(part.norm, part.head_dim);
    }
    stages_.push_back(make_rope_kv(std::move(parts), ropes_, k, v, layer));
}

void Executor::check_head_norm(int weight, int head_dim) const {
    if (head_dim < 1 || head_dim > kMaxNormedHead) throw std::invalid_argument("a head too wide to normalise");
    if (weights_.vector(weight).size() != size_t(head_dim)) {
        throw std::invalid_argument("a norm of heads needs one weight for each element of a head");
    }
}

void Executor::check_layer(int layer) const {
    if (!pages_ || layer < 0 || layer >= pages_->num_layers()) {
        throw std::invalid_argument("attention over a layer that the cache does not hold");
    }
}

void Executor::finish(size_t arena_bytes, int logits, int output_width, bool merge_inputs) {
    logits_ = logits;
    output_width_ = output_width;
    merge_inputs_ = merge_inputs;
    active_.resize(stages_.size());
    for (const Buffer& buffer : buffers_) {
        size_t rows = size_t(buffer.copies) * (buffer.outputs ? sizes_.max_outputs : sizes_.max_tokens) + buffer.spare;
        if (rows >= kInterleavedRows) rows = align_up(rows, kInterleavedRows);
        if (buffer.offset + rows * buffer.row_bytes > arena_bytes)
            throw std::invalid_argument("buffer outside the arena");
    }
    arena_ = MappedBuffer(arena_bytes, PageSize::kSmall);
    if (max_experts_) {
        routes_ = std::make_unique<Routes>(sizes_.max_tokens, max_experts_, max_used_, pool_.size());
    }
    machine_.reset(new Machine{kernels_, pool_, weights_, pages_.get(), states_.get(), arena_.data(), nullptr, 0,
                               nullptr, 0, &best_, routes_.get(), sizes_.is_fast, buffers_});
    size_t scratch = kRowAlignment, shared = 0;
    for (const auto& stage : stages_) {
        scratch = std::max(scratch, stage->scratch_bytes(*machine_));
        shared = std::max(shared, stage->shared_bytes(*machine_));
    }
    scratch = align_up(scratch, 4096);
    thread_scratch_ = MappedBuffer(scratch * pool_.size(), PageSize::kSmall);
    machine_->scratch = thread_scratch_.data();
    machine_->scratch_bytes = scratch;
    if (shared) shared_ = MappedBuffer(shared, PageSize::kSmall);
    machine_->shared = shared_.data();
    machine_->shared_bytes = shared;
}

void Executor::place_weights() {
    Step decode;
    decode.num_tokens = decode.num_outputs = 1;
    for (const auto& stage : stages_) {
        stage->prepare(*machine_, decode);
        struct Job {
            Stage& stage;
            const Machine& machine;
        } job{*stage, *machine_};
        const auto touch = [](void* context, int thread) {
            Job& job = *static_cast<Job*>(context);
            job.stage.touch_weights(job.machine, thread);
        };
        pool_.run(touch, &job);
    }
}

void Executor::try_tiles(int matrix, int begin, int end) {
    const PackedMatrix& m = weights_.matrix(matrix);
    if (!machine_ || !m.is_mapped() || begin < 0 || begin >= end || end > m.num_tiles()) {
        throw std::invalid_argument("no tiles of a mapped matrix");
    }
    tl::try_tiles(pool_, m, begin, end, machine_->scratch, machine_->scratch_bytes);
}

void Executor::accept(const BatchArrays& batch) {
    if (!machine_) throw std::logic_error("finish() was not called");
    if (batch.num_tokens < 1 || batch.num_tokens > size_t(sizes_.max_tokens)) {
        bad_batch(std::to_string(batch.num_tokens) + " tokens; a step takes 1 to " + std::to_string(sizes_.max_tokens));
    }
    if (batch.num_tree_parents && batch.num_tree_parents != batch.num_tokens) {
        bad_batch(std::to_string(batch.num_tree_parents) + " tree_parents of " + std::to_string(batch.num_tokens) +
                  " tokens");
    }
    if (batch.num_outputs > size_t(sizes_.max_outputs)) {
        bad_batch(std::to_string(batch.num_outputs) + " outputs; a step takes up to " +
                  std::to_string(sizes_.max_outputs));
    }
    const int num_tokens = int(batch.num_tokens), num_runs = int(batch.num_runs);
    const auto check_starts = [&](const int32_t* starts, size_t end, const char* name) {
        if (starts[0] != 0 || size_t(starts[num_runs]) != end)
            bad_batch(std::string(name) + " do not span their array");
        for (int r = 0; r < num_runs; r++) {
            if (starts[r + 1] <= starts[r]) bad_batch(std::string(name) + " are not ascending");
        }
    };
    check_starts(batch.run_starts, batch.num_tokens, "run_starts");
    check_starts(batch.page_starts, batch.num_page_ids, "page_starts");
    const int64_t num_ids = int64_t(num_token_ids_) * (num_types_ == INT32_MAX ? 1 : num_types_);
    for (int i = 0; i < num_tokens; i++) {
        if (batch.token_ids[i] < 0 || batch.token_ids[i] >= num_ids) {
            bad_batch("token id " + std::to_string(batch.token_ids[i]) + " is outside the vocabulary of " +
                      std::to_string(num_token_ids_));
        }
    }
    const int num_pages = pages_ ? pages_->num_pages() : INT32_MAX;  // a plan without attention looks at none
    for (size_t i = 0; i < batch.num_page_ids; i++) {
        if (batch.page_ids[i] < 0 || batch.page_ids[i] >= num_pages) bad_batch("page id out of range");
    }
    step_.num_row_blocks = step_.num_new_pages = 0;
    for (int r = 0; r < num_runs; r++) {
        const int begin = batch.run_starts[r], end = batch.run_starts[r + 1];
        const int64_t capacity = int64_t(batch.page_starts[r + 1] - batch.page_starts[r]) * kPageTokens;
        if (batch.positions[begin] < 0) bad_batch("negative position");
        if (needs_whole_runs_ && batch.positions[begin] != 0)
            bad_batch("every token sees its whole sequence, so that a run begins at position 0, not " +
                      std::to_string(batch.positions[begin]));
        const bool is_tree = accept_parents(batch, r);
        if (int64_t(batch.positions[begin]) + (end - begin) > capacity)
            bad_batch("a run's pages do not cover its last position");
        for (int i = begin; i < end; i++) {
            row_runs_[i] = r;
            if (batch.positions[i] >= num_positions_)
                bad_batch("position " + std::to_string(batch.positions[i]) + " of a model with " +
                          std::to_string(num_positions_));
            const int slot = batch.positions[begin] + (i - begin);
            if (slot % kPageTokens == 0) {
                new_pages_[step_.num_new_pages++] = batch.page_ids[batch.page_starts[r] + slot / kPageTokens];
            }
        }
        for (int i = begin; i < end; i += kAttentionRows) {
            row_blocks_[step_.num_row_blocks++] = {r, i, std::min(i + kAttentionRows, end), is_tree};
        }
    }
    for (size_t i = 0; i < batch.num_outputs; i++) {
        const int32_t row = batch.output_rows[i];
        if (row < 0 || row >= num_tokens || (i > 0 && row <= batch.output_rows[i - 1])) bad_batch("bad output row");
    }
    if (batch.first_fast_row < 0 || batch.first_fast_row > num_tokens ||
        (batch.first_fast_row < num_tokens && !sizes_.is_fast)) {
        bad_batch("fast rows from " + std::to_string(batch.first_fast_row) + " on, of " + std::to_string(num_tokens) +
                  (sizes_.is_fast ? "" : ", in an executor without fast mode"));
    }
    accept_slots(batch);
    step_.first_fast_row = batch.first_fast_row;
    step_.num_tokens = num_tokens;
    step_.num_outputs = int(batch.num_outputs);
    step_.num_runs = num_runs;
    step_.token_ids = batch.token_ids;
    step_.positions = batch.positions;
    step_.run_starts = batch.run_starts;
    step_.page_ids = batch.page_ids;
    step_.page_starts = batch.page_starts;
    step_.output_rows = batch.output_rows;
    step_.row_runs = row_runs_.data();
    step_.parents = parents_.data();
    step_.row_blocks = row_blocks_.data();
    step_.new_pages = new_pages_.data();
}

bool Executor::accept_parents(const BatchArrays& batch, int run) {
    const int begin = batch.run_starts[run], end = batch.run_starts[run + 1];
    bool is_tree = false;
    for (int i = begin; i < end; i++) {
        int parent = batch.num_tree_parents ? batch.tree_parents[i] : -1;
        if (parent == -1 && i > begin) parent = i - 1;
        if (i > begin ? parent < begin || parent >= i : parent != -1) {
            bad_batch("row " + std::to_string(i) + " follows row " + std::to_string(parent) +
                      ", which is not an earlier row of its run");
        }
        parents_[i] = i > begin ? parent - begin : -1;
        is_tree |= parent != i - 1 && i > begin;
        if (i > begin && batch.positions[i] != batch.positions[parent] + 1) {
            bad_batch(batch.num_tree_parents ? "the position of a row is not the next one to that of the row before it"
                                             : "positions of a run are not consecutive");
        }
    }
    if (is_tree && (states_ || needs_whole_runs_)) {
        bad_batch(states_ ? "a recurrent state takes one token after another, no tree of them"
                          : "every token sees its whole sequence, so that it cannot be a tree");
    }
    return is_tree;
}

void Executor::accept_slots(const BatchArrays& batch) {
    step_.state_slots = states_ ? batch.state_slots : nullptr;
    if (!states_) return;
    if (batch.num_state_slots != batch.num_runs) bad_batch("each run needs a state slot");
    for (size_t r = 0; r < batch.num_runs; r++) {
        const int32_t slot = batch.state_slots[r];
        if (slot < 0 || slot >= states_->num_slots() ||
            std::find(batch.state_slots, batch.state_slots + r, slot) != batch.state_slots + r) {
            bad_batch("state slot " + std::to_string(slot) + " is out of range or appears twice");
        }
        const int first = batch.positions[batch.run_starts[r]];
        if (first != 0 && first != states_->position(slot)) {
            bad_batch("a run begins at position " + std::to_string(first) + ", but the state in slot " +
                      std::to_string(slot) + " goes on at " + std::to_string(states_->position(slot)));
        }
    }
}

void Executor::set_positions(bool is_done) {
    for (int r = 0; states_ && r < step_.num_runs; r++) {
        const int end = step_.positions[step_.run_starts[r + 1] - 1] + 1;
        states_->set_position(step_.state_slots[r], is_done ? end : StatePool::kUnknown);
    }
}

void Executor::choose_stages() {
    num_active_ = num_barriers_ = 0;
    for (size_t i = 0; i < stages_.size(); i++) {
        if (stages_[i]->is_needed(*machine_, step_)) active_[num_active_++] = {stages_[i].get(), int(i), true};
    }
    for (int i = 0; i < num_active_; i++) {
        Active& active = active_[i];
        const bool is_last = i + 1 == num_active_;  // the pool's own meeting follows it
        active.has_barrier = !is_last && !(merge_inputs_ && active.stage->reads_batch_only() &&
                                           active_[i + 1].stage->reads_batch_only());
        num_barriers_ += active.has_barrier || is_last;
    }
}

bool Executor::step(const BatchArrays& batch, int num_best, bool (*poll)()) {
    accept(batch);
    if (num_best < 0 || num_best > std::min(max_best(step_.num_outputs), output_width_)) {
        bad_batch("the best " + std::to_string(num_best) + " logits of " + std::to_string(step_.num_outputs) + " rows");
    }
    step_.num_best = num_best;
    for (const auto& stage : stages_) stage->prepare(*machine_, step_);
    choose_stages();
    poll_ = poll;
    last_stage_.store(kAllStages, std::memory_order_relaxed);
    set_positions(false);
    pool_.run(run_stages, this);
    const bool is_complete = last_stage_.load(std::memory_order_relaxed) == kAllStages;
    if (is_complete) set_positions(true);
    if (num_best && is_complete) best_.merge(step_.num_outputs);
    return is_complete;
}

bool Executor::step_chain(BatchArrays batch, int num_best, int num_steps, int32_t* ids, float* logits, bool (*poll)()) {
    const size_t num_runs = batch.num_runs;
    bool is_last_rows = batch.num_outputs == num_runs && num_best > 0 && num_steps > 0;
    for (size_t r = 0; is_last_rows && r < num_runs; r++)
        is_last_rows = batch.output_rows[r] == batch.run_starts[r + 1] - 1;
    if (!is_last_rows) bad_batch("a chain needs the best of the last row of each run");
    chain_ids_.resize(num_runs), chain_positions_.resize(num_runs), chain_starts_.resize(num_runs + 1);
    for (int s = 0; s < num_steps; s++) {
        if (!step(batch, num_best, poll)) return false;
        for (size_t r = 0; r < num_runs; r++) {
            ids = std::copy_n(best_.ids(int(r)), num_best, ids);
            logits = std::copy_n(best_.values(int(r)), num_best, logits);
            chain_ids_[r] = best_.ids(int(r))[0];
            chain_positions_[r] = s ? chain_positions_[r] + 1 : batch.positions[batch.run_starts[r + 1] - 1] + 1;
        }
        std::iota(chain_starts_.begin(), chain_starts_.end(), 0);
        batch.token_ids = chain_ids_.data(), batch.positions = chain_positions_.data();
        batch.run_starts = batch.output_rows = chain_starts_.data();
        batch.num_tokens = num_runs, batch.num_tree_parents = 0, batch.first_fast_row = int(num_runs);
    }
    return true;
}

void Executor::run_stages(void* context, int thread) {
    Executor& self = *static_cast<Executor*>(context);
    uint64_t* const stage_ns = thread == 0 && !self.stage_ns_.empty() ? self.stage_ns_.data() : nullptr;
    auto last_poll = std::chrono::steady_clock::now(), stage_start = last_poll;
    for (int i = 0; i < self.num_active_; i++) {
        const Active& active = self.active_[i];
        active.stage->run(*self.machine_, self.step_, thread);
        if (thread == 0 && self.poll_) {
            const auto now = std::chrono::steady_clock::now();
            if (now - last_poll > kPollInterval) {
                last_poll = now;
                if (!self.poll_()) self.last_stage_.store(i, std::memory_order_relaxed);
            }
            if (self.interrupted_.load(std::memory_order_relaxed)) self.last_stage_.store(i, std::memory_order_relaxed);
        }
        if (active.has_barrier) self.pool_.barrier();
        if (stage_ns) {
            const auto now = std::chrono::steady_clock::now();
            stage_ns[active.index] += uint64_t(std::chrono::nanoseconds(now - stage_start).count());
            stage_start = now;
        }
        if (active.has_barrier && self.last_stage_.load(std::memory_order_relaxed) <= i) return;
    }
}

void Executor::time_stages(bool on) { stage_ns_.assign(on ? stages_.size() : 0, 0); }

void Executor::release_page(int page) {
    if (!pages_) return;
    if (page < 0 || page >= pages_->num_pages()) throw std::invalid_argument("page id out of range");
    pages_->release(page);
}

}  // namespace tl
