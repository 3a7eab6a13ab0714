#include "ops/pack.h"

#include <algorithm>
#include <cstring>

namespace verglas::cpu {
namespace {

bool any_number(const double* from, const double* to) {
  return std::any_of(from, to, [](double v) { return v != 0; });  // a NaN is one
}

}  // namespace

void run_offsets(const Runs& runs, std::size_t* offsets) {
  offsets[0] = 0;
  for (std::size_t y = 0; y < runs.ny; ++y) {
    std::size_t count = 0;
    for (std::size_t z = 0; z < runs.nz; ++z)
      count += static_cast<std::size_t>(runs.end[y * runs.nz + z] - runs.begin[y * runs.nz + z]);
    offsets[y + 1] = offsets[y] + count;
  }
}

bool pack(const double* whole, const Runs& runs, const std::size_t* offsets, double* packed, bool add,
          int num_threads) {
  bool outside = false;
#pragma omp parallel for num_threads(num_threads) schedule(static) reduction(|| : outside)
  for (std::size_t y = 0; y < runs.ny; ++y) {
    double* to = packed + offsets[y];
    for (std::size_t z = 0; z < runs.nz; ++z) {
      const double* row = whole + (z * runs.ny + y) * runs.nx;
      const auto begin = static_cast<std::size_t>(runs.begin[y * runs.nz + z]);
      const auto count = static_cast<std::size_t>(runs.end[y * runs.nz + z]) - begin;
      outside = outside || any_number(row, row + begin) || any_number(row + begin + count, row + runs.nx);
      if (add)
        for (std::size_t i = 0; i < count; ++i) to[i] += row[begin + i];
      else
        std::memcpy(to, row + begin, count * sizeof(double));
      to += count;
    }
  }
  return outside;
}

void unpack(const double* packed, const Runs& runs, const std::size_t* offsets, std::size_t first,
            std::size_t count, double* out, int num_threads) {
#pragma omp parallel for num_threads(num_threads) schedule(static)
  for (std::size_t place = 0; place < count; ++place) {
    const std::size_t y = first + place;
    const double* from = packed + offsets[y];
    for (std::size_t z = 0; z < runs.nz; ++z) {
      double* row = out + (z * count + place) * runs.nx;
      const auto begin = static_cast<std::size_t>(runs.begin[y * runs.nz + z]);
      const auto end = static_cast<std::size_t>(runs.end[y * runs.nz + z]);
      std::fill(row, row + begin, 0.0);
      std::copy(from, from + (end - begin), row + begin);
      std::fill(row + end, row + runs.nx, 0.0);
      from += end - begin;
    }
  }
}

}  // namespace verglas::cpu
