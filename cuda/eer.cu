#include "cuda/eer.h"

namespace verglas::cuda {
namespace {

constexpr int kThreads = 128;

/// Numbers of a strip, least significant bit first.
class Numbers {
 public:
  __device__ Numbers(const std::uint8_t* strip, std::size_t bytes, std::int64_t bit)
      : strip_(strip), bytes_(static_cast<std::int64_t>(bytes)), bit_(bit) {}

  __device__ std::int64_t bit() const { return bit_; }
  __device__ bool enough(int n) const { return bit_ + n <= 8 * bytes_; }
  __device__ void finish() { bit_ = 8 * bytes_; }
  /// n is at most 16.
  __device__ std::uint32_t take(int n) {
    const std::int64_t first = bit_ / 8;
    std::uint32_t word = 0;
#pragma unroll
    for (int i = 0; i < 3; ++i)
      if (first + i < bytes_) word |= static_cast<std::uint32_t>(strip_[first + i]) << (8 * i);
    word >>= bit_ % 8;
    bit_ += n;
    return word & ((1u << n) - 1);
  }

 private:
  const std::uint8_t* strip_;
  std::int64_t bytes_, bit_;
};

/// Numbers that start before `end`, from pixel `position` to at most `pixels`: `on_electron(pixel, x, y)` for each, with
/// its stored place; returns the pixel behind them.
template <class OnElectron>
__device__ std::int64_t decode(Numbers& numbers, const math::EerCode& code, std::int64_t end,
                               std::int64_t position, std::int64_t pixels, OnElectron on_electron) {
  const std::uint32_t skip = (1u << code.run_bits) - 1;
  while (numbers.bit() < end && position < pixels && numbers.enough(code.run_bits)) {
    const std::uint32_t run = numbers.take(code.run_bits);
    position += run;
    if (run == skip) continue;
    // an electron that would lie beyond the last pixel is padding
    if (position >= pixels) break;
    if (!numbers.enough(code.x_bits + code.y_bits)) {
      numbers.finish();  // what is left must not be read as a number of the next chunk
      break;
    }
    const std::uint32_t x = numbers.take(code.x_bits), y = numbers.take(code.y_bits);
    on_electron(position, x, y);
    ++position;
  }
  return position;
}

__device__ std::int64_t chunk_end(std::size_t chunk) {
  return static_cast<std::int64_t>(chunk + 1) * kEerChunkBits;
}

/// One thread has one chunk entered at one bit.
__global__ void __launch_bounds__(kThreads)
    step_kernel(const std::uint8_t* __restrict__ strip, std::size_t bytes, math::EerCode code, int n_entries,
                std::size_t n_steps, EerStep* __restrict__ steps) {
  const std::size_t i = static_cast<std::size_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= n_steps) return;
  const std::size_t chunk = i / n_entries;
  const std::int64_t end = chunk_end(chunk), everywhere = std::int64_t{1} << 62;
  Numbers numbers(strip, bytes, end - kEerChunkBits + static_cast<std::int64_t>(i % n_entries));
  const std::int64_t advance =
      decode(numbers, code, end, 0, everywhere, [](std::int64_t, std::uint32_t, std::uint32_t) {});
  const std::int64_t exit = numbers.bit() - end;  // negative only where the strip ends
  steps[i] = {static_cast<std::int32_t>(exit < 0 ? 0 : exit), static_cast<std::int32_t>(advance)};
}

/// One thread walks through the strip.
__global__ void entry_kernel(const EerStep* __restrict__ steps, std::size_t n_chunks, int n_entries,
                             EerEntry* __restrict__ entries, std::int64_t* __restrict__ result) {
  std::int64_t bit = 0, pixel = 0;
  for (std::size_t chunk = 0; chunk < n_chunks; ++chunk) {
    entries[chunk] = {chunk_end(chunk) - kEerChunkBits + bit, pixel};
    const EerStep step = steps[chunk * n_entries + bit];
    bit = step.exit;
    pixel += step.advance;
  }
  result[0] = 0;
  result[1] = pixel;
}

/// One thread decodes one chunk.
__global__ void __launch_bounds__(kThreads)
    count_kernel(const std::uint8_t* __restrict__ strip, std::size_t bytes, math::EerCode code,
                 std::size_t ny, std::size_t nx, const EerEntry* __restrict__ entries, std::size_t n_chunks,
                 std::uint32_t* __restrict__ counts, std::int64_t* __restrict__ result) {
  const std::size_t chunk = static_cast<std::size_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (chunk >= n_chunks) return;
  const EerEntry from = entries[chunk];
  Numbers numbers(strip, bytes, from.bit);
  const int u = code.upsampling_log2;
  unsigned long long electrons = 0;
  const auto count = [&](std::int64_t pixel, std::uint32_t x, std::uint32_t y) {
    const std::size_t row = static_cast<std::size_t>(pixel) / nx,
                      column = static_cast<std::size_t>(pixel) % nx;
    const std::size_t line = (row << u) + math::eer_place(y, code.y_bits, u);
    atomicAdd(counts + line * (nx << u) + (column << u) + math::eer_place(x, code.x_bits, u),
              std::uint32_t{1});
    ++electrons;
  };
  decode(numbers, code, chunk_end(chunk), from.pixel, static_cast<std::int64_t>(ny * nx), count);
  if (electrons) atomicAdd(reinterpret_cast<unsigned long long*>(result), electrons);
}

}  // namespace

void eer(const std::uint8_t* strip, std::size_t bytes, const math::EerCode& code, std::size_t ny,
         std::size_t nx, std::uint32_t* counts, EerStep* steps, EerEntry* entries, std::int64_t* result,
         Stream stream) {
  const std::size_t n_chunks = eer_chunks(bytes);
  const int n_entries = eer_entries(code);
  const std::size_t n_steps = n_chunks * static_cast<std::size_t>(n_entries);
  const auto blocks = [](std::size_t n) {
    return dim3(static_cast<unsigned>((n + kThreads - 1) / kThreads));
  };
  if (n_steps > 0)
    launch(step_kernel, {blocks(n_steps), kThreads, 0, stream}, strip, bytes, code, n_entries, n_steps,
           steps);
  launch(entry_kernel, {dim3(1), dim3(1), 0, stream}, steps, n_chunks, n_entries, entries, result);
  if (n_chunks > 0)
    launch(count_kernel, {blocks(n_chunks), kThreads, 0, stream}, strip, bytes, code, ny, nx, entries,
           n_chunks, counts, result);
}

}  // namespace verglas::cuda
