#include "core/cpu_features.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace tl {

#if defined(__x86_64__)
namespace {

// Leaf 7, subleaf 1, EAX bit 4. The builtin does not know the name in every compiler.
bool has_avxvnni() {
    unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
    return __get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx) != 0 && (eax >> 4 & 1) != 0;
}

}  // namespace
#endif

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
    if (avx2 && has_avxvnni()) levels.push_back("avxvnni");
    if (avx512) levels.push_back("avx512");
#endif
    return levels;
}

}  // namespace tl
