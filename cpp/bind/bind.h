// One register function per op, void bind_<op>(module); module.cpp calls them all.
#pragma once
#include <pybind11/pybind11.h>

namespace verglas::bind {
#define VG_CPU(op) void bind_##op(pybind11::module_& m);
#include "bind/ops.inc"
}  // namespace verglas::bind
