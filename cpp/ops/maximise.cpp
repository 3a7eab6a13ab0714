#include "ops/maximise.h"

#include <algorithm>
#include <stdexcept>
#include <string>

#include "ops/maximise_kernel.h"

namespace verglas::cpu {
namespace {

using math::AlignedFloats;
using math::kLanes;
using maximise_kernel::add_group;
using maximise_kernel::Entry;
using maximise_kernel::kRow;
using maximise_kernel::Phases;

/// Images are taken in chunks whose harmonics stay in the outer caches while the slices stream over them, and whose
/// lists of candidates, long where the posterior is broad, are bounded too.
constexpr std::size_t kChunkBytes = std::size_t{32} << 20;

}  // namespace

RowLayout::RowLayout(const PolarGrid& grid) {
  offset.push_back(0);
  for (int m = 0; m <= grid.max_m; ++m) {
    length.push_back(static_cast<int>(math::round_up(grid.n_rings - grid.first_ring[m], kRow)));
    offset.push_back(offset.back() + 2 * length.back());
  }
}

/// Images that are worked on together, their harmonics at the shifts in use, and their candidates by slice.
struct MaximisePlan::Chunk {
  std::size_t first = 0, n = 0;                      // images
  std::vector<std::int32_t> pair_image, pair_shift;  // image counted from `first`
  std::vector<std::int32_t> pair_of;  // per candidate of the chunk: its pair, -1 where it is passed over
  std::vector<float> b;               // (pairs, rows.size())
  std::vector<float> h;               // (n, n_power, re and im, n_rings)
  std::vector<Entry> entries;         // by slice, then image
  std::vector<std::int32_t> slice;    // touched, rising
  std::vector<std::size_t> begin, first_group;  // per touched slice, and the end
  std::vector<std::int32_t> group_image;
  std::vector<double> cross, power;  // (groups, n_rings)
};

namespace {

/// Numbers the (image, shift) pairs that candidates of this plan use, and counts candidates and (image, slice) groups.
class PairFinder {
 public:
  PairFinder(std::size_t n_shifts, std::size_t n_slices)
      : stamp_(n_shifts, -1), slice_stamp_(n_slices, -1), slot_(n_shifts), n_slices_(n_slices) {}

  std::size_t candidates() const { return candidates_; }
  std::size_t groups() const { return groups_; }
  void start_chunk() { candidates_ = groups_ = 0; }

  /// Appends the pairs of one image; `local` is its number in the chunk.
  void add(const Candidates& c, std::size_t image, std::int32_t local, std::vector<std::int32_t>& pair_image,
           std::vector<std::int32_t>& pair_shift, std::vector<std::int32_t>& pair_of) {
    for (std::int64_t i = c.offsets[image]; i < c.offsets[image + 1]; ++i) {
      const bool ours = c.slice[i] >= 0 && static_cast<std::size_t>(c.slice[i]) < n_slices_ && c.gamma[i] > 0;
      if (!ours) {
        pair_of.push_back(-1);
        continue;
      }
      ++candidates_;
      groups_ += slice_stamp_[c.slice[i]] != static_cast<std::int64_t>(image);
      slice_stamp_[c.slice[i]] = static_cast<std::int64_t>(image);
      const std::int32_t shift = c.shift[i];
      if (stamp_[shift] != static_cast<std::int64_t>(image)) {
        stamp_[shift] = static_cast<std::int64_t>(image);
        slot_[shift] = static_cast<std::int32_t>(pair_image.size());
        pair_image.push_back(local);
        pair_shift.push_back(shift);
      }
      pair_of.push_back(slot_[shift]);
    }
  }

