"""Electrons of Electron Event Representation files, counted on a grid."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from verglas._native import core
from verglas.ops._device import as_array, cuda_session, device_of


def eer(
    strip: bytes | npt.NDArray[np.uint8],
    counts: npt.NDArray[np.uint16],
    *,
    run_bits: int = 7,
    sub_bits: tuple[int, int] = (2, 2),
    upsampling: int = 1,
    device: str = "cpu",
) -> int:
    """Add the electrons of one frame to counts.

    A strip is a stream of bits, least significant first. A run length r of ``run_bits`` bits: all ones skip that many
    pixels of the sensor, row by row; any other r is an electron r pixels on, followed by its place in the pixel, x then
    y, the highest bit of each inverted; the next run starts one pixel further.

    Parameters
    ----------
    strip : bytes or (n,) uint8
        One frame as the file holds it.
    counts : (y * upsampling, x * upsampling) uint16
        What the electrons are added to, in place.
    run_bits : int
        7 for TIFF compression 65001, 8 for 65000; tag 65007 for 65002.
    sub_bits : (int, int)
        Bits of a place along x and y: 2 and 2, or tags 65008 and 65009.
    upsampling : int
        Grid points per pixel along each axis: 1, 2, 4, 8 or 16.
    device : str
        ``"cpu"`` or ``"cuda:<number>"``: arrays may then lie on the device; what comes from the host is copied there.

    Returns
    -------
    int
        Electrons of the frame; -1 where the strip ends before the last pixel: it is cut off.

    Raises
    ------
    ValueError
        Another dtype or shape, or a width out of range.
    DeviceError
        The device cannot be used.

    Notes
    -----
    The format is that which ``imagecodecs.eer_decode`` reads; the tests compare the two.

    Examples
    --------
    >>> import numpy as np
    >>> from verglas import ops
    >>> counts = np.zeros((2, 4), np.uint16)
    >>> bits = 3 | 0 << 7 | 127 << 11  # an electron three pixels on, then nothing
    >>> ops.eer(bits.to_bytes(3, "little"), counts), counts.tolist()
    (1, [[0, 0, 0, 1], [0, 0, 0, 0]])
    """
    level = int(upsampling).bit_length() - 1
    if upsampling < 1 or 1 << level != upsampling:
        raise ValueError(f"upsampling: expected 1, 2, 4, 8 or 16, got {upsampling}")
    data = np.frombuffer(strip, np.uint8) if isinstance(strip, bytes) else strip
    if device != "cpu":
        return _eer_cuda(data, counts, _Code(run_bits, *sub_bits, level), device)
    return int(core.eer(as_array(data, np.uint8), run_bits, *sub_bits, level, counts))


class _Code(NamedTuple):
    """Bits of a run and of the place within a pixel (x, y), and the power of two of the upsampling."""

    run_bits: int
    x_bits: int
    y_bits: int
    level: int


def _eer_cuda(strip: Any, counts: Any, code: _Code, device: str) -> int:
    """Counted in uint32, which the device adds to one at a time; added to counts of 16 bits in one go."""
    if counts.dtype != np.uint16:
        raise ValueError(f"counts: expected uint16, got {counts.dtype}")
    cuda = cuda_session(device)
    with cuda.active() as stream:
        data = cuda.array(strip, np.uint8)
        electrons = cuda.cupy.zeros(counts.shape, np.uint32)
        sizes = cuda.kernels.eer_scratch(len(data), *code[:3])
        scratch = tuple(cuda.empty((size,), kind) for size, kind in zip(sizes, (np.int32, np.int64), strict=True))
        result = cuda.empty((2,), np.int64)
        cuda.kernels.eer(data, *code, electrons, scratch, result, stream)
        total, pixel = result.get().tolist()
        sixteen = electrons.astype(np.uint16)
        counts += sixteen.get() if device_of(counts) == "cpu" else sixteen
    # each pixel of the sensor is passed once: who ends before the last was cut off
    return int(total) if pixel >= counts.size >> (2 * code.level) else -1
