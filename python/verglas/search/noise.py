"""Noise spectra before anything has been aligned; what is learned later is :func:`verglas.ops.noise_variance`."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from verglas.errors import InputError
from verglas.types.arrays import FloatArray, IntArray

_LEAST_NOISE = 0.1  # of the power of a shell
_MASK_TELLS = 0.85  # a mask that keeps more of the noise than this tells it from the signal no better than a guess
_GUESS = 0.8
_LEAST_SIGNAL = 0.01


def mean_power(power: npt.NDArray[np.float32], group: IntArray, n_groups: int) -> FloatArray:
    """Mean power of each group's images, (groups, shells); of all images for a group that has none.

    Parameters
    ----------
    power : (n, shells) float32
        Mean of abs(X)^2 over each shell of each image.
    group : (n,) int64
    n_groups : int
    """
    everywhere = power.mean(axis=0, dtype=np.float64)
    means = np.empty((n_groups, power.shape[1]))
    for g in range(n_groups):
        members = power[group == g]
        means[g] = members.mean(axis=0, dtype=np.float64) if len(members) else everywhere
    return means


def first_noise(power: FloatArray, signal: FloatArray | float = 0.0, *, job: str) -> FloatArray:
    """Noise variance by shell: the images' power less the signal's share of it, and at least a tenth of it.

    Parameters
    ----------
    power : (..., shells) float64
        :func:`mean_power`.
    signal : (shells,) float64
        Mean power of CTF-modulated slices of the map; 0 without a map, whose particles are weak against the noise.
    job : str
        For the message.

    Raises
    ------
    InputError
        A shell holds no power.

    Examples
    --------
    >>> import numpy as np
    >>> from verglas.search.noise import first_noise
    >>> first_noise(np.array([5.0, 4.0, 4.0]), np.array([0.0, 1.0, 3.9]), job="align").round(2).tolist()
    [3.0, 3.0, 0.4]
    """
    sigma2 = np.maximum(power - signal, _LEAST_NOISE * power)
    if not np.all(sigma2[..., 1:] > 0):
        raise InputError(f"{job}: the images have no power at some resolution (all zero?)")
    sigma2[..., 0] = sigma2[..., 1]  # the mean of an image is no part of its model
    return sigma2


def smooth_rings(values: FloatArray) -> FloatArray:
    """Means over three neighbouring rings, 1/4, 1/2, 1/4, along the last axis."""
    padded = np.concatenate([values[..., :1], values, values[..., -1:]], axis=-1)
    return (padded[..., :-2] + 2 * padded[..., 1:-1] + padded[..., 2:]) / 4


def noise_and_signal(whole: FloatArray, masked: FloatArray, share: float) -> tuple[FloatArray, FloatArray]:
    """Noise variance and signal power by ring, from images as they are and inside a mask, without a map.

    With noise n everywhere, signal s inside the mask only and f the mean square of the mask, whole images have power
    n + s and masked ones f n + s.

    Parameters
    ----------
    whole, masked : (..., rings) float64
        Mean power of the same images.
    share : float
        f.

    Examples
    --------
    >>> import numpy as np
    >>> from verglas.search.noise import noise_and_signal
    >>> noise, signal = noise_and_signal(np.full(4, 5.0), np.full(4, 3.0), 0.5)
    >>> noise.tolist(), signal.tolist()
    ([4.0, 4.0, 4.0, 4.0], [1.0, 1.0, 1.0, 1.0])
    """
    # Where the mask is nearly the whole image, the difference is nearly zero over nearly zero.
    noise = (whole - masked) / (1 - share) if share < _MASK_TELLS else _GUESS * whole
    noise = smooth_rings(np.clip(noise, _LEAST_NOISE * whole, whole))
    return noise, np.maximum(smooth_rings(whole - noise), _LEAST_SIGNAL * whole)
