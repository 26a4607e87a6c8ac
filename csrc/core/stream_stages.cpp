// Work on single rows for models with several residual streams (Gemma 3n's AltUp). A row is made by one thread from its
// start to its end, sums in double precision and in the order of columns, so bits depend on nothing else.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "core/stages.h"

namespace tl {
namespace {

double mean_square(const float* x, int width) {
    double sum = 0;
    for (int i = 0; i < width; i++) sum += double(x[i]) * x[i];
    return sum / width;
}

// Rows of one buffer, each made from the same row of others.
class RowByRow : public Stage {
 public:
    explicit RowByRow(int out) : out_(out) {}
    void prepare(const Machine& m, const Step& step) override { work_.reset(m.num_rows(out_, step), 1, m.pool.size()); }
    void run(const Machine& m, const Step&, int thread) override {
        const int width = m.buffers[out_].layout.width;
        for (int begin, end; work_.claim(thread, begin, end);) {
            for (int i = begin; i < end; i++) make_row(m, i, width, m.floats(out_, i));
        }
    }

 protected:
    virtual void make_row(const Machine& m, int i, int width, float* out) const = 0;

    int out_;
};

class WeightedSum final : public RowByRow {
 public:
    WeightedSum(int base, std::vector<int> terms, int coefficients, int first, int out)
        : RowByRow(out), base_(base), terms_(std::move(terms)), coefficients_(coefficients), first_(first) {}

 protected:
    void make_row(const Machine& m, int i, int width, float* out) const override {
        std::memcpy(out, m.floats(base_, i), size_t(width) * sizeof(float));
        for (size_t j = 0; j < terms_.size(); j++) {
            const float* term = m.floats(terms_[j], i);
            m.kernels.combine(&term, m.floats(coefficients_, i) + first_ + j, 1, true, out, width);
        }
    }

 private:
    int base_;
    std::vector<int> terms_;
    int coefficients_, first_;
};

class MatchMagnitude final : public RowByRow {
 public:
    MatchMagnitude(int x, int like, float floor, int out) : RowByRow(out), x_(x), like_(like), floor_(floor) {}

 protected:
    void make_row(const Machine& m, int i, int width, float* out) const override {
        const float *x = m.floats(x_, i), *like = m.floats(like_, i);
        const double wanted = mean_square(like, m.buffers[like_].layout.width), found = mean_square(x, width);
        const float factor = float(std::sqrt(wanted / std::max(found, double(floor_))));
        for (int j = 0; j < width; j++) out[j] = x[j] * factor;
    }

 private:
    int x_, like_;
    float floor_;
};

class KeepAbove final : public RowByRow {
 public:
    KeepAbove(int x, float deviations, int out) : RowByRow(out), x_(x), deviations_(deviations) {}

 protected:
    void make_row(const Machine& m, int i, int width, float* out) const override {
        const float* x = m.floats(x_, i);
        double mean = 0, square = 0;
        for (int j = 0; j < width; j++) mean += x[j];
        mean /= width;
        for (int j = 0; j < width; j++) square += (x[j] - mean) * (x[j] - mean);
        const float bound = float(mean + deviations_ * std::sqrt(square / width));
        for (int j = 0; j < width; j++) out[j] = std::max(x[j] - bound, 0.0f);
    }

 private:
    int x_;
    float deviations_;
};

class ScaleColumns final : public RowByRow {
 public:
    ScaleColumns(int x, int weight, int out) : RowByRow(out), x_(x), weight_(weight) {}

 protected:
    void make_row(const Machine& m, int i, int width, float* out) const override {
        const float *x = m.floats(x_, i), *weight = m.weights.vector(weight_).data();
        for (int j = 0; j < width; j++) out[j] = x[j] * weight[j];
    }

 private:
    int x_, weight_;
};

}  // namespace

std::unique_ptr<Stage> make_weighted_sum(int base, std::vector<int> terms, int coefficients, int first, int out) {
    return std::make_unique<WeightedSum>(base, std::move(terms), coefficients, first, out);
}
std::unique_ptr<Stage> make_match_magnitude(int x, int like, float floor, int out) {
    return std::make_unique<MatchMagnitude>(x, like, floor, out);
}
std::unique_ptr<Stage> make_keep_above(int x, float deviations, int out) {
    return std::make_unique<KeepAbove>(x, deviations, out);
}
std::unique_ptr<Stage> make_scale_columns(int x, int weight, int out) {
    return std::make_unique<ScaleColumns>(x, weight, out);
}

}  // namespace tl
