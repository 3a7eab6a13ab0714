// The only place that checks device arrays (__cuda_array_interface__ version 2 or 3). Nothing is converted or copied.
#pragma once
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <stdexcept>
#include <string>
#include <vector>

#include "bind/arrays.h"
#include "cuda/device.h"

namespace verglas::bind {

template <class T>
const char* typestr();
template <>
inline const char* typestr<float>() {
  return "<f4";
}
template <>
inline const char* typestr<double>() {
  return "<f8";
}
template <>
inline const char* typestr<std::complex<float>>() {
  return "<c8";
}
template <>
inline const char* typestr<std::int32_t>() {
  return "<i4";
}
template <>
inline const char* dtype_name<std::uint32_t>() {
  return "uint32";
}
template <>
inline const char* typestr<std::uint32_t>() {
  return "<u4";
}

template <>
inline const char* typestr<std::complex<double>>() {
  return "<c16";
}
template <>
inline const char* typestr<std::int64_t>() {
  return "<i8";
}
template <>
inline const char* typestr<std::uint8_t>() {
  return "|u1";
}

/// C-contiguous means strides None, or the strides a C-contiguous array of this shape has.
inline bool c_contiguous(const py::dict& face, const std::vector<std::size_t>& shape, std::size_t item) {
  if (!face.contains("strides") || face["strides"].is_none()) return true;
  const auto strides = face["strides"].cast<std::vector<std::size_t>>();
  std::size_t expected = item;
  for (std::size_t axis = shape.size(); axis-- > 0; expected *= shape[axis]) {
    if (shape[axis] != 1 && strides[axis] != expected) return false;
  }
  return true;
}

/// A device array of the given shape (kAny = free); `writable` refuses read-only ones.
template <class T>
View<T> device_view(const py::handle& object, const char* name, std::initializer_list<py::ssize_t> shape,
                    bool writable) {
  const std::string expected = std::string(name) + ": expected a C-contiguous " + dtype_name<T>() +
                               " device array of shape " + shape_text(shape) + ", got ";
  if (!py::hasattr(object, "__cuda_array_interface__"))
    throw std::invalid_argument(expected +
                                std::string(py::str(py::type::handle_of(object).attr("__name__"))) +
                                " (no __cuda_array_interface__)");
  const auto face = py::cast<py::dict>(object.attr("__cuda_array_interface__"));
  View<T> view;
  view.shape = face["shape"].cast<std::vector<std::size_t>>();
  const auto got_type = face["typestr"].cast<std::string>();
  bool good = got_type == typestr<T>() && view.shape.size() == shape.size();
  std::size_t axis = 0;
  if (good) {
    for (auto s : shape)
      good = (s == kAny || view.shape[axis] == static_cast<std::size_t>(s)) && good, ++axis;
  }
  if (!good) throw std::invalid_argument(expected + got_type + " " + std::string(py::str(face["shape"])));
  if (!c_contiguous(face, view.shape, sizeof(T))) throw std::invalid_argument(expected + "a strided view");
  const auto data = face["data"].cast<py::tuple>();
  if (writable && data[1].cast<bool>())
    throw std::invalid_argument(std::string(name) + ": the array is read-only");
  view.data = reinterpret_cast<T*>(data[0].cast<std::uintptr_t>());
  return view;
}

template <class T>
View<const T> device_input(const py::handle& object, const char* name,
                           std::initializer_list<py::ssize_t> shape) {
  auto view = device_view<T>(object, name, shape, false);
  View<const T> out;
  out.data = view.data;
  out.shape = std::move(view.shape);
  return out;
}

template <class T>
View<T> device_output(const py::handle& object, const char* name, std::initializer_list<py::ssize_t> shape) {
  return device_view<T>(object, name, shape, true);
}

/// An input that may be None: then a null pointer.
template <class T>
const T* optional_input(const py::handle& object, const char* name,
                        std::initializer_list<py::ssize_t> shape) {
  return object.is_none() ? nullptr : device_input<T>(object, name, shape).data;
}
template <class T>
T* optional_output(const py::handle& object, const char* name, std::initializer_list<py::ssize_t> shape) {
  return object.is_none() ? nullptr : device_output<T>(object, name, shape).data;
}

/// Complex arrays as CUDA's vectors; the layout is the same.
inline const float2* as_float2(const std::complex<float>* p) { return reinterpret_cast<const float2*>(p); }
inline float2* as_float2(std::complex<float>* p) { return reinterpret_cast<float2*>(p); }
inline double2* as_double2(std::complex<double>* p) { return reinterpret_cast<double2*>(p); }

/// The stream a caller names by address, as CuPy's Stream.ptr does; 0 is the default stream.
inline cuda::Stream stream_of(std::uintptr_t address) { return reinterpret_cast<cuda::Stream>(address); }

}  // namespace verglas::bind
