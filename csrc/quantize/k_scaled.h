// Q3_K, Q6_K, IQ4_XS, IQ4_NL: blocks with a scale per sub-block and no minimum (torchless/quants/*.py describe the
// bytes).
//
// Without importance a weight counts with its square: the weights of llama.cpp's quantiser, so that errors compare.
#pragma once

#include "quantize/scaled.h"

namespace tl::TL_LEVEL {

// Sub-blocks of one call and what was found for them; `q` holds levels (-127 .. 113).
template <int Size> struct ScaledBlocks {
    int8_t q[kLanes][Size];
    int8_t scale[kLanes];
    float d[kLanes];
};

template <int Size> TL_INLINE void store_levels(const Columns<Size>& q, ScaledBlocks<Size>& out) {
    for (int i = 0; i < Size; i++) {
        int32_t levels[kLanes];
        istore(levels, to_int(q.at(i)));
        for (int s = 0; s < kLanes; s++) out.q[s][i] = int8_t(levels[s]);
    }
}

template <int Size, int Width>
TL_INLINE void gather_weighted(const QuantiserInput& in, size_t begin, int count, float sigma_factor,
                               Columns<Size>& values, Columns<Size>& weights) {
    gather_columns(in.x + begin, count, values);
    if (in.importance) {
        gather_importance(in, begin, count, weights);
        if (sigma_factor > 0.0f) weigh_by_importance<Size, Width>(values, sigma_factor, weights);
    } else {
        for (int i = 0; i < Size; i++) weights.put(i, values.at(i) * values.at(i));
    }
}

// How a format searches.
struct ScaledSearch {
    int low_scale, high_scale;  // multiples of d
    float spread;               // of trial steps, in levels
    int num_trials;
    bool both;           // tries the peak at either end of the levels
    float sigma_factor;  // see weigh_by_importance; 0: importance alone
};

// `count` sub-blocks from weight `begin` on; a super-block has 256 / Size.
template <int Size, class Levels>
TL_INLINE void quantise_scaled(const QuantiserInput& in, size_t begin, int count, const ScaledSearch& search,
                               ScaledBlocks<Size>& out) {
    constexpr int kWidth = 256 / Size;
    Columns<Size> values, weights, q;
    gather_weighted<Size, kWidth>(in, begin, count, search.sigma_factor, values, weights);
    const ScaledFit<Size, Levels> fit(values, weights);
    const F32 step = fit.fit(search.spread, search.num_trials, search.both);
    const ScaledGrid grid = fit_scaled<kWidth>(fit, step, EveryMultiple{search.low_scale, search.high_scale}, q);
    store(out.d, grid.d);
    int32_t scales[kLanes];
    istore(scales, to_int(grid.scale));
    for (int s = 0; s < kLanes; s++) out.scale[s] = int8_t(scales[s]);
    store_levels(q, out);
}

TL_INLINE void write_q3_k(const ScaledBlocks<16>& blocks, uint8_t* out) {
    const auto code = [&](int n, int t, int l) { return blocks.q[8 * n + 2 * t + l / 16][l % 16] + 4; };
    for (int l = 0; l < 32; l++) {
        int mask = 0;
        for (int n = 0; n < 2; n++) {
            int packed = 0;
            for (int t = 0; t < 4; t++) {
                packed |= (code(n, t, l) & 3) << 2 * t;
                mask |= (code(n, t, l) >> 2) << (4 * n + t);
            }
            out[32 + 32 * n + l] = uint8_t(packed);
        }
        out[l] = uint8_t(mask);
    }
    uint8_t* scales = out + 96;
    for (int s = 0; s < 12; s++) scales[s] = 0;
    for (int s = 0; s < 16; s++) {
        const int sc = blocks.scale[s] + 32;
        scales[s & 7] |= uint8_t((sc & 15) << (s < 8 ? 0 : 4));
        scales[8 + (s & 3)] |= uint8_t((sc >> 4) << 2 * (s >> 2));
    }
    write_f16(out + 108, blocks.d[0]);
}

TL_INLINE void write_q6_k(const ScaledBlocks<16>& blocks, uint8_t* out) {
    const auto code = [&](int n, int t, int l) { return blocks.q[8 * n + 2 * t + l / 16][l % 16] + 32; };
    for (int n = 0; n < 2; n++) {
        for (int l = 0; l < 32; l++) {
            const int q0 = code(n, 0, l), q1 = code(n, 1, l), q2 = code(n, 2, l), q3 = code(n, 3, l);
            out[64 * n + l] = uint8_t((q0 & 15) | (q2 & 15) << 4);
            out[64 * n + 32 + l] = uint8_t((q1 & 15) | (q3 & 15) << 4);
            out[128 + 32 * n + l] = uint8_t(q0 >> 4 | (q1 >> 4) << 2 | (q2 >> 4) << 4 | (q3 >> 4) << 6);
        }
    }
    std::memcpy(out + 192, blocks.scale, 16);
    write_f16(out + 208, blocks.d[0]);
}

TL_INLINE uint8_t iq4_code(int level) {
    int code = 0;
    for (int i = 1; i < 16; i++) code += level >= int(kIq4Levels[i]);
    return uint8_t(code);
}

TL_INLINE void write_iq4_codes(const int8_t* q, uint8_t* out) {
    for (int i = 0; i < 16; i++) out[i] = uint8_t(iq4_code(q[i]) | iq4_code(q[i + 16]) << 4);
}

TL_INLINE void write_iq4_xs(const ScaledBlocks<32>& blocks, int first, uint8_t* out) {
    write_f16(out, blocks.d[first]);
    int high = 0;
    for (int s = 0; s < 8; s++) {
        const int scale = blocks.scale[first + s] + 32;
        high |= (scale >> 4) << 2 * s;
        if (s % 2 == 0)
            out[4 + s / 2] = uint8_t(scale & 15);
        else
            out[4 + s / 2] |= uint8_t((scale & 15) << 4);
        write_iq4_codes(blocks.q[first + s], out + 8 + 16 * s);
    }
    out[2] = uint8_t(high & 255);
    out[3] = uint8_t(high >> 8);
}

inline void quantise_q3_k(const QuantiserInput& in, uint8_t* out) {
    for (size_t begin = 0; begin < in.num_weights; begin += 256, out += 110) {
        ScaledBlocks<16> blocks;
        quantise_scaled<16, EvenLevels<-4, 3>>(in, begin, 16, {-32, 31, 1.2f, 13, true, 2.0f}, blocks);
        write_q3_k(blocks, out);
    }
}

inline void quantise_q6_k(const QuantiserInput& in, uint8_t* out) {
    for (size_t begin = 0; begin < in.num_weights; begin += 256, out += 210) {
        ScaledBlocks<16> blocks;
        quantise_scaled<16, EvenLevels<-32, 31>>(in, begin, 16, {-128, 127, 0.9f, 19, false, 0.0f}, blocks);
        write_q6_k(blocks, out);
    }
}

inline void quantise_iq4_xs(const QuantiserInput& in, uint8_t* out) {
    for (size_t begin = 0; begin < in.num_weights; begin += 512) {
        const int count = count_sub_blocks<32>(in, begin);
        ScaledBlocks<32> blocks;
        quantise_scaled<32, Iq4Levels>(in, begin, count, {-32, 31, 14.0f, 15, true, 2.0f}, blocks);
        for (int first = 0; first < count; first += 8, out += 136) write_iq4_xs(blocks, first, out);
    }
}

// One sub-block per block: the step itself is the half-precision number.
template <class Levels>
TL_INLINE void quantise_single(const QuantiserInput& in, size_t begin, int count, float spread, int num_trials,
                               ScaledBlocks<32>& out) {
    Columns<32> values, weights, q;
    gather_weighted<32, 1>(in, begin, count, 2.0f, values, weights);
    const ScaledFit<32, Levels> fit(values, weights);
    const F32 d = through_f16(fit.fit(spread, num_trials, true));
    const F32 inverse = ratio(set1(1.0f), d);
    for (int i = 0; i < 32; i++) q.put(i, Levels::nearest(values.at(i) * inverse));
    store(out.d, d);
    store_levels(q, out);
}

inline void quantise_iq4_nl(const QuantiserInput& in, uint8_t* out) {
    for (size_t begin = 0; begin < in.num_weights; begin += 512) {
        const int count = count_sub_blocks<32>(in, begin);
        ScaledBlocks<32> blocks;
        quantise_single<Iq4Levels>(in, begin, count, 14.0f, 15, blocks);
        for (int s = 0; s < count; s++, out += 18) {
            write_f16(out, blocks.d[s]);
            write_iq4_codes(blocks.q[s], out + 2);
        }
    }
}

}  // namespace tl::TL_LEVEL
