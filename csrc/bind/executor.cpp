// Binds Executor: Python builds it op by op, then runs steps. All sizes are checked here or in the core.
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <stdexcept>
#include <tuple>

#include "bind/py_executor.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace {

using tl::Bytes;
using tl::Floats;
using tl::Ints;
using tl::PyExecutor;

// Runs Python's signal handlers; false when one raised (Ctrl-C). The exception stays set for the caller.
bool poll_signals() {
    nb::gil_scoped_acquire gil;
    return PyErr_CheckSignals() == 0;
}

// experts, used, scoring, normalised, scale, groups, used groups, scores that a group counts by
using RoutingTuple = std::tuple<int, int, std::string, bool, float, int, int, int>;

tl::Routing routing(const RoutingTuple& tuple) {
    const auto& [num_experts, num_used, name, normalised, scale, num_groups, num_used_groups, group_best] = tuple;
    tl::Scoring scoring;
    if (name == "softmax") {
        scoring = tl::Scoring::kSoftmax;
    } else if (name == "softmax_chosen") {
        scoring = tl::Scoring::kSoftmaxChosen;
    } else if (name == "sigmoid") {
        scoring = tl::Scoring::kSigmoid;
    } else if (name == "sparse_mixer") {
        scoring = tl::Scoring::kSparseMixer;
    } else {
        throw std::invalid_argument("unknown scoring of experts " + name);
    }
    return {num_experts, num_used, scoring, normalised, scale, num_groups, num_used_groups, group_best};
}

// The file's bytes of a matrix must hold all its rows.
void check_raw(const Bytes& raw, int type, int rows, int columns) {
    const tl::FormatKernels* format = tl::format_of(type, "int8");
    if (rows < 1 || columns < 1 || columns % format->block != 0 ||
        raw.size() != size_t(rows) * (size_t(columns) / format->block) * format->block_bytes) {
        throw std::invalid_argument("the bytes of a matrix do not fit its shape");
    }
}

template <class T>
nb::ndarray<nb::numpy, T, nb::ndim<2>> best_view(nb::handle owner, T* first) {
    const size_t shape[2] = {tl::kMaxBestRows, tl::kMaxBest};
    const int64_t strides[2] = {int64_t(tl::BestLists::row_stride()), 1};
    return {first, 2, shape, owner, strides};
}

}  // namespace

namespace tl {

namespace {

// A step of one executor, of which there is one at a time: the GIL does not see to that, it is free meanwhile.
class OnlyStep {
 public:
    explicit OnlyStep(PyExecutor& executor) : is_stepping_(executor.is_stepping) {
        if (is_stepping_.exchange(true)) throw std::runtime_error("an executor runs one step at a time");
    }
    ~OnlyStep() { is_stepping_.store(false); }
    OnlyStep(const OnlyStep&) = delete;
    OnlyStep& operator=(const OnlyStep&) = delete;

