"""A map from an aligned tilt series, by back-projection or by a solver whose weight the left-out tilts choose."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from verglas import fourier
from verglas.errors import InputError
from verglas.image import crop_or_pad
from verglas.reconstruction.compositions import solve_firt, solve_icon, solve_mbir
from verglas.reconstruction.operators.tilt_series import (
    TiltSeries,
    leave_one_out,
    tilt_series,
    weighted_back_projection,
)
from verglas.reconstruction.priors import gradient
from verglas.reconstruction.solvers import solve
from verglas.reconstruction.solvers.smooth import noise_deviation
from verglas.types.arrays import Array, Float32Array, FloatArray
from verglas.types.display import one_line
from verglas.types.settings import accept_former_names, check_settings, setting

_ITERATIONS = {"sirt": 60, "cg": 12, "tv": 60, "icon": 60, "firt": 60, "mbir": 60}
# Tried where no weight is given: of tv and mbir, and of icon (threshold), in standard deviations of the images' noise;
# of firt (knee) in the median slope of a short SIRT's map.
_WEIGHTS = {"tv": (0.3, 1.0, 3.0), "mbir": (0.3, 1.0, 3.0), "icon": (0.3, 1.0, 3.0), "firt": (0.5, 2.0, 8.0)}
_FIRST_ITERATIONS, _FIRT_INNER = 10, 3


@accept_former_names
@dataclass(frozen=True)
class TomogramSettings:
    """How a tilt series becomes a map.

    Attributes
    ----------
    method : {"wbp", "sirt", "cg", "tv", "icon", "firt", "mbir"}
        Weighted back-projection; simultaneous iterations; conjugate gradients, stopped early; total variation; and the
        compositions of :mod:`verglas.reconstruction.compositions`.
    iterations : int, optional
        60, for cg 12; of firt and mbir those of all rounds.
    thickness_px : int, optional
        Of the map along z; the width of the images by default.
    tilt_axis_deg : float
        Of the tilt axis in the images, from +y towards +x.
    prior_weight : float, optional
        Of what "tv", "icon", "firt", "mbir" assume; by default that of three which predicts tilts left out best. In the
        unit of the images; of firt in the median slope of a short SIRT's map.
    """

    method: Literal["wbp", "sirt", "cg", "tv", "icon", "firt", "mbir"] = setting(
        "wbp", "Weighted back-projection, SIRT, conjugate gradients, total variation, ICON, FIRT, or MBIR"
    )
    iterations: int | None = setting(None, "Iterations", at_least=1, default_words="60; cg: 12")
    thickness_px: int | None = setting(None, "Thickness along z", at_least=2, default_words="the images' width")
    tilt_axis_deg: float = setting(0.0, "Tilt axis in the images, from +y towards +x")
    prior_weight: float | None = setting(
        None,
        "Weight of what tv, icon, firt or mbir assume",
        more_than=0,
        default_words="by left-out tilts",
        flags=("--tv-weight",),
        former=("tv_weight",),
    )

    def __post_init__(self) -> None:
        """Check once."""
        check_settings("tomogram", self)
        if self.method == "wbp" and self.tilt_axis_deg % 180 != 0:
            raise InputError(
                "tomogram: weighted back-projection takes images whose tilt axis is along y; turn them, or "
                "use another method"
            )
        if self.prior_weight is not None and self.method not in _WEIGHTS:
            raise InputError(
                f"tomogram: prior_weight={self.prior_weight:g} is not used by method {self.method}; leave it out"
            )


@one_line
@dataclass(frozen=True)
class Tomogram:
    """What was made.

    Attributes
    ----------
    volume : (z, y, x) float32
    left_out : list of (float, float)
        Tilt, and the correlation of its image with what the other tilts predict.
    left_out_frc : (rings,) float64, optional
        Ring correlation of these images with their predictions, all together; rings of the longer side of an image, 0
        to N // 2. None if no tilt was left out.
    prior_weight : float, optional
        In use, and ``tried`` says how well each candidate predicted: on the same tilts as ``left_out``.
    tried : list of (float, float)
        Weight, mean correlation.
    """

    volume: Float32Array
    left_out: list[tuple[float, float]]
    left_out_frc: FloatArray | None = None
    prior_weight: float | None = None
    tried: Sequence[tuple[float, float]] = ()

    @property
    def tv_weight(self) -> float | None:
        """Former name of ``prior_weight``."""
        return self.prior_weight


def reconstruct_tilts(
    images: npt.ArrayLike,
    tilt_deg: npt.ArrayLike,
    settings: TomogramSettings | None = None,
    *,
    check_tilts: int = 5,
    threads: int | None = None,
) -> Tomogram:
    """Map from aligned images of one specimen at several tilts about one axis.

    Parameters
    ----------
    images : (tilt, y, x) array
        The axis passes through pixel N // 2. Their mean is taken off.
    tilt_deg : (n,) array
    settings : TomogramSettings, optional
    check_tilts : int
        Tilts that are left out in turn and predicted from the others, evenly over the series; 0: none.
    threads : int, optional
        Threads; all by default.

    Returns
    -------
    Tomogram

    Raises
    ------
    InputError
        Fewer than 3 images, other shapes, values that are not finite, an image without contrast; a weight to be chosen
        with no tilt left out.

    Examples
    --------
    >>> import numpy as np
    >>> from verglas import ops
    >>> from verglas.reconstruction.tomogram import reconstruct_tilts
    >>> ball = (np.linalg.norm(np.indices((16, 16, 16)) - 8, axis=0) < 5).astype(np.float32)
    >>> tilts = np.arange(-60, 61, 10.0)
    >>> tomogram = reconstruct_tilts(ops.radon(ball, tilts), tilts)
    >>> tomogram.volume.shape, min(c for _, c in tomogram.left_out) > 0.8
    ((16, 16, 16), True)
    """
    how = settings or TomogramSettings()
    stack, tilts = np.array(images, np.float32), np.atleast_1d(np.asarray(tilt_deg, np.float64))
    if stack.ndim != 3 or len(stack) < 3 or len(stack) != len(tilts):
        raise InputError(
            f"tomogram: expected 3 images or more (tilt, y, x) and a tilt each, got shape {stack.shape} and "
            f"{len(tilts)} tilts"
        )
    bad = [i for i, image in enumerate(stack) if not np.isfinite(image).all()]
    if bad:
        raise InputError(f"tomogram: image {bad[0] + 1} has values that are not finite; leave it and its tilt out")
    if how.method in _WEIGHTS and how.prior_weight is None and check_tilts < 1:
        raise InputError(
            f"tomogram: tilts that are left out choose the weight of {how.method}; leave out 1 or more, or give it"
        )
    flat = np.flatnonzero(np.ptp(stack, axis=(1, 2)) == 0)
    if flat.size:
        raise InputError(f"tomogram: image {flat[0] + 1} is the same everywhere; leave it and its tilt out")
    # A constant is no projection of a map of finite width: left in, it comes back as bright edges.
    stack -= stack.mean(axis=(1, 2), keepdims=True)
    # The first and the last tilt are never left out: to predict them would be to extrapolate.
    tested = np.unique(np.linspace(1, len(stack) - 2, min(check_tilts, len(stack) - 2)).round().astype(int))

    def agreement(weight: float | None) -> list[tuple[Float32Array, Float32Array]]:
        """Images left out, and their predictions."""
        return [
            leave_one_out(stack, tilts, lambda s, t: _volume(s, t, how, weight, threads), int(i), how.tilt_axis_deg)
            for i in tested
        ]

    if how.method not in _WEIGHTS or how.prior_weight is not None:
        weight, trials = how.prior_weight, []
        pairs = agreement(weight)
    else:
        unit = 1.0 if how.method == "firt" else noise_deviation(stack)
        candidates = [factor * unit for factor in _WEIGHTS[how.method]]
        tried = [agreement(w) for w in candidates]
        means = [float(np.mean([_correlation(*pair) for pair in one])) for one in tried]
        trials, best = list(zip(candidates, means, strict=True)), int(np.argmax(means))
        weight, pairs = candidates[best], tried[best]
    left_out = [(float(tilts[i]), _correlation(*pair)) for i, pair in zip(tested, pairs, strict=True)]
    volume = _volume(stack, tilts, how, weight, threads)
    return Tomogram(volume, left_out, _ring_correlation(pairs) if pairs else None, weight, trials)


def _correlation(image: Float32Array, predicted: Float32Array) -> float:
    return float(np.corrcoef(image.ravel(), predicted.ravel())[0, 1])


def _ring_correlation(pairs: Sequence[tuple[Float32Array, Float32Array]]) -> FloatArray:
    """Of all images with their predictions together; images that are no squares stand in one of zeros."""
    side = max(pairs[0][0].shape)
    shape = (side, side)
    sums = np.zeros((3, side // 2 + 1))
    for pair in pairs:
        spectra = [fourier.forward(crop_or_pad(x - x.mean(), shape).astype(np.float32), 2) for x in pair]
        sums += fourier.shell_sums(spectra, shape)
    own, cross, other = sums
    power = np.sqrt(own) * np.sqrt(other)
    return np.divide(cross, power, out=np.zeros_like(cross), where=power > 1e-12 * power.max())


def _volume(
    stack: Float32Array, tilts: FloatArray, how: TomogramSettings, weight: float | None, threads: int | None
) -> Float32Array:
    A = tilt_series(stack, tilts, how.tilt_axis_deg, how.thickness_px, threads=threads)
    if how.method == "wbp":
        return np.asarray(weighted_back_projection(A, stack), np.float32)
    iterations = how.iterations or _ITERATIONS[how.method]
    if how.method in _WEIGHTS:
        assert weight is not None
        x = _regularise(A, stack, how.method, weight, iterations)
    else:
        x = solve(A, stack, how.method, iterations=iterations).x
    return np.asarray(x, np.float32).reshape(A.map_shape)


def _regularise(A: TiltSeries, stack: Float32Array, method: str, weight: float, iterations: int) -> Array:
    if method == "icon":
        # Images without their mean have no background of 0: density may be negative. Half the square: the threshold of
        # a step is sqrt(2 weight), in units of the noise.
        return solve_icon(A, stack, A.map_shape, weight**2 / 2, iterations=iterations, non_negative=False).x
    if method == "firt":
        first = solve(A, stack, "sirt", iterations=_FIRST_ITERATIONS).x.reshape(A.map_shape)
        slope = float(np.median(np.sqrt((gradient(first) ** 2).sum(axis=0))))
        rounds = max(1, iterations // _FIRT_INNER - 1)
        knee = max(weight * slope, 1e-30)
        return solve_firt(A, stack, A.map_shape, knee, rounds=rounds, iterations=_FIRT_INNER).x
    if method == "mbir":
        return solve_mbir(A, stack, A.map_shape, weight, iterations=max(1, iterations // 5)).x
    return solve(A, stack, "tv", weight=weight, iterations=iterations).x
