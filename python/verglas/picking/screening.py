r"""Whether a micrograph is worth picking, from its grey values and spectrum alone.

Descriptors of the histogram, of how alike the parts of the image are, and of its autocorrelation (as its power
spectrum: radial course, rings, water's ring at 3.7 to 3.9 A, and how it changes with direction) are what Vargas et al.
2016 (J. Struct. Biol. 195, 1-10) judged foil holes and images by. All are ratios, so grey scale and size do not matter.
A multinomial logistic regression on them, trained on simulated micrographs (``tools/train_screening.py``), gives each
kind a probability,

.. math:: p_c = \frac{e^{w_c \cdot z + b_c}}{\sum_k e^{w_k \cdot z + b_k}}, \qquad z = (x - \mu) / \sigma
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt

from verglas import fourier
from verglas.errors import InputError
from verglas.image import robust_sigma
from verglas.picking.carbon import ring_contrast
from verglas.types.arrays import FloatArray
from verglas.types.convert import MicrographLike, micrograph_of
from verglas.types.display import one_line

GOOD = "good"
# Kinds of micrographs, and what is said of each.
KINDS: Mapping[str, str] = {
    GOOD: "",
    "crystalline": "crystalline ice",
    "contaminated": "contamination over much of it",
    "empty": "neither ice nor particles",
    "carbon": "carbon over much of it",
    "drift": "drift",
    "defocus": "out of focus",
    "broken": "a broken film",
}
# The same of grid squares (:mod:`.grid_squares`).
SQUARE_KINDS: Mapping[str, str] = {
    GOOD: "",
    "thick": "ice too thick to see through",
    "broken": "a broken foil",
    "contaminated": "contamination over much of it",
    "uneven": "ice of very uneven thickness",
}
_SIDE = 512  # of the squares whose spectra are averaged, four at most per axis
_TILES, _SAMPLED = 8, 250_000
_BANDS_A = (150.0, 80.0, 45.0, 28.0, 18.0, 12.0, 8.0, 6.0, 4.5, 3.4)
_ICE_A, _BESIDE_A = (3.55, 3.98), (3.2, 4.5)
_SECTORS = 12
# Where rings are looked for; ranges of wavelength times defocus: hardly any, as particles are recorded, too much.
_RINGS_A, _PACES_A2 = (50.0, 7.0), (20.0, 100.0, 850.0, 2400.0)
# Fewest pixels across and coarsest sampling that can be judged: less shows neither rings nor water.
_LEAST, _COARSEST_A = 256, 2.2
# Probability of being good above which nothing is said: of seeds of training left out in turn 2.6 % of the spoilt lay
# above it, and no good one below.
_DOUBT = 0.3
# Deviations of a descriptor that is unlike the training's, and share of such that makes a micrograph unfamiliar.
_FAR, _UNFAMILIAR = 4.0, 0.1


@one_line
@dataclass(frozen=True)
class Screening:
    """What a micrograph looks like.

    Attributes
    ----------
    kind : str
        The likeliest of :data:`KINDS`.
    probabilities : dict of str -> float
    familiar : bool
        Whether it is like what the classifier was trained on: nine tenths of its descriptors within four deviations.
    """

    kind: str
    probabilities: dict[str, float]
    familiar: bool = True

    @property
    def good(self) -> float:
        """Probability that it is good."""
        return self.probabilities[GOOD]

    @property
    def reason(self) -> str:
        """Why to look at it before it is used; empty where it is not surely bad."""
        if self.good > _DOUBT:
            return ""
        words = KINDS.get(self.kind) or SQUARE_KINDS[self.kind]
        sure = f"looks like {words} ({100 * self.probabilities[self.kind]:.0f} %)"
        what = "micrograph" if set(self.probabilities) <= set(KINDS) else "grid square"
        return sure if self.familiar else f"{sure}, but unlike any {what} that screening was trained on"


def descriptors(micrograph: MicrographLike) -> dict[str, float]:
    """Descriptors of a micrograph, by name; every one a ratio or a logarithm of one.

    Raises
    ------
    InputError
        Fewer than 256 pixels across, a pixel size that is unknown or coarser than 2.2 A, or a constant image.
    """
    given = micrograph_of(micrograph, "screen: micrograph")
    name = given.name or "micrograph"
    data = np.asarray(given.data, np.float32)
    if min(data.shape) < _LEAST or not given.pixel_size_A <= _COARSEST_A:
        raise InputError(
            f"{name}: expected at least {_LEAST} x {_LEAST} pixels of at most {_COARSEST_A:g} A, got {data.shape[1]} x "
            f"{data.shape[0]} of {given.pixel_size_A:g} A"
        )
    finite = np.isfinite(data)
    if not finite.any():
        raise InputError(f"{name}: none of its pixels is finite; there is nothing to screen")
    data = data if finite.all() else np.where(finite, data, np.float32(np.median(data[finite])))
    if not robust_sigma(data[::5, ::5]) > 0:
        raise InputError(f"{name}: more than half of its pixels are equal; there is nothing to screen")
    numbers = _histogram(data, "fine")
    coarse = _bin(data, max(1, round(12.0 / given.pixel_size_A)))
    numbers |= _histogram(coarse, "coarse") | _homogeneity(data, coarse)
    numbers |= _spectrum(data, given.pixel_size_A)
    rings = ring_contrast(data, given.pixel_size_A)
    return numbers | {"rings": float(np.log(rings)) if np.isfinite(rings) and rings > 0 else -3.0}


def _bin(data: npt.NDArray[Any], factor: int) -> FloatArray:
    height, width = (n // factor * factor for n in data.shape)
    blocks = data[:height, :width].reshape(height // factor, factor, width // factor, factor)
    return np.asarray(blocks.mean(axis=(1, 3), dtype=np.float64))


def _histogram(values: npt.NDArray[Any], prefix: str) -> dict[str, float]:
    """Quantiles and moments in robust deviations about the median."""
    flat = np.asarray(values, np.float64).ravel()
    flat = flat[:: max(1, flat.size // _SAMPLED)]  # a large micrograph says no more
    sigma = max(robust_sigma(flat), 1e-9)
    z = np.clip((flat - np.median(flat)) / sigma, -30, 30)
    low, high = np.percentile(z, (1, 99))
    return {
        f"{prefix} low tail": float(np.log(-min(low, -0.1))),
        f"{prefix} high tail": float(np.log(max(high, 0.1))),
        f"{prefix} skewness": float(np.cbrt((z**3).mean())),
        f"{prefix} kurtosis": float(np.log((z**4).mean())),
    }


def _homogeneity(data: npt.NDArray[Any], coarse: FloatArray) -> dict[str, float]:
    """How unlike the tiles of the image are, in mean and in deviation."""
    parts = [np.array_split(row, _TILES, axis=1) for row in np.array_split(data, _TILES, axis=0)]
    means = np.array([[float(p.mean()) for p in row] for row in parts])
    deviations = np.log([[max(float(p.std()), 1e-9) for p in row] for row in parts])
    # Fine detail alone: the texture of carbon, whatever its grey value.
    texture = np.log([[max(float(np.diff(p[:, ::2]).std()), 1e-9) for p in row] for row in parts])
    sigma = max(robust_sigma(coarse), 1e-9)
    return {
        "means of tiles": float(np.log(means.std() / sigma + 1e-3)),
        "farthest tile": float(np.log(np.abs(means - np.median(means)).max() / sigma + 1e-3)),
        "deviations of tiles": float(np.log(deviations.std() + 1e-3)),
        "widest tile": float(np.ptp(deviations)),
        "textures of tiles": float(np.log(texture.std() + 1e-4)),
    }


def _power(data: npt.NDArray[Any]) -> FloatArray:
    """Mean power spectrum of tapered squares, each clipped at five deviations, (side, side // 2 + 1)."""
    side = min(_SIDE, *data.shape) // 2 * 2
    taper = (np.hanning(side)[:, None] * np.hanning(side)).astype(np.float32)
    places = [
        np.unique(np.linspace(0, n - side, min(4, max(1, round(2 * n / side) - 1))).astype(int)) for n in data.shape
    ]
    power = np.zeros((side, side // 2 + 1))
    for y in places[0]:
        for x in places[1]:
            part = data[y : y + side, x : x + side].astype(np.float32)
            middle, sigma = float(np.median(part)), max(robust_sigma(part), 1e-9)
            part = np.clip((part - middle) / sigma, -5, 5)
            power += np.abs(fourier.forward(part * taper, 2, threads=1)) ** 2
    return power


def _spectrum(data: npt.NDArray[Any], pixel_size_A: float) -> dict[str, float]:
    """Radial course, water's ring and its spots, and change with direction, of the logarithm of the power."""
    power = _power(data)
    side = power.shape[0]
    ky, kx = np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None]
    k = np.hypot(ky, kx) / pixel_size_A
    sector = (np.arctan2(ky, kx) % np.pi / np.pi * _SECTORS).astype(np.int64) % _SECTORS
    nyquist = 0.5 / pixel_size_A
    numbers: dict[str, float] = {}
    levels: list[float] = []
    for coarse_A, fine_A in pairwise(_BANDS_A):
        # Beyond Nyquist the last band there is stands for all: a descriptor that says nothing new.
        inside = (k >= 1 / coarse_A) & (k < min(1 / fine_A, 0.95 * nyquist))
        if inside.sum() < 4 * _SECTORS:
            levels.append(levels[-1] if levels else 0.0)
            numbers[f"direction at {fine_A:g} A"] = 0.0
            continue
        levels.append(float(np.log(power[inside].mean())))
        of_sectors = np.log(
            np.bincount(sector[inside], power[inside], _SECTORS) / np.bincount(sector[inside], minlength=_SECTORS)
        )
        turn = np.exp(2j * np.pi * (np.arange(_SECTORS) + 0.5) / _SECTORS)
        numbers[f"direction at {fine_A:g} A"] = float(np.abs((of_sectors * turn).mean()))
    top = levels[-1]
    numbers |= {f"power at {fine:g} A": level - top for fine, level in zip(_BANDS_A[1:-1], levels[:-1], strict=True)}
    return numbers | _water(power, k, nyquist) | _rings(power, k, nyquist)


def _rings(power: FloatArray, k: FloatArray, nyquist: float) -> dict[str, float]:
    """How strongly the power goes up and down with k^2 at the paces of far too much and of hardly any defocus.

    Thon rings of underfocus dz are waves of pace lambda dz in k^2: the strongest of each range over the strongest of
    the defoci at which particles are recorded.
    """
    side = power.shape[0]
    ring = np.rint(k / nyquist * side / 2).astype(np.int64).ravel()
    mean = np.bincount(ring, power.ravel()) / np.maximum(np.bincount(ring), 1)
    at = np.arange(len(mean)) * nyquist / (side / 2)
    inside = (at > 1 / _RINGS_A[0]) & (at < min(1 / _RINGS_A[1], 0.95 * nyquist))
    squares, logs = at[inside] ** 2, np.log(np.maximum(mean[inside], 1e-30))
    smooth = np.polynomial.chebyshev.chebvander(np.linspace(-1, 1, len(logs)), 4)
    rest = (logs - smooth @ np.linalg.lstsq(smooth, logs, rcond=None)[0]) * at[inside]  # evenly in k^2
    paces = np.arange(_PACES_A2[0], _PACES_A2[-1], 10.0)
    strength = np.abs(np.exp(2j * np.pi * paces[:, None] * squares) @ rest)
    near, usual, far = (
        float(np.log(strength[(paces >= low) & (paces < high)].max() + 1e-9)) for low, high in pairwise(_PACES_A2)
    )
    return {"rings of far defocus": far - usual, "rings of no defocus": near - usual}


def _water(power: FloatArray, k: FloatArray, nyquist: float) -> dict[str, float]:
    """Power of water's ring over what lies beside it, and of its brightest spot; 0 where it is beyond Nyquist."""
    ring = (k > 1 / _ICE_A[1]) & (k < min(1 / _ICE_A[0], 0.98 * nyquist))
    beside = (k > 1 / _BESIDE_A[1]) & (k < min(1 / _BESIDE_A[0], 0.98 * nyquist)) & ~ring
    if 1 / _ICE_A[1] > 0.95 * nyquist or ring.sum() < 50 or beside.sum() < 50:
        return {"water's ring": 0.0, "water's spots": 0.0}
    level = float(np.median(power[beside]))
    spot = float(np.percentile(power[ring], 99.9) / max(float(np.percentile(power[beside], 99.9)), 1e-12))
    return {"water's ring": float(np.log(power[ring].mean() / level)), "water's spots": float(np.log(spot))}


@dataclass(frozen=True)
class ScreeningModel:
    """Weights of the classifier.

    Attributes
    ----------
    names, kinds : list of str
        Descriptors and classes, in the order of the weights.
    mean, scale : (d,) float64
    weights : (c, d) float64
    bias : (c,) float64
    """

    names: list[str]
    kinds: list[str]
    mean: FloatArray
    scale: FloatArray
    weights: FloatArray
    bias: FloatArray

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> ScreeningModel:
        """From what ``tools/train_screening.py`` writes."""
        arrays = (np.asarray(record[name], np.float64) for name in ("mean", "scale", "weights", "bias"))
        return cls(list(record["names"]), list(record["kinds"]), *arrays)

    def standardise(self, numbers: Mapping[str, float]) -> FloatArray:
        """Descriptors in deviations of the training's."""
        return np.asarray((np.array([numbers[name] for name in self.names]) - self.mean) / self.scale)

    def probabilities(self, numbers: Mapping[str, float]) -> dict[str, float]:
        """Of each kind for a micrograph's descriptors."""
        # One absurd value must not decide alone.
        logits = self.weights @ np.clip(self.standardise(numbers), -_FAR, _FAR) + self.bias
        chance = np.exp(logits - logits.max())
        return dict(zip(self.kinds, (chance / chance.sum()).tolist(), strict=True))

    def judge(self, found: Mapping[str, float]) -> Screening:
        """What descriptors say."""
        chances = self.probabilities(found)
        familiar = float((np.abs(self.standardise(found)) > _FAR).mean()) <= _UNFAMILIAR
        return Screening(max(chances, key=lambda kind: chances[kind]), chances, familiar)


@lru_cache(maxsize=2)
def shipped_model(images: str = "screening") -> ScreeningModel:
    """The model that comes with the package: of micrographs, "screening", or of images of a grid, "square"."""
    text = resources.files("verglas.picking").joinpath(f"{images}_weights.json").read_text(encoding="utf-8")
    return ScreeningModel.of(json.loads(text))


def screen(micrograph: MicrographLike, model: ScreeningModel | None = None) -> Screening:
    """Judge a micrograph before anything is picked on it.

    Parameters
    ----------
    micrograph : Micrograph
        Its pixel size must be known; at least 256 pixels across.
    model : ScreeningModel, optional
        The shipped one by default.

    Returns
    -------
    Screening

    Raises
    ------
    InputError
        A micrograph that cannot be judged.

    Examples
    --------
    >>> import verglas as vg
    >>> model = vg.simulate.phantom(box=48, pixel_size_A=3.0, diameter_A=100)
    >>> vg.picking.screen(vg.simulate.spoilt_micrograph("carbon", model, seed=3, shape=(512, 512))).kind
    'carbon'
    """
    return (model or shipped_model()).judge(descriptors(micrograph))
