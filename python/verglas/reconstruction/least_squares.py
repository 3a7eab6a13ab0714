r"""The map that fits all images best: least squares with the exact normal operator.

Known poses make the images linear in the map, X_i = C_i P_i V, and the normal operator

.. math:: A = \sum_i P_i^T \frac{C_i^2}{\sigma_i^2} P_i

a convolution: its kernel is the inverse transform of the weights, :math:`K(x) = \sum_k w_k e^{2\pi i k x/N}` over all
Fourier samples, needed for \|x\| < N only. On a box of 2N voxels the convolution is a product of transforms (Wang,
Shkolnisky and Singer 2013; the same structure as Fessler's Toeplitz operators for MRI), so conjugate gradients solve
:math:`(A + \Lambda) V = \sum_i P_i^T C_i X_i / \sigma_i^2` at two FFTs a step, whatever the number of images. No
density compensation, no gridding approximation: what the data do not determine is left to the support and to the prior.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import scipy.fft

from verglas import fourier, gridding, ops
from verglas._native import resolve_threads
from verglas.errors import InputError
from verglas.types.arrays import Array
from verglas.types.display import one_line

# Shell means of the weights below this share of their maximum are not amplified by the preconditioner: the lowest
# shells of a CTF without phase shift would otherwise dominate the first steps.
_PRECONDITIONER_FLOOR = 0.05
# Prior where none is given, as a share of the shell's mean weight; and beyond the last shell that has data.
_RIDGE = 1e-4
_RIDGE_BEYOND = 1e-2


def kernel_grid(box: int, max_radius: int) -> ops.Grid:
    """Grid on which the weights are summed: fine enough for the kernel at separations up to the box.

    Parameters
    ----------
    box : int
        Side of the map.
    max_radius : int
        Largest shell inserted.

    Returns
    -------
    Grid
        2.5 grid points per Fourier pixel: 1.25 times what a box of 2N needs, with 6 taps.

    Examples
    --------
    >>> from verglas.reconstruction.least_squares import kernel_grid
    >>> kernel_grid(64, 31).padded
    160
    """
    return ops.Grid(box, max_radius=max_radius, oversampling=2.5, width=6)


def convolve(volume: Array, transfer: Array, threads: int) -> Array:
    """Convolve N^3 voxels, zero beyond, with a kernel by its transform on a box of 2N.

    Axis by axis: no lines of padding are transformed, nor lines back that are dropped: 7 of 12 of two transforms.

    Examples
    --------
    >>> import numpy as np
    >>> from verglas.reconstruction.least_squares import convolve
    >>> x = np.arange(8, dtype=np.float32).reshape(2, 2, 2)
    >>> bool(np.allclose(convolve(x, np.ones((4, 4, 3), np.float32), 1), x))
    True
    """
    box = len(volume)
    # Padded behind to 2N: what wraps round lands in the part that [:box] drops, so it is not periodic.
    spectrum = scipy.fft.rfft(volume, 2 * box, axis=2, workers=threads)
    spectrum = scipy.fft.fft(spectrum, 2 * box, axis=1, workers=threads)
    spectrum = scipy.fft.fft(spectrum, 2 * box, axis=0, workers=threads)
    spectrum *= transfer
    spectrum = scipy.fft.ifft(spectrum, axis=0, workers=threads, overwrite_x=True)[:box]
    spectrum = scipy.fft.ifft(spectrum, axis=1, workers=threads)[:, :box]
    return np.asarray(scipy.fft.irfft(spectrum, 2 * box, axis=2, workers=threads)[:, :, :box])


@dataclass(frozen=True)
class NormalOperator:
    """A + Lambda as a product of transforms on a box of 2N.

    Attributes
    ----------
    transfer : (2N, 2N, N + 1) float32
        Transform of the kernel, prior included.
    support : (N, N, N) float32
        What the map is restricted to.
    preconditioner : (N, N, N // 2 + 1) float32
        One over the shell mean of the transfer.
    """

    transfer: Array
    support: Array
    preconditioner: Array

    def apply(self, volume: Array, threads: int) -> Array:
        """Support times (A + Lambda) times volume, which must lie in the support."""
        return convolve(volume, self.transfer, threads) * self.support

    def precondition(self, volume: Array, threads: int) -> Array:
        """Roughly undo :meth:`apply`."""
        spectrum = scipy.fft.rfftn(volume, workers=threads) * self.preconditioner
        return scipy.fft.irfftn(spectrum, s=volume.shape, workers=threads) * self.support


def _shell_means(transfer: Array, box: int, count: int) -> Array:
    """Mean of the transfer over the map's shells 0 .. count - 1 (one Fourier pixel of N is two of 2N)."""
    total, number = np.zeros(count), np.zeros(count)
    kz, ky, kx = fourier.half_grid((2 * box,) * 3)
    plane = (ky.astype(np.float64) ** 2 + kx.astype(np.float64) ** 2)[0]
    for z, k in enumerate(kz.ravel()):  # plane by plane: the radii of the whole box would take more than the transfer
        shell = np.minimum(np.rint(np.sqrt(plane + float(k) ** 2) / 2).astype(np.int64), count).ravel()
        total += np.bincount(shell, weights=transfer[z].ravel(), minlength=count + 1)[:count]
        number += np.bincount(shell, minlength=count + 1)[:count]
    return total / number


def _add_by_shell(transfer: Array, values: Array, box: int) -> None:
    """Add a value per shell of the map to the transfer, in place; the last one also beyond the last shell."""
    kz, ky, kx = fourier.half_grid((2 * box,) * 3)
    plane = (ky.astype(np.float64) ** 2 + kx.astype(np.float64) ** 2)[0]
    for z, k in enumerate(kz.ravel()):
        shell = np.rint(np.sqrt(plane + float(k) ** 2) / 2).astype(np.int64)
        transfer[z] += values[np.minimum(shell, len(values) - 1)]


def sphere(box: int) -> npt.NDArray[np.float32]:
    """The largest ball in the box: the default support.

    Examples
    --------
    >>> from verglas.reconstruction.least_squares import sphere
    >>> int(sphere(4).sum())
    7
    """
    x = np.arange(box) - box // 2
    radius = (box - 1) // 2
    return (x[:, None, None] ** 2 + x[:, None] ** 2 + x**2 <= radius**2).astype(np.float32)


def normal_operator(
    weights: ops.GridSums,
    *,
    ssnr: npt.ArrayLike | None = None,
    support: Array | None = None,
    threads: int | None = None,
) -> NormalOperator:
    r"""Make the operator from the folded, symmetrised weights on :func:`kernel_grid`.

    Parameters
    ----------
    weights : GridSums
        Sums of C^2 / sigma^2.
    ssnr : (max_radius + 1,) array, optional
        Spectral signal-to-noise ratio of the map per shell. The prior is then Wiener's,
        :math:`\Lambda(s) = \bar w(s) / SSNR(s)`; without it a ridge of 1e-4 of the mean weight keeps what the data do
        not determine at zero.
    support : (N, N, N) array, optional
        Weights 0 ... 1 of the voxels that may differ from zero; the largest ball by default.
    threads : int, optional
        Threads; all by default.

    Returns
    -------
    NormalOperator

    Raises
    ------
    InputError
        The weights are absent or all zero, or ``ssnr`` has another length.
    """
    grid = weights.grid
    if weights.weights is None or not weights.weights.any():
        raise InputError("reconstruct: no image carries any weight; check the CTF and the selection of particles")
    workers, box, count = resolve_threads(threads), grid.box, grid.max_radius + 1
    kernel = gridding.from_grid(weights.weights, grid, box=2 * box, threads=workers)
    # Real, because the weights are symmetric under Friedel; the imaginary part is rounding.
    transfer = scipy.fft.rfftn(np.fft.ifftshift(kernel), workers=workers).real.astype(np.float32)
    del kernel
    # The kernel is cut at the box: its transform rings, and may dip below 0 where there is hardly any weight.
    means = np.maximum(_shell_means(transfer, box, count), 0.0)
    if ssnr is None:
        prior = _RIDGE * means
    else:
        ratio = np.asarray(ssnr, np.float64)
        if ratio.shape != (count,):
            raise InputError(f"ssnr: expected one value per shell 0 .. {count - 1}, got shape {ratio.shape}")
        prior = means / np.maximum(ratio, 1e-3)
    # Beyond the last shell there are no data; what the support implies there is kept small but not forbidden, since
    # forbidding it takes FSC from the last shells (bench/bench_reconstruct.py).
    beyond = max(prior[-1], _RIDGE_BEYOND * means[-1])
    _add_by_shell(transfer, np.append(prior, beyond).astype(np.float32), box)
    floor = np.maximum(means + prior, _PRECONDITIONER_FLOOR * means.max())
    shells = np.minimum(fourier.shells((box,) * 3), count - 1)
    support = sphere(box) if support is None else np.ascontiguousarray(support, np.float32)
    return NormalOperator(transfer, support, (1.0 / floor).astype(np.float32)[shells])


@one_line
@dataclass(frozen=True)
class Solution:
    """A map and how it was reached.

    Attributes
    ----------
    volume : (N, N, N) float32
        The map.
    residuals : list of float
        Norm of the residual over that of the right-hand side, after each step.
    """

    volume: npt.NDArray[np.float32]
    residuals: list[float]


def solve(
    operator: NormalOperator,
    right_side: npt.NDArray[np.float32],
    *,
    iterations: int = 30,
    tolerance: float = 5e-4,
    threads: int | None = None,
) -> Solution:
    """Preconditioned conjugate gradients for (A + Lambda) V = right side, inside the support.

    Parameters
    ----------
    operator : NormalOperator
        A + Lambda.
    right_side : (N, N, N) float32
        ``gridding.from_grid`` of the summed values.
    iterations : int
        At most.
    tolerance : float
        Relative residual at which to stop.
    threads : int, optional
        Threads; all by default.

    Returns
    -------
    Solution

    Notes
    -----
    Hestenes and Stiefel (1952). Inner products are float64, so the result does not depend on the number of threads
    beyond what the FFT does (nothing).
    """
    workers = resolve_threads(threads)

    def dot(a: Array, b: Array) -> float:
        return float(np.sum(a * b, dtype=np.float64))

    residual = right_side * operator.support
    volume = np.zeros_like(residual)
    norm = np.sqrt(dot(residual, residual))
    if norm == 0.0:
        return Solution(volume, [])
    direction = descent = operator.precondition(residual, workers)
    product = dot(residual, descent)
    residuals: list[float] = []
    for _ in range(iterations):
        image = operator.apply(direction, workers)
        step = np.float32(product / dot(direction, image))
        volume += step * direction
        residual -= step * image
        residuals.append(float(np.sqrt(dot(residual, residual)) / norm))
        if residuals[-1] < tolerance:
            break
        descent = operator.precondition(residual, workers)
        previous, product = product, dot(residual, descent)
        direction = descent + np.float32(product / previous) * direction
    return Solution(volume, residuals)
