"""Local resolution by a small network: whether a band is resolved at a voxel, from local and global spectral numbers.

The numbers are of the half maps alone (no atomic model, no grey values of a map that was sharpened), so that a voxel
that is blurred more is resolved less. The network was trained on phantoms with planted resolutions
(``tools/train_local_resolution.py``) and stands beside the analytic methods, which it does not replace.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np

from verglas.assessment.local_bands import Band, Windowed
from verglas.assessment.local_scan import CorrelationValues
from verglas.types.arrays import Float32Array

if TYPE_CHECKING:
    from verglas.assessment.local_resolution import LocalResolution
    from verglas.learned import Perceptron

NAMES = ("correlation", "standard", "in the molecule", "voxels", "power", "cross")


class NetworkValues(CorrelationValues):
    """The probability that a band is resolved, against the network's threshold."""

    window_share = 0.75
    window_waves = 0.0  # as in training
    leak_is_taken_off = False  # it was trained on correlations as they are
    edge_is_looked_for = False  # a probability is no share of signal
    network: Perceptron | None = None  # another than the shipped one, in training
    _band = (0.0, 1.0, 1.0, 1.0)

    def averages(self, band: Band, windowed: Windowed) -> list[Float32Array]:
        """Of a b, a^2 and b^2, under the narrower window."""
        return super().averages(narrow_band(band, self.window_share), windowed)

    def threshold(self, band: Band, averages: list[Float32Array]) -> float:
        """The network's; what the band is like in the whole molecule is noted for :meth:`of`."""
        inside = self.coarse_inside(len(averages[0]))
        cross, first, second = (float(one[inside].mean(dtype=np.float64)) for one in averages)
        power = max(np.sqrt(max(first, 0.0) * max(second, 0.0)), 1e-30)
        n = narrow_band(band, self.window_share).independent(self.box)
        self._band = (cross / power, n, power, max(abs(cross), 1e-3 * power))
        return self._network().threshold

    def of(self, averages: list[Float32Array]) -> Float32Array:
        """The probability."""
        values = self.numbers(averages)
        flat = self._network().probabilities(values.reshape(-1, len(NAMES)))
        return np.asarray(flat.reshape(values.shape[:-1]), np.float32)

    def numbers(self, averages: list[Float32Array]) -> Float32Array:
        """What the network is given, (..., 6).

        The windowed correlation; that in standard deviations of noise's; the molecule's; the logarithm of the number of
        independent voxels; local power and local common power over the molecule's, as logarithms.
        """
        whole, n, power, common = self._band
        cross, first, second = averages
        local = np.sqrt(np.maximum(first, 0) * np.maximum(second, 0))
        correlation = np.clip(super().of(averages), -1, 1)
        standard = correlation * np.sqrt(n) / np.sqrt(1.02 - correlation**2)
        ratio = np.log(np.maximum(local / power, 1e-4))
        shared = np.log(np.maximum(cross / common, 1e-4))
        constant = [np.full_like(correlation, one) for one in (whole, np.log(n))]
        return np.stack([correlation, standard, *constant, ratio, shared], axis=-1).astype(np.float32)

    def _network(self) -> Perceptron:
        if self.network is None:
            from verglas.learned import packaged_perceptron  # not before it is asked for

            self.network = packaged_perceptron("local_resolution")
        return self.network


@dataclasses.dataclass(frozen=True, eq=False)
class Disagreement:
    """Where two maps of local resolution differ.

    Attributes
    ----------
    ratio : (z, y, x) float32
        One over the other, both in angstrom: above 1 where the first is coarser.
    share_coarser, share_finer : float
        Of the molecule's voxels where the first is coarser or finer by more than ``factor``.
    factor : float
    """

    ratio: Float32Array
    share_coarser: float
    share_finer: float
    factor: float

    def as_dict(self) -> dict[str, float]:
        """JSON-ready."""
        return {
            "factor": self.factor,
            "share_apart": round(self.share_coarser + self.share_finer, 5),
            "share_coarser": round(self.share_coarser, 5),
            "share_finer": round(self.share_finer, 5),
        }


def disagreement(one: LocalResolution, other: LocalResolution, factor: float = 1.25) -> Disagreement:
    """Where a method says something else than another of the same half maps."""
    ratio = (one.map.data / other.map.data).astype(np.float32)
    inside = one.mask.data >= 0.5
    return Disagreement(
        ratio, float((ratio[inside] > factor).mean()), float((ratio[inside] < 1 / factor).mean()), factor
    )


def narrow_band(band: Band, share: float) -> Band:
    """The band under a part of its window."""
    return dataclasses.replace(band, window_px=share * band.window_px)


def band_numbers(values: NetworkValues, band: Band, box: int, planes: slice) -> Float32Array:
    """The network's numbers at some planes of voxels, for training."""
    windowed = Windowed(narrow_band(band, values.window_share), box, values.threads)
    averages = values.averages(band, windowed)
    values.threshold(band, averages)
    return values.numbers(windowed.slab(averages, planes))