 private:
    std::atomic<bool>& is_stepping_;
};

}  // namespace

bool PyExecutor::step(Ints token_ids, Ints positions, Ints run_starts, Ints page_ids, Ints page_starts,
                      Ints output_rows, Ints state_slots, int first_fast_row, Ints tree_parents, int num_best) {
    if (positions.size() != token_ids.size() || run_starts.size() < 2 || page_starts.size() != run_starts.size()) {
        throw std::invalid_argument("malformed batch: array lengths do not fit together");
    }
    const BatchArrays batch{token_ids.data(),   positions.data(),      token_ids.size(),   run_starts.data(),
                            page_starts.data(), run_starts.size() - 1, page_ids.data(),    page_ids.size(),
                            output_rows.data(), output_rows.size(),    state_slots.data(), state_slots.size(),
                            first_fast_row,     tree_parents.data(),   tree_parents.size()};
    bool completed;
    {
        const OnlyStep only(*this);
        nb::gil_scoped_release release;
        completed = core.step(batch, num_best, poll_signals);
    }
    if (!completed && PyErr_Occurred()) throw nb::python_error();
    return completed;
}

void PyExecutor::step_chain(Ints token_ids, Ints positions, Ints run_starts, Ints page_ids, Ints page_starts,
                            Ints output_rows, nb::ndarray<int32_t, nb::ndim<3>, nb::c_contig, nb::device::cpu> ids,
                            nb::ndarray<float, nb::ndim<3>, nb::c_contig, nb::device::cpu> logits) {
    if (positions.size() != token_ids.size() || run_starts.size() < 2 || page_starts.size() != run_starts.size() ||
        ids.shape(1) != run_starts.size() - 1 || logits.size() != ids.size() || logits.shape(2) != ids.shape(2)) {
        throw std::invalid_argument("malformed batch: array lengths do not fit together");
    }
    const BatchArrays batch{token_ids.data(),
                            positions.data(),
                            token_ids.size(),
                            run_starts.data(),
                            page_starts.data(),
                            run_starts.size() - 1,
                            page_ids.data(),
                            page_ids.size(),
                            output_rows.data(),
                            output_rows.size(),
                            nullptr,
                            0,
                            int(token_ids.size()),
                            nullptr,
                            0};
    bool completed;
    {
        const OnlyStep only(*this);
        nb::gil_scoped_release release;
        completed =
            core.step_chain(batch, int(ids.shape(2)), int(ids.shape(0)), ids.data(), logits.data(), poll_signals);
    }
    if (!completed) throw nb::python_error();
}

void bind_executor(nb::module_& m) {
    nb::class_<PyExecutor> executor(
        m, "Executor",
        "A plan in the making, then ready to run: add weights, buffers and stages, call finish(), then step().");
    executor
        .def(
            "__init__",
            [](PyExecutor* self, int num_threads, int max_tokens, int max_outputs, size_t weight_bytes,
               const std::string& activations, bool fast, std::vector<int> cpus) {
                new (self) PyExecutor(tl::ExecutorSizes{num_threads, max_tokens, max_outputs, weight_bytes,
                                                        precision_named(activations), std::move(cpus), fast});
            },
            "num_threads"_a, "max_tokens"_a, "max_outputs"_a, "weight_bytes"_a, "activations"_a, "fast"_a, "cpus"_a,
            "activations: int8, bf16 or f32, what products multiply at least; fast: steps may have fast rows; cpus: "
            "the processor that each thread "
            "keeps "
            "to, or none")
        .def(
            "set_interrupted", [](PyExecutor& self, bool is_interrupted) { self.core.set_interrupted(is_interrupted); },
            "is_interrupted"_a,
            "While set, a step is given up at its next stage. Any thread may call it, also during a step.");
    LockedClass(executor)
        .def(
            "set_kv_cache",
            [](PyExecutor& self, const std::string& k_type, const std::string& v_type, const LayerHeads& layers,
               int num_pages) {
                if (layers.empty() || num_pages < 1) throw std::invalid_argument("a KV cache needs layers and pages");
                self.core.set_kv_cache(kv_layouts(k_type, v_type, layers), num_pages);
            },
            "k_type"_a, "v_type"_a, "layers"_a, "num_pages"_a, "layers: (key/value heads, head dimension) of each")
        .def(
            "add_matrix",
            [](PyExecutor& self, int type, int rows, int columns) {
                return self.core.weights().add_matrix(type, rows, columns);
            },
            "type"_a, "rows"_a, "columns"_a, "Makes room for a weight matrix; its rows follow by pack_rows.")
        .def(
            "pack_rows",
            [](PyExecutor& self, int matrix, int first_row, int rows, Bytes raw) {
                tl::Weights& weights = self.core.weights();
                const tl::PackedMatrix& m = weights.matrix(matrix);
                check_raw(raw, m.format->gguf_type, rows, m.num_columns);
                nb::gil_scoped_release release;
                weights.pack_rows(self.core.pool(), matrix, first_row, rows, raw.data());
            },
            "matrix"_a, "first_row"_a, "rows"_a, "raw"_a,
            "Packs rows from the file's bytes, which are not needed afterwards. first_row is a multiple of 16, and so "
            "is rows, but for the last ones.")
        .def(
            "add_mapped_matrix",
            [](PyExecutor& self, int type, int rows, int columns, nb::object map, size_t offset) {
                const Bytes bytes = nb::cast<Bytes>(map);
                self.keep_alive.push_back(map);
                return self.core.weights().add_mapped_matrix(type, rows, columns, bytes.data(), bytes.size(), offset);
            },
            "type"_a, "rows"_a, "columns"_a, "map"_a, "offset"_a,
            "A matrix that stays where it is, `offset` bytes into a read-only map of a whole file, which is kept "
            "alive. "
            "Its tiles are packed as they are used, and the pages let go.")
        .def(
            "try_tiles",
            [](PyExecutor& self, int matrix, int begin, int end) {
                nb::gil_scoped_release release;
                self.core.try_tiles(matrix, begin, end);
            },
            "matrix"_a, "begin"_a, "end"_a,
            "Multiplies tiles of a mapped matrix with a row of zeros, to measure what reading them costs. After "
            "finish.")
        .def(
            "add_vector",
            [](PyExecutor& self, Floats values) {
                return self.core.weights().add_vector(std::vector<float>(values.data(), values.data() + values.size()));
            },
            "values"_a)
        .def(
            "add_table",
            [](PyExecutor& self, int type, int rows, int columns, nb::object raw, bool is_forgotten) {
                const Bytes bytes = nb::cast<Bytes>(raw);
                check_raw(bytes, type, rows, columns);
                self.keep_alive.push_back(raw);
                return self.core.weights().add_table(type, rows, columns, bytes.data(), is_forgotten);
            },
            "type"_a, "rows"_a, "columns"_a, "raw"_a, "is_forgotten"_a,
            "A table read row by row straight from `raw`, which is kept alive. is_forgotten: it is a read-only map of "
            "a file, "
            "whose pages are let go once they are read.")
        .def(
            "add_buffer",
            [](PyExecutor& self, size_t offset, bool outputs, const std::string& format, int width, int copies,
               int spare) {
                return self.core.add_buffer(offset, outputs, tl::act_format(format), width, copies, spare);
            },
            "offset"_a, "outputs"_a, "format"_a, "width"_a, "copies"_a = 1, "spare"_a = 0,
            "copies: rows for each token or output; spare: further rows")
        .def(
            "add_rope",
            [](PyExecutor& self, bool interleaved, std::vector<double> inv_freq, double magnitude, double temperature,
               int interval, int cos, int sin) {
                const auto layout = interleaved ? tl::RopeLayout::kInterleaved : tl::RopeLayout::kHalf;
                if (interval < 1) throw std::invalid_argument("the interval of a rope's temperature is at least 1");
                return self.core.add_rope({layout, std::move(inv_freq), magnitude, temperature, interval, cos, sin});
            },
            "interleaved"_a, "inv_freq"_a, "magnitude"_a, "temperature"_a, "interval"_a, "cos"_a, "sin"_a,
            "temperature: of Ministral 3's queries, 0 = none; interval: positions for which it is the same")
        .def(
            "embed",
            [](PyExecutor& self, int table, int out, float scale, const std::string& index, int first, int num_ids) {
                if (index != "token" && index != "position" && index != "type")
                    throw std::invalid_argument("an embedding goes by token, position or type, not by " + index);
                const auto by = index == "token"      ? tl::EmbedIndex::kToken
                                : index == "position" ? tl::EmbedIndex::kPosition
                                                      : tl::EmbedIndex::kType;
                self.core.add_embed({table, by, first, num_ids, scale, out});
            },
            "table"_a, "out"_a, "scale"_a, "index"_a = "token", "first"_a = 0, "num_ids"_a = INT32_MAX,
            "Rows first + (token id % num_ids, position, or type: token id / num_ids) of a table.")
        .def(
            "convert",
            [](PyExecutor& self, int x, int out, bool shared) {
                self.core.add_row_stage(tl::make_convert(x, out), out, shared);
            },
            "x"_a, "out"_a, "shared"_a, "shared: with few rows, the products that read `out` do this themselves")
        .def(
            "rms_norm",
            [](PyExecutor& self, int x, int weight, float eps, int out, bool shared) {
                self.core.add_row_stage(tl::make_rms_norm(x, weight, eps, out), out, shared);
            },
            "x"_a, "weight"_a, "eps"_a, "out"_a, "shared"_a, "shared: as for convert")
        .def(
            "layer_norm",
            [](PyExecutor& self, int x, int weight, int bias, float eps, int out, bool shared) {
                self.core.add_row_stage(tl::make_layer_norm(x, weight, bias, eps, out), out, shared);
            },
            "x"_a, "weight"_a, "bias"_a, "eps"_a, "out"_a, "shared"_a, "bias: a vector or -1; shared: as for convert")
        .def(
            "matmul",
            [](PyExecutor& self, int x, const std::vector<std::tuple<int, int, int, bool>>& parts) {
                std::vector<tl::MatmulPart> matmuls;
                for (const auto& [matrix, bias, out, accumulate] : parts)
                    matmuls.push_back({matrix, bias, out, accumulate});
                if (matmuls.empty()) throw std::invalid_argument("a matmul without matrices");
                self.core.add_stage(tl::make_matmul(x, std::move(matmuls)));
            },
            "x"_a, "parts"_a, "parts: (matrix, bias vector or -1, out buffer, accumulate)")
        .def(
            "head",
            [](PyExecutor& self, int x, std::tuple<int, int, int, bool> part) {
                const auto [matrix, bias, out, accumulate] = part;
                self.core.add_head(x, {matrix, bias, out, accumulate});
            },
            "x"_a, "part"_a, "The product that makes the logits; part as for matmul.")
        .def(
            "rope_kv",
            [](PyExecutor& self, const std::vector<std::tuple<int, int, int, int, int, int, float>>& parts, int k,
               int v, int layer) {
                std::vector<tl::RopePart> ropes;
                for (const auto& [buffer, source, num_heads, head_dim, rope, norm, eps] : parts) {
                    ropes.push_back({buffer, source, num_heads, head_dim, rope, norm, eps});
                }
                self.core.add_rope_kv(std::move(ropes), k, v, layer);
            },
            "parts"_a, "k"_a, "v"_a, "layer"_a,
            "parts: (buffer, buffer that is normalised into it, num_heads, head_dim, rope or -1, vector of a norm of "
            "heads or -1, its eps); k, v: -1 stores nothing")
        .def(
            "attention",
            [](PyExecutor& self, int q, int out, int layer, int num_heads, float scale, int window, float softcap,
               std::vector<float> slopes, int sinks, bool rope_kv, bool causal) {
                if (!slopes.empty() && slopes.size() != size_t(num_heads)) {
                    throw std::invalid_argument("attention needs one slope for each query head");
                }
                if (sinks >= 0 && self.core.weights().vector(sinks).size() != size_t(num_heads)) {
                    throw std::invalid_argument("attention needs one sink for each query head");
                }
                self.core.add_attention(q, out, layer,
                                        {num_heads, scale, window, softcap, std::move(slopes), sinks, causal}, rope_kv);
            },
            "q"_a, "out"_a, "layer"_a, "num_heads"_a, "scale"_a, "window"_a, "softcap"_a, "slopes"_a, "sinks"_a,
            "rope_kv"_a, "causal"_a = true,
            "window, softcap: 0 = none; slopes: one per query head or none; sinks: a vector or -1; rope_kv: does the "
            "work of the rope_kv stage before it where it can")
        .def(
            "map",
            [](PyExecutor& self, int x, int out, const std::string& function, float parameter) {
                self.core.add_stage(tl::make_map(x, out, tl::map_function(function), parameter));
            },
            "x"_a, "out"_a, "function"_a, "parameter"_a, "out = function(x), element by element")
        .def(
            "glu",
            [](PyExecutor& self, int gate, int up, int up_start, int out, const std::string& activation) {
                self.core.add_glu(gate, up, up_start, out, tl::glu_activation(activation));
            },
            "gate"_a, "up"_a, "up_start"_a, "out"_a, "activation"_a, "up_start: the first column of up that is taken")
        .def(
            "heads_norm",
            [](PyExecutor& self, int x, int weight, int num_heads, float eps, int out) {
                self.core.add_heads_norm({x, weight, num_heads, eps, out});
            },
            "x"_a, "weight"_a, "num_heads"_a, "eps"_a, "out"_a)
        .def(
            "gated_matmul",
            [](PyExecutor& self, int x, std::pair<int, int> gate, std::pair<int, int> up, int out,
               const std::string& activation) {
                self.core.add_stage(tl::make_gated_matmul(
                    {x, gate.first, gate.second, up.first, up.second, out, tl::glu_activation(activation)}));
            },
            "x"_a, "gate"_a, "up"_a, "out"_a, "activation"_a,
            "gate, up: (matrix, bias vector or -1), with a multiple of 256 rows")
        .def(
            "route",
            [](PyExecutor& self, int logits, int bias, int expert_scale, int width, const RoutingTuple& how) {
                self.core.add_route({logits, bias, expert_scale, width, routing(how)});
            },
            "logits"_a, "bias"_a, "expert_scale"_a, "width"_a, "routing"_a,
            "Chooses experts; bias, expert_scale: vectors or -1; width: of the experts' inner layer; routing: "
            "(experts, used, "
            "scoring, "
            "normalised, scale, groups, used groups, scores that a group counts by)")
        .def(
            "experts_gated",
            [](PyExecutor& self, int x, int up_x, std::pair<int, int> gate, std::pair<int, int> up, int out,
               const std::string& activation, int num_experts) {
                self.core.add_experts_gated(
                    {x, up_x, {gate.first, gate.second}, {up.first, up.second}, out, tl::glu_activation(activation)},
                    num_experts);
            },
            "x"_a, "up_x"_a, "gate"_a, "up"_a, "out"_a, "activation"_a, "num_experts"_a,
            "gate, up: (matrix of the first expert, vector of all biases or -1); out: rows of (token, expert)")
        .def(
            "experts_down",
            [](PyExecutor& self, int x, std::pair<int, int> down, int out, bool accumulate, const RoutingTuple& how) {
                self.core.add_experts_down(x, {down.first, down.second}, out, accumulate, routing(how));
            },
            "x"_a, "down"_a, "out"_a, "accumulate"_a, "routing"_a,
            "The product of what experts_gated made, and the weighted sum of a token's experts.")
        .def(
            "columns",
            [](PyExecutor& self, const std::vector<std::tuple<int, int, int, int>>& pieces, int count, int out) {
                std::vector<tl::ColumnPiece> columns;
                for (const auto& [buffer, start, width, stride] : pieces)
                    columns.push_back({buffer, start, width, stride});
                self.core.add_stage(tl::make_columns(std::move(columns), count, out));
            },
            "pieces"_a, "count"_a, "out"_a, "pieces: (buffer, first column, columns, distance to the next repetition)")
        .def(
            "heads_matmul",
            [](PyExecutor& self, int x, std::pair<int, int> heads, int out) {
                tl::check_experts(self.core.weights(), {heads.first, -1}, heads.second, "head");
                self.core.add_stage(tl::make_heads_matmul(x, heads.first, heads.second, out));
            },
            "x"_a, "heads"_a, "out"_a, "heads: (matrix of the first head, number of heads)")
        .def(
            "gate_rows",
            [](PyExecutor& self, int x, int gate, int out) { self.core.add_stage(tl::make_gate_rows(x, gate, out)); },
            "x"_a, "gate"_a, "out"_a, "Rows of x times the sigmoid of their one number in gate.")
        .def(
            "weighted_sum",
            [](PyExecutor& self, int base, std::vector<int> terms, int coefficients, int first, int out) {
                self.core.add_stage(tl::make_weighted_sum(base, std::move(terms), coefficients, first, out));
            },
            "base"_a, "terms"_a, "coefficients"_a, "first"_a, "out"_a,
            "base plus terms by each row's coefficients, those from column `first` on")
        .def(
            "match_magnitude",
            [](PyExecutor& self, int x, int like, float floor, int out) {
                self.core.add_stage(tl::make_match_magnitude(x, like, floor, out));
            },
            "x"_a, "like"_a, "floor"_a, "out"_a, "Rows of x as large as those of `like`.")
        .def(
            "keep_above",
            [](PyExecutor& self, int x, float deviations, int out) {
                self.core.add_stage(tl::make_keep_above(x, deviations, out));
            },
            "x"_a, "deviations"_a, "out"_a, "What of each row lies above its mean by so many standard deviations.")
        .def(
            "scale_columns",
            [](PyExecutor& self, int x, int weight, int out) {
                self.core.add_stage(tl::make_scale_columns(x, weight, out));
            },
            "x"_a, "weight"_a, "out"_a, "Columns of x by the elements of a vector.")
        .def(
            "add", [](PyExecutor& self, int a, int b, int out) { self.core.add_stage(tl::make_add(a, b, out)); }, "a"_a,
            "b"_a, "out"_a)
        .def(
            "select", [](PyExecutor& self, int x, int out) { self.core.add_stage(tl::make_select(x, out)); }, "x"_a,
            "out"_a)
        .def(
            "finish",
            [](PyExecutor& self, size_t arena_bytes, int logits, int output_width, bool merge_inputs) {
                self.core.finish(arena_bytes, logits, output_width, merge_inputs);
            },
            "arena_bytes"_a, "logits"_a, "output_width"_a, "merge_inputs"_a,
            "merge_inputs: stages that read the batch alone share one barrier")
        .def(
            "place_weights", [](PyExecutor& self) { self.core.place_weights(); },
            "Spreads the memory of the weights over the threads that will read it; after finish, before pack_rows.")
        .def("step", &PyExecutor::step, "token_ids"_a, "positions"_a, "run_starts"_a, "page_ids"_a, "page_starts"_a,
             "output_rows"_a, "state_slots"_a, "first_fast_row"_a, "tree_parents"_a, "num_best"_a = 0,
             "Runs one step with the GIL released; the logits are then in `logits`, or, with num_best > 0, the best of "
             "each row in `best_ids` and `best_logits`.")
        .def("step_chain", &PyExecutor::step_chain, "token_ids"_a, "positions"_a, "run_starts"_a, "page_ids"_a,
             "page_starts"_a, "output_rows"_a, "ids"_a, "logits"_a,
             "Runs the batch and then one token of each run after another, the best one behind its last; writes the "
             "best "
             "of each step, (steps, runs, best). Not for plans with recurrent state.")
        .def(
            "max_best", [](PyExecutor& self, int num_outputs) { return self.core.max_best(num_outputs); },
            "num_outputs"_a, "Most that num_best may be for a step with that many outputs; 0 = none.")
        .def_prop_ro(
            "num_barriers", [](PyExecutor& self) { return self.core.num_barriers(); },
            "Meetings of all threads in the last step.")
        .def(
            "time_stages", [](PyExecutor& self, bool on) { self.core.time_stages(on); }, "on"_a,
            "Measures, while on, how long every stage takes. Turning it on starts from zero.")
        .def(
            "stage_ns", [](PyExecutor& self) { return self.core.stage_ns(); },
            "Nanoseconds by stage, in the order of execution: those that clear pages and make rope tables, then the "
            "others as they were added. Empty while stages are not timed.")
        .def("release_pages", &PyExecutor::release_pages, "pages"_a)
        .def("read_page", &PyExecutor::read_page, "page"_a, "content"_a, "Copies all of a page into `content`.")
        .def("write_page", &PyExecutor::write_page, "page"_a, "content"_a, "Copies `content` into a page, all of it.")
        .def("copy_slots", &PyExecutor::copy_slots, "page_ids"_a, "from_slots"_a, "to_slots"_a,
             "Copies keys and values of a sequence with these pages from slots to slots, one after another.")
        .def_prop_ro(
            "logits",
            [](nb::handle_t<PyExecutor> self) {
                tl::Executor& core = nb::cast<PyExecutor&>(self).core;
                const size_t shape[2] = {size_t(core.max_outputs()), size_t(core.output_width())};
                const int64_t strides[2] = {int64_t(core.logits_stride()), 1};
                return nb::ndarray<nb::numpy, float, nb::ndim<2>>(core.logits(), 2, shape, self, strides);
            },
            "float32 (max_outputs, width of the output): a view of the buffer that steps overwrite.")
        .def_prop_ro(
            "best_ids",
            [](nb::handle_t<PyExecutor> self) {
                return best_view<const int32_t>(self, nb::cast<PyExecutor&>(self).core.best().ids(0));
            },
            "int32 (rows, best): ids of the largest logits of each row, best first.")
        .def_prop_ro(
            "best_logits",
            [](nb::handle_t<PyExecutor> self) {
                return best_view<const float>(self, nb::cast<PyExecutor&>(self).core.best().values(0));
            },
            "float32 (rows, best): the logits of best_ids.")
        .def_prop_ro("weight_bytes", [](PyExecutor& self) { return self.core.weights().num_bytes(); })
        .def_prop_ro("scratch_bytes", [](PyExecutor& self) { return self.core.scratch_bytes(); })
        .def_prop_ro("page_bytes", [](PyExecutor& self) { return self.core.page_bytes(); });
    bind_recurrent(m, executor);
}

}  // namespace tl
