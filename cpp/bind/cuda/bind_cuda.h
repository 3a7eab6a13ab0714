// One register function per op of the CUDA module; module.cpp calls them all.
#pragma once
#include <pybind11/pybind11.h>

namespace verglas::bind {
void bind_cuda_ctf(pybind11::module_& m);
void bind_cuda_polar(pybind11::module_& m);
void bind_cuda_polar_weighted(pybind11::module_& m);
void bind_cuda_score(pybind11::module_& m);
void bind_cuda_images(pybind11::module_& m);
void bind_cuda_score_cells(pybind11::module_& m);
void bind_cuda_insert(pybind11::module_& m);
void bind_cuda_maximise(pybind11::module_& m);
void bind_cuda_project(pybind11::module_& m);
void bind_cuda_refine_pose(pybind11::module_& m);
}  // namespace verglas::bind
