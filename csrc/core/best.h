// The largest logits of each output row, found while the last product runs, so that the rows need not be written.
//
// Order: larger first, of equal ones the lower id; NaN counts as larger than any number, so that it cannot hide. The
// order is total, so the result depends on neither the threads nor the order in which they offer.
#pragma once

#include <cstdint>

#include "core/memory.h"

namespace tl {

inline constexpr int kMaxBest = 64;      // per row
inline constexpr int kMaxBestRows = 64;  // of a step

class BestLists {
 public:
    BestLists() = default;
    explicit BestLists(int num_threads)
        : memory_(size_t(num_threads) * kMaxBestRows * sizeof(List), PageSize::kSmall), num_threads_(num_threads) {}

    bool is_usable() const { return num_threads_ > 0; }
    // By each thread, before it offers: empty lists of `count` places.
    void clear(int thread, int num_rows, int count);
    // Values of ids first_id, first_id + 1, ...
    void offer(int thread, int row, int first_id, const float* values, int num_values);
    // After all threads are done: their lists in one, thread 0's.
    void merge(int num_rows);

    // Floats from one row's values (or ids) to the next one's.
    static constexpr size_t row_stride() { return sizeof(List) / sizeof(float); }
    // Of `row`, best first, after merge.
    const float* values(int row) const { return list(0, row).values; }
    const int32_t* ids(int row) const { return list(0, row).ids; }

 private:
    struct List {
        int num_kept, num_places;
        float values[kMaxBest];
        int32_t ids[kMaxBest];

        void insert(float value, int32_t id);
    };

    List& list(int thread, int row) const {
        return reinterpret_cast<List*>(memory_.data())[size_t(thread) * kMaxBestRows + row];
    }

    MappedBuffer memory_;
    int num_threads_ = 0;
};

}  // namespace tl
