// Rotary position embedding of one row's heads, in place:
//
//   (a, b) -> (a cos - b sin, a sin + b cos)
//
// for `pairs` pairs of each head: (x[2i], x[2i + 1]) in the interleaved layout, (x[i], x[i + pairs]) in the half layout.
// Dimensions from 2 * pairs on stay as they are (partial rotation). Far below one per cent of a step's time.
#include "cpu/act_row.h"
#include "cpu/level.h"

namespace tl::TL_LEVEL {
namespace {

void rotate_half(float* head, int pairs, const float* cos, const float* sin) {
    for (int i = 0; i < pairs; i += kLanes) {
        const int n = pairs - i < kLanes ? pairs - i : kLanes;
        const F32 a = load_up_to(n, head + i), b = load_up_to(n, head + pairs + i);
        const F32 c = load_up_to(n, cos + i), s = load_up_to(n, sin + i);
        store_first(n, head + i, a * c - b * s);
        store_first(n, head + pairs + i, a * s + b * c);
    }
}

void rotate_interleaved(float* head, int pairs, const float* cos, const float* sin) {
    for (int i = 0; i < pairs; i++) {
        const float a = head[2 * i], b = head[2 * i + 1];
        head[2 * i] = a * cos[i] - b * sin[i];
        head[2 * i + 1] = a * sin[i] + b * cos[i];
    }
}

}  // namespace

void rope_row(float* row, int num_heads, int head_dim, RopeLayout layout, int pairs, const float* cos,
              const float* sin) {
    const auto rotate = layout == RopeLayout::kHalf ? rotate_half : rotate_interleaved;
    for (int h = 0; h < num_heads; h++) rotate(row + size_t(h) * head_dim, pairs, cos, sin);
}

}  // namespace tl::TL_LEVEL
