// Stages of a mixture of experts. Routing sorts the pairs (token, expert) of the step by expert; the gated product of each
// expert runs over its tokens' rows, the down product over the rows that come out of that, and each token adds up its
// experts' rows, best expert first. A pair's numbers come from the matrix kernels alone, which treat one row or many alike, so
// they do not depend on the tokens that share its expert.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <stdexcept>

#include "core/mapped.h"
#include "core/stages.h"

namespace tl {
namespace {

// What the partial results of all pairs should take at most, to stay in the L2 cache, and the tiles of an item.
constexpr size_t kPartBytes = 1 << 20;
constexpr int kMaxItemTiles = 4;

int most_item_tiles(size_t num_pairs) {
    return int(std::clamp<size_t>(kPartBytes / (num_pairs * kTileRows * sizeof(float)), 1, kMaxItemTiles));
}

// Rows of a block, and one that is on its way.
constexpr size_t kGatheredRows = kExpertTokens + 1;

MatmulArgs matmul_args(const uint8_t* x, size_t x_stride, int num_tokens) {
    MatmulArgs args{};
    args.x = x;
    args.x_stride = x_stride;
    args.num_tokens = num_tokens;
    return args;
}

const float* bias_of(const Machine& m, const ExpertMatrices& matrices, int expert) {
    if (matrices.bias < 0) return nullptr;
    return m.weights.vector(matrices.bias).data() + size_t(expert) * m.weights.matrix(matrices.first).num_rows;
}

size_t kernel_bytes(const Machine& m, const ExpertMatrices& matrices) {
    return product_scratch_bytes(m.weights.matrix(matrices.first));
}

// Rows that a product reads.
struct Rows {
    const uint8_t* data;
    bool interleaved;
};

class Route final : public Stage {
 public:
    explicit Route(const RouteParts& parts) : p_(parts) {}

    void prepare(const Machine& m, const Step& step) override {
        num_left_.store(step.num_tokens, std::memory_order_relaxed);
        work_.reset(step.num_tokens, kChunk, m.pool.size());
    }

    // Whoever chooses the last token's experts sorts the pairs of all.
    void run(const Machine& m, const Step& step, int thread) override {
        const int num_used = p_.routing.num_used;
        const float* bias = p_.bias >= 0 ? m.weights.vector(p_.bias).data() : nullptr;
        const float* scale = p_.expert_scale < 0 ? nullptr : m.weights.vector(p_.expert_scale).data();
        float* scratch = reinterpret_cast<float*>(m.thread_scratch(thread));
        for (int begin, end; work_.claim(thread, begin, end);) {
            for (int t = begin; t < end; t++) {
                choose_experts(p_.routing, m.floats(p_.logits, t), bias, scale, scratch, m.routes->experts(t, num_used),
                               m.routes->weights(t, num_used));
            }
            if (num_left_.fetch_sub(end - begin, std::memory_order_acq_rel) == end - begin) {
                const int num_groups = (p_.width + kGroupColumns - 1) / kGroupColumns;
                m.routes->sort(step.num_tokens, p_.routing, num_groups, m.pool.size());
            }
        }
    }

    size_t scratch_bytes(const Machine&) const override { return route_scratch_floats(p_.routing) * sizeof(float); }

 private:
    static constexpr int kChunk = 8;  // tokens
    RouteParts p_;
    std::atomic<int> num_left_{0};
};

// activation(gate(x)) * up(x) of every pair, in the order of experts. An item is a group of columns of a block of pairs.
class ExpertsGated final : public Stage {
 public:
    explicit ExpertsGated(const ExpertsGatedParts& parts) : p_(parts) {}

    void prepare(const Machine&, const Step&) override {}

