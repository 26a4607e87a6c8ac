// Stages of matrix products: plain, and gated (two products, an activation and the next number format in one go).
#include <algorithm>
#include <array>

#include "core/mapped.h"
#include "core/stages.h"

namespace tl {
namespace {

// Tokens per pass over the weights: their activations should stay in the L2 cache beside a panel. Interleaved rows are
// one stream, which may come from further away.
int tokens_per_block(size_t row_bytes, bool is_interleaved, int num_tokens, int most) {
    const size_t activation_bytes = is_interleaved ? 4 << 20 : 640 << 10;
    const int fitting = std::clamp(int(activation_bytes / row_bytes) & ~15, 64, most);
    return std::min(fitting, std::max(num_tokens, 1));
}

// Writes to each page of some tiles, which are all zeros before they are packed.
void touch_tiles(const PackedMatrix& matrix, int begin, int end) {
    if (matrix.is_mapped()) return;
    constexpr size_t kPage = 4096;
    uint8_t* first = const_cast<uint8_t*>(matrix.data) + size_t(begin) * matrix.tile_bytes;
    const size_t num_bytes = size_t(end - begin) * matrix.tile_bytes;
    for (size_t i = 0; i < num_bytes; i += kPage) *static_cast<volatile uint8_t*>(first + i) = 0;
}

// Rows in fast arithmetic that share one making of the weights' bytes.
constexpr int kFastTokens = 512;

// The rows of a product in blocks: those that are multiplied exactly, then those in fast arithmetic.
class TokenBlocks {
 public:
    struct Block {
        int first, count;
        bool is_fast;
    };

    // num_exact: rows before the first fast one; exact_block: most rows of an exact block.
    void reset(int num_rows, int num_exact, int exact_block) {
        num_rows_ = num_rows;
        num_exact_ = std::min(num_exact, num_rows);
        exact_block_ = exact_block;
        num_exact_blocks_ = (num_exact_ + exact_block - 1) / exact_block;
    }
    int size() const { return num_exact_blocks_ + (num_rows_ - num_exact_ + kFastTokens - 1) / kFastTokens; }
    Block operator[](int i) const {
        const bool is_fast = i >= num_exact_blocks_;
        const int first = is_fast ? num_exact_ + (i - num_exact_blocks_) * kFastTokens : i * exact_block_;
        return {first, std::min(is_fast ? kFastTokens : exact_block_, (is_fast ? num_rows_ : num_exact_) - first),
                is_fast};
    }

 private:
    int num_rows_ = 0, num_exact_ = 0, exact_block_ = 1, num_exact_blocks_ = 0;
};

// Rows of buffer x before the first that these matrices multiply in fast arithmetic. Logits are always exact.
template <class Parts, class IndexOf>
int num_exact_rows(const Machine& m, const Step& step, int x, const Parts& parts, IndexOf matrix_of) {
    bool is_fast = !m.buffers[x].outputs;
    for (const auto& part : parts) is_fast &= m.weights.matrix(matrix_of(part)).fast != nullptr;
    return is_fast ? step.first_fast_row : INT32_MAX;
}

// Scratch for one of a stage's matrices.
size_t scratch_of(const Machine& m, int index) {
    const PackedMatrix& matrix = m.weights.matrix(index);
    return m.is_fast ? any_product_scratch_bytes(matrix) : product_scratch_bytes(matrix);
}

// One or several matrices that read the same activations (q, k, v; gate and up).
class Matmul final : public Stage {
 public:
    Matmul(int x, std::vector<MatmulPart> parts) : x_(x), parts_(std::move(parts)) {}
    bool is_needed(const Machine&, const Step&) const override { return num_tokens_ > 0; }

