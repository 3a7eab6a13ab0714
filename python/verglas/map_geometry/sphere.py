"""The spherical average of a map, and what is left without it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.interpolate import make_lsq_spline

from verglas import fourier
from verglas.types.arrays import Float32Array, any_arrays

Spectrum = npt.NDArray[np.complexfloating]

_DEGREE = 3
_FIRST_KNOT, _KNOT_STEP = 1.5, 0.5  # shells


def spherical_part(spectrum: Spectrum, box: int) -> npt.NDArray[np.float64]:
    r"""Rotational average of a half transform, as a function of the exact radius of every coefficient.

    A cubic spline in :math:`|k|`, knots every half shell, fitted to the real part by least squares. The mean of a shell
    as wide as a voxel will not do: within it the transform of a particle of a third of the box goes through a third of
    its oscillation, and the slope that the mean leaves behind looks the same in any two maps.

    Parameters
    ----------
    spectrum : (N, N, N // 2 + 1) complex
        Of a centred map.
    box : int
        N.

    Returns
    -------
    (N, N, N // 2 + 1) float64
    """
    shape = (box,) * 3
    k = np.rint(np.fft.fftfreq(box) * box).astype(np.int64)
    half = np.abs(k[: box // 2 + 1])
    # Whole numbers: coefficients of one exact radius are averaged, where shells would mix radii up to a pixel apart.
    squared = k[:, None, None] ** 2 + k[None, :, None] ** 2 + half[None, None, :] ** 2
    weight = np.broadcast_to(fourier.half_weights(shape), squared.shape)
    count = np.bincount(squared.ravel(), weight.ravel())
    there = np.flatnonzero(count)
    mean = np.bincount(squared.ravel(), (spectrum.real * weight).ravel())[there] / count[there]
    radius = np.sqrt(there)
    inner = np.arange(_FIRST_KNOT, radius[-1] - _KNOT_STEP, _KNOT_STEP)
    knots = np.r_[[radius[0]] * (_DEGREE + 1), inner, [radius[-1]] * (_DEGREE + 1)]
    trust = np.sqrt(count[there])
    trust[0] = 1e3 * trust.max()  # the sum of the map is known, and kept
    fit = make_lsq_spline(radius, mean, knots, k=_DEGREE, w=trust)
    average = np.zeros(len(count))
    average[there] = fit(radius)
    return np.asarray(average[squared])


@any_arrays
def spherical_average(volume: Float32Array) -> Float32Array:
    """The map with its transform replaced by its rotational average: what has no orientation.

    Examples
    --------
    >>> import numpy as np
    >>> from verglas.map_geometry.sphere import spherical_average
    >>> v = np.zeros((16, 16, 16), np.float32); v[8, 8, 10] = 1
    >>> a = spherical_average(v)
    >>> bool(np.isclose(a[8, 8, 10], a[8, 8, 6], atol=1e-6)), bool(np.isclose(a.sum(), 1, atol=1e-4))
    (True, True)
    """
    spectrum = fourier.forward(volume, 3)
    return fourier.inverse(spherical_part(spectrum, len(volume)).astype(np.complex64), volume.shape).astype(np.float32)


@any_arrays
def aspherical_part(volume: Float32Array) -> Float32Array:
    """The map less its spherical average: what poses decide on.

    Examples
    --------
    >>> import numpy as np
    >>> from verglas.map_geometry.sphere import aspherical_part
    >>> n = np.arange(32) - 16
    >>> ball = np.exp(-(n[:, None, None] ** 2 + n[:, None] ** 2 + n**2) / 18).astype(np.float32)
    >>> bool(np.abs(aspherical_part(ball)).max() < 1e-3)
    True
    """
    return np.asarray(volume - spherical_average(volume), np.float32)
