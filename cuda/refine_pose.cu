#include <limits>

#include "cuda/refine_pose.h"
#include "math/constants.h"

namespace verglas::cuda {
namespace {

// Three blocks of 160 registers a thread share a processor: while one takes its step the others work on pixels.
constexpr int kThreads = 128, kWarps = kThreads / 32;
constexpr int kFlush = 64;  // pixels of a thread whose sums are float32
constexpr int kPatchX = 8, kPatchY = 4;

using math::kPoseTerms;

/// The interpolated transform at a point, and its derivatives along the grid's axes (per grid step).
struct GradientSample {
  float2 value, dx, dy, dz;
};

__device__ __forceinline__ void add_scaled(float2& sum, float w, const float2& x) {
  sum.x += w * x.x;
  sum.y += w * x.y;
}

/// gather, with the exact gradient of what it interpolates: one or another window replaced by its derivative.
/// The taps are read once.
template <int W>
__device__ __forceinline__ GradientSample gather_gradient(const Window& window, const math::GridShape& grid,
                                                          const float2* __restrict__ spectrum,
                                                          const math::SlicePoint& point) {
  const auto fz = math::footprint<W>(point.z), fy = math::footprint<W>(point.y),
             fx = math::footprint<W>(point.x);
  float wy[W], sy[W], wx[W], sx[W];
  taps_slope<W>(window, fy.t, wy, sy);
  taps_slope<W>(window, fx.t, wx, sx);
  const std::size_t row = grid.columns, plane = row * grid.rows();
  const float2* corner = spectrum + fz.first * plane + fy.first * row + fx.first;
  GradientSample s{};
#pragma unroll 1
  for (int z = 0; z < W; ++z) {
    // not arrays: indexed by a variable they would live in memory
    float wz = window.c[window.degree * W + z], sz = 0.0f;
    for (int d = window.degree - 1; d >= 0; --d) {
      sz = sz * fz.t + wz;
      wz = wz * fz.t + window.c[d * W + z];
    }
    float2 value{}, along_x{}, along_y{};
#pragma unroll
    for (int y = 0; y < W; ++y) {
      const float2* line = corner + z * plane + y * row;
      float2 part{}, part_x{};
#pragma unroll
      for (int x = 0; x < W; ++x) {
        const float2 tap_value = __ldg(line + x);
        add_scaled(part, wx[x], tap_value);
        add_scaled(part_x, sx[x], tap_value);
      }
      add_scaled(value, wy[y], part);
      add_scaled(along_x, wy[y], part_x);
      add_scaled(along_y, sy[y], part);
    }
    add_scaled(s.value, wz, value);
    add_scaled(s.dx, wz, along_x);
    add_scaled(s.dy, wz, along_y);
    add_scaled(s.dz, sz, value);
  }
  if (point.mate) {
    // V(q) = conj V(-q): at the mate the value is conjugated, the gradient conjugated and negated.
    s.value.y = -s.value.y;
    s.dx.x = -s.dx.x;
    s.dy.x = -s.dy.x;
    s.dz.x = -s.dz.x;
  }
  return s;
}

/// What the block shares.
struct Shared {
  double partial[kPoseTerms][kThreads];
  double sums[kPoseTerms];
  math::PoseClimb climb;
  math::Pose trial;
  math::SliceAxes axes;
  float turn[9];
  int evaluations;
  bool more;
};

/// One block, one pose.
template <int W>
class BlockClimb {
 public:
  __device__ BlockClimb(const Window& window, const math::GridShape& grid, const float2* spectrum,
                        const PoseImages& images, const PosePrior& prior, const PoseOptions& options,
                        const PoseBatch& poses, Shared& shared)
      : window_(window),
        grid_(grid),
        spectrum_(spectrum),
        images_(images),
        prior_(prior),
        options_(options),
        poses_(poses),
        s_(shared),
        pose_(blockIdx.x),
        half_(grid.box / 2 + 1) {
    image_ = poses.image_of(pose_);
  }

