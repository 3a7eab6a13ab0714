"""Radial filters in Fourier space, and convolution with small kernels in real space.

A filter is a *gain*: a function of the spatial frequency s = abs(k) / (N p) in 1/angstrom (p the pixel size) that
returns the factor for each frequency. Gains are made by :func:`low_pass`, :func:`high_pass`, :func:`band_pass`,
:func:`gaussian`, :func:`b_factor`, :func:`from_curve`, multiplied by :func:`product`, and applied by :func:`apply`::

    filters.apply(map, filters.product(filters.low_pass(8.0), filters.b_factor(100.0)))

All edges are raised cosines, so nothing rings: gain 1 in the band, 0 beyond the edge, half way in its middle.
"""

from functools import partial

from verglas.filters.convolution import convolve, deconvolve, sharpening_kernel, smoothing_kernel
from verglas.filters.gains import (
    Gain,
    MapOrArray,
    apply,
    b_factor,
    band_pass,
    frequencies,
    from_curve,
    gaussian,
    high_pass,
    inverse,
    low_pass,
    product,
)

__all__ = [
    "Gain",
    "MapOrArray",
    "apply",
    "b_factor",
    "band_pass",
    "convolve",
    "deconvolve",
    "frequencies",
    "from_curve",
    "gaussian",
    "high_pass",
    "inverse",
    "low_pass",
    "product",
    "sharpening_kernel",
    "smoothing_kernel",
]
__dir__ = partial(sorted, __all__)
