// What a quantiser is to the rest of the core: a function per block type that turns rows of floats into blocks.
//
// A (super-)block is independent of all others, and every level computes the same bytes: the sums of a block run over
// its elements in order, without fused multiply-adds.
#pragma once

#include <cstddef>
#include <cstdint>

namespace tl {

// Whole rows of `columns` weights, one after the other.
struct QuantiserInput {
    const float* x;
    size_t num_weights;
    const float* importance;  // a weight per column (mean squared activation), or null
    size_t columns;
};

struct Quantiser {
    int gguf_type;
    int block;                                                 // elements of a block
    size_t block_bytes;                                        // bytes of a block
    void (*quantise)(const QuantiserInput& in, uint8_t* out);  // writes num_weights / block blocks
};

#define TL_DECLARE_QUANTISERS(level)              \
    namespace level {                             \
    const Quantiser* quantiser_of(int gguf_type); \
    }
TL_DECLARE_QUANTISERS(scalar)
TL_DECLARE_QUANTISERS(avx2)
TL_DECLARE_QUANTISERS(avxvnni)
TL_DECLARE_QUANTISERS(avx512)
#undef TL_DECLARE_QUANTISERS

// The quantiser of a type at a level ("scalar", "avx2", "avx512"); null when there is none.
const Quantiser* quantiser_of_level(const char* level, int gguf_type);

}  // namespace tl
