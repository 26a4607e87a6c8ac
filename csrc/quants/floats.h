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
    static constexpr int kColumns = 1;  // columns of one step

    static void decode_row(const uint8_t* row, int n, float* out) { std::memcpy(out, row, size_t(n) * 4); }
    TL_INLINE static F32 column(const uint8_t* tile, int k) { return load((const float*)tile + 16 * k); }

    template <int T>
    TL_INLINE static void step(const uint8_t* tile, int k, const ActRows& x, Regs<F32, T>& acc) {
        const F32 w = column(tile, k);
        each(acc, [&](int t, F32& f) { f = fma(w, set1(x.f32(t)[k]), f); });
    }
};

struct Float16 {
    static constexpr int kType = 1;
    static constexpr size_t kBytes = 2;
    static constexpr ActFormat kActivations = ActFormat::kF32;
    static constexpr int kColumns = 1;

    static void decode_row(const uint8_t* row, int n, float* out) {
        for (int i = 0; i < n; i++) out[i] = read_f16(row + 2 * i);
    }
    template <int T>
    TL_INLINE static void step(const uint8_t* tile, int k, const ActRows& x, Regs<F32, T>& acc) {
        const F32 w = load_f16((const uint16_t*)tile + 16 * k);
        each(acc, [&](int t, F32& f) { f = fma(w, set1(x.f32(t)[k]), f); });
    }
};

struct BFloat16 {
    static constexpr int kType = 30;
    static constexpr size_t kBytes = 2;
    static constexpr ActFormat kActivations = ActFormat::kBF16;
    static constexpr int kColumns = 2;

    static void decode_row(const uint8_t* row, int n, float* out) {
        for (int i = 0; i < n; i++) {
            uint16_t bits;
            std::memcpy(&bits, row + 2 * i, 2);
            out[i] = bf16_to_float(bits);
        }
    }
    template <int T>
    TL_INLINE static void step(const uint8_t* tile, int k, const ActRows& x, Regs<F32, T>& acc) {
        const Bytes w = bload(tile + 64 * k);
        each(acc, [&](int t, F32& f) { dot2_bf16(f, w, x.bf16(t) + 2 * k); });
    }
};

}  // namespace tl::TL_LEVEL
