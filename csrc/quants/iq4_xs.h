// IQ4_XS: 4-bit codes of a table of 16 uneven steps in super-blocks of 256 with 6-bit scales per 32. 4.25 bits per
// weight.
//
// In the file a block is 136 bytes: d (f16), high (16 bits), low[4], codes[128]. Sub-block s (32 elements, codes 16s ..
// 16s + 15, see codes.h) has the 6-bit scale sc = nibble s of low | bits 2s and 2s + 1 of high << 4; an element is
// d * (sc - 32) * kIq4Values[code].
//
// Packed, a block of 16 rows is the same 16 * 136 = 2176 bytes:
//   d[16] f16 | high[32] | low[64] | the planes of codes.h of each sub-block [8][256]
//   low byte 4r + i: low nibble = low 4 bits of sc of (sub-block kOrder[i], row r), high nibble: sub-block 4 + kOrder[i]
//   high byte p: the two top bits of: low nibble 2p, low nibble 2p + 1, high nibble 2p, high nibble 2p + 1
// kOrder = 0 2 1 3, so that the even bytes of a lane are the scales of sub-blocks 0 and 1, the odd ones of 2 and 3.
//
// Arithmetic per 256 elements and (row, token), a = int8 activations with scale s:
//   I = sum over sub-blocks (sc - 32) * (w . a)   exact int32, |I| <= 256 * 32 * 127 * 127 = 1.3e8
//   acc += (d * s) * I
// Where weights are held 128 too high, I starts at -128 times the sum of (sc - 32) * sum(a).
#pragma once

#include "quants/codes.h"

namespace tl::TL_LEVEL {

struct IQ4XS {
    static constexpr int kType = 23;
    static constexpr int kBlock = 256;
    static constexpr size_t kBlockBytes = 136;
    static constexpr size_t kTileBlockBytes = 2176;
    static constexpr ActFormat kActivations = ActFormat::kInt8x256;
    static_assert(kTileBlockBytes == kTileRows * kBlockBytes);

    static constexpr size_t kHigh = 32, kLow = 64, kCodes = 128;  // offsets in a packed block

    static int scale(const uint8_t* block, int s) {
        const int high = block[2] | block[3] << 8;
        return (block[4 + s / 2] >> (4 * (s % 2)) & 15) | (high >> (2 * s) & 3) << 4;
    }

    static void decode_block(const uint8_t* block, float* out) {
        const float d = read_f16(block);
        for (int s = 0; s < 8; s++) {
            decode_codes(block + 8 + 16 * s, d * float(scale(block, s) - 32), kIq4Values, out + 32 * s);
        }
    }

    static void pack_scales(const uint8_t* const* rows, uint8_t* tile) {
        constexpr int kOrder[4] = {0, 2, 1, 3};
        std::memset(tile + kHigh, 0, 32 + 64);
        for (int p = 0; p < 64; p++) {
            const uint8_t* block = rows[p / 4];
            for (int h = 0; h < 2 && block; h++) {
                const int sc = scale(block, 4 * h + kOrder[p % 4]);
                tile[kLow + p] = uint8_t(tile[kLow + p] | (sc & 15) << (4 * h));
                tile[kHigh + p / 2] = uint8_t(tile[kHigh + p / 2] | (sc >> 4) << (4 * h + 2 * (p % 2)));
            }
        }
    }

    static void pack_block(const uint8_t* const* rows, uint8_t* tile) {
        interleave2(rows, 0, tile);
        pack_scales(rows, tile);
        for (int j = 0; j < 32; j++) interleave4(rows, 8 + 4 * j, tile + kCodes + 64 * j);
    }

    // The scales of four sub-blocks, and of the other four after next().
    struct Scales {
        Bytes low, high;

        TL_INLINE explicit Scales(const uint8_t* tile) : low(bload(tile + kLow)), high(widen_u8(tile + kHigh)) {}

        // sc - 32 of sub-blocks 2 P and 2 P + 1 as int16 halves of each row's lane.
        template <int P> TL_INLINE Bytes pair() const {
            const Bytes tops = bshift_left<4>(high) | bshift_left<10>(high);
            const Bytes sc = (low & bset1(0x0f)) | (tops & bset1(0x30));
            return add16(P ? odd_bytes(sc) : even_bytes(sc), set16(-32));
        }
        TL_INLINE void next() {
            low = bshift_right<4>(low);
            high = bshift_right<4>(high);
        }
    };

    // sums += (the two scales) * (what the offset of the weights takes away); see kSignedOffset.
    template <int T>
    TL_INLINE static void add_offset(Bytes pair, int b, int pair_index, const ActRows& x, Regs<I32, T>& sums) {
        if constexpr (kSignedOffset != 0) {
            const Bytes offset = multiply16(pair, set16(-kSignedOffset));
            each(sums, [&](int t, I32& v) TL_LAMBDA { dot2(v, offset, x.sum32<int16_t>(t) + 8 * b + 2 * pair_index); });
        }
    }