    void prepare(const Machine& m, const Step& step) override {
        num_tokens_ = m.num_rows(x_, step);
        num_tiles_ = 0;
        for (const MatmulPart& part : parts_) num_tiles_ += m.weights.matrix(part.matrix).num_tiles();
        const PackedMatrix& first = m.weights.matrix(parts_[0].matrix);
        block_tokens_ = tokens_per_block(m.buffers[x_].row_bytes, m.is_interleaved(x_, step), num_tokens_, 1024);
        is_mapped_ = false;
        for (const MatmulPart& part : parts_) is_mapped_ |= m.weights.matrix(part.matrix).is_mapped();
        if (is_mapped_) {  // tiles for all tokens: the file is read once
            return work_.reset(num_tiles_, claimed_tiles(first, num_tiles_, m.pool.size()), m.pool.size());
        }
        // Items: tiles of all parts for the first block of tokens, then for the second, ...
        blocks_.reset(num_tokens_, num_exact_rows(m, step, x_, parts_, [](const MatmulPart& p) { return p.matrix; }),
                      block_tokens_);
        constexpr size_t kChunkBytes = 64 << 10;
        const int chunk = num_tokens_ > 8 ? 4 : int(std::max<size_t>(1, kChunkBytes / first.tile_bytes));
        work_.reset(num_tiles_ * blocks_.size(), chunk, m.pool.size());
    }

    void run(const Machine& m, const Step& step, int thread) override {
        const uint8_t* x = input_rows(m, step, x_, m.thread_scratch(thread));
        for (int begin, end; work_.claim(thread, begin, end);) {
            while (begin < end) {
                const TokenBlocks::Block block =
                    is_mapped_ ? TokenBlocks::Block{0, num_tokens_, false} : blocks_[begin / num_tiles_];
                int tile = begin % num_tiles_, part = 0;
                while (tile >= m.weights.matrix(parts_[part].matrix).num_tiles()) {
                    tile -= m.weights.matrix(parts_[part++].matrix).num_tiles();
                }
                const int count = std::min(end - begin, m.weights.matrix(parts_[part].matrix).num_tiles() - tile);
                multiply(m, step, parts_[part], x, block, tile, tile + count, thread);
                begin += count;
            }
        }
    }

    void touch_weights(const Machine& m, int thread) override {
        for (int begin, end; work_.claim_own(thread, begin, end);) {
            int first = 0;  // tile of all parts
            for (const MatmulPart& part : parts_) {
                const PackedMatrix& matrix = m.weights.matrix(part.matrix);
                const int from = std::max(begin - first, 0), to = std::min(end - first, matrix.num_tiles());
                if (from < to) touch_tiles(matrix, from, to);
                first += matrix.num_tiles();
            }
        }
    }

    size_t scratch_bytes(const Machine& m) const override {
        size_t bytes = 0;
        for (const MatmulPart& part : parts_) bytes = std::max(bytes, scratch_of(m, part.matrix));
        return bytes + shared_row_bytes(m.buffers[x_].layout);
    }

 private:
    void multiply(const Machine& m, const Step& step, const MatmulPart& part, const uint8_t* x,
                  TokenBlocks::Block block, int tile_begin, int tile_end, int thread) const {
        const PackedMatrix& matrix = m.weights.matrix(part.matrix);
        MatmulArgs args{};
        args.x_stride = m.buffers[x_].row_bytes;
        args.x = x + size_t(block.first) * args.x_stride;
        args.num_tokens = block.count;
        args.out = m.floats(part.out, block.first);
        args.out_stride = m.stride_floats(part.out);
        args.bias = part.bias >= 0 ? m.weights.vector(part.bias).data() : nullptr;
        args.accumulate = part.accumulate;
        args.interleaved = m.is_interleaved(x_, step);
        uint8_t* scratch = m.thread_scratch(thread) + shared_row_bytes(m.buffers[x_].layout);
        if (block.is_fast) return multiply_tiles_fast(matrix, args, tile_begin, tile_end, scratch);
        multiply_tiles(matrix, args, tile_begin, tile_end, scratch, block_tokens_);
        forget_tiles(matrix, tile_begin, tile_end);
    }

    int x_;
    std::vector<MatmulPart> parts_;
    TokenBlocks blocks_;
    int num_tokens_ = 0, num_tiles_ = 0, block_tokens_ = 1;
    bool is_mapped_ = false;  // some part of it
};

// Tokens of one block of a gated product: bounds the scratch.
constexpr int kGatedTokens = 256;
constexpr size_t group_bytes(bool is_fast) {
    return size_t(is_fast ? kFastTokens : kGatedTokens) * kGroupColumns * sizeof(float);
}

class Gated final : public Stage {
 public:
    explicit Gated(const GatedMatmul& parts) : p_(parts) {}

