#include "core/cpu_features.h"

#if defined(__x86_64__)
#include <cpuid.h>
#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif
#endif

namespace tl {

#if defined(__x86_64__)
namespace {

// Leaf 1, ECX bit 29. The builtin does not know this name, nor the next, in every compiler.
[[maybe_unused]] bool has_f16c() {
    unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
    return __get_cpuid(1, &eax, &ebx, &ecx, &edx) != 0 && (ecx >> 29 & 1) != 0;
}

// Leaf 7, subleaf 1, EAX bit 4.
[[maybe_unused]] bool has_avxvnni() {
    unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
    return __get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx) != 0 && (eax >> 4 & 1) != 0;
}

// Tiles of int8 and bfloat16 (leaf 7, EDX bits 22, 24 and 25). Their eight kilobytes of state have to be asked for: the
// system then saves them for all threads of the process.
[[maybe_unused]] bool has_amx() {
#if defined(__linux__) && defined(SYS_arch_prctl)
    constexpr unsigned kBits = 1u << 22 | 1u << 24 | 1u << 25;
    constexpr int kRequestPermission = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
    unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
    if (!__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) || (edx & kBits) != kBits) return false;
    return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
    return false;
#endif
}

}  // namespace
#endif

std::vector<std::string> available_levels() {
    std::vector<std::string> levels{"scalar"};
#if defined(__x86_64__)
    // These builtins ask CPUID and, for the state of wide registers, XGETBV: what the system does not save is
    // not reported.
    __builtin_cpu_init();
    [[maybe_unused]] const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c();
    [[maybe_unused]] const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") &&
                                         __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
                                         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vnni") &&
                                         __builtin_cpu_supports("avx512bf16");
    // Only levels that this build has (TORCHLESS_LEVELS).
#if defined(TL_HAS_AVX2)
    if (avx2) levels.push_back("avx2");
#endif
#if defined(TL_HAS_AVXVNNI)
    if (avx2 && has_avxvnni()) levels.push_back("avxvnni");
#endif
#if defined(TL_HAS_AVX512)
    if (avx512) levels.push_back("avx512");
#endif
#if defined(TL_HAS_AMX)
    static const bool amx = has_amx();
    if (avx512 && amx) levels.push_back("amx");
#endif
#endif
    return levels;
}

}  // namespace tl