    template <int T> TL_INLINE static void add_scaled(Regs<I32, T>& part, I32 sc, Regs<I32, T>& sums) {
        each(sums, part, [&](int, I32& i, I32& v) TL_LAMBDA {
            i = i + v * sc;
            settle(i);
        });
    }

    template <int T>
    TL_INLINE static void finish(F32 d, Regs<I32, T>& sums, int b, const ActRows& x, Regs<F32, T>& acc) {
        each(sums, acc, [&](int t, I32& i, F32& f) TL_LAMBDA { f = fma(d * set1(x.scale(t)[b]), to_float(i), f); });
    }

    // Per sub-block: 4 planes of codes.h and T integer multiply-adds; per pair, the scales.
    template <int T>
    TL_INLINE static void dot(const uint8_t* tile, int b, const ActRows& x, Regs<F32, T>& acc) {
        Regs<const int8_t*, T> a = columns<T>(x, 256 * b);
        const Table table = load_table(kIq4Values);
        Regs<I32, T> sums;
        clear(sums);
        stream_line<T>(tile);
        stream_line<T>(tile + kLow);
        Scales scales(tile);
        const uint8_t* codes = tile + kCodes;
        const int end = opaque(4);
        int first = 0;
        do {
            for_constants<2>([&]<int P>() TL_LAMBDA {
                const Bytes pair = scales.pair<P>();
                add_offset<T>(pair, b, first + P, x, sums);
                for_constants<2>([&]<int S>() TL_LAMBDA {
                    Regs<I32, T> part;
                    clear(part);
                    for_codes<T>(codes + kCodeBytes * (2 * P + S), table, [&](int g, Bytes w) TL_LAMBDA {
                        each(part, a, [&](int, I32& v, const int8_t*& row) TL_LAMBDA {
                            dot4_signed(v, w, row + 64 * P + 32 * S + 4 * g);
                        });
                    });
                    add_scaled<T>(part, S ? high_halves(pair) : low_halves(pair), sums);
                });
            });
            each(a, [](int, const int8_t*& row) TL_LAMBDA { row += 128; });
            codes += 4 * kCodeBytes;
            scales.next();
        } while ((first += 2) < end);
        finish<T>(load_f16((const uint16_t*)tile), sums, b, x, acc);
    }

    struct alignas(64) Panel {
        uint8_t q[64][64];     // [column group of 4][row, column]
        uint8_t pairs[4][64];  // [pair of sub-blocks][row, 2] as int16: sc - 32
        float d[16];
    };

    TL_INLINE static void unpack(const uint8_t* tile, Panel& p) {
        const Table table = load_table(kIq4Values);
        store(p.d, load_f16((const uint16_t*)tile));
        Scales scales(tile);
        for (int i = 0; i < 4; i += 2) {
            bstore(p.pairs[i], scales.pair<0>());
            bstore(p.pairs[i + 1], scales.pair<1>());
            scales.next();
        }
        TL_UNROLL(1)
        for (int s = 0; s < 8; s++) {
            for_codes<0>(tile + kCodes + kCodeBytes * s, table,
                         [&](int g, Bytes w) TL_LAMBDA { bstore(p.q[8 * s + g], w); });
        }
    }

    template <int T>
    TL_INLINE static void panel_dot(const Panel& p, int b, const ActRows& x, Regs<F32, T>& acc) {
        Regs<const int8_t*, T> a = columns<T>(x, 256 * b);
        Regs<I32, T> sums;
        clear(sums);
        TL_UNROLL(1)
        for (int pair_index = 0; pair_index < 4; pair_index++) {
            const Bytes pair = bload(p.pairs[pair_index]);
            add_offset<T>(pair, b, pair_index, x, sums);
            for_constants<2>([&]<int S>() TL_LAMBDA {
                Regs<I32, T> part;
                clear(part);
                TL_UNROLL(8)
                for (int g = 0; g < 8; g++) {
                    const Bytes w = bload(p.q[16 * pair_index + 8 * S + g]);
                    each(part, a,
                         [&](int, I32& v, const int8_t*& row) TL_LAMBDA { dot4_signed(v, w, row + 32 * S + 4 * g); });
                }
                add_scaled<T>(part, S ? high_halves(pair) : low_halves(pair), sums);
            });
            each(a, [](int, const int8_t*& row) TL_LAMBDA { row += 64; });
        }
        finish<T>(load(p.d), sums, b, x, acc);
    }

    template <class Put> TL_INLINE static void widen(const Panel& p, Put put) {
        const F32 d = load(p.d);
        TL_UNROLL(1)
        for (int s = 0; s < 8; s++) {
            const Bytes pair = bload(p.pairs[s / 2]);
            const F32 scale = d * to_float(s % 2 ? high_halves(pair) : low_halves(pair));
            widen_signed_groups(p.q, 8 * s, 8, [&](F32 value) TL_LAMBDA { return scale * value; }, put);
        }
    }
};

}  // namespace tl::TL_LEVEL
