#include "ops/score_select.h"

#if defined(__AVX__)
#include <immintrin.h>
#endif

#include <algorithm>
#include <cmath>
#include <cstring>

namespace verglas::cpu {
namespace {

using math::kLanes;
using math::Lanes;

/// Total order: better score first, ties by position, so that selections do not depend on the order of arrival.
bool before(const Candidate& a, const Candidate& b) {
  if (a.score != b.score) return a.score > b.score;
  if (a.entry != b.entry) return a.entry < b.entry;
  return a.psi != b.psi ? a.psi < b.psi : a.shift < b.shift;
}

constexpr int kDigitBits = 11, kClasses = 2048;
constexpr std::size_t kWorthCounting = 8192;  // shorter lists are sorted sooner

/// One pass of a radix sort from `from` to `to`, by the digit at this bit; false: all have the same, nothing moves.
bool sort_by_digit(const std::uint64_t* from, std::size_t n, int shift, std::uint64_t* to) {
  std::uint32_t begin[(1 << kDigitBits) + 1] = {};
  const auto digit = [shift](std::uint64_t x) { return x >> shift & ((1u << kDigitBits) - 1); };
  for (std::size_t i = 0; i < n; ++i) ++begin[digit(from[i]) + 1];
  if (n == 0 || begin[digit(from[0]) + 1] == n) return false;
  for (int d = 0; d < 1 << kDigitBits; ++d) begin[d + 1] += begin[d];
  for (std::size_t i = 0; i < n; ++i) to[begin[digit(from[i])]++] = from[i];
  return true;
}

unsigned bits_below(std::size_t count) { return count < 32 ? (1u << count) - 1u : ~0u; }

typedef std::int32_t Ints __attribute__((vector_size(kLanes * sizeof(float))));

/// Bit l: the comparison holds in lane l.
unsigned bits_of(Ints comparison) {
#if defined(__AVX512F__)
  return _mm512_test_epi32_mask(reinterpret_cast<__m512i>(comparison), reinterpret_cast<__m512i>(comparison));
#elif defined(__AVX__)
  return static_cast<unsigned>(_mm256_movemask_ps(reinterpret_cast<__m256>(comparison)));
#endif
  alignas(64) std::int32_t lanes[kLanes];
  std::memcpy(lanes, &comparison, sizeof comparison);
  unsigned bits = 0;
  for (int l = 0; l < kLanes; ++l) bits |= static_cast<unsigned>(lanes[l]) & 1u << l;
  return bits;
}

/// Rises as the score falls; 0 and -0 are the same.
std::uint32_t falling_bits(float score) {
  const float x = score + 0.0f;
  std::uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  return bits & 0x80000000u ? bits : ~(bits | 0x80000000u);
}

}  // namespace

PoseSelection::PoseSelection(const ScoreSettings& settings, const std::vector<float>& maxima,
                             std::size_t poses_per_entry, std::size_t n_shifts, SelectionScratch& scratch)
    : settings_(settings),
      top_(kNever),
      threshold_(kNever),
      n_shifts_(n_shifts),
      active_(maxima.size(), 0),
      sums_(math::round_up(n_shifts, kLanes), 0.0),
      found_(scratch.found),
      sorted_(scratch.sorted),
      order_(scratch.order) {
  found_.clear();
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
  const unsigned all_lanes = bits_below(kLanes);
  const unsigned exist = bits_below(std::min<std::size_t>(kLanes, n_shifts_ - first_shift));
  double sums[kLanes];  // of this call in registers
  std::copy_n(sums_.data() + first_shift, kLanes, sums);
  const bool wide = threshold_ < top_ - 87.0f;  // candidates are asked for that no exponential reaches
  for (int j = 0; j < settings_.n_psi; ++j, scores += stride) {
    const Lanes value = math::load(scores);
    // Most poses of a sharp posterior are further below than any exponential reaches, and zeros need no adding.
    if (!wide && bits_of(value - top_ < -87.0f) == all_lanes) continue;
    alignas(64) float weight[kLanes];
    math::store(weight, math::exp_not_positive(value - top_));
    for (int l = 0; l < kLanes; ++l) sums[l] += weight[l];
    for (unsigned at = bits_of(value >= threshold_) & exist; at; at &= at - 1) {
      const int l = __builtin_ctz(at);
      found_.push_back(
          {scores[l], static_cast<std::int32_t>(entry), j, static_cast<std::int32_t>(first_shift + l)});
    }
    if (found_.size() > settings_.list_room()) limit();
  }
  std::copy_n(sums, kLanes, sums_.data() + first_shift);
}

void PoseSelection::limit() {
  if (found_.size() <= settings_.limit()) return;
  // What is worse than the worst of so many is no candidate, however it arrives: the same list, sooner.
  if (found_.size() > kWorthCounting) {
    threshold_ = cut_by_count();
    if (found_.size() <= settings_.limit() + settings_.limit() / 2) return;
  }
  sort_and_cut();  // a short list, or so many of nearly the same score that classes do not part them
  threshold_ = found_.back().score;
}

/// Keeps the limit's best and those of about the score of the last; returns the least score kept. Counting is enough
/// while candidates come in, trim() sorts once.
float PoseSelection::cut_by_count() {
  // Where rounding puts two scores into one class it keeps their order: classes never fall as scores fall.
  const float classes_per_nat = static_cast<float>(kClasses) / std::max(top_ - threshold_, 1e-30f);
  const auto class_of = [&](float score) {
    return static_cast<int>(std::clamp((top_ - score) * classes_per_nat, 0.0f, kClasses - 1.0f));
  };
  std::uint32_t counts[kClasses] = {};
  for (const Candidate& c : found_) ++counts[class_of(c.score)];
  int last = 0;
  for (std::size_t n = counts[0]; n < settings_.limit() && last < kClasses - 1;) n += counts[++last];
  std::size_t kept = 0;
  float least = top_;
  for (const Candidate c : found_) {
    found_[kept] = c;
    const bool stays = class_of(c.score) <= last;
    kept += stays;
    least = stays && c.score < least ? c.score : least;
  }
  found_.resize(kept);
  return least;
}

/// As std::sort by `before` and resize to the limit: digits of the scores are counted, and the few poses of equal
/// score put in order afterwards.
void PoseSelection::sort_and_cut() {
  order_.resize(2 * found_.size());
  std::uint64_t *order = order_.data(), *other = order + found_.size();
  for (std::size_t i = 0; i < found_.size(); ++i)
    order[i] = static_cast<std::uint64_t>(falling_bits(found_[i].score)) << 32 | i;
  for (int shift = 32; shift < 64; shift += kDigitBits) {
    if (sort_by_digit(order, found_.size(), shift, other)) std::swap(order, other);
  }
  const auto score = [&](std::size_t i) { return found_[order[i] & 0xffffffffu].score; };
  const std::size_t most = std::min(found_.size(), settings_.limit());
  std::size_t end = most;  // and those that are as good as the last
  while (end < found_.size() && score(end) == score(most - 1)) ++end;
  sorted_.resize(end);
  for (std::size_t i = 0; i < end; ++i) sorted_[i] = found_[order[i] & 0xffffffffu];
  for (auto begin = sorted_.begin(); begin != sorted_.end();) {
    auto next = begin + 1;
    while (next != sorted_.end() && next->score == begin->score) ++next;
    if (next - begin > 1) std::sort(begin, next, before);
    begin = next;
  }
  sorted_.resize(most);
  found_.swap(sorted_);
}

ImageScore PoseSelection::trim() {
  ImageScore out;
  if (found_.empty()) return out;
  sort_and_cut();
  out.best = found_.front();
  double total = 0;
  for (std::size_t s = 0; s < n_shifts_; ++s) total += sums_[s];
  out.log_sum = top_ + std::log(total);
  std::size_t count = 0;
  double mass = 0;
  while (count < found_.size() && mass < settings_.enough())
    mass += std::exp(found_[count++].score - out.log_sum);
  out.kept = mass;
  out.candidates.assign(found_.begin(), found_.begin() + static_cast<std::ptrdiff_t>(count));
  return out;
}

}  // namespace verglas::cpu
