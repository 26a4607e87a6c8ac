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

// Sixteen rows interleaved, for kernels that multiply sixteen tokens at once: they read one stream instead of sixteen.
// Per block of columns (256; 32 in kInt8x32 and kBF16):
//   q or bfloat16 [columns / 64 (32)][16 rows][64 bytes (32 in kInt8x32)] | float scale[16 rows] | sums [16 rows] each
// The last rows of the last sixteen may be anything.
inline constexpr int kInterleavedRows = 16;

struct InterleavedLayout {
    ActLayout row;

    TL_SHARED_CONSTEXPR int columns() const { return row.format == ActFormat::kInt8x256 ? 256 : 32; }
    TL_SHARED_CONSTEXPR bool is_possible() const { return row.format != ActFormat::kF32 && row.width % columns() == 0; }
    // Offsets in a block, and its size; the bytes of sixteen rows never exceed 16 * row_bytes().
    TL_SHARED_CONSTEXPR size_t scale_offset() const {
        return size_t(columns()) * kInterleavedRows * (row.format == ActFormat::kBF16 ? 2 : 1);
    }
    TL_SHARED_CONSTEXPR size_t sum32_offset() const { return scale_offset() + kInterleavedRows * sizeof(float); }
    TL_SHARED_CONSTEXPR size_t sum16_offset() const {
        return sum32_offset() + kInterleavedRows * (row.format == ActFormat::kInt8x256 ? 16 : 4);
    }
    TL_SHARED_CONSTEXPR size_t block_bytes() const {
        switch (row.format) {
            case ActFormat::kInt8x256:
                return sum16_offset() + kInterleavedRows * 32;
            case ActFormat::kInt8x32:
                return sum16_offset();
            default:
                return scale_offset();
        }
    }

    // Copies between a row of `part` columns, which stand at first_column, and row t of sixteen.
    template <class Copy> void walk(ActLayout part, int first_column, int t, Copy copy) const {
        const size_t slot = size_t(t), first_block = size_t(first_column / columns());
        for (size_t i = 0; i < size_t(part.width / columns()); i++) {
            const size_t block = (first_block + i) * block_bytes();
            if (row.format == ActFormat::kInt8x256) {
                for (size_t k = 0; k < 4; k++) copy(256 * i + 64 * k, block + 1024 * k + 64 * slot, Bytes<64>{});
                copy(part.scale_offset() + 4 * i, block + scale_offset() + 4 * slot, Bytes<4>{});
                copy(part.sum32_offset() + 16 * i, block + sum32_offset() + 16 * slot, Bytes<16>{});
                copy(part.sum16_offset() + 32 * i, block + sum16_offset() + 32 * slot, Bytes<32>{});
            } else if (row.format == ActFormat::kInt8x32) {
                copy(32 * i, block + 32 * slot, Bytes<32>{});
                copy(part.scale_offset() + 4 * i, block + scale_offset() + 4 * slot, Bytes<4>{});
                copy(part.sum32_offset() + 4 * i, block + sum32_offset() + 4 * slot, Bytes<4>{});
            } else {
                copy(64 * i, block + 64 * slot, Bytes<64>{});
            }
        }
    }
    void put(ActLayout part, const uint8_t* from, int first_column, int t, uint8_t* rows) const {
        walk(part, first_column, t, [&](size_t in_row, size_t in_rows, auto bytes) {
            std::memcpy(rows + in_rows, from + in_row, bytes.count);
        });
    }
    void take(const uint8_t* rows, int t, uint8_t* to) const {
        walk(row, 0, t,
             [&](size_t in_row, size_t in_rows, auto bytes) { std::memcpy(to + in_row, rows + in_rows, bytes.count); });
    }

 private:
    template <size_t N> struct Bytes { static constexpr size_t count = N; };
};

// Columns of one group: every activation format has whole blocks in it.
inline constexpr int kGroupColumns = 256;

// Puts a row of `part` in its place in a row of `layout`, from first_column on, a multiple of kGroupColumns. The columns
// are a group or what is left of the row.
inline void place_columns(const ActLayout& layout, const ActLayout& part, int first_column, const uint8_t* from,
                          uint8_t* row) {
    const auto copy = [&](size_t from_offset, size_t to, size_t element, int per) {
        std::memcpy(row + to + size_t(first_column / per) * element, from + from_offset, part.width / per * element);
    };
    // Bfloat16 is read in pairs: behind an odd width stands a zero.
    if (layout.format == ActFormat::kBF16 && part.width % 2) std::memset(row + size_t(layout.width) * 2, 0, 2);
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

}  // namespace tl
