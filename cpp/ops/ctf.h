// ctf: contrast transfer functions of many images on the half-transform grid of rfft2.
#pragma once
#include <cstddef>

#include "math/ctf.h"

namespace verglas::cpu {

/// Fills ctf[i, iy, ix] for n images.
///   formula      math/ctf.h; k = (ix, iy or iy - box) / (box pixel_size_A)
///   params       n rows of math::kOpticsColumns doubles, in the order of math::OpticsParams
///   ctf          (n, box, box/2 + 1) float32, written
///   cost         box (box/2 + 1) sines per image; parallel over images, independent of num_threads
void ctf(const double* params, std::size_t n, int box, double pixel_size_A, float* ctf, int num_threads);

}  // namespace verglas::cpu
