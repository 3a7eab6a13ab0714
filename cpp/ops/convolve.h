// convolve: images of many channels correlated with small kernels, and the gradient of such sums.
#pragma once
#include <cstddef>

namespace verglas::cpu {

/// out[n, i, j, o] = bias[o] + sum over u, v, c of x[n, s i + u - h, s j + v - h, c] w[u, v, c, o],  h = (k - 1) / 2;
/// zero outside the image.
///   x          (n, height, width, channels) float32
///   w          (k, k, channels, kernels) float32, k odd
///   bias       (kernels,) float32
///   out        (n, ceil(height / s), ceil(width / s), kernels) float32, written
///   cost       k^2 channels kernels multiplications per pixel of the result; a copy of the weights, and per thread one
///              of k rows; parallel over rows of the result
struct ConvolveShape {
  std::size_t n, height, width, channels, kernels;
  int side, stride;
  std::size_t rows() const { return (height + stride - 1) / stride; }
  std::size_t columns() const { return (width + stride - 1) / stride; }
};
void convolve(const float* x, const float* w, const float* bias, const ConvolveShape& shape, float* out,
              int num_threads);

/// gradient[u, v, c, o] = sum over n, i, j of x[n, s i + u - h, s j + v - h, c] g[n, i, j, o]
///   g          (n, ceil(height / s), ceil(width / s), kernels) float32
///   gradient   (k, k, channels, kernels) float64, written; sums in one fixed order whatever the threads
void convolve_gradient(const float* x, const float* g, const ConvolveShape& shape, double* gradient,
                       int num_threads);

}  // namespace verglas::cpu
