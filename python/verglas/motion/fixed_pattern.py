"""A pattern that lies still on the detector while the specimen moves: gain left in frames, bad pixels.

It is in every frame at the same place, so it agrees with itself at shift zero and holds all shifts back. Standard
errors of shifts, which come from the noise, do not contain that.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from verglas import fourier
from verglas.motion.binned import BinnedFrames
from verglas.motion.patches import ASKED, BAND, Patches
from verglas.types.arrays import Array, Complex64Array, FloatArray, IntArray

SIGMAS = 5.0  # standard errors by which a pattern must stand out
LEAST_SHARE = 0.05  # of what steers the shifts: less pulls them by less than their own errors mostly
APART = 0.4  # specimen and pattern are told apart where motion leaves less than this of the specimen's power
FEWEST_MOVIES = 3  # whose sums are compared: two may show the same grid bar
KNOWN = 0.7  # radians: and where the shifts are known to less than this
LONGEST_PX = 24.0  # binned pixels: illumination is alike in all movies, and no pattern of pixels
RINGS = 64  # to the border
SENTENCE = "it pulls shifts towards zero, and their stated errors do not contain that"
WHAT_TO_DO = (
    "give the detector's gain reference and bad pixels (--gain, --defects), or make them of the movies (verglas gain); "
    "if a gain was given, it is not theirs or lies otherwise (--placement)"
)


@dataclass(frozen=True)
class FixedPattern:
    """How much of what frames share lies still.

    Attributes
    ----------
    share : float
        Of the agreement of frames that steers the shifts, the part that is a pattern's: 0 to 1; NaN where nothing was
        found to follow, or by a method that does not say.
    sigmas : float
        The pattern's power in its standard errors.

    Examples
    --------
    >>> from verglas.motion.fixed_pattern import FixedPattern
    >>> FixedPattern(0.3, 20.0).is_there, FixedPattern(0.3, 2.0).is_there, FixedPattern(0.01, 20.0).is_there
    (True, False, False)
    """

    share: float
    sigmas: float

    @property
    def is_there(self) -> bool:
        """Whether it stands out and is large enough to matter."""
        return self.sigmas > SIGMAS and not self.share <= LEAST_SHARE

    @property
    def sentence(self) -> str:
        """What it is and does."""
        share = "in all frames" if np.isnan(self.share) else f"{100 * self.share:.0f} % of what the frames share"
        return f"a pattern that lies still on the detector is {share} ({self.sigmas:.0f} standard errors): {SENTENCE}"


def within_movie(agreed: Agreement, patches: Patches, weights: FloatArray, error_px: float) -> FixedPattern | None:
    r"""The pattern in the frames of one movie, told from the specimen by its not moving.

    With frames z_f = q_f^2 S e^{-i k d_f} + q_f P + noise, q the damping, the agreement of frames laid on each other as
    recorded and that of frames moved back are two equations of every frequency for the powers of S and P:

    .. math::

        E[A_0] = s (|\sum q^2 e^{i k d}|^2 - \sum q^4) + p ((\sum q)^2 - \sum q^2), \quad
        E[A_1] = s ((\sum q^2)^2 - \sum q^4) + p (|\sum q e^{i k d}|^2 - \sum q^2)

    Of every frequency, not of rings: a lattice (crystalline ice, a two-dimensional crystal) whose spots lie across the
    motion stays longer in step than the mean of its ring, and would pass for a pattern.

    Parameters
    ----------
    agreed : Agreement
        Of the patches, moved back by the shifts that were found.
    patches : Patches
    weights : (rows, columns)
        Of the fit of the shifts.
    error_px : float
        Standard error of the shifts, pixels of the frames.

    Returns
    -------
    FixedPattern or None
        None where the specimen moved too little, or it is not known well enough how it did.
    """
    unsure = 2 * np.pi * patches.radius * error_px / patches.factor
    usable = (patches.frequencies_x[None] > 0) & (patches.frequencies_y[:, None] != 0) & (patches.radius <= BAND)
    n = agreed.patches
    usable &= (agreed.share_left < APART * n) & (unsure < KNOWN) & (agreed.pairs > 0)
    if not usable.any():
        return None
    a0, a1, s0, s1, p1, p0 = (
        part[usable].astype(float)
        for part in (
            agreed.recorded,
            agreed.moved_back,
            agreed.left,
            n * agreed.pairs,
            agreed.pattern_left,
            n * agreed.pattern_pairs,
        )
    )
    determinant = p0 * s1 - s0 * p1
    pattern, specimen = (a0 * s1 - a1 * s0) / determinant, (a1 * p0 - a0 * p1) / determinant
    # of noise alone: the variances of A0 and A1 are the sums of pairs' products, s1, and their covariance is s0;
    # noise beats with what is strong in the specimen besides
    left = np.maximum(s0, 0.0)
    beats = 2 * np.maximum(specimen, 0.0) * agreed.squares[usable] * left * s1 * np.maximum(s1 - left, 0.0)
    error = np.sqrt(np.maximum(s1**3 - s1 * s0**2, 0) + beats) / np.abs(determinant)
    power, sigmas = _of_all(pattern, error)
    steer = (weights * patches.radius**2)[usable]
    steered, moved = power * float((steer * p0).sum()), float((steer * s1 * specimen).sum())
    return FixedPattern(_share(steered, steered + max(moved, 0.0)), sigmas)


@dataclass(frozen=True, eq=False)
class Agreement:
    """Sums over patches, (rows, columns) each: the two agreements, and what is expected of specimen and pattern."""

    patches: int
    recorded: FloatArray
    moved_back: FloatArray
    left: FloatArray  # of the specimen in `recorded`, per power in a frame
    pattern_left: FloatArray  # of the pattern in `moved_back`
    share_left: FloatArray
    pairs: FloatArray  # of the specimen in `moved_back` of one patch; the variance of noise besides
    pattern_pairs: FloatArray  # of the pattern in `recorded` of one patch
    squares: FloatArray  # of the damping, added up: the variance of the noise in the sum of a patch's frames

    @classmethod
    def of(cls, patches: Patches, field_px: FloatArray) -> Agreement:
        """Of shifts (n, frames, 2) at the patches, pixels of the frames."""
        chosen = np.unique(np.linspace(0, len(patches.data) - 1, ASKED).astype(int))
        q, sums = patches.damping.astype(float), np.zeros((5, *patches.radius.shape))
        squares, fourths = (q**2).sum(0), (q**4).sum(0)
        for p in chosen:
            frames, moved = patches.data[p], _phases(patches, field_px[p] / patches.factor)
            # frames were cut further on by the offsets
            recorded = frames * _phases(patches, -patches.offsets[p].astype(float))
            power, left = (np.abs(frames) ** 2).sum(0), np.abs((q**2 * moved).sum(0)) ** 2
            sums[0] += np.abs(recorded.sum(0)) ** 2 - power
            sums[1] += np.abs((recorded * moved).sum(0)) ** 2 - power
            sums[2] += left - fourths
            sums[3] += np.abs((q * moved).sum(0)) ** 2 - squares
            sums[4] += left / np.maximum(squares**2, 1e-30)
        pairs, pattern_pairs = squares**2 - fourths, q.sum(0) ** 2 - squares
        return cls(len(chosen), sums[0], sums[1], sums[2], sums[3], sums[4], pairs, pattern_pairs, squares)


def _phases(patches: Patches, shifts: FloatArray) -> Array:
    """exp(2 pi i k.d) of shifts (frames, 2) in binned pixels: (frames, rows, columns) complex64."""
    down = np.exp(2j * np.pi * shifts[:, 1, None] * patches.frequencies_y).astype(np.complex64)
    across = np.exp(2j * np.pi * shifts[:, 0, None] * patches.frequencies_x).astype(np.complex64)
    return down[:, :, None] * across[:, None, :]


def _of_all(pattern: FloatArray, error: FloatArray) -> tuple[float, float]:
    """One power of all frequencies or rings, and in standard errors: of pixels, a pattern is as white as the noise."""
    weight = 1 / np.maximum(error, 1e-30) ** 2
    power = float((weight * pattern).sum() / weight.sum())
    return power, power * float(np.sqrt(weight.sum()))


def _share(pattern: float, whole: float) -> float:
    return float(np.clip(pattern / whole, 0.0, 1.0)) if whole > 0 and pattern > 0 else 0.0


class Steering(NamedTuple):
    """Agreement of frames that steers the shifts: what a pattern of the noise's power would make, and what is there.

    Both are 0 where nothing was found to follow.
    """

    of_pattern: float = 0.0
    of_all: float = 0.0


@dataclass(frozen=True, eq=False)
class RecordedSum:
    """What a movie's frames show where they lie, added up, for the comparison with other movies.

    Attributes
    ----------
    transform : (rows, columns) complex64
        Half transform of the sum of binned frames, in units of its noise's amplitude ring by ring.
    shape : (int, int)
        (y, x) of the binned frames.
    frames : int
        Of the sum.
    steering : Steering
    """

    transform: Complex64Array
    shape: tuple[int, int]
    frames: int
    steering: Steering = field(default_factory=Steering)


def recorded_sum(binned: BinnedFrames, used: IntArray, steering: Steering, threads: int | None = None) -> RecordedSum:
    """The sum of frames as recorded, whitened by the power of one of them, which is its noise's to a few per cent."""
    total = binned.data[used[0]].astype(np.float64)
    for f in used[1:]:
        total += binned.data[f]
    total -= total.mean()
    one = binned.data[used[len(used) // 2]]
    fft, more = fourier.transforms(one, threads)
    shape = (total.shape[0], total.shape[1])
    ring = _rings_of(shape).ravel()
    power = np.bincount(ring, (np.abs(fft.rfft2(one - one.mean(), **more)) ** 2).ravel()).astype(float)
    power = power / np.maximum(1, np.bincount(ring))
    scale = 1 / np.sqrt(np.maximum(len(used) * power, 1e-30))
    transform = fft.rfft2(total.astype(np.float32), **more) * scale[ring].reshape(shape[0], -1).astype(np.float32)
    return RecordedSum(transform.astype(np.complex64, copy=False), shape, len(used), steering)


def steering_of(agreed: Agreement, patches: Patches, weights: FloatArray) -> Steering:
    """Of a movie's patches."""
    steer = weights * patches.radius**2
    return Steering(
        float((steer * agreed.pattern_pairs).sum()) * agreed.patches,
        max(0.0, float((steer * agreed.moved_back).sum())),
    )


def _rings_of(shape: tuple[int, int]) -> IntArray:
    """Ring of every frequency of a half transform; all that do not count (illumination, axes, corners) are RINGS."""
    ky, kx = np.fft.fftfreq(shape[0])[:, None], np.fft.rfftfreq(shape[1])
    radius = np.hypot(ky, kx)
    ring = np.minimum((radius * 2 * RINGS).astype(np.int64), RINGS)
    ring[(radius < 1 / LONGEST_PX) | (ky == 0) | (kx == 0)] = RINGS
    return ring


@dataclass(eq=False)
class PatternOfMovies:
    """What the sums of different movies have in common: the detector, as their specimens differ.

    Movies are added one by one, in any order, each once; those of another size than the first are left out.

    Attributes
    ----------
    names : list of str
    total : (rows, columns) complex64 or None
        Sum of the transforms.
    power, squares : (RINGS + 1,) float64
        Mean power of a movie's sum, added up, and its square.
    frames : (2,) float64
        Sum of the roots of numbers of frames, and of these numbers.
    steering : (2,) float64
        Of all movies.

    Examples
    --------
    >>> import numpy as np
    >>> from verglas.motion import PatternOfMovies, RecordedSum
    >>> rng = np.random.default_rng(0)
    >>> still, movies = np.fft.rfft2(rng.standard_normal((64, 64))) / 64, PatternOfMovies()
    >>> for name in "abcd":
    ...     noise = np.fft.rfft2(rng.standard_normal((64, 64))) / 64
    ...     movies.add(name, RecordedSum(np.complex64(still + noise), (64, 64), 10, (50.0, 10.0)))
    >>> movies.estimate().is_there, round(movies.estimate().share, 1)
    (True, 0.5)
    """

    names: list[str] = field(default_factory=list)
    total: Complex64Array | None = None
    power: FloatArray = field(default_factory=lambda: np.zeros(RINGS + 1))
    squares: FloatArray = field(default_factory=lambda: np.zeros(RINGS + 1))
    frames: FloatArray = field(default_factory=lambda: np.zeros(2))
    steering: FloatArray = field(default_factory=lambda: np.zeros(2))
    shape: tuple[int, int] | None = None

    def add(self, name: str, movie: RecordedSum) -> None:
        """A movie; one of a name that was added is not added again."""
        if name in self.names or (self.shape is not None and self.shape != movie.shape):
            return
        ring = _rings_of(movie.shape).ravel()
        power = np.bincount(ring, (np.abs(movie.transform) ** 2).ravel(), RINGS + 1) / np.maximum(
            1, np.bincount(ring, minlength=RINGS + 1)
        )
        self.total = movie.transform.copy() if self.total is None else self.total + movie.transform
        self.shape = movie.shape
        self.names.append(name)
        self.power = self.power + power
        self.squares = self.squares + power**2
        self.frames = self.frames + np.array([np.sqrt(movie.frames), movie.frames])
        self.steering = self.steering + np.array(movie.steering)

    def estimate(self) -> FixedPattern | None:
        """The pattern; None of fewer than FEWEST_MOVIES movies."""
        if self.total is None or self.shape is None or len(self.names) < FEWEST_MOVIES:
            return None
        ring = _rings_of(self.shape).ravel()
        count = np.bincount(ring, minlength=RINGS + 1).astype(float)
        together = np.bincount(ring, (np.abs(self.total) ** 2).ravel(), RINGS + 1) - count * self.power
        pairs = max(float(self.frames[0] ** 2 - self.frames[1]), 1e-30)
        good = count[:RINGS] > 0
        pattern = together[:RINGS][good] / (count[:RINGS][good] * pairs)
        chance = np.sqrt(np.maximum(self.power**2 - self.squares, 0))[:RINGS][good]
        power, sigmas = _of_all(pattern, chance / (np.sqrt(count[:RINGS][good]) * pairs))
        whole = float(self.steering[1])
        share = _share(power * float(self.steering[0]), whole) if whole > 0 else float("nan")
        return FixedPattern(share, sigmas)

    def as_arrays(self) -> dict[str, npt.NDArray[Any]]:
        """For a file."""
        return {
            "names": np.array(self.names, dtype=str),
            "total": np.zeros((0, 0), np.complex64) if self.total is None else self.total,
            "rings": np.stack([self.power, self.squares]),
            "sums": np.stack([self.frames, self.steering]),
            "shape": np.array(self.shape or (0, 0)),
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]]) -> PatternOfMovies:
        """From :meth:`as_arrays`."""
        shape = (int(arrays["shape"][0]), int(arrays["shape"][1]))
        names = [str(name) for name in arrays["names"]]
        rings, sums = arrays["rings"], arrays["sums"]
        total = arrays["total"] if names else None
        return cls(names, total, rings[0], rings[1], sums[0], sums[1], shape if names else None)
