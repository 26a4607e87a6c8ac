// The stages of attention: normalise heads, rotate and store this step's keys and values, then attend.
#include <algorithm>
#include <atomic>

#include "core/stages.h"

namespace tl {
namespace {

// Rows per chunk: few enough to spread, many enough to be worth a claim.
constexpr int kRowChunk = 4;

class RopeKv final : public RopeKvStage {
 public:
    RopeKv(std::vector<RopePart> parts, const std::vector<RopeTable>& ropes, int k, int v, int layer)
        : parts_(std::move(parts)), k_(k), v_(v), layer_(layer) {
        for (const RopePart& part : parts_) tables_.push_back(part.rope < 0 ? RopeTable{} : ropes.at(part.rope));
    }
    void prepare(const Machine& m, const Step& step) override {
        work_.reset(step.num_tokens, kRowChunk, m.pool.size());
    }
    void run(const Machine& m, const Step& step, int thread) override {
        for (int begin, end; work_.claim(thread, begin, end);) {
            for (int i = begin; i < end; i++) work(m, step, i, 0, m.pages->layout(layer_).num_kv_heads);
        }
    }
    void rotate_and_store(const Machine& m, const Step& step, int row, int kv_head) const override {
        work(m, step, row, kv_head, kv_head + 1);
    }

 private:
    // Key/value heads [begin, end) of a row and the query heads that go with them.
    void work(const Machine& m, const Step& step, int row, int begin, int end) const {
        for (size_t p = 0; p < parts_.size(); p++) {
            const RopeTable& table = tables_[p];
            const int group = parts_[p].num_heads / m.pages->layout(layer_).num_kv_heads;
            const size_t skipped = size_t(begin) * group * parts_[p].head_dim;
            float* first = m.floats(parts_[p].buffer, row) + skipped;
            if (parts_[p].norm >= 0) {
                normalise_heads(m, m.floats(parts_[p].source, row) + skipped, parts_[p].norm, parts_[p].eps,
                                (end - begin) * group, parts_[p].head_dim, first);
            }
            if (parts_[p].rope < 0) continue;
            m.kernels.rope_row(first, (end - begin) * group, parts_[p].head_dim, table.layout,
                               int(table.inv_freq.size()), m.floats(table.cos_buffer, row),
                               m.floats(table.sin_buffer, row));
        }
        if (k_ < 0) return;  // the layer reads what another one stored
        const int32_t* table = step.page_ids + step.page_starts[step.row_runs[row]];
        const int slot = step.slot(row);
        uint8_t* page = m.pages->layer(layer_) + size_t(table[slot / kPageTokens]) * m.pages->page_bytes();
        m.kernels.kv_write(m.floats(k_, row), m.floats(v_, row), m.pages->layout(layer_), slot % kPageTokens, begin,
                           end, page);
    }

    std::vector<RopePart> parts_;
    std::vector<RopeTable> tables_;
    int k_, v_, layer_;
};

// Items of work are (block of rows, key/value head) or, when these are too few for the threads, (block, head, range of
// positions); the thread that ends the last range of a block and head folds them. Both ways give the same bits.
class Attention final : public Stage {
 public:
    Attention(int q, int out, int layer, AttentionShape shape, RopeKvStage* rope_kv)
        : q_(q), out_(out), layer_(layer), shape_(std::move(shape)), rope_kv_(rope_kv) {}

    void prepare(const Machine& m, const Step& step) override {
        const int num_heads = m.pages->layout(layer_).num_kv_heads, most_blocks = kSplitBlocks * m.pool.size();
        int num_items = step.num_row_blocks * num_heads;
        is_split_ = step.num_row_blocks <= most_blocks && split(m, step);
        if (is_split_) num_items = blocks_[step.num_row_blocks].first_item;
        work_.reset(num_items, 1, m.pool.size());
        // An item that is all there is of its sequence and head needs no other's keys of this step.
        does_rope_kv_ = rope_kv_ && !is_split_ && step.num_row_blocks == step.num_runs;
        if (rope_kv_) rope_kv_->leave(does_rope_kv_);
    }

