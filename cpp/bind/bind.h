// One register function per op; module.cpp calls them all.
#pragma once
#include <pybind11/pybind11.h>

namespace verglas::bind {
void bind_ctf(pybind11::module_& m);
void bind_ctf_score(pybind11::module_& m);
void bind_common_lines(pybind11::module_& m);
void bind_correlate(pybind11::module_& m);
void bind_fft1d(pybind11::module_& m);
void bind_insert(pybind11::module_& m);
void bind_match(pybind11::module_& m);
void bind_maximise(pybind11::module_& m);
void bind_peaks(pybind11::module_& m);
void bind_project(pybind11::module_& m);
void bind_rotate(pybind11::module_& m);
void bind_polar(pybind11::module_& m);
void bind_refine_pose(pybind11::module_& m);
void bind_scatter(pybind11::module_& m);
void bind_threads(pybind11::module_& m);
void bind_score(pybind11::module_& m);
void bind_shell_dot(pybind11::module_& m);
void bind_shift_score(pybind11::module_& m);
void bind_warp(pybind11::module_& m);
}  // namespace verglas::bind
