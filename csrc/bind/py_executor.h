// The executor as Python holds it, shared by the files that bind its methods.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <atomic>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "core/executor.h"

namespace tl {

using Bytes = nanobind::ndarray<const uint8_t, nanobind::ndim<1>, nanobind::c_contig, nanobind::device::cpu>;
using Ints = nanobind::ndarray<const int32_t, nanobind::ndim<1>, nanobind::c_contig, nanobind::device::cpu>;
using Floats = nanobind::ndarray<const float, nanobind::ndim<1>, nanobind::c_contig, nanobind::device::cpu>;

// Keeps what the raw pointers point into alive, and hands out the logits.
struct PyExecutor {
    Executor core;
    std::vector<nanobind::object> keep_alive;
    std::atomic<bool> is_stepping{false};

    explicit PyExecutor(const ExecutorSizes& sizes) : core(sizes) {}

    // False when it was given up because of set_interrupted.
    bool step(Ints token_ids, Ints positions, Ints run_starts, Ints page_ids, Ints page_starts, Ints output_rows,
              Ints state_slots, int first_fast_row, Ints tree_parents, int num_best);
    void step_chain(Ints token_ids, Ints positions, Ints run_starts, Ints page_ids, Ints page_starts, Ints output_rows,
                    nanobind::ndarray<int32_t, nanobind::ndim<3>, nanobind::c_contig, nanobind::device::cpu> ids,
                    nanobind::ndarray<float, nanobind::ndim<3>, nanobind::c_contig, nanobind::device::cpu> logits);
    void release_pages(Ints pages) {
        for (size_t i = 0; i < pages.size(); i++) core.release_page(pages.data()[i]);
    }
    void read_page(int page,
                   nanobind::ndarray<uint8_t, nanobind::ndim<1>, nanobind::c_contig, nanobind::device::cpu> to) {
        check_page_bytes(to.size());
        core.pages()->read(page, to.data());
    }
    void write_page(int page, Bytes from) {
        check_page_bytes(from.size());
        core.pages()->write(page, from.data());
    }
    void check_page_bytes(size_t num_bytes) {
        if (!core.pages()) throw std::invalid_argument("a plan without attention has no pages");
        if (num_bytes != core.pages()->page_bytes()) {
            throw std::invalid_argument(std::to_string(num_bytes) + " bytes for a page of " +
                                        std::to_string(core.pages()->page_bytes()));
        }
    }
    void copy_slots(Ints page_ids, Ints from_slots, Ints to_slots) {
        if (from_slots.size() != to_slots.size()) throw std::invalid_argument("as many slots to copy from as to");
        if (!core.pages()) return;
        core.pages()->copy_slots(page_ids.data(), page_ids.size(), from_slots.data(), to_slots.data(),
                                 from_slots.size());
    }
};

// Adds methods of which, in free-threaded Python, one at a time runs on an object, as the GIL sees to elsewhere. What
// releases the GIL lets the lock go meanwhile, just like that.
template <class T> class LockedClass {
 public:
    explicit LockedClass(nanobind::class_<T>& target) : target_(target) {}
    template <class F, class... Extra> LockedClass& def(const char* name, F&& f, const Extra&... extra) {
        target_.def(name, std::forward<F>(f), extra..., nanobind::lock_self());
        return *this;
    }
    template <class F, class... Extra> LockedClass& def_prop_ro(const char* name, F&& f, const Extra&... extra) {
        target_.def_prop_ro(name, std::forward<F>(f), extra..., nanobind::lock_self());
        return *this;
    }

 private:
    nanobind::class_<T>& target_;
};

// These throw std::invalid_argument for an unknown name.
inline ActFormat act_format(const std::string& name) {
    if (name == "f32") return ActFormat::kF32;
    if (name == "bf16") return ActFormat::kBF16;
    if (name == "int8x32") return ActFormat::kInt8x32;
    if (name == "int8x256") return ActFormat::kInt8x256;
    throw std::invalid_argument("unknown activation format " + name);
}
inline GluActivation glu_activation(const std::string& name) {
    if (name == "silu") return GluActivation::kSilu;
    if (name == "gelu_tanh") return GluActivation::kGeluTanh;
    if (name == "gelu") return GluActivation::kGelu;
    if (name == "swiglu_clamped") return GluActivation::kSwigluClamped;
    if (name == "sigmoid") return GluActivation::kSigmoid;
    throw std::invalid_argument("unknown activation " + name);
}

inline MapFunction map_function(const std::string& name) {
    if (name == "scale") return MapFunction::kScale;
    if (name == "soft_cap") return MapFunction::kSoftCap;
    if (name == "silu") return MapFunction::kSilu;
    if (name == "gelu") return MapFunction::kGelu;
    if (name == "gelu_tanh") return MapFunction::kGeluTanh;
    if (name == "relu") return MapFunction::kRelu;
    if (name == "relu_squared") return MapFunction::kReluSquared;
    throw std::invalid_argument("unknown function " + name);
}

inline KvType kv_type(const std::string& name) {
    if (name == "f32") return KvType::kF32;
    if (name == "f16") return KvType::kF16;
    if (name == "bf16") return KvType::kBF16;
    if (name == "q8_0") return KvType::kQ8_0;
    if (name == "q4_0") return KvType::kQ4_0;
    throw std::invalid_argument("unknown KV type " + name);
}

// Key/value heads and head dimension of each layer that has a place in the cache.
using LayerHeads = std::vector<std::pair<int, int>>;

inline std::vector<KvLayout> kv_layouts(const std::string& k_type, const std::string& v_type,
                                        const LayerHeads& layers) {
    std::vector<KvLayout> layouts;
    for (const auto& [kv_heads, head_dim] : layers) {
        if (kv_heads < 1 || head_dim < 1) throw std::invalid_argument("a layer of the KV cache needs heads");
        layouts.push_back({kv_type(k_type), kv_type(v_type), kv_heads, head_dim});
    }
    return layouts;
}

inline Precision precision_named(const std::string& name) {
    if (name == "int8") return Precision::kInt8;
    if (name == "bf16") return Precision::kBF16;
    if (name == "f32") return Precision::kF32;
    throw std::invalid_argument("activations must be int8, bf16 or f32, not " + name);
}

// The kernels of a GGUF tensor type. Throws std::invalid_argument where there are none.
inline const FormatKernels* format_of(int type, const std::string& activations) {
    const FormatKernels* format = find_format(active_kernels(), type, precision_named(activations));
    if (!format) throw std::invalid_argument("no kernels for tensor type " + std::to_string(type));
    return format;
}

// What a plan will take, before anything is allocated.
void bind_sizes(nanobind::module_& m);

// The stages that keep recurrent state, and the sizes of their states.
void bind_recurrent(nanobind::module_& m, nanobind::class_<PyExecutor>& executor);

}  // namespace tl
