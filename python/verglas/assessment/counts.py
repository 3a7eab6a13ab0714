"""How many voxels of a Fourier shell are independent of one another, under a mask and under symmetry."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import special

from verglas import fourier
from verglas.errors import InputError
from verglas.types.arrays import FloatArray, any_arrays

# Bins per pixel of the distances in an autocorrelation: the kernel of the last shell has a period of one pixel.
_BINS_PER_PX = 8


@any_arrays
def effective_counts(
    shape: tuple[int, ...],
    mask: npt.ArrayLike | None = None,
    symmetry_order: int = 1,
    *,
    threads: int | None = None,
) -> FloatArray:
    r"""Voxels per shell that are independent of one another: the n for which the FSC of noise has variance 1/n.

    A mask m convolves the transform, so that neighbours are correlated by :math:`C = FT(m^2)`. The variance of the FSC
    of independent white noise, over a shell S of n voxels, is

    .. math::
        \frac{1}{n_{eff}} = \frac{\sum_{k,k' \in S} |C(k - k')|^2}{n^2 C(0)^2}
        = \frac{1}{n^2} \sum_r \frac{A(r)}{A_0}\, s(r)^2,

    with A the autocorrelation of :math:`m^2` (sum :math:`A_0`) and s(r) the transform of the shell, for a shell of unit
    thickness about R close to :math:`n\,\mathrm{sinc}(2 R r / N)\,\mathrm{sinc}(r / N)`. A point group of order g that
    was imposed on both maps leaves n / g.

    Parameters
    ----------
    shape : tuple of int
        Real-space shape, a square or a cube.
    mask : array of this shape, optional
        What both maps are multiplied with.
    symmetry_order : int
        g.
    threads : int, optional
        Threads; all by default.

    Returns
    -------
    (N // 2 + 1,) float64
        At least 1.

    Raises
    ------
    InputError
        A mask of another shape or of zeros, or an order below 1.

    References
    ----------
    For the n of thresholds under masks and symmetry: van Heel & Schatz, J. Struct. Biol. 151 (2005) 250, who count by
    the volume alone.

    Examples
    --------
    >>> import numpy as np
    >>> from verglas.assessment import effective_counts
    >>> effective_counts((8, 8, 8), symmetry_order=2).tolist()[:3]
    [1.0, 9.0, 31.0]
    """
    if symmetry_order < 1:
        raise InputError(f"symmetry order: expected a whole number >= 1, got {symmetry_order}")
    counts = fourier.shell_counts(shape)[0].astype(np.float64)
    if mask is not None:
        weight = np.asarray(mask, np.float32)
        if weight.shape != tuple(shape):
            raise InputError(f"the mask has shape {weight.shape}, the maps {tuple(shape)}; it must be the same")
        if not weight.any():
            raise InputError("the mask is zero everywhere; lower the threshold that made it")
        counts = np.minimum(counts, _independent(weight, threads))
    return np.maximum(counts / symmetry_order, 1.0)


def _independent(mask: npt.NDArray[np.float32], threads: int | None) -> FloatArray:
    """A_0 over the sum of A(r) (s(r) / n)^2, per shell; within 15 % of what noise shows beyond shell 2."""
    shape, ndim = mask.shape, mask.ndim
    n = shape[0]
    # The square: what an FSC sums is a product of two maps, each of which carries the mask.
    spectrum = fourier.forward(mask * mask, ndim, threads=threads)
    spectrum = (spectrum.real**2 + spectrum.imag**2).astype(spectrum.dtype)
    overlap = np.maximum(fourier.inverse(spectrum, shape, threads=threads), 0.0)
    bins = int(np.ceil(np.sqrt(ndim) * n / 2 * _BINS_PER_PX)) + 2
    under = np.zeros(bins)
    squares = np.ix_(*[(np.arange(n) - n // 2) ** 2] * (ndim - 1))
    plane = sum(squares)
    for i, slab in enumerate(overlap):  # one slab at a time: little memory
        index = np.rint(_BINS_PER_PX * np.sqrt(plane + (i - n // 2) ** 2)).astype(np.int64).ravel()
        under += np.bincount(index, slab.ravel(), minlength=bins)
    r = np.arange(bins) / _BINS_PER_PX
    shell = np.arange(n // 2 + 1)[:, None]
    wave = np.sinc(2 * shell * r / n) if ndim == 3 else special.j0(2 * np.pi * shell * r / n)
    return under.sum() / ((wave * np.sinc(r / n)) ** 2 @ under)
