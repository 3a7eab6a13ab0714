// eer: electrons of one frame of an Electron Event Representation file, counted on a grid.
#pragma once
#include <cstddef>
#include <cstdint>

#include "math/eer.h"

namespace verglas::cpu {

using math::EerCode;

/// Adds every electron of a strip to counts (ny << u, nx << u), u = upsampling_log2.
///   The strip is a stream of bits, least significant first. A run length r of run_bits: all ones skip that
///   many pixels; any other r is an electron r pixels on, followed by its place in the pixel: x_bits, then
///   y_bits, the highest bit of each inverted; the next run starts one pixel further.
///   returns    the number of electrons, or -1 where the strip ends before pixel ny nx: it is cut off
///   cost       a few operations an electron; one thread; counts wrap at 65536
std::int64_t eer(const std::uint8_t* strip, std::size_t bytes, EerCode code, std::size_t ny, std::size_t nx,
                 std::uint16_t* counts);

}  // namespace verglas::cpu
