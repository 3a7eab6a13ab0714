// What the search is told, in Python (verglas.ops, ScoreSettings has these fields), on the CPU and on the device,
// and what follows from it for the steps that both take, under the same names:
//
//   maxima   pass over all poses: the largest score of every entry (a slice or its opposite) and image
//   choose   top, the best score; threshold, which candidates reach; cut, below which entries are passed over
//   sums     pass over the entries that are left: log-sum-exp in float64
//   collect  the same or a further pass: candidates at or above the threshold
//   limit    where there are too many, the threshold rises
//   trim     sorted by falling score, at most `limit` stay, and none beyond the mass that is enough
#pragma once
#include <cmath>
#include <cstddef>

#include "math/macros.h"

namespace verglas::math {

struct ScoreSettings {
  int n_psi = 0;    ///< in-plane angles, a multiple of 8
  int n_power = 1;  ///< even harmonics of the power term
  /// cross / sqrt(power |X|^2) in [-1, 1] instead of L; no priors, no log-sum-exp, the best pose is the only candidate
  bool correlation = false;
  double epsilon = 1e-3;  ///< posterior mass that the candidates may lack
  /// > 0: candidates are all poses within so many nats of the best; epsilon only bounds the log-sum-exp
  double window_nats = 0;
  std::size_t max_candidates = 1 << 16;  ///< per image; the best ones are kept

  VG_HD std::size_t limit() const { return correlation ? 1 : max_candidates; }
  /// A list may grow to this before it is cut to `limit`.
  VG_HD std::size_t list_room() const { return 2 * limit() + 1024; }
  /// How far below the best score the threshold lies; without a window all poses below it together hold less
  /// than half of what may be lacking.
  VG_HD double reach_nats(double poses) const {
    if (correlation) return 0;
    return window_nats > 0 ? window_nats : std::log(2.0 * poses / epsilon);
  }
  /// The share of the sum that entries below the cut may hold.
  VG_HD double share_passed_over() const { return 0.1 * epsilon; }
  /// Mass with which a list is long enough; more than there is: only the threshold counts.
  VG_HD double enough() const { return window_nats > 0 ? 2.0 : 1.0 - 0.5 * epsilon; }
  /// Of the power term in the harmonics of a score.
  VG_HD float power_factor() const { return correlation ? 1.0f : -0.5f; }
};

}  // namespace verglas::math
