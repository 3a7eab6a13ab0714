// correlate, rotations: best in-plane angle, shift and reference of images, by correlation of polar rings.
//
//   score(s, psi) = sum_r r sum_theta f_s(r, theta) g(r, theta + psi)   (means removed, divided by both norms)
//
// f_s is the image moved by s, g the reference, both sampled about pixel n//2 on rings r = r_min, r_min + 1, ..,
// r_max by cubic convolution (Keys (1981) IEEE Trans. ASSP 29, 1153-1160). A rotation is a cyclic shift of
// the unravelled rings, so all angles of one shift come from one product of ring harmonics and one inverse
// transform (Crowther and Amos (1971) J. Mol. Biol. 60, 123-130). Every one of the (2 k + 1)^2 shifts
// s = step (i, j), |i|, |j| <= k = max_shift / step, is searched in full; the best (shift, angle) of this grid
// is returned, the angle refined by a parabola.
//
// psi in degrees, as rlnAnglePsi: a feature at (x, y) of the reference stands at
// (x cos + y sin, -x sin + y cos) - s in the image.
//
// The lanes of a vector are different images, so the sampling positions are shared and nothing is gathered.
// Cost per image and shift: 20 multiply-adds per sample, about pi r_max^2 samples, and the transforms of the
// rings. Images are independent of each other and of num_threads.
#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>

namespace verglas::cpu {

struct RingParams {
  int box;
  int max_shift;  ///< pixels, a multiple of step
  int step;       ///< pixels between the shifts tried
  double r_min, r_max;
};

/// The largest r_max + max_shift whose samples stay inside the box.
constexpr int ring_reach(int box) { return (box + 1) / 2 - 3; }

struct RingResult {
  float* shift;             ///< (pairs, 2) x, y in pixels
  float* angle_deg;         ///< (pairs,) in (-180, 180]
  float* score;             ///< (pairs,)
  std::int32_t* reference;  ///< (pairs,)
};

class RingCorrelator {
 public:
  explicit RingCorrelator(const RingParams& params);
  ~RingCorrelator();

  /// references (m, n, n). Throws std::invalid_argument that names a reference with NaN or infinity.
  void set_references(const float* references, std::size_t m);
  /// images (n_images, n, n): the best reference of each (best_only: n_images pairs) or all (n_images m
  /// pairs). Returns the number of rotational searches made per pair, (2 max_shift / step + 1)^2.
  int run(const float* images, std::size_t n_images, bool best_only, const RingResult& out,
          int num_threads) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace verglas::cpu
