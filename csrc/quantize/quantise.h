// Quantises the rows of a tensor on several threads.
#pragma once

#include <cstddef>
#include <cstdint>

#include "quantize/quantiser.h"

namespace tl {

enum class RowType { kF32, kF16, kBF16 };

struct QuantiseJob {
    const uint8_t* rows;  // num_rows rows of `columns` numbers, one after the other
    RowType type;
    size_t num_rows, columns;
    const float* importance;  // (columns), or null
    const Quantiser* quantiser;
    uint8_t* out;
};

enum class QuantiseEnd { kDone, kInterrupted, kNotFinite };

// Rows are handed out to num_threads threads. `poll` is called now and then by the calling thread; when it returns
// false the work stops. kNotFinite: a weight is infinite or not a number; `bad_row` says in which row.
QuantiseEnd quantise_rows(const QuantiseJob& job, int num_threads, bool (*poll)(), size_t& bad_row);

}  // namespace tl
