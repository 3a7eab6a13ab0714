// The few lines a math test needs: CHECK_NEAR prints what differs and makes main() return 1.
#pragma once
#include <cmath>
#include <cstdio>

namespace check {
inline int failures = 0;
inline int done = 0;
inline void near(double got, double want, double tolerance, const char* what, const char* file, int line) {
  ++done;
  if (!(std::fabs(got - want) <= tolerance)) {
    ++failures;
    std::printf("%s:%d: %s = %.9g, expected %.9g +- %.2g\n", file, line, what, got, want, tolerance);
  }
}
inline int report() {
  std::printf("%d checks, %d failed\n", done, failures);
  return failures == 0 && done > 0 ? 0 : 1;
}
}  // namespace check
#define CHECK_NEAR(got, want, tolerance) check::near((got), (want), (tolerance), #got, __FILE__, __LINE__)