    void run(const Machine& m, const Step& step, int thread) override {
        Scratch scratch = scratch_of(m, thread);
        const uint8_t* x = input_rows(m, step, p_.x, m.thread_scratch(thread));
        const int width = m.weights.matrix(p_.gate.first).num_rows;
        const int num_groups = (width + kGroupColumns - 1) / kGroupColumns;
        const Routes& routes = *m.routes;
        int gathered = -1;  // the block whose rows are in scratch
        Rows gate_rows{}, up_rows{};
        for (int begin, end; m.routes->work().claim(thread, begin, end);) {
            const Routes::Block& block = routes.blocks()[begin / num_groups];
            const int first = begin % num_groups * kGroupColumns;
            if (gathered != begin / num_groups) {
                gathered = begin / num_groups;
                gate_rows = gather(m, step, p_.x, x, block, scratch.x);
                up_rows =
                    p_.up_x == p_.x ? gate_rows : gather(m, step, p_.up_x, m.row(p_.up_x, 0), block, scratch.up_x);
            }
            multiply(m, p_.gate, p_.x, block, first, gate_rows, scratch.gate, scratch.kernel);
            multiply(m, p_.up, p_.up_x, block, first, up_rows, scratch.up, scratch.kernel);
            activate(m, block, first, std::min(kGroupColumns, width - first), scratch);
        }
    }

    size_t scratch_bytes(const Machine& m) const override { return scratch_of(m, 0).end - m.thread_scratch(0); }

 private:
    // Parts of a thread's scratch.
    struct Scratch {
        uint8_t *x, *up_x, *kernel;
        float *gate, *up;
        uint8_t *row, *end;
    };

    Scratch scratch_of(const Machine& m, int thread) const {
        constexpr size_t kGroupBytes = size_t(kExpertTokens) * kGroupColumns * sizeof(float);
        Scratch s;
        s.x = m.thread_scratch(thread) + shared_row_bytes(m.buffers[p_.x].layout);
        s.up_x = s.x + kGatheredRows * m.buffers[p_.x].row_bytes;
        s.kernel = s.up_x + (p_.up_x == p_.x ? 0 : kGatheredRows * m.buffers[p_.up_x].row_bytes);
        s.gate = reinterpret_cast<float*>(s.kernel + std::max(kernel_bytes(m, p_.gate), kernel_bytes(m, p_.up)));
        s.up = s.gate + kGroupBytes / sizeof(float);
        s.row = reinterpret_cast<uint8_t*>(s.up) + kGroupBytes;
        s.end = s.row + ActLayout{ActFormat::kF32, kGroupColumns}.row_bytes();
        return s;
    }

    // The rows of a block's tokens, of a buffer whose rows begin at x.
    static Rows gather(const Machine& m, const Step& step, int buffer, const uint8_t* x, const Routes::Block& block,
                       uint8_t* rows) {
        const int32_t* tokens = m.routes->tokens() + block.begin;
        const ActLayout& layout = m.buffers[buffer].layout;
        const size_t stride = m.buffers[buffer].row_bytes;
        const bool from_interleaved = m.is_interleaved(buffer, step);
        const bool interleaved = m.interleaves(layout, block.count);
        if (!from_interleaved && !interleaved && tokens[block.count - 1] - tokens[0] == block.count - 1)
            return {x + tokens[0] * stride, false};  // ascending, so one after another
        const InterleavedLayout sixteen{layout};
        uint8_t* one = rows + kExpertTokens * stride;
        for (int i = 0; i < block.count; i++) {
            const uint8_t* row = x + size_t(tokens[i]) * stride;
            if (from_interleaved) {
                const int t = tokens[i] % kInterleavedRows;
                sixteen.take(row - size_t(t) * stride, t, one);
                row = one;
            }
            put(layout, layout, 0, row, interleaved, i, rows, stride);
        }
        return {rows, interleaved};
    }

    // Columns of row i of some rows.
    static void put(const ActLayout& layout, const ActLayout& part, int first_column, const uint8_t* from,
                    bool interleaved, int i, uint8_t* rows, size_t stride) {
        if (!interleaved) return place_columns(layout, part, first_column, from, rows + size_t(i) * stride);
        const int t = i % kInterleavedRows;
        InterleavedLayout{layout}.put(part, from, first_column, t, rows + size_t(i - t) * stride);
    }

