// The Python module torchless._core.
#include <nanobind/nanobind.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include "core/allocation_counter.h"
#include "core/bandwidth.h"
#include "core/cpu_features.h"
#include "core/kv_layout.h"
#include "core/peak.h"
#include "cpu/dispatch.h"

namespace nb = nanobind;

namespace tl {
void bind_executor(nb::module_& m);
void bind_kernels(nb::module_& m);
void bind_quantize(nb::module_& m);
void bind_sizes(nb::module_& m);
}  // namespace tl

NB_MODULE(_core, m) {
    m.doc() = "The C++ core of torchless: kernels, weights, executor.";
    m.attr("PAGE_TOKENS") = tl::kPageTokens;
    m.def(
        "isa", [] { return std::string(tl::active_kernels().level); },
        "Name of the instruction-set level in use: 'scalar', 'avx2', 'avxvnni', 'avx512' or 'amx'.\n\n"
        "TORCHLESS_ISA forces a level. Raises RuntimeError for one that this machine lacks.");
    m.def("isa_levels", &tl::available_levels, "Levels of this build that this machine can run, slowest first.");
    m.def("measure_read_bandwidth", &tl::measure_read_bandwidth, nb::arg("num_threads"), nb::arg("num_bytes"),
          nb::call_guard<nb::gil_scoped_release>(),
          "Bytes per second that num_threads read from num_bytes of memory, best of several passes.");
    m.def(
        "measure_dot_peak",
        [](const std::string& kind, int num_threads) {
            if (kind != "int8" && kind != "bf16" && kind != "f32")
                throw nb::value_error(("kind must be int8, bf16 or f32, got " + kind).c_str());
            const tl::DotKind dots = kind == "int8"   ? tl::DotKind::kInt8
                                     : kind == "bf16" ? tl::DotKind::kBF16
                                                      : tl::DotKind::kF32;
            nb::gil_scoped_release release;
            return tl::measure_dot_peak(dots, num_threads);
        },
        nb::arg("kind"), nb::arg("num_threads"),
        "Operations per second of num_threads that multiply and add 'int8', 'bf16' or 'f32' in registers, two per\n"
        "multiply-add, best of several passes.");
    m.def("allocation_count", &tl::allocation_count,
          "Heap allocations made by this module's C++ code since it was loaded.");
    tl::bind_sizes(m);
    tl::bind_executor(m);
    tl::bind_kernels(m);
    tl::bind_quantize(m);
}
