#include "core/cpu_features.h"

namespace tl {

std::vector<std::string> available_levels() {
    std::vector<std::string> levels{"scalar"};
#if defined(__x86_64__)
    // These builtins ask CPUID and, for the state of wide registers, XGETBV: what the system does not save is
    // not reported.
    __builtin_cpu_init();
    const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
    const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
                        __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512bf16");
    if (avx2) levels.push_back("avx2");
    if (avx512) levels.push_back("avx512");
#endif
    return levels;
}

}  // namespace tl
