// Q2_K, Q4_K, Q5_K: super-blocks of 256 weights with a scale and a minimum per sub-block (torchless/quants/q2_k.py,
// q4_k.py, q5_k.py describe the bytes).
//
// Without importance a weight of Q4_K and Q5_K counts by its magnitude above the sub-block's root mean square, one
// of Q2_K by its magnitude: the weights of llama.cpp's quantiser, so that errors compare.
#pragma once

#include "quantize/affine.h"

namespace tl::TL_LEVEL {

// Sub-blocks of one call and what was found for them; `q` holds codes.
template <int Size> struct AffineBlocks {
    uint8_t q[kLanes][Size];
    uint8_t scale[kLanes], minimum[kLanes];
    float d[kLanes], dmin[kLanes];
};

template <int Size> TL_INLINE void weigh_without_importance(const Columns<Size>& x, Columns<Size>& w) {
    F32 floor = zero();
    if constexpr (Size == 32) {
        for (int i = 0; i < Size; i++) floor = floor + x.at(i) * x.at(i);
        floor = sqrt(floor * set1(1.0f / float(Size)));
    }
    for (int i = 0; i < Size; i++) w.put(i, floor + abs(x.at(i)));
}

// `count` sub-blocks from weight `begin` on.
template <int Size, int Top>
TL_INLINE void quantise_affine(const QuantiserInput& in, size_t begin, int count, int largest, float first_shift,
                               int num_shifts, AffineBlocks<Size>& out) {
    constexpr int kWidth = 256 / Size;
    Columns<Size> values, weights, q;
    gather_columns(in.x + begin, count, values);
    if (in.importance) {
        gather_importance(in, begin, count, weights);
        weigh_by_importance<Size, kWidth>(values, Size == 32 ? 2.0f : 1.0f, weights);
    } else {
        weigh_without_importance(values, weights);
    }
    const AffineFit<Size, Top> fit(values, weights);
    const AffineLine line = fit.fit(first_shift, 0.1f, num_shifts);
    const AffineGrid grid = fit_affine<Size, kWidth, Top>(fit, line, float(largest), q);
    store(out.d, grid.d);
    store(out.dmin, grid.dmin);
    int32_t scales[kLanes], minimums[kLanes];
    istore(scales, to_int(grid.scale));
    istore(minimums, to_int(grid.minimum));
    for (int s = 0; s < kLanes; s++) {
        out.scale[s] = uint8_t(scales[s]);
        out.minimum[s] = uint8_t(minimums[s]);
    }
    for (int i = 0; i < Size; i++) {
        int32_t codes[kLanes];
        istore(codes, to_int(q.at(i)));
        for (int s = 0; s < kLanes; s++) out.q[s][i] = uint8_t(codes[s]);
    }
}

// The header that Q4_K and Q5_K share: d, dmin, eight 6-bit scales and minimums.
TL_INLINE void write_affine_header(const AffineBlocks<32>& blocks, int first, uint8_t* out) {
    write_f16(out, blocks.d[first]);
    write_f16(out + 2, blocks.dmin[first]);
    const uint8_t *sc = blocks.scale + first, *m = blocks.minimum + first;
    for (int j = 0; j < 4; j++) {
        out[4 + j] = uint8_t(sc[j] | (sc[j + 4] >> 4) << 6);
        out[8 + j] = uint8_t(m[j] | (m[j + 4] >> 4) << 6);
        out[12 + j] = uint8_t((sc[j + 4] & 15) | (m[j + 4] & 15) << 4);
    }
}

TL_INLINE void write_q4_k(const AffineBlocks<32>& blocks, int first, uint8_t* out) {
    write_affine_header(blocks, first, out);
    for (int c = 0; c < 4; c++) {
        const uint8_t *low = blocks.q[first + 2 * c], *high = blocks.q[first + 2 * c + 1];
        for (int i = 0; i < 32; i++) out[16 + 32 * c + i] = uint8_t(low[i] | high[i] << 4);
    }
}

TL_INLINE void write_q5_k(const AffineBlocks<32>& blocks, int first, uint8_t* out) {
    write_affine_header(blocks, first, out);
    for (int i = 0; i < 32; i++) {
        int high = 0;
        for (int s = 0; s < 8; s++) high |= (blocks.q[first + s][i] >> 4) << s;
        out[16 + i] = uint8_t(high);
    }
    for (int c = 0; c < 4; c++) {
        const uint8_t *low = blocks.q[first + 2 * c], *high = blocks.q[first + 2 * c + 1];
        for (int i = 0; i < 32; i++) out[48 + 32 * c + i] = uint8_t((low[i] & 15) | (high[i] & 15) << 4);
    }
}

TL_INLINE void write_q2_k(const AffineBlocks<16>& blocks, uint8_t* out) {
    for (int s = 0; s < 16; s++) out[s] = uint8_t(blocks.scale[s] | blocks.minimum[s] << 4);
    for (int n = 0; n < 2; n++) {
        for (int l = 0; l < 32; l++) {
            int packed = 0;
            for (int t = 0; t < 4; t++) packed |= blocks.q[8 * n + 2 * t + l / 16][l % 16] << 2 * t;
            out[16 + 32 * n + l] = uint8_t(packed);
        }
    }
    write_f16(out + 80, blocks.d[0]);
    write_f16(out + 82, blocks.dmin[0]);
}

template <int Top> void quantise_affine32(const QuantiserInput& in, uint8_t* out) {
    constexpr size_t kBytes = Top == 15 ? 144 : 176;
    constexpr float kFirst = Top == 15 ? -1.0f : -0.5f;
    constexpr int kShifts = Top == 15 ? 21 : 16;
    for (size_t begin = 0; begin < in.num_weights; begin += 512) {
        const int count = count_sub_blocks<32>(in, begin);
        AffineBlocks<32> blocks;
        quantise_affine<32, Top>(in, begin, count, 63, kFirst, kShifts, blocks);
        for (int first = 0; first < count; first += 8, out += kBytes) {
            if constexpr (Top == 15)
                write_q4_k(blocks, first, out);
            else
                write_q5_k(blocks, first, out);
        }
    }
}

inline void quantise_q2_k(const QuantiserInput& in, uint8_t* out) {
    for (size_t begin = 0; begin < in.num_weights; begin += 256, out += 84) {
        AffineBlocks<16> blocks;
        quantise_affine<16, 3>(in, begin, 16, 15, -0.5f, 16, blocks);
        write_q2_k(blocks, out);
    }
}

}  // namespace tl::TL_LEVEL
