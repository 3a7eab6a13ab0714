"""Crystalline ice: the ring at 3.67 A in the power spectrum of a micrograph."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

# Hexagonal and cubic ice share reflections near 3.67 A (Dobro et al. 2010, Methods Enzymol. 481, 63-82).
_RING_A = (3.80, 3.55)
_FLANKS_A = ((4.15, 3.90), (3.45, 3.25))


def ice_ring(power: npt.ArrayLike, pixel_size_A: float) -> float:
    """Power of the ring of crystalline ice over what its neighbours let expect, less 1.

    Parameters
    ----------
    power : (n, n // 2 + 1) float
        Mean power of tiles of a micrograph, half transform as of ``rfft2``.
    pixel_size_A : float

    Returns
    -------
    float
        About 0 for vitreous ice; NaN where the pixels are too coarse to show the ring.

    Examples
    --------
    >>> import numpy as np
    >>> from verglas.optics.fit import ice_ring
    >>> k = np.hypot(np.fft.fftfreq(256, 1.2)[:, None], np.fft.rfftfreq(256, 1.2)[None])
    >>> flat = np.exp(-5 * k)
    >>> round(ice_ring(flat, 1.2), 1), round(ice_ring(flat * (1 + (np.abs(1 / (k + 1e-9) - 3.67) < 0.1)), 1.2), 1)
    (0.0, 0.8)
    """
    spectrum = np.asarray(power, np.float64)
    side = spectrum.shape[0]
    if _FLANKS_A[1][1] < 2 * pixel_size_A:
        return float("nan")
    k = np.hypot(np.fft.fftfreq(side, pixel_size_A)[:, None], np.fft.rfftfreq(side, pixel_size_A)[None])

    def level(band: tuple[float, float]) -> tuple[float, float]:
        inside = (k >= 1 / band[0]) & (k <= 1 / band[1])
        inside[:, 0] = inside[0] = False  # the axes hold the leakage of edges
        return float(k[inside].mean()), float(np.log(spectrum[inside].mean()))

    (k0, low), (k1, high) = (level(band) for band in _FLANKS_A)
    at, ring = level(_RING_A)
    return float(np.exp(ring - low - (high - low) * (at - k0) / (k1 - k0)) - 1)