    void multiply(const Machine& m, const ExpertMatrices& matrices, int buffer, const Routes::Block& block, int first,
                  Rows rows, float* out, uint8_t* scratch) const {
        const PackedMatrix& matrix = m.weights.matrix(matrices.first + block.expert);
        MatmulArgs args = matmul_args(rows.data, m.buffers[buffer].row_bytes, block.count);
        args.interleaved = rows.interleaved;
        args.out = out;
        args.out_stride = kGroupColumns;
        args.out_row = first;
        args.bias = bias_of(m, matrices, block.expert);
        const int tile = first / kTileRows, end = std::min(tile + kGroupColumns / kTileRows, matrix.num_tiles());
        multiply_tiles(matrix, args, tile, end, scratch);
        forget_tiles(matrix, tile, end);
    }

    void activate(const Machine& m, const Routes::Block& block, int first, int num_columns, const Scratch& s) const {
        const ActLayout layout = m.buffers[p_.out].layout, part{layout.format, num_columns};
        const bool interleaved = m.interleaves(layout, block.num_pairs);
        for (int i = 0; i < block.count; i++) {
            const size_t at = size_t(i) * kGroupColumns;
            m.kernels.glu_rows(p_.activation, s.gate + at, s.up + at, kGroupColumns, 1, part, s.row);
            put(layout, part, first, s.row, interleaved, block.row + i, m.row(p_.out, 0), m.buffers[p_.out].row_bytes);
        }
    }

    ExpertsGatedParts p_;
};

// The down product, and the weighted sum of a token's experts. An item is a few columns of the result for all tokens: a
// thread holds the rows of all pairs for these columns, so no other has to wait for them.
class ExpertsDown final : public Stage {
 public:
    explicit ExpertsDown(const ExpertsDownParts& parts) : p_(parts) {}

    void prepare(const Machine& m, const Step& step) override {
        const int num_tiles = m.weights.matrix(p_.down.first).num_tiles();
        // Enough items for all threads; else runs of tiles, which memory delivers faster.
        const int wanted = std::max(1, num_tiles / (4 * m.pool.size()));
        item_tiles_ = std::min(wanted, most_item_tiles(size_t(step.num_tokens) * p_.num_used));
        work_.reset((num_tiles + item_tiles_ - 1) / item_tiles_, 1, m.pool.size());
    }

    void run(const Machine& m, const Step& step, int thread) override {
        uint8_t* kernel = m.thread_scratch(thread);
        float* parts = reinterpret_cast<float*>(kernel + kernel_bytes(m, p_.down));
        for (int begin, end; work_.claim(thread, begin, end);) {
            multiply(m, begin * item_tiles_, parts, kernel);
            mix(m, step, begin * item_tiles_ * kTileRows, parts);
        }
    }

    size_t scratch_bytes(const Machine& m) const override {
        return kernel_bytes(m, p_.down) + experts_part_bytes(p_.max_tokens, p_.num_used);
    }

 private:
    void multiply(const Machine& m, int first_tile, float* parts, uint8_t* scratch) const {
        const Routes& routes = *m.routes;
        const size_t stride = size_t(item_tiles_) * kTileRows;
        for (int b = 0; b < routes.num_blocks();) {
            const Routes::Block& block = routes.blocks()[b];
            while (b < routes.num_blocks() && routes.blocks()[b].expert == block.expert) b++;
            const PackedMatrix& matrix = m.weights.matrix(p_.down.first + block.expert);
            MatmulArgs args = matmul_args(m.row(p_.x, block.row), m.buffers[p_.x].row_bytes, block.num_pairs);
            args.interleaved = m.interleaves(m.buffers[p_.x].layout, block.num_pairs);
            args.out = parts + block.begin * stride;
            args.out_stride = stride;
            args.out_row = first_tile * kTileRows;
            args.bias = bias_of(m, p_.down, block.expert);
            const int end = std::min(first_tile + item_tiles_, matrix.num_tiles());
            multiply_tiles(matrix, args, first_tile, end, scratch);
            forget_tiles(matrix, first_tile, end);
        }
    }

