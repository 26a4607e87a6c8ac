#include "quantize/quantise.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <thread>
#include <vector>

#include "core/half.h"

namespace tl {
namespace {

constexpr int kF32 = 0;                      // of GGUF's types
constexpr size_t kWeightsPerTurn = 1 << 16;  // what a thread takes at a time: some milliseconds

// Rows [begin, end) as floats: in place, or converted into `scratch`.
const float* as_floats(const QuantiseJob& job, size_t begin, size_t end, float* scratch) {
    const size_t n = (end - begin) * job.columns;
    if (job.type == RowType::kF32) {
        const uint8_t* p = job.rows + 4 * begin * job.columns;
        if (reinterpret_cast<uintptr_t>(p) % alignof(float) == 0) return reinterpret_cast<const float*>(p);
        std::memcpy(scratch, p, 4 * n);
        return scratch;
    }
    const uint8_t* p = job.rows + 2 * begin * job.columns;
    const auto convert = [&](auto to_float) {
        for (size_t i = 0; i < n; i++) {
            uint16_t bits;
            std::memcpy(&bits, p + 2 * i, 2);
            scratch[i] = to_float(bits);
        }
    };
    if (job.type == RowType::kBF16)
        convert(bf16_to_float);
    else
        convert(f16_to_float);
    return scratch;
}

bool all_finite(const float* x, size_t n) {
    uint32_t largest = 0;
    for (size_t i = 0; i < n; i++) {
        const uint32_t magnitude = bits_from_float(x[i]) & 0x7fffffffu;
        largest = magnitude > largest ? magnitude : largest;
    }
    return largest < 0x7f800000u;
}

// What the threads of one call share.
struct Turns {
    const QuantiseJob& job;
    size_t rows_per_turn;
    bool needs_finite;  // a copy as F32 keeps whatever there is
    std::atomic<size_t> next_row{0};
    std::atomic<bool> stop{false};
    std::atomic<size_t> bad_row;

    explicit Turns(const QuantiseJob& j)
        : job(j),
          rows_per_turn(std::max<size_t>(1, kWeightsPerTurn / j.columns)),
          needs_finite(j.quantiser->gguf_type != kF32),
          bad_row(j.num_rows) {}

    // Takes the next rows and quantises them; false when nothing is left.
    bool take(std::vector<float>& scratch) {
        const size_t begin = next_row.fetch_add(rows_per_turn);
        if (begin >= job.num_rows || stop) return false;
        const size_t end = std::min(begin + rows_per_turn, job.num_rows);
        const size_t row_bytes = job.columns / size_t(job.quantiser->block) * job.quantiser->block_bytes;
        const float* x = as_floats(job, begin, end, scratch.data());
        for (size_t row = begin; row < end && needs_finite; row++) {
            if (all_finite(x + (row - begin) * job.columns, job.columns)) continue;
            bad_row = row;
            stop = true;
            return false;
        }
        job.quantiser->quantise({x, (end - begin) * job.columns, job.importance, job.columns},
                                job.out + begin * row_bytes);
        return true;
    }
};

}  // namespace

QuantiseEnd quantise_rows(const QuantiseJob& job, int num_threads, bool (*poll)(), size_t& bad_row) {
    Turns turns(job);
    const size_t num_turns = (job.num_rows + turns.rows_per_turn - 1) / turns.rows_per_turn;
    const size_t num_helpers = std::min<size_t>(size_t(std::max(num_threads, 1)), std::max<size_t>(num_turns, 1)) - 1;
    std::vector<std::vector<float>> scratch(num_helpers + 1, std::vector<float>(turns.rows_per_turn * job.columns));
    std::vector<std::thread> helpers;
    for (size_t i = 0; i < num_helpers; i++) {
        helpers.emplace_back([&, i] {
            while (turns.take(scratch[i + 1])) {
            }
        });
    }
    bool interrupted = false;
    while (!interrupted && turns.take(scratch[0])) {
        if (!poll()) interrupted = turns.stop = true;
    }
    for (std::thread& helper : helpers) helper.join();
    bad_row = turns.bad_row;
    if (bad_row < job.num_rows) return QuantiseEnd::kNotFinite;
    return interrupted ? QuantiseEnd::kInterrupted : QuantiseEnd::kDone;
}

const Quantiser* quantiser_of_level(const char* level, int gguf_type) {
#if defined(TL_HAS_AVX512)
    // Tile registers have nothing to add to what AMX's level shares with AVX-512.
    if (std::strcmp(level, "avx512") == 0 || std::strcmp(level, "amx") == 0) return avx512::quantiser_of(gguf_type);
#endif
#if defined(TL_HAS_AVXVNNI)
    if (std::strcmp(level, "avxvnni") == 0) return avxvnni::quantiser_of(gguf_type);
#endif
#if defined(TL_HAS_AVX2)
    if (std::strcmp(level, "avx2") == 0) return avx2::quantiser_of(gguf_type);
#endif
    return std::strcmp(level, "scalar") == 0 ? scalar::quantiser_of(gguf_type) : nullptr;
}

}  // namespace tl
