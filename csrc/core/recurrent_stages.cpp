// Stages of layers that keep recurrent state in slots: a short convolution, the gated delta rule, and the gated norm
// behind it. An item of work is all rows of one run for some channels, so that one thread takes a state from token to token.
#include <algorithm>
#include <cstring>

#include "core/stages.h"

namespace tl {
namespace {

int slot_of(const Step& step, int run) { return step.state_slots[run]; }
int first_row(const Step& step, int run) { return step.run_starts[run]; }
int num_rows(const Step& step, int run) { return step.run_starts[run + 1] - step.run_starts[run]; }
bool starts_sequence(const Step& step, int run) { return step.positions[first_row(step, run)] == 0; }

// Channels of one item: a few cache lines of each row.
constexpr int kConvChannels = 256;

class CausalConv final : public Stage {
 public:
    CausalConv(int x, int weights, int num_taps, int out, int state)
        : x_(x), weights_(weights), num_taps_(num_taps), out_(out), state_(state) {}

    void prepare(const Machine& m, const Step& step) override {
        num_channels_ = m.buffers[x_].layout.width;
        num_parts_ = (num_channels_ + kConvChannels - 1) / kConvChannels;
        work_.reset(step.num_runs * num_parts_, 1, m.pool.size());
    }

    void run(const Machine& m, const Step& step, int thread) override {
        for (int item, end; work_.claim(thread, item, end);) {
            const int run = item / num_parts_, first = item % num_parts_ * kConvChannels, row = first_row(step, run);
            CausalConvArgs args{};
            args.x = m.floats(x_, row) + first;
            args.out = m.floats(out_, row) + first;
            args.stride = m.stride_floats(x_);
            args.weights = m.weights.vector(weights_).data() + first;
            args.weight_stride = args.history_stride = size_t(num_channels_);
            args.history = m.states->state(state_, slot_of(step, run)) + first;
            args.num_taps = num_taps_;
            args.num_rows = num_rows(step, run);
            args.num_channels = std::min(kConvChannels, num_channels_ - first);
            for (int i = 0; starts_sequence(step, run) && i + 1 < num_taps_; i++) {
                std::memset(args.history + size_t(i) * num_channels_, 0, size_t(args.num_channels) * sizeof(float));
            }
            m.kernels.causal_conv(args);
        }
    }

 private:
    int x_, weights_, num_taps_, out_, state_;
    int num_channels_ = 0, num_parts_ = 0;
};

int num_delta_blocks(int value_dim) { return (value_dim + kDeltaColumns - 1) / kDeltaColumns; }

// A state lies head by head, block of columns by block of columns, row by row.
class GatedDelta final : public Stage {
 public:
    explicit GatedDelta(const GatedDeltaParts& parts) : p_(parts), num_blocks_(num_delta_blocks(parts.value_dim)) {}

    void prepare(const Machine& m, const Step& step) override {
        // What the blocks of a head share is made once for all of them, unless threads would have too little to do.
        const int num_items = step.num_runs * p_.num_heads;
        const bool is_split = num_items < kItemsPerThread * m.pool.size() || step.num_tokens < kRowsOfWholeHeads;
        num_parts_ = is_split ? num_blocks_ : 1;
        work_.reset(num_items * num_parts_, 1, m.pool.size());
    }

    void run(const Machine& m, const Step& step, int thread) override {
        for (int item, end; work_.claim(thread, item, end);) {
            const int part = item % num_parts_, head = item / num_parts_ % p_.num_heads;
            advance(m, step, item / num_parts_ / p_.num_heads, head, part,
                    reinterpret_cast<float*>(m.thread_scratch(thread)));
        }
    }

    size_t scratch_bytes(const Machine& m) const override {
        return m.kernels.gated_delta_scratch_floats(p_.key_dim) * sizeof(float);
    }

 private:
    static constexpr int kItemsPerThread = 4, kRowsOfWholeHeads = 16;

