// F32, F16 and BF16: plain numbers, one "block" is one element.
//
// Packed, 16 rows lie side by side per column, so that one load gives a column of the tile: F32 64 bytes, F16 32
// bytes per column; BF16 64 bytes per two columns (dword lane r = columns 2k, 2k + 1 of row r), which is what the
// bfloat16 dot product reads. An odd last BF16 column is paired with zeros.
//
// Arithmetic per (row, token): acc = fma(w[k], x[k], acc), k ascending, float32; for BF16 the pairs of vdpbf16ps with
// activations rounded to bfloat16.
#pragma once

#include "quants/format.h"

namespace tl::TL_LEVEL {

struct Float32 {
    static constexpr int kType = 0;
    static constexpr size_t kBytes = 4;
    static constexpr ActFormat kActivations = ActFormat::kF32;
    static constexpr int kColumns = 1;    // columns of one step
    static constexpr bool kPairs = true;  // registers suffice for two tiles at once

    static void decode_row(const uint8_t* row, int n, float* out) { std::memcpy(out, row, size_t(n) * 4); }
    using Weights = F32;

    TL_INLINE static F32 weights(const uint8_t* tile, int k) { return load((const float*)tile + 16 * k); }
    TL_INLINE static F32 activation(const ActRows& x, int t, int k) { return set1(x.f32(t)[k]); }
    TL_INLINE static void multiply(F32& f, F32 w, F32 x) { f = fma(w, x, f); }
};

struct Float16 {
    static constexpr int kType = 1;
    static constexpr size_t kBytes = 2;
    static constexpr ActFormat kActivations = ActFormat::kF32;
    static constexpr int kColumns = 1;
    static constexpr bool kPairs = true;

    static void decode_row(const uint8_t* row, int n, float* out) {
        for (int i = 0; i < n; i++) out[i] = read_f16(row + 2 * i);
    }
    using Weights = F32;

    TL_INLINE static F32 weights(const uint8_t* tile, int k) { return load_f16((const uint16_t*)tile + 16 * k); }
    TL_INLINE static F32 activation(const ActRows& x, int t, int k) { return set1(x.f32(t)[k]); }
    TL_INLINE static void multiply(F32& f, F32 w, F32 x) { f = fma(w, x, f); }
};

struct BFloat16 {
    static constexpr int kType = 30;
    static constexpr size_t kBytes = 2;
    static constexpr ActFormat kActivations = ActFormat::kBF16;
    static constexpr int kColumns = 2;
    static constexpr bool kPairs = kRegisters >= 32;

    static void decode_row(const uint8_t* row, int n, float* out) {
        for (int i = 0; i < n; i++) {
            uint16_t bits;
            std::memcpy(&bits, row + 2 * i, 2);
            out[i] = bf16_to_float(bits);
        }
    }
    using Weights = Bytes;

    TL_INLINE static Bytes weights(const uint8_t* tile, int k) { return bload(tile + 64 * k); }
    TL_INLINE static const uint16_t* activation(const ActRows& x, int t, int k) { return x.bf16(t) + 2 * k; }
    TL_INLINE static void multiply(F32& f, Bytes w, const uint16_t* x) { dot2_bf16(f, w, x); }
};

}  // namespace tl::TL_LEVEL
