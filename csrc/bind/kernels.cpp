// `_core.kernels`: every kernel of a chosen level on NumPy arrays, for tests and benchmarks. The engine never comes
// here: it records a plan and runs whole steps (executor.cpp).
//
// Each function checks all sizes that its kernel trusts and raises ValueError.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <climits>
#include <cstring>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "core/cpu_features.h"
#include "core/page_pool.h"
#include "core/weights.h"
#include "cpu/dispatch.h"
#include "cpu/kernels.h"
#include "quants/grids.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace tl {
namespace {

template <class T, size_t Dims> using Array = nb::ndarray<T, nb::ndim<Dims>, nb::c_contig, nb::device::cpu>;
using Floats1 = Array<const float, 1>;
using Floats2 = Array<const float, 2>;
using Bytes1 = Array<const uint8_t, 1>;
using Bytes2 = Array<const uint8_t, 2>;
template <class T> using Result = nb::ndarray<nb::numpy, T, nb::c_contig>;

void require(bool condition, const std::string& message) {
    if (!condition) throw nb::value_error(message.c_str());
}

int checked_int(size_t n, const char* what) {
    require(n <= size_t(INT_MAX) / 64, std::string(what) + " is too large: " + std::to_string(n));
    return int(n);
}

// 64-byte aligned memory, zeroed.
class AlignedBytes {
 public:
    explicit AlignedBytes(size_t size) : size_(align_up(size ? size : 1, kRowAlignment)) {
        data_ = static_cast<uint8_t*>(::operator new(size_, std::align_val_t(kRowAlignment)));
        std::memset(data_, 0, size_);
    }
    AlignedBytes(AlignedBytes&& other) noexcept : data_(std::exchange(other.data_, nullptr)), size_(other.size_) {}
    AlignedBytes(const AlignedBytes&) = delete;
    AlignedBytes& operator=(const AlignedBytes&) = delete;
    ~AlignedBytes() {
        if (data_) ::operator delete(data_, std::align_val_t(kRowAlignment));
    }
    template <class T> T* as() { return reinterpret_cast<T*>(data_); }

