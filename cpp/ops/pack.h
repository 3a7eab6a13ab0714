// pack: of a box of numbers, those in a run of each row; and back.
#pragma once
#include <cstddef>
#include <cstdint>

namespace verglas::cpu {

/// Sizes of a box, slowest axis first, and the run [begin, end) of numbers that is kept of each of its rows.
///   begin, end   (ny, nz) int32, 0 <= begin <= end <= nx
/// Packed, the rows lie y by y, all planes z of a y together: whole y can then be unpacked by themselves.
struct Runs {
  std::size_t nz, ny, nx;
  const std::int32_t* begin;
  const std::int32_t* end;
};

/// Numbers of the rows below y, of every y and of all: (ny + 1) values.
void run_offsets(const Runs& runs, std::size_t* offsets);

/// packed = the runs of `whole`, or packed += them; whether a number outside the runs is not zero.
///   whole    (nz, ny, nx) float64
///   offsets  of run_offsets
///   packed   (offsets[ny],) float64
///   cost     one read of the box, one write (add: read and write) of the runs
bool pack(const double* whole, const Runs& runs, const std::size_t* offsets, double* packed, bool add,
          int num_threads);

/// Rows first .. first + count - 1 of all planes, numbers outside the runs 0: out (nz, count, nx) float64, written.
void unpack(const double* packed, const Runs& runs, const std::size_t* offsets, std::size_t first,
            std::size_t count, double* out, int num_threads);

}  // namespace verglas::cpu
