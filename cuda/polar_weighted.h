// The image side of the likelihood on the device: CTF and noise weighting, shifts, angular harmonics. What
// score, score_cells and maximise share; formulas and normalisation as in cpp/ops/polar.h.
#pragma once
#include <cstddef>
#include <cstdint>

#include "cuda/device.h"
#include "math/ctf.h"

namespace verglas::cuda {

/// A polar grid on the device: cpp/ops/polar.h's PolarGrid, and the table of its angular transform. Borrowed.
struct PolarTables {
  int box, n_theta, n_rings, max_m;
  std::int64_t size;               ///< complex values per image or slice in packed arrays
  const double* radii;             ///< (n_rings)
  const float* weights;            ///< (n_rings), w_r
  const std::int32_t* limit;       ///< (n_rings), largest m kept on the ring
  const std::int32_t* first_ring;  ///< (max_m + 1)
  const std::int32_t* offset;      ///< (max_m + 2)
  const double* cos_theta;         ///< (n_theta / 2)
  const double* sin_theta;         ///< (n_theta / 2)
  /// (max_m + 1, 2, n_theta / 2): harmonic m of a real image's half circle; even m see its real parts, odd m its
  /// imaginary parts, the factor 2 for the other half in
  const float* angular;
  VG_HD int half() const { return n_theta / 2; }
};

/// Columns of a tile: the second and third extent of the tensor cores' 16 x 16 x 8 products in TF32.
constexpr int kProductTile = 16;
constexpr int kDepth = 8;
constexpr int kFragment = kProductTile * kDepth;  ///< floats: [k][column]
constexpr int kMostPower = 64;                    ///< even harmonics that weigh makes at a time

/// Where harmonic m stands in a tile of kProductTile columns: fragments first[m] .. first[m + 1] - 1, each
/// kDepth rows of k, real part then imaginary; row k of harmonic m is ring first_ring[m] + k, and in the even
/// harmonics m = 2 h < 2 n_power the n_rings rows after those belong to the power term. Rows beyond are zero.
struct TileLayout {
  const std::int32_t* first;  ///< (max_m + 2) on the device
  int fragments;              ///< of all harmonics
  int n_power;                ///< 0: no rows for the power term
  VG_HD std::size_t floats() const { return static_cast<std::size_t>(fragments) * 2 * kFragment; }
  /// Real part of row k of the harmonic that starts at fragment `begin`, column 0; the imaginary part is kFragment on.
  static VG_HD std::size_t at(int begin, int k) {
    return (static_cast<std::size_t>(begin) + k / kDepth) * 2 * kFragment + (k % kDepth) * kProductTile;
  }
};

struct WeighInput {
  const float* samples;     ///< (n, n_rings, half) complex; null: zero, where only power is wanted
  const double* ctf;        ///< (n, math::kOpticsColumns) or null
  const float* inv_sigma2;  ///< (n, n_rings); null: 1
  std::size_t n;
  double pixel_size_A;
};

/// y = C X / sigma2 and the even harmonics of w_r C^2 / sigma2.
///   y      (n, n_rings, half) complex, written;  null: not made
///   power  (n, n_rings, n_power) complex, written; null: not made
///   norm   (n, n_rings) sum |X|^2 / sigma2 over the ring's share of the full plane, written; null: not made
///   cost   one pass: 8 bytes read and written per sample
void weigh(const PolarTables& grid, const WeighInput& in, int n_power, float* y, float* power, float* norm,
           Stream stream);

/// w_r b_m(r) of columns, a column being an image moved by its shift.
struct ShiftedColumns {
  const float* y;             ///< of weigh
  const std::int32_t* image;  ///< (columns) row of y; -1: the column stays as it is (zero)
  const float* shift;         ///< (columns, 2) x, y pixels
  std::size_t columns;
};

/// Column c of tile c / kProductTile; tiles (.., layout.floats()), rows of rings written.
///   cost   n_rings half (M + 1) multiply-adds, 2 for each part, and as many phases as samples, per column
void shifted_tiles(const PolarTables& grid, const TileLayout& layout, const ShiftedColumns& in, float* tiles,
                   Stream stream);

/// The same, each column packed as harmonics are: (columns, size) complex.
void shifted_rows(const PolarTables& grid, const ShiftedColumns& in, float* rows, Stream stream);

}  // namespace verglas::cuda
