#include "ops/insert.h"

#include <algorithm>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "ops/insert_taps.h"

namespace verglas::cpu {
namespace {

/// A pixel on its way into the sums: where its taps begin, its place between them, and the factors of what it adds.
struct Entry {
  std::int16_t first[3];  // z, y, x
  float t[3];
  Complex value;  // shifted back, and conjugate where Friedel's mate was taken
  float ctf, weight;

  TapPlace place() const { return {{first[0], t[0]}, {first[1], t[1]}, {first[2], t[2]}}; }
  Sample sample() const {
    const double c = ctf, w = weight;
    return {std::complex<double>(value) * (c * w), c * c * w};
  }
};

/// A pixel's taps, and whether Friedel's mate was taken.
struct PixelPlace {
  TapPlace taps;
  bool mate;
};

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

  Entry read(int kx, int ky, int row, const PixelPlace& at_grid) const {
    const TapPlace& place = at_grid.taps;
    const std::size_t at = static_cast<std::size_t>(row) * half_ + kx;
    Complex x = image_ ? image_[at] : Complex(0);
    if (image_ && !phases_.identity()) x = ShiftPhases::multiply(x, phases_.at(kx, row));
    float weight = kx == 0 && ky == 0 ? 0.5f : 1.0f;
    if (shell_) weight *= shell_[math::shell_of(kx, ky)];
    const auto narrow = [](int first) { return static_cast<std::int16_t>(first); };
    return {{narrow(place.z.first), narrow(place.y.first), narrow(place.x.first)},
            {place.z.t, place.y.t, place.x.t},
            at_grid.mate ? std::conj(x) : x,
            ctf_ ? ctf_[at] : 1.0f,
            weight};
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

/// Places of pixels begin .. last of one row. One body for all callers: pixels are counted first and put second, and a
/// product that is fused with a sum in one of two copies may round across the border of a cell.
template <int W>
__attribute__((noinline, noclone)) void place_row(const math::GridShape& grid, const math::SliceAxes& axes,
                                                  double curvature, int ky, int begin, int last,
                                                  PixelPlace* out) {
  for (int kx = begin; kx <= last; ++kx) {
    const auto point = math::curved_point(axes, grid, kx, ky, curvature);
    out[kx] = {TapPlace::of<W>(point), point.mate};
  }
}

/// Calls f(kx, ky, row, place) for the pixels of an image that are inserted, in the order of the image.
template <int W, class F>
void for_each_pixel(const math::GridShape& grid, const InsertInput& input, std::size_t i, F f) {
  const auto axes = math::slice_axes(input.matrices + 9 * i, grid);
  const double curvature = input.curvature ? input.curvature[i] : 0.0;
  std::vector<PixelPlace> places(grid.box / 2 + 1);
  for (int row = 0; row < grid.box; ++row) {
    const int ky = math::frequency(row, grid.box);
    const int begin = ky < 0 ? 1 : 0, last = last_column(ky, input.max_radius, grid.box);
    place_row<W>(grid, axes, curvature, ky, begin, last, places.data());
    for (int kx = begin; kx <= last; ++kx) f(kx, ky, row, places[kx]);
  }
}

/// Of the sums of a tile: what stays in a core's own cache while it is filled.
constexpr std::size_t kTileBytes = 900 << 10;
/// Of entries at a time, or a share of a large grid: the more images are sorted at once, the seldomer a tile is fetched.
constexpr std::size_t kEntryBytes = 96 << 20, kGridShare = 8;

/// The grid cut into tiles: whole rows of x, `side` of them in y and in z.
struct Tiling {
  int side, per_axis;

  explicit Tiling(const math::GridShape& grid) : side(16) {
    const std::size_t row = grid.columns * (sizeof(std::complex<double>) + sizeof(double));
    // No tile is thinner than the widest window: taps then lie in two tiles of an axis at most.
    while (side > 8 && side * side * row > kTileBytes) side /= 2;
    per_axis = (grid.rows() + side - 1) / side;
  }
  int count() const { return per_axis * per_axis; }
  GridRows rows(int tile) const {
    const int z = tile / per_axis * side, y = tile % per_axis * side;
    return {z, z + side, y, y + side};
  }
  /// Calls f(tile) for the tiles that W taps from each of these places touch: one, two or four.
  template <int W, class F>
  void for_each_touched(int z_first, int y_first, F f) const {
    for (int z = z_first / side; z <= (z_first + W - 1) / side; ++z)
      for (int y = y_first / side; y <= (y_first + W - 1) / side; ++y) f(z * per_axis + y);
  }
};

/// Room for entries, kept from one piece to the next: fresh pages are cleared by the system, which is as dear as filling.
class EntryRoom {
 public:
  Entry* of(std::size_t count) {
    if (count > size_) {
      entries_.reset();
      entries_.reset(new Entry[count]);
      size_ = count;
    }
    return entries_.get();
  }

 private:
  std::unique_ptr<Entry[]> entries_;
  std::size_t size_ = 0;
};

/// Images [begin, end), tile by tile. Entries lie in the order of the images within each tile, and a tile is filled by
/// one thread, so that a grid point sees the additions it would see without tiles.
template <int W>
class TiledImages {
 public:
  TiledImages(const math::GridShape& grid, const Tiling& tiling, const InsertInput& input, std::size_t begin,
              std::size_t end, EntryRoom& room, int num_threads)
      : grid_(grid), tiling_(tiling), input_(input), begin_(begin), end_(end), num_threads_(num_threads) {
    const int tiles = tiling.count();
    std::vector<std::vector<std::size_t>> next(num_threads, std::vector<std::size_t>(tiles, 0));
    for_each_share([&](int share, std::size_t i) { count(i, next[share].data()); });
    starts_.assign(tiles + 1, 0);
    std::size_t total = 0;
    for (int tile = 0; tile < tiles; ++tile) {
      for (auto& share : next) total += std::exchange(share[tile], total);
      starts_[tile + 1] = total;
    }
    entries_ = room.of(total + total / 16);
    for_each_share([&](int share, std::size_t i) { put(i, next[share].data()); });
  }

  void add_to(const Window<W>& window, const InsertSums& sums) const {
#pragma omp parallel for num_threads(num_threads_) schedule(dynamic, 1)
    for (int tile = 0; tile < tiling_.count(); ++tile) {
      const GridRows rows = tiling_.rows(tile);
      for (std::size_t e = starts_[tile]; e < starts_[tile + 1]; ++e)
        add_taps<W>(window, grid_, entries_[e].place(), entries_[e].sample(), sums, rows);
    }
  }

 private:
  /// f(share, image): as many shares as threads, each of images that follow one another.
  template <class F>
  void for_each_share(F f) const {
    const std::size_t n = end_ - begin_;
#pragma omp parallel for num_threads(num_threads_) schedule(static, 1)
    for (int share = 0; share < num_threads_; ++share)
      for (std::size_t i = begin_ + n * share / num_threads_; i < begin_ + n * (share + 1) / num_threads_;
           ++i)
        f(share, i);
  }

  void count(std::size_t i, std::size_t* counts) const {
    for_each_pixel<W>(grid_, input_, i, [&](int, int, int, const PixelPlace& place) {
      tiling_.for_each_touched<W>(place.taps.z.first, place.taps.y.first, [&](int tile) { ++counts[tile]; });
    });
  }

  void put(std::size_t i, std::size_t* next) {
    ImageReader reader(grid_, input_);
    reader.open(i);
    for_each_pixel<W>(grid_, input_, i, [&](int kx, int ky, int row, const PixelPlace& place) {
      const Entry entry = reader.read(kx, ky, row, place);
      tiling_.for_each_touched<W>(place.taps.z.first, place.taps.y.first,
                                  [&](int tile) { entries_[next[tile]++] = entry; });
    });
  }

  const math::GridShape& grid_;
  const Tiling& tiling_;
  const InsertInput& input_;
  std::size_t begin_, end_;
  int num_threads_;
  std::vector<std::size_t> starts_;
  Entry* entries_ = nullptr;
};

/// Bytes of an image's entries: more of them than pixels, because taps on a border go to two tiles of an axis.
template <int W>
double entry_bytes(const Tiling& tiling, int max_radius) {
  const double touched = 1.0 + (W - 1.0) / tiling.side, pixels = math::kPi / 2 * max_radius * max_radius;
  return std::max(1.0, pixels) * sizeof(Entry) * std::max(1.5, touched * touched);
}

/// Images whose entries fill the room.
template <int W>
std::size_t images_at_a_time(const math::GridShape& grid, const Tiling& tiling, int max_radius) {
  const std::size_t plane = static_cast<std::size_t>(grid.rows()) * grid.columns;
  const std::size_t share =
      plane * grid.rows() * (sizeof(std::complex<double>) + sizeof(double)) / kGridShare;
  const double images = std::max(kEntryBytes, share) / entry_bytes<W>(tiling, max_radius);
  return static_cast<std::size_t>(std::max(1.0, images));
}

template <int W>
void insert_all(const math::GridShape& grid, const WindowTable& table, const InsertInput& input,
                const InsertSums& sums, int num_threads) {
  const Window<W> window(table);
  const Tiling tiling(grid);
  const std::size_t piece = images_at_a_time<W>(grid, tiling, input.max_radius);
  EntryRoom room;
  for (std::size_t begin = 0; begin < input.n; begin += piece) {
    const std::size_t end = std::min(input.n, begin + piece);
    TiledImages<W>(grid, tiling, input, begin, end, room, num_threads).add_to(window, sums);
  }
}

}  // namespace

void insert(const math::GridShape& grid, const WindowTable& window, const InsertInput& input,
            const InsertSums& sums, int num_threads) {
  math::with_width(window.width, [&](auto width) {
    insert_all<decltype(width)::value>(grid, window, input, sums, num_threads);
  });
}

std::size_t insert_room_bytes(const math::GridShape& grid, const WindowTable& window, std::size_t n,
                              int max_radius) {
  double bytes = 0;
  math::with_width(window.width, [&](auto width) {
    constexpr int W = decltype(width)::value;
    const Tiling tiling(grid);
    const std::size_t at_a_time = std::min(n, images_at_a_time<W>(grid, tiling, max_radius));
    bytes = static_cast<double>(at_a_time) * entry_bytes<W>(tiling, max_radius);
  });
  return static_cast<std::size_t>(bytes);
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
