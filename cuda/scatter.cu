#include <cmath>

#include "cuda/scatter.h"
#include "math/trig.h"

namespace verglas::cuda {
namespace {

constexpr int kSide = 64, kAtoms = 16, kThreads = 256;

/// Frequencies of one axis as stored: k = 0 .. box/2; the sines of 0 and of an even box's Nyquist are dropped.
struct Axis {
  int size, stored;
  double step;  // 1/A
  VG_HD bool has_sine(int k) const { return k > 0 && k <= (size - 1) / 2; }
};

Axis axis_of(ScatterGrid grid) { return {grid.box, grid.box / 2 + 1, 1.0 / (grid.box * grid.pixel_size_A)}; }

__global__ void __launch_bounds__(kThreads)
    form_kernel(ScatterModel model, double step, std::size_t length, float* __restrict__ form) {
  const std::size_t i = static_cast<std::size_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= length) return;
  const int type = static_cast<int>(blockIdx.y);
  double f = 0.0;
  for (int j = 0; j < model.n_terms; ++j) {
    const double* term = model.factors + 2 * (static_cast<std::size_t>(type) * model.n_terms + j);
    f += term[0] * std::exp(-0.25 * term[1] * step * step * static_cast<double>(i));
  }
  form[type * length + i] = static_cast<float>(f);
}

/// decay (cos, sin) of 16 atoms at the 64 frequencies of a tile, along y (weights in) and x.
struct alignas(16) Tables {
  float y_cos[kAtoms][kSide], y_sin[kAtoms][kSide], x_cos[kAtoms][kSide], x_sin[kAtoms][kSide];
};

/// One atom as a tile sees it: phases in turns per Fourier pixel, weight, B of the decay.
struct Seen {
  double x, y;
  float weight;
  double b;
};

__device__ void fill(const Axis& axis, double u, double b, float weight, int k, float& cosine, float& sine) {
  const bool used = k < axis.stored;
  const float decay =
      used ? weight * static_cast<float>(std::exp(-0.25 * b * axis.step * axis.step * k * k)) : 0.0f;
  cosine = decay * math::cos_turns(k * u);
  sine = axis.has_sine(k) ? decay * math::sin_turns(k * u) : 0.0f;
}

/// Sums over atoms of products of cosines (c) and sines (s) in y and x.
struct Products {
  float cc[4][4], ss[4][4], sc[4][4], cs[4][4];
};

/// Adds atoms begin .. end - 1; look(i) gives atom i as seen. All threads of the block must come.
template <class Look>
__device__ void add_atoms(Tables& tables, const Axis& axis, int ky0, int kx0, int begin, int end,
                          const Look& look, Products& p) {
  const int t = static_cast<int>(threadIdx.x), row = t / 16 * 4, column = t % 16 * 4;
  for (int first = begin; first < end; first += kAtoms) {
    const int count = min(kAtoms, end - first);
    __syncthreads();
    for (int i = t; i < count * kSide; i += kThreads) {
      const int atom = i / kSide, k = i % kSide;
      const Seen seen = look(first + atom);
      fill(axis, seen.y, seen.b, seen.weight, ky0 + k, tables.y_cos[atom][k], tables.y_sin[atom][k]);
      fill(axis, seen.x, seen.b, 1.0f, kx0 + k, tables.x_cos[atom][k], tables.x_sin[atom][k]);
    }
    __syncthreads();
    for (int atom = 0; atom < count; ++atom) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const float yc = tables.y_cos[atom][row + i], ys = tables.y_sin[atom][row + i];
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          const float xc = tables.x_cos[atom][column + j], xs = tables.x_sin[atom][column + j];
          p.cc[i][j] += yc * xc;
          p.ss[i][j] += ys * xs;
          p.sc[i][j] += ys * xc;
          p.cs[i][j] += yc * xs;
        }
      }
    }
  }
}

/// (Cy -+ i Sy)(Cx - i Sx) at +-ky.
__device__ __forceinline__ float2 coefficient(const Products& p, int i, int j, bool negative) {
  return negative ? make_float2(p.cc[i][j] + p.ss[i][j], p.sc[i][j] - p.cs[i][j])
                  : make_float2(p.cc[i][j] - p.ss[i][j], -p.sc[i][j] - p.cs[i][j]);
}

/// Calls put(at, ky, kx, coefficient) for what the thread holds; `at` counts the elements of one plane.
template <class Put>
__device__ void for_coefficients(const Axis& axis, int ky0, int kx0, const Products& p, const Put& put) {
  const int t = static_cast<int>(threadIdx.x);
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const int ky = ky0 + t / 16 * 4 + i;
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const int kx = kx0 + t % 16 * 4 + j;
      if (ky >= axis.stored || kx >= axis.stored) continue;
      put(static_cast<std::size_t>(ky) * axis.stored + kx, ky, kx, coefficient(p, i, j, false));
      // An even box holds the Nyquist row once, at index box/2.
      if (axis.has_sine(ky))
        put(static_cast<std::size_t>(axis.size - ky) * axis.stored + kx, ky, kx, coefficient(p, i, j, true));
    }
  }
}

__device__ __forceinline__ void add_to(float2* out, float2 value, float factor, bool first) {
  const float2 before = first ? make_float2(0.0f, 0.0f) : *out;
  *out = make_float2(before.x + factor * value.x, before.y + factor * value.y);
}

