// Number formats of activation rows, as the matrix kernels read them, and the bytes of such a row.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "core/inline.h"

namespace tl {

inline constexpr size_t kRowAlignment = 64;

TL_SHARED_CONSTEXPR size_t align_up(size_t n, size_t alignment) { return (n + alignment - 1) / alignment * alignment; }

enum class ActFormat : uint8_t {
    kF32,      // float32
    kBF16,     // bfloat16, rounded to nearest even
    kInt8x32,  // int8 with one scale per 32 elements: for formats with 32-element blocks
    kInt8x256  // int8 with one scale per 256 elements: for the K-quants
};

// Where the parts of one activation row lie. A row of the int8 formats is
//   int8 q[width] | float scale[width / block] | sums
// with q = round(x / scale), scale = max|x| / 127 over the block (0 for a block of zeros), and
//   kInt8x32:  int32 sum32[width / 32]: sum of q over each 32
//   kInt8x256: int16 sum32[width / 32], int16 sum16[width / 16]: sums of q
// Sums let a kernel fold a weight format's offset or minimum into the accumulator.
struct ActLayout {
    ActFormat format;
    int width;

    TL_SHARED_CONSTEXPR int block() const { return format == ActFormat::kInt8x256 ? 256 : 32; }
    TL_SHARED_CONSTEXPR bool is_int8() const { return format == ActFormat::kInt8x32 || format == ActFormat::kInt8x256; }
    TL_SHARED_CONSTEXPR size_t scale_offset() const { return align_up(size_t(width), kRowAlignment); }
    TL_SHARED_CONSTEXPR size_t sum32_offset() const {
        return scale_offset() + align_up(size_t(width / block()) * sizeof(float), kRowAlignment);
    }
    TL_SHARED_CONSTEXPR size_t sum16_offset() const {
        return sum32_offset() + align_up(size_t(width / 32) * sizeof(int16_t), kRowAlignment);
    }
    TL_SHARED_CONSTEXPR size_t row_bytes() const {
        switch (format) {
            case ActFormat::kF32:
                return align_up(size_t(width) * 4, kRowAlignment);
            case ActFormat::kBF16:
                return align_up(size_t(width) * 2 + 2, kRowAlignment);
            case ActFormat::kInt8x32:
                return sum32_offset() + align_up(size_t(width / 32) * sizeof(int32_t), kRowAlignment);
            case ActFormat::kInt8x256:
                return sum16_offset() + align_up(size_t(width / 16) * sizeof(int16_t), kRowAlignment);
        }
        return 0;
    }
};

// Columns of one group: every activation format has whole blocks in it.
inline constexpr int kGroupColumns = 256;

// Puts a row of some columns in its place in a row of `layout`, from first_column on, a multiple of kGroupColumns. The
// columns are a group or what is left of the row.
inline void place_columns(const ActLayout& layout, int first_column, int num_columns, const uint8_t* group,
                          uint8_t* row) {
    const ActLayout part{layout.format, num_columns};
    const auto copy = [&](size_t from, size_t to, size_t element, int per) {
        std::memcpy(row + to + size_t(first_column / per) * element, group + from, num_columns / per * element);
    };
    // Bfloat16 is read in pairs: behind an odd width stands a zero.
    if (layout.format == ActFormat::kBF16 && num_columns % 2) std::memset(row + size_t(layout.width) * 2, 0, 2);
    if (layout.format == ActFormat::kF32) return copy(0, 0, 4, 1);
    if (layout.format == ActFormat::kBF16) return copy(0, 0, 2, 1);
    copy(0, 0, 1, 1);
    copy(part.scale_offset(), layout.scale_offset(), sizeof(float), layout.block());
    if (layout.format == ActFormat::kInt8x32) {
        copy(part.sum32_offset(), layout.sum32_offset(), sizeof(int32_t), 32);
    } else {
        copy(part.sum32_offset(), layout.sum32_offset(), sizeof(int16_t), 32);
        copy(part.sum16_offset(), layout.sum16_offset(), sizeof(int16_t), 16);
    }
}
inline void place_group(const ActLayout& layout, int first_column, const uint8_t* group, uint8_t* row) {
    place_columns(layout, first_column, kGroupColumns, group, row);
}

}  // namespace tl
