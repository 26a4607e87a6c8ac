#include "core/memory.h"

#include <sys/mman.h>

#include <algorithm>
#include <new>
#include <utility>

#include "core/activations.h"

#if defined(TL_ADDRESS_SANITIZER)
#include <sanitizer/asan_interface.h>
#endif

namespace tl {
namespace {

// AddressSanitizer knows only what malloc hands out. It is told that the mapping around a buffer is out of bounds, and
// before the mapping goes, that it no longer is.
struct Surroundings {
    [[maybe_unused]] const uint8_t *mapping, *mapping_end, *data, *data_end;

    void forbid() const {
#if defined(TL_ADDRESS_SANITIZER)
        ASAN_POISON_MEMORY_REGION(mapping, data - mapping);
        ASAN_POISON_MEMORY_REGION(data_end, mapping_end - data_end);
#endif
    }
    void allow() const {
#if defined(TL_ADDRESS_SANITIZER)
        ASAN_UNPOISON_MEMORY_REGION(mapping, data - mapping);
        ASAN_UNPOISON_MEMORY_REGION(data_end, mapping_end - data_end);
#endif
    }
};

}  // namespace

MappedBuffer::MappedBuffer(size_t num_bytes, PageSize page_size) : size_(num_bytes) {
    mapping_bytes_ = align_up(num_bytes, kHugePageBytes) + kHugePageBytes;
    if (num_bytes == 0 || mapping_bytes_ < num_bytes) throw std::bad_alloc();
    void* mapping =
        mmap(nullptr, mapping_bytes_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (mapping == MAP_FAILED) throw std::bad_alloc();
    mapping_ = static_cast<uint8_t*>(mapping);
    data_ = reinterpret_cast<uint8_t*>(align_up(reinterpret_cast<uintptr_t>(mapping_), kHugePageBytes));
#if defined(MADV_HUGEPAGE)
    // Advice only: a system without transparent huge pages works, a little slower. The last, partly used huge
    // page stays small, so that the buffer takes no more memory than it says.
    const size_t whole = num_bytes / kHugePageBytes * kHugePageBytes;
    if (page_size == PageSize::kHuge && whole > 0) madvise(data_, whole, MADV_HUGEPAGE);
#else
    (void)page_size;
#endif
    Surroundings{mapping_, mapping_ + mapping_bytes_, data_, data_ + num_bytes}.forbid();
}

MappedBuffer::~MappedBuffer() {
    if (!mapping_) return;
    Surroundings{mapping_, mapping_ + mapping_bytes_, data_, data_ + size_}.allow();
    munmap(mapping_, mapping_bytes_);
}

MappedBuffer::MappedBuffer(MappedBuffer&& other) noexcept { *this = std::move(other); }

MappedBuffer& MappedBuffer::operator=(MappedBuffer&& other) noexcept {
    std::swap(mapping_, other.mapping_);
    std::swap(mapping_bytes_, other.mapping_bytes_);
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    return *this;
}

void forget_bytes(const uint8_t* bytes, size_t num_bytes, const uint8_t* map, size_t map_bytes) {
#if defined(__linux__)
    constexpr uintptr_t kPage = 4096;
    const uintptr_t around = reinterpret_cast<uintptr_t>(bytes) / kHugePageBytes * kHugePageBytes;
    const uintptr_t end = align_up(reinterpret_cast<uintptr_t>(bytes) + num_bytes, kHugePageBytes);
    const uintptr_t from = std::max<uintptr_t>(around, align_up(reinterpret_cast<uintptr_t>(map), kPage));
    const uintptr_t to = std::min<uintptr_t>(end, (reinterpret_cast<uintptr_t>(map) + map_bytes) / kPage * kPage);
    if (from < to) madvise(reinterpret_cast<void*>(from), to - from, MADV_DONTNEED);
#else
    (void)bytes, (void)num_bytes, (void)map, (void)map_bytes;
#endif
}

void MappedBuffer::decommit(size_t offset, size_t num_bytes) {
    constexpr size_t kPage = 4096;
    const size_t begin = align_up(offset, kPage), end = (offset + num_bytes) / kPage * kPage;
    if (begin < end) madvise(data_ + begin, end - begin, MADV_DONTNEED);
}

}  // namespace tl
