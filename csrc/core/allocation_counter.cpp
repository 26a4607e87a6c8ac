// Replaces this module's operator new by one that counts. The extension is loaded with its symbols local, so other
// libraries keep theirs.
#include "core/allocation_counter.h"

#include <atomic>
#include <cstddef>
#include <cstdlib>
#include <new>

namespace {
std::atomic<uint64_t> num_allocations{0};

void* allocate(std::size_t num_bytes, std::size_t alignment) {
    num_allocations.fetch_add(1, std::memory_order_relaxed);
    if (num_bytes == 0) num_bytes = 1;
    void* p = alignment <= alignof(std::max_align_t)
                  ? std::malloc(num_bytes)
                  : std::aligned_alloc(alignment, (num_bytes + alignment - 1) / alignment * alignment);
    if (!p) throw std::bad_alloc();
    return p;
}
}  // namespace

void* operator new(std::size_t n) { return allocate(n, 1); }
void* operator new[](std::size_t n) { return allocate(n, 1); }
void* operator new(std::size_t n, std::align_val_t a) { return allocate(n, std::size_t(a)); }
void* operator new[](std::size_t n, std::align_val_t a) { return allocate(n, std::size_t(a)); }
void operator delete(void* p) noexcept { std::free(p); }
void operator delete[](void* p) noexcept { std::free(p); }
void operator delete(void* p, std::size_t) noexcept { std::free(p); }
void operator delete[](void* p, std::size_t) noexcept { std::free(p); }
void operator delete(void* p, std::align_val_t) noexcept { std::free(p); }
void operator delete[](void* p, std::align_val_t) noexcept { std::free(p); }
void operator delete(void* p, std::size_t, std::align_val_t) noexcept { std::free(p); }
void operator delete[](void* p, std::size_t, std::align_val_t) noexcept { std::free(p); }

namespace tl {
uint64_t allocation_count() { return num_allocations.load(std::memory_order_relaxed); }
}  // namespace tl
