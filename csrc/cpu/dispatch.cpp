// Chooses the kernel table once, at import: the best level of this machine, or the one named by TORCHLESS_ISA.
#include "cpu/dispatch.h"

#include <algorithm>
#include <cstdlib>
#include <stdexcept>

#include "core/cpu_features.h"

namespace tl {

const Kernels* kernels_of_level(const std::string& level) {
    const std::vector<std::string> levels = available_levels();
    if (std::find(levels.begin(), levels.end(), level) == levels.end()) return nullptr;
#if defined(TL_HAS_AMX)
    if (level == "amx") return &amx::kernels();
#endif
#if defined(TL_HAS_AVX512)
    if (level == "avx512") return &avx512::kernels();
#endif
#if defined(TL_HAS_AVXVNNI)
    if (level == "avxvnni") return &avxvnni::kernels();
#endif
#if defined(TL_HAS_AVX2)
    if (level == "avx2") return &avx2::kernels();
#endif
    return level == "scalar" ? &scalar::kernels() : nullptr;
}

const Kernels& active_kernels() {
    static const Kernels& chosen = [&]() -> const Kernels& {
        std::string names;
        for (const std::string& level : available_levels()) names += (names.empty() ? "" : ", ") + level;
        const char* forced = std::getenv("TORCHLESS_ISA");
        const std::string level = forced && *forced ? forced : available_levels().back();
        const Kernels* kernels = kernels_of_level(level);
        if (!kernels) {
            throw std::runtime_error("TORCHLESS_ISA=" + level +
                                     " is not available on this machine; it offers: " + names);
        }
        return *kernels;
    }();
    return chosen;
}

}  // namespace tl
