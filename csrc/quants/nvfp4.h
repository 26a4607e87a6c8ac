// NVFP4: floats of four bits (E2M1) in blocks of 64 with a float of eight bits (E4M3, no sign) per 16. 4.5 bits per weight.
//
// In the file a block is 36 bytes: scales[4], then 8 bytes per 16 weights: byte i holds the code of weight i in its low and
// of weight i + 8 in its high nibble. An element is scale / 2 * kE2M1Values[code]; the scale 0x7f counts as 0.
//
// Packed, a block of 16 rows is 640 bytes: scales / 2 [4][16] f16 | planes of codes.h [2][256].
//
// Arithmetic per 16 elements and (row, token), a = int8 activations with scale s:
//   I = w . a   exact int32;   acc += (d * s) * I
// Where weights are held 128 too high, I starts at -128 sum(a), a dot product of its own: rows know no sums of sixteen.
#pragma once

#include "quants/codes.h"

namespace tl::TL_LEVEL {

struct NVFP4 {
    static constexpr int kType = 40;
    static constexpr int kBlock = 64;
    static constexpr size_t kBlockBytes = 36;
    static constexpr size_t kTileBlockBytes = 640;
    static constexpr ActFormat kActivations = ActFormat::kInt8x32;

    static constexpr size_t kCodes = 128;  // offset in a packed block

    // Half of the number that a scale's byte stands for. Every one of them is a half-precision number too.
    static float half_scale(uint8_t byte) {
        if (byte == 0x7f) return 0.0f;
        const int exponent = byte >> 3 & 15, mantissa = byte & 7;
        return exponent ? std::ldexp(float(8 + mantissa), exponent - 11) : std::ldexp(float(mantissa), -10);
    }
    static int code(const uint8_t* block, int i) {
        return block[4 + 8 * (i / 16) + i % 8] >> (i % 16 < 8 ? 0 : 4) & 15;
    }

    static void decode_block(const uint8_t* block, float* out) {
        for (int i = 0; i < 64; i++) out[i] = half_scale(block[i / 16]) * float(kE2M1Values[code(block, i)]);
    }

    static void pack_block(const uint8_t* const* rows, uint8_t* tile) {
        std::memset(tile, 0, kTileBlockBytes);
        for (int r = 0; r < kTileRows; r++) {
            if (!rows[r]) continue;
            for (int s = 0; s < 4; s++) {
                const uint16_t bits = float_to_f16(half_scale(rows[r][s]));
                std::memcpy(tile + 32 * s + 2 * r, &bits, 2);
            }
            for (int i = 0; i < 64; i++) {
                uint8_t& to = tile[kCodes + size_t(256 * (i / 32) + 64 * (i % 16 / 4) + 4 * r + i % 4)];
                to = uint8_t(to | code(rows[r], i) << (i % 32 < 16 ? 0 : 4));
            }
        }
    }

    // acc += (d * s) * I for the sixteen columns whose weights in signed_form `weights(j)` gives for j < 4. `scale()` gives d:
    // after the products, which need all registers.
    template <int Half, int T, class Weights, class Scale>
    TL_INLINE static void dot_half(int part, const ActRows& x, Regs<const int8_t*, T>& a, Regs<F32, T>& acc,
                                   Weights weights, Scale scale) {
        Regs<I32, T> sums;
        clear(sums);
        if constexpr (kSignedOffset != 0) {
            const Bytes high = bset1(uint8_t(kSignedOffset));
            each(sums, a, [&](int, I32& v, const int8_t*& row) TL_LAMBDA {
                for_constants<4>([&]<int J>() TL_LAMBDA { dot4(v, high, row + 16 * Half + 4 * J); });
                v = izero() - v;
                asm("" : "+r"(row));  // or the compiler keeps all of these activations in registers for the products
            });
        }
        TL_UNROLL(4)
        for (int j = 0; j < 4; j++) {
            const Bytes w = weights(j);
            each(sums, a,
                 [&](int, I32& v, const int8_t*& row) TL_LAMBDA { dot4_signed(v, w, row + 16 * Half + 4 * j); });
        }
        const F32 d = scale();
        each(sums, acc, [&](int t, I32& i, F32& f) TL_LAMBDA { f = fma(d * set1(x.scale(t)[part]), to_float(i), f); });
    }

    template <int T>
    TL_INLINE static void dot(const uint8_t* tile, int b, const ActRows& x, Regs<F32, T>& acc) {
        Regs<const int8_t*, T> a = columns<T>(x, 64 * b);
        const Table table = load_table(kE2M1Values);
        stream_line<T>(tile);
        stream_line<T>(tile + 64);
        TL_UNROLL(1)
        for (int part = 0; part < 2; part++) {
            const uint8_t* planes = tile + kCodes + kCodeBytes * size_t(part);
            for_constants<2>([&]<int Half>() TL_LAMBDA {
                dot_half<Half, T>(
                    2 * b + part, x, a, acc,
                    [&](int j) TL_LAMBDA {
                        const Bytes v = Half ? bshift_right<4>(bload(planes + 64 * j)) : stream<T>(planes + 64 * j);
                        return lookup(table, v & bset1(0x0f));
                    },
                    [&]() TL_LAMBDA { return load_f16((const uint16_t*)(tile + 32 * (2 * part + Half))); });
            });
            each(a, [](int, const int8_t*& row) TL_LAMBDA { row += 32; });
        }
    }

    struct alignas(64) Panel {
        uint8_t q[16][64];  // [column group of 4][row, column], in signed_form
        float d[4][16];
    };

    TL_INLINE static void unpack(const uint8_t* tile, Panel& p) {
        const Table table = load_table(kE2M1Values);
        for (int s = 0; s < 4; s++) store(p.d[s], load_f16((const uint16_t*)(tile + 32 * s)));
        for (int part = 0; part < 2; part++) {
            for_codes<0>(tile + kCodes + kCodeBytes * size_t(part), table,
                         [&](int g, Bytes w) TL_LAMBDA { bstore(p.q[8 * part + g], w); });
        }
    }

    template <int T>
    TL_INLINE static void panel_dot(const Panel& p, int b, const ActRows& x, Regs<F32, T>& acc) {
        Regs<const int8_t*, T> a = columns<T>(x, 64 * b);
        TL_UNROLL(1)
        for (int part = 0; part < 2; part++) {
            for_constants<2>([&]<int Half>() TL_LAMBDA {
                dot_half<Half, T>(
                    2 * b + part, x, a, acc, [&](int j) TL_LAMBDA { return bload(p.q[8 * part + 4 * Half + j]); },
                    [&]() TL_LAMBDA { return load(p.d[2 * part + Half]); });
            });
            each(a, [](int, const int8_t*& row) TL_LAMBDA { row += 32; });
        }
    }

    template <class Put> TL_INLINE static void widen(const Panel& p, Put put) {
        TL_UNROLL(1)
        for (int s = 0; s < 4; s++) {
            const F32 d = load(p.d[s]);
            widen_signed_groups(p.q, 4 * s, 4, [&](F32 value) TL_LAMBDA { return d * value; }, put);
        }
    }
};

}  // namespace tl::TL_LEVEL