__global__ void __launch_bounds__(kThreads)
    image_kernel(ScatterModel model, Axis axis, const double* __restrict__ matrices,
                 const double* __restrict__ shifts_A, const float* __restrict__ form, std::size_t length,
                 float2* __restrict__ out) {
  __shared__ Tables tables;
  const std::size_t image = blockIdx.x;
  const int ky0 = static_cast<int>(blockIdx.y) * kSide, kx0 = static_cast<int>(blockIdx.z) * kSide;
  const double *r = matrices + 9 * image, *shift = shifts_A + 2 * image;
  float2* own = out + image * axis.size * axis.stored;
  const auto look = [&](int i) {
    const double* a = model.atoms + 5 * static_cast<std::size_t>(i);
    return Seen{(r[0] * a[0] + r[1] * a[1] + r[2] * a[2] - shift[0]) * axis.step,
                (r[3] * a[0] + r[4] * a[1] + r[5] * a[2] - shift[1]) * axis.step, static_cast<float>(a[3]),
                a[4]};
  };
  for (int type = 0; type < model.n_types; ++type) {
    Products p{};
    add_atoms(tables, axis, ky0, kx0, model.first[type], model.first[type + 1], look, p);
    const float* f = form + type * length;
    for_coefficients(axis, ky0, kx0, p, [&](std::size_t at, int ky, int kx, float2 value) {
      add_to(own + at, value, f[static_cast<std::size_t>(ky) * ky + static_cast<std::size_t>(kx) * kx],
             type == 0);
    });
  }
}

/// The planes +-kz: atoms weighted by cos(2 pi kz z), then, where there is a sine, by sin(2 pi kz z).
__global__ void __launch_bounds__(kThreads)
    plane_kernel(ScatterModel model, Axis axis, const float* __restrict__ form, std::size_t length,
                 float2* __restrict__ out) {
  __shared__ Tables tables;
  const int kz = static_cast<int>(blockIdx.x), ky0 = static_cast<int>(blockIdx.y) * kSide,
            kx0 = static_cast<int>(blockIdx.z) * kSide;
  const bool with_sine = axis.has_sine(kz);
  const std::size_t plane = static_cast<std::size_t>(axis.size) * axis.stored;
  float2 *above = out + kz * plane, *below = out + (axis.size - kz) * plane;
  for (int type = 0; type < model.n_types; ++type) {
    const float* f = form + type * length;
    for (int part = 0; part <= (with_sine ? 1 : 0); ++part) {
      const auto look = [&](int i) {
        const double* a = model.atoms + 5 * static_cast<std::size_t>(i);
        const double z = kz * a[2] * axis.step;
        const float wave = part ? math::sin_turns(z) : math::cos_turns(z);
        const float decay = static_cast<float>(std::exp(-0.25 * a[4] * axis.step * axis.step * kz * kz));
        return Seen{a[0] * axis.step, a[1] * axis.step, static_cast<float>(a[3]) * decay * wave, a[4]};
      };
      Products p{};
      add_atoms(tables, axis, ky0, kx0, model.first[type], model.first[type + 1], look, p);
      for_coefficients(axis, ky0, kx0, p, [&](std::size_t at, int ky, int kx, float2 v) {
        const float factor = f[static_cast<std::size_t>(kz) * kz + static_cast<std::size_t>(ky) * ky +
                               static_cast<std::size_t>(kx) * kx];
        const bool first = type == 0 && part == 0;
        // (Cz - i Sz) at +kz, (Cz + i Sz) at -kz
        add_to(above + at, part ? make_float2(v.y, -v.x) : v, factor, first);
        if (with_sine) add_to(below + at, part ? make_float2(-v.y, v.x) : v, factor, first);
      });
    }
  }
}

unsigned tiles(const Axis& axis) { return static_cast<unsigned>((axis.stored + kSide - 1) / kSide); }

void fill_form(const ScatterModel& model, const Axis& axis, std::size_t length, float* form, Stream stream) {
  const dim3 blocks(static_cast<unsigned>((length + kThreads - 1) / kThreads),
                    static_cast<unsigned>(model.n_types));
  launch(form_kernel, {blocks, kThreads, 0, stream}, model, axis.step, length, form);
}

}  // namespace

void scatter(const ScatterModel& model, const double* matrices, const double* shifts_A, std::size_t n_images,
             ScatterGrid grid, float* form, float2* out, Stream stream) {
  if (n_images == 0) return;
  const Axis axis = axis_of(grid);
  const std::size_t length = form_length(grid.box, 2);
  fill_form(model, axis, length, form, stream);
  launch(image_kernel, {dim3(static_cast<unsigned>(n_images), tiles(axis), tiles(axis)), kThreads, 0, stream},
         model, axis, matrices, shifts_A, form, length, out);
}

void scatter_volume(const ScatterModel& model, ScatterGrid grid, float* form, float2* out, Stream stream) {
  const Axis axis = axis_of(grid);
  const std::size_t length = form_length(grid.box, 3);
  fill_form(model, axis, length, form, stream);
  launch(plane_kernel,
         {dim3(static_cast<unsigned>(axis.stored), tiles(axis), tiles(axis)), kThreads, 0, stream}, model,
         axis, form, length, out);
}

}  // namespace verglas::cuda
