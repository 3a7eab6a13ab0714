// common_lines and common_line_scores on device arrays.
#pragma once
#include <pybind11/pybind11.h>

namespace verglas::bind {
void add_common_lines(pybind11::module_& m);
}  // namespace verglas::bind
