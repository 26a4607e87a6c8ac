#include "core/stages.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace tl {
namespace {

// Rows of elementwise work per chunk: few enough to spread, many enough to be worth a claim.
constexpr int kRowChunk = 4;

class ClearPages final : public Stage {
 public:
    void prepare(const Machine& m, const Step& step) override { work_.reset(step.num_new_pages, 1, m.pool.size()); }
    bool is_needed(const Machine&, const Step& step) const override { return step.num_new_pages > 0; }
    bool reads_batch_only() const override { return true; }
    void run(const Machine& m, const Step& step, int thread) override {
        for (int begin, end; work_.claim(thread, begin, end);) {
            std::memset(m.pages->layer(0) + size_t(step.new_pages[begin]) * m.pages->page_bytes(), 0,
                        m.pages->page_bytes());
        }
    }
};

class Embed final : public Stage {
 public:
    explicit Embed(const EmbedParts& parts) : parts_(parts) {}
    bool reads_batch_only() const override { return true; }
    void prepare(const Machine& m, const Step& step) override {
        work_.reset(step.num_tokens, kRowChunk, m.pool.size());
    }
    void run(const Machine& m, const Step& step, int thread) override {
        const RowTable& table = m.weights.table(parts_.table);
        const float scale = parts_.scale;
        for (int begin, end; work_.claim(thread, begin, end);) {
            for (int i = begin; i < end; i++) {
                float* out = m.floats(parts_.out, i);
                const uint8_t* from = table.data + row(step, i) * table.row_bytes;
                table.format->decode_row(from, table.num_columns, out);
                if (table.is_forgotten)
                    forget_bytes(from, table.row_bytes, table.data, size_t(table.num_rows) * table.row_bytes);
                if (scale != 1.0f) {
                    for (int j = 0; j < table.num_columns; j++) out[j] *= scale;
                }
            }
        }
    }

 private:
    size_t row(const Step& step, int i) const {
        const int id = step.token_ids[i];
        const int index = parts_.index == EmbedIndex::kToken  ? id % parts_.num_ids
                          : parts_.index == EmbedIndex::kType ? id / parts_.num_ids
                                                              : step.positions[i];
        return size_t(parts_.first) + size_t(index);
    }

    EmbedParts parts_;
};

class MakeRopeTable final : public Stage {
 public:
    explicit MakeRopeTable(const RopeTable& table) : table_(table) {}
    bool reads_batch_only() const override { return true; }
    void prepare(const Machine& m, const Step& step) override {
        work_.reset(step.num_tokens, kRowChunk, m.pool.size());
    }
    void run(const Machine& m, const Step& step, int thread) override {
        for (int begin, end; work_.claim(thread, begin, end);) {
            for (int i = begin; i < end; i++) {
                float *cosines = m.floats(table_.cos_buffer, i), *sines = m.floats(table_.sin_buffer, i);
                const int intervals = step.positions[i] / table_.interval;
                const double magnitude = table_.magnitude * (1 + table_.temperature * std::log1p(intervals));
                for (size_t j = 0; j < table_.inv_freq.size(); j++) {
                    const double angle = step.positions[i] * table_.inv_freq[j];
                    cosines[j] = float(std::cos(angle) * magnitude);
                    sines[j] = float(std::sin(angle) * magnitude);
                }
            }
        }
    }

 private:
    RopeTable table_;
};

class Convert final : public RowStage {
 public:
    Convert(int x, int out) : RowStage(out), x_(x) {}
    void make_rows(const Machine& m, const Step&, int begin, int end, uint8_t* out) const override {
        m.kernels.convert_rows(m.floats(x_, begin), m.stride_floats(x_), end - begin, m.buffers[out_].layout, out);
    }

 private:
    int x_;
};

class Map final : public RowStage {
 public:
    Map(int x, int out, MapFunction function, float parameter)
        : RowStage(out), x_(x), function_(function), parameter_(parameter) {}
    void make_rows(const Machine& m, const Step&, int begin, int end, uint8_t* out) const override {
        m.kernels.map_rows(function_, parameter_, m.floats(x_, begin), m.stride_floats(x_), end - begin,
                           m.buffers[out_].layout, out);
    }

 private:
    int x_;
    MapFunction function_;
    float parameter_;
};

class Norm : public RowStage {
 public:
    Norm(int x, int weight, float eps, int out) : RowStage(out), x_(x), weight_(weight), eps_(eps) {}
    void make_rows(const Machine& m, const Step& step, int begin, int end, uint8_t* out) const override {
        if (m.buffers[x_].outputs == m.buffers[out_].outputs) return norm(m, begin, end - begin, out);
        for (int i = begin; i < end; i++)
            norm(m, step.output_rows[i], 1, out + (i - begin) * m.buffers[out_].row_bytes);
    }

 protected:
    virtual void norm(const Machine& m, int row, int num_rows, uint8_t* out) const = 0;

    int x_, weight_;
    float eps_;
};

class RmsNorm final : public Norm {
 public:
    using Norm::Norm;