 private:
  std::vector<std::int64_t> stamp_, slice_stamp_;  // the image that used a shift, a slice, last
  std::vector<std::int32_t> slot_;
  std::size_t n_slices_, candidates_ = 0, groups_ = 0;
};

/// Harmonics of `count` pairs in SIMD lanes, as rows of each pair: out (count, rows.size()).
void unpack_lanes(const float* packed, std::size_t count, const PolarGrid& grid, const RowLayout& rows,
                  float* out) {
  for (int m = 0; m <= grid.max_m; ++m) {
    for (int j = 0; j < grid.n_rings - grid.first_ring[m]; ++j) {
      const float* from = packed + 2 * kLanes * (grid.offset[m] + j);
      for (std::size_t l = 0; l < count; ++l) {
        float* to = out + l * rows.size() + rows.offset[m] + j;
        to[0] = from[l];
        to[rows.length[m]] = from[kLanes + l];
      }
    }
  }
}

/// Order in which an image's candidates of one slice are added: by what their phases share.
bool before(const Entry& a, const Entry& b) {
  if (a.opposite != b.opposite) return a.opposite < b.opposite;
  if (a.shift != b.shift) return a.shift < b.shift;
  return a.psi != b.psi ? a.psi < b.psi : a.gamma < b.gamma;
}

}  // namespace

MaximisePlan::MaximisePlan(const PolarGrid& grid, std::size_t n_slices, int n_power)
    : grid_(grid), rows_(grid_), n_power_(n_power), numerator_(n_slices), denominator_(n_slices) {
  if (n_power < 1 || n_power > grid.max_m / 2 + 1)
    throw std::invalid_argument("n_power: expected 1 to " + std::to_string(grid.max_m / 2 + 1) + ", got " +
                                std::to_string(n_power));
}

std::size_t MaximisePlan::slice_bytes() const {
  return sizeof(double) * (rows_.size() + 2 * static_cast<std::size_t>(n_power_) * grid_.n_rings);
}

void MaximisePlan::set_reference(const cfloat* harmonics, const cfloat* power) {
  const std::size_t terms = static_cast<std::size_t>(grid_.n_rings) * n_power_;
  reference_.assign(n_slices() * rows_.size(), 0.0f);
  power_.assign(n_slices() * 2 * terms, 0.0f);
  for (std::size_t s = 0; s < n_slices(); ++s) {
    for (int m = 0; m <= grid_.max_m; ++m) {
      float* out = reference_.data() + s * rows_.size() + rows_.offset[m];
      const cfloat* from = harmonics + s * grid_.size + grid_.offset[m];
      for (int j = 0; j < grid_.n_rings - grid_.first_ring[m]; ++j) {
        out[j] = from[j].real();
        out[rows_.length[m] + j] = from[j].imag();
      }
    }
    store_power(power + s * terms, power_.data() + s * 2 * terms);
  }
}

/// (n_rings, n_power) as the kernel reads it: (n_power, re and im, n_rings).
void MaximisePlan::store_power(const cfloat* from, float* out) const {
  for (int j = 0; j < grid_.n_rings; ++j) {
    for (int k = 0; k < n_power_; ++k) {
      const cfloat value = from[j * n_power_ + k];
      out[2 * k * grid_.n_rings + j] = value.real();
      out[(2 * k + 1) * grid_.n_rings + j] = value.imag();
    }
  }
}

void MaximisePlan::add(const MaximiseInput& in, const Candidates& candidates, const ResidualSums& residual,
                       int num_threads) {
  const std::size_t image_bytes = sizeof(cfloat) * grid_.n_rings * grid_.half();
  const std::size_t group_bytes = 2 * sizeof(double) * grid_.n_rings + sizeof(std::int32_t);
  PairFinder finder(in.n_shifts, n_slices());
  for (std::size_t first = 0; first < in.n;) {
    Chunk chunk;
    chunk.first = first;
    std::size_t bytes = 0;
    finder.start_chunk();
    for (; first < in.n && (chunk.n == 0 || bytes < kChunkBytes); ++first, ++chunk.n) {
      finder.add(candidates, first, static_cast<std::int32_t>(chunk.n), chunk.pair_image, chunk.pair_shift,
                 chunk.pair_of);
      bytes = chunk.pair_image.size() * rows_.size() * sizeof(float) + chunk.n * image_bytes +
              chunk.pair_of.size() * sizeof(std::int32_t) + finder.candidates() * sizeof(Entry) +
              finder.groups() * group_bytes;
    }
    if (chunk.pair_image.empty()) continue;
    shift_images(in, weigh_images(in, chunk, num_threads), chunk, num_threads);
    gather_slices(candidates, chunk);
    add_slices(in, chunk, num_threads);
    for (std::size_t g = 0; has_reference() && g < chunk.group_image.size(); ++g) {
      const std::size_t to = (chunk.first + chunk.group_image[g]) * grid_.n_rings, from = g * grid_.n_rings;
      for (int j = 0; j < grid_.n_rings; ++j) {
        if (residual.cross) residual.cross[to + j] += chunk.cross[from + j];
        if (residual.power) residual.power[to + j] += chunk.power[from + j];
      }
    }
  }
}

/// C X of the chunk's images, (n, n_rings, half); and chunk.h, the even harmonics of C^2.
std::vector<cfloat> MaximisePlan::weigh_images(const MaximiseInput& in, Chunk& chunk, int num_threads) const {
  const EvenHarmonics even(grid_, n_power_);
  const std::size_t points = static_cast<std::size_t>(grid_.n_rings) * grid_.half();
  const std::size_t terms = static_cast<std::size_t>(grid_.n_rings) * n_power_;
  const std::vector<float> ones(grid_.n_rings, 1.0f);
  std::vector<cfloat> y(chunk.n * points);
  chunk.h.resize(chunk.n * 2 * terms);
#pragma omp parallel num_threads(num_threads)
  {
    std::vector<float> ctf(points);
    std::vector<cfloat> h(terms);
#pragma omp for schedule(static)
    for (std::size_t i = 0; i < chunk.n; ++i) {
      const std::size_t image = chunk.first + i;
      std::copy_n(in.samples + image * points, points, y.data() + i * points);
      weight_samples(in.ctf ? in.ctf + image * math::kOpticsColumns : nullptr, in.pixel_size_A, ones.data(),
                     grid_, even, ctf.data(), y.data() + i * points, h.data());
      store_power(h.data(), chunk.h.data() + i * 2 * terms);
    }
  }
  return y;
}

/// chunk.b: the harmonics of every pair of image and shift, kLanes pairs at a time.
void MaximisePlan::shift_images(const MaximiseInput& in, const std::vector<cfloat>& y, Chunk& chunk,
                                int num_threads) const {
  const LaneHarmonics lanes(grid_);
  const std::size_t points = static_cast<std::size_t>(grid_.n_rings) * grid_.half();
  const std::size_t pairs = chunk.pair_image.size(), blocks = (pairs + kLanes - 1) / kLanes;
  chunk.b.assign(pairs * rows_.size(), 0.0f);
#pragma omp parallel num_threads(num_threads)
  {
    LaneHarmonics::Scratch scratch;
    AlignedFloats packed(2 * grid_.size * kLanes), shift(2 * kLanes), mixed(2 * points * kLanes);
#pragma omp for schedule(static)
    for (std::size_t block = 0; block < blocks; ++block) {
      const std::size_t first = block * kLanes, count = std::min<std::size_t>(kLanes, pairs - first);
      const bool shared = chunk.pair_image[first] == chunk.pair_image[first + count - 1];
      for (std::size_t l = 0; l < kLanes; ++l) {
        const std::size_t pair = first + std::min(l, count - 1);
        const std::size_t image = chunk.pair_image[pair];
        for (int axis = 0; axis < 2; ++axis)
          shift.data()[axis * kLanes + l] =
              in.shifts[2 * static_cast<std::size_t>(chunk.pair_shift[pair]) + axis] +
              (in.centres ? in.centres[2 * (chunk.first + image) + axis] : 0.0f);
        if (shared) continue;
        const float* from = reinterpret_cast<const float*>(y.data() + image * points);
        for (std::size_t k = 0; k < 2 * points; ++k) mixed.data()[k * kLanes + l] = from[k];
      }
      const float* source =
          shared ? reinterpret_cast<const float*>(y.data() + chunk.pair_image[first] * points) : mixed.data();
      lanes.run(source, shared, shift.data(), shift.data() + kLanes, scratch, packed.data());
      unpack_lanes(packed.data(), count, grid_, rows_, chunk.b.data() + first * rows_.size());
    }
  }
}

/// Files the chunk's candidates under their slices (images stay in order) and allocates the sums of new slices.
void MaximisePlan::gather_slices(const Candidates& c, Chunk& chunk) {
  std::vector<std::size_t> count(n_slices(), 0), groups(n_slices(), 0);
  std::vector<std::int64_t> last(n_slices(), -1);
  const std::int64_t start = c.offsets[chunk.first];
  for (std::size_t i = 0; i < chunk.n; ++i) {
    for (std::int64_t e = c.offsets[chunk.first + i]; e < c.offsets[chunk.first + i + 1]; ++e) {
      if (chunk.pair_of[e - start] < 0) continue;
      const auto s = static_cast<std::size_t>(c.slice[e]);
      ++count[s];
      groups[s] += last[s] != static_cast<std::int64_t>(i);
      last[s] = static_cast<std::int64_t>(i);
    }
  }
  std::vector<std::size_t> place(n_slices());
  std::size_t total = 0, total_groups = 0;
  for (std::size_t s = 0; s < n_slices(); ++s) {
    if (count[s] == 0) continue;
    chunk.slice.push_back(static_cast<std::int32_t>(s));
    chunk.begin.push_back(total);
    chunk.first_group.push_back(total_groups);
    place[s] = total;
    total += count[s];
    total_groups += groups[s];
    if (numerator_[s].empty()) {
      numerator_[s].assign(rows_.size(), 0.0);
      denominator_[s].assign(2 * static_cast<std::size_t>(n_power_) * grid_.n_rings, 0.0);
    }
  }
  chunk.begin.push_back(total);
  chunk.first_group.push_back(total_groups);
  chunk.entries.resize(total);
  for (std::size_t i = 0; i < chunk.n; ++i) {
    for (std::int64_t e = c.offsets[chunk.first + i]; e < c.offsets[chunk.first + i + 1]; ++e) {
      const std::int32_t pair = chunk.pair_of[e - start];
      if (pair < 0) continue;
      chunk.entries[place[c.slice[e]]++] = {
          static_cast<std::int32_t>(i), pair, c.shift[e], c.opposite[e], c.psi_rad[e], c.gamma[e]};
    }
  }
}

/// What one thread works in.
struct MaximisePlan::Scratch {
  Phases phases;
  std::vector<double> inv_sigma2, cross, power;  // (n_rings), padded with zeros

