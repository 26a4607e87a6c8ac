// Stages of matrix products: plain, and gated (two products, an activation and the next number format in one go).
#include <algorithm>

#include "core/stages.h"

namespace tl {
namespace {

// Tokens per pass over the weights: their activations should stay in the L2 cache beside a panel.
int tokens_per_block(size_t row_bytes, int num_tokens, int most) {
    constexpr size_t kActivationBytes = 640 << 10;
    const int fitting = std::clamp(int(kActivationBytes / row_bytes) & ~15, 64, most);
    return std::min(fitting, std::max(num_tokens, 1));
}

// One or several matrices that read the same activations (q, k, v; gate and up).
class Matmul final : public Stage {
 public:
    Matmul(int x, std::vector<MatmulPart> parts) : x_(x), parts_(std::move(parts)) {}

    void prepare(const Machine& m, const Step& step) override {
        num_tokens_ = m.num_rows(x_, step);
        num_tiles_ = 0;
        for (const MatmulPart& part : parts_) num_tiles_ += m.weights.matrix(part.matrix).num_tiles();
        const PackedMatrix& first = m.weights.matrix(parts_[0].matrix);
        block_tokens_ = tokens_per_block(m.buffers[x_].row_bytes, num_tokens_, 1024);
        // Items: tiles of all parts for the first block of tokens, then for the second, ...
        const int num_blocks = (num_tokens_ + block_tokens_ - 1) / block_tokens_;
        constexpr size_t kChunkBytes = 64 << 10;
        const int chunk = num_tokens_ > 8 ? 4 : int(std::max<size_t>(1, kChunkBytes / first.tile_bytes));
        work_.reset(num_tiles_ * num_blocks, chunk, m.pool.size());
    }

    void run(const Machine& m, const Step&, int thread) override {
        for (int begin, end; work_.claim(thread, begin, end);) {
            while (begin < end) {
                const int block = begin / num_tiles_;
                int tile = begin % num_tiles_, part = 0;
                while (tile >= m.weights.matrix(parts_[part].matrix).num_tiles()) {
                    tile -= m.weights.matrix(parts_[part++].matrix).num_tiles();
                }
                const int count = std::min(end - begin, m.weights.matrix(parts_[part].matrix).num_tiles() - tile);
                multiply(m, parts_[part], block * block_tokens_, tile, tile + count, thread);
                begin += count;
            }
        }
    }

    size_t scratch_bytes(const Machine& m) const override {
        size_t bytes = 0;
        for (const MatmulPart& part : parts_) {
            const PackedMatrix& matrix = m.weights.matrix(part.matrix);
            bytes = std::max(bytes, matrix.format->matmul_scratch_bytes(matrix.num_columns));
        }
        return bytes;
    }

 private:
    void multiply(const Machine& m, const MatmulPart& part, int token, int tile_begin, int tile_end, int thread) const {
        const PackedMatrix& matrix = m.weights.matrix(part.matrix);
        MatmulArgs args{};
        args.weights = matrix.data;
        args.tile_bytes = matrix.tile_bytes;
        args.num_inputs = matrix.num_columns;
        args.num_rows = matrix.num_rows;
        args.x = m.row(x_, token);
        args.x_stride = m.buffers[x_].row_bytes;
        args.num_tokens = std::min(block_tokens_, num_tokens_ - token);
        args.out = m.floats(part.out, token);
        args.out_stride = m.stride_floats(part.out);
        args.bias = part.bias >= 0 ? m.weights.vector(part.bias).data() : nullptr;
        args.accumulate = part.accumulate;
        matrix.format->matmul(args, tile_begin, tile_end, m.thread_scratch(thread));
    }

    int x_;
    std::vector<MatmulPart> parts_;
    int num_tokens_ = 0, num_tiles_ = 0, block_tokens_ = 1;
};

// Tokens of one block of a gated product: bounds the scratch.
constexpr int kGatedTokens = 128;
constexpr size_t kGroupBytes = size_t(kGatedTokens) * kGroupColumns * sizeof(float);

class Gated final : public Stage {
 public:
    explicit Gated(const GatedMatmul& parts) : p_(parts) {}

