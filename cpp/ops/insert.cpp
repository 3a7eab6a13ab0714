#include "ops/insert.h"

#include <algorithm>
#include <vector>

#include "ops/insert_taps.h"

namespace verglas::cpu {
namespace {

/// The half of the image's disc that is inserted: kx >= 0, and on the column kx = 0 only ky >= 0, because the
/// pixels (0, ky) and (0, -ky) are Friedel mates of each other; the origin counts half, being its own mate.
class ImageReader {
 public:
  ImageReader(const math::GridShape& grid, const InsertInput& input)
      : grid_(grid), input_(input), half_(grid.box / 2 + 1), phases_(grid.box) {}

  void open(std::size_t i) {
    const std::size_t offset = i * grid_.box * half_;
    image_ = input_.images ? input_.images + offset : nullptr;
    ctf_ = input_.ctf ? input_.ctf + offset : nullptr;
    shell_ = input_.shell_weight ? input_.shell_weight + i * (input_.max_radius + 1) : nullptr;
    if (input_.shifts_px) {
      // The adjoint moves the particle back to the centre.
      const double back[2] = {-input_.shifts_px[2 * i], -input_.shifts_px[2 * i + 1]};
      phases_.set(back);
    }
  }

  Sample read(int kx, int ky, int row) const {
    const std::size_t at = static_cast<std::size_t>(row) * half_ + kx;
    Complex x = image_ ? image_[at] : Complex(0);
    if (image_ && !phases_.identity()) x = ShiftPhases::multiply(x, phases_.at(kx, row));
    double weight = kx == 0 && ky == 0 ? 0.5 : 1.0;
    if (shell_) weight *= shell_[math::shell_of(kx, ky)];
    const double c = ctf_ ? ctf_[at] : 1.0;
    return {std::complex<double>(x) * (c * weight), c * c * weight};
  }

