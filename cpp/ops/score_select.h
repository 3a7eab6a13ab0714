// The steps of score for one image beside its maxima: choose, sums and collect, limit, trim (math/score_settings.h).
#pragma once
#include <cstddef>
#include <cstdint>
#include <vector>

#include "ops/score.h"

namespace verglas::cpu {

/// Scratch of one thread: a list grows to twice its limit while it is collected, which no result should hold.
struct SelectionScratch {
  std::vector<Candidate> found, sorted;
  std::vector<std::uint64_t> order;
};

/// Everything is decided by the image's own maxima, so the result does not depend on how images were packed.
class PoseSelection {
 public:
  /// maxima (n_entries); every entry stands for poses_per_entry poses.
  PoseSelection(const ScoreSettings& settings, const std::vector<float>& maxima, std::size_t poses_per_entry,
                std::size_t n_shifts, SelectionScratch& scratch);
  bool active(std::size_t entry) const { return active_[entry] != 0; }
  /// Takes in scores[psi * stride + lane], lanes = shifts first_shift .. first_shift + kLanes - 1.
  void sum_and_collect(std::size_t entry, const float* scores, std::size_t stride, std::size_t first_shift);
  ImageScore trim();

 private:
  const ScoreSettings& settings_;
  float top_, threshold_;  // the threshold rises with every limit
  std::size_t n_shifts_;
  std::vector<unsigned char> active_;
  std::vector<double> sums_;  // per shift: one order of summation whatever the width of a vector
  std::vector<Candidate>&found_, &sorted_;
  std::vector<std::uint64_t>& order_;

  void choose_entries(const std::vector<float>& maxima, double poses_per_entry);
  void limit();
  float cut_by_count();
  void sort_and_cut();
};

}  // namespace verglas::cpu
