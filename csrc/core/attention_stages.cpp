// The stages of attention: rotate and store this step's keys and values, then attend.
#include "core/stages.h"

namespace tl {
namespace {

// Rows per chunk: few enough to spread, many enough to be worth a claim.
constexpr int kRowChunk = 4;

class RopeKv final : public Stage {
 public:
    RopeKv(std::vector<RopePart> parts, const std::vector<RopeTable>& ropes, int k, int v, int layer)
        : parts_(std::move(parts)), k_(k), v_(v), layer_(layer) {
        for (const RopePart& part : parts_) tables_.push_back(ropes.at(part.rope));
    }
    void prepare(const Machine& m, const Step& step) override {
        work_.reset(step.num_tokens, kRowChunk, m.pool.size());
    }
    void run(const Machine& m, const Step& step, int thread) override {
        for (int begin, end; work_.claim(thread, begin, end);) {
            for (int i = begin; i < end; i++) {
                for (size_t p = 0; p < parts_.size(); p++) {
                    const RopeTable& table = tables_[p];
                    m.kernels.rope_row(m.floats(parts_[p].buffer, i), parts_[p].num_heads, parts_[p].head_dim,
                                       table.layout, int(table.inv_freq.size()), m.floats(table.cos_buffer, i),
                                       m.floats(table.sin_buffer, i));
                }
                write(m, step, i);
            }
        }
    }

 private:
    void write(const Machine& m, const Step& step, int row) const {
        const int32_t* table = step.page_ids + step.page_starts[step.row_runs[row]];
        const int position = step.positions[row];
        uint8_t* page = m.pages->layer(layer_) + size_t(table[position / kPageTokens]) * m.pages->page_bytes();
        m.kernels.kv_write(m.floats(k_, row), m.floats(v_, row), m.pages->layout(), position % kPageTokens, page);
    }

    std::vector<RopePart> parts_;
    std::vector<RopeTable> tables_;
    int k_, v_, layer_;
};

class Attention final : public Stage {
 public:
    Attention(int q, int out, int layer, int num_heads, float scale, int window)
        : q_(q), out_(out), layer_(layer), num_heads_(num_heads), window_(window), scale_(scale) {}

    void prepare(const Machine& m, const Step& step) override {
        work_.reset(step.num_row_blocks * m.pages->layout().num_kv_heads, 1, m.pool.size());
    }

    void run(const Machine& m, const Step& step, int thread) override {
        const KvLayout& layout = m.pages->layout();
        for (int begin, end; work_.claim(thread, begin, end);) {
            for (int i = begin; i < end; i++) {
                const Step::RowBlock& block = step.row_blocks[i / layout.num_kv_heads];
                const int first = step.run_starts[block.run];
                AttentionArgs args{};
                args.q = m.floats(q_, first);
                args.q_stride = m.stride_floats(q_);
                args.out = m.floats(out_, first);
                args.out_stride = m.stride_floats(out_);
                args.pages = m.pages->layer(layer_);
                args.page_bytes = m.pages->page_bytes();
                args.page_ids = step.page_ids + step.page_starts[block.run];
                args.first_position = step.positions[first];
                args.row_begin = block.begin - first;
                args.row_end = block.end - first;
                args.kv_head = i % layout.num_kv_heads;
                args.group = num_heads_ / layout.num_kv_heads;
                args.layout = &layout;
                args.scale = scale_;
                args.window = window_;
                args.scratch = m.thread_scratch(thread);
                m.kernels.attention(args);
            }
        }
    }

    size_t scratch_bytes(const Machine& m) const override {
        const KvLayout& layout = m.pages->layout();
        return m.kernels.attention_scratch_bytes(layout, num_heads_ / layout.num_kv_heads);
    }

 private:
    int q_, out_, layer_, num_heads_, window_;
    float scale_;
};

}  // namespace

std::unique_ptr<Stage> make_rope_kv(std::vector<RopePart> parts, const std::vector<RopeTable>& ropes, int k, int v,
                                    int layer) {
    return std::make_unique<RopeKv>(std::move(parts), ropes, k, v, layer);
}
std::unique_ptr<Stage> make_attention(int q, int out, int layer, int num_heads, float scale, int window) {
    return std::make_unique<Attention>(q, out, layer, num_heads, scale, window);
}

}  // namespace tl
