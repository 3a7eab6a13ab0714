"""Grey images as PNG, quickly and small: one byte a pixel, nothing drawn about it."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import numpy.typing as npt


def grey_png(values: npt.NDArray[np.uint8]) -> bytes:
    r"""A PNG of grey values.

    Parameters
    ----------
    values : (rows, columns) uint8

    Examples
    --------
    >>> import numpy as np
    >>> from verglas.report.grey import grey_png
    >>> grey_png(np.zeros((4, 6), np.uint8))[:4]
    b'\x89PNG'
    """
    rows, columns = values.shape

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", columns, rows, 8, 0, 0, 0, 0)
    # Differences to the pixel on the left compress better than the values: filter 1 of the format.
    lines = np.empty((rows, columns + 1), np.uint8)
    lines[:, 0], lines[:, 1] = 1, values[:, 0]
    lines[:, 2:] = values[:, 1:] - values[:, :-1]
    body = zlib.compress(lines.tobytes(), 6)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def grey_bytes(image: npt.NDArray, low_percent: float = 0.5, high_percent: float = 99.5) -> npt.NDArray[np.uint8]:
    """Grey values of an image from 0 to 255 between two of its percentiles.

    Examples
    --------
    >>> import numpy as np
    >>> from verglas.report.grey import grey_bytes
    >>> grey_bytes(np.array([[0.0, 1.0]]), 0, 100).tolist()
    [[0, 255]]
    """
    low, high = np.percentile(image, (low_percent, high_percent))
    return np.rint(np.clip((image - low) / max(float(high - low), 1e-12), 0, 1) * 255).astype(np.uint8)


def bin_to(image: npt.NDArray, most_px: int) -> tuple[npt.NDArray[np.float64], int]:
    """An image made coarser by means of whole blocks until no side is longer, and the side of a block.

    Examples
    --------
    >>> import numpy as np
    >>> from verglas.report.grey import bin_to
    >>> small, step = bin_to(np.arange(16.0).reshape(4, 4), 2)
    >>> small.tolist(), step
    ([[2.5, 4.5], [10.5, 12.5]], 2)
    """
    step = max(1, -(-max(image.shape) // most_px))
    rows, columns = (n // step for n in image.shape)
    cut = image[: rows * step, : columns * step].reshape(rows, step, columns, step)
    return cut.mean(axis=(1, 3), dtype=np.float64), step
