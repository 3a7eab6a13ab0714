// The polar grid's tables and the arguments that score, score_cells and maximise share, checked once.
#pragma once
#include <string>

#include "bind/cuda/device_arrays.h"
#include "cuda/polar_weighted.h"

namespace verglas::bind {

/// cuda::PolarTables with what it points to held alive.
struct PolarTablesArgument {
  cuda::PolarTables view;
  py::dict arrays;
};

/// A device array of the dictionary; a null pointer where it holds None.
template <class T>
const T* member_or_null(const py::dict& from, const char* name, std::initializer_list<py::ssize_t> shape) {
  const py::object value = from[name];
  return value.is_none() ? nullptr : device_input<T>(value, name, shape).data;
}
template <class T>
const T* member(const py::dict& from, const char* name, std::initializer_list<py::ssize_t> shape) {
  return device_input<T>(from[name], name, shape).data;
}
template <class T>
T* output_member(const py::dict& from, const char* name, std::initializer_list<py::ssize_t> shape) {
  return device_output<T>(from[name], name, shape).data;
}

/// (first, fragments, n_power)
inline cuda::TileLayout tile_layout(const PolarTablesArgument& grid, const py::tuple& layout) {
  cuda::TileLayout out{};
  out.first = device_input<std::int32_t>(layout[0], "layout.first", {grid.view.max_m + 2}).data;
  out.fragments = layout[1].cast<int>();
  out.n_power = layout[2].cast<int>();
  return out;
}

inline py::ssize_t tile_floats(const cuda::TileLayout& layout) {
  return static_cast<py::ssize_t>(layout.floats());
}

}  // namespace verglas::bind
