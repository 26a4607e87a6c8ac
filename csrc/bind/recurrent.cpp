// Binds the stages that keep recurrent state.
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <cstring>
#include <string>
#include <tuple>

#include "bind/py_executor.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace tl {
namespace {

uint8_t* slot_of(PyExecutor& executor, int slot, size_t num_bytes) {
    StatePool* states = executor.core.states();
    if (!states) throw std::invalid_argument("a plan without recurrent state has no slots");
    if (num_bytes != states->slot_bytes()) {
        throw std::invalid_argument(std::to_string(num_bytes) + " bytes for a slot of " +
                                    std::to_string(states->slot_bytes()));
    }
    return states->slot(slot);
}

}  // namespace

void bind_recurrent(nb::module_& m, nb::class_<PyExecutor>& executor) {
    m.def("causal_conv_state_floats", &causal_conv_state_floats, "num_channels"_a, "num_taps"_a,
          "Floats of a convolution's state.");
    m.def("gated_delta_state_floats", &gated_delta_state_floats, "num_heads"_a, "key_dim"_a, "value_dim"_a,
          "Floats of the state of a gated delta rule.");
    m.def("state_slot_bytes", &StatePool::bytes_of_slot, "sizes"_a, "Bytes of a slot with states of so many floats.");
    m.def(
        "recurrent_scratch_bytes",
        [](const std::vector<int>& key_dims, const std::vector<std::tuple<std::string, int>>& norms) {
            size_t bytes = 0;
            for (const int key_dim : key_dims) {
                bytes = std::max(bytes, active_kernels().gated_delta_scratch_floats(key_dim) * sizeof(float));
            }
            for (const auto& [format, width] : norms) {
                bytes = std::max(bytes, gated_norm_scratch_bytes({act_format(format), width}));
            }
            return align_up(bytes, 4096);
        },
        "key_dims"_a, "norms"_a,
        "Most scratch bytes that one thread needs for gated delta rules and gated norms (activation format, width).");
    LockedClass(executor)
        .def(
            "set_states",
            [](PyExecutor& self, int num_slots, const std::vector<size_t>& sizes) {
                self.core.set_states(num_slots, sizes);
            },
            "num_slots"_a, "sizes"_a, "sizes: floats of each state")
        .def(
            "causal_conv",
            [](PyExecutor& self, int x, int weight, int taps, int out, int state) {
                self.core.add_causal_conv(x, weight, taps, out, state);
            },
            "x"_a, "weight"_a, "taps"_a, "out"_a, "state"_a, "weight: a vector, the channels of each tap in turn")
        .def(
            "gated_delta",
            [](PyExecutor& self, int x, std::tuple<int, int, int, int> step, std::tuple<int, int, int, int> beta,
               int decay, int step_bias, const std::tuple<int, int, int, int, bool>& shape, int out, int state) {
                const auto columns = [](const std::tuple<int, int, int, int>& c) {
                    return HeadColumns{std::get<0>(c), std::get<1>(c), std::get<2>(c), std::get<3>(c)};
                };
                const auto& [num_key_heads, num_heads, key_dim, value_dim, is_tiled] = shape;
                self.core.add_gated_delta({x, columns(step), columns(beta), decay, step_bias, num_key_heads, num_heads,
                                           key_dim, value_dim, is_tiled, out, state});
            },
            "x"_a, "step"_a, "beta"_a, "decay"_a, "step_bias"_a, "shape"_a, "out"_a, "state"_a,
            "step, beta: (buffer, first column, columns, distance to the next ones); shape: (key heads, value heads, "
            "width of a key, of a value, whether key heads take turns)")
        .def(
            "gated_norm",
            [](PyExecutor& self, int x, int weight, int num_heads, float eps, int gate, const std::string& activation,
               int out) {
                self.core.add_gated_norm({x, weight, num_heads, eps, gate, glu_activation(activation), out});
            },
            "x"_a, "weight"_a, "num_heads"_a, "eps"_a, "gate"_a, "activation"_a, "out"_a,
            "Each head of x normalised, times activation(gate).")
        .def(
            "read_state",
            [](PyExecutor& self, int slot, nb::ndarray<uint8_t, nb::ndim<1>, nb::c_contig, nb::device::cpu> content) {
                std::memcpy(content.data(), slot_of(self, slot, content.size()), content.size());
            },
            "slot"_a, "content"_a, "Copies all states of a slot into `content`.")
        .def(
            "write_state",
            [](PyExecutor& self, int slot, Bytes content, int position) {
                std::memcpy(slot_of(self, slot, content.size()), content.data(), content.size());
                self.core.states()->set_position(slot, position);
            },
            "slot"_a, "content"_a, "position"_a, "Copies `content` into a slot, whose sequence goes on at `position`.")
        .def_prop_ro("slot_bytes", [](PyExecutor& self) { return self.core.slot_bytes(); });
}

}  // namespace tl