    void prepare(const Machine& m, const Step& step) override {
        num_tokens_ = m.num_rows(p_.x, step);
        num_groups_ = m.weights.matrix(p_.gate).num_rows / kGroupColumns;
        block_tokens_ =
            tokens_per_block(m.buffers[p_.x].row_bytes, m.is_interleaved(p_.x, step), num_tokens_, kGatedTokens);
        blocks_.reset(num_tokens_,
                      num_exact_rows(m, step, p_.x, std::array{p_.gate, p_.up}, [](int matrix) { return matrix; }),
                      block_tokens_);
        num_blocks_ = std::max(1, blocks_.size());
        // A thread takes a group of mapped columns for all tokens, so that the file is read once.
        is_mapped_ = m.weights.matrix(p_.gate).is_mapped() || m.weights.matrix(p_.up).is_mapped();
        work_.reset(num_groups_ * num_blocks_, is_mapped_ ? num_blocks_ : 1, m.pool.size());
    }

    void run(const Machine& m, const Step& step, int thread) override {
        const uint8_t* x = input_rows(m, step, p_.x, m.thread_scratch(thread));
        for (int begin, end; work_.claim(thread, begin, end);) {
            for (int i = begin; i < end; i++) {
                if (is_mapped_) {
                    multiply_group(m, step, x, i / num_blocks_, blocks_[i % num_blocks_], thread);
                } else {
                    multiply_group(m, step, x, i % num_groups_, blocks_[i / num_groups_], thread);
                }
            }
            if (!is_mapped_) continue;
            const int first = begin / num_blocks_ * kTiles, last = (end - 1) / num_blocks_ * kTiles + kTiles;
            for (const int index : {p_.gate, p_.up}) forget_tiles(m.weights.matrix(index), first, last);
        }
    }

    void touch_weights(const Machine& m, int thread) override {
        for (int begin, end; work_.claim_own(thread, begin, end);) {
            for (const int index : {p_.gate, p_.up}) touch_tiles(m.weights.matrix(index), begin * kTiles, end * kTiles);
        }
    }

    size_t scratch_bytes(const Machine& m) const override {
        return shared_row_bytes(m.buffers[p_.x].layout) + matmul_bytes(m) + gated_matmul_scratch_bytes(m.is_fast);
    }

 private:
    static constexpr int kTiles = kGroupColumns / kTileRows;

    // A group of columns for a block of tokens.
    void multiply_group(const Machine& m, const Step& step, const uint8_t* x, int group, TokenBlocks::Block block,
                        int thread) const {
        uint8_t* scratch = m.thread_scratch(thread) + shared_row_bytes(m.buffers[p_.x].layout);
        float* gate = reinterpret_cast<float*>(scratch + matmul_bytes(m));
        float* up = gate + group_bytes(m.is_fast) / sizeof(float);
        uint8_t* row = reinterpret_cast<uint8_t*>(up) + group_bytes(m.is_fast);
        const ActLayout group_layout{m.buffers[p_.out].layout.format, kGroupColumns};
        multiply(m, step, p_.gate, p_.gate_bias, group, x, block, gate, scratch);
        multiply(m, step, p_.up, p_.up_bias, group, x, block, up, scratch);
        for (int t = 0; t < block.count; t++) {
            const size_t at = size_t(t) * kGroupColumns;
            m.kernels.glu_rows(p_.activation, gate + at, up + at, kGroupColumns, 1, group_layout, row);
            m.put_row(p_.out, step, block.first + t, group_layout, group * kGroupColumns, row);
        }
    }

    size_t matmul_bytes(const Machine& m) const {
        return align_up(std::max(scratch_of(m, p_.gate), scratch_of(m, p_.up)), kRowAlignment);
    }

    void multiply(const Machine& m, const Step& step, int index, int bias, int group, const uint8_t* x,
                  TokenBlocks::Block block, float* out, uint8_t* scratch) const {
        MatmulArgs args{};
        args.x_stride = m.buffers[p_.x].row_bytes;
        args.x = x + size_t(block.first) * args.x_stride;
        args.num_tokens = block.count;
        args.out = out;
        args.out_stride = kGroupColumns;
        args.bias = bias >= 0 ? m.weights.vector(bias).data() : nullptr;
        args.out_row = group * kGroupColumns;
        args.interleaved = m.is_interleaved(p_.x, step);
        const PackedMatrix& matrix = m.weights.matrix(index);
        if (block.is_fast) return multiply_tiles_fast(matrix, args, group * kTiles, (group + 1) * kTiles, scratch);
        multiply_tiles(matrix, args, group * kTiles, (group + 1) * kTiles, scratch);
    }