    void advance(const Machine& m, const Step& step, int run, int head, int part, float* scratch) const {
        const int num_blocks = num_blocks_ / num_parts_, block = part * num_blocks;
        const int row = first_row(step, run), column = block * kDeltaColumns;
        const int key_head = p_.is_tiled ? head % p_.num_key_heads : head / (p_.num_heads / p_.num_key_heads);
        const size_t state_floats = size_t(p_.key_dim) * kDeltaColumns;
        const int key_width = p_.num_key_heads * p_.key_dim;
        GatedDeltaArgs args{};
        args.q = m.floats(p_.x, row) + size_t(key_head) * p_.key_dim;
        args.k = args.q + key_width;
        args.v = m.floats(p_.x, row) + 2 * size_t(key_width) + size_t(head) * p_.value_dim + column;
        args.x_stride = m.stride_floats(p_.x);
        args.step = number_of(m, p_.step, row, head);
        args.step_stride = m.stride_floats(p_.step.buffer);
        args.beta = number_of(m, p_.beta, row, head);
        args.beta_stride = m.stride_floats(p_.beta.buffer);
        args.decay = m.weights.vector(p_.decay)[head];
        args.step_bias = m.weights.vector(p_.step_bias)[head];
        args.state = m.states->state(p_.state, slot_of(step, run)) + size_t(head * num_blocks_ + block) * state_floats;
        args.out = m.floats(p_.out, row) + size_t(head) * p_.value_dim + column;
        args.out_stride = m.stride_floats(p_.out);
        args.num_rows = num_rows(step, run);
        args.key_dim = p_.key_dim;
        args.num_columns = std::min(num_blocks * kDeltaColumns, p_.value_dim - column);
        args.scratch = scratch;
        if (starts_sequence(step, run)) std::memset(args.state, 0, num_blocks * state_floats * sizeof(float));
        m.kernels.gated_delta(args);
    }

    static const float* number_of(const Machine& m, const HeadColumns& columns, int row, int head) {
        return m.floats(columns.buffer, row) + columns.start + size_t(head / columns.width) * columns.stride +
               head % columns.width;
    }

    GatedDeltaParts p_;
    int num_blocks_, num_parts_ = 1;
};

class GatedNorm final : public Stage {
 public:
    explicit GatedNorm(const GatedNormParts& parts) : p_(parts) {}
    void prepare(const Machine& m, const Step& step) override { work_.reset(m.num_rows(p_.x, step), 1, m.pool.size()); }

    void run(const Machine& m, const Step& step, int thread) override {
        const ActLayout& layout = m.buffers[p_.out].layout;
        const int head_dim = layout.width / p_.num_heads;
        const float* weight = m.weights.vector(p_.weight).data();
        uint8_t* normed = m.thread_scratch(thread);
        uint8_t* converted = normed + normed_bytes(layout);
        for (int i, end; work_.claim(thread, i, end);) {  // one row at a time
            for (int h = 0; h < p_.num_heads;
                 h++) {  // ascending: what the kernel writes behind a head is the next one's
                const size_t first = size_t(h) * head_dim;
                m.kernels.rms_norm_rows(m.floats(p_.x, i) + first, 0, weight, p_.eps, 1, {ActFormat::kF32, head_dim},
                                        normed + first * sizeof(float));
            }
            const bool is_interleaved = m.is_interleaved(p_.out, step);
            m.kernels.glu_rows(p_.activation, m.floats(p_.gate, i), reinterpret_cast<const float*>(normed), 0, 1,
                               layout, is_interleaved ? converted : m.row(p_.out, i));
            if (is_interleaved) m.put_row(p_.out, step, i, layout, 0, converted);
        }
    }

    size_t scratch_bytes(const Machine& m) const override { return gated_norm_scratch_bytes(m.buffers[p_.out].layout); }

    static size_t normed_bytes(const ActLayout& out) {
        return align_up(size_t(out.width) * sizeof(float), kRowAlignment) + kRowAlignment;
    }

 private:
    GatedNormParts p_;
};

}  // namespace

std::unique_ptr<Stage> make_causal_conv(int x, int weights, int num_taps, int out, int state) {
    return std::make_unique<CausalConv>(x, weights, num_taps, out, state);
}
size_t causal_conv_state_floats(int num_channels, int num_taps) { return size_t(num_channels) * (num_taps - 1); }
std::unique_ptr<Stage> make_gated_delta(const GatedDeltaParts& parts) { return std::make_unique<GatedDelta>(parts); }
size_t gated_delta_state_floats(int num_heads, int key_dim, int value_dim) {
    return size_t(num_heads) * num_delta_blocks(value_dim) * key_dim * kDeltaColumns;
}
std::unique_ptr<Stage> make_gated_norm(const GatedNormParts& parts) { return std::make_unique<GatedNorm>(parts); }
size_t gated_norm_scratch_bytes(const ActLayout& out) { return GatedNorm::normed_bytes(out) + out.row_bytes(); }

}  // namespace tl
