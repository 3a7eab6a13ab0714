"""Reference of ops.correlate: the sums as they are defined, one shift and one angle at a time."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


def shifts(box: int, max_shift_px: int | None = None) -> list[int]:
    """The integer shifts searched on one axis."""
    if max_shift_px is None or 2 * max_shift_px + 1 >= box:
        return list(range(-(box // 2), (box - 1) // 2 + 1))
    return list(range(-max_shift_px, max_shift_px + 1))


def filtered(image: npt.ArrayLike, score: str, weights: npt.ArrayLike | None = None) -> Array:
    """The image whose plain cross-correlation is the score, but for its norm."""
    f = np.asarray(image, np.float64)
    box = len(f)
    k = np.fft.fftfreq(box, 1 / box)
    shell = np.rint(np.hypot(k[:, None], k[None, :])).astype(int)
    w = np.ones(shell.max() + 1) if weights is None else np.asarray(weights, np.float64)
    root = np.sqrt(np.append(w, np.zeros(max(0, shell.max() + 1 - len(w)))))[shell]
    spectrum = np.fft.fft2(f)
    if score != "product":
        spectrum[0, 0] = 0
    if score == "phase":
        modulus = np.abs(spectrum)
        spectrum = np.where(modulus > 1e-6 * box * f.std(), spectrum / np.maximum(modulus, 1e-300), 0)
    return np.fft.ifft2(spectrum * root).real


def correlation_map(
    image: npt.ArrayLike, reference: npt.ArrayLike, score: str = "ncc", weights: npt.ArrayLike | None = None
) -> Array:
    """C(s) for every shift of the box, element [sy % box, sx % box], by direct sums over the pixels."""
    f, g = filtered(image, score, weights), filtered(reference, score, weights)
    box = len(f)
    c = np.empty((box, box))
    for sy in range(box):
        for sx in range(box):
            c[sy, sx] = (np.roll(f, (sy, sx), axis=(0, 1)) * g).sum()
    if score == "product":
        return c
    norm = np.sqrt((f**2).sum() * (g**2).sum())
    return c / norm if norm > 0 else np.zeros_like(c)


def correlate(
    image: npt.ArrayLike,
    reference: npt.ArrayLike,
    score: str = "ncc",
    max_shift_px: int | None = None,
    weights: npt.ArrayLike | None = None,
) -> tuple[tuple[int, int], float]:
    """Best integer shift (x, y) of one image on one reference, and its score."""
    c = correlation_map(image, reference, score, weights)
    box = len(c)
    searched = shifts(box, max_shift_px)
    best = max((c[sy % box, sx % box], -sy, -sx) for sy in searched for sx in searched)
    return (-best[2], -best[1]), float(best[0])