  __device__ void run() {
    if (leader()) start();
    __syncthreads();
    const int last = options_.radii[options_.n_radii - 1];
    for (int r = 0; r < options_.n_radii && s_.more; ++r) {
      const int radius = options_.radii[r];
      if (options_.max_steps == 0 && radius != last) continue;
      climb(radius, last);
    }
    if (leader()) poses_.finish(pose_, s_.climb, s_.evaluations);
  }

 private:
  const Window& window_;
  const math::GridShape& grid_;
  const float2* spectrum_;
  const PoseImages& images_;
  const PosePrior& prior_;
  const PoseOptions& options_;
  const PoseBatch& poses_;
  Shared& s_;
  const std::size_t pose_;
  std::size_t image_;
  const int half_;

  __device__ static bool leader() { return threadIdx.x == 0; }

  __device__ void start() {
    auto& c = s_.climb;
    c = math::PoseClimb{};
    c.pose = poses_.start(pose_);
    c.box = grid_.box;
    c.max_steps = options_.max_steps;
    c.status = math::PoseStatus::kNotFinite;
    s_.evaluations = 0;
    s_.more = math::finite(c.pose) && math::is_rotation(c.pose.a.m);
  }

  /// At one radius; s_.more says whether the next may follow.
  __device__ void climb(int radius, int last) {
    auto& c = s_.climb;
    if (leader()) {
      c.aim_at(radius, last, options_.tolerance_rad, options_.tolerance_px);
      s_.trial = c.pose;
      aim();
    }
    evaluate(radius);
    if (leader()) {
      s_.more = c.begin(math::pose_evaluation(s_.sums), prior_.at(pose_, c.pose)) && c.propose(&s_.trial);
      aim();
    }
    __syncthreads();
    while (s_.more) {
      evaluate(radius);
      if (leader()) {
        s_.more = c.judge(s_.trial, math::pose_evaluation(s_.sums), prior_.at(pose_, s_.trial)) &&
                  c.propose(&s_.trial);
        aim();
      }
      __syncthreads();
    }
    __syncthreads();  // all have left the loop before the flag means something else
    if (leader()) s_.more = c.status != math::PoseStatus::kNotFinite && math::finite(c.pose);
    __syncthreads();
  }

  /// What the pixels need to know of the trial pose.
  __device__ void aim() {
    s_.axes = math::slice_axes(s_.trial.a.m, grid_);
    const double scale = static_cast<double>(grid_.padded) / grid_.box;
    for (int i = 0; i < 9; ++i) s_.turn[i] = static_cast<float>(scale * s_.trial.a.m[i]);
  }

  /// Sums of the trial pose over the disc; entered and left by the whole block together.
  __device__ void evaluate(int radius) {
    if (leader()) ++s_.evaluations;
    for (int t = 0; t < kPoseTerms; ++t) s_.partial[t][threadIdx.x] = 0.0;
    __syncthreads();
    const math::SliceAxes axes = s_.axes;
    const double dx = s_.trial.shift[0], dy = s_.trial.shift[1];
    const int most = radius < (grid_.box - 1) / 2 ? radius : (grid_.box - 1) / 2;
    const int across = most / kPatchX + 1, along = (2 * radius + kPatchY) / kPatchY;
    const int lane = static_cast<int>(threadIdx.x) % 32;
    float totals[kPoseTerms] = {};
    int held = 0;
    for (int patch = static_cast<int>(threadIdx.x) / 32; patch < across * along; patch += kWarps) {
      const int kx = patch % across * kPatchX + lane % kPatchX;
      const int ky = patch / across * kPatchY + lane / kPatchX - radius;
      // Each pixel stands for its Friedel mate too: kx >= 0, and ky > 0 where kx = 0.
      if (kx > most || (kx == 0 && ky <= 0) || !math::in_disc(kx, ky, radius)) continue;
      if (ky < -(grid_.box / 2) || ky >= (grid_.box + 1) / 2) continue;
      add_pixel(kx, ky, axes, dx, dy, totals);
      if (++held == kFlush) {
        flush(totals);
        held = 0;
      }
    }
    flush(totals);
    __syncthreads();
    reduce();
    __syncthreads();
  }