    GatedMatmul p_;
    TokenBlocks blocks_;
    int num_tokens_ = 0, num_groups_ = 0, block_tokens_ = 1, num_blocks_ = 1;
    bool is_mapped_ = false;
};

// The product that makes the logits. When only the best of a row are wanted, a thread keeps its best of each row and the
// logits pass through its scratch.
class Head final : public Stage {
 public:
    Head(int x, const MatmulPart& part) : x_(x), part_(part), all_(x, {part}) {}

    void prepare(const Machine& m, const Step& step) override {
        num_rows_ = m.num_rows(x_, step);
        if (!step.num_best) return all_.prepare(m, step);
        const PackedMatrix& matrix = m.weights.matrix(part_.matrix);
        const int num_items = (matrix.num_tiles() + kTiles - 1) / kTiles;
        const int chunk = matrix.is_mapped() ? claimed_tiles(matrix, matrix.num_tiles(), m.pool.size()) / kTiles : 1;
        work_.reset(num_items, std::max(1, chunk), m.pool.size());
    }
    bool is_needed(const Machine&, const Step&) const override { return num_rows_ > 0; }

    void run(const Machine& m, const Step& step, int thread) override {
        if (!step.num_best) return all_.run(m, step, thread);
        m.best->clear(thread, num_rows_, step.num_best);
        const PackedMatrix& matrix = m.weights.matrix(part_.matrix);
        const ActLayout& layout = m.buffers[x_].layout;
        float* logits = reinterpret_cast<float*>(m.thread_scratch(thread) + shared_row_bytes(layout));
        MatmulArgs args{};
        args.x = input_rows(m, step, x_, m.thread_scratch(thread));
        args.x_stride = m.buffers[x_].row_bytes;
        args.num_tokens = num_rows_;
        args.out = logits;
        args.out_stride = kColumns;
        args.bias = part_.bias >= 0 ? m.weights.vector(part_.bias).data() : nullptr;
        args.interleaved = m.is_interleaved(x_, step);
        for (int begin, end; work_.claim(thread, begin, end);) {
            const int last = std::min(end * kTiles, matrix.num_tiles());
            for (int tile = begin * kTiles; tile < last; tile += kTiles) {
                args.out_row = tile * kTileRows;
                multiply_tiles(matrix, args, tile, std::min(tile + kTiles, last),
                               reinterpret_cast<uint8_t*>(logits) + kLogitBytes);
                const int num_columns = std::min(kColumns, matrix.num_rows - args.out_row);
                for (int row = 0; row < num_rows_; row++) {
                    m.best->offer(thread, row, args.out_row, logits + size_t(row) * kColumns, num_columns);
                }
            }
            forget_tiles(matrix, begin * kTiles, last);
        }
    }

    void touch_weights(const Machine& m, int thread) override { all_.touch_weights(m, thread); }

    size_t scratch_bytes(const Machine& m) const override { return all_.scratch_bytes(m) + kLogitBytes; }

    static constexpr int kTiles = 4, kColumns = kTiles * kTileRows;  // of a chunk
    static constexpr size_t kLogitBytes = size_t(kMaxBestRows) * kColumns * sizeof(float);

 private:
    int x_;
    MatmulPart part_;
    Matmul all_;
    int num_rows_ = 0;
};

}  // namespace

std::unique_ptr<Stage> make_head(int x, const MatmulPart& part) { return std::make_unique<Head>(x, part); }
size_t head_scratch_bytes() { return Head::kLogitBytes; }
std::unique_ptr<Stage> make_matmul(int x, std::vector<MatmulPart> parts) {
    return std::make_unique<Matmul>(x, std::move(parts));
}
std::unique_ptr<Stage> make_gated_matmul(const GatedMatmul& parts) { return std::make_unique<Gated>(parts); }
size_t gated_matmul_scratch_bytes(bool is_fast) {
    return 2 * group_bytes(is_fast) + ActLayout{ActFormat::kF32, kGroupColumns}.row_bytes();
}

}  // namespace tl
