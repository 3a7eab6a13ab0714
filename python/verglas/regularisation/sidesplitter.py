r"""Each half map filtered by its own local power (after SIDESPLITTER, Ramlaul, Palmer, Nakane and Aylett 2020).

.. math:: G(x, k) = \max\left(0,\ 1 - \frac{N(k)}{P(x, k)}\right), \qquad
          N(k) = \tfrac{1}{2} \langle (a_k - b_k)^2 \rangle

with P the windowed power of the half map itself in a band k, and N the power of noise in a half map: one number for
each band, all that the halves share. Where only noise is, changing the sign of one half leaves the gains as likely as
they were and turns the FSC round: it stays 0 on average, however the gains follow the noise.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from verglas import fourier
from verglas.assessment.local_bands import Band, Windowed, band_map, nearest_points
from verglas.regularisation.local import LocalSSNR, prior_bands
from verglas.regularisation.protocol import HalfMaps, MapSource, Regulariser, Wiener
from verglas.types.arrays import Complex64Array, Float32Array, FloatArray


@dataclass(frozen=True)
class SideSplitter:
    """The prior: noise power by band; the signal's, by band and place, is each half map's own.

    Examples
    --------
    >>> from verglas.regularisation import SideSplitter
    >>> SideSplitter().name
    'sidesplitter'
    """

    name: str = "sidesplitter"

    def fit(self, given: HalfMaps) -> Regulariser:
        """Noise power of every band, from the difference of the half maps inside the mask."""
        bands = prior_bands(given)
        if len(bands) < 2:
            return Wiener().fit(given)
        difference = given.spectra[0] - given.spectra[1]
        inside = given.mask >= 0.5
        noise = []
        for band in bands:
            power = _power(difference, band, given)
            noise.append(0.5 * float(power[nearest_points(inside, len(power))].mean()))
        return _Split(bands, noise, given)


@dataclass(frozen=True, eq=False)
class _Split:
    """What the halves share: bands and the noise power of each."""

    bands: list[Band]
    noise: list[float]
    given: HalfMaps

    def __call__(self, source: MapSource) -> Float32Array:
        """The map under an SSNR that is its own."""
        spectrum = fourier.forward(source.raw, 3, threads=self.given.threads)
        fields = []
        for band, noise in zip(self.bands, self.noise, strict=True):
            power = _power(spectrum, band, self.given)
            # In one half set's terms, as LocalSSNR takes it: noise of m half sets has 1 / m of the power.
            excess = power / max(noise / source.half_sets, 1e-30) - 1
            fields.append(self.given.T * np.maximum(excess, 0) / source.half_sets)
        return LocalSSNR(self.bands, fields, self.given.ssnr, self.given.threads)(source)


def _power(spectrum: Complex64Array, band: Band, given: HalfMaps) -> FloatArray:
    """Windowed power of a band, on the window's grid."""
    part = band_map(spectrum, band, given.box, given.threads)
    average = Windowed(band, given.box, given.threads).average(part * part)
    return np.maximum(average, 0).astype(np.float64)  # interpolation may leave averages of squares slightly below 0
