// Large blocks of memory straight from the operating system: weights, the step arena, the KV cache.
#pragma once

#include <cstddef>
#include <cstdint>

namespace tl {

inline constexpr size_t kHugePageBytes = size_t(2) << 20;

enum class PageSize {
    kHuge,   // ask for 2 MB pages before the first touch: fewer TLB misses when streaming weights
    kSmall,  // 4 KB pages: memory is committed exactly as it is used
};

// Zeroed anonymous memory, aligned to 2 MB, committed on first touch. Throws std::bad_alloc.
class MappedBuffer {
 public:
    MappedBuffer() = default;
    MappedBuffer(size_t num_bytes, PageSize page_size);
    ~MappedBuffer();
    MappedBuffer(MappedBuffer&& other) noexcept;
    MappedBuffer& operator=(MappedBuffer&& other) noexcept;

    uint8_t* data() const { return data_; }
    size_t size() const { return size_; }

    // Gives the whole 4 KB pages inside [offset, offset + num_bytes) back; they read as zero afterwards.
    void decommit(size_t offset, size_t num_bytes);

 private:
    uint8_t* mapping_ = nullptr;
    size_t mapping_bytes_ = 0;
    uint8_t* data_ = nullptr;
    size_t size_ = 0;
};

// Lets the system take back the pages of a read-only file map around bytes that were read: the 2 MB that it may have mapped
// for each of them, as far as they are whole pages within `map_bytes` from `map` on. A later read maps them again.
void forget_bytes(const uint8_t* bytes, size_t num_bytes, const uint8_t* map, size_t map_bytes);

}  // namespace tl
