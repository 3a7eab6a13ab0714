"""Fourier shell correlation within cones: how well a map is resolved in each direction."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.spatial import ConvexHull, cKDTree

from verglas import fourier
from verglas.assessment.fsc import first_crossing, fsc
from verglas.assessment.missing_cone import HalfProducts, MissingCone, fit_missing_cone
from verglas.errors import InputError
from verglas.masks import checked_mask
from verglas.types import Map
from verglas.types.arrays import Float32Array, FloatArray, any_arrays
from verglas.types.convert import MapLike, map_of, values_of
from verglas.types.display import one_line

_DIRECTIONS = 500
_BINS = 2500  # into which voxels are sorted by direction: 3 degrees apart on the half sphere
_NEAREST = 4  # directions between which a voxel's FSC is interpolated
_POOLED = 1  # shells on either side whose sums are added: a cone holds few voxels of a single shell
_DRAWS = 5
_THRESHOLD = 0.143


@one_line
@dataclass(frozen=True)
class DirectionalFSC:
    """Conical FSC over the half sphere; opposite directions are one.

    Attributes
    ----------
    directions : (n, 3) float64
        Unit vectors x, y, z, evenly spread over the half sphere z >= 0.
    frequency_per_A : (shells,) float64
    curves : (n, shells) float64
        FSC within each cone, sums of three neighbouring shells taken together.
    resolution_A : (n,) float64
        Where each curve first falls below 0.143 for two shells; inf where no shell passes. No finer than half as fine
        again as the global resolution, where the curves end.
    area_ratio : float
        Smallest over largest area under the curves, from the first shell to the global resolution: cFAR. 1 for a map
        that is resolved equally in all directions.
    chance_ratio : float
        The least area ratio of five pairs of random maps that have the same FSC in all directions: what the few voxels
        of cones make of a map without any preference.
    sphericity : float
        Of the body whose radius in a direction is the spatial frequency resolved there: 1 for a ball.
    cone_deg : float
        Half-angle of the cones.
    signal : (n,) float64
        Power that both halves have in common within each cone, over that of the shells in all directions, shells by
        their FSC. Near 0 where no view was taken: what leaks there agrees, and its FSC may be high.
    missing : MissingCone
        The cone without signal that is most likely, and whether it stands out.
    """

    directions: FloatArray
    frequency_per_A: FloatArray
    curves: FloatArray
    resolution_A: FloatArray
    area_ratio: float
    chance_ratio: float
    sphericity: float
    cone_deg: float
    signal: FloatArray
    missing: MissingCone

    @property
    def worst(self) -> tuple[FloatArray, float]:
        """Direction of the coarsest resolution, and that, in angstrom."""
        at = int(np.argmax(self.resolution_A))
        return self.directions[at], float(self.resolution_A[at])

    @property
    def coarse_axis(self) -> FloatArray:
        """Axis of the cone without signal, where one is found.

        Otherwise the main axis of the directions whose mean FSC lies in the lower half of the range. Of a cone without
        signal every direction inside is alike, and :attr:`worst` is any of them.
        """
        if self.missing.found:
            return self.missing.axis
        area = self.curves[:, 1:].mean(axis=1)
        low = self.directions[area <= 0.5 * (area.min() + area.max())]
        return np.asarray(np.linalg.eigh(low.T @ low)[1][:, 2], np.float64)

    @property
    def best(self) -> tuple[FloatArray, float]:
        """Direction of the finest resolution, and that, in angstrom."""
        at = int(np.argmin(self.resolution_A))
        return self.directions[at], float(self.resolution_A[at])

    def volume(self, box: int) -> Float32Array:
        """The curves as a body in Fourier space (3DFSC): at each voxel the FSC within the cone about its direction.

        Parameters
        ----------
        box : int
            Side, which is that of the half maps.

        Returns
        -------
        (box, box, box) float32
            Frequency zero at box // 2, where the value is 1; 0 beyond the last shell of the curves.

        Examples
        --------
        >>> import numpy as np, verglas as vg
        >>> x, noise1, noise2 = np.random.default_rng(0).normal(size=(3, 16, 16, 16))
        >>> made = vg.directional_fsc(vg.Map(4 * x + noise1, 2.0), vg.Map(4 * x + noise2, 2.0)).volume(16)
        >>> made.shape, float(made[8, 8, 8]), bool(made[8, 8, 11] > 0.8)
        ((16, 16, 16), 1.0, True)
        """
        axis, middle = np.arange(box) - box // 2, box // 2
        y, x = np.meshgrid(axis, axis, indexing="ij")
        tree = cKDTree(np.concatenate([self.directions, -self.directions]))
        body = np.zeros((box, box, box), np.float32)
        # By planes: neighbours of all voxels of a body of 512 at once would take tens of gigabytes.
        for plane, z in zip(body, axis[: middle + 1], strict=False):
            k = np.column_stack([x.ravel(), y.ravel(), np.full(box**2, z)]).astype(np.float64)
            plane[:] = self._at(k, tree).reshape(box, box)
        # The other half is this one turned about (Friedel). The first row of an even box, -box/2, has no mate: nothing
        # but its middle lies within the last shell, and that is in the half made.
        first = 1 - box % 2
        body[middle + 1 :, first:, first:] = body[first:middle, first:, first:][::-1, ::-1, ::-1]
        return body

    def _at(self, k: FloatArray, tree: cKDTree) -> FloatArray:
        """The curves at frequencies x, y, z in Fourier pixels, (n, 3), between the directions about each."""
        radius = np.linalg.norm(k, axis=1)
        last = len(self.frequency_per_A) - 1
        inside = np.flatnonzero((radius > 0) & (radius <= last))
        away, near = tree.query(k[inside] / radius[inside, None], k=_NEAREST)
        near %= len(self.directions)
        weight = 1 / np.maximum(away, 1e-6) ** 2
        weight /= weight.sum(axis=1, keepdims=True)
        low = np.minimum(radius[inside].astype(np.int64), last - 1)
        share = radius[inside] - low
        values = (radius == 0).astype(np.float64)  # at frequency zero, which all maps share, 1
        for one in range(_NEAREST):
            rows = near[:, one]
            below = np.where(low > 0, self.curves[rows, low], 1.0)
            values[inside] += weight[:, one] * ((1 - share) * below + share * self.curves[rows, low + 1])
        return values


def half_sphere(n: int) -> FloatArray:
    """About n unit vectors, evenly spread over z >= 0 (Fibonacci lattice), (n, 3).

    Examples
    --------
    >>> from verglas.assessment.directional import half_sphere
    >>> half_sphere(3).shape, bool((half_sphere(50)[:, 2] > 0).all())
    ((3, 3), True)
    """
    z = (np.arange(n) + 0.5) / n
    phi = np.pi * (1 + np.sqrt(5)) * np.arange(n)
    rho = np.sqrt(1 - z**2)
    return np.column_stack([rho * np.cos(phi), rho * np.sin(phi), z])


@any_arrays
def directional_fsc(
    half1: MapLike,
    half2: MapLike,
    mask: MapLike | npt.ArrayLike | None = None,
    cone_deg: float = 20.0,
    *,
    threads: int | None = None,
) -> DirectionalFSC:
    r"""Fourier shell correlation of half maps within cones about some 500 directions.

    .. math:: FSC(d, R) = \frac{\mathrm{Re} \sum A B^*}{\sqrt{\sum |A|^2 \sum |B|^2}}, \quad
              k \in R,\; |k \cdot d| \ge |k| \cos\alpha

    Parameters
    ----------
    half1, half2 : Map
        Cubes of one box and pixel size.
    mask : Map or array, optional
        Multiplied with both (:func:`verglas.masks.checked_mask`).
    cone_deg : float
        Half-angle alpha, 5 to 60 degrees.
    threads : int, optional
        Threads; the result does not depend on it.

    Returns
    -------
    DirectionalFSC

    Raises
    ------
    InputError
        Maps or mask do not go together; an angle out of range.

    References
    ----------
    Diebolder et al., Biophys. J. 109 (2015) 1575 (conical FSC); Tan et al., Nat. Methods 14 (2017) 793 (sphericity).

    Examples
    --------
    >>> import numpy as np, verglas as vg
    >>> x, noise1, noise2 = np.random.default_rng(0).normal(size=(3, 24, 24, 24))
    >>> result = vg.directional_fsc(vg.Map(4 * x + noise1, 2.0), vg.Map(4 * x + noise2, 2.0))
    >>> result.resolution_A.shape, result.sphericity > 0.9
    ((500,), True)
    """
    if not 5 <= cone_deg <= 60:
        raise InputError(f"directional_fsc: expected a half-angle of 5 to 60 degrees, got {cone_deg:g}")
    half1 = map_of(half1, "directional_fsc: the first half map")
    half2 = map_of(half2, "directional_fsc: the second half map")
    mask = None if mask is None else values_of(mask, "directional_fsc: the mask")
    whole = fsc(half1, half2, mask, threads=threads)  # checks what goes together
    first, second = half1.data, half2.data
    if mask is not None:
        weight = checked_mask(mask.data if isinstance(mask, Map) else mask, first.shape, "directional_fsc: the mask")
        first, second = first * weight, second * weight
    shape = first.shape
    if len(shape) != 3:
        raise InputError(f"directional_fsc: expected cubes, got shape {shape}")
    last = max(3, int(np.ceil(1 / (whole.resolution_A(_THRESHOLD) * whole.frequency_per_A[1]))))
    bins = _Bins(shape, min(shape[0] // 2, int(1.5 * last) + 4))
    cones = _Cones(bins, cone_deg, last)
    sums = bins.sums([fourier.forward(v, 3, threads=threads) for v in (first, second)])
    curves, ratio = cones.of(sums)
    window = None if mask is None else weight
    chance = [cones.of(bins.sums(_random_pair(whole.curve, shape, window, seed, threads)))[1] for seed in range(_DRAWS)]
    frequency = whole.frequency_per_A[: bins.limit + 1]
    resolution = np.array([_falls(frequency, curve) for curve in curves])
    # Friedel's mates are one voxel, and under a mask neighbours share theirs.
    independent = (0.5 * whole.n / np.maximum(whole.counts, 1))[: bins.limit + 1]
    return DirectionalFSC(
        cones.directions,
        frequency,
        curves,
        resolution,
        ratio,
        min(chance),
        _sphericity(cones.directions, 1 / resolution),
        cone_deg,
        cones.signal(sums, bins.voxels),
        fit_missing_cone(half_sphere(_BINS), bins.voxels, sums, independent),
    )


class _Bins:
    """Voxels of a half transform sorted by direction and shell, up to a last shell."""

    def __init__(self, shape: tuple[int, ...], limit: int) -> None:
        self.shape, self.limit = shape, limit
        shells = fourier.shells(shape)
        self.where = np.flatnonzero((shells > 0) & (shells <= limit))
        z, y, x = (np.broadcast_to(g, shells.shape).ravel()[self.where] for g in fourier.half_grid(shape))
        k = np.column_stack([x, y, z]).astype(np.float64)
        k /= np.linalg.norm(k, axis=1, keepdims=True)
        # Both half spheres, taken together again by % below: Friedel's mates have one direction.
        tree = cKDTree(np.concatenate([half_sphere(_BINS), -half_sphere(_BINS)]))
        self.index = (tree.query(k)[1] % _BINS) * (limit + 1) + shells.ravel()[self.where]
        self.weight = np.broadcast_to(fourier.half_weights(shape), shells.shape).ravel()[self.where]
        self.voxels = self._binned(np.ones(len(self.where)))

    def _binned(self, values: npt.NDArray) -> FloatArray:
        size = _BINS * (self.limit + 1)
        return np.bincount(self.index, self.weight * values, minlength=size).astype(np.float64).reshape(_BINS, -1)

    def sums(self, spectra: list[npt.NDArray]) -> HalfProducts:
        """Per bin and shell, (bins, shells) each."""
        a, b = (s.ravel()[self.where].astype(np.complex128) for s in spectra)
        return HalfProducts(*(self._binned(one) for one in (np.abs(a) ** 2, (a * b.conj()).real, np.abs(b) ** 2)))


class _Cones:
    """Sums over cones of binned voxels."""

    def __init__(self, bins: _Bins, cone_deg: float, last: int) -> None:
        self.bins, self.last, self.directions = bins, last, half_sphere(_DIRECTIONS)
        cosine = np.abs(self.directions @ half_sphere(_BINS).T)
        self.inside = (cosine >= np.cos(np.deg2rad(cone_deg))).astype(np.float64)

    def signal(self, sums: HalfProducts, voxels: FloatArray) -> FloatArray:
        """Common power of each cone over that of its shells, which count by what they hold of signal."""
        power_a, cross, power_b = (one[:, 1:] for one in sums)
        power = np.sqrt(power_a.sum(axis=0) * power_b.sum(axis=0))
        weight = np.divide(1.0, power, out=np.zeros_like(power), where=power > 0) * voxels[:, 1:].sum(axis=0)
        mean = cross.sum(axis=0).clip(0) / np.maximum(voxels[:, 1:].sum(axis=0), 1)
        expected = self.inside @ (voxels[:, 1:] @ (mean * weight))
        held = self.inside @ (cross @ (weight * (mean > 0)))
        return np.asarray(np.divide(held, expected, out=np.ones_like(held), where=expected > 0), np.float64)

    def of(self, sums: HalfProducts) -> tuple[FloatArray, float]:
        """Curves of all directions, and the ratio of the least to the largest area under them."""
        power_a, cross, power_b = (self.inside @ s for s in _pool_shells(sums))
        scale = np.sqrt(power_a * power_b)
        curves = np.divide(cross, scale, out=np.zeros_like(cross), where=scale > 0)
        areas = np.clip(curves[:, 1 : self.last + 1], 0, None).sum(axis=1)
        return curves, float(areas.min() / areas.max()) if areas.max() > 0 else 0.0


def _random_pair(
    curve: FloatArray, shape: tuple[int, ...], window: npt.NDArray | None, seed: int, threads: int | None
) -> list[npt.NDArray]:
    """Transforms of two random maps of this FSC, the same in all directions, in the same mask."""
    rng = np.random.default_rng(seed)
    share = np.clip(curve, 0, 1)[np.minimum(fourier.shells(shape), len(curve) - 1)]
    signal, *noise = (fourier.forward(rng.standard_normal(shape, dtype=np.float32), 3, threads=threads) for _ in "sab")
    spectra = []
    for one in noise:
        # The FSC is the share of the power that both have in common: two such maps have this curve in expectation.
        spectrum = (np.sqrt(share) * signal + np.sqrt(1 - share) * one).astype(np.complex64)
        if window is not None:
            inside = fourier.inverse(spectrum, shape, threads=threads) * window
            spectrum = fourier.forward(inside.astype(np.float32), 3, threads=threads)
        spectra.append(spectrum)
    return spectra


def _falls(frequency: FloatArray, curve: FloatArray) -> float:
    """Where a curve falls below 0.143 for two shells: a single one of so few voxels may be chance."""
    above = np.maximum(curve, np.append(curve[1:], curve[-1])) - _THRESHOLD
    return first_crossing(frequency, above)[0]


def _pool_shells(sums: HalfProducts) -> list[FloatArray]:
    pooled_sums = []
    for s in sums:
        padded = np.pad(s, ((0, 0), (_POOLED, _POOLED)))
        pooled_sums.append(np.sum([padded[:, i : i + s.shape[1]] for i in range(2 * _POOLED + 1)], axis=0))
    return pooled_sums


def _sphericity(directions: FloatArray, radius: FloatArray) -> float:
    """Surface of the ball of a body's volume, over its surface, from a triangulation of its directions."""
    both, size = np.concatenate([directions, -directions]), np.concatenate([radius, radius])
    hull = ConvexHull(both)
    corners = (both * size[:, None])[hull.simplices]
    normal = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    surface = float(np.linalg.norm(normal, axis=1).sum() / 2)
    volume = float(np.abs(np.einsum("ij,ij->i", corners[:, 0], normal)).sum() / 6)
    return float(np.pi ** (1 / 3) * (6 * volume) ** (2 / 3) / surface) if surface > 0 else 0.0
