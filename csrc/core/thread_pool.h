// A fixed team of threads that run a step together. Waiting threads spin briefly, then sleep.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <thread>
#include <vector>

namespace tl {

inline constexpr int kMaxThreads = 256;

// Waits until a counter moves on: spins for about 50 us (a barrier is usually over in one), then sleeps in the
// kernel, so that an idle or oversubscribed machine is not burnt.
class SpinThenSleep {
 public:
    uint32_t value() const { return counter_.load(std::memory_order_acquire); }
    void wait_while(uint32_t old);
    void advance();

 private:
    std::atomic<uint32_t> counter_{0};
    std::atomic<int> num_sleepers_{0};
};

class ThreadPool {
 public:
    // cpus: the processor that each thread keeps to, the caller's while it runs a task; empty = any. Without effect on
    // systems that cannot do it, and for a processor that this process may not use.
    explicit ThreadPool(int num_threads, std::vector<int> cpus = {});
    ~ThreadPool();
    ThreadPool(const ThreadPool&) = delete;
    ThreadPool& operator=(const ThreadPool&) = delete;

    int size() const { return num_threads_; }

    // Calls task(context, thread) on every thread, thread 0 being the caller; returns when all are done.
    // The task must not throw. One run at a time.
    void run(void (*task)(void* context, int thread), void* context);

    // All threads of a run meet here; what was written before is visible to all after.
    void barrier();

 private:
    void work(int thread);

    std::vector<int> cpus_;
    int num_threads_;
    int process_;  // the process that owns the threads
    alignas(64) SpinThenSleep start_;
    alignas(64) SpinThenSleep meeting_;
    alignas(64) std::atomic<int> num_arrived_{0};
    void (*task_)(void*, int) = nullptr;  // written by run() before start_ advances
    void* context_ = nullptr;
    bool stopping_ = false;
    std::vector<std::thread> workers_;
};

// Hands out chunks of items [0, num_items) to threads. Each thread first works through a contiguous share of its
// own (one sequential stream of memory), then takes chunks of slower threads' shares.
class WorkRanges {
 public:
    void reset(int num_items, int chunk, int num_threads);
    // Next chunk for this thread; false when nothing is left.
    bool claim(int thread, int& begin, int& end);
    // The same from the thread's own share only.
    bool claim_own(int thread, int& begin, int& end);

 private:
    struct alignas(64) Range {
        std::atomic<int> next{0};
        int end = 0;
    };
    int num_threads_ = 0;
    int chunk_ = 1;
    std::unique_ptr<Range[]> ranges_;  // made by the first reset, which belongs to the warm-up
};

}  // namespace tl
