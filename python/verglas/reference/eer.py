"""Reference of ops.eer: a stream of bits read one number at a time."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def eer(
    strip: bytes, shape: tuple[int, int], run_bits: int = 7, sub_bits: tuple[int, int] = (2, 2), upsampling: int = 1
) -> npt.NDArray[np.uint16] | None:
    """Counts on the up-sampled grid; None where the strip ends too early."""
    stream, bits_left = int.from_bytes(strip, "little"), 8 * len(strip)
    counts = np.zeros((shape[0] * upsampling, shape[1] * upsampling), np.uint16)
    position = 0
    while position < shape[0] * shape[1]:
        if bits_left < run_bits:
            return None
        run, stream, bits_left = stream & ((1 << run_bits) - 1), stream >> run_bits, bits_left - run_bits
        position += run
        # The longest run stands for no electron: it only skips, and the next number goes on from there.
        if run == (1 << run_bits) - 1:
            continue
        if position >= shape[0] * shape[1]:
            break
        if bits_left < sum(sub_bits):
            return None
        place = []
        for bits in sub_bits:
            stored, stream, bits_left = stream & ((1 << bits) - 1), stream >> bits, bits_left - bits
            # The place within a pixel is stored with its highest bit inverted: 0 is the middle of the pixel.
            place.append(int((stored ^ (1 << bits >> 1)) / 2**bits * upsampling))
        y, x = divmod(position, shape[1])
        counts[y * upsampling + place[1], x * upsampling + place[0]] += 1
        position += 1
    return counts