 private:
  const math::GridShape& grid_;
  const InsertInput& input_;
  std::size_t half_;
  ShiftPhases phases_;
  const Complex* image_ = nullptr;
  const float* ctf_ = nullptr;
  const float* shell_ = nullptr;
};

/// Range of kx on one row of pixels in which a linear coordinate `start + slope kx` lies in (low, high); conservative.
struct Range {
  int begin, end;
};
Range clip(Range range, double start, double slope, double low, double high) {
  if (slope == 0.0) return start > low && start < high ? range : Range{0, 0};
  double a = (low - start) / slope, b = (high - start) / slope;
  if (a > b) std::swap(a, b);
  // Clamp before the conversion to int: the quotient may be huge where the slope is tiny.
  const double most = range.end, least = range.begin;
  const int begin = static_cast<int>(std::floor(std::clamp(a, least, most)));
  const int end = static_cast<int>(std::ceil(std::clamp(b, least - 1, most - 1))) + 1;
  return {std::max(range.begin, begin), std::min(range.end, end)};
}

/// Inserts the pixels of one image whose taps touch the slab [z_begin, z_end). Along a row of pixels z is
/// linear in kx, with a change of sign where Friedel's mate takes over (x = 0), so the pixels of a slab are two ranges.
/// A curved slice adds to z what lies between two bounds on the row; the ranges are as much wider.
template <int W>
void insert_image(const Window<W>& window, const math::GridShape& grid, const double* matrix,
                  const ImageReader& reader, double curvature, int max_radius, const InsertSums& sums,
                  int z_begin, int z_end) {
  const auto axes = math::slice_axes(matrix, grid);
  const double low = z_begin - grid.extent - W / 2 - 1, high = z_end - grid.extent + W / 2 + 1;
  const int box = grid.box;
  for (int row = 0; row < box; ++row) {
    const int ky = math::frequency(row, box);
    const int last = last_column(ky, max_radius, box);
    const Range all{ky < 0 ? 1 : 0, last + 1};
    if (all.begin >= all.end) continue;
    const double z0 = axes.y[2] * ky, slope = axes.x[2];
    const double y2 = static_cast<double>(ky) * ky, lift = axes.z[2] * curvature;
    const double one = lift * y2, other = lift * (y2 + static_cast<double>(last) * last);
    const double least = std::min(one, other), most = std::max(one, other);
    const Range direct = clip(all, z0, slope, low - most, high - least),
                mates = clip(all, -z0, -slope, low + least, high + most);
    // The union of both ranges, walked in ascending kx: the order of additions is then the same for every slab.
    const bool direct_empty = direct.begin >= direct.end, mates_empty = mates.begin >= mates.end;
    if (direct_empty && mates_empty) continue;
    const int begin = direct_empty  ? mates.begin
                      : mates_empty ? direct.begin
                                    : std::min(direct.begin, mates.begin);
    const int end = direct_empty ? mates.end : mates_empty ? direct.end : std::max(direct.end, mates.end);
    for (int kx = begin; kx < end; ++kx) {
      const auto point = math::curved_point(axes, grid, kx, ky, curvature);
      const int first = math::footprint<W>(point.z).first;
      if (first >= z_end || first + W <= z_begin) continue;
      add_taps<W>(window, grid, point, reader.read(kx, ky, row), sums, z_begin, z_end);
    }
  }
}

template <int W>
void insert_all(const math::GridShape& grid, const WindowTable& table, const InsertInput& input,
                const InsertSums& sums, int num_threads) {
  const Window<W> window(table);
  const int slabs = num_threads == 1 ? 1 : 2 * num_threads;
  const auto bounds = slab_bounds(grid, slabs);
#pragma omp parallel for num_threads(num_threads) schedule(dynamic, 1)
  for (int s = 0; s < slabs; ++s) {
    ImageReader reader(grid, input);
    for (std::size_t i = 0; i < input.n; ++i) {
      reader.open(i);
      insert_image<W>(window, grid, input.matrices + 9 * i, reader,
                      input.curvature ? input.curvature[i] : 0.0, input.max_radius, sums, bounds[s],
                      bounds[s + 1]);
    }
  }
}

}  // namespace

void insert(const math::GridShape& grid, const WindowTable& window, const InsertInput& input,
            const InsertSums& sums, int num_threads) {
  math::with_width(window.width, [&](auto width) {
    insert_all<decltype(width)::value>(grid, window, input, sums, num_threads);
  });
}

namespace {

/// The fold, for complex values (conjugate mates) and real weights (equal mates) alike.
template <class T, class Conjugate>
void fold_array(const math::GridShape& grid, T* array, Conjugate conjugate) {
  const int n = grid.rows(), halo = grid.halo;
  const std::size_t row = grid.columns, plane = row * n;
  for (int z = 0; z < n; ++z) {
    for (int y = 0; y < n; ++y) {
      T* here = array + z * plane + y * row + halo;
      T* mate = array + (n - 1 - z) * plane + (n - 1 - y) * row + halo;
      for (int x = 1; x <= halo; ++x) here[x] += conjugate(mate[-x]);
      if (here > mate) continue;
      // The plane x = 0 holds both members of every pair: each receives the other's conjugate.
      const T a = *here, b = *mate;
      *here = a + conjugate(b);
      *mate = b + conjugate(a);
    }
  }
  // The halo is now counted on its mates: emptied, so that reading it adds nothing. Fold once all the same: a second
  // fold would double the plane x = 0, whose pairs lie outside the halo.
  for (std::size_t r = 0; r < static_cast<std::size_t>(n) * n; ++r) std::fill_n(array + r * row, halo, T(0));
}

/// The grid as symmetrise walks it: the index of a point q is base + q . stride, that of its mate base - q . stride.
struct GridIndex {
  std::ptrdiff_t stride[3], base;

  explicit GridIndex(const math::GridShape& grid)
      : stride{1, grid.columns, static_cast<std::ptrdiff_t>(grid.columns) * grid.rows()},
        base((stride[1] + stride[2]) * grid.extent + grid.halo) {}
};

/// A matrix of the group on that grid: h q lies at base + offset . q, and its x is x . q.
struct Operation {
  std::ptrdiff_t offset[3];
  int x[3];