  explicit Scratch(const PolarGrid& grid)
      : phases(grid.max_m),
        inv_sigma2(grid.n_rings + 2 * kRow, 0.0),
        cross(inv_sigma2.size()),
        power(inv_sigma2.size()) {}
};

/// One slice's candidates, image by image.
void MaximisePlan::add_slice(const MaximiseInput& in, std::size_t touched, Chunk& chunk, Scratch& scratch) {
  const int n_rings = grid_.n_rings;
  const std::size_t terms = 2 * static_cast<std::size_t>(n_rings) * n_power_;
  const std::size_t s = chunk.slice[touched];
  auto& [phases, inv_sigma2, cross, power] = scratch;
  std::size_t group = chunk.first_group[touched];
  for (std::size_t e = chunk.begin[touched]; e < chunk.begin[touched + 1]; ++group) {
    const std::int32_t i = chunk.entries[e].image;
    std::size_t end = e;
    while (end < chunk.begin[touched + 1] && chunk.entries[end].image == i) ++end;
    Entry *from = chunk.entries.data() + e, *to = chunk.entries.data() + end;
    std::sort(from, to, before);
    phases.build(from, to);
    std::copy_n(in.inv_sigma2 + (chunk.first + i) * n_rings, n_rings, inv_sigma2.begin());
    std::fill(cross.begin(), cross.end(), 0.0);
    std::fill(power.begin(), power.end(), 0.0);
    add_group({&phases, chunk.b.data(), chunk.h.data() + i * terms, inv_sigma2.data(), numerator_[s].data(),
               denominator_[s].data(), has_reference() ? reference_.data() + s * rows_.size() : nullptr,
               has_reference() ? power_.data() + s * terms : nullptr, cross.data(), power.data()},
              grid_, rows_, n_power_);
    chunk.group_image[group] = i;
    if (has_reference()) {
      std::copy_n(cross.begin(), n_rings, chunk.cross.begin() + group * n_rings);
      std::copy_n(power.begin(), n_rings, chunk.power.begin() + group * n_rings);
    }
    e = end;
  }
}

void MaximisePlan::add_slices(const MaximiseInput& in, Chunk& chunk, int num_threads) {
  chunk.group_image.resize(chunk.first_group.back());
  if (has_reference()) {
    chunk.cross.resize(chunk.group_image.size() * grid_.n_rings);
    chunk.power.resize(chunk.cross.size());
  }
#pragma omp parallel num_threads(num_threads)
  {
    Scratch scratch(grid_);
#pragma omp for schedule(dynamic, 4)
    for (std::size_t t = 0; t < chunk.slice.size(); ++t) add_slice(in, t, chunk, scratch);
  }
}

}  // namespace verglas::cpu
