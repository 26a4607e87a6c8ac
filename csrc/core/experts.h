// Mixture of experts: how a layer chooses experts for a token, and who works on what in this step.
#pragma once

#include <atomic>
#include <vector>

#include "core/activations.h"
#include "core/thread_pool.h"

namespace tl {

enum class Scoring : uint8_t {
    kSoftmax,        // softmax over all experts, then the best
    kSoftmaxChosen,  // the best logits, then softmax over them
    kSigmoid,        // sigmoid of each logit, then the best
    kSparseMixer     // the best logits, each weighed against the rest that come close to it
};

// How a token's weights come from the router's logits; see `Routing` in torchless/plan.py.
struct Routing {
    int num_experts;
    int num_used;
    Scoring scoring;
    bool normalised;      // weights are divided by their sum
    float scale;          // and multiplied by this
    int num_groups;       // experts stand in groups of equal size, of which num_used_groups are open to a token
    int num_used_groups;  //
    int group_best;       // a group counts as much as its best scores together: one or two of them
};

// Chooses the experts of one token, best first (of equal ones the lower index), and their weights. bias: added to the
// scores that choose, not to those that weigh; expert_scale: factors on the weights, in the end; null = none. scratch:
// route_scratch_floats(routing).
void choose_experts(const Routing& routing, const float* logits, const float* bias, const float* expert_scale,
                    float* scratch, int32_t* experts, float* weights);
inline size_t route_scratch_floats(const Routing& routing) {
    return 2 * size_t(routing.num_experts) + size_t(routing.num_groups);
}

// Tokens of one expert that are multiplied together at most: bounds the scratch of a thread.
inline constexpr int kExpertTokens = 128;

// The pairs (token, expert) of a step, sorted by expert. One object for all layers of a plan, which run one after another.
// Written by the stage that routes.
class Routes {
 public:
    // Some pairs of one expert: [begin, begin + count) in the order of experts, and in rows [row, row + count) of the buffer
    // between the products. Experts with kInterleavedRows pairs or more begin at a multiple of them.
    struct Block {
        int expert, begin, count, row;
        int num_pairs;  // of the expert
    };

    Routes(int max_tokens, int num_experts, int num_used, int num_threads);
    static size_t num_bytes(int max_tokens, int num_experts, int num_used);

    // Of each token, num_used entries, best expert first: the expert, its weight, and the pair's row.
    int32_t* experts(int token, int num_used) { return experts_.data() + size_t(token) * num_used; }
    float* weights(int token, int num_used) { return weights_.data() + size_t(token) * num_used; }
    const int32_t* places(int token, int num_used) const { return places_.data() + size_t(token) * num_used; }
    // The token of each pair.
    const int32_t* tokens() const { return tokens_.data(); }

    // Sorts the pairs of tokens [0, num_tokens): by expert, then token. items_per_block: of work().
    void sort(int num_tokens, const Routing& routing, int items_per_block, int num_threads);
    const Block* blocks() const { return blocks_.data(); }
    int num_blocks() const { return num_blocks_; }
    // Items of every block, set by sort().
    WorkRanges& work() { return work_; }

 private:
    std::vector<int32_t> experts_, places_, tokens_, next_;
    std::vector<float> weights_;
    std::vector<Block> blocks_;
    int num_blocks_ = 0;
    WorkRanges work_;
};

}  // namespace tl