  Operation(const GridIndex& index, const int* h) : offset{}, x{h[0], h[1], h[2]} {
    for (int a = 0; a < 3; ++a)
      for (int b = 0; b < 3; ++b) offset[b] += index.stride[a] * h[3 * a + b];
  }
  std::ptrdiff_t offset_of(const int* q) const {
    return offset[0] * q[0] + offset[1] * q[1] + offset[2] * q[2];
  }
  int x_of(const int* q) const { return x[0] * q[0] + x[1] * q[1] + x[2] * q[2]; }
};

/// Whether q, stored at base + at, is the last of the stored points that are images h q or their mates.
bool last_of_orbit(const std::vector<Operation>& group, const int* q, std::ptrdiff_t at) {
  for (const Operation& h : group) {
    const std::ptrdiff_t to = h.offset_of(q);
    const int x = h.x_of(q);
    if ((x >= 0 && to > at) || (x <= 0 && -to > at)) return false;
  }
  return true;
}

/// All orbits of a group whose last point lies in the row (z, y): each sum is made once and put at every
/// point of its orbit. Points of one orbit are written by its last point alone, so rows may run in parallel.
template <class T, class Conjugate>
void symmetrise_row(const math::GridShape& grid, const std::vector<Operation>& group, const T* in, int z,
                    int y, T* out, Conjugate conjugate) {
  const GridIndex index(grid);
  for (int x = 0; x <= grid.extent; ++x) {
    const int q[3] = {x, y - grid.extent, z - grid.extent};
    const std::ptrdiff_t at = index.stride[0] * q[0] + index.stride[1] * q[1] + index.stride[2] * q[2];
    if (!last_of_orbit(group, q, at)) continue;
    T sum = 0;
    for (const Operation& h : group) {
      const std::ptrdiff_t from = h.offset_of(q);
      sum += h.x_of(q) < 0 ? conjugate(in[index.base - from]) : in[index.base + from];
    }
    const T mate = conjugate(sum);
    for (const Operation& h : group) {
      const std::ptrdiff_t to = h.offset_of(q);
      const int there = h.x_of(q);
      if (there >= 0) out[index.base + to] = sum;
      if (there <= 0) out[index.base - to] = mate;  // the plane x = 0 holds both members of a pair
    }
  }
}

const auto kComplexMate = [](const std::complex<double>& v) { return std::conj(v); };
const auto kRealMate = [](double v) { return v; };

}  // namespace

void fold_friedel(const math::GridShape& grid, const InsertSums& sums) {
  if (sums.values) fold_array(grid, sums.values, kComplexMate);
  if (sums.weights) fold_array(grid, sums.weights, kRealMate);
}

void symmetrise(const math::GridShape& grid, const InsertSums& in, const int* matrices, int n,
                const InsertSums& out, int num_threads) {
  const GridIndex index(grid);
  std::vector<Operation> group;
  for (int i = 0; i < n; ++i) group.emplace_back(index, matrices + 9 * i);
  const int rows = grid.rows();
  const std::size_t size = static_cast<std::size_t>(index.stride[2]) * rows;
  if (out.values) std::fill_n(out.values, size, std::complex<double>(0));
  if (out.weights) std::fill_n(out.weights, size, 0.0);
  // Last points crowd at large z: planes are dealt out one by one.
#pragma omp parallel for num_threads(num_threads) schedule(dynamic, 1)
  for (int z = 0; z < rows; ++z) {
    for (int y = 0; y < rows; ++y) {
      if (in.values) symmetrise_row(grid, group, in.values, z, y, out.values, kComplexMate);
      if (in.weights) symmetrise_row(grid, group, in.weights, z, y, out.weights, kRealMate);
    }
  }
}

}  // namespace verglas::cpu
