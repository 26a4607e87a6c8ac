// Weights that are 4-bit codes of a table of sixteen signed bytes: IQ4_NL, IQ4_XS and MXFP4.
//
// In the file 32 codes are 16 bytes: byte i holds code i in its low nibble and code i + 16 in its high nibble.
// Packed, the codes of 32 columns of 16 rows are four planes of 64 bytes: dword lane r of plane j is bytes 4j .. 4j + 3
// of row r.
//
// A shuffle looks up 64 codes at once. Where the dot product wants unsigned weights the values are 128 too high
// (kSignedOffset), and 128 sum(a) is taken off.
// Per plane: 1 load, 1 shift, 2 ANDs, 2 lookups, 2 T dot products.
#pragma once

#include "quants/format.h"

namespace tl::TL_LEVEL {

inline constexpr size_t kCodeBytes = 256;  // of 32 columns of 16 rows

static constexpr int8_t kIq4Values[16] = {-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113};

// Twice the values of E2M1, a float of four bits.
static constexpr int8_t kE2M1Values[16] = {0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12};

TL_INLINE void decode_codes(const uint8_t* codes, float scale, const int8_t* values, float* out) {
    for (int i = 0; i < 16; i++) {
        out[i] = scale * float(values[codes[i] & 15]);
        out[i + 16] = scale * float(values[codes[i] >> 4]);
    }
}

// Calls f(group, weights as signed_form bytes) for the eight groups of four columns.
template <int T, class F> TL_INLINE void for_codes(const uint8_t* planes, Table table, F f) {
    TL_UNROLL(4)
    for (int j = 0; j < 4; j++) {
        const Bytes v = stream<T>(planes + 64 * j);
        f(j, lookup(table, v & bset1(0x0f)));
        f(j + 4, lookup(table, bshift_right<4>(v) & bset1(0x0f)));
    }
}

// Blocks of 32 with one scale d:   I = w . a (exact int32);   acc += (d * s) * I
struct CodedBlock {
    template <int T>
    TL_INLINE static void finish(F32 d, Regs<I32, T>& sums, int b, const ActRows& x, Regs<F32, T>& acc) {
        each(sums, acc, [&](int t, I32& i, F32& f) TL_LAMBDA {
            if constexpr (kSignedOffset != 0) i = i - shift_left<7>(iset1(x.sum32<int32_t>(t)[b]));
            f = fma(d * set1(x.scale(t)[b]), to_float(i), f);
        });
    }
    static_assert(kSignedOffset == 0 || kSignedOffset == 1 << 7);

    template <int T>
    TL_INLINE static void dot(F32 d, const uint8_t* planes, const int8_t* values, int b, const ActRows& x,
                              Regs<F32, T>& acc) {
        Regs<const int8_t*, T> a = columns<T>(x, 32 * b);
        Regs<I32, T> sums;
        clear(sums);
        for_codes<T>(planes, load_table(values), [&](int g, Bytes w) TL_LAMBDA {
            each(sums, a, [&](int, I32& v, const int8_t*& row) TL_LAMBDA { dot4_signed(v, w, row + 4 * g); });
        });
        finish<T>(d, sums, b, x, acc);
    }

    struct alignas(64) Panel {
        uint8_t q[8][64];  // [column group of 4][row, column]
        float d[16];
    };

    TL_INLINE static void unpack(F32 d, const uint8_t* planes, const int8_t* values, Panel& p) {
        store(p.d, d);
        for_codes<0>(planes, load_table(values), [&](int g, Bytes w) TL_LAMBDA { bstore(p.q[g], w); });
    }

    template <int T>
    TL_INLINE static void panel_dot(const Panel& p, int b, const ActRows& x, Regs<F32, T>& acc) {
        Regs<const int8_t*, T> a = columns<T>(x, 32 * b);
        Regs<I32, T> sums;
        clear(sums);
        TL_UNROLL(8)
        for (int g = 0; g < 8; g++) {
            const Bytes w = bload(p.q[g]);
            each(sums, a, [&](int, I32& v, const int8_t*& row) TL_LAMBDA { dot4_signed(v, w, row + 4 * g); });
        }
        finish<T>(load(p.d), sums, b, x, acc);
    }

    template <class Put> TL_INLINE static void widen(const Panel& p, Put put) {
        const F32 d = load(p.d);
        widen_signed_groups(p.q, 0, 8, [&](F32 value) TL_LAMBDA { return d * value; }, put);
    }
};

}  // namespace tl::TL_LEVEL
