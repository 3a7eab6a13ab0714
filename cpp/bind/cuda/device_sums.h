// The sums that insert and polar_insert add to, on the device.
#pragma once
#include "bind/cuda/device_arrays.h"
#include "cuda/insert.h"

namespace verglas::bind {

inline cuda::InsertSums device_sums(const math::GridShape& grid, const py::object& values,
                                    const py::object& weights) {
  const std::initializer_list<py::ssize_t> shape = {grid.rows(), grid.rows(), grid.columns};
  return {as_double2(optional_output<std::complex<double>>(values, "values", shape)),
          optional_output<double>(weights, "weights", shape)};
}

}  // namespace verglas::bind
