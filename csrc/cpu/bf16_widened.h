// BF16 products of many tokens by float multiply-adds, with the bits of VDPBF16PS.
//
// Intel cores issue VDPBF16PS every other cycle (measured on Sapphire Rapids: 2.2 cycles), and multiply-adds two a cycle:
// twice the products, once both operands are floats. AMD cores issue VDPBF16PS every cycle and keep it.
//
// VDPBF16PS computes acc = fma(w[2k], x[2k], fma(w[2k + 1], x[2k + 1], acc)): the odd column first, each step rounded once,
// subnormal numbers read and written as zero. With the processor set to treat subnormals so, two multiply-adds give
// the same bits; tests compare tokens computed this way with tokens computed alone.
//
// Activations are widened once for all tiles of a call; a pair of weights costs a shift and an AND, shared by T tokens.
#pragma once

#include "cpu/processor.h"
#include "quants/format.h"

#if defined(TL_LEVEL_AVX512)
namespace tl::TL_LEVEL {

static const bool kWidenBf16 = is_intel();

// Floats of one widened row.
inline size_t widened_stride(int num_inputs) { return align_up(size_t(num_inputs) + 1, kLanes); }

inline void widen_rows(const MatmulArgs& args, int token, int count, float* out) {
    const size_t stride = widened_stride(args.num_inputs);
    for (int t = 0; t < count; t++) {
        const auto* x = (const uint16_t*)(args.x + size_t(token + t) * args.x_stride);
        for (int k = 0; k < args.num_inputs; k += kLanes) store(out + size_t(t) * stride + k, load_bf16(x + k));
    }
}

// Subnormal numbers count as zero while this lives.
class FlushSubnormals {
 public:
    FlushSubnormals() : saved_(_mm_getcsr()) { _mm_setcsr(saved_ | 0x8040); }
    ~FlushSubnormals() { _mm_setcsr(saved_); }

 private:
    unsigned saved_;
};

struct WidePair { F32 even, odd; };
TL_INLINE WidePair widen_pair(const uint8_t* p) {
    const __m512i v = _mm512_loadu_si512(p);
    return {{_mm512_castsi512_ps(_mm512_slli_epi32(v, 16))},
            {_mm512_castsi512_ps(_mm512_and_si512(v, _mm512_set1_epi32(int(0xffff0000))))}};
}

// Two tiles times T widened rows, `steps` pairs of columns.
template <int T>
TL_INLINE void widened_dot(const uint8_t* tile0, const uint8_t* tile1, int steps, const float* x, size_t stride,
                           Regs<F32, T>& first, Regs<F32, T>& second) {
    Regs<const float*, T> rows;
    each(rows, [&](int t, const float*& p) TL_LAMBDA {
        p = x + size_t(t) * stride;
        asm("" : "+r"(p));
    });
    clear(first);
    clear(second);
    const FlushSubnormals flush;
    each(first, second, [](int, F32& f, F32& g) TL_LAMBDA { settle(f), settle(g); });
    TL_UNROLL(1)
    for (int k = 0; k < steps; k++) {
        const WidePair w0 = widen_pair(tile0 + 64 * size_t(k)), w1 = widen_pair(tile1 + 64 * size_t(k));
        each(first, second, rows, [&](int, F32& f, F32& g, const float*& row) TL_LAMBDA {
            const F32 odd = set1(row[2 * k + 1]);
            f = fma(w0.odd, odd, f);
            g = fma(w1.odd, odd, g);
        });
        each(first, second, rows, [&](int, F32& f, F32& g, const float*& row) TL_LAMBDA {
            const F32 even = set1(row[2 * k]);
            f = fma(w0.even, even, f);
            g = fma(w1.even, even, g);
        });
    }
    each(first, second, [](int, F32& f, F32& g) TL_LAMBDA { settle(f), settle(g); });
}

}  // namespace tl::TL_LEVEL
#endif
