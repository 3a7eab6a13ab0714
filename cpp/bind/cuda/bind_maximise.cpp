#include "bind/cuda/bind_cuda.h"
#include "bind/cuda/polar_tables.h"
#include "cuda/maximise.h"

namespace verglas::bind {
namespace {

using cfloat = std::complex<float>;
using cdouble = std::complex<double>;

const float* complex_floats(const py::dict& from, const char* name,
                            std::initializer_list<py::ssize_t> shape) {
  return reinterpret_cast<const float*>(member_or_null<cfloat>(from, name, shape));
}

cuda::PosteriorTerms posterior_terms(const py::dict& t) {
  cuda::PosteriorTerms out{};
  const auto psi = device_input<double>(t["psi_turns"], "psi_turns", {kAny});
  const auto column = device_input<std::int32_t>(t["column"], "column", {kAny});
  const auto image = device_input<std::int32_t>(t["image"], "image", {kAny});
  const auto slice = device_input<std::int32_t>(t["slice"], "slice", {kAny});
  const auto terms = static_cast<py::ssize_t>(column.size()), groups = static_cast<py::ssize_t>(image.size()),
             slices = static_cast<py::ssize_t>(slice.size());
  out.psi_turns = psi.data;
  out.gamma = member<double>(t, "gamma", {static_cast<py::ssize_t>(psi.size())});
  out.first_entry = member<std::int32_t>(t, "first_entry", {terms + 1});
  out.column = column.data;
  out.opposite = member<std::uint8_t>(t, "opposite", {terms});
  out.first_term = member<std::int32_t>(t, "first_term", {groups + 1});
  out.image = image.data;
  out.first_group = member<std::int32_t>(t, "first_group", {slices + 1});
  out.slice = slice.data;
  out.terms = column.size();
  out.groups = image.size();
  out.slices = slice.size();
  return out;
}

void add(const PolarTablesArgument& grid, const py::dict& terms, const py::dict& arrays,
         std::uintptr_t stream) {
  const auto& g = grid.view;
  const auto t = posterior_terms(terms);
  const auto size = static_cast<py::ssize_t>(g.size);
  const py::ssize_t rings = g.n_rings, groups = static_cast<py::ssize_t>(t.groups);
  cuda::MaximiseArrays a{};
  a.n_power = arrays["n_power"].cast<int>();
  a.b = complex_floats(arrays, "b", {kAny, size});
  a.h = complex_floats(arrays, "h", {kAny, rings, a.n_power});
  a.inv_sigma2 = member<float>(arrays, "inv_sigma2", {kAny, rings});
  a.factors = reinterpret_cast<float*>(
      output_member<cfloat>(arrays, "factors", {static_cast<py::ssize_t>(t.terms), g.max_m + 1}));
  const auto sums = device_output<cdouble>(arrays["numerator"], "numerator", {kAny, size});
  const auto n = static_cast<py::ssize_t>(sums.shape[0]);
  a.numerator = reinterpret_cast<double*>(sums.data);
  a.denominator =
      reinterpret_cast<double*>(output_member<cdouble>(arrays, "denominator", {n, rings, a.n_power}));
  a.harmonics = complex_floats(arrays, "harmonics", {n, size});
  a.power = complex_floats(arrays, "power", {n, rings, a.n_power});
  if (a.harmonics) {
    const py::ssize_t chunks = g.max_m / cuda::kHarmonicChunk + 1;
    a.cross = output_member<double>(arrays, "cross", {groups, chunks, rings});
    a.power_sum = output_member<double>(arrays, "power_sum", {groups, rings});
  }
  py::gil_scoped_release release;
  cuda::maximise_add(g, t, a, stream_of(stream));
}

void residuals(const py::object& order, const py::object& first, const py::object& group_cross,
               const py::object& group_power, const py::object& cross, const py::object& power,
               std::uintptr_t stream) {
  cuda::ResidualGroups g{};
  const auto by_image = device_input<std::int32_t>(order, "order", {kAny});
  const auto parts = device_input<double>(group_cross, "group_cross",
                                          {static_cast<py::ssize_t>(by_image.size()), kAny, kAny});
  const auto out = device_output<double>(cross, "cross", {kAny, static_cast<py::ssize_t>(parts.shape[2])});
  const auto n = static_cast<py::ssize_t>(out.shape[0]), rings = static_cast<py::ssize_t>(parts.shape[2]);
  g.order = by_image.data;
  g.first = device_input<std::int64_t>(first, "first", {n + 1}).data;
  g.cross = parts.data;
  g.power =
      device_input<double>(group_power, "group_power", {static_cast<py::ssize_t>(by_image.size()), rings})
          .data;
  g.n = out.shape[0];
  g.chunks = static_cast<int>(parts.shape[1]);
  g.n_rings = static_cast<int>(rings);
  double* p = device_output<double>(power, "power", {n, rings}).data;
  py::gil_scoped_release release;
  cuda::maximise_residuals(g, out.data, p, stream_of(stream));
}

void slices(const PolarTablesArgument& grid, const py::object& numerator, const py::object& denominator,
            const py::object& index, const py::object& values, const py::object& weights,
            std::uintptr_t stream) {
  const auto& g = grid.view;
  const auto num = device_input<cdouble>(numerator, "numerator", {kAny, static_cast<py::ssize_t>(g.size)});
  const auto den = device_input<cdouble>(denominator, "denominator",
                                         {static_cast<py::ssize_t>(num.shape[0]), g.n_rings, kAny});
  const auto i = device_input<std::int64_t>(index, "index", {kAny});
  const auto n = static_cast<py::ssize_t>(i.size());
  float* v = reinterpret_cast<float*>(device_output<cfloat>(values, "values", {n, g.n_rings, g.half()}).data);
  float* w = device_output<float>(weights, "weights", {n, g.n_rings, g.half()}).data;
  py::gil_scoped_release release;
  cuda::maximise_slices(g, static_cast<int>(den.shape[2]), reinterpret_cast<const double*>(num.data),
                        reinterpret_cast<const double*>(den.data), i.data, i.size(), v, w, stream_of(stream));
}

}  // namespace

void bind_cuda_maximise(py::module_& m) {
  m.attr("HARMONIC_CHUNK") = cuda::kHarmonicChunk;
  m.def("maximise_add", &add);
  m.def("maximise_residuals", &residuals);
  m.def("maximise_slices", &slices);
}

}  // namespace verglas::bind
