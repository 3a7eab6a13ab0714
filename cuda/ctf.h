// ctf: contrast transfer functions of many images on the half-transform grid of rfft2, on the device.
#pragma once
#include <cstddef>

#include "cuda/device.h"
#include "math/ctf.h"

namespace verglas::cuda {

/// Fills ctf[i, iy, ix] for n images, asynchronously on `stream`.
///   formula      math/ctf.h, the same code as on the host; the phase in float64, the sine in float32
///   params       n rows of math::kOpticsColumns doubles on the device, borrowed until the stream has passed
///   ctf          (n, box, box/2 + 1) float32 on the device, written
///   cost         one pass of writes; n up to 2^31 - 1 images in a launch
void ctf(const double* params, std::size_t n, int box, double pixel_size_A, float* ctf, Stream stream);

}  // namespace verglas::cuda
