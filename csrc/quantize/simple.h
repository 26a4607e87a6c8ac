// Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, MXFP4 and plain floats. Without importance the bytes are those of ggml's reference
// quantiser (torchless/quants/*.py is the slow twin, to the bit); with importance, steps are searched.
#pragma once

#include "quantize/affine.h"
#include "quantize/scaled.h"

namespace tl::TL_LEVEL {

// Sixteen blocks of 32: codes, and the two numbers a block may have.
struct SimpleBlocks {
    uint8_t q[32][kLanes];
    float d[kLanes], m[kLanes];
};

// The weight of largest magnitude of each lane; the first of equals.
TL_INLINE F32 peak_of(const Columns<32>& x) {
    F32 peak = zero();
    for (int i = 0; i < 32; i++) peak = select_above(abs(x.at(i)), abs(peak), x.at(i), peak);
    return peak;
}

// q = (x - m) / d + bias, each operation rounded as float, and cut to an integer 0..top.
TL_INLINE void cut_to_codes(const Columns<32>& x, float bias, int top, SimpleBlocks& out) {
    float inverse[kLanes];
    store(inverse, ratio(set1(1.0f), load(out.d)));
    for (int i = 0; i < 32; i++) {
        for (int s = 0; s < kLanes; s++) {
            const int code = int((x.v[i][s] - out.m[s]) * inverse[s] + bias);
            out.q[i][s] = uint8_t(code < top ? code : top);
        }
    }
}

// Without importance: zero of the codes in the middle, the peak on the lowest code.
template <int Top> TL_INLINE void fit_symmetric(const QuantiserInput& in, size_t begin, int count, const Columns<32>& x,
                                                SimpleBlocks& out) {
    constexpr int kHalf = (Top + 1) / 2;
    store(out.m, zero());
    if (!in.importance) {
        store(out.d, peak_of(x) / set1(float(-kHalf)));
        cut_to_codes(x, float(kHalf) + 0.5f, Top, out);
        return;
    }
    Columns<32> w;
    gather_importance(in, begin, count, w);
    weigh_by_importance<32, 1>(x, 1.0f, w);
    const ScaledFit<32, EvenLevels<-kHalf, kHalf - 1>> fit(x, w);
    const F32 d = through_f16(fit.fit(1.2f, 13, true));
    const F32 inverse = ratio(set1(1.0f), d);
    store(out.d, d);
    for (int i = 0; i < 32; i++) {
        int32_t codes[kLanes];
        istore(codes, to_int(EvenLevels<-kHalf, kHalf - 1>::nearest(x.at(i) * inverse)));
        for (int s = 0; s < kLanes; s++) out.q[i][s] = uint8_t(codes[s] + kHalf);
    }
}

// Without importance: codes 0..Top evenly from the least weight to the greatest.
template <int Top> TL_INLINE void fit_with_minimum(const QuantiserInput& in, size_t begin, int count,
                                                   const Columns<32>& x, SimpleBlocks& out) {
    F32 low = x.at(0), high = x.at(0);
    for (int i = 1; i < 32; i++) {
        low = min(x.at(i), low);
        high = max(x.at(i), high);
    }
    F32 d = (high - low) / set1(float(Top)), m = low;
    if (!in.importance) {
        store(out.d, d);
        store(out.m, m);
        cut_to_codes(x, 0.5f, Top, out);
        return;
    }
    Columns<32> w;
    gather_importance(in, begin, count, w);
    weigh_by_importance<32, 1>(x, 1.0f, w);
    const AffineFit<32, Top> fit(x, w);
    const AffineLine line = fit.fit(-0.9f, 0.05f, 37);
    d = through_f16(d);
    m = through_f16(m);
    const F32 step = through_f16(line.step), base = through_f16(line.low);
    // A block far from zero has no line with an offset below zero worth having: there the plain one stays.
    const F32 plain_error = fit.error(d, zero() - m), error = fit.error(step, zero() - base);
    d = select_above(plain_error, error, step, d);
    m = select_above(plain_error, error, base, m);
    store(out.d, d);
    store(out.m, m);
    const F32 inverse = ratio(set1(1.0f), d), shift = m * inverse;
    for (int i = 0; i < 32; i++) {
        int32_t codes[kLanes];
        istore(codes, to_int(clamp(round(x.at(i) * inverse - shift), zero(), set1(float(Top)))));
        for (int s = 0; s < kLanes; s++) out.q[i][s] = uint8_t(codes[s]);
    }
}

// Two codes of four bits a byte: i low, i + 16 high.
TL_INLINE void write_nibbles(const SimpleBlocks& blocks, int s, uint8_t* out) {
    for (int i = 0; i < 16; i++) out[i] = uint8_t((blocks.q[i][s] & 15) | (blocks.q[i + 16][s] & 15) << 4);
}

TL_INLINE void write_fifth_bits(const SimpleBlocks& blocks, int s, uint8_t* out) {
    uint32_t bits = 0;
    for (int i = 0; i < 32; i++) bits |= uint32_t(blocks.q[i][s] >> 4) << i;
    std::memcpy(out, &bits, 4);
}

// All blocks, sixteen at a time: fit(in, begin, count, values, blocks), then write(blocks, s, out).
template <size_t Bytes, class Fit, class Write>
TL_INLINE void each_block(const QuantiserInput& in, uint8_t* out, Fit fit, Write write) {
    for (size_t begin = 0; begin < in.num_weights; begin += 32 * kLanes) {
        const int count = count_sub_blocks<32>(in, begin);
        Columns<32> values;
        SimpleBlocks blocks;
        gather_columns(in.x + begin, count, values);
        fit(in, begin, count, values, blocks);
        for (int s = 0; s < count; s++, out += Bytes) write(blocks, s, out);
    }
}

template <int Top>
void quantise_symmetric(const QuantiserInput& in, uint8_t* out) {
    constexpr size_t kHeader = Top == 15 ? 2 : 6;
    each_block<kHeader + 16>(in, out, fit_symmetric<Top>, [](const SimpleBlocks& blocks, int s, uint8_t* p) {
        write_f16(p, blocks.d[s]);
        if constexpr (Top == 31) write_fifth_bits(blocks, s, p + 2);
        write_nibbles(blocks, s, p + kHeader);
    });
}

template <int Top>
void quantise_with_minimum(const QuantiserInput& in, uint8_t* out) {
    constexpr size_t kHeader = Top == 15 ? 4 : 8;
    each_block<kHeader + 16>(in, out, fit_with_minimum<Top>, [](const SimpleBlocks& blocks, int s, uint8_t* p) {
        write_f16(p, blocks.d[s]);
        write_f16(p + 2, blocks.m[s]);
        if constexpr (Top == 31) write_fifth_bits(blocks, s, p + 4);
        write_nibbles(blocks, s, p + kHeader);
    });
}

// d = max |x| / 127; halves round away from zero. Eight bits leave nothing for importance to win.
inline void quantise_q8_0(const QuantiserInput& in, uint8_t* out) {
    const auto fit = [](const QuantiserInput&, size_t, int, const Columns<32>& values, SimpleBlocks& blocks) {
        const F32 d = abs(peak_of(values)) / set1(127.0f), inverse = ratio(set1(1.0f), d);
        store(blocks.d, d);
        for (int i = 0; i < 32; i++) {
            const F32 v = values.at(i) * inverse, magnitude = abs(v), even = round(magnitude);
            const F32 away = select_above(set1(0.5f), magnitude - even, even, even + set1(1.0f));
            int32_t codes[kLanes];
            istore(codes, to_int(select_above(zero(), v, zero() - away, away)));
            for (int s = 0; s < kLanes; s++) blocks.q[i][s] = uint8_t(codes[s]);
        }
    };
    each_block<34>(in, out, fit, [](const SimpleBlocks& blocks, int s, uint8_t* p) {
        write_f16(p, blocks.d[s]);
        for (int i = 0; i < 32; i++) p[2 + i] = blocks.q[i][s];
    });
}

// A power of two for 32 weights of four bits (1 sign, 2 exponent, 1 mantissa): the peak lies between 4 and 8 units
// of the power, whose largest multiple is 6. Of two levels equally far the smaller magnitude is taken.
inline void quantise_mxfp4(const QuantiserInput& in, uint8_t* out) {
    const auto fit = [](const QuantiserInput&, size_t, int, const Columns<32>& values, SimpleBlocks& blocks) {
        float peaks[kLanes], inverse[kLanes];
        store(peaks, abs(peak_of(values)));
        for (int s = 0; s < kLanes; s++) {
            const int power = peaks[s] > 0.0f ? int(std::floor(log2f(peaks[s]))) + 125 : 0;
            const int exponent = power < 0 ? 0 : power > 254 ? 254 : power;
            blocks.m[s] = float(exponent);
            inverse[s] = float(std::ldexp(1.0, 128 - exponent));  // levels are doubled: 0 1 2 3 4 6 8 12
        }
        constexpr float kBetween[7] = {0.5f, 1.5f, 2.5f, 3.5f, 5.0f, 7.0f, 10.0f};
        const F32 one = set1(1.0f);
        for (int i = 0; i < 32; i++) {
            const F32 v = values.at(i) * load(inverse);
            F32 code = zero();
            TL_UNROLL(7)
            for (int k = 0; k < 7; k++) code = code + select_above(abs(v), set1(kBetween[k]), one, zero());
            // A weight that rounds to zero has no sign.
            const F32 sign = select_above(zero(), v, select_above(code, zero(), set1(8.0f), zero()), zero());
            int32_t codes[kLanes];
            istore(codes, to_int(code + sign));
            for (int s = 0; s < kLanes; s++) blocks.q[i][s] = uint8_t(codes[s]);
        }
    };
    each_block<17>(in, out, fit, [](const SimpleBlocks& blocks, int s, uint8_t* p) {
        p[0] = uint8_t(blocks.m[s]);
        write_nibbles(blocks, s, p + 1);
    });
}

template <class Convert> TL_INLINE void convert_to_halves(const QuantiserInput& in, uint8_t* out, Convert convert) {
    uint16_t halves[kLanes];
    size_t i = 0;
    for (; i + kLanes <= in.num_weights; i += kLanes) {
        convert(halves, load(in.x + i));
        std::memcpy(out + 2 * i, halves, sizeof halves);
    }
    const int rest = int(in.num_weights - i);
    convert(halves, load_first(rest, in.x + i));
    std::memcpy(out + 2 * i, halves, 2 * size_t(rest));
}

inline void quantise_f32(const QuantiserInput& in, uint8_t* out) { std::memcpy(out, in.x, 4 * in.num_weights); }

inline void quantise_f16(const QuantiserInput& in, uint8_t* out) {
    convert_to_halves(in, out, [](uint16_t* p, F32 v) { store_f16(p, v); });
}

inline void quantise_bf16(const QuantiserInput& in, uint8_t* out) {
    convert_to_halves(in, out, [](uint16_t* p, F32 v) { store_bf16(p, v); });
}

}  // namespace tl::TL_LEVEL
