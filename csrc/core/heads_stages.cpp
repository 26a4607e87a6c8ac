// Stages of columns and heads: columns taken from values and put side by side, norms of heads, and products with a matrix
// for each head.
#include <algorithm>
#include <cstring>

#include "core/mapped.h"
#include "core/stages.h"

namespace tl {
namespace {

class Columns final : public Stage {
 public:
    Columns(std::vector<ColumnPiece> pieces, int count, int out)
        : pieces_(std::move(pieces)), count_(count), out_(out) {}
    void prepare(const Machine& m, const Step& step) override { work_.reset(m.num_rows(out_, step), 1, m.pool.size()); }
    void run(const Machine& m, const Step&, int thread) override {
        for (int row, end; work_.claim(thread, row, end);) {
            float* to = m.floats(out_, row);
            for (int i = 0; i < count_; i++) {
                for (const ColumnPiece& p : pieces_) {
                    std::memcpy(to, m.floats(p.buffer, row) + p.start + size_t(i) * p.stride, p.width * sizeof(float));
                    to += p.width;
                }
            }
        }
    }

 private:
    std::vector<ColumnPiece> pieces_;
    int count_, out_;
};

class HeadsNorm final : public Stage {
 public:
    explicit HeadsNorm(const HeadsNormParts& parts) : p_(parts) {}
    void prepare(const Machine& m, const Step& step) override { work_.reset(m.num_rows(p_.x, step), 1, m.pool.size()); }
    void run(const Machine& m, const Step&, int thread) override {
        const int head_dim = m.buffers[p_.out].layout.width / p_.num_heads;
        for (int row, end; work_.claim(thread, row, end);) {
            normalise_heads(m, m.floats(p_.x, row), p_.weight, p_.eps, p_.num_heads, head_dim, m.floats(p_.out, row));
        }
    }

 private:
    HeadsNormParts p_;
};

// Rows of one head that are converted and multiplied together at most.
constexpr int kHeadRows = 128;
constexpr size_t kConvertedRows = kHeadRows + 1;  // and one that is on its way

// An item is one head of some rows: converted in scratch to what the head's matrix reads, then multiplied.
class HeadsMatmul final : public Stage {
 public:
    HeadsMatmul(int x, int first, int num_heads, int out) : x_(x), first_(first), num_heads_(num_heads), out_(out) {}

    void prepare(const Machine& m, const Step& step) override {
        num_rows_ = m.num_rows(x_, step);
        work_.reset(num_heads_ * ((num_rows_ + kHeadRows - 1) / kHeadRows), 1, m.pool.size());
    }

    void run(const Machine& m, const Step&, int thread) override {
        uint8_t* rows = m.thread_scratch(thread);
        for (int item, end; work_.claim(thread, item, end);) {
            const int head = item % num_heads_, begin = item / num_heads_ * kHeadRows;
            const PackedMatrix& matrix = m.weights.matrix(first_ + head);
            const ActLayout layout{matrix.format->activations, matrix.num_columns};
            MatmulArgs args{};
            args.x = rows;
            args.x_stride = layout.row_bytes();
            args.num_tokens = std::min(kHeadRows, num_rows_ - begin);
            args.interleaved = m.interleaves(layout, args.num_tokens);
            convert(m, m.floats(x_, begin) + size_t(head) * matrix.num_columns, layout, args, rows);
            args.out = m.floats(out_, begin) + size_t(head) * matrix.num_rows;
            args.out_stride = m.stride_floats(out_);
            multiply_tiles(matrix, args, 0, matrix.num_tiles(), rows + kConvertedRows * args.x_stride);
            forget_tiles(matrix, 0, matrix.num_tiles());
        }
    }

    size_t scratch_bytes(const Machine& m) const override {
        const PackedMatrix& matrix = m.weights.matrix(first_);
        return heads_scratch_bytes({matrix.format->activations, matrix.num_columns}, product_scratch_bytes(matrix));
    }

 private:
    void convert(const Machine& m, const float* x, const ActLayout& layout, const MatmulArgs& args,
                 uint8_t* rows) const {
        const size_t stride = m.stride_floats(x_);
        if (!args.interleaved) return m.kernels.convert_rows(x, stride, args.num_tokens, layout, rows);
        uint8_t* one = rows + kHeadRows * args.x_stride;
        for (int i = 0; i < args.num_tokens; i++) {
            const int t = i % kInterleavedRows;
            m.kernels.convert_rows(x + size_t(i) * stride, stride, 1, layout, one);
            InterleavedLayout{layout}.put(layout, one, 0, t, rows + size_t(i - t) * args.x_stride);
        }
    }

    int x_, first_, num_heads_, out_;
    int num_rows_ = 0;
};

}  // namespace

std::unique_ptr<Stage> make_columns(std::vector<ColumnPiece> pieces, int count, int out) {
    return std::make_unique<Columns>(std::move(pieces), count, out);
}
std::unique_ptr<Stage> make_heads_norm(const HeadsNormParts& parts) { return std::make_unique<HeadsNorm>(parts); }

// The kernel writes whole vectors: where a head is no multiple of them, it makes each row elsewhere.
void normalise_heads(const Machine& m, const float* from, int weight, float eps, int num_heads, int head_dim,
                     float* to) {
    const ActLayout layout{ActFormat::kF32, head_dim};
    const float* weights = m.weights.vector(weight).data();
    if (layout.row_bytes() == head_dim * sizeof(float)) {
        return m.kernels.rms_norm_rows(from, head_dim, weights, eps, num_heads, layout, reinterpret_cast<uint8_t*>(to));
    }
    alignas(kRowAlignment) float row[kMaxNormedHead];
    for (int h = 0; h < num_heads; h++, from += head_dim, to += head_dim) {
        m.kernels.rms_norm_rows(from, 0, weights, eps, 1, layout, reinterpret_cast<uint8_t*>(row));
        std::memcpy(to, row, head_dim * sizeof(float));
    }
}
std::unique_ptr<Stage> make_heads_matmul(int x, int first, int num_heads, int out) {
    return std::make_unique<HeadsMatmul>(x, first, num_heads, out);
}
size_t heads_scratch_bytes(const ActLayout& layout, size_t kernel) {
    return kConvertedRows * layout.row_bytes() + kernel;
}

}  // namespace tl
