// The arguments of eer that host and device check alike.
#pragma once
#include <cstddef>
#include <stdexcept>
#include <string>
#include <vector>

#include "math/eer.h"

namespace verglas::bind {

inline void check_eer_code(const math::EerCode& code) {
  if (code.run_bits < 1 || code.run_bits > 16 || code.x_bits < 0 || code.x_bits > 8 || code.y_bits < 0 ||
      code.y_bits > 8)
    throw std::invalid_argument("widths: expected 1 to 16 bits of a run length and 0 to 8 of a place, got " +
                                std::to_string(code.run_bits) + ", " + std::to_string(code.x_bits) + " and " +
                                std::to_string(code.y_bits));
  if (code.upsampling_log2 < 0 || code.upsampling_log2 > 4)
    throw std::invalid_argument("upsampling_log2: expected 0 to 4, got " +
                                std::to_string(code.upsampling_log2));
}

inline void check_eer_grid(const std::vector<std::size_t>& shape, int upsampling_log2) {
  const std::size_t below = (std::size_t{1} << upsampling_log2) - 1;
  if ((shape[0] & below) != 0 || (shape[1] & below) != 0)
    throw std::invalid_argument("counts: expected sides that are multiples of " + std::to_string(below + 1) +
                                ", got " + std::to_string(shape[0]) + " and " + std::to_string(shape[1]));
}

}  // namespace verglas::bind
