// The only place that checks NumPy arrays. Nothing is converted or copied: a wrong dtype, shape or layout is
// an error that names the argument, what was expected and what came.
#pragma once
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <complex>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <stdexcept>
#include <string>
#include <vector>

namespace verglas::bind {

namespace py = pybind11;
constexpr py::ssize_t kAny = -1;

template <class T>
const char* dtype_name();
template <>
inline const char* dtype_name<float>() {
  return "float32";
}
template <>
inline const char* dtype_name<double>() {
  return "float64";
}
template <>
inline const char* dtype_name<std::complex<float>>() {
  return "complex64";
}
template <>
inline const char* dtype_name<std::complex<double>>() {
  return "complex128";
}
template <>
inline const char* dtype_name<std::int32_t>() {
  return "int32";
}
template <>
inline const char* dtype_name<std::int64_t>() {
  return "int64";
}
template <>
inline const char* dtype_name<std::uint8_t>() {
  return "uint8";
}

/// A checked C-contiguous array: borrowed pointer and shape. The caller keeps the array alive (arguments do).
template <class T>
struct View {
  T* data = nullptr;
  std::vector<std::size_t> shape;
  std::size_t size() const {
    std::size_t n = 1;
    for (auto s : shape) n *= s;
    return n;
  }
};

inline std::string shape_text(const py::array& a) {
  std::string text = "(";
  for (py::ssize_t i = 0; i < a.ndim(); ++i) text += (i ? ", " : "") + std::to_string(a.shape(i));
  return text + (a.ndim() == 1 ? ",)" : ")");
}

inline std::string shape_text(std::initializer_list<py::ssize_t> shape) {
  std::string text = "(";
  std::size_t i = 0;
  for (auto s : shape) text += (i++ ? ", " : "") + (s == kAny ? std::string("any") : std::to_string(s));
  return text + (shape.size() == 1 ? ",)" : ")");
}

template <class T>
void check(const py::handle& object, const char* name, std::initializer_list<py::ssize_t> shape) {
  const std::string expected = std::string(name) + ": expected a C-contiguous " + dtype_name<T>() +
                               " array of shape " + shape_text(shape) + ", got ";
  if (!py::isinstance<py::array>(object))
    throw std::invalid_argument(expected +
                                std::string(py::str(py::type::handle_of(object).attr("__name__"))));
  const auto a = py::reinterpret_borrow<py::array>(object);
  bool good = py::isinstance<py::array_t<T>>(a) && a.ndim() == static_cast<py::ssize_t>(shape.size());
  py::ssize_t axis = 0;
  if (good) {
    for (auto s : shape) good = (s == kAny || a.shape(axis) == s) && good, ++axis;
  }
  if (!good) throw std::invalid_argument(expected + std::string(py::str(a.dtype())) + " " + shape_text(a));
  if (!(a.flags() & py::array::c_style))
    throw std::invalid_argument(expected + "a non-contiguous view (use numpy.ascontiguousarray)");
}

template <class T>
View<T> view_of(const py::array& a, T* data) {
  View<T> v;
  v.data = data;
  for (py::ssize_t i = 0; i < a.ndim(); ++i) v.shape.push_back(static_cast<std::size_t>(a.shape(i)));
  return v;
}

/// Read-only argument of the given shape (kAny = free).
template <class T>
View<const T> input(const py::handle& object, const char* name, std::initializer_list<py::ssize_t> shape) {
  check<T>(object, name, shape);
  const auto a = py::reinterpret_borrow<py::array>(object);
  return view_of<const T>(a, static_cast<const T*>(a.data()));
}

/// Argument that is written in place.
template <class T>
View<T> output(const py::handle& object, const char* name, std::initializer_list<py::ssize_t> shape) {
  check<T>(object, name, shape);
  auto a = py::reinterpret_borrow<py::array>(object);
  if (!a.writeable()) throw std::invalid_argument(std::string(name) + ": the array is read-only");
  return view_of<T>(a, static_cast<T*>(a.mutable_data()));
}

/// A fresh C-contiguous array, uninitialised.
template <class T>
py::array_t<T> make(std::initializer_list<std::size_t> shape) {
  return py::array_t<T>(std::vector<py::ssize_t>(shape.begin(), shape.end()));
}

inline int checked_threads(int num_threads) {
  if (num_threads < 1)
    throw std::invalid_argument("num_threads: expected at least 1, got " + std::to_string(num_threads));
  return num_threads;
}

}  // namespace verglas::bind
