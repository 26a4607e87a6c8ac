// Weights in memory: matrices packed for the kernels, vectors as floats, tables left in the file.
#pragma once

#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "core/memory.h"
#include "core/thread_pool.h"
#include "cpu/kernels.h"

namespace tl {

// A weight matrix (rows = outputs, columns = inputs) in tiles of 16 rows: packed in memory, or mapped, when its rows stay
// as the file has them and tiles are packed as they are used (core/mapped.h).
struct PackedMatrix {
    const FormatKernels* format;
    int num_rows;
    int num_columns;
    size_t tile_bytes;
    size_t row_bytes;               // in the file
    const uint8_t* data;            // null: mapped
    const uint8_t* rows = nullptr;  // of a mapped matrix
    const uint8_t* map = nullptr;   // the file's map that they lie in
    size_t map_bytes = 0;
    const FastKernels* fast = nullptr;  // null: none, or not with these activations, or mapped

    int num_tiles() const { return (num_rows + kTileRows - 1) / kTileRows; }
    bool is_mapped() const { return rows != nullptr; }
};

// Bytes of a row as files have it.
size_t row_bytes(const FormatKernels& format, int num_columns);
// Packs tile `tile` of `num_rows` rows that begin at `raw`; rows beyond them decode to zero.
void pack_tile(const PackedMatrix& matrix, const uint8_t* raw, int num_rows, int tile, uint8_t* out);

// A table whose rows are looked up one by one (embeddings): stays as the file has it, in the file's memory map.
struct RowTable {
    const FormatKernels* format;
    int num_rows;
    int num_columns;
    size_t row_bytes;
    const uint8_t* data;
    bool
        is_forgotten;  // pages of a row are given back once it is read: a map of a file that is larger than it is worth
};

// Kernels of a GGUF tensor type, or null. What does not multiply may ask for any precision.
const FormatKernels* find_format(const Kernels& kernels, int gguf_type, Precision precision);
// Its products in fast mode, or null.
const FastKernels* find_fast(const Kernels& kernels, int gguf_type);

class Weights {
 public:
    // capacity: sum of packed_bytes over all matrices to come. precision: of the activations that they multiply.
    Weights(const Kernels& kernels, Precision precision, size_t capacity);

    // Bytes that a matrix takes once packed. Throws std::invalid_argument for a type or shape it cannot pack.
    static size_t packed_bytes(const Kernels& kernels, int gguf_type, int num_rows, int num_columns);

    // Room for a matrix; its rows follow by pack_rows. Returns its index.
    int add_matrix(int gguf_type, int num_rows, int num_columns);
    // Packs rows [first_row, first_row + num_rows) from the file's bytes, all threads together. first_row and, but for
    // the last rows of the matrix, num_rows are multiples of kTileRows.
    void pack_rows(ThreadPool& pool, int matrix, int first_row, int num_rows, const uint8_t* raw);
    // A matrix whose rows stay where they are: `offset` bytes into a read-only map of a file, which outlives this object.
    // Returns its index. Throws std::invalid_argument for rows outside the map.
    int add_mapped_matrix(int gguf_type, int num_rows, int num_columns, const uint8_t* map, size_t map_bytes,
                          size_t offset);
    int add_vector(std::vector<float> values);
    // `raw` must outlive this object. is_forgotten: see RowTable; only for a read-only map of a file.
    int add_table(int gguf_type, int num_rows, int num_columns, const uint8_t* raw, bool is_forgotten);

    const PackedMatrix& matrix(int index) const { return matrices_.at(index); }
    const std::vector<float>& vector(int index) const { return vectors_.at(index); }
    const RowTable& table(int index) const { return tables_.at(index); }
    size_t num_bytes() const;

 private:
    const Kernels& kernels_;
    Precision precision_;
    MappedBuffer memory_;
    size_t used_ = 0;
    std::vector<PackedMatrix> matrices_;
    std::vector<std::vector<float>> vectors_;
    std::vector<RowTable> tables_;
};

}  // namespace tl
