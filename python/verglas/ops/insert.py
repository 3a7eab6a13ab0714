"""Insertion of slices, the adjoint of project; and the symmetrisation of what was inserted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from verglas._native import core, resolve_threads
from verglas.errors import InputError
from verglas.ops._device import as_array, cuda_session, device_of
from verglas.ops.grid import Grid


@dataclass(frozen=True)
class GridSums:
    """Sums that :func:`insert` adds to; either array may be absent, its sum is then not made.

    Attributes
    ----------
    grid : Grid
        Where they lie.
    values : grid.shape complex128 or None
        Sum of C X / sigma^2.
    weights : grid.shape float64 or None
        Sum of C^2 / sigma^2.

    Examples
    --------
    >>> from verglas import ops
    >>> ops.GridSums.zeros(ops.Grid(8)).values.dtype
    dtype('complex128')
    """

    grid: Grid
    values: npt.NDArray[np.complex128] | None
    weights: npt.NDArray[np.float64] | None

    @classmethod
    def zeros(cls, grid: Grid, *, values: bool = True, weights: bool = True, device: str = "cpu") -> GridSums:
        """Empty sums of the kinds asked for, on a device."""
        if device != "cpu":
            cuda = cuda_session(device)
            with cuda.active():
                return cls._zeros(cuda.cupy, grid, values, weights)
        return cls._zeros(np, grid, values, weights)

    @classmethod
    def _zeros(cls, library: Any, grid: Grid, values: bool, weights: bool) -> GridSums:
        return cls(
            grid,
            library.zeros(grid.shape, np.complex128) if values else None,
            library.zeros(grid.shape, np.float64) if weights else None,
        )

    @property
    def device(self) -> str:
        """Where the arrays lie."""
        return device_of(self.values, self.weights)

    def __add__(self, other: GridSums) -> GridSums:
        """Sums of both; what either lacks is absent."""
        if self.grid != other.grid:
            raise InputError(f"GridSums: cannot add sums on different grids: {self.grid} and {other.grid}")
        values = None if self.values is None or other.values is None else self.values + other.values
        weights = None if self.weights is None or other.weights is None else self.weights + other.weights
        return GridSums(self.grid, values, weights)

    def __iadd__(self, other: GridSums) -> GridSums:
        """Add the sums of another to these arrays; both must hold the same kinds."""
        if self.grid != other.grid:
            raise InputError(f"GridSums: cannot add sums on different grids: {self.grid} and {other.grid}")
        for mine, added in ((self.values, other.values), (self.weights, other.weights)):
            if (mine is None) != (added is None):
                raise InputError("GridSums: one of the two lacks values or weights that the other holds")
            if mine is not None and added is not None:
                mine += added
        return self


def insert(
    sums: GridSums,
    images: npt.NDArray[np.complex64] | None,
    matrices: npt.ArrayLike,
    *,
    max_radius: int | None = None,
    shifts_px: npt.ArrayLike | None = None,
    ctf: npt.NDArray[np.float32] | None = None,
    shell_weight: npt.NDArray[np.float32] | None = None,
    curvature: npt.ArrayLike | None = None,
    device: str = "cpu",
    deterministic: bool = False,
    threads: int | None = None,
) -> None:
    r"""Add slices to sums on the grid; the adjoint of :func:`project`.

    .. math::
        \mathrm{values} \mathrel{+}= \sum_i P_i^T\, \frac{C_i\, e^{+2\pi i\, k \cdot d_i/N} X_i}{\sigma_i^2}, \qquad
        \mathrm{weights} \mathrel{+}= \sum_i P_i^T\, \frac{C_i^2}{\sigma_i^2}

    Each pixel goes to the half volume once; :func:`fold` adds Friedel's mates at the end.

    Parameters
    ----------
    sums : GridSums
        Added to in place.
    images : (n, N, N // 2 + 1) complex64 or None
        Phase-centred half transforms X; None where ``sums.values`` is.
    matrices : (n, 3, 3) float64
        Rotation matrices A in RELION's convention.
    max_radius : int, optional
        Largest shell inserted; the grid's by default.
    shifts_px : (n, 2) float64, optional
        Displacement d of the particle from the centre, x and y in pixels.
    ctf : (n, N, N // 2 + 1) float32, optional
        C; 1 without.
    shell_weight : (n, max_radius + 1) float32, optional
        1/sigma^2 per shell; 1 without.
    curvature : (n,) float64, optional
        Of slices on paraboloids, as in :func:`project`; planes without. On the host.
    device : str
        ``"cpu"`` or ``"cuda:<number>"``: the sums lie there, and arrays may; what comes from the host is copied.
    deterministic : bool
        On a GPU, sums that are bitwise equal from run to run and for any batches: each grid point looks for the pixels
        that reach it, instead of pixels being added as they come (atomics), which is quicker: docs/kernels.md. The
        CPU's sums always are.
    threads : int, optional
        Threads; all by default. The sums are bitwise equal for any number of threads and any batches, as long as the
        particles come in the same order. CPU only.

    Raises
    ------
    ValueError
        An array has another shape or dtype, a matrix is no rotation (sums are NaN where it came from the device), or a
        curved slice leaves the grid.
    DeviceError
        The device cannot be used.

    Examples
    --------
    >>> import numpy as np
    >>> from verglas import ops
    >>> sums = ops.GridSums.zeros(ops.Grid(8))
    >>> ops.insert(sums, np.ones((1, 8, 5), np.complex64), np.eye(3)[None])
    >>> bool(sums.weights.sum() > 0)
    True
    """
    grid = sums.grid
    radius = grid.max_radius if max_radius is None else int(max_radius)
    if device != "cpu":
        _insert_cuda(sums, (images, matrices, shifts_px, ctf, shell_weight, curvature), radius, device, deterministic)
        return
    shifts = None if shifts_px is None else as_array(shifts_px, np.float64)
    rotations = as_array(matrices, np.float64)
    workers = resolve_threads(threads)
    curved = None if curvature is None else as_array(curvature, np.float64)
    totals = sums.values, sums.weights
    core.insert(grid.native, *totals, images, rotations, radius, shifts, ctf, shell_weight, curved, workers)


_SCRATCH_BYTES = 256 << 20  # of weighted pixels at a time, in the deterministic mode


def _insert_cuda(sums: GridSums, arrays: tuple[Any, ...], radius: int, device: str, deterministic: bool) -> None:
    """On a GPU; the deterministic mode in batches whose weighted pixels fit its scratch memory."""
    grid = sums.grid
    images, matrices, shifts_px, ctf, shell_weight, curvature = arrays
    cuda = cuda_session(device)
    with cuda.active() as stream:
        shifts = None if shifts_px is None else cuda.array(shifts_px, np.float64)
        arguments = [
            cuda.to_device_or_none(images),
            cuda.rotations(matrices),
            shifts,
            cuda.to_device_or_none(ctf),
            cuda.to_device_or_none(shell_weight),
            cuda.curvatures(curvature, grid, radius),
        ]
        n, shape = len(arguments[1]), (grid.box, grid.box // 2 + 1)
        # 12 bytes: a complex64 value and a float32 weight per pixel.
        batch = max(1, _SCRATCH_BYTES // (12 * shape[0] * shape[1])) if deterministic else max(n, 1)
        scratch: tuple[Any, Any] = (None, None)
        if deterministic:
            size = (min(batch, n), *shape)
            scratch = cuda.empty(size, np.complex64), cuda.empty(size, np.float32)
        for first in range(0, n, batch):
            part = [a if a is None or batch >= n else a[first : first + batch] for a in arguments]
            scratch_part = [None if a is None else a[: len(part[1])] for a in scratch]
            x, rotations, d, c, w, curved = part
            cuda.kernels.insert(
                grid.native_for(cuda.kernels),
                sums.values,
                sums.weights,
                x,
                rotations,
                radius,
                d,
                c,
                w,
                curved,
                *scratch_part,
                stream,
            )


def fold(sums: GridSums) -> None:
    """Add Friedel's mates, in place: afterwards the sums are those of the full plane. Call once, after the last insert.

    Parameters
    ----------
    sums : GridSums
        Finished sums.

    Examples
    --------
    >>> import numpy as np
    >>> from verglas import ops
    >>> sums = ops.GridSums.zeros(ops.Grid(8))
    >>> ops.insert(sums, np.ones((1, 8, 5), np.complex64), np.eye(3)[None])
    >>> ops.fold(sums)
    >>> bool(np.all(sums.weights[..., : sums.grid.halo] == 0))
    True
    """
    if sums.device != "cpu":
        cuda = cuda_session(sums.device)
        with cuda.active() as stream:
            cuda.kernels.fold_friedel(sums.grid.native_for(cuda.kernels), sums.values, sums.weights, stream)
        return
    core.fold_friedel(sums.grid.native, sums.values, sums.weights)


def symmetrise(sums: GridSums, matrices: npt.ArrayLike, *, threads: int | None = None) -> GridSums:
    r"""Sum folded sums over a group that maps the grid onto itself: no interpolation.

    .. math:: S(q) = \sum_h s(h\, q)

    which is what inserting every image with the matrices A h would have given. It is the same at all points h q, so it
    is made once for each orbit.

    Parameters
    ----------
    sums : GridSums
        Folded sums.
    matrices : (n, 3, 3)
        A closed group of signed permutations of the axes (rotations by multiples of 90 degrees about x, y, z and their
        products).
    threads : int, optional
        Threads; all by default.

    Returns
    -------
    GridSums
        New arrays.

    Raises
    ------
    ValueError
        A matrix is not a signed permutation of the axes; the matrices are not a closed group.

    Examples
    --------
    >>> import numpy as np
    >>> from verglas import ops
    >>> sums = ops.GridSums.zeros(ops.Grid(8))
    >>> ops.insert(sums, np.ones((1, 8, 5), np.complex64), np.eye(3)[None])
    >>> ops.fold(sums)
    >>> twice = ops.symmetrise(sums, [np.eye(3), np.diag([-1, -1, 1])])
    >>> bool(np.isclose(twice.weights.sum(), 2 * sums.weights.sum(), rtol=0.1))
    True
    """
    grid = sums.grid
    rounded = np.ascontiguousarray(np.rint(np.asarray(matrices, np.float64)), dtype=np.int32)
    if not np.allclose(rounded, matrices, atol=1e-6):
        raise InputError("symmetrise: expected signed permutations of the axes")
    permutes = np.array_equal(np.abs(rounded).sum(axis=-1), np.ones(rounded.shape[:-1]))
    if not permutes or not np.array_equal(np.abs(rounded).sum(axis=-2), np.ones(rounded.shape[:-1])):
        raise InputError("symmetrise: expected signed permutations of the axes")
    # Whole numbers, so bytes compare exactly. Sums over a set that is no group would weight some orientations twice.
    members = {h.tobytes() for h in rounded}
    if any((a @ b).tobytes() not in members for a in rounded for b in rounded):
        raise InputError("symmetrise: the matrices are not a closed group")
    out = GridSums.zeros(grid, values=sums.values is not None, weights=sums.weights is not None, device=sums.device)
    if sums.device != "cpu":
        cuda = cuda_session(sums.device)
        with cuda.active() as stream:
            cuda.kernels.symmetrise(
                grid.native_for(cuda.kernels),
                sums.values,
                sums.weights,
                cuda.to_device_or_none(rounded),
                out.values,
                out.weights,
                stream,
            )
        return out
    core.symmetrise(grid.native, sums.values, sums.weights, rounded, out.values, out.weights, resolve_threads(threads))
    return out
