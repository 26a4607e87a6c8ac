// `_core.quantize`: rows of floats to blocks of a GGUF type, on several threads.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>

#include <memory>
#include <optional>
#include <string>

#include "cpu/dispatch.h"
#include "quantize/quantise.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace tl {
namespace {

using Bytes = nb::ndarray<const uint8_t, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Floats = nb::ndarray<const float, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Blocks = nb::ndarray<nb::numpy, uint8_t, nb::ndim<2>, nb::c_contig>;

// Runs Python's signal handlers; false when one raised (Ctrl-C). The exception stays set for the caller.
bool poll_signals() {
    nb::gil_scoped_acquire gil;
    return PyErr_CheckSignals() == 0;
}

RowType row_type(const std::string& name) {
    if (name == "F32") return RowType::kF32;
    if (name == "F16") return RowType::kF16;
    if (name == "BF16") return RowType::kBF16;
    throw nb::value_error(("rows of type " + name + " cannot be quantised; expected F32, F16 or BF16").c_str());
}

const Quantiser* find_quantiser(const std::string& level, int gguf_type) {
    const Kernels* kernels = level.empty() ? &active_kernels() : kernels_of_level(level);
    if (!kernels) throw nb::value_error(("level '" + level + "' is not available on this machine").c_str());
    return quantiser_of_level(kernels->level, gguf_type);
}

Blocks quantise(const Bytes& rows, const std::string& type, int gguf_type, const std::optional<Floats>& importance,
                int num_threads, const std::string& level) {
    const RowType from = row_type(type);
    const Quantiser* quantiser = find_quantiser(level, gguf_type);
    if (!quantiser) throw nb::value_error(("no quantiser for GGUF type " + std::to_string(gguf_type)).c_str());
    const size_t element_bytes = from == RowType::kF32 ? 4 : 2, columns = rows.shape(1) / element_bytes;
    if (columns == 0 || rows.shape(1) % element_bytes != 0 || columns % size_t(quantiser->block) != 0) {
        throw nb::value_error(("a row of " + std::to_string(columns) + " weights is not a whole number of blocks of " +
                               std::to_string(quantiser->block))
                                  .c_str());
    }
    if (importance && importance->shape(0) != columns) {
        throw nb::value_error(
            ("importance has " + std::to_string(importance->shape(0)) + " columns, the rows " + std::to_string(columns))
                .c_str());
    }
    const size_t row_bytes = columns / size_t(quantiser->block) * quantiser->block_bytes;
    const size_t shape[2] = {rows.shape(0), row_bytes};
    // Not zeroed: the threads touch it first, each its own rows.
    auto out = std::make_unique_for_overwrite<uint8_t[]>(shape[0] * row_bytes + 1);
    const QuantiseJob job{rows.data(), from,     rows.shape(0), columns, importance ? importance->data() : nullptr,
                          quantiser,   out.get()};
    size_t bad_row = 0;
    QuantiseEnd end;
    {
        nb::gil_scoped_release release;
        end = quantise_rows(job, num_threads, poll_signals, bad_row);
    }
    if (end == QuantiseEnd::kInterrupted) throw nb::python_error();
    if (end == QuantiseEnd::kNotFinite) {
        throw nb::value_error(("row " + std::to_string(bad_row) + " holds a weight that is not finite").c_str());
    }
    uint8_t* data = out.get();
    nb::capsule owner(out.release(), [](void* p) noexcept { delete[] static_cast<uint8_t*>(p); });
    return Blocks(data, 2, shape, owner);
}

}  // namespace

void bind_quantize(nb::module_& m) {
    m.def("quantise_rows", &quantise, "rows"_a, "type"_a, "gguf_type"_a, "importance"_a.none() = nb::none(),
          "num_threads"_a = 1, "level"_a = "",
          "Rows of F32, F16 or BF16 bytes (rows, row bytes) -> blocks of a GGUF type (rows, blocks' bytes).\n\n"
          "importance holds a weight per column. Raises ValueError for a type without quantiser, rows that are not\n"
          "whole blocks, and weights that are not finite.");
    m.def(
        "has_quantiser", [](int gguf_type) { return find_quantiser("", gguf_type) != nullptr; }, "gguf_type"_a,
        "Whether quantise_rows can write this GGUF type.");
}

}  // namespace tl
