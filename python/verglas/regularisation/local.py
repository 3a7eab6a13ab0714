r"""Wiener's filter at every place: its SSNR comes from the windowed FSC of the half maps.

In a narrow band k of shells the half maps a, b are compared under a window about every place x
(:mod:`verglas.assessment.local_bands`),

.. math:: F(x, k) = \frac{(w * a_k b_k)(x)}{\sqrt{(w * a_k^2)(x)\,(w * b_k^2)(x)}}, \qquad
          S(x, k) = T\,\frac{F}{1 - F}, \qquad G(x, k) = \frac{m S}{1 + m S}

with m the half sets in the map: for T = 1 the gain is F for a half map and 2F/(1 + F) for the map of both, as Wiener's
filter has it from the FSC of a shell (Cardone, Heymann and Steven 2013 for the windowed FSC). F does not change when
the halves are exchanged, and holds no phases.

A gain that followed F everywhere would let noise through where it happens to agree, in both half maps at the same
places: their FSC would rise above 0 by about 1.6 / sqrt(n) for windows of n independent voxels. A place therefore has
its own gain only where F is beyond what noise reaches by chance (false discovery rate over the molecule) in this band
and in all coarser ones; all other places of the molecule share one F, and places outside it have none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from verglas.assessment.local_bands import BAND_OF_WINDOW, Band, Windowed, filter_by_bands, linear_bands, nearest_points
from verglas.assessment.local_resolution import LocalResolutionSettings
from verglas.assessment.local_scan import SignificanceValues
from verglas.regularisation.protocol import FSC_MOST, HalfMaps, MapSource, Regulariser, Wiener
from verglas.types.arrays import Float32Array, FloatArray

_WINDOW_RESOLUTIONS = 2.0  # radius of the window, in resolutions of the whole map, as for local resolution
_SMALLEST_WINDOW_PX = 4.0
_LARGEST_WINDOW = 1 / 6  # of the box
_LEAST_SSNR = 1e-3  # as on the grid: a band without signal keeps this much, so that nothing becomes exactly empty
_FALSE_DISCOVERY = 0.01
Also = Callable[[SignificanceValues, Band, list[Float32Array]], npt.NDArray[np.bool_]]
_SURE = 3.0  # standard deviations by which a pool's correlation is beyond chance


class _PriorValues(SignificanceValues):
    """The windowed FSC as it is: gains of the prior were measured with it, and are the same whichever half is first."""

    leak_is_taken_off = False


def prior_bands(given: HalfMaps) -> list[Band]:
    """Bands up to the last shell with data, with the window that the resolution of the whole map calls for."""
    shell = min(given.resolved_shell + 1, given.radius)
    window_px = _WINDOW_RESOLUTIONS * given.box / max(shell, 1)
    window_px = min(max(window_px, _SMALLEST_WINDOW_PX), _LARGEST_WINDOW * given.box)
    return linear_bands(given.box, max(BAND_OF_WINDOW * given.box / window_px, 1.0), window_px, given.radius)


@dataclass(frozen=True, eq=False)
class LocalSSNR:
    """SSNR of one half map, by band and place.

    Attributes
    ----------
    bands : list of Band
    ssnr : list of (c, c, c) float64
        Of each band, at the points of its window's grid.
    below : (radius + 1,) float64
        SSNR of the shells coarser than the first band.
    threads : int, optional
    """

    bands: list[Band]
    ssnr: list[FloatArray]
    below: FloatArray
    threads: int | None

    def __call__(self, source: MapSource) -> Float32Array:
        """Wiener's filter of the best place, then each place reduced to its own.

        The first step takes the SSNR per shell to the grid, where the weight of each Fourier voxel is known: what
        preferred views leave unknown stays small. The second only ever reduces.
        """
        most = np.array([max(float(field.max()), _LEAST_SSNR) for field in self.ssnr])
        centres = np.array([band.centre for band in self.bands])
        shells = np.arange(len(self.below))
        of_shell = np.where(shells < centres[0], self.below, np.interp(shells, centres, most))
        volume = source.solve(source.half_sets * of_shell)
        gains = []
        for field, largest in zip(self.ssnr, most, strict=True):
            here, best = (source.half_sets * np.maximum(s, _LEAST_SSNR) for s in (field, largest))
            gains.append((here / (1 + here) * (1 + best) / best).astype(np.float32))
        return filter_by_bands(volume, self.bands, gains, threads=self.threads)


@dataclass(frozen=True, eq=False)
class BandField:
    """The windowed FSC of a band, at the points of its window's grid.

    Attributes
    ----------
    band : Band
    correlation : (c, c, c) float64
    averages : list of (c, c, c) float32
        What it is made of: the product of both halves and their powers, under the window.
    own : (c, c, c) bool
        Where it is beyond chance, in this band and in all coarser ones.
    inside : (c, c, c) bool
        In the mask.
    """

    band: Band
    correlation: FloatArray
    averages: list[Float32Array]
    own: npt.NDArray[np.bool_]
    inside: npt.NDArray[np.bool_]


def band_fields(
    given: HalfMaps, bands: list[Band], false_discovery: float = _FALSE_DISCOVERY, also: Also | None = None
) -> Iterator[BandField]:
    """The windowed FSC of the half maps, band by band, coarse to fine; ``also`` may leave out places of their own."""
    settings = LocalResolutionSettings(method="significance", false_discovery=false_discovery)
    values = _PriorValues(given.spectra, given.box, given.mask >= 0.5, settings, given.threads)
    before: npt.NDArray[np.bool_] | None = None
    for band in bands:
        averages = values.averages(band, Windowed(band, given.box, given.threads))
        correlation = values.of(averages).astype(np.float64)
        own = correlation > values.threshold(band, averages)
        if also is not None:
            own &= also(values, band, averages)
        if before is not None:
            own &= nearest_points(before, len(own))
        before = own
        yield BandField(band, correlation, averages, own, values.coarse_inside(len(own)))


@dataclass(frozen=True)
class LocalWiener:
    """The prior: signal to noise ratio by band and place, from the windowed FSC of the half maps.

    Attributes
    ----------
    false_discovery : float
        Share of the places with a gain of their own that may be noise.
    """

    name: str = "local"
    false_discovery: float = _FALSE_DISCOVERY

    def fit(self, given: HalfMaps) -> Regulariser:
        """The windowed FSC, made significant, as SSNR; Wiener's filter where windows hold too few voxels."""
        bands = prior_bands(given)
        if len(bands) < 2:
            return Wiener().fit(given)
        # Windows of this size that the whole box holds: a pool counts as many voxels as its share of them.
        windows = given.box**3 / float(bands[0].window(given.box).sum(dtype=np.float64))
        fields = [
            _pool(one.correlation, one.averages, one.own, one.inside, windows * one.band.independent(given.box))
            for one in band_fields(given, bands, self.false_discovery, self._also)
        ]
        ssnr = [given.T * f / (1 - f) for f in fields]
        return LocalSSNR(bands, ssnr, given.ssnr, given.threads)

    def _also(self, values: SignificanceValues, band: Band, averages: list[Float32Array]) -> npt.NDArray[np.bool_]:
        """Places that may have a gain of their own where their windowed FSC is beyond chance: all."""
        return np.ones(averages[0].shape, bool)


def _pool(
    correlation: FloatArray, averages: list[Float32Array], own: npt.NDArray, inside: npt.NDArray, independent: float
) -> FloatArray:
    """The windowed FSC where it is beyond chance; in the rest of the molecule one for all, outside it none.

    What is shared is 0 where not even that is beyond chance (``independent``: voxels of the band in the whole box).
    """
    out = np.clip(correlation, 0.0, FSC_MOST)
    pool = inside & ~own
    cross, power_a, power_b = (float(part[pool].sum(dtype=np.float64)) for part in averages)
    scale = np.sqrt(max(power_a, 0.0) * max(power_b, 0.0))
    shared = min(cross / scale, FSC_MOST) if scale > 0 else 0.0
    out[pool] = shared if shared > _SURE / np.sqrt(max(independent * pool.mean(), 1.0)) else 0.0
    out[~inside & ~own] = 0.0
    return out
