// correlate: best translation of images onto references by Fourier cross-correlation, transform to peak.
//
//   C(s) = sum_x f(x - s) g(x) = 1/n^2 sum_k w(|k|) conj(F(k)) G(k) exp(2 pi i k.s / n)       (periodic)
//
// f image, g reference, F and G their transforms, w an optional weight per shell round(|k|). s is the shift
// that, added to the image, lays it on the reference: with a centred reference, rlnOrigin. Scores:
//   product  C(s) itself
//   ncc      C without k = 0, divided by sqrt(sum w |F|^2) sqrt(sum w |G|^2): Pearson's coefficient, in [-1, 1]
//   phase    as ncc, after dividing every F and G by its modulus (moduli below 1e-6 of the rms count as 0)
// An image of no variance (sd <= 1e-6 |mean|, nothing float32 can hold) has ncc and phase 0 at shift 0.
//
// Peak: the largest C on integer shifts, |sx|, |sy| <= max_shift; then, where it is a local maximum,
//   parabola  through three points per axis (error up to 0.25 px for a white spectrum)
//   newton    one or two Newton steps from there on the exact trigonometric polynomial C (0.01 px)
//
// Cost: one forward transform per image and reference, one product and inverse transform per pair, the latter
// only for the columns within max_shift; blocks of rows beyond the last non-zero weight are skipped. The
// working set of a thread is about 16 n^2 bytes. Every pair is computed alone: the result does not depend on
// num_threads or on how images are batched.
#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>

namespace verglas::cpu {

enum class CorrelateScore { product, ncc, phase };
enum class PeakFit { none, parabola, newton };

struct CorrelateParams {
  int box;        ///< n, a product of 2, 3, 5 and 7
  int max_shift;  ///< pixels; box / 2 or more searches the whole box
  CorrelateScore score;
  PeakFit fit;
  const float* weights;  ///< w per shell, borrowed for the constructor; null for all ones
  int n_weights;         ///< shells n_weights and above have weight 0
};

/// Where the results go, each of `pairs` elements.
struct CorrelateResult {
  float* shift;             ///< (pairs, 2) x, y in pixels
  float* score;             ///< (pairs,)
  std::int32_t* reference;  ///< (pairs,) which reference won; null if not wanted
};

/// A plan: set_references, then run on as many batches as wanted.
class Correlator {
 public:
  explicit Correlator(const CorrelateParams& params);
  ~Correlator();

  /// references (m, n, n). Throws std::invalid_argument that names a reference with NaN or infinity.
  void set_references(const float* references, std::size_t m, int num_threads);

  /// images (n_images, n, n), each with the best of all references: n_images pairs (the first wins a tie).
  void run_best(const float* images, std::size_t n_images, const CorrelateResult& out, int num_threads);
  /// Every image with every reference: n_images m pairs.
  void run_all(const float* images, std::size_t n_images, const CorrelateResult& out, int num_threads);
  /// Image i with references[i]; set_references is not needed.
  void run_paired(const float* images, const float* references, std::size_t n_images,
                  const CorrelateResult& out, int num_threads);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace verglas::cpu
