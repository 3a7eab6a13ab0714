"""Insertion of polar slices, the adjoint of polar_slices; and images from polar samples."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from verglas._native import core, resolve_threads
from verglas.ops._device import as_array, cuda_session
from verglas.ops.insert import GridSums
from verglas.ops.polar import PolarGrid

_BLAS_ONE_THREAD = 250_000  # multiply-adds of a product that OpenBLAS leaves to one thread


def polar_insert(
    sums: GridSums,
    samples: npt.NDArray[np.complex64] | None,
    weights: npt.NDArray[np.float32] | None,
    matrices: npt.ArrayLike,
    grid: PolarGrid,
    *,
    device: str = "cpu",
    deterministic: bool = False,
    threads: int | None = None,
) -> None:
    r"""Add polar slices to sums on the Fourier grid; the adjoint of :func:`polar_slices`.

    .. math::
        \mathrm{values} \mathrel{+}= \sum_i P_i^T Y_i, \qquad \mathrm{weights} \mathrel{+}= \sum_i P_i^T W_i

    with the taps of :func:`polar_slices`. Samples of the half circle go to the half volume once; :func:`fold` adds
    Friedel's mates at the end. For a sum over the plane the ring weights ``grid.weights`` must be in Y and W.

    Parameters
    ----------
    sums : GridSums
        Added to in place.
    samples : (n, n_rings, n_theta // 2) complex64 or None
        Y; None where ``sums.values`` is.
    weights : (n, n_rings, n_theta // 2) float32 or None
        W; None where ``sums.weights`` is.
    matrices : (n, 3, 3) float64
        Rotation matrices in RELION's convention.
    grid : PolarGrid
        Rings and angles; its box is that of ``sums.grid``.
    device : str
        ``"cpu"`` or ``"cuda:<number>"``: the sums lie there, and arrays may; what comes from the host is copied.
    deterministic : bool
        On a GPU, sums that are bitwise equal from run to run, as in :func:`insert`. The CPU's always are.
    threads : int, optional
        Threads; all by default. The sums are bitwise equal for any number of threads. CPU only.

    Raises
    ------
    ValueError
        Shapes disagree, or the Fourier grid does not reach the last ring.

    Examples
    --------
    >>> import numpy as np
    >>> from verglas import ops
    >>> g = ops.PolarGrid(16, 6)
    >>> y = np.ones((1, g.n_rings, g.n_theta // 2), np.complex64)
    >>> sums = ops.GridSums.zeros(ops.Grid(16), weights=False)
    >>> ops.polar_insert(sums, y, None, np.eye(3)[None], g)
    >>> bool(sums.values.real.sum() > 0)
    True
    """
    if device != "cpu":
        from verglas.ops._cuda_polar import tables

        cuda = cuda_session(device)
        with cuda.active() as stream:
            cuda.kernels.polar_insert(
                sums.grid.native_for(cuda.kernels),
                (sums.values, sums.weights),
                cuda.to_device_or_none(samples),
                cuda.to_device_or_none(weights),
                cuda.rotations(matrices),
                tables(grid, cuda),
                grid.radii[-1],
                deterministic,
                stream,
            )
        return
    core.polar_insert(
        sums.grid.native,
        sums.values,
        sums.weights,
        samples,
        weights,
        as_array(matrices, np.float64),
        grid.native,
        resolve_threads(threads),
    )


def images_from_polar(samples: npt.ArrayLike, grid: PolarGrid) -> npt.NDArray[np.float32]:
    r"""Images from their transforms on rings: the inverse of :func:`polar` for images with nothing beyond the rings.

    .. math::
        x_n = \frac{1}{N^2} \sum_r w_r \sum_\theta X(r, \theta)\, e^{2\pi i\, r(\cos\theta, \sin\theta)\cdot n/N}

    over the full circle, by the sum itself (exact transform, quadrature of the rings). The origin of Fourier space is
    on no ring, so the mean of the image is lost.

    Parameters
    ----------
    samples : (n, n_rings, n_theta // 2) complex64
        Polar samples.
    grid : PolarGrid
        Their grid.

    Returns
    -------
    (n, box, box) float32

    Notes
    -----
    Cost: n_rings n_theta / 2 box^2 complex multiply-adds per image: meant for class averages, not for stacks.

    Examples
    --------
    >>> import numpy as np
    >>> from verglas import ops
    >>> g = ops.PolarGrid(16, 7)
    >>> x = ops.images_from_polar(np.ones((1, g.n_rings, g.n_theta // 2)), g)
    >>> bool(x[0].argmax() == 8 * 16 + 8)
    True
    """
    values = np.asarray(samples, np.complex64).reshape(-1, grid.n_rings, grid.n_theta // 2)
    theta = 2 * np.pi * np.arange(grid.n_theta // 2) / grid.n_theta
    n = np.arange(grid.box) - grid.box // 2
    kx, ky = (np.outer(grid.radii, f(theta)).ravel() for f in (np.cos, np.sin))
    phase_x, phase_y = (2 * np.pi / grid.box * k[:, None] * n for k in (kx, ky))
    ex = np.exp(1j * phase_x).astype(np.complex64)
    # Re[ey ex X] = cos y Re[ex X] - sin y Im[ex X]: real products.
    ey = np.concatenate([np.cos(phase_y), -np.sin(phase_y)]).astype(np.float32)
    # The other half of the circle is the complex conjugate: twice the real part.
    weighted = (values * (2 * grid.weights[:, None] / grid.box**2)).reshape(len(values), -1).astype(np.complex64)
    out = np.empty((len(values), grid.box, grid.box), np.float32)
    # Slabs of the sum small enough for one thread of the BLAS: many threads on such products mostly wait for each
    # other, and the result would depend on them.
    slab = max(16, _BLAS_ONE_THREAD // grid.box**2)
    for image, w in zip(out, weighted, strict=True):
        rows = w[:, None] * ex
        flat = np.concatenate([rows.real, rows.imag])
        whole = len(flat) // slab * slab
        left = ey[:whole].reshape(-1, slab, grid.box).swapaxes(1, 2)
        image[:] = (left @ flat[:whole].reshape(-1, slab, grid.box)).sum(axis=0) + ey[whole:].T @ flat[whole:]
    return out
