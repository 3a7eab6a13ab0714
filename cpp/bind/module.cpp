#include <omp.h>
#include <pybind11/pybind11.h>

#include "bind/bind.h"

PYBIND11_MODULE(VERGLAS_MODULE_NAME, m) {
  m.doc() = "verglas CPU kernels, built for one instruction-set level.";
  m.attr("isa") = VERGLAS_ISA_NAME;
  m.attr("version") = VERGLAS_VERSION;
  m.attr("compiler") = __VERSION__;
  m.def("max_threads", &omp_get_max_threads, "What OpenMP would use by default.");
  verglas::bind::bind_threads(m);
  verglas::bind::bind_ctf(m);
  verglas::bind::bind_ctf_score(m);
  verglas::bind::bind_common_lines(m);
  verglas::bind::bind_correlate(m);
  verglas::bind::bind_fft1d(m);
  verglas::bind::bind_peaks(m);
  verglas::bind::bind_project(m);
  verglas::bind::bind_rotate(m);
  verglas::bind::bind_insert(m);
  verglas::bind::bind_match(m);
  verglas::bind::bind_maximise(m);
  verglas::bind::bind_polar(m);
  verglas::bind::bind_refine_pose(m);
  verglas::bind::bind_scatter(m);
  verglas::bind::bind_score(m);
  verglas::bind::bind_shell_dot(m);
  verglas::bind::bind_shift_score(m);
  verglas::bind::bind_warp(m);
}
