// ScoreSettings of Python as that of the kernels; both modules read it here.
#pragma once
#include <pybind11/pybind11.h>

#include <stdexcept>
#include <string>

#include "math/score_settings.h"

namespace verglas::bind {

namespace py = pybind11;

/// Fields by name, so that none can take another's place.
inline math::ScoreSettings score_settings(const py::handle& from) {
  math::ScoreSettings s;
  s.n_psi = from.attr("n_psi").cast<int>();
  s.n_power = from.attr("n_power").cast<int>();
  s.correlation = from.attr("correlation").cast<bool>();
  s.epsilon = from.attr("epsilon").cast<double>();
  s.window_nats = from.attr("window_nats").cast<double>();
  s.max_candidates = from.attr("max_candidates").cast<std::size_t>();
  if (s.n_psi < 8 || s.n_psi % 8)
    throw std::invalid_argument("n_psi: expected a positive multiple of 8, got " + std::to_string(s.n_psi));
  if (!(s.epsilon > 0 && s.epsilon < 1))
    throw std::invalid_argument("epsilon: expected a number between 0 and 1, got " +
                                std::to_string(s.epsilon));
  if (s.max_candidates < 1) throw std::invalid_argument("max_candidates: expected at least 1");
  return s;
}

}  // namespace verglas::bind