 private:
    uint8_t* data_;
    size_t size_;
};

// A new NumPy array that owns the memory.
template <class T> Result<T> to_numpy(AlignedBytes bytes, std::vector<size_t> shape) {
    auto* owned = new AlignedBytes(std::move(bytes));
    nb::capsule owner(owned, [](void* p) noexcept { delete static_cast<AlignedBytes*>(p); });
    return Result<T>(owned->as<T>(), shape.size(), shape.data(), owner);
}

// ---- Names -----------------------------------------------------------------------------------------------------------

const Kernels& level_named(const std::string& level) {
    const Kernels* kernels = kernels_of_level(level);
    require(kernels, "level '" + level + "' is unknown or not available on this machine");
    return *kernels;
}

template <class E> struct Name {
    const char* name;
    E value;
};
constexpr Name<ActFormat> kActFormats[] = {{"f32", ActFormat::kF32},
                                           {"bf16", ActFormat::kBF16},
                                           {"int8x32", ActFormat::kInt8x32},
                                           {"int8x256", ActFormat::kInt8x256}};
constexpr Name<KvType> kKvTypes[] = {{"f32", KvType::kF32},
                                     {"f16", KvType::kF16},
                                     {"bf16", KvType::kBF16},
                                     {"q8_0", KvType::kQ8_0},
                                     {"q4_0", KvType::kQ4_0}};
constexpr Name<GluActivation> kActivations[] = {{"silu", GluActivation::kSilu},
                                                {"gelu_tanh", GluActivation::kGeluTanh},
                                                {"gelu", GluActivation::kGelu},
                                                {"swiglu_clamped", GluActivation::kSwigluClamped}};
constexpr Name<RopeLayout> kRopeLayouts[] = {{"interleaved", RopeLayout::kInterleaved}, {"half", RopeLayout::kHalf}};

template <class E, size_t N> E named(const Name<E> (&table)[N], const std::string& name) {
    std::string known;
    for (const Name<E>& entry : table) {
        if (name == entry.name) return entry.value;
        known += (known.empty() ? "" : ", ") + std::string(entry.name);
    }
    throw nb::value_error(("'" + name + "' is not one of: " + known).c_str());
}

template <class E, size_t N> const char* name_of(const Name<E> (&table)[N], E value) {
    for (const Name<E>& entry : table) {
        if (entry.value == value) return entry.name;
    }
    return "";
}

// ---- Activation rows ---------------------------------------------------------------------------------------------------

ActLayout act_layout(const std::string& format, size_t width) {
    const ActLayout layout{named(kActFormats, format), checked_int(width, "the row width")};
    require(width > 0, "a row needs at least one element");
    require(!layout.is_int8() || width % size_t(layout.block()) == 0, "width " + std::to_string(width) +
                                                                          " is not a multiple of the format's block " +
                                                                          std::to_string(layout.block()));
    return layout;
}

AlignedBytes act_rows(ActLayout layout, size_t num_rows) { return AlignedBytes(layout.row_bytes() * num_rows); }

Result<uint8_t> rows_to_numpy(AlignedBytes rows, ActLayout layout, size_t num_rows) {
    return to_numpy<uint8_t>(std::move(rows), {num_rows, layout.row_bytes()});
}

nb::dict row_layout(const std::string& format, size_t width) {
    const ActLayout layout = act_layout(format, width);
    nb::dict d;
    d["row_bytes"] = layout.row_bytes();
    if (layout.is_int8()) {
        d["block"] = layout.block();
        d["scale_offset"] = layout.scale_offset();
        d["sum32_offset"] = layout.sum32_offset();
        if (layout.format == ActFormat::kInt8x256) d["sum16_offset"] = layout.sum16_offset();
    }
    return d;
}

Result<uint8_t> convert_rows(const std::string& level, const Floats2& x, const std::string& format) {
    const ActLayout layout = act_layout(format, x.shape(1));
    AlignedBytes out = act_rows(layout, x.shape(0));
    level_named(level).convert_rows(x.data(), x.shape(1), checked_int(x.shape(0), "the number of rows"), layout,
                                    out.as<uint8_t>());
    return rows_to_numpy(std::move(out), layout, x.shape(0));
}

Result<uint8_t> rms_norm_rows(const std::string& level, const Floats2& x, const Floats1& weight, float eps,
                              const std::string& format) {
    require(weight.shape(0) == x.shape(1),
            "weight has " + std::to_string(weight.shape(0)) + " elements, a row has " + std::to_string(x.shape(1)));
    const ActLayout layout = act_layout(format, x.shape(1));
    AlignedBytes out = act_rows(layout, x.shape(0));
    level_named(level).rms_norm_rows(x.data(), x.shape(1), weight.data(), eps,
                                     checked_int(x.shape(0), "the number of rows"), layout, out.as<uint8_t>());
    return rows_to_numpy(std::move(out), layout, x.shape(0));
}

Result<uint8_t> layer_norm_rows(const std::string& level, const Floats2& x, const Floats1& weight,
                                const std::optional<Floats1>& bias, float eps, const std::string& format) {
    for (const Floats1* vector : {&weight, bias ? &*bias : &weight}) {
        require(vector->shape(0) == x.shape(1), "weight or bias has " + std::to_string(vector->shape(0)) +
                                                    " elements, a row has " + std::to_string(x.shape(1)));
    }
    const ActLayout layout = act_layout(format, x.shape(1));
    AlignedBytes out = act_rows(layout, x.shape(0));
    level_named(level).layer_norm_rows(x.data(), x.shape(1), weight.data(), bias ? bias->data() : nullptr, eps,
                                       checked_int(x.shape(0), "the number of rows"), layout, out.as<uint8_t>());
    return rows_to_numpy(std::move(out), layout, x.shape(0));
}

Result<uint8_t> glu_rows(const std::string& level, const std::string& activation, const Floats2& gate,
                         const Floats2& up, const std::string& format) {
    require(gate.shape(0) == up.shape(0) && gate.shape(1) == up.shape(1), "gate and up differ in shape");
    const ActLayout layout = act_layout(format, gate.shape(1));
    AlignedBytes out = act_rows(layout, gate.shape(0));
    level_named(level).glu_rows(named(kActivations, activation), gate.data(), up.data(), gate.shape(1),
                                checked_int(gate.shape(0), "the number of rows"), layout, out.as<uint8_t>());
    return rows_to_numpy(std::move(out), layout, gate.shape(0));
}

Result<float> add(const std::string& level, const Floats1& a, const Floats1& b) {
    require(a.shape(0) == b.shape(0), "a and b differ in size");
    AlignedBytes out(a.shape(0) * sizeof(float));
    level_named(level).add(a.data(), b.data(), out.as<float>(), a.shape(0));
    return to_numpy<float>(std::move(out), {a.shape(0)});
}

// The sum of weights[r] * rows[r], onto `residual` where it is given.
Result<float> combine(const std::string& level, const Floats2& rows, const Floats1& weights,
                      const std::optional<Floats1>& residual) {
    require(rows.shape(0) == weights.shape(0) && rows.shape(0) > 0 && rows.shape(0) <= 64, "1 to 64 rows and weights");
    require(!residual || residual->shape(0) == rows.shape(1), "residual and rows differ in width");
    const float* pointers[64];
    for (size_t r = 0; r < rows.shape(0); r++) pointers[r] = rows.data() + r * rows.shape(1);
    AlignedBytes out(rows.shape(1) * sizeof(float));
    if (residual) std::memcpy(out.as<float>(), residual->data(), rows.shape(1) * sizeof(float));
    level_named(level).combine(pointers, weights.data(), int(rows.shape(0)), residual.has_value(), out.as<float>(),
                               checked_int(rows.shape(1), "the width"));
    return to_numpy<float>(std::move(out), {rows.shape(1)});
}

// One row of heads (num_heads, head_dim), rotated into a new array.
Result<float> rope_row(const std::string& level, const Floats2& heads, const std::string& layout, const Floats1& cos,
                       const Floats1& sin) {
    const size_t pairs = cos.shape(0);
    require(sin.shape(0) == pairs, "cos and sin differ in size");
    require(2 * pairs <= heads.shape(1),
            std::to_string(pairs) + " pairs do not fit a head of " + std::to_string(heads.shape(1)) + " dimensions");
    AlignedBytes out(heads.size() * sizeof(float));
    std::memcpy(out.as<float>(), heads.data(), heads.size() * sizeof(float));
    level_named(level).rope_row(out.as<float>(), checked_int(heads.shape(0), "the number of heads"),
                                checked_int(heads.shape(1), "the head dimension"), named(kRopeLayouts, layout),
                                int(pairs), cos.data(), sin.data());
    return to_numpy<float>(std::move(out), {heads.shape(0), heads.shape(1)});
}

// ---- Attention ---------------------------------------------------------------------------------------------------------

KvLayout kv_layout_of(const std::string& k_type, const std::string& v_type, size_t num_kv_heads, size_t head_dim) {
    require(num_kv_heads > 0 && num_kv_heads <= 1024, "num_kv_heads must be 1 .. 1024");
    require(head_dim > 0 && head_dim <= 4096 && head_dim % 2 == 0, "head_dim must be even and at most 4096");
    return {named(kKvTypes, k_type), named(kKvTypes, v_type), int(num_kv_heads), int(head_dim)};
}

nb::dict kv_layout(const std::string& k_type, const std::string& v_type, size_t num_kv_heads, size_t head_dim) {
    const KvLayout layout = kv_layout_of(k_type, v_type, num_kv_heads, head_dim);
    nb::dict d;
    d["page_tokens"] = kPageTokens;
    d["page_bytes"] = PagePool::page_bytes({layout});
    d["layer_bytes"] = layout.layer_bytes();
    d["value_width"] = layout.value_width();
    d["k_head_bytes"] = layout.k_head_bytes();
    d["v_head_bytes"] = layout.v_head_bytes();
    return d;
}

// Writes keys and values (num_kv_heads, head_dim) of one token into a page of one layer, in place.
void kv_write(const std::string& level, const Floats2& k, const Floats2& v, const std::string& k_type,
              const std::string& v_type, int slot, const Array<uint8_t, 1>& page) {
    require(k.shape(0) == v.shape(0) && k.shape(1) == v.shape(1), "k and v differ in shape");
    require(slot >= 0 && slot < kPageTokens, "slot must be below " + std::to_string(kPageTokens));
    const KvLayout layout = kv_layout_of(k_type, v_type, k.shape(0), k.shape(1));
    const size_t page_bytes = PagePool::page_bytes({layout});
    require(page.shape(0) == page_bytes,
            "a page has " + std::to_string(page_bytes) + " bytes, not " + std::to_string(page.shape(0)));
    level_named(level).kv_write(k.data(), v.data(), layout, slot, 0, layout.num_kv_heads, page.data());
}

// Where it is not null, one number for each query head.
const float* per_head(const std::optional<Floats1>& values, size_t num_heads, const char* name) {
    if (!values) return nullptr;
    require(values->shape(0) == num_heads, std::string(name) + " needs one number for each query head");
    return values->data();
}

// All ranges of a call, each by itself, then their folding.
void attention_by_ranges(const Kernels& kernels, AttentionArgs args, float* partials) {
    const int begin = args.range_begin, end = args.range_end;
    for (int range = end - 1; range >= begin; range--) {  // in any order
        args.range_begin = range, args.range_end = range + 1;
        args.partials = partials + (range - begin) * args.partial_stride;
        kernels.attention(args);
    }
    args.range_begin = begin, args.range_end = end;
    args.partials = partials;
    kernels.attention_merge(args);
}

// All heads of query rows row_begin .. row_end - 1 of a run, in calls of at most rows_per_call rows, by_ranges: every
// range of positions in a call of its own. q (rows, num_heads, head_dim) with row 0 at first_position; pages
// (n, page_bytes) of one layer. Rows that are not computed come back as NaN.
Result<float> attention(const std::string& level, const Array<const float, 3>& q, const Bytes2& pages,
                        const Array<const int32_t, 1>& page_ids, const std::string& k_type, const std::string& v_type,
                        size_t num_kv_heads, int first_position, float scale, int window, int row_begin, int row_end,
                        int rows_per_call, bool by_ranges, float softcap, const std::optional<Floats1>& slopes,
                        const std::optional<Floats1>& sinks, bool causal) {
    const Kernels& kernels = level_named(level);
    const int num_rows = checked_int(q.shape(0), "the number of rows");
    const size_t num_heads = q.shape(1), head_dim = q.shape(2);
    const KvLayout layout = kv_layout_of(k_type, v_type, num_kv_heads, head_dim);
    require(num_heads > 0 && num_heads <= 4096 && num_heads % num_kv_heads == 0,
            "the number of query heads must be a multiple of num_kv_heads");
    require(row_begin >= 0 && row_begin <= row_end && row_end <= num_rows, "rows out of range");
    require(rows_per_call > 0 && rows_per_call <= kAttentionRows,
            "rows_per_call must be 1 .. " + std::to_string(kAttentionRows));
    require(window >= 0, "window must not be negative");
    require(first_position >= 0 && first_position < (1 << 26), "first_position out of range");
    const size_t page_bytes = PagePool::page_bytes({layout});
    require(pages.shape(1) == page_bytes, "a page has " + std::to_string(page_bytes) + " bytes");
    const int num_positions = first_position + (causal ? row_end : num_rows);
    require(size_t(num_positions + kPageTokens - 1) / kPageTokens <= page_ids.shape(0),
            "page_ids does not cover the last position");
    for (size_t i = 0; i < page_ids.shape(0); i++) {
        require(page_ids.data()[i] >= 0 && size_t(page_ids.data()[i]) < pages.shape(0), "page id out of range");
    }

    const int group = int(num_heads / num_kv_heads);
    AlignedBytes out(q.size() * sizeof(float));
    std::memset(out.as<uint8_t>(), 0xff, q.size() * sizeof(float));
    AlignedBytes scratch(kernels.attention_scratch_bytes(layout, group));
    AttentionArgs args{};
    args.q = q.data();
    args.q_stride = args.out_stride = num_heads * head_dim;
    args.out = out.as<float>();
    args.pages = pages.data();
    args.page_bytes = page_bytes;
    args.page_ids = page_ids.data();
    args.first_position = first_position;
    args.group = group;
    args.layout = &layout;
    args.scale = scale;
    args.window = window;
    args.num_keys = causal ? 0 : num_positions;
    args.softcap = softcap;
    args.slopes = per_head(slopes, num_heads, "slopes");
    args.sinks = per_head(sinks, num_heads, "sinks");
    args.partial_stride = attention_partial_floats(layout, kAttentionRows * group);
    args.scratch = scratch.as<uint8_t>();
    const size_t num_ranges = size_t(num_positions) / kAttentionRange + 1;
    AlignedBytes partials(by_ranges ? num_ranges * args.partial_stride * sizeof(float) : kRowAlignment);
    for (int row = row_begin; row < row_end; row += rows_per_call) {
        args.row_begin = row;
        args.row_end = row_end - row < rows_per_call ? row_end : row + rows_per_call;
        const int first = first_position + row, visible = window > 0 && first >= window ? first - window + 1 : 0;
        args.range_begin = visible / kAttentionRange;
        args.range_end = ((causal ? first_position + args.row_end : num_positions) - 1) / kAttentionRange + 1;
        for (args.kv_head = 0; args.kv_head < int(num_kv_heads); args.kv_head++) {
            by_ranges ? attention_by_ranges(kernels, args, partials.as<float>()) : kernels.attention(args);
        }
    }
    return to_numpy<float>(std::move(out), {q.shape(0), num_heads, head_dim});
}

// ---- Weight formats ----------------------------------------------------------------------------------------------------

constexpr Name<Precision> kPrecisions[] = {
    {"int8", Precision::kInt8}, {"bf16", Precision::kBF16}, {"f32", Precision::kF32}};

const FormatKernels& format_of(const Kernels& kernels, int gguf_type, const std::string& activations = "int8") {
    const FormatKernels* format = find_format(kernels, gguf_type, named(kPrecisions, activations));
    if (format) return *format;
    throw nb::value_error(("no kernels for GGUF tensor type " + std::to_string(gguf_type)).c_str());
}

// A codebook of quants/grids.h.
std::vector<uint16_t> grid(const std::string& name) {
    if (name == "IQ1") return {std::begin(kGridIq1), std::end(kGridIq1)};
    if (name == "IQ2_XXS") return {std::begin(kGridIq2Xxs), std::end(kGridIq2Xxs)};
    if (name == "IQ2_XS") return {std::begin(kGridIq2Xs), std::end(kGridIq2Xs)};
    if (name == "IQ2_S") return {std::begin(kGridIq2S), std::end(kGridIq2S)};
    if (name == "IQ3_XXS") return {std::begin(kGridIq3Xxs), std::end(kGridIq3Xxs)};
    if (name == "IQ3_S") return {std::begin(kGridIq3S), std::end(kGridIq3S)};
    throw nb::value_error(("no codebook is called " + name).c_str());
}

// Elements of a row of that many bytes in the file.
int row_elements(const FormatKernels& format, size_t row_bytes) {
    require(row_bytes > 0 && row_bytes % format.block_bytes == 0, "a row of " + std::to_string(row_bytes) +
                                                                      " bytes is not whole blocks of " +
                                                                      std::to_string(format.block_bytes));
    return checked_int(row_bytes / format.block_bytes * size_t(format.block), "the row width");
}

nb::list formats(const std::string& level, const std::string& activations) {
    const Kernels& kernels = level_named(level);
    nb::list result;
    for (int i = 0; i < kernels.num_formats; i++) {
        const FormatKernels& f = kernels.formats[int(named(kPrecisions, activations))][i];
        nb::dict d;
        d["gguf_type"] = f.gguf_type;
        d["block"] = f.block;
        d["block_bytes"] = f.block_bytes;
        d["activations"] = name_of(kActFormats, f.activations);
        d["has_fast"] = f.activations == ActFormat::kInt8x256 && find_fast(kernels, f.gguf_type) != nullptr;
        result.append(d);
    }
    return result;
}

Result<float> decode_row(const std::string& level, int gguf_type, const Bytes1& row) {
    const FormatKernels& format = format_of(level_named(level), gguf_type);
    const int n = row_elements(format, row.shape(0));
    AlignedBytes out(size_t(n) * sizeof(float));
    format.decode_row(row.data(), n, out.as<float>());
    return to_numpy<float>(std::move(out), {size_t(n)});
}

// Rows of a weight matrix as in the file (num_rows, row_bytes) -> packed tiles (num_tiles, tile_bytes).
Result<uint8_t> pack(const std::string& level, int gguf_type, const Bytes2& rows) {
    const FormatKernels& format = format_of(level_named(level), gguf_type);
    const int k = row_elements(format, rows.shape(1));
    const size_t num_rows = rows.shape(0), num_tiles = (num_rows + kTileRows - 1) / kTileRows;
    const size_t tile_bytes = format.tile_bytes(k);
    AlignedBytes out(tile_bytes * num_tiles);
    for (size_t tile = 0; tile < num_tiles; tile++) {
        const uint8_t* sources[kTileRows];
        for (size_t i = 0; i < kTileRows; i++) {
            const size_t row = tile * kTileRows + i;
            sources[i] = row < num_rows ? rows.data() + row * rows.shape(1) : nullptr;
        }
        format.pack(sources, k, out.as<uint8_t>() + tile * tile_bytes);
    }
    return to_numpy<uint8_t>(std::move(out), {num_tiles, tile_bytes});
}

// out (tokens, num_rows) = x W^T (+ bias) (+ residual). tiles from pack(); x are activation rows of the format's
// kind for num_inputs elements, from convert_rows(). Computes tiles tile_begin .. tile_end - 1 (-1: all); rows of
// other tiles come back as the residual, or zero.
Result<float> matmul(const std::string& level, int gguf_type, const Bytes2& tiles, size_t num_inputs, size_t num_rows,
                     const Bytes2& x, const std::optional<Floats1>& bias, const std::optional<Floats2>& residual,
                     int tile_begin, int tile_end, const std::string& activations, bool fast) {
    const Kernels& kernels = level_named(level);
    const FormatKernels& format = format_of(kernels, gguf_type, activations);
    require(num_inputs > 0 && num_inputs % size_t(format.block) == 0, "num_inputs is not a multiple of the block");
    const int k = checked_int(num_inputs, "num_inputs"), n = checked_int(num_rows, "num_rows");
    const size_t num_tokens = x.shape(0);
    if (tile_end < 0) tile_end = int(tiles.shape(0));
    require(tiles.shape(0) == (num_rows + kTileRows - 1) / kTileRows, "the tiles do not match num_rows");
    require(tiles.shape(1) == format.tile_bytes(k), "the tiles do not match num_inputs");
    require(x.shape(1) == ActLayout{format.activations, k}.row_bytes(), "x is not in the format's activation layout");
    require(!bias || bias->shape(0) == num_rows, "bias does not match num_rows");
    require(!residual || (residual->shape(0) == num_tokens && residual->shape(1) == num_rows),
            "residual does not match the output");
    require(tile_begin >= 0 && tile_begin <= tile_end && size_t(tile_end) <= tiles.shape(0), "tiles out of range");

    AlignedBytes out(num_tokens * num_rows * sizeof(float));
    if (residual) std::memcpy(out.as<float>(), residual->data(), num_tokens * num_rows * sizeof(float));
    const FastKernels* products = fast ? find_fast(kernels, gguf_type) : nullptr;
    require(!fast || (products && format.activations == ActFormat::kInt8x256), "no fast products of this type");
    AlignedBytes scratch(products ? products->scratch_bytes : format.matmul_scratch_bytes(k));
    MatmulArgs args{tiles.data(),
                    tiles.shape(1),
                    k,
                    n,
                    x.data(),
                    x.shape(1),
                    checked_int(num_tokens, "the number of tokens"),
                    out.as<float>(),
                    num_rows,
                    bias ? bias->data() : nullptr,
                    residual.has_value()};
    const InterleavedLayout interleaved{{format.activations, k}};
    args.interleaved = kernels.interleaves && num_tokens >= kInterleavedRows && interleaved.is_possible();
    AlignedBytes rows(args.interleaved ? align_up(num_tokens, kInterleavedRows) * x.shape(1) : 0);
    if (args.interleaved) {
        args.x = rows.as<uint8_t>();
        for (size_t t = 0; t < num_tokens; t++) {
            interleaved.put(interleaved.row, x.data() + t * x.shape(1), 0, int(t % kInterleavedRows),
                            rows.as<uint8_t>() + t / kInterleavedRows * kInterleavedRows * x.shape(1));
        }
    }
    (fast ? products->matmul : format.matmul)(args, tile_begin, tile_end, scratch.as<uint8_t>());
    return to_numpy<float>(std::move(out), {num_tokens, num_rows});
}

}  // namespace

