// How strips of Electron Event Representation files are coded: what the host's decoder and the device's share.
#pragma once
#include <cstddef>
#include <cstdint>

#include "math/macros.h"

namespace verglas::math {

/// Widths in bits of run lengths and of sub-pixel places, and 2^upsampling_log2 grid points per pixel of the sensor and
/// axis.
struct EerCode {
  int run_bits, x_bits, y_bits, upsampling_log2;
};

/// A place in quarters (or 2^-bits) of a pixel, its highest bit inverted, on a grid of 2^u points.
VG_HD std::size_t eer_place(std::uint32_t stored, int bits, int u) {
  const std::uint32_t inverted = bits > 0 ? stored ^ (1U << (bits - 1)) : 0U;
  return bits >= u ? inverted >> (bits - u) : static_cast<std::size_t>(inverted) << (u - bits);
}

}  // namespace verglas::math
