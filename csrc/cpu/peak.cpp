// Dot products in registers and nothing else: the roof that matrix products are compared with.
//
// As many independent sums as the level keeps in registers hide the instruction's latency. With AVX-512 both factors are
// in registers; at the other levels it is the dot product of their kernels, whose activations come from the first-level
// cache. A level without an int8 dot instruction has the peak of its multiplies and adds.
#include "cpu/level.h"

namespace tl::TL_LEVEL {
namespace {

inline constexpr int kSums = kRegisters >= 32 ? 12 : kRegisters >= 8 ? 4 : 1;

// Keeps a compiler from computing all rounds at once: it may not know what lies at p.
TL_INLINE void forget(const uint8_t*& p) { asm volatile("" : "+r"(p)::"memory"); }

TL_INLINE void read(I32& sum, const uint8_t* p) { sum = iload(reinterpret_cast<const int32_t*>(p)); }
TL_INLINE void read(F32& sum, const uint8_t* p) { sum = load(reinterpret_cast<const float*>(p)); }

#if defined(TL_LEVEL_AVX512)
TL_INLINE void int8_dot(I32& sum, Bytes w, const uint8_t*) { sum.v = _mm512_dpbusd_epi32(sum.v, w.v, w.v); }
TL_INLINE void bf16_dot(F32& sum, Bytes w, const uint8_t*) {
    const __m512bh pairs = (__m512bh)w.v;
    sum.v = _mm512_dpbf16_ps(sum.v, pairs, pairs);
}
#else
TL_INLINE void int8_dot(I32& sum, Bytes w, const uint8_t* a) { dot4_small(sum, w, reinterpret_cast<const int8_t*>(a)); }
TL_INLINE void bf16_dot(F32& sum, Bytes w, const uint8_t* a) {
    dot2_bf16(sum, w, reinterpret_cast<const uint16_t*>(a));
}
#endif

// Runs rounds of one dot product per sum. The numbers are all alike, but the compiler cannot know: sums and
// products that it knew to be equal it would compute once.
template <class Sum, class Dot> TL_INLINE void run(const uint8_t* p, int num_rounds, Dot dot) {
    forget(p);
    Regs<Sum, kSums> sums;
    each(sums, [&](int i, Sum& sum) TL_LAMBDA { read(sum, p + 64 * size_t(i)); });
    const Bytes w = bload(p);
    for (int i = 0; i < num_rounds; i++) {
        forget(p);
        each(sums, [&](int j, Sum& sum) TL_LAMBDA { dot(sum, w, p + 4 * size_t(j)); });
    }
    Sum total;  // a copy: the address of the sums themselves would force them into memory
    read(total, p);
    each(sums, [&](int, Sum& sum) TL_LAMBDA { total = total + sum; });
    asm volatile("" ::"m"(total));
}

}  // namespace

double run_dots(DotKind kind, int num_rounds) {
    // 63 as a byte, 0.747 as bfloat16 and as float.
    alignas(64) uint8_t numbers[64 * kSums];
    for (uint8_t& byte : numbers) byte = 0x3f;
    const double sums = double(num_rounds) * kSums * kLanes;
    switch (kind) {
        case DotKind::kInt8:
            run<I32>(numbers, num_rounds, [](I32& sum, Bytes w, const uint8_t* a) TL_LAMBDA { int8_dot(sum, w, a); });
            return sums * 8;
        case DotKind::kBF16:
            run<F32>(numbers, num_rounds, [](F32& sum, Bytes w, const uint8_t* a) TL_LAMBDA { bf16_dot(sum, w, a); });
            return sums * 4;
        case DotKind::kF32:
            run<F32>(numbers, num_rounds, [](F32& sum, Bytes, const uint8_t* a) TL_LAMBDA {
                const F32 x = set1(*reinterpret_cast<const float*>(a));
                sum = fma(x, x, sum);
            });
            return sums * 2;
    }
    return 0;
}

}  // namespace tl::TL_LEVEL
