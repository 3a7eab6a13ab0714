// One register function per op of the CUDA module, void bind_cuda_<op>(module); module.cpp calls them all.
#pragma once
#include <pybind11/pybind11.h>

namespace verglas::bind {
#define VG_CUDA(op) void bind_cuda_##op(pybind11::module_& m);
#include "bind/ops.inc"
}  // namespace verglas::bind