    void run(const Machine& m, const Step& step, int thread) override {
        for (int begin, end; work_.claim(thread, begin, end);) {
            for (int i = begin; i < end; i++) {
                if (is_split_) {
                    run_range(m, step, thread, i);
                } else {
                    const int num_heads = m.pages->layout(layer_).num_kv_heads;
                    const int block = i / num_heads;
                    if (does_rope_kv_) {
                        const Step::RowBlock& rows = step.row_blocks[block];
                        for (int row = rows.begin; row < rows.end; row++) {
                            rope_kv_->rotate_and_store(m, step, row, i % num_heads);
                        }
                    }
                    m.kernels.attention(arguments(m, step, thread, block, i % num_heads));
                }
            }
        }
    }

    size_t scratch_bytes(const Machine& m) const override {
        const KvLayout& layout = m.pages->layout(layer_);
        return m.kernels.attention_scratch_bytes(layout, shape_.num_heads / layout.num_kv_heads);
    }
    size_t shared_bytes(const Machine& m) const override {
        return attention_shared_bytes(m.pages->layout(layer_), shape_.num_heads, m.pages->num_pages());
    }

 private:
    // Blocks per thread up to which ranges are worth their folding.
    static constexpr int kSplitBlocks = 4;

    struct Ranges { int begin, end; };

    struct SplitBlock {
        int first_item, num_ranges;
        size_t partials, partial_stride;  // floats, of the block's first head
    };

    Ranges ranges_of(const Step& step, const Step::RowBlock& block) const {
        int first = step.positions[block.begin], last = step.positions[block.end - 1];
        if (!shape_.causal) last = num_keys(step, block) - 1;
        for (int row = block.begin; block.is_tree && row < block.end; row++) {
            first = std::min(first, step.positions[row]);
            last = std::max(last, step.positions[row]);
        }
        const int visible = shape_.window > 0 ? std::max(first - shape_.window + 1, 0) : 0;
        return {visible / kAttentionRange, last / kAttentionRange + 1};
    }

    // Of a sequence that is whole in this step.
    static int num_keys(const Step& step, const Step::RowBlock& block) {
        return step.positions[step.run_starts[block.run + 1] - 1] + 1;
    }

    // Lays out the partial results; false when there is nothing to split or no room.
    bool split(const Machine& m, const Step& step) {
        const KvLayout& layout = m.pages->layout(layer_);
        if (blocks_.empty()) {  // by the first step, which belongs to the warm-up
            blocks_.resize(size_t(kSplitBlocks) * m.pool.size() + 1);
            pending_ = std::make_unique<std::atomic<int>[]>(blocks_.size() * layout.num_kv_heads);
        }
        size_t floats = 0;
        int item = 0;
        for (int b = 0; b < step.num_row_blocks; b++) {
            const Step::RowBlock& block = step.row_blocks[b];
            const auto [begin, end] = ranges_of(step, block);
            const int num_pairs = (block.end - block.begin) * shape_.num_heads / layout.num_kv_heads;
            const size_t stride = attention_partial_floats(layout, num_pairs);
            blocks_[b] = {item, end - begin, floats, stride};
            floats += stride * (end - begin) * layout.num_kv_heads;
            item += (end - begin) * layout.num_kv_heads;
            for (int h = 0; h < layout.num_kv_heads; h++) {
                pending_[b * layout.num_kv_heads + h].store(end - begin, std::memory_order_relaxed);
            }
        }
        blocks_[step.num_row_blocks].first_item = item;
        return item > step.num_row_blocks * layout.num_kv_heads && floats * sizeof(float) <= m.shared_bytes;
    }

