// Binds what Python must know before it builds an executor: the formats, and the sizes of all that a plan will take.
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <tuple>

#include "bind/py_executor.h"
#include "core/mapped.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace {

const char* act_format_name(tl::ActFormat format) {
    switch (format) {
        case tl::ActFormat::kF32:
            return "f32";
        case tl::ActFormat::kBF16:
            return "bf16";
        case tl::ActFormat::kInt8x32:
            return "int8x32";
        case tl::ActFormat::kInt8x256:
            return "int8x256";
    }
    return "";
}

// GGUF type, columns, is mapped
using MatrixKind = std::tuple<int, int, bool>;

}  // namespace

namespace tl {

void bind_sizes(nb::module_& m) {
    m.def(
        "formats",
        [](const std::string& activations) {
            std::vector<std::tuple<int, int, size_t, std::string>> formats;
            const tl::Kernels& kernels = tl::active_kernels();
            for (int i = 0; i < kernels.num_formats; i++) {
                const tl::FormatKernels& f = kernels.formats[int(precision_named(activations))][i];
                formats.emplace_back(f.gguf_type, f.block, f.block_bytes, act_format_name(f.activations));
            }
            return formats;
        },
        "activations"_a = "int8",
        "Weight formats with kernels: (GGUF type id, block elements, block bytes, activation format).");
    m.def(
        "fast_types",
        [] {
            const tl::Kernels& kernels = tl::active_kernels();
            std::vector<int> types;
            for (int i = 0; i < kernels.num_fast; i++) types.push_back(kernels.fast[i].gguf_type);
            return types;
        },
        "GGUF type ids of the weights that have products in fast mode.");
    m.def(
        "packed_bytes",
        [](int type, int rows, int columns) {
            return tl::Weights::packed_bytes(tl::active_kernels(), type, rows, columns);
        },
        "type"_a, "rows"_a, "columns"_a, "Bytes of a weight matrix once packed.");
    m.def(
        "thread_scratch_bytes",
        [](const std::vector<MatrixKind>& matrices, const std::string& k_type, const std::string& v_type,
           const std::vector<std::tuple<int, int, int>>& attentions, const std::string& activations, bool fast) {
            const tl::Kernels& kernels = tl::active_kernels();
            size_t bytes = tl::kRowAlignment;
            for (const auto& [kv_heads, head_dim, group] : attentions) {
                const tl::KvLayout layout{kv_type(k_type), kv_type(v_type), kv_heads, head_dim};
                bytes = std::max(bytes, kernels.attention_scratch_bytes(layout, group));
            }
            for (const auto& [type, columns, is_mapped] : matrices) {
                const tl::FormatKernels* format = tl::find_format(kernels, type, precision_named(activations));
                if (!format) continue;
                const size_t rows = tl::shared_row_bytes({format->activations, columns});
                bytes = std::max(bytes, rows + tl::product_scratch_bytes(*format, columns, is_mapped));
                const tl::FastKernels* products = fast ? tl::find_fast(kernels, type) : nullptr;
                if (products) bytes = std::max(bytes, rows + products->scratch_bytes);
            }
            return tl::align_up(bytes + std::max(tl::gated_matmul_scratch_bytes(fast), tl::head_scratch_bytes()), 4096);
        },
        "matrices"_a, "k_type"_a, "v_type"_a, "attentions"_a, "activations"_a, "fast"_a,
        "Most scratch bytes that one thread needs for matrices (type, columns, is mapped) and attentions (key/value "
        "heads, head dimension, query heads to each).");
    m.def(
        "file_window_bytes",
        [](int type, int columns, int num_tiles) {
            const tl::FormatKernels* format = format_of(type, "int8");
            return tl::file_window_bytes(*format, columns, num_tiles) + tl::kAroundBytes;
        },
        "type"_a, "columns"_a, "num_tiles"_a,
        "Most bytes of a file that one thread has mapped at once for a product that takes so many tiles of a mapped "
        "matrix "
        "together.");
    m.def(
        "experts_scratch_bytes",
        [](MatrixKind gate, MatrixKind up, MatrixKind down, int num_experts, int num_used, int max_tokens,
           const std::string& activations) {
            const auto layout = [&](MatrixKind matrix) {
                const auto [type, columns, is_mapped] = matrix;
                const tl::FormatKernels* format = format_of(type, activations);
                return std::make_pair(tl::ActLayout{format->activations, columns},
                                      tl::product_scratch_bytes(*format, columns, is_mapped));
            };
            const auto [gate_layout, gate_bytes] = layout(gate);
            const auto [up_layout, up_bytes] = layout(up);
            const size_t thread =
                std::max(tl::experts_gated_scratch_bytes(gate_layout, up_layout, std::max(gate_bytes, up_bytes)),
                         layout(down).second + tl::experts_part_bytes(max_tokens, num_used));
            return std::make_pair(tl::align_up(thread, 4096), tl::Routes::num_bytes(max_tokens, num_experts, num_used));
        },
        "gate"_a, "up"_a, "down"_a, "num_experts"_a, "num_used"_a, "max_tokens"_a, "activations"_a,
        "Scratch bytes of one thread, and of all together, for experts whose matrices are (type, columns, is mapped).");
    m.def(
        "heads_scratch_bytes",
        [](int type, int columns, bool is_mapped, const std::string& activations) {
            const tl::FormatKernels* format = format_of(type, activations);
            const size_t kernel = tl::product_scratch_bytes(*format, columns, is_mapped);
            return tl::align_up(tl::heads_scratch_bytes({format->activations, columns}, kernel), 4096);
        },
        "type"_a, "columns"_a, "is_mapped"_a, "activations"_a, "Scratch bytes of one thread for a product by heads.");
    m.def(
        "buffer_row_bytes",
        [](const std::string& format, int width) { return tl::ActLayout{tl::act_format(format), width}.row_bytes(); },
        "format"_a, "width"_a, "Bytes of one row of activations in a format.");
    m.def(
        "kv_page_bytes",
        [](const std::string& k_type, const std::string& v_type, const LayerHeads& layers) {
            return tl::PagePool::page_bytes(kv_layouts(k_type, v_type, layers));
        },
        "k_type"_a, "v_type"_a, "layers"_a, "Bytes of one KV page; layers: (key/value heads, head dimension) of each.");
    m.def(
        "attention_shared_bytes",
        [](int num_heads, int kv_heads, int head_dim, int num_pages) {
            const tl::KvLayout layout{tl::KvType::kF32, tl::KvType::kF32, kv_heads, head_dim};
            return tl::attention_shared_bytes(layout, num_heads, num_pages);
        },
        "num_heads"_a, "num_kv_heads"_a, "head_dim"_a, "num_pages"_a,
        "Bytes that all threads share for the partial results of attention.");
}

}  // namespace tl
