"""Reference of ops.eer: a stream of bits read one number at a time."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def eer(
    strip: bytes, shape: tuple[int, int], run_bits: int = 7, sub_bits: tuple[int, int] = (2, 2), upsampling: int = 1
) -> npt.NDArray[np.uint16] | None:
    """Counts on the up-sampled grid; None where the strip ends too early."""
    stream, left = int.from_bytes(strip, "little"), 8 * len(strip)
    counts = np.zeros((shape[0] * upsampling, shape[1] * upsampling), np.uint16)
    position = 0
    while position < shape[0] * shape[1]:
        if left < run_bits:
            return None
        run, stream, left = stream & ((1 << run_bits) - 1), stream >> run_bits, left - run_bits
        position += run
        if run == (1 << run_bits) - 1:
            continue
        if position >= shape[0] * shape[1]:
            break
        if left < sum(sub_bits):
            return None
        place = []
        for bits in sub_bits:
            stored, stream, left = stream & ((1 << bits) - 1), stream >> bits, left - bits
            place.append(int((stored ^ (1 << bits >> 1)) / 2**bits * upsampling))
        y, x = divmod(position, shape[1])
        counts[y * upsampling + place[1], x * upsampling + place[0]] += 1
        position += 1
    return counts
