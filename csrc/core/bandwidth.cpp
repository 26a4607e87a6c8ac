#include "core/bandwidth.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>

#include "core/activations.h"
#include "core/memory.h"
#include "core/thread_pool.h"
#include "cpu/kernels.h"

namespace tl {
namespace {

constexpr size_t kChunk = size_t(1) << 20;

struct Pass {
    const uint8_t* data;
    WorkRanges* work;
    bool write;
    std::atomic<uint64_t> sink{0};
};

void run_pass(void* context, int thread) {
    Pass& pass = *static_cast<Pass*>(context);
    uint64_t sum = 0;
    for (int begin, end; pass.work->claim(thread, begin, end);) {
        const uint8_t* p = pass.data + size_t(begin) * kChunk;
        const size_t num_bytes = size_t(end - begin) * kChunk;
        if (pass.write)
            std::memset(const_cast<uint8_t*>(p), begin & 0xff, num_bytes);
        else
            sum ^= active_kernels().read_bytes(p, num_bytes);
    }
    pass.sink.fetch_xor(sum, std::memory_order_relaxed);  // keeps the reads from being optimised away
}

}  // namespace

double measure_read_bandwidth(int num_threads, size_t num_bytes) {
    num_bytes = align_up(std::max(num_bytes, kChunk), kChunk);
    MappedBuffer buffer(num_bytes, PageSize::kHuge);
    ThreadPool pool(num_threads);
    WorkRanges work;
    Pass pass{buffer.data(), &work, true};
    double best = 0;
    for (int i = 0; i < 6; i++) {
        work.reset(int(num_bytes / kChunk), 1, pool.size());
        const auto start = std::chrono::steady_clock::now();
        pool.run(run_pass, &pass);
        const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start;
        if (!pass.write) best = std::max(best, double(num_bytes) / elapsed.count());
        pass.write = false;
    }
    return best;
}

}  // namespace tl
