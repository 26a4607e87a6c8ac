#include "core/peak.h"

#include <algorithm>
#include <atomic>
#include <chrono>

#include "core/thread_pool.h"

namespace tl {
namespace {

constexpr int kPasses = 8;
constexpr auto kPassTime = std::chrono::milliseconds(8);
constexpr int kRounds = 1000;  // between two looks at the clock: some microseconds

struct Pass {
    DotKind kind;
    std::chrono::steady_clock::time_point start;
    std::atomic<uint64_t> num_operations{0};
};

void run_pass(void* context, int) {
    Pass& pass = *static_cast<Pass*>(context);
    double operations = 0;
    while (std::chrono::steady_clock::now() - pass.start < kPassTime) {
        operations += active_kernels().run_dots(pass.kind, kRounds);
    }
    pass.num_operations.fetch_add(uint64_t(operations), std::memory_order_relaxed);
}

}  // namespace

double measure_dot_peak(DotKind kind, int num_threads) {
    ThreadPool pool(num_threads);
    Pass pass{kind, {}, {}};
    double best = 0;
    for (int i = 0; i < kPasses; i++) {
        pass.num_operations.store(0);
        pass.start = std::chrono::steady_clock::now();
        pool.run(run_pass, &pass);
        const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - pass.start;
        best = std::max(best, double(pass.num_operations.load()) / elapsed.count());
    }
    return best;
}

}  // namespace tl
