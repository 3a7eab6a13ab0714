"""Resolution at every voxel in every direction: how far the parts of a map are smeared along which axis (MonoDir)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from verglas import fourier
from verglas._screen import ListenerChoice, shown_to
from verglas.assessment.directional import half_sphere
from verglas.assessment.local_bands import Band
from verglas.assessment.local_resolution import (
    LocalResolution,
    LocalResolutionSettings,
    from_bands,
    local_pair,
    plan_bands,
)
from verglas.assessment.local_scan import MonogenicValues, scan_bands
from verglas.types import Map
from verglas.types.arrays import Float32Array, FloatArray, any_arrays
from verglas.types.convert import MapLike
from verglas.types.display import Shown
from verglas.types.settings import settings_from

_DIRECTIONS = 18  # of the half sphere: their cones overlap by half
_CONE_DEG = 35.0  # where a cone's gain has fallen to 0


@dataclass(frozen=True, eq=False, repr=False)
class LocalDirections(Shown):
    r"""Resolution of every voxel in every direction.

    The frequencies resolved about a voxel are summed up by the quadratic form :math:`f(d) = d^T A d` that fits them
    best over the directions d: its eigenvectors are the axes of the finest and the coarsest resolution.

    Attributes
    ----------
    resolution : LocalResolution
        ``map`` is that of the mean frequency over the directions.
    finest, coarsest : Map
        Resolution along the best and the worst axis, angstrom; ``resolution.map`` outside the mask.
    coarsest_axis : (3, z, y, x) float32
        Unit vector x, y, z of the worst axis; 0 outside the mask.
    radial, tangential : Map
        Resolution towards the middle of the box and across it, angstrom: angles that are a little wrong blur across,
        and the more the farther from the middle.
    directions : (n, 3) float64
    median_A : (n,) float64
        Median resolution of the molecule's voxels in each direction.
    """

    resolution: LocalResolution
    finest: Map
    coarsest: Map
    coarsest_axis: Float32Array
    radial: Map
    tangential: Map
    directions: FloatArray
    median_A: FloatArray

    def __repr__(self) -> str:
        axis = ", ".join(f"{v:.2f}" for v in self.axis)
        return f"LocalDirections(coarsest along ({axis}), anisotropy {self.anisotropy:.2f})"

    @property
    def axis(self) -> FloatArray:
        """Unit vector x, y, z along which the molecule as a whole is resolved worst: that of the mean form A."""
        return _axes(_fit(1 / self.median_A[:, None], self.directions))[1][0, :, 0]

    @property
    def anisotropy(self) -> float:
        """Median over the molecule of 1 less the frequency along the worst axis over that along the best."""
        inside = self.resolution.mask.data >= 0.5
        return float(1 - np.median(self.finest.data[inside] / self.coarsest.data[inside]))

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        inside = self.resolution.mask.data >= 0.5

        def median(volume: Map) -> float:
            return round(float(np.median(volume.data[inside])), 4)

        return {
            "coarsest_axis": self.axis.round(4).tolist(),
            "anisotropy": round(self.anisotropy, 4),
            "median_A": {
                "finest": median(self.finest),
                "coarsest": median(self.coarsest),
                "radial": median(self.radial),
                "tangential": median(self.tangential),
            },
            "directions": self.directions.round(4).tolist(),
            "direction_median_A": self.median_A.round(4).tolist(),
        }


class _ConeValues(MonogenicValues):
    """Monogenic amplitudes within a cone of Fourier space."""

    window_share = 0.5  # what shines in from afar is more under a wider one
    leak_is_taken_off = False  # a cone's kernel is long along its axis: what it carries in is not known here
    direction: FloatArray

    def gain(self, band: Band, side: int) -> Float32Array:
        """Of the band within the cone."""
        return super().gain(band, side) * cone_gain((side, side, side), self.direction)


def cone_gain(shape: tuple[int, ...], direction: npt.ArrayLike) -> Float32Array:
    """A soft double cone about a direction x, y, z, 1 on its axis and 0 beyond 35 degrees, on a half transform."""
    radius = np.maximum(fourier.radius(shape), 1.0)
    z, y, x = fourier.half_grid(shape)
    u = np.asarray(direction, np.float64)
    cosine = np.minimum(np.abs(x * u[0] + y * u[1] + z * u[2]) / radius, 1.0)
    away = np.minimum(np.rad2deg(np.arccos(cosine)) / _CONE_DEG, 1.0)
    return np.asarray(np.cos(0.5 * np.pi * away) ** 2, np.float32)


@any_arrays
def local_directions(
    half1: MapLike,
    half2: MapLike,
    mask: MapLike | npt.ArrayLike | None = None,
    settings: LocalResolutionSettings | None = None,
    *,
    threads: int | None = None,
    listener: ListenerChoice = "screen",
    **changes: Any,
) -> LocalDirections:
    r"""Resolution at every voxel in 18 directions, by monogenic amplitudes within cones (MonoDir).

    Half maps are filtered into bands and cones; a voxel is resolved in a direction as far as the amplitude of the mean
    map there exceeds the quantile of that of half the difference (:func:`verglas.local_resolution`, ``"monogenic"``).

    Parameters
    ----------
    half1, half2 : Map or path
        Cubes of one box and pixel size, unfiltered and unmasked.
    mask : Map, path or array, optional
        Where the molecule is; made from the map if not given.
    settings : LocalResolutionSettings, optional
        Further keywords (``window_radius_A=10``) change its fields; ``method`` counts for nothing here.
    threads : int, optional
        Threads; the result does not depend on it.
    listener : Listener, "screen" or None
        Who is told how it goes (:class:`verglas.types.listener.Listener`).

    Returns
    -------
    LocalDirections

    Raises
    ------
    InputError
        As :func:`verglas.local_resolution`.

    References
    ----------
    Vilas, Tagare, Vargas, Carazo and Sorzano, Nat. Commun. 11 (2020) 55.

    Examples
    --------
    >>> import numpy as np, verglas as vg
    >>> from verglas.assessment import local_directions
    >>> from verglas.assessment.local_directional import cone_gain
    >>> white, *noises = np.random.default_rng(0).normal(size=(3, 32, 32, 32)).astype(np.float32)
    >>> spectrum = vg.fourier.forward(white, 3) * (1 - cone_gain(white.shape, [0, 0, 1]))
    >>> smeared = vg.fourier.inverse(spectrum.astype(np.complex64), white.shape)
    >>> halves = [vg.Map(smeared + 0.5 * n, 2.0) for n in noises]
    >>> made = local_directions(*halves, np.ones(white.shape), listener=None)
    >>> bool(abs(made.axis[2]) > 0.97)
    True
    """
    chosen = settings_from("local_resolution", LocalResolutionSettings, settings, **changes)
    pair = local_pair(half1, half2, mask, threads)
    first = pair.first
    plan = plan_bands(first, pair.global_A, chosen)
    spectra = [fourier.forward(one.data, 3, threads=threads) for one in (first, pair.second)]
    inside, box = pair.mask.data >= 0.5, first.box
    directions = half_sphere(_DIRECTIONS)
    frequency = np.empty((len(directions), int(inside.sum())), np.float32)  # in Fourier pixels
    thresholds = []
    with shown_to(listener) as heard:
        for number, direction in enumerate(directions):
            heard.progress("directions", number, len(directions))
            values = _ConeValues(spectra, box, inside, chosen, threads)
            values.direction = direction
            band_frequency, levels = scan_bands(values, plan.bands, box, lambda *_: None, threads)
            frequency[number] = band_frequency[inside]
            thresholds.append(levels)
        heard.progress("directions", len(directions), len(directions))
    extent_A = box * first.pixel_size_A
    mean = np.full(first.data.shape, plan.bands[0].centre, np.float32)
    mean[inside] = frequency.mean(axis=0)
    resolution, levels_mean = first.with_data(extent_A / mean), np.mean(thresholds, axis=0)
    overall = from_bands(plan, resolution, pair.mask, levels_mean, "directional")
    return _summarise(overall, frequency, directions, inside)


def _summarise(
    overall: LocalResolution, frequency: Float32Array, directions: FloatArray, inside: npt.NDArray[np.bool_]
) -> LocalDirections:
    """Axes, and frequencies along them, of the quadratic form of each voxel."""
    like = overall.map
    extent_A = np.float32(like.box * like.pixel_size_A)
    form = _fit(frequency, directions)
    lengths, axes = _axes(form)
    # A form fitted to bounded frequencies may leave their bounds by a little.
    low, high = float(frequency.min()), float(frequency.max())
    outwards = np.argwhere(inside)[:, ::-1] - like.box // 2.0
    outwards /= np.maximum(np.linalg.norm(outwards, axis=1, keepdims=True), 1e-6)
    radial = np.einsum("ni,nij,nj->n", outwards, form, outwards)
    across = (np.trace(form, axis1=1, axis2=2) - radial) / 2
    maps = []
    for along in (lengths[:, 2], lengths[:, 0], radial, across):
        data = like.data.copy()
        data[inside] = extent_A / np.clip(along, low, high)
        maps.append(like.with_data(data))
    worst = np.zeros((3, *inside.shape), np.float32)
    worst[:, inside] = axes[:, :, 0].T
    median_A = float(extent_A) / np.median(frequency, axis=1).astype(np.float64)
    return LocalDirections(overall, maps[0], maps[1], worst, maps[2], maps[3], directions, median_A)


def _fit(frequency: npt.NDArray[Any], directions: FloatArray) -> FloatArray:
    """Symmetric matrices A (voxels, 3, 3) with d^T A d closest to the frequencies (directions, voxels)."""
    x, y, z = directions.T
    terms = np.column_stack([x * x, y * y, z * z, 2 * x * y, 2 * x * z, 2 * y * z])
    xx, yy, zz, xy, xz, yz = np.linalg.pinv(terms) @ frequency.astype(np.float64)
    return np.stack([xx, xy, xz, xy, yy, yz, xz, yz, zz], axis=-1).reshape(-1, 3, 3)


def _axes(form: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Eigenvalues, rising, and eigenvectors in columns."""
    lengths, axes = np.linalg.eigh(form)
    return lengths, axes
