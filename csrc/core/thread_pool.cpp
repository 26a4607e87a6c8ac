#include "core/thread_pool.h"

#include <unistd.h>
#if defined(__linux__)
#include <sched.h>
#endif

#include <algorithm>
#include <chrono>
#include <utility>

namespace tl {
namespace {

constexpr auto kSpinTime = std::chrono::microseconds(50);

inline void pause_briefly() {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
}

// Ties the calling thread to one processor and lets it go again.
class Pinned {
 public:
    explicit Pinned(int cpu) {
#if defined(__linux__)
        is_pinned_ = cpu >= 0 && sched_getaffinity(0, sizeof before_, &before_) == 0;
        if (is_pinned_) keep_to(cpu);
#else
        (void)cpu;
#endif
    }
    ~Pinned() {
#if defined(__linux__)
        if (is_pinned_) sched_setaffinity(0, sizeof before_, &before_);
#endif
    }
    static void keep_to(int cpu) {
#if defined(__linux__)
        cpu_set_t only;
        CPU_ZERO(&only);
        if (cpu >= 0 && cpu < CPU_SETSIZE) CPU_SET(cpu, &only);
        sched_setaffinity(0, sizeof only, &only);  // an empty or foreign set changes nothing
#else
        (void)cpu;
#endif
    }

 private:
#if defined(__linux__)
    cpu_set_t before_;
    bool is_pinned_ = false;
#endif
};

}  // namespace

void SpinThenSleep::wait_while(uint32_t old) {
    const auto start = std::chrono::steady_clock::now();
    do {
        for (int i = 0; i < 64; i++) {
            if (counter_.load(std::memory_order_acquire) != old) return;
            pause_briefly();
        }
    } while (std::chrono::steady_clock::now() - start < kSpinTime);
    // Sequentially consistent on both sides: either the waker sees a sleeper, or the sleeper sees the new value.
    num_sleepers_.fetch_add(1);
    while (counter_.load() == old) counter_.wait(old);
    num_sleepers_.fetch_sub(1);
}

void SpinThenSleep::advance() {
    counter_.fetch_add(1);
    if (num_sleepers_.load() > 0) counter_.notify_all();
}

ThreadPool::ThreadPool(int num_threads, std::vector<int> cpus)
    : cpus_(std::move(cpus)), num_threads_(std::clamp(num_threads, 1, kMaxThreads)), process_(getpid()) {
    workers_.reserve(num_threads_ - 1);
    for (int i = 1; i < num_threads_; i++) workers_.emplace_back([this, i] { work(i); });
}

ThreadPool::~ThreadPool() {
    if (getpid() != process_) {  // a forked child: the threads exist only in the parent
        for (std::thread& worker : workers_) worker.detach();
        return;
    }
    stopping_ = true;
    start_.advance();
    for (std::thread& worker : workers_) worker.join();
}

void ThreadPool::work(int thread) {
    if (size_t(thread) < cpus_.size()) Pinned::keep_to(cpus_[thread]);
    for (uint32_t round = 0;; round++) {
        start_.wait_while(round);
        if (stopping_) return;
        task_(context_, thread);
        barrier();
    }
}

void ThreadPool::run(void (*task)(void*, int), void* context) {
    const Pinned caller(cpus_.empty() ? -1 : cpus_[0]);
    task_ = task;
    context_ = context;
    if (num_threads_ == 1) {
        task(context, 0);
        return;
    }
    start_.advance();
    task(context, 0);
    barrier();
}

void ThreadPool::barrier() {
    if (num_threads_ == 1) return;
    const uint32_t round = meeting_.value();
    if (num_arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == num_threads_) {
        num_arrived_.store(0, std::memory_order_relaxed);
        meeting_.advance();
    } else {
        meeting_.wait_while(round);
    }
}

void WorkRanges::reset(int num_items, int chunk, int num_threads) {
    if (num_threads > num_threads_) ranges_ = std::make_unique<Range[]>(num_threads);
    num_threads_ = num_threads;
    chunk_ = std::max(chunk, 1);
    const int num_chunks = (num_items + chunk_ - 1) / chunk_;
    int begin = 0;
    for (int i = 0; i < num_threads; i++) {
        const int end = std::min(num_items, int(int64_t(num_chunks) * (i + 1) / num_threads) * chunk_);
        ranges_[i].next.store(begin, std::memory_order_relaxed);
        ranges_[i].end = end;
        begin = end;
    }
}

bool WorkRanges::claim_own(int thread, int& begin, int& end) {
    Range& range = ranges_[thread];
    if (range.next.load(std::memory_order_relaxed) >= range.end) return false;
    begin = range.next.fetch_add(chunk_, std::memory_order_relaxed);
    end = std::min(begin + chunk_, range.end);
    return begin < range.end;
}

bool WorkRanges::claim(int thread, int& begin, int& end) {
    for (int i = 0; i < num_threads_; i++) {
        if (claim_own((thread + i) % num_threads_, begin, end)) return true;
    }
    return false;
}

}  // namespace tl
