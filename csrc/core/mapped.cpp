#include "core/mapped.h"

#include <algorithm>
#include <cstring>
#include <iterator>

namespace tl {
namespace {

// Kernels for one token take up to four tiles at once, those of tile registers two or more.
constexpr int kMostTiles = 4;
// But no more than fits into the L2 cache beside the activations.
constexpr size_t kPackBytes = 256 << 10;

int tiles_at_once(size_t tile_bytes) { return int(std::clamp<size_t>(kPackBytes / tile_bytes, 1, kMostTiles)); }

size_t kernel_bytes(const FormatKernels& format, int num_columns) {
    return align_up(format.matmul_scratch_bytes(num_columns), kRowAlignment);
}

size_t tile_row_bytes(const PackedMatrix& m) { return kTileRows * m.row_bytes; }

void run_blocks(const FormatKernels& format, MatmulArgs args, int begin, int end, uint8_t* scratch, int block_tokens) {
    const int num_tokens = args.num_tokens;
    if (block_tokens <= 0) block_tokens = num_tokens;
    for (int token = 0; token < num_tokens; token += block_tokens) {
        args.num_tokens = std::min(block_tokens, num_tokens - token);
        format.matmul(args, begin, end, scratch);
        args.x += size_t(block_tokens) * args.x_stride;
        args.out += size_t(block_tokens) * args.out_stride;
    }
}

}  // namespace

size_t product_scratch_bytes(const FormatKernels& format, int num_columns, bool is_mapped) {
    const size_t tile_bytes = format.tile_bytes(num_columns);
    const size_t tiles = is_mapped ? align_up(tiles_at_once(tile_bytes) * tile_bytes, kRowAlignment) : 0;
    return kernel_bytes(format, num_columns) + tiles;
}

size_t file_window_bytes(const FormatKernels& format, int num_columns, int num_tiles) {
    const size_t tile = kTileRows * row_bytes(format, num_columns);
    return std::max(kClaimBytes + tile, num_tiles * tile);
}

int claimed_tiles(const PackedMatrix& m, int num_tiles, int num_threads) {
    const size_t most = std::max<size_t>(1, kClaimBytes / tile_row_bytes(m));
    return int(std::min<size_t>(most, std::max(1, num_tiles / (4 * num_threads))));
}

void multiply_tiles(const PackedMatrix& m, MatmulArgs args, int begin, int end, uint8_t* scratch, int block_tokens) {
    args.tile_bytes = m.tile_bytes;
    args.num_inputs = m.num_columns;
    if (!m.is_mapped()) {
        args.weights = m.data;
        args.num_rows = m.num_rows;
        return run_blocks(*m.format, args, begin, end, scratch, block_tokens);
    }
    uint8_t* tiles = scratch + kernel_bytes(*m.format, m.num_columns);
    const int most = tiles_at_once(m.tile_bytes), out_row = args.out_row;
    const float* bias = args.bias;
    args.weights = tiles;
    for (int first = begin; first < end; first += most) {
        const int count = std::min(most, end - first), row = first * kTileRows;
        for (int i = 0; i < count; i++) pack_tile(m, m.rows, m.num_rows, first + i, tiles + size_t(i) * m.tile_bytes);
        // The kernel counts from the first tile that was packed.
        args.num_rows = m.num_rows - row;
        args.out_row = out_row - row;
        args.bias = bias ? bias + row : nullptr;
        run_blocks(*m.format, args, 0, count, scratch, block_tokens);
    }
}

void multiply_tiles_fast(const PackedMatrix& m, MatmulArgs args, int begin, int end, uint8_t* scratch) {
    args.weights = m.data;
    args.tile_bytes = m.tile_bytes;
    args.num_inputs = m.num_columns;
    args.num_rows = m.num_rows;
    m.fast->matmul(args, begin, end, scratch);
}

void forget_tiles(const PackedMatrix& m, int begin, int end) {
    if (!m.is_mapped()) return;
    const int last = std::min(end * kTileRows, m.num_rows);
    const uint8_t* first = m.rows + size_t(begin) * tile_row_bytes(m);
    forget_bytes(first, m.rows + size_t(last) * m.row_bytes - first, m.map, m.map_bytes);
}

void try_tiles(ThreadPool& pool, const PackedMatrix& m, int begin, int end, uint8_t* scratch, size_t stride) {
    struct Job {
        const PackedMatrix& m;
        int first;
        uint8_t* scratch;
        size_t stride;
        WorkRanges work;
    } job{m, begin, scratch, stride, {}};
    job.work.reset(end - begin, claimed_tiles(m, end - begin, pool.size()), pool.size());
    const auto run = [](void* context, int thread) {
        Job& job = *static_cast<Job*>(context);
        alignas(64) float out[kMostTiles * kTileRows];
        uint8_t* x = job.scratch + size_t(thread) * job.stride;
        const ActLayout layout{job.m.format->activations, job.m.num_columns};
        std::memset(x, 0, layout.row_bytes());
        MatmulArgs args{};
        args.x = x;
        args.x_stride = layout.row_bytes();
        args.num_tokens = 1;
        args.out = out;
        args.out_stride = std::size(out);
        for (int begin, end; job.work.claim(thread, begin, end);) {
            begin += job.first, end += job.first;
            for (int tile = begin; tile < end; tile += kMostTiles) {
                args.out_row = tile * kTileRows;
                multiply_tiles(job.m, args, tile, std::min(tile + kMostTiles, end), x + align_up(args.x_stride, 64));
            }
            forget_tiles(job.m, begin, end);
        }
    };
    pool.run(run, &job);
}

}  // namespace tl
