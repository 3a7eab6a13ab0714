#include "ops/score_select.h"

#include <algorithm>
#include <cmath>

namespace verglas::cpu {
namespace {

using math::kLanes;
using math::Lanes;

/// Total order: better score first, ties by position, so that selections do not depend on the order of
/// arrival.
bool before(const Candidate& a, const Candidate& b) {
  if (a.score != b.score) return a.score > b.score;
  if (a.entry != b.entry) return a.entry < b.entry;
  return a.psi != b.psi ? a.psi < b.psi : a.shift < b.shift;
}

}  // namespace

PoseSelection::PoseSelection(const ScoreSettings& settings, const std::vector<float>& maxima,
                             std::size_t poses_per_entry, std::size_t n_shifts)
    : settings_(settings),
      top_(kNever),
      threshold_(kNever),
      n_shifts_(n_shifts),
      active_(maxima.size(), 0),
      sums_(math::round_up(n_shifts, kLanes), 0.0) {
  for (float value : maxima) top_ = value > top_ ? value : top_;
  if (!(top_ > 0.5f * kNever)) return;
  const double all = static_cast<double>(poses_per_entry) * static_cast<double>(maxima.size());
  threshold_ = top_ - static_cast<float>(settings.reach_nats(all));
  choose_entries(maxima, static_cast<double>(poses_per_entry));
}

void PoseSelection::choose_entries(const std::vector<float>& maxima, double poses_per_entry) {
  if (settings_.correlation) {
    for (std::size_t e = 0; e < maxima.size(); ++e) active_[e] = maxima[e] == top_;
    return;
  }
  const double share = settings_.share_passed_over();
  const double reach = std::log(2.0 * poses_per_entry * static_cast<double>(maxima.size()) / share);
  std::vector<float> near;
  double least = 0;  // every entry holds at least its maximum
  for (float value : maxima) {
    if (value < top_ - reach) continue;
    near.push_back(value);
  }
  std::sort(near.begin(), near.end());
  for (float value : near) least += std::exp(static_cast<double>(value) - top_);
  double skipped = 0, allowed = 0.5 * share * least;
  std::size_t k = 0;
  while (k < near.size()) {
    skipped += poses_per_entry * std::exp(static_cast<double>(near[k]) - top_);
    if (skipped > allowed) break;
    ++k;
  }
  float cut = k < near.size() ? near[k] : top_;
  if (settings_.window_nats > 0) cut = std::min(cut, threshold_);
  for (std::size_t e = 0; e < maxima.size(); ++e) active_[e] = maxima[e] >= cut;
}

void PoseSelection::sum_and_collect(std::size_t entry, const float* scores, std::size_t stride,
                                    std::size_t first_shift) {
  double* sums = sums_.data() + first_shift;
  for (int j = 0; j < settings_.n_psi; ++j, scores += stride) {
    const Lanes value = math::load(scores);
    alignas(64) float weight[kLanes];
    math::store(weight, math::exp_not_positive(value - top_));
    bool any = false;
    for (int l = 0; l < kLanes; ++l) {
      sums[l] += weight[l];
      any |= scores[l] >= threshold_;
    }
    if (!any) continue;
    for (int l = 0; l < kLanes; ++l) {
      if (scores[l] >= threshold_ && first_shift + l < n_shifts_)
        found_.push_back(
            {scores[l], static_cast<std::int32_t>(entry), j, static_cast<std::int32_t>(first_shift + l)});
    }
    if (found_.size() > settings_.list_room()) limit();
  }
}

void PoseSelection::limit() {
  const std::size_t most = settings_.limit();
  if (found_.size() <= most) return;
  std::nth_element(found_.begin(), found_.begin() + static_cast<std::ptrdiff_t>(most), found_.end(), before);
  found_.resize(most);
}

ImageScore PoseSelection::trim() {
  ImageScore out;
  limit();
  if (found_.empty()) return out;
  std::sort(found_.begin(), found_.end(), before);
  out.best = found_.front();
  double total = 0;
  for (std::size_t s = 0; s < n_shifts_; ++s) total += sums_[s];
  out.log_sum = top_ + std::log(total);
  std::size_t count = 0;
  double mass = 0;
  while (count < found_.size() && mass < settings_.enough())
    mass += std::exp(found_[count++].score - out.log_sum);
  found_.resize(count);
  out.kept = mass;
  out.candidates = std::move(found_);
  return out;
}

}  // namespace verglas::cpu
