r"""Whether and how to move the boxes of a particle set: ways of centring, judged by data that none of them has seen.

A way of centring looks at frequencies below a limit only. How well it centres is read from the band above: the better
the particles lie on each other, the stronger is what the means of two halves of the set share there,

.. math:: P = \sum_{k \in band} \mathrm{Re}\, \bar A_1(k)\, A_2(k)^*, \qquad
          \bar A_h = \frac{1}{n_h} \sum_{i \in h} \mathrm{sgn}(C_i)\, X_i\, e^{2\pi i k \cdot t_i}

Noise of one half knows nothing of the other's, and shifts t that were fitted to noise below the limit know nothing of
the band: P does not grow by overfitting.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from verglas import fourier
from verglas.errors import InputError
from verglas.extraction.centre import ring_average, surrogate_centre
from verglas.types.arrays import Complex64Array, FloatArray, any_arrays

WAYS = ("picks", "surrogate", "average")
_LIMIT = 3.5  # coarsest detail kept from the ways, in parts of the diameter
_BAND_END = 9.0  # finest detail that judges
_REACH = 0.25  # of the diameter: a particle farther off is another one
_ROUNDS = 3
_GAIN_SIGMAS = 3.0


@dataclass(frozen=True)
class CentringTrial:
    """What the ways of centring came to.

    Attributes
    ----------
    shifts_px : mapping of way -> (n, 2) float64
        x, y to add to the image, pixels of the images tried.
    power : mapping of way -> float
        P, in units of that of "picks".
    error : float
        Standard error of these.
    means : mapping of way -> (y, x) float32
        Mean of all images.
    best : str
        The way to take: another than "picks" only if it is better by three standard errors.
    """

    shifts_px: dict[str, FloatArray]
    power: dict[str, float]
    error: float
    means: dict[str, npt.NDArray[np.float32]]
    best: str


@any_arrays
def try_centring(
    images: npt.ArrayLike, signs: npt.ArrayLike, diameter_px: float, *, ways: tuple[str, ...] = WAYS
) -> CentringTrial:
    """Centre particles in several ways and say which is best.

    Parameters
    ----------
    images : (n, y, x) float32
        Particles white, background of mean 0; pixels of about a twentieth of the particle are fine enough.
    signs : (n, y, x // 2 + 1) float
        Sign of each image's CTF, half transform in the order of ``rfft2``.
    diameter_px : float
        Of the particle.
    ways : sequence of {"picks", "surrogate", "average"}
        As picked; surrogate centre of each image; correlation with the rotational average of all.

    Returns
    -------
    CentringTrial

    Raises
    ------
    InputError
        Fewer than four images, or an unknown way.

    Examples
    --------
    >>> import numpy as np
    >>> from verglas.extraction import try_centring
    >>> rng = np.random.default_rng(0)
    >>> y, x = np.indices((32, 32)) - 16
    >>> at = rng.uniform(-3, 3, (60, 2))
    >>> rings = np.stack([np.abs(np.hypot(x - a, y - b) - 8) < 1.5 for a, b in at])
    >>> trial = try_centring(rings + rng.normal(size=rings.shape), np.ones((60, 32, 17)), 20)
    >>> trial.best, bool(np.abs(trial.shifts_px["average"] + at).mean() < 0.5)
    ('average', True)
    """
    stack = np.asarray(images, np.float32)
    if stack.ndim != 3 or len(stack) < 4:
        raise InputError(f"centring: expected at least 4 images (n, y, x), got shape {stack.shape}")
    unknown = [way for way in ways if way not in WAYS]
    if unknown:
        raise InputError(f"centring: expected ways among {', '.join(WAYS)}, got {unknown[0]!r}")
    shape = (stack.shape[1], stack.shape[2])
    flipped = (fourier.forward(stack, 2) * np.asarray(signs, np.float32)).astype(np.complex64)
    k = np.hypot(*(g / n for g, n in zip(fourier.half_grid(shape), shape, strict=True)))
    low = (k <= _LIMIT / diameter_px) & (k > 0)
    band = (k > _LIMIT / diameter_px) & (k <= min(_BAND_END / diameter_px, 0.5))
    coarse = fourier.inverse(flipped * low, shape).astype(np.float32)
    nothing = np.zeros((len(stack), 2))
    shifts = {way: nothing if way == "picks" else _shifts(way, flipped, low, coarse, diameter_px) for way in ways}
    shifts.setdefault("picks", nothing)
    powers = {way: _agreement(flipped, moved, band) for way, moved in shifts.items()}
    unit, error = powers["picks"][0], max(e for _, e in powers.values())
    best = max(powers, key=lambda way: powers[way][0])
    # sqrt(2): the difference of two powers, each with this error. In doubt the picks stay as they are.
    if powers[best][0] < unit + _GAIN_SIGMAS * np.sqrt(2) * error:
        best = "picks"
    scale = abs(unit) if unit else 1.0
    return CentringTrial(
        shifts,
        {way: value / scale for way, (value, _) in powers.items()},
        error / scale,
        {way: _mean(flipped, moved, shape) for way, moved in shifts.items()},
        best,
    )


def _shifts(way: str, flipped: Complex64Array, low: npt.NDArray, coarse: npt.NDArray, diameter_px: float) -> FloatArray:
    shape = (coarse.shape[1], coarse.shape[2])
    middle = np.array(shape[::-1]) // 2
    reach = _REACH * diameter_px
    if way == "surrogate":
        moved = middle - surrogate_centre(np.maximum(coarse, 0), diameter_px / 2)
    else:
        moved = np.zeros((len(flipped), 2))
        for _ in range(_ROUNDS):
            moved = _shifts_to_average(flipped, moved, low, reach)
    far = np.hypot(*moved.T) > reach
    return np.where(far[:, None], 0.0, moved)


def _shifts_to_average(flipped: Complex64Array, moved: FloatArray, low: npt.NDArray, reach: float) -> FloatArray:
    """Shifts to the peak of the correlation with the rotational average of the set, shifted as it is now."""
    shape = (flipped.shape[1], 2 * (flipped.shape[2] - 1) + flipped.shape[1] % 2)
    # Square boxes: whether the last side is odd cannot be seen from its half, but from the first.
    mean = _mean(flipped * low, moved, shape)
    radii = np.arange(max(shape) // 2 + 1)
    profile = ring_average(mean[None], radii)[0]
    y, x = np.indices(shape)
    distance = np.hypot(x - shape[1] // 2, y - shape[0] // 2)
    template = np.interp(distance, radii, profile, right=0.0)
    reference = fourier.forward(template[None].astype(np.float32), 2)[0] * low
    correlation = fourier.inverse((np.conj(flipped) * reference).astype(np.complex64), shape)
    correlation = np.where(distance <= reach, correlation, -np.inf)
    top = correlation.reshape(len(correlation), -1).argmax(axis=1)
    at_y, at_x = np.unravel_index(top, shape)
    peaks = np.stack([at_x, at_y], axis=1).astype(np.float64)
    rows = np.arange(len(peaks))
    inside = (at_x > 0) & (at_x < shape[1] - 1) & (at_y > 0) & (at_y < shape[0] - 1)
    for axis, (dy, dx) in enumerate(((0, 1), (1, 0))):
        ys, xs = np.where(inside, at_y, 1), np.where(inside, at_x, 1)
        left, here, right = (correlation[rows, ys + s * dy, xs + s * dx] for s in (-1, 0, 1))
        bend = left - 2 * here + right
        with np.errstate(invalid="ignore", divide="ignore"):
            step = 0.5 * (left - right) / bend
        peaks[:, axis] += np.where(inside & np.isfinite(step) & (np.abs(step) <= 0.5), step, 0.0)
    return peaks - np.array(shape[::-1]) // 2


def _shift_spectra(flipped: Complex64Array, moved: FloatArray, shape: tuple[int, int]) -> Complex64Array:
    return (flipped * fourier.shift_phases(shape, moved)).astype(np.complex64)


def _mean(flipped: Complex64Array, moved: FloatArray, shape: tuple[int, int]) -> npt.NDArray[np.float32]:
    total = _shift_spectra(flipped, moved, shape).mean(axis=0, dtype=np.complex128).astype(np.complex64)
    return fourier.inverse(total[None], shape)[0].astype(np.float32)


def _agreement(flipped: Complex64Array, moved: FloatArray, band: npt.NDArray) -> tuple[float, float]:
    """P of the even and odd images, and its standard error: the noise that each half's mean brings to the other's."""
    shape = (flipped.shape[1], 2 * (flipped.shape[2] - 1) + flipped.shape[1] % 2)
    placed = _shift_spectra(flipped, moved, shape)[:, band]
    halves = [placed[h::2].mean(axis=0, dtype=np.complex128) for h in (0, 1)]
    noise = [placed[h::2].var(axis=0, dtype=np.complex128).real / len(placed[h::2]) for h in (0, 1)]
    value = float((halves[0] * np.conj(halves[1])).real.sum())
    spread = 0.5 * (np.abs(halves[0]) ** 2 * noise[1] + np.abs(halves[1]) ** 2 * noise[0])
    return value, float(np.sqrt(spread.sum()))