  __device__ void flush(float* totals) {
#pragma unroll
    for (int t = 0; t < kPoseTerms; ++t) {
      s_.partial[t][threadIdx.x] += totals[t];
      totals[t] = 0.0f;
    }
  }

  __device__ void reduce() {
    const int lane = static_cast<int>(threadIdx.x) % 32;
    for (int t = static_cast<int>(threadIdx.x) / 32; t < kPoseTerms; t += kWarps) {
      double sum = 0.0;
      for (int i = lane; i < kThreads; i += 32) sum += s_.partial[t][i];
      for (int step = 16; step > 0; step /= 2) sum += __shfl_down_sync(0xffffffffu, sum, step);
      if (lane == 0) s_.sums[t] = sum;
    }
  }

  __device__ void add_pixel(int kx, int ky, const math::SliceAxes& axes, double dx, double dy,
                            float* totals) const {
    const std::size_t row = ky < 0 ? ky + grid_.box : ky, at = (image_ * grid_.box + row) * half_ + kx;
    const GradientSample g =
        gather_gradient<W>(window_, grid_, spectrum_, math::slice_point(axes, grid_, kx, ky));
    // moved back to the centre
    const float2 x = multiply(images_.transforms[at], phase_of((kx * dx + ky * dy) / grid_.box));
    const float scale = images_.scale ? static_cast<float>(images_.scale[image_]) : 1.0f;
    float weight = 2.0f;
    if (images_.shell_weight) {
      const int shell = static_cast<int>(lrintf(sqrtf(static_cast<float>(kx * kx + ky * ky))));
      weight *= images_.shell_weight[image_ * (options_.radii[options_.n_radii - 1] + 1) + shell];
    }
    const math::PosePixel<float> pixel = {weight,
                                          images_.ctf ? scale * images_.ctf[at] : scale,
                                          static_cast<float>(kx),
                                          static_cast<float>(ky),
                                          g.value.x,
                                          g.value.y,
                                          {g.dx.x, g.dx.y, g.dy.x, g.dy.y, g.dz.x, g.dz.y},
                                          x.x,
                                          x.y};
    math::add_pose_terms(pixel, s_.turn, static_cast<float>(2.0 * math::kPi / grid_.box), totals);
  }
};

template <int W>
__global__ void __launch_bounds__(kThreads)
    refine_pose_kernel(const __grid_constant__ Window window, const __grid_constant__ math::GridShape grid,
                       const float2* __restrict__ spectrum, const __grid_constant__ PoseImages images,
                       const __grid_constant__ PosePrior prior, const __grid_constant__ PoseOptions options,
                       const __grid_constant__ PoseBatch poses) {
  VG_DYNAMIC_SHARED(unsigned char, memory);
  Shared& shared = *reinterpret_cast<Shared*>(memory);
  BlockClimb<W>(window, grid, spectrum, images, prior, options, poses, shared).run();
}

}  // namespace

void refine_pose(const math::GridShape& grid, const math::WindowTable& window, const float2* spectrum,
                 const PoseImages& images, const PosePrior& prior, const PoseOptions& options,
                 const PoseBatch& poses, Stream stream) {
  if (poses.n == 0) return;  // an empty grid is an invalid launch
  if (poses.n > static_cast<std::size_t>(std::numeric_limits<int>::max()))
    throw std::invalid_argument("matrices: more than 2^31 - 1 poses in one call; split the batch");
  with_width(window.width, [&](auto width) {
    launch(refine_pose_kernel<decltype(width)::value>,
           {dim3(static_cast<unsigned>(poses.n)), dim3(kThreads), sizeof(Shared), stream}, window_of(window),
           grid, spectrum, images, prior, options, poses);
  });
}

}  // namespace verglas::cuda