 private:
    void norm(const Machine& m, int row, int num_rows, uint8_t* out) const override {
        m.kernels.rms_norm_rows(m.floats(x_, row), m.stride_floats(x_), m.weights.vector(weight_).data(), eps_,
                                num_rows, m.buffers[out_].layout, out);
    }
};

class LayerNorm final : public Norm {
 public:
    LayerNorm(int x, int weight, int bias, float eps, int out) : Norm(x, weight, eps, out), bias_(bias) {}

 private:
    void norm(const Machine& m, int row, int num_rows, uint8_t* out) const override {
        m.kernels.layer_norm_rows(m.floats(x_, row), m.stride_floats(x_), m.weights.vector(weight_).data(),
                                  bias_ < 0 ? nullptr : m.weights.vector(bias_).data(), eps_, num_rows,
                                  m.buffers[out_].layout, out);
    }

    int bias_;
};

class Glu final : public Stage {
 public:
    Glu(int gate, int up, int up_start, int out, GluActivation activation)
        : gate_(gate), up_(up), up_start_(up_start), out_(out), activation_(activation) {}
    void prepare(const Machine& m, const Step& step) override {
        work_.reset(m.num_rows(gate_, step), 1, m.pool.size());
    }
    void run(const Machine& m, const Step& step, int thread) override {
        const ActLayout& layout = m.buffers[out_].layout;
        const bool is_interleaved = m.is_interleaved(out_, step);
        for (int i, end; work_.claim(thread, i, end);) {  // one row at a time
            uint8_t* row = is_interleaved ? m.thread_scratch(thread) : m.row(out_, i);
            m.kernels.glu_rows(activation_, m.floats(gate_, i), m.floats(up_, i) + up_start_, 0, 1, layout, row);
            if (is_interleaved) m.put_row(out_, step, i, layout, 0, row);
        }
    }
    size_t scratch_bytes(const Machine& m) const override { return m.buffers[out_].row_bytes; }

 private:
    int gate_, up_, up_start_, out_;
    GluActivation activation_;
};

class Add final : public Stage {
 public:
    Add(int a, int b, int out) : a_(a), b_(b), out_(out) {}
    void prepare(const Machine& m, const Step& step) override {
        work_.reset(m.num_rows(a_, step), kRowChunk, m.pool.size());
    }
    void run(const Machine& m, const Step&, int thread) override {
        for (int begin, end; work_.claim(thread, begin, end);) {
            for (int i = begin; i < end; i++) {
                m.kernels.add(m.floats(a_, i), m.floats(b_, i), m.floats(out_, i), m.buffers[out_].layout.width);
            }
        }
    }

 private:
    int a_, b_, out_;
};

class Select final : public Stage {
 public:
    Select(int x, int out) : x_(x), out_(out) {}
    void prepare(const Machine& m, const Step& step) override {
        work_.reset(step.num_outputs, kRowChunk, m.pool.size());
    }
    void run(const Machine& m, const Step& step, int thread) override {
        for (int begin, end; work_.claim(thread, begin, end);) {
            for (int i = begin; i < end; i++) {
                std::memcpy(m.floats(out_, i), m.floats(x_, step.output_rows[i]),
                            size_t(m.buffers[out_].layout.width) * sizeof(float));
            }
        }
    }

 private:
    int x_, out_;
};

}  // namespace

void RowStage::prepare(const Machine& m, const Step& step) {
    work_.reset(m.num_rows(out_, step), kRowChunk, m.pool.size());
}
void RowStage::run(const Machine& m, const Step& step, int thread) {
    const bool is_interleaved = m.is_interleaved(out_, step);
    for (int begin, end; work_.claim(thread, begin, end);) {
        if (!is_interleaved) make_rows(m, step, begin, end, m.row(out_, begin));
        for (int i = begin; is_interleaved && i < end; i++) {
            make_rows(m, step, i, i + 1, m.thread_scratch(thread));
            m.put_row(out_, step, i, m.buffers[out_].layout, 0, m.thread_scratch(thread));
        }
    }
}

std::unique_ptr<Stage> make_clear_pages() { return std::make_unique<ClearPages>(); }
std::unique_ptr<Stage> make_embed(const EmbedParts& parts) { return std::make_unique<Embed>(parts); }
std::unique_ptr<Stage> make_rope_table(const RopeTable& table) { return std::make_unique<MakeRopeTable>(table); }
std::unique_ptr<RowStage> make_convert(int x, int out) { return std::make_unique<Convert>(x, out); }
std::unique_ptr<RowStage> make_rms_norm(int x, int weight, float eps, int out) {
    return std::make_unique<RmsNorm>(x, weight, eps, out);
}
std::unique_ptr<RowStage> make_layer_norm(int x, int weight, int bias, float eps, int out) {
    return std::make_unique<LayerNorm>(x, weight, bias, eps, out);
}
std::unique_ptr<Stage> make_glu(int gate, int up, int up_start, int out, GluActivation activation) {
    return std::make_unique<Glu>(gate, up, up_start, out, activation);
}
std::unique_ptr<RowStage> make_map(int x, int out, MapFunction function, float parameter) {
    return std::make_unique<Map>(x, out, function, parameter);
}
std::unique_ptr<Stage> make_add(int a, int b, int out) { return std::make_unique<Add>(a, b, out); }
std::unique_ptr<Stage> make_select(int x, int out) { return std::make_unique<Select>(x, out); }

}  // namespace tl
