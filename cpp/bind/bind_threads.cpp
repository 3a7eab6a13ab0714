#include <omp.h>

#include "bind/arrays.h"
#include "bind/bind.h"

namespace verglas::bind {
namespace {

/// How many threads OpenMP really starts when asked for num_threads: limits of the system and of OMP_* show here.
int threads_used(int num_threads) {
  checked_threads(num_threads);
  int used = 0;
  py::gil_scoped_release release;
#pragma omp parallel num_threads(num_threads) reduction(+ : used)
  used += 1;
  return used;
}

}  // namespace

void bind_threads(py::module_& m) { m.def("threads_used", &threads_used, py::arg("num_threads")); }

}  // namespace verglas::bind
