"""Parallel-beam operators: 2D slices, and tilt series about one axis."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.fft
import scipy.sparse as sp
import scipy.sparse.linalg as sla

from verglas import ops
from verglas._array_module import to_host
from verglas.errors import InputError
from verglas.types.arrays import Array, Float32Array, FloatArray

_ENTRY_BYTES, _MOST_ENTRY_BYTES = 12, 2e9  # of a sparse matrix: a value and its column


@dataclass(frozen=True)
class RampFilter:
    """R: the rows of images filtered by the magnitude of their frequency, which evens out what A^T R A amplifies.

    By the cosine transform, whose rows go on as in a mirror: R is symmetric and (I + s R)^-1 exact.

    Attributes
    ----------
    data_shape : tuple
        Of images; rows are the last axis.
    """

    data_shape: tuple[int, ...]

    def apply(self, y: Array) -> Array:
        """R y."""
        return self._times(y, self._ramp())

    def resolve(self, y: Array, residual: Array, step: float) -> Array:
        """(I + s R)^-1 (y + s R r)."""
        strength = np.float32(step) * self._ramp()
        return self._times(y, 1 / (1 + strength)) + self._times(residual, strength / (1 + strength))

    def _ramp(self) -> FloatArray:
        n = self.data_shape[-1]
        # Half a step instead of 0: the mean of a row is data, too.
        return np.maximum(np.arange(n, dtype=np.float32), np.float32(0.5)) / np.float32(2 * n)

    def _times(self, y: Array, gain: Array) -> Array:
        spectrum = scipy.fft.dct(y.reshape(self.data_shape), axis=-1, norm="ortho") * gain
        return np.ravel(scipy.fft.idct(spectrum, axis=-1, norm="ortho"))


class TiltSeries(sla.LinearOperator):
    """Projections of a map (z, y, x) tilted about an axis in the image plane; the adjoint is exact.

    Vectors are flattened arrays: :attr:`map_shape` in, :attr:`data_shape` (tilt, y, x) out.

    Parameters
    ----------
    data_shape : (int, int, int)
        (tilt, y, x) of the images.
    tilt_deg : (n,) array
    axis_deg : float
        Of the tilt axis in the images, from +y (rows) towards +x; 0: the axis is the image's y.
    thickness_px : int, optional
        Of the map along z; the width of the images by default.
    threads : int, optional
        Threads; all by default.
    device : str
        ``"cpu"``, or ``"cuda:<number>"``: where rays are summed. Vectors are the host's in any case.
    """

    def __init__(
        self,
        data_shape: tuple[int, int, int],
        tilt_deg: npt.ArrayLike,
        *,
        axis_deg: float = 0.0,
        thickness_px: int | None = None,
        threads: int | None = None,
        device: str = "cpu",
    ) -> None:
        self.tilt_deg = np.atleast_1d(np.asarray(tilt_deg, np.float64))
        if len(self.tilt_deg) != data_shape[0]:
            raise InputError(f"tilt series: {data_shape[0]} images but {len(self.tilt_deg)} tilts")
        if not (np.isfinite(self.tilt_deg).all() and np.isfinite(axis_deg)):
            raise InputError("tilt series: a tilt or the axis is not finite")
        self.data_shape, self.threads, self.device = data_shape, threads, device
        depth = data_shape[2] if thickness_px is None else int(thickness_px)
        if depth < 2:
            raise InputError(f"tilt series: expected a thickness of 2 pixels or more, got {depth}")
        self.map_shape = (depth, *data_shape[1:])
        self.turn = None if axis_deg % 180 == 0 else _rotation(data_shape[1:], axis_deg)
        super().__init__(np.float32, (int(np.prod(data_shape)), int(np.prod(self.map_shape))))

    def _matvec(self, x: Array) -> Array:
        images = to_host(ops.radon(x.reshape(self.map_shape), self.tilt_deg, threads=self.threads, device=self.device))
        return (images if self.turn is None else self._turn(self.turn, images)).ravel()

    def _rmatvec(self, y: Array) -> Array:
        images = y.reshape(self.data_shape)
        if self.turn is not None:
            images = self._turn(self.turn.T, images)
        return self.back_project(images).ravel()

    def entries(self) -> sp.csr_array:
        """The matrix, for methods that go row by row; of small maps, a slice of a large one at a time.

        Raises
        ------
        InputError
            It would take more than 2 GB.
        """
        depth, ny, nx = self.map_shape
        # Each voxel lies between two rays of each image, and between four pixels of each where these are turned.
        count = 2 * len(self.tilt_deg) * depth * ny * nx * (1 if self.turn is None else 4)
        if count * _ENTRY_BYTES > _MOST_ENTRY_BYTES:
            raise InputError(
                f"tilt series: the entries of a map of {self.map_shape} and {len(self.tilt_deg)} tilts take "
                f"{count * _ENTRY_BYTES / 1e9:.0f} GB; solve it slice by slice along y (images[:, [y], :]), or by a "
                "method that does not go row by row: sirt, cg"
            )
        # One slice (z, x), whose unit voxels stand along y: (tilt, voxel, x).
        voxels = np.eye(depth * nx, dtype=np.float32).reshape(depth, nx, depth * nx).transpose(0, 2, 1)
        columns = ops.radon(np.ascontiguousarray(voxels), self.tilt_deg, threads=self.threads)
        slice_matrix = sp.coo_array(np.moveaxis(columns, 1, -1).reshape(-1, depth * nx))
        ray, voxel = slice_matrix.coords
        tilt, x = np.divmod(ray, nx)
        z, x_voxel = np.divmod(voxel, nx)
        y = np.arange(ny)[:, None]
        rows, unknowns = (tilt * ny + y) * nx + x, (z * ny + y) * nx + x_voxel
        values = np.broadcast_to(slice_matrix.data, rows.shape)
        matrix = sp.csr_array((values.ravel(), (rows.ravel(), unknowns.ravel())), shape=self.shape)
        if self.turn is None:
            return matrix
        return sp.csr_array(sp.block_diag([self.turn] * len(self.tilt_deg), format="csr") @ matrix)

    def weighted_back_projection(self, data: npt.ArrayLike) -> Array:
        """:func:`weighted_back_projection` of images, as a vector."""
        return weighted_back_projection(self, np.asarray(data).reshape(self.data_shape)).ravel()

    def ramp(self) -> RampFilter:
        """The filter under which iterations see all frequencies alike; images whose axis is along y."""
        if self.turn is not None:
            raise InputError("tilt series: the ramp is along x; turn the images first, so that the axis is along y")
        return RampFilter(self.data_shape)

    def back_project(self, images: npt.ArrayLike) -> Float32Array:
        """(z, y, x) of images with their axis along y: each voxel gets the rays through it."""
        shape = self.map_shape[0], self.map_shape[2]
        return to_host(ops.radon_adjoint(images, self.tilt_deg, shape, threads=self.threads, device=self.device))

    def _turn(self, turn: sp.csr_array, images: Array) -> Array:
        return np.asarray((turn @ images.reshape(len(images), -1).T).T, np.float32).reshape(self.data_shape)


def tilt_series(
    images: npt.ArrayLike,
    tilt_deg: npt.ArrayLike,
    axis_deg: float = 0.0,
    thickness_px: int | None = None,
    *,
    threads: int | None = None,
    device: str = "cpu",
) -> TiltSeries:
    """The operator that makes images like these from a map.

    Parameters
    ----------
    images : (tilt, y, x) array
        Aligned: the axis passes through pixel N // 2. Only the shape is used.
    tilt_deg : (n,) array
        In the sign of docs/conventions.md: an atom at height z moves to x cos - z sin.
    axis_deg : float
        Of the tilt axis in the images, from +y towards +x. The map's y is then along the axis.
    thickness_px : int, optional
        Of the map along z.
    threads : int, optional
        Threads; all by default.
    device : str
        ``"cpu"``, or ``"cuda:<number>"``: where rays are summed.

    Returns
    -------
    TiltSeries
        A ``scipy.sparse.linalg.LinearOperator``.

    Raises
    ------
    InputError
        Shapes do not go together, an angle is not finite.

    Examples
    --------
    >>> import numpy as np
    >>> from verglas.reconstruction import operators, solve
    >>> A = operators.tilt_series(np.zeros((5, 1, 16)), np.linspace(-60, 60, 5))
    >>> truth = np.zeros(A.map_shape, np.float32); truth[6:10, 0, 6:10] = 1
    >>> solution = solve(A, A @ truth.ravel(), "cg", iterations=30)
    >>> solution.residuals[-1] < 0.01
    True
    """
    shape = np.shape(images)
    if len(shape) != 3:
        raise InputError(f"tilt series: expected images (tilt, y, x), got shape {shape}")
    return TiltSeries(
        (shape[0], shape[1], shape[2]),
        tilt_deg,
        axis_deg=axis_deg,
        thickness_px=thickness_px,
        threads=threads,
        device=device,
    )


def parallel_beam(
    shape: tuple[int, int], angles_deg: npt.ArrayLike, width: int | None = None, *, threads: int | None = None
) -> sla.LinearOperator:
    """Projections of one 2D slice (z, x) at angles, as (angle, width).

    Examples
    --------
    >>> from verglas.reconstruction import operators
    >>> operators.parallel_beam((16, 16), [0, 45, 90]).shape
    (48, 256)
    """
    angles = np.atleast_1d(np.asarray(angles_deg, np.float64))
    n = shape[1] if width is None else width

    def forward(x: Array) -> Array:
        return ops.radon(x.reshape(shape[0], 1, shape[1]), angles, n, threads=threads).ravel()

    def backward(y: Array) -> Array:
        return ops.radon_adjoint(y.reshape(len(angles), 1, n), angles, shape, threads=threads).ravel()

    return sla.LinearOperator((len(angles) * n, shape[0] * shape[1]), forward, backward, dtype=np.float32)


def _rotation(shape: tuple[int, int], angle_deg: float) -> sp.csr_array:
    """Bilinear rotation about pixel N // 2 that takes +y onto the axis; a matrix, so its transpose is exact."""
    ny, nx = shape
    angle = np.deg2rad(angle_deg)
    y, x = (np.indices(shape).reshape(2, -1) - np.array([[ny // 2], [nx // 2]])).astype(np.float64)
    # The image shows at (x, y) what the image with its axis along y shows here.
    from_x = x * np.cos(angle) - y * np.sin(angle) + nx // 2
    from_y = x * np.sin(angle) + y * np.cos(angle) + ny // 2
    x0, y0 = np.floor(from_x).astype(int), np.floor(from_y).astype(int)
    rows, columns, values = [], [], []
    for dy in (0, 1):
        for dx in (0, 1):
            weight = (1 - np.abs(from_x - x0 - dx)) * (1 - np.abs(from_y - y0 - dy))
            inside = (x0 + dx >= 0) & (x0 + dx < nx) & (y0 + dy >= 0) & (y0 + dy < ny) & (weight > 0)
            rows.append(np.flatnonzero(inside))
            columns.append(((y0 + dy) * nx + x0 + dx)[inside])
            values.append(weight[inside])
    entries = (np.concatenate(values), (np.concatenate(rows), np.concatenate(columns)))
    return sp.csr_array(entries, shape=(ny * nx, ny * nx), dtype=np.float32)


def weighted_back_projection(operator: TiltSeries, images: npt.ArrayLike) -> Float32Array:
    r"""Back-projection after the filter of these very tilts.

    The filter of image j is :math:`1 / H`, :math:`H(k) = \sum_i 2 a\,\mathrm{sinc}^2(2 a k \sin(\theta_j - \theta_i))`
    along the direction of tilting, 2 a the diagonal of a slice: for each frequency, how many views measure it
    (Radermacher 1992, whose sinc is squared here: the overlap of two slabs of that width, which does not oscillate).
    Frequencies that one view alone measures get weight 1. Below :math:`1 / a` all slabs overlap, and the mean of what
    is reconstructed would be 5 % too large: views that go all the way round are counted there in slabs twice as wide.
    Where a wedge is missing the excess makes up for some of what it took, and stays.

    Parameters
    ----------
    operator : TiltSeries
        With its axis along y.
    images : (tilt, y, x) array

    Returns
    -------
    (z, y, x) float32

    Examples
    --------
    >>> import numpy as np
    >>> from verglas.reconstruction import operators
    >>> A = operators.tilt_series(np.zeros((90, 1, 32)), np.arange(-90, 90, 2.0))
    >>> disc = (np.hypot(*(np.indices((32, 32)) - 16)) < 8)[:, None].astype(np.float32)
    >>> volume = operators.weighted_back_projection(A, (A @ disc.ravel()).reshape(A.data_shape))
    >>> bool(np.corrcoef(volume.ravel(), disc.ravel())[0, 1] > 0.9)
    True
    """
    if operator.turn is not None:
        raise InputError("weighted back-projection: turn the images first, so that the axis is along y")
    stack = np.asarray(images, np.float32).reshape(operator.data_shape)
    n = stack.shape[-1]
    padded = 4 * n
    frequency = np.fft.rfftfreq(padded)
    # What lies in the slice is no larger than its diagonal; padding as wide keeps the filtered rays from wrapping.
    thickness = float(np.hypot(operator.map_shape[0], operator.map_shape[2]))
    filters = np.empty((len(stack), len(frequency)), np.float32)
    round_about = _largest_gap_deg(operator.tilt_deg) <= 2 * 180 / len(operator.tilt_deg)
    for j, angle in enumerate(operator.tilt_deg):
        across = frequency[None] * np.sin(np.deg2rad(operator.tilt_deg - angle))[:, None]
        overlap, wide = (np.maximum((np.sinc(w * across) ** 2).sum(axis=0), 1.0) for w in (thickness, 2 * thickness))
        low = round_about & (frequency <= 2 / thickness) & (wide >= 2)
        filters[j] = 1 / np.where(low, np.maximum(overlap, 2 * wide), overlap)
    spectra = np.fft.rfft(stack, padded, axis=-1) * filters[:, None, :]
    filtered = np.fft.irfft(spectra, padded, axis=-1)[..., :n].astype(np.float32)
    return operator.back_project(filtered) / np.float32(thickness)


def _largest_gap_deg(tilt_deg: FloatArray) -> float:
    """Between neighbouring tilts, which are the same views half a turn on."""
    around = np.sort(tilt_deg % 180)
    return float(np.diff(np.append(around, around[0] + 180)).max())


def leave_one_out(
    images: npt.ArrayLike, tilt_deg: FloatArray, reconstruct: Any, which: int, axis_deg: float = 0.0
) -> tuple[Array, Array]:
    """(image left out, its prediction from the others): what a choice of weight is judged by.

    Parameters
    ----------
    images : (tilt, y, x) array
    tilt_deg : (n,) array
    reconstruct : callable
        ``reconstruct(images, tilt_deg)`` makes the map (z, y, x).
    which : int
        Number of the image.
    axis_deg : float
        Of the tilt axis in the images, from +y towards +x.
    """
    stack, tilts = np.asarray(images, np.float32), np.asarray(tilt_deg, np.float64)
    keep = np.arange(len(tilts)) != which
    volume = np.asarray(reconstruct(stack[keep], tilts[keep]))
    # By the operator, which turns the projection as the images are turned.
    project = tilt_series(stack[~keep], tilts[~keep], axis_deg, volume.shape[0])
    return stack[which], (project @ volume.ravel()).reshape(stack[which].shape)
