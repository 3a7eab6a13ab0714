// common_lines: the line that the transforms of two projections share, for every pair; and what whole
// orientations are worth by the lines they imply.
#pragma once
#include <complex>
#include <cstddef>
#include <cstdint>

namespace verglas::cpu {

/// Central lines of images, at directions 2 pi a / (2 half), a = 0 .. half - 1; the line at a + half is the conjugate.
///   samples    (n, half, depth) complex64; depth components of each line
///   loss       (n, half) float32
/// Two lines x, y are worth s(x, y) = sum Re[x conj(y)] - loss_x - loss_y.
struct CentralLines {
  const std::complex<float>* samples;
  const float* loss;
  std::size_t n;
  int half, depth;
};

/// For every pair i < j the directions with the largest s: angle[i, j] in image i, angle[j, i] in image j, in
/// steps, 0 <= . < 2 half, between steps by a quadratic; score both ways; diagonals 0. Of equal ones the first
/// counts (direction in i, then in j).
///   angle, score   (n, n) float64, written
///   cost           2 n^2 half^2 depth fused multiply-adds; scratch of 2 n depth half floats; parallel over i
void common_lines(const CentralLines& lines, double* angle, double* score, int num_threads);

/// What candidate orientations are worth: out[c] = sum over j != own[c] of s of the lines in which the planes
/// of candidate c and of image j meet. Lines between directions by linear interpolation; of planes closer
/// than 0.06 degrees nothing is counted.
///   rotations      (n, 3, 3) float64, columns: axes of the image and its normal, in space
///   candidates     (m, 3, 3) float64, likewise, of image own[c]
///   out            (m,) float64, written
///   cost           6 m n depth flops; parallel over candidates
void common_line_scores(const CentralLines& lines, const double* rotations, const double* candidates,
                        const std::int64_t* own, std::size_t m, double* out, int num_threads);

}  // namespace verglas::cpu