void bind_kernels(nb::module_& core) {
    nb::module_ m = core.def_submodule("kernels", "Single kernels of a chosen level, for tests and benchmarks.");
    m.def("levels", &available_levels);
    m.def("grid", &grid, "name"_a);
    m.def("row_layout", &row_layout, "format"_a, "width"_a);
    m.def("convert_rows", &convert_rows, "level"_a, "x"_a, "format"_a);
    m.def("rms_norm_rows", &rms_norm_rows, "level"_a, "x"_a, "weight"_a, "eps"_a, "format"_a);
    m.def("layer_norm_rows", &layer_norm_rows, "level"_a, "x"_a, "weight"_a, "bias"_a.none(), "eps"_a, "format"_a);
    m.def("glu_rows", &glu_rows, "level"_a, "activation"_a, "gate"_a, "up"_a, "format"_a);
    m.def("add", &add, "level"_a, "a"_a, "b"_a);
    m.def("combine", &combine, "level"_a, "rows"_a, "weights"_a, "residual"_a.none() = nb::none());
    m.def("rope_row", &rope_row, "level"_a, "heads"_a, "layout"_a, "cos"_a, "sin"_a);
    m.def("kv_layout", &kv_layout, "k_type"_a, "v_type"_a, "num_kv_heads"_a, "head_dim"_a);
    m.def("kv_write", &kv_write, "level"_a, "k"_a, "v"_a, "k_type"_a, "v_type"_a, "slot"_a, "page"_a);
    m.def("attention", &attention, "level"_a, "q"_a, "pages"_a, "page_ids"_a, "k_type"_a, "v_type"_a, "num_kv_heads"_a,
          "first_position"_a, "scale"_a, "window"_a, "row_begin"_a, "row_end"_a, "rows_per_call"_a,
          "by_ranges"_a = false, "softcap"_a = 0.0f, "slopes"_a.none() = nb::none(), "sinks"_a.none() = nb::none(),
          "causal"_a = true);
    m.def("formats", &formats, "level"_a, "activations"_a = "int8");
    m.def("decode_row", &decode_row, "level"_a, "gguf_type"_a, "row"_a);
    m.def("pack", &pack, "level"_a, "gguf_type"_a, "rows"_a);
    m.def("matmul", &matmul, "level"_a, "gguf_type"_a, "tiles"_a, "num_inputs"_a, "num_rows"_a, "x"_a,
          "bias"_a.none() = nb::none(), "residual"_a.none() = nb::none(), "tile_begin"_a = 0, "tile_end"_a = -1,
          "activations"_a = "int8", "fast"_a = false);
}

}  // namespace tl
