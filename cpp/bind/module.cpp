#include <omp.h>
#include <pybind11/pybind11.h>

#include "bind/bind.h"

PYBIND11_MODULE(VERGLAS_MODULE_NAME, m) {
  m.doc() = "verglas CPU kernels, built for one instruction-set level.";
  m.attr("isa") = VERGLAS_ISA_NAME;
  m.attr("version") = VERGLAS_VERSION;
  m.attr("compiler") = __VERSION__;
  m.def("max_threads", &omp_get_max_threads, "What OpenMP would use by default.");
#define VG_CPU(op) verglas::bind::bind_##op(m);
#include "bind/ops.inc"
}
