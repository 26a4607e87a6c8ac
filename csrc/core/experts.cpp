// Choosing experts from a router's logits, and sorting a step's pairs (token, expert) by expert.
#include "core/experts.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace tl {
namespace {

constexpr float kSparseMixerGap = 0.02f;  // of Phi-3.5-MoE, relative to the logits
constexpr float kNone = -std::numeric_limits<float>::infinity();

// Puts the `count` largest of `scores` into `best`, largest first, of equal ones the lower index. NaN counts as least.
void largest(const float* scores, int num_scores, int count, int32_t* best) {
    const auto value = [&](int i) { return scores[i] == scores[i] ? scores[i] : kNone; };
    int found = 0;
    for (int i = 0; i < num_scores; i++) {
        const float score = value(i);
        if (found == count && !(score > value(best[found - 1]))) continue;
        int at = found < count ? found++ : found - 1;
        for (; at > 0 && score > value(best[at - 1]); at--) best[at] = best[at - 1];
        best[at] = i;
    }
}

float sum_of_largest(const float* scores, int num_scores, int count) {
    int32_t best[2];
    largest(scores, num_scores, count, best);
    return count == 1 ? scores[best[0]] : scores[best[0]] + scores[best[1]];
}

// weights[i] = e^(logits[of[i]] - largest), or of all logits in order; returns their sum.
float exponentials(const float* logits, const int32_t* of, int count, float* out) {
    float most = kNone, sum = 0;
    for (int i = 0; i < count; i++) most = std::max(most, logits[of ? of[i] : i]);
    for (int i = 0; i < count; i++) {
        out[i] = std::exp(logits[of ? of[i] : i] - most);
        sum += out[i];
    }
    return sum;
}

// What the i-th chosen expert counts: its softmax among the experts that are not chosen before it and whose logits come
// close to its own. 0 / 0 is close.
float sparse_share(const float* logits, int num_experts, const int32_t* chosen, int i) {
    const float most = logits[chosen[i]];
    float sum = 0;
    for (int e = 0; e < num_experts; e++) {
        if (std::find(chosen, chosen + i, e) != chosen + i) continue;
        if ((most - logits[e]) / std::max(std::fabs(logits[e]), most) > kSparseMixerGap) continue;
        sum += std::exp(logits[e] - most);
    }
    return 1.0f / sum;
}

void score(const Routing& r, const float* logits, float* scores) {
    if (r.scoring == Scoring::kSoftmaxChosen || r.scoring == Scoring::kSparseMixer) {
        std::copy(logits, logits + r.num_experts, scores);
    } else if (r.scoring == Scoring::kSigmoid) {
        for (int e = 0; e < r.num_experts; e++) scores[e] = 1.0f / (1.0f + std::exp(-logits[e]));
    } else {
        const float sum = exponentials(logits, nullptr, r.num_experts, scores);
        for (int e = 0; e < r.num_experts; e++) scores[e] /= sum;
    }
}

// Takes the experts of all groups but the best out of the choice.
void close_groups(const Routing& r, float* scores, float* groups) {
    const int size = r.num_experts / r.num_groups;
    for (int g = 0; g < r.num_groups; g++) groups[g] = sum_of_largest(scores + g * size, size, r.group_best);
    for (int closed = r.num_groups - r.num_used_groups; closed > 0; closed--) {
        int least = -1;  // of equal ones the higher index is closed
        for (int g = 0; g < r.num_groups; g++) {
            const bool is_open = groups[g] != std::numeric_limits<float>::infinity();
            if (is_open && (least < 0 || !(groups[g] > groups[least]))) least = g;
        }
        if (least < 0) return;
        std::fill(scores + least * size, scores + (least + 1) * size, kNone);
        groups[least] = std::numeric_limits<float>::infinity();
    }
}

}  // namespace

void choose_experts(const Routing& r, const float* logits, const float* bias, const float* expert_scale, float* scratch,
                    int32_t* experts, float* weights) {
    float *scores = scratch, *choice = scratch + r.num_experts;
    score(r, logits, scores);
    for (int e = 0; e < r.num_experts; e++) choice[e] = bias ? scores[e] + bias[e] : scores[e];
    if (r.num_used_groups < r.num_groups) close_groups(r, choice, choice + r.num_experts);
    largest(choice, r.num_experts, r.num_used, experts);
    float sum = 0;
    if (r.scoring == Scoring::kSoftmaxChosen) {
        sum = exponentials(logits, experts, r.num_used, weights);
    } else if (r.scoring == Scoring::kSparseMixer) {
        for (int i = 0; i < r.num_used; i++) sum += weights[i] = sparse_share(logits, r.num_experts, experts, i);
    } else {
        for (int i = 0; i < r.num_used; i++) sum += weights[i] = scores[experts[i]];
    }
    const bool is_divided = r.normalised || r.scoring == Scoring::kSoftmaxChosen;
    for (int i = 0; i < r.num_used; i++) weights[i] = (is_divided ? weights[i] / sum : weights[i]) * r.scale;
    for (int i = 0; expert_scale && i < r.num_used; i++) weights[i] *= expert_scale[experts[i]];
}

Routes::Routes(int max_tokens, int num_experts, int num_used, int num_threads)
    : experts_(size_t(max_tokens) * num_used),
      places_(experts_.size()),
      tokens_(experts_.size()),
      next_(num_experts),
      weights_(experts_.size()),
      blocks_(num_experts + experts_.size() / kExpertTokens) {
    work_.reset(0, 1, num_threads);
}

size_t Routes::num_bytes(int max_tokens, int num_experts, int num_used) {
    const size_t num_pairs = size_t(max_tokens) * num_used;
    return num_pairs * (3 * sizeof(int32_t) + sizeof(float)) + num_experts * sizeof(int32_t) +
           (num_experts + num_pairs / kExpertTokens) * sizeof(Block);
}

void Routes::sort(int num_tokens, const Routing& routing, int items_per_block, int num_threads) {
    const int num_pairs = num_tokens * routing.num_used;
    std::fill_n(next_.begin(), routing.num_experts, 0);
    for (int i = 0; i < num_pairs; i++) next_[experts_[i]]++;
    num_blocks_ = 0;
    for (int e = 0, begin = 0, row = 0; e < routing.num_experts; e++) {
        const int count = next_[e];
        next_[e] = begin;
        // Sixteen interleaved rows are filled or left, never shared.
        const size_t alignment = count >= kInterleavedRows ? kInterleavedRows : 1;
        row = int(align_up(row, alignment));
        for (int done = 0; done < count; done += kExpertTokens) {
            blocks_[num_blocks_++] = {e, begin + done, std::min(count - done, kExpertTokens), row + done, count};
        }
        begin += count;
        row += int(align_up(count, alignment));
    }
    for (int t = 0; t < num_tokens; t++) {
        for (int i = t * routing.num_used; i < (t + 1) * routing.num_used; i++) {
            places_[i] = next_[experts_[i]]++;
            tokens_[places_[i]] = t;
        }
    }
    work_.reset(num_blocks_ * items_per_block, 1, num_threads);
}

}  // namespace tl
