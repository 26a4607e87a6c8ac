// Products with matrices that stay in their file's memory map: a few tiles at a time are packed into the scratch of the
// thread that multiplies them. The kernels see what they would see of a matrix that was packed at load, so the bits are
// the same. Packed matrices pass through; nothing here knows which kind a stage has.
#pragma once

#include "core/weights.h"

namespace tl {

// Scratch of one thread for multiply_tiles, a multiple of kRowAlignment.
size_t product_scratch_bytes(const FormatKernels& format, int num_columns, bool is_mapped);
inline size_t product_scratch_bytes(const PackedMatrix& m) {
    return product_scratch_bytes(*m.format, m.num_columns, m.is_mapped());
}
// With that of a matrix's fast products, where it has any.
inline size_t any_product_scratch_bytes(const PackedMatrix& m) {
    const size_t exact = product_scratch_bytes(m);
    return m.fast && m.fast->scratch_bytes > exact ? m.fast->scratch_bytes : exact;
}

// Most bytes of the file that a thread has in use at once, for a stage that claims whole tiles up to kClaimBytes or
// `num_tiles` of them. What is mapped around them comes on top (kAroundBytes).
inline constexpr size_t kClaimBytes = size_t(1) << 20;
inline constexpr size_t kAroundBytes = 2 * kHugePageBytes;
size_t file_window_bytes(const FormatKernels& format, int num_columns, int num_tiles);

// Tiles of a mapped matrix to claim at once: enough bytes that a disk and the page tables are asked seldom, and several
// claims for each thread.
int claimed_tiles(const PackedMatrix& m, int num_tiles, int num_threads);

// args.format->matmul of tiles [begin, end); args says all but weights and tile_bytes. block_tokens: tokens that read a
// tile together, a multiple of 16, or 0 for all at once; a mapped tile is packed once for all blocks.
void multiply_tiles(const PackedMatrix& m, MatmulArgs args, int begin, int end, uint8_t* scratch, int block_tokens = 0);

// The same in fast arithmetic, of a matrix that has it.
void multiply_tiles_fast(const PackedMatrix& m, MatmulArgs args, int begin, int end, uint8_t* scratch);

// Lets the system take back the pages of a mapped matrix's tiles; nothing to do for a packed one.
void forget_tiles(const PackedMatrix& m, int begin, int end);

// Multiplies tiles [begin, end) of a mapped matrix with a row of zeros, all threads together, and forgets them: what
// reading them costs a step that decodes. scratch: `stride` bytes for each thread, of a size that a product of x needs.
void try_tiles(ThreadPool& pool, const PackedMatrix& m, int begin, int end, uint8_t* scratch, size_t stride);

}  // namespace tl
