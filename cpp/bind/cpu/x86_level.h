// Which x86-64 psABI level does this processor run? Asked before a core is chosen, and by a build for this processor.
#pragma once

namespace verglas {

/// 1 to 4 on x86-64, 0 on other processors.
inline int x86_level() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  // __builtin_cpu_supports("x86-64-vN") needs GCC 12 / Clang 17; the features are named so that older
  // compilers build it.
  const bool v2 = __builtin_cpu_supports("sse4.2") && __builtin_cpu_supports("popcnt");
  const bool v3 =
      v2 && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2");
  const bool v4 = v3 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                  __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
                  __builtin_cpu_supports("avx512vl");
  return v4 ? 4 : v3 ? 3 : v2 ? 2 : 1;
#else
  return 0;
#endif
}

}  // namespace verglas
