#include "ops/eer.h"

namespace verglas::cpu {
namespace {

/// Bits of a stream, least significant first; zeros after its end.
class Bits {
 public:
  Bits(const std::uint8_t* data, std::size_t bytes) : data_(data), left_(8 * bytes), bytes_(bytes) {}

  /// Makes sure that 56 bits are there, as far as the stream reaches.
  void fill() {
    while (have_ <= 56 && next_ < bytes_) {
      word_ |= static_cast<std::uint64_t>(data_[next_++]) << have_;
      have_ += 8;
    }
  }

  bool enough(int n) const { return left_ >= static_cast<std::size_t>(n); }

  std::uint32_t take(int n) {
    const auto value = static_cast<std::uint32_t>(word_ & ((std::uint64_t{1} << n) - 1));
    word_ >>= n;
    have_ -= n;
    left_ -= static_cast<std::size_t>(n);
    return value;
  }

 private:
  const std::uint8_t* data_;
  std::size_t left_, bytes_, next_ = 0;
  std::uint64_t word_ = 0;
  int have_ = 0;
};

}  // namespace

std::int64_t eer(const std::uint8_t* strip, std::size_t bytes, EerCode code, std::size_t ny, std::size_t nx,
                 std::uint16_t* counts) {
  Bits bits(strip, bytes);
  const std::size_t pixels = ny * nx;
  const std::uint32_t skip = (1U << code.run_bits) - 1;
  const int u = code.upsampling_log2, event_bits = code.x_bits + code.y_bits;
  std::size_t position = 0, row = 0, row_start = 0;
  std::int64_t electrons = 0;
  while (position < pixels) {
    bits.fill();
    if (!bits.enough(code.run_bits)) return -1;
    const std::uint32_t run = bits.take(code.run_bits);
    position += run;
    if (run == skip) continue;
    // an electron that would lie beyond the last pixel is padding
    if (position >= pixels) break;
    if (!bits.enough(event_bits)) return -1;
    const std::size_t x = math::eer_place(bits.take(code.x_bits), code.x_bits, u);
    const std::size_t y = math::eer_place(bits.take(code.y_bits), code.y_bits, u);
    while (position >= row_start + nx) {
      row_start += nx;
      ++row;
    }
    ++counts[((row << u) + y) * (nx << u) + ((position - row_start) << u) + x];
    ++electrons;
    ++position;
  }
  return electrons;
}

}  // namespace verglas::cpu
