"""Fourier transforms of whole arrays, phase-centred on pixel N // 2: the one call site of scipy.fft and cupyx's.

Half transforms are in ``rfft`` order, unnormalised. *Phase-centred* means that the origin of real space is pixel N // 2
on every axis, so a point at the centre has a real, positive transform.
"""

from functools import partial

from verglas.fourier.half_transform import (
    half_grid,
    half_weights,
    radius,
    raised_cosine,
    resize,
    shells,
    shift_phases,
    whole,
)
from verglas.fourier.shell_statistics import power_spectrum, radial_mean, shell_counts, shell_sums
from verglas.fourier.whole_array import fast_size, forward, inverse, low_frequencies, transforms

__all__ = [
    "fast_size",
    "forward",
    "half_grid",
    "half_weights",
    "inverse",
    "low_frequencies",
    "power_spectrum",
    "radial_mean",
    "radius",
    "raised_cosine",
    "resize",
    "shell_counts",
    "shell_sums",
    "shells",
    "shift_phases",
    "transforms",
    "whole",
]
__dir__ = partial(sorted, __all__)
