#include "core/weights.h"

#include <algorithm>

namespace tl {
namespace {

const FormatKernels& checked_format(const Kernels& kernels, Precision precision, int gguf_type, int num_rows,
                                    int num_columns) {
    const FormatKernels* format = find_format(kernels, gguf_type, precision);
    if (!format) throw std::invalid_argument("no kernels for tensor type " + std::to_string(gguf_type));
    if (num_rows <= 0 || num_columns <= 0 || num_columns % format->block != 0) {
        throw std::invalid_argument("a matrix of " + std::to_string(num_rows) + " x " + std::to_string(num_columns) +
                                    " does not divide into blocks of " + std::to_string(format->block));
    }
    return *format;
}

struct PackJob {
    const PackedMatrix* matrix;
    int num_rows;  // in this job
    const uint8_t* raw;
    uint8_t* out;
    WorkRanges* work;
};

void pack_tiles(void* context, int thread) {
    const PackJob& job = *static_cast<PackJob*>(context);
    const PackedMatrix& m = *job.matrix;
    for (int begin, end; job.work->claim(thread, begin, end);) {
        for (int tile = begin; tile < end; tile++)
            pack_tile(m, job.raw, job.num_rows, tile, job.out + size_t(tile) * m.tile_bytes);
    }
}

}  // namespace

size_t row_bytes(const FormatKernels& format, int num_columns) {
    return size_t(num_columns / format.block) * format.block_bytes;
}

void pack_tile(const PackedMatrix& m, const uint8_t* raw, int num_rows, int tile, uint8_t* out) {
    const uint8_t* rows[kTileRows];
    for (int r = 0; r < kTileRows; r++) {
        const int row = tile * kTileRows + r;
        rows[r] = row < num_rows ? raw + size_t(row) * m.row_bytes : nullptr;
    }
    m.format->pack(rows, m.num_columns, out);
}

const FormatKernels* find_format(const Kernels& kernels, int gguf_type, Precision precision) {
    const FormatKernels* formats = kernels.formats[int(precision)];
    for (int i = 0; i < kernels.num_formats; i++) {
        if (formats[i].gguf_type == gguf_type) return &formats[i];
    }
    return nullptr;
}

const FastKernels* find_fast(const Kernels& kernels, int gguf_type) {
    for (int i = 0; i < kernels.num_fast; i++) {
        if (kernels.fast[i].gguf_type == gguf_type) return &kernels.fast[i];
    }
    return nullptr;
}

Weights::Weights(const Kernels& kernels, Precision precision, size_t capacity)
    : kernels_(kernels), precision_(precision), memory_(std::max(capacity, size_t(1)), PageSize::kHuge) {}

size_t Weights::packed_bytes(const Kernels& kernels, int gguf_type, int num_rows, int num_columns) {
    const FormatKernels& format = checked_format(kernels, Precision::kInt8, gguf_type, num_rows, num_columns);
    const size_t num_tiles = size_t(num_rows + kTileRows - 1) / kTileRows;
    return align_up(num_tiles * format.tile_bytes(num_columns), kRowAlignment);
}

int Weights::add_matrix(int gguf_type, int num_rows, int num_columns) {
    const FormatKernels& format = checked_format(kernels_, precision_, gguf_type, num_rows, num_columns);
    const size_t bytes = packed_bytes(kernels_, gguf_type, num_rows, num_columns);
    if (bytes > memory_.size() - used_) throw std::invalid_argument("more weights than were announced");
    matrices_.push_back({&format, num_rows, num_columns, format.tile_bytes(num_columns), row_bytes(format, num_columns),
                         memory_.data() + used_});
    if (precision_ == Precision::kInt8) matrices_.back().fast = find_fast(kernels_, gguf_type);
    used_ += bytes;
    return int(matrices_.size()) - 1;
}

void Weights::pack_rows(ThreadPool& pool, int matrix, int first_row, int num_rows, const uint8_t* raw) {
    const PackedMatrix& m = matrices_.at(matrix);
    const int end = first_row + num_rows;
    if (first_row < 0 || num_rows < 1 || end > m.num_rows || first_row % kTileRows != 0 ||
        (end % kTileRows != 0 && end != m.num_rows) || m.is_mapped()) {
        throw std::invalid_argument("rows to pack are not whole tiles of a matrix that is packed");
    }
    const int first_tile = first_row / kTileRows;
    WorkRanges work;
    // About 256 KB a chunk: a thread faults in huge pages that it will most likely read.
    const size_t chunk = std::max<size_t>(1, (size_t(256) << 10) / m.tile_bytes);
    work.reset((num_rows + kTileRows - 1) / kTileRows, int(chunk), pool.size());
    uint8_t* out = const_cast<uint8_t*>(m.data) + size_t(first_tile) * m.tile_bytes;
    PackJob job{&m, num_rows, raw, out, &work};
    pool.run(pack_tiles, &job);
}

int Weights::add_mapped_matrix(int gguf_type, int num_rows, int num_columns, const uint8_t* map, size_t map_bytes,
                               size_t offset) {
    const FormatKernels& format = checked_format(kernels_, precision_, gguf_type, num_rows, num_columns);
    const size_t bytes = row_bytes(format, num_columns);
    if (offset > map_bytes || size_t(num_rows) > (map_bytes - offset) / bytes) {
        throw std::invalid_argument("the rows of a matrix lie outside its file");
    }
    matrices_.push_back(
        {&format, num_rows, num_columns, format.tile_bytes(num_columns), bytes, nullptr, map + offset, map, map_bytes});
    return int(matrices_.size()) - 1;
}

int Weights::add_vector(std::vector<float> values) {
    vectors_.push_back(std::move(values));
    return int(vectors_.size()) - 1;
}

int Weights::add_table(int gguf_type, int num_rows, int num_columns, const uint8_t* raw, bool is_forgotten) {
    const FormatKernels& format = checked_format(kernels_, precision_, gguf_type, num_rows, num_columns);
    tables_.push_back({&format, num_rows, num_columns, row_bytes(format, num_columns), raw, is_forgotten});
    return int(tables_.size()) - 1;
}

size_t Weights::num_bytes() const {
    size_t total = used_;
    for (const auto& vector : vectors_) total += vector.size() * sizeof(float);
    return total;
}

}  // namespace tl
