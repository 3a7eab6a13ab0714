#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <sstream>
#include <string>
#include <vector>

#include "bind/cuda/bind_cuda.h"
#include "cuda/advice.h"
#include "cuda/device.h"
#include "cuda/state.h"

namespace py = pybind11;

namespace {

std::vector<std::string> architectures() {
  std::istringstream names(VERGLAS_CUDA_ARCHITECTURE_NAMES);
  std::vector<std::string> list;
  for (std::string name; names >> name;) list.push_back(name);
  return list;
}

py::object version(int number) {
  if (number == 0) return py::none();
  return py::str(std::to_string(number / 1000) + "." + std::to_string(number % 1000 / 10));
}

// Asked apart from the state: it makes a context on the device, which takes time and memory.
py::tuple memory(int device) {
  const auto m = verglas::cuda::memory(device);
  return py::make_tuple(m.free_bytes, m.total_bytes);
}

py::dict state() {
  const auto s = verglas::cuda::state();
  py::list devices;
  for (const auto& d : s.devices) {
    py::dict one;
    one["name"] = d.name;
    one["compute_capability"] = std::to_string(d.major) + "." + std::to_string(d.minor);
    one["memory_bytes"] = d.memory_bytes;
    devices.append(one);
  }
  py::dict out;
  out["driver"] = version(s.driver);
  out["runtime"] = version(s.runtime);
  out["architectures"] = architectures();
  out["devices"] = devices;
  out["reason"] = s.reason.empty() ? py::object(py::none()) : py::object(py::str(s.reason));
  return out;
}

}  // namespace

PYBIND11_MODULE(VERGLAS_CUDA_MODULE, m) {
  m.doc() = "verglas CUDA kernels on device arrays (__cuda_array_interface__).";
  m.attr("version") = VERGLAS_VERSION;
  m.def("state", &state,
        "Driver, runtime, devices, architectures of the build; reason when there is no device.");
  m.def("memory", &memory, py::arg("device"), "Free and total bytes of a device, now.");
  m.def("advice", &verglas::cuda::advice, py::arg("code"),
        "What to do about an error of the CUDA runtime, by its number.");
  // Translated once, at the edge: a failed CUDA call is a verglas.DeviceError.
  py::register_exception_translator([](std::exception_ptr raised) {
    try {
      if (raised) std::rethrow_exception(raised);
    } catch (const verglas::cuda::CudaError& error) {
      const bool memory = verglas::cuda::is_out_of_memory(error.code());
      const py::object type =
          py::module_::import("verglas.errors").attr(memory ? "DeviceMemoryError" : "DeviceError");
      PyErr_SetString(type.ptr(), (error.what() + ("; " + verglas::cuda::advice(error.code()))).c_str());
    }
  });
#define VG_CUDA(op) verglas::bind::bind_cuda_##op(m);
#include "bind/ops.inc"
}
