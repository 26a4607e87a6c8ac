// The product that both halves of attention share: left[pair][i] broadcast times rows[i][lanes], no horizontal sums.
//
// Why this shape: a block of 8 pairs x 2 vectors keeps 16 of AVX-512's 32 registers busy as accumulators (8 would cover
// the latency of fma on two ports), and a step of 16 fma needs 2 vector loads and 8 broadcasts, so loads (two a cycle)
// take 5 of its 8 cycles. AVX2 has half the registers of half the width: 4 pairs x 1 vector. Fewer pairs take more
// vectors. Decoding is bound by memory: what comes next is prefetched while the processor multiplies.
#pragma once

#include "cpu/kv_rows.h"

namespace tl::TL_LEVEL {

// Pairs of a register block, and accumulators in it.
inline constexpr int kBlockPairs = kRegisters >= 32 ? 8 : kRegisters >= 8 ? 4 : 1;
inline constexpr int kBlockVectors = kRegisters >= 32 ? 16 : kRegisters >= 8 ? 4 : 1;

TL_INLINE constexpr int min_int(int a, int b) { return a < b ? a : b; }
TL_INLINE constexpr int max_int(int a, int b) { return a > b ? a : b; }
TL_INLINE constexpr int clamp(int x, int low, int high) { return min_int(max_int(x, low), high); }

// Vectors beside each other for so many pairs: they, too, must fit the registers.
TL_INLINE constexpr int vectors_for(int pairs) { return min_int(kBlockVectors / pairs, kRegisters / 4); }

// The left factor, P rows of floats: anywhere (queries), or side by side (weights).
template <int P> struct ScatteredRows {
    const float* rows[P];
    TL_INLINE float at(int p, int i) const { return rows[p][i]; }
};
template <int kStride> struct AdjacentRows {
    const float* data;
    TL_INLINE float at(int p, int i) const { return data[p * kStride + i]; }
};

struct RowRange { int begin, end; };

// P rows of float vectors.
struct Accumulators {
    float* data;
    size_t stride;  // floats
    bool add;       // to what they hold
};

// out[p][v] (+)= sum over the range's i of left[p][i] * rows[i][first + v], in ascending i. While the rows are read, as
// many bytes from `ahead` on are brought into the cache. Without this, reading waits for multiplying: the instructions
// of one step fill the window in which the processor itself looks ahead.
template <KvType type, int P, int V, class Left, class Rows>
TL_INLINE void multiply(const Left& left, const Rows& rows, int first, RowRange range, Accumulators out,
                        const uint8_t* ahead) {
    constexpr size_t kStepBytes = V * vector_bytes<type>();
    Regs<Regs<F32, V>, P> acc;
    each(acc, [&](int p, Regs<F32, V>& row) TL_LAMBDA {
        each(row,
             [&](int v, F32& a) TL_LAMBDA { a = out.add ? load(out.data + p * out.stride + v * kLanes) : zero(); });
    });
    for (int i = range.begin; i < range.end; i++) {
        if constexpr (type != kWidened) {
            for (size_t line = 0; line < kStepBytes; line += 64) prefetch(ahead + line);
            ahead += kStepBytes;
        }
        Regs<F32, V> lanes;
        each(lanes, [&](int v, F32& x) TL_LAMBDA { x = rows.at(i, first + v); });
        each(acc, [&](int p, Regs<F32, V>& row) TL_LAMBDA {
            const F32 x = set1(left.at(p, i));
            each(row, lanes, [&](int, F32& a, F32 y) TL_LAMBDA { a = fma(x, y, a); });
        });
    }
    each(acc, [&](int p, Regs<F32, V>& row) TL_LAMBDA {
        each(row, [&](int v, F32 a) TL_LAMBDA { store(out.data + p * out.stride + v * kLanes, a); });
    });
}

// As multiply, for vectors first .. end - 1: V at a time, then half as many.
template <KvType type, int P, int V, class Left, class Rows>
TL_INLINE void multiply_wide(const Left& left, const Rows& rows, int first, int end, RowRange range, Accumulators out,
                             const uint8_t* ahead) {
    for (; first + V <= end; first += V) {
        multiply<type, P, V>(left, rows, first, range, out, ahead);
        out.data += V * kLanes;
        ahead += size_t(range.end - range.begin) * V * vector_bytes<type>();
    }
    if constexpr (V > 1) {
        if (first < end) multiply_wide<type, P, V / 2>(left, rows, first, end, range, out, ahead);
    }
}

}  // namespace tl::TL_LEVEL
