#include <vector>

#include "bind/arrays.h"
#include "bind/bind.h"
#include "ops/pack.h"

namespace verglas::bind {
namespace {

/// Runs checked against the sizes of the box, with their offsets.
struct CheckedRuns {
  cpu::Runs runs;
  std::vector<std::size_t> offsets;

  CheckedRuns(const py::object& begin, const py::object& end, std::size_t nx) {
    const auto from = input<std::int32_t>(begin, "begin", {kAny, kAny});
    const auto ny = from.shape[0], nz = from.shape[1];
    const auto to =
        input<std::int32_t>(end, "end", {static_cast<py::ssize_t>(ny), static_cast<py::ssize_t>(nz)});
    for (std::size_t i = 0; i < from.size(); ++i)
      if (from.data[i] < 0 || to.data[i] < from.data[i] || static_cast<std::size_t>(to.data[i]) > nx)
        throw std::invalid_argument("begin, end: expected 0 <= begin <= end <= " + std::to_string(nx) +
                                    ", got " + std::to_string(from.data[i]) + " and " +
                                    std::to_string(to.data[i]));
    runs = {nz, ny, nx, from.data, to.data};
    offsets.resize(ny + 1);
    cpu::run_offsets(runs, offsets.data());
  }

  py::ssize_t total() const { return static_cast<py::ssize_t>(offsets.back()); }
};

bool pack(const py::object& whole, const py::object& begin, const py::object& end, const py::object& packed,
          bool add, int num_threads) {
  const auto box = input<double>(whole, "whole", {kAny, kAny, kAny});
  const CheckedRuns checked(begin, end, box.shape[2]);
  if (box.shape[0] != checked.runs.nz || box.shape[1] != checked.runs.ny)
    throw std::invalid_argument("begin: expected a run for every row of whole, (" +
                                std::to_string(box.shape[1]) + ", " + std::to_string(box.shape[0]) +
                                "), got (" + std::to_string(checked.runs.ny) + ", " +
                                std::to_string(checked.runs.nz) + ")");
  const auto out = output<double>(packed, "packed", {checked.total()});
  checked_threads(num_threads);
  py::gil_scoped_release release;
  return cpu::pack(box.data, checked.runs, checked.offsets.data(), out.data, add, num_threads);
}

void unpack(const py::object& packed, const py::object& begin, const py::object& end, std::size_t first,
            const py::object& out, int num_threads) {
  const auto box = output<double>(out, "out", {kAny, kAny, kAny});
  const CheckedRuns checked(begin, end, box.shape[2]);
  if (box.shape[0] != checked.runs.nz || first + box.shape[1] > checked.runs.ny)
    throw std::invalid_argument("out: expected " + std::to_string(checked.runs.nz) +
                                " planes of rows below " + std::to_string(checked.runs.ny) + ", got " +
                                std::to_string(box.shape[0]) + " of rows " + std::to_string(first) + " to " +
                                std::to_string(first + box.shape[1]));
  const auto from = input<double>(packed, "packed", {checked.total()});
  checked_threads(num_threads);
  py::gil_scoped_release release;
  cpu::unpack(from.data, checked.runs, checked.offsets.data(), first, box.shape[1], box.data, num_threads);
}

}  // namespace

void bind_pack(py::module_& m) {
  m.def("pack", &pack);
  m.def("unpack", &unpack);
}

}  // namespace verglas::bind