    void mix(const Machine& m, const Step& step, int first, const float* parts) const {
        const size_t stride = size_t(item_tiles_) * kTileRows;
        const int num_columns = std::min(int(stride), m.buffers[p_.out].layout.width - first);
        const float* rows[kMaxExpertsUsed];
        for (int t = 0; t < step.num_tokens; t++) {
            const int32_t* places = m.routes->places(t, p_.num_used);
            for (int r = 0; r < p_.num_used; r++) rows[r] = parts + places[r] * stride;
            m.kernels.combine(rows, m.routes->weights(t, p_.num_used), p_.num_used, p_.accumulate,
                              m.floats(p_.out, t) + first, num_columns);
        }
    }

    ExpertsDownParts p_;
    int item_tiles_ = 1;
};

// out = x * sigmoid(gate), where gate is one number for each row.
class GateRows final : public Stage {
 public:
    GateRows(int x, int gate, int out) : x_(x), gate_(gate), out_(out) {}
    void prepare(const Machine& m, const Step& step) override { work_.reset(m.num_rows(x_, step), 1, m.pool.size()); }
    void run(const Machine& m, const Step&, int thread) override {
        for (int begin, end; work_.claim(thread, begin, end);) {
            const float *row = m.floats(x_, begin), weight = 1.0f / (1.0f + std::exp(-*m.floats(gate_, begin)));
            m.kernels.combine(&row, &weight, 1, false, m.floats(out_, begin), m.buffers[x_].layout.width);
        }
    }

 private:
    int x_, gate_, out_;
};

}  // namespace

size_t experts_part_bytes(int max_tokens, int num_used) {
    // Fewer pairs have items of more tiles: as many as fit, or the most there may be.
    const size_t num_pairs = size_t(max_tokens) * num_used;
    const size_t most = std::min(num_pairs * kMaxItemTiles * kTileRows * sizeof(float), kPartBytes);
    return std::max(num_pairs * kTileRows * sizeof(float), most);
}
size_t experts_gated_scratch_bytes(const ActLayout& x, const ActLayout& up_x, size_t kernel) {
    return shared_row_bytes(x) + kGatheredRows * (x.row_bytes() + up_x.row_bytes()) + align_up(kernel, kRowAlignment) +
           2 * size_t(kExpertTokens) * kGroupColumns * sizeof(float) +
           ActLayout{ActFormat::kF32, kGroupColumns}.row_bytes();
}

void check_experts(const Weights& weights, const ExpertMatrices& matrices, int num_experts, const char* name) {
    const PackedMatrix& first = weights.matrix(matrices.first);
    for (int e = 1; e < num_experts; e++) {
        const PackedMatrix& other = weights.matrix(matrices.first + e);
        if (other.num_rows != first.num_rows || other.num_columns != first.num_columns ||
            other.format != first.format || other.is_mapped() != first.is_mapped())
            throw std::invalid_argument(std::string(name) + " matrices of a layer's experts differ in shape or place");
    }
    if (matrices.bias >= 0 && weights.vector(matrices.bias).size() != size_t(num_experts) * first.num_rows) {
        throw std::invalid_argument(std::string(name) + " biases of a layer's experts do not fit their matrices");
    }
}

std::unique_ptr<Stage> make_route(const RouteParts& parts) { return std::make_unique<Route>(parts); }
std::unique_ptr<Stage> make_experts_gated(const ExpertsGatedParts& parts) {
    return std::make_unique<ExpertsGated>(parts);
}
std::unique_ptr<Stage> make_experts_down(const ExpertsDownParts& parts) { return std::make_unique<ExpertsDown>(parts); }
std::unique_ptr<Stage> make_gate_rows(int x, int gate, int out) { return std::make_unique<GateRows>(x, gate, out); }

}  // namespace tl
