// eer: electrons of one frame of an Electron Event Representation file, counted on a grid, on the device.
#pragma once
#include <cstddef>
#include <cstdint>

#include "cuda/device.h"
#include "math/eer.h"

namespace verglas::cuda {

constexpr int kEerChunkBits = 4096;

/// What a chunk of a strip does to who enters it at one of its first bits.
struct EerStep {
  std::int32_t exit;     // first bit of the next chunk's first number, from that chunk's start
  std::int32_t advance;  // pixels
};

/// Where decoding of a chunk starts.
struct EerEntry {
  std::int64_t bit, pixel;
};

inline std::size_t eer_chunks(std::size_t bytes) { return (8 * bytes + kEerChunkBits - 1) / kEerChunkBits; }
/// Bits of the longest number of a strip: so many entries a chunk can have.
inline int eer_entries(const math::EerCode& code) { return code.run_bits + code.x_bits + code.y_bits; }

/// Adds every electron of a strip to counts (ny << u, nx << u) uint32, as cpp/ops/eer.h says.
///   steps    eer_chunks * eer_entries scratch;  entries  eer_chunks scratch
///   result   2 int64: electrons, and the pixel where the strip ends: below ny nx it is cut off
///   method   where a number starts depends on all before it, so every chunk is read from each bit at which one may
///            start; one thread then walks from chunk to chunk, and each is decoded from where that came by
///   cost     eer_entries reads of the strip, an atomic addition an electron
void eer(const std::uint8_t* strip, std::size_t bytes, const math::EerCode& code, std::size_t ny,
         std::size_t nx, std::uint32_t* counts, EerStep* steps, EerEntry* entries, std::int64_t* result,
         Stream stream);

}  // namespace verglas::cuda
