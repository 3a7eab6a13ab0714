#include "bind/cuda/bind_cuda.h"
#include "bind/cuda/polar_tables.h"
#include "bind/score_settings.h"
#include "cuda/score.h"

namespace verglas::bind {
namespace {

using cfloat = std::complex<float>;

void pack(const PolarTablesArgument& grid, const py::tuple& layout, const py::object& harmonics,
          const py::object& power, const py::object& tiles, std::uintptr_t stream) {
  const auto l = tile_layout(grid, layout);
  const auto a =
      device_input<cfloat>(harmonics, "harmonics", {kAny, static_cast<py::ssize_t>(grid.view.size)});
  const auto n = static_cast<py::ssize_t>(a.shape[0]);
  const auto p = device_input<cfloat>(power, "power", {n, grid.view.n_rings, l.n_power});
  float* out = device_output<float>(tiles, "tiles",
                                    {(n + cuda::kProductTile - 1) / cuda::kProductTile, tile_floats(l)})
                   .data;
  py::gil_scoped_release release;
  cuda::score_pack(grid.view, l, reinterpret_cast<const float*>(a.data),
                   reinterpret_cast<const float*>(p.data), a.shape[0], out, stream_of(stream));
}

void power_rows(const PolarTablesArgument& grid, const py::tuple& layout, const py::object& settings,
                const py::object& cp, const py::object& image, const py::object& tiles,
                std::uintptr_t stream) {
  const auto l = tile_layout(grid, layout);
  const auto told = score_settings(settings);
  const auto p = device_input<cfloat>(cp, "power", {kAny, grid.view.n_rings, l.n_power});
  const auto rows = device_input<std::int32_t>(image, "image", {kAny});
  const auto n = static_cast<py::ssize_t>(rows.size()) / cuda::kProductTile;
  float* out = device_output<float>(tiles, "tiles", {n, tile_floats(l)}).data;
  py::gil_scoped_release release;
  cuda::score_power_rows(grid.view, l, told, reinterpret_cast<const float*>(p.data), rows.data, rows.size(),
                         out, stream_of(stream));
}

/// One batch of images against the reference: problem and state as dictionaries of device arrays, checked once.
class ScoreBatch {
 public:
  ScoreBatch(const PolarTablesArgument& grid, const py::tuple& layout, const py::object& settings,
             const py::dict& problem, const py::dict& state)
      : grid_(grid), arrays_(problem), state_arrays_(state) {
    auto& p = problem_;
    p.grid = grid.view;
    p.layout = tile_layout(grid, layout);
    first_ = layout[0];
    p.settings = score_settings(settings);
    p.n_shifts = problem["n_shifts"].cast<std::size_t>();
    p.n_images = problem["n_images"].cast<std::size_t>();
    p.basis = member<float>(problem, "basis", {p.row_tiles(), p.chunks(), 4, cuda::kFragment});
    const auto prior = device_input<float>(problem["prior"], "prior", {kAny, 2});
    p.prior = prior.data;
    p.n_slices = prior.shape[0];
    p.slices =
        member<float>(problem, "slices", {static_cast<py::ssize_t>(p.slice_tiles()), tile_floats(p.layout)});
    const auto columns = device_input<float>(problem["columns"], "columns", {kAny, tile_floats(p.layout)});
    p.columns = columns.data;
    p.n_tiles = columns.shape[0];
    const auto each = static_cast<py::ssize_t>(p.n_tiles) * cuda::kProductTile,
               n = static_cast<py::ssize_t>(p.n_images);
    p.image = member<std::int32_t>(problem, "image", {each});
    p.shift = member<std::int32_t>(problem, "shift", {each});
    p.log_shift = member<float>(problem, "log_shift", {each});
    p.log_psi = member_or_null<float>(problem, "log_psi", {p.settings.n_psi});
    p.norm = member_or_null<float>(problem, "norm", {n});
    const auto sides = problem["sides"].cast<std::pair<bool, bool>>();
    p.sides[0] = sides.first;
    p.sides[1] = sides.second;
    auto& s = state_;
    const auto chunks = static_cast<py::ssize_t>(p.slice_chunks());
    s.best = output_member<std::uint32_t>(state, "best", {n, 2 * static_cast<py::ssize_t>(p.n_slices)});
    s.top = output_member<float>(state, "top", {n});
    s.threshold = output_member<float>(state, "threshold", {n});
    s.cut = output_member<float>(state, "cut", {n});
    s.sums = output_member<double>(state, "sums", {each, chunks});
    s.counts = output_member<std::int64_t>(state, "counts", {each, chunks});
    s.bins = output_member<std::int32_t>(state, "bins", {kAny, cuda::kScoreBins});
    s.last_bin = output_member<std::int32_t>(state, "last_bin", {n});
    s.wanted = output_member<std::uint8_t>(state, "wanted", {n});
  }

