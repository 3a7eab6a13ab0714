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


def filter_image(image: npt.ArrayLike, score: str, weights: npt.ArrayLike | None = None) -> Array:
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
        # Coefficients of rounding have a phase, too: brought to length 1 they would count as much as the signal's.
        spectrum = np.where(modulus > 1e-6 * box * f.std(), spectrum / np.maximum(modulus, 1e-300), 0)
    return np.fft.ifft2(spectrum * root).real


def correlation_map(
    image: npt.ArrayLike, reference: npt.ArrayLike, score: str = "ncc", weights: npt.ArrayLike | None = None
) -> Array:
    """C(s) for every shift of the box, element [sy % box, sx % box], by direct sums over the pixels."""
    f, g = filter_image(image, score, weights), filter_image(reference, score, weights)
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
    # Of equal values the one of the smallest y, then of the smallest x.
    best = max((c[sy % box, sx % box], -sy, -sx) for sy in searched for sx in searched)
    return (-best[2], -best[1]), float(best[0])


def _cubic(t: float) -> float:
    """Cubic convolution kernel of Keys (1981), a = -1/2."""
    t = abs(t)
    if t < 1:
        return 1 - 2.5 * t**2 + 1.5 * t**3
    return 2 - 4 * t + 2.5 * t**2 - 0.5 * t**3 if t < 2 else 0.0


def ring(image: npt.ArrayLike, r: float, shift_px: tuple[int, int] = (0, 0)) -> Array:
    """One ring about pixel box // 2 of the (periodic) image moved by a shift; as many samples as the kernel takes."""
    f = np.asarray(image, np.float64)
    box = len(f)
    n = 2 * int(np.ceil(np.pi * r + 4))
    while any(n % p == 0 for p in _primes_from_11(n)):
        n += 2
    out = np.zeros(n)
    for j in range(n):
        x = box // 2 + r * np.cos(2 * np.pi * j / n) - shift_px[0]
        y = box // 2 + r * np.sin(2 * np.pi * j / n) - shift_px[1]
        for iy in range(int(np.floor(y)) - 1, int(np.floor(y)) + 3):
            for ix in range(int(np.floor(x)) - 1, int(np.floor(x)) + 3):
                out[j] += _cubic(x - ix) * _cubic(y - iy) * f[iy % box, ix % box]
    return out


def _primes_from_11(n: int) -> list[int]:
    return [p for p in range(11, n + 1) if all(p % q for q in range(2, int(p**0.5) + 1))]


def rotation_scores(
    image: npt.ArrayLike,
    reference: npt.ArrayLike,
    angles_deg: npt.ArrayLike,
    radii: npt.ArrayLike,
    shift_px: tuple[int, int] = (0, 0),
) -> Array:
    """Ring correlation of one image at one shift with one reference, at any angles, term by term.

    The reference's rings are turned as trigonometric polynomials; the means over all rings are removed. The Nyquist
    term of a ring, which has no direction, is left out of both.
    """
    f = [_without_nyquist(ring(image, r, shift_px)) for r in np.atleast_1d(radii)]
    g = [_without_nyquist(ring(reference, r)) for r in np.atleast_1d(radii)]
    # r sum over theta, an integral over the ring: the step in theta is 2 pi / n
    w = [r / len(x) for r, x in zip(np.atleast_1d(radii), f, strict=True)]
    area = sum(a * len(x) for a, x in zip(w, f, strict=True))
    f = [x - sum(a * y.sum() for a, y in zip(w, f, strict=True)) / area for x in f]
    g = [x - sum(a * y.sum() for a, y in zip(w, g, strict=True)) / area for x in g]
    norm = np.sqrt(sum(a * (x @ x) for a, x in zip(w, f, strict=True)))
    norm *= np.sqrt(sum(a * (x @ x) for a, x in zip(w, g, strict=True)))
    scores = [
        sum(a * (x @ _rotate_profile(y, np.deg2rad(psi))) for a, x, y in zip(w, f, g, strict=True))
        for psi in np.atleast_1d(angles_deg)
    ]
    return np.array(scores) / norm


def _without_nyquist(samples: Array) -> Array:
    # Nyquist has no phase of its own, so a rotation of it is not defined.
    sign = (-1.0) ** np.arange(len(samples))
    return samples - sign * (sign @ samples) / len(samples)


def _rotate_profile(samples: Array, psi: float) -> Array:
    """g(theta + psi) of a trigonometric polynomial g."""
    n = len(samples)
    m = np.fft.fftfreq(n, 1 / n)
    return np.fft.ifft(np.fft.fft(samples) * np.exp(1j * m * psi)).real
