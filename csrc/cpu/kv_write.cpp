// Writes one token's keys and values into its page (layout: core/kv_layout.h), rounded to nearest even.
//
// A key goes into one lane of its group of 16: head_dim stores, 16 elements apart. A value is one contiguous row, padded
// with zeros. Only the bytes of this slot are written, so tokens of one page may be written at the same time.
//
// A block of 32 elements becomes whole numbers and a scale d, rounded to float16 before anything is divided by it:
//
//   q8_0   d = max |x| / 127             q = round(x / d), -127 .. 127
//   q4_0   d = (x of largest |x|) / -8   q = round(x / d), -8 .. 7: the largest becomes exactly -8 d
//
// A block of zeros has d = 0 and q = 0. If an element is not a number, d is not either.
#include <type_traits>

#include "cpu/act_row.h"
#include "cpu/level.h"

namespace tl::TL_LEVEL {
namespace {

template <KvType type> using KvElement = std::conditional_t<type == KvType::kF32, float, uint16_t>;

// Rounds to nearest even.
template <KvType type> TL_INLINE void store_kv(KvElement<type>* p, F32 a) {
    if constexpr (type == KvType::kF32) store(p, a);
    if constexpr (type == KvType::kF16) store_f16(p, a);
    if constexpr (type == KvType::kBF16) store_bf16(p, a);
}

constexpr int min_int(int a, int b) { return a < b ? a : b; }

// ---- Floating-point types ----------------------------------------------------------------------------------------------

template <KvType type> void write_key(const float* k, const KvLayout& layout, int slot, uint8_t* page_keys) {
    using E = KvElement<type>;
    E* lane = reinterpret_cast<E*>(page_keys) + size_t(slot / kLanes) * layout.head_dim * kLanes + slot % kLanes;
    for (int d = 0; d < layout.head_dim; d += kLanes) {
        const int n = min_int(layout.head_dim - d, kLanes);
        E rounded[kLanes];
        store_kv<type>(rounded, load_up_to(n, k + d));
        for (int i = 0; i < n; i++) lane[size_t(d + i) * kLanes] = rounded[i];
    }
}

// The row is padded to whole vectors with zeros.
template <KvType type> void write_value(const float* v, const KvLayout& layout, int slot, uint8_t* page_values) {
    using E = KvElement<type>;
    E* row = reinterpret_cast<E*>(page_values) + size_t(slot) * layout.value_width();
    for (int d = 0; d < layout.head_dim; d += kLanes) {
        store_kv<type>(row + d, load_up_to(min_int(layout.head_dim - d, kLanes), v + d));
    }
}

// ---- Types with scales -------------------------------------------------------------------------------------------------

// 32 elements as whole numbers; those beyond the head's end are zero.
struct QuantBlock {
    uint16_t scale;
    int8_t q[kKvBlock];
};

template <KvType type> QuantBlock quantise(const float* x, int n) {
    const F32 a = load_up_to(min_int(n, kLanes), x);
    const F32 b = n > kLanes ? load_up_to(min_int(n - kLanes, kLanes), x + kLanes) : zero();
    const float highest = reduce_max(max(a, b)), lowest = -reduce_max(max(zero() - a, zero() - b));
    const bool is_nan = any_nan(a) || any_nan(b);
    const float extreme = highest >= -lowest ? highest : lowest;
    const float wanted = type == KvType::kQ8_0 ? (extreme < 0 ? -extreme : extreme) / 127.0f : extreme / -8.0f;
    QuantBlock block{};
    uint16_t scales[kLanes];
    store_f16(scales, set1(is_nan ? __builtin_nanf("") : wanted));
    block.scale = scales[0];
    const F32 scale = load_f16(scales);
    float d[kLanes];
    store(d, scale);
    if (d[0] == 0.0f) return block;  // every lane of the scale is the same
    const F32 low = set1(type == KvType::kQ8_0 ? -127.0f : -8.0f), high = set1(type == KvType::kQ8_0 ? 127.0f : 7.0f);
    store_i8(block.q, to_int(max(low, min(high, a / scale))));
    store_i8(block.q + kLanes, to_int(max(low, min(high, b / scale))));
    return block;
}

uint8_t packed(const QuantBlock& block, int j) { return uint8_t((block.q[j] + 8) | (block.q[j + kLanes] + 8) << 4); }

template <KvType type> void write_quant_key(const float* k, const KvLayout& layout, int slot, uint8_t* page_keys) {
    const int group = slot / kLanes, lane = slot % kLanes, blocks = kv_blocks(layout.head_dim);
    uint16_t* scales = reinterpret_cast<uint16_t*>(page_keys + layout.k_data_bytes()) + group * blocks * kLanes + lane;
    for (int b = 0; b < blocks; b++) {
        const int n = min_int(layout.head_dim - b * kKvBlock, kKvBlock);
        const QuantBlock block = quantise<type>(k + b * kKvBlock, n);
        scales[b * kLanes] = block.scale;
        if constexpr (type == KvType::kQ8_0) {
            uint8_t* to = page_keys + (size_t(group) * layout.head_dim + b * kKvBlock) * kLanes + lane;
            for (int i = 0; i < n; i++) to[i * kLanes] = uint8_t(block.q[i]);
        } else {
            uint8_t* to = page_keys + (size_t(group) * blocks + b) * kLanes * kLanes + lane;
            for (int j = 0; j < kLanes; j++) to[j * kLanes] = packed(block, j);
        }
    }
}

template <KvType type> void write_quant_value(const float* v, const KvLayout& layout, int slot, uint8_t* page_values) {
    const int blocks = kv_blocks(layout.head_dim), width = layout.value_width();
    uint16_t* scales = reinterpret_cast<uint16_t*>(page_values + layout.v_data_bytes()) + slot;
    uint8_t* row = page_values + slot * kv_row_bytes(type, width);
    for (int b = 0; b < blocks; b++) {
        const QuantBlock block = quantise<type>(v + b * kKvBlock, min_int(layout.head_dim - b * kKvBlock, kKvBlock));
        scales[b * kPageTokens] = block.scale;
        if constexpr (type == KvType::kQ8_0) {
            const int n = min_int(width - b * kKvBlock, kKvBlock);
            for (int i = 0; i < n; i++) row[b * kKvBlock + i] = uint8_t(block.q[i]);
        } else {
            for (int j = 0; j < kLanes; j++) row[b * kLanes + j] = packed(block, j);
        }
    }
}

// ---- The token ---------------------------------------------------------------------------------------------------------

using Write = void (*)(const float*, const KvLayout&, int, uint8_t*);
constexpr Write kWriteKey[] = {write_key<KvType::kF32>, write_key<KvType::kF16>, write_key<KvType::kBF16>,
                               write_quant_key<KvType::kQ8_0>, write_quant_key<KvType::kQ4_0>};
constexpr Write kWriteValue[] = {write_value<KvType::kF32>, write_value<KvType::kF16>, write_value<KvType::kBF16>,
                                 write_quant_value<KvType::kQ8_0>, write_quant_value<KvType::kQ4_0>};

}  // namespace

void kv_write(const float* k, const float* v, const KvLayout& layout, int slot, int head_begin, int head_end,
              uint8_t* page) {
    for (int h = head_begin; h < head_end; h++) {
        const size_t head = size_t(h) * layout.head_dim;
        kWriteKey[int(layout.k_type)](k + head, layout, slot, page + layout.k_offset(h));
        kWriteValue[int(layout.v_type)](v + head, layout, slot, page + layout.v_offset(h));
    }
}

}  // namespace tl::TL_LEVEL