    void run_range(const Machine& m, const Step& step, int thread, int item) {
        int b = 0;
        while (item >= blocks_[b + 1].first_item) b++;
        const SplitBlock& block = blocks_[b];
        const int index = item - block.first_item, head = index / block.num_ranges, range = index % block.num_ranges;
        AttentionArgs args = arguments(m, step, thread, b, head);
        if (block.num_ranges == 1) return m.kernels.attention(args);
        const Ranges all{args.range_begin, args.range_end};
        float* const partials = reinterpret_cast<float*>(m.shared) + block.partials +
                                size_t(head) * block.num_ranges * block.partial_stride;
        args.partial_stride = block.partial_stride;
        args.partials = partials + range * block.partial_stride;
        args.range_begin = all.begin + range;
        args.range_end = args.range_begin + 1;
        m.kernels.attention(args);
        std::atomic<int>& pending = pending_[b * m.pages->layout(layer_).num_kv_heads + head];
        if (pending.fetch_sub(1, std::memory_order_acq_rel) > 1) return;
        args.partials = partials;
        args.range_begin = all.begin, args.range_end = all.end;
        m.kernels.attention_merge(args);
    }

    // Of all ranges that the block sees.
    AttentionArgs arguments(const Machine& m, const Step& step, int thread, int index, int head) const {
        const KvLayout& layout = m.pages->layout(layer_);
        const Step::RowBlock& block = step.row_blocks[index];
        const int first = step.run_starts[block.run];
        const Ranges ranges = ranges_of(step, block);
        AttentionArgs args{};
        args.q = m.floats(q_, first);
        args.q_stride = m.stride_floats(q_);
        args.out = m.floats(out_, first);
        args.out_stride = m.stride_floats(out_);
        args.pages = m.pages->layer(layer_);
        args.page_bytes = m.pages->page_bytes();
        args.page_ids = step.page_ids + step.page_starts[block.run];
        args.first_position = step.positions[first];
        args.positions = block.is_tree ? step.positions + first : nullptr;
        args.parents = block.is_tree ? step.parents + first : nullptr;
        args.row_begin = block.begin - first;
        args.row_end = block.end - first;
        args.kv_head = head;
        args.group = shape_.num_heads / layout.num_kv_heads;
        args.layout = &layout;
        args.scale = shape_.scale;
        args.window = shape_.window;
        args.num_keys = shape_.causal ? 0 : num_keys(step, block);
        args.softcap = shape_.softcap;
        args.slopes = shape_.slopes.empty() ? nullptr : shape_.slopes.data();
        args.sinks = shape_.sinks < 0 ? nullptr : m.weights.vector(shape_.sinks).data();
        args.range_begin = ranges.begin;
        args.range_end = ranges.end;
        args.scratch = m.thread_scratch(thread);
        return args;
    }

    int q_, out_, layer_;
    AttentionShape shape_;
    RopeKvStage* rope_kv_;
    bool is_split_ = false, does_rope_kv_ = false;
    std::vector<SplitBlock> blocks_;
    std::unique_ptr<std::atomic<int>[]> pending_;  // ranges left, by block and head
};

}  // namespace

std::unique_ptr<RopeKvStage> make_rope_kv(std::vector<RopePart> parts, const std::vector<RopeTable>& ropes, int k,
                                          int v, int layer) {
    return std::make_unique<RopeKv>(std::move(parts), ropes, k, v, layer);
}
std::unique_ptr<Stage> make_attention(int q, int out, int layer, AttentionShape shape, RopeKvStage* rope_kv) {
    return std::make_unique<Attention>(q, out, layer, std::move(shape), rope_kv);
}

// Enough for a few rows of a sequence that fills the cache. A batch that needs more is not split: it has work for all.
size_t attention_shared_bytes(const KvLayout& layout, int num_heads, int num_pages) {
    constexpr size_t kRows = 4;
    const size_t num_ranges = size_t(num_pages) * kPageTokens / kAttentionRange + 1;
    const int group = num_heads / layout.num_kv_heads;
    const size_t row = attention_partial_floats(layout, group) * layout.num_kv_heads * sizeof(float);
    return align_up(kRows * num_ranges * row, 4096);
}

}  // namespace tl