    void prepare(const Machine& m, const Step& step) override {
        num_tokens_ = m.num_rows(p_.x, step);
        num_groups_ = m.weights.matrix(p_.gate).num_rows / kGroupColumns;
        block_tokens_ = tokens_per_block(m.buffers[p_.x].row_bytes, num_tokens_, kGatedTokens);
        work_.reset(num_groups_ * ((num_tokens_ + block_tokens_ - 1) / block_tokens_), 1, m.pool.size());
    }

    void run(const Machine& m, const Step&, int thread) override {
        uint8_t* scratch = m.thread_scratch(thread);
        float* gate = reinterpret_cast<float*>(scratch + matmul_bytes(m));
        float* up = gate + kGroupBytes / sizeof(float);
        uint8_t* row = reinterpret_cast<uint8_t*>(up) + kGroupBytes;
        const ActLayout layout = m.buffers[p_.out].layout, group_layout{layout.format, kGroupColumns};
        for (int begin, end; work_.claim(thread, begin, end);) {
            const int group = begin % num_groups_, first = begin / num_groups_ * block_tokens_;
            const int count = std::min(block_tokens_, num_tokens_ - first);
            multiply(m, p_.gate, p_.gate_bias, group, first, count, gate, scratch);
            multiply(m, p_.up, p_.up_bias, group, first, count, up, scratch);
            for (int t = 0; t < count; t++) {
                const size_t at = size_t(t) * kGroupColumns;
                m.kernels.glu_rows(p_.activation, gate + at, up + at, kGroupColumns, 1, group_layout, row);
                place_group(layout, group * kGroupColumns, row, m.row(p_.out, first + t));
            }
        }
    }

    size_t scratch_bytes(const Machine& m) const override { return matmul_bytes(m) + gated_matmul_scratch_bytes(); }

 private:
    size_t matmul_bytes(const Machine& m) const {
        const PackedMatrix &gate = m.weights.matrix(p_.gate), &up = m.weights.matrix(p_.up);
        return align_up(std::max(gate.format->matmul_scratch_bytes(gate.num_columns),
                                 up.format->matmul_scratch_bytes(up.num_columns)),
                        kRowAlignment);
    }

    void multiply(const Machine& m, int index, int bias, int group, int token, int num_tokens, float* out,
                  uint8_t* scratch) const {
        const PackedMatrix& matrix = m.weights.matrix(index);
        constexpr int kTiles = kGroupColumns / kTileRows;
        MatmulArgs args{};
        args.weights = matrix.data;
        args.tile_bytes = matrix.tile_bytes;
        args.num_inputs = matrix.num_columns;
        args.num_rows = matrix.num_rows;
        args.x = m.row(p_.x, token);
        args.x_stride = m.buffers[p_.x].row_bytes;
        args.num_tokens = num_tokens;
        args.out = out;
        args.out_stride = kGroupColumns;
        args.bias = bias >= 0 ? m.weights.vector(bias).data() : nullptr;
        args.out_row = group * kGroupColumns;
        matrix.format->matmul(args, group * kTiles, (group + 1) * kTiles, scratch);
    }

    GatedMatmul p_;
    int num_tokens_ = 0, num_groups_ = 0, block_tokens_ = 1;
};

}  // namespace

std::unique_ptr<Stage> make_matmul(int x, std::vector<MatmulPart> parts) {
    return std::make_unique<Matmul>(x, std::move(parts));
}
std::unique_ptr<Stage> make_gated_matmul(const GatedMatmul& parts) { return std::make_unique<Gated>(parts); }
size_t gated_matmul_scratch_bytes() { return 2 * kGroupBytes + ActLayout{ActFormat::kF32, kGroupColumns}.row_bytes(); }

}  // namespace tl