  std::size_t list_room() const { return problem_.settings.list_room(); }
  void maxima(std::uintptr_t stream) { run(cuda::ScorePass::kMaxima, stream); }
  void sums(std::uintptr_t stream) { run(cuda::ScorePass::kSums, stream); }

  void choose(std::uintptr_t stream) {
    py::gil_scoped_release release;
    cuda::score_choose(problem_, state_, stream_of(stream));
  }
  void totals(const py::object& log_sum, const py::object& count, std::uintptr_t stream) {
    const auto n = static_cast<py::ssize_t>(problem_.n_images);
    double* sum = device_output<double>(log_sum, "log_sum", {n}).data;
    auto* number = device_output<std::int64_t>(count, "count", {n}).data;
    py::gil_scoped_release release;
    cuda::score_totals(problem_, state_, sum, number, stream_of(stream));
  }
  /// Cuts the lists of the images that `wanted` marks.
  void limit(const py::object& bins, const py::object& count, std::uintptr_t stream) {
    const auto n = static_cast<py::ssize_t>(problem_.n_images);
    state_.bins = device_output<std::int32_t>(bins, "bins", {n, cuda::kScoreBins}).data;
    auto* number = device_output<std::int64_t>(count, "count", {n}).data;
    run(cuda::ScorePass::kLimit, stream);
    py::gil_scoped_release release;
    cuda::score_limit(problem_, state_, number, stream_of(stream));
  }
  void collect(const py::object& cursor, const py::object& score, const py::object& pose,
               std::uintptr_t stream) {
    const auto scores = device_output<float>(score, "score", {kAny});
    state_.score = scores.data;
    state_.pose = device_output<std::int64_t>(pose, "pose", {static_cast<py::ssize_t>(scores.size())}).data;
    state_.cursor =
        device_output<std::int64_t>(cursor, "cursor", {static_cast<py::ssize_t>(problem_.n_images)}).data;
    run(cuda::ScorePass::kCollect, stream);
  }

 private:
  const PolarTablesArgument& grid_;
  py::dict arrays_, state_arrays_;
  py::object first_;
  cuda::ScoreProblem problem_{};
  cuda::ScoreState state_{};

  void run(cuda::ScorePass pass, std::uintptr_t stream) {
    py::gil_scoped_release release;
    cuda::score_pass(problem_, state_, pass, stream_of(stream));
  }
};

void trim(const py::object& settings, const py::object& score, const py::object& offsets,
          const py::object& log_sum, const py::object& kept, const py::object& mass, std::uintptr_t stream) {
  const auto told = score_settings(settings);
  const auto sums = device_input<double>(log_sum, "log_sum", {kAny});
  const auto n = static_cast<py::ssize_t>(sums.size());
  const auto s = device_input<float>(score, "score", {kAny});
  const auto o = device_input<std::int64_t>(offsets, "offsets", {n + 1});
  auto* count = device_output<std::int64_t>(kept, "kept", {n}).data;
  double* held = device_output<double>(mass, "mass", {n}).data;
  py::gil_scoped_release release;
  cuda::score_trim(told, s.data, o.data, sums.data, sums.size(), count, held, stream_of(stream));
}

}  // namespace

void bind_cuda_score(py::module_& m) {
  m.attr("SCORE_BINS") = cuda::kScoreBins;
  m.attr("SLICE_TILES") = cuda::kSliceTiles;
  m.def("score_pack", &pack);
  m.def("score_power_rows", &power_rows);
  m.def("score_trim", &trim);
  py::class_<ScoreBatch>(m, "ScoreBatch", py::module_local())
      .def(py::init<const PolarTablesArgument&, const py::tuple&, const py::object&, const py::dict&,
                    const py::dict&>(),
           py::keep_alive<1, 2>())
      .def_property_readonly("list_room", &ScoreBatch::list_room)
      .def("maxima", &ScoreBatch::maxima)
      .def("choose", &ScoreBatch::choose)
      .def("sums", &ScoreBatch::sums)
      .def("totals", &ScoreBatch::totals)
      .def("limit", &ScoreBatch::limit)
      .def("collect", &ScoreBatch::collect);
}

}  // namespace verglas::bind
