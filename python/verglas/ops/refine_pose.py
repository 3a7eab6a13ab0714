"""Poses on the exact Cartesian pixels: log-likelihood, gradient, Fisher information, and the search for the maximum."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from verglas._native import core, resolve_threads
from verglas.errors import InputError
from verglas.ops._device import as_array, cuda_session
from verglas.ops.grid import Grid, GridSpectrum
from verglas.types.arrays import FloatArray

STATUS = ("converged", "step limit", "no information", "stalled", "not finite")
_NOT_FINITE = STATUS.index("not finite")


@dataclass(frozen=True)
class PosePrior:
    r"""Gaussian prior on poses: :math:`-|\omega|^2/2\sigma_\omega^2 - |d - d_0|^2/2\sigma_d^2`.

    Attributes
    ----------
    angle_sigma_deg : float, optional
        Standard deviation of each component of the rotation vector from the centre, degrees; no prior without.
    shift_sigma_px : float, optional
        Standard deviation of each shift, pixels; no prior without.
    matrices : (n, 3, 3) float64, optional
        Centres; the starting poses by default.
    shifts_px : (n, 2) float64, optional
        Centres d_0, displacement of the particle; the starting shifts by default.

    Examples
    --------
    >>> from verglas import ops
    >>> ops.PosePrior(shift_sigma_px=2.0, shifts_px=[[0.0, 0.0]]).angle_sigma_deg is None
    True
    """

    angle_sigma_deg: float | None = None
    shift_sigma_px: float | None = None
    matrices: npt.ArrayLike | None = None
    shifts_px: npt.ArrayLike | None = None

    def __post_init__(self) -> None:
        """Refuse widths that are no widths."""
        for name in ("angle_sigma_deg", "shift_sigma_px"):
            value = getattr(self, name)
            if value is not None and not (value > 0 and np.isfinite(value)):
                raise InputError(f"PosePrior: expected a positive {name}, or None for no prior; got {value}")


@dataclass(frozen=True)
class PoseSettings:
    """How :func:`refine_pose` searches.

    Attributes
    ----------
    max_radius : int, optional
        Largest shell R in use; the grid's by default.
    coarse_radii : sequence of int
        Ascending radii below ``max_radius`` to pass first, each starting where the one before ended: see
        :func:`pose_radii`.
    steps : int
        Steps tried per radius; 0 evaluates the poses as they are.
    tolerance_deg, tolerance_px : float
        Converged when the Gauss-Newton step is smaller than both.

    Examples
    --------
    >>> from verglas import ops
    >>> ops.PoseSettings(steps=0).coarse_radii
    ()
    """

    max_radius: int | None = None
    coarse_radii: Sequence[int] = ()
    steps: int = 50
    tolerance_deg: float = 0.005
    tolerance_px: float = 0.005

    def __post_init__(self) -> None:
        """Refuse tolerances that cannot be met."""
        for name in ("tolerance_deg", "tolerance_px"):
            if not getattr(self, name) > 0:
                raise InputError(f"PoseSettings: expected a positive {name}, got {getattr(self, name)}")

    def radii(self, grid: Grid) -> npt.NDArray[np.int32]:
        """All radii, the last being R."""
        last = grid.max_radius if self.max_radius is None else int(self.max_radius)
        return np.array([*self.coarse_radii, last], np.int32)


def pose_covariance(fisher: FloatArray, *, least: float = 1e-12) -> FloatArray:
    """Inverse of Fisher information matrices of poses: the Cramer-Rao bound.

    Parameters
    ----------
    fisher : (n, 5, 5) float64
        As in :class:`PoseResult`.
    least : float
        A matrix is singular if its smallest eigenvalue, in units that make its diagonal 1, is not above this.

    Returns
    -------
    (n, 5, 5) float64
        Rad and px; infinite where singular.

    Examples
    --------
    >>> import numpy as np
    >>> from verglas import ops
    >>> np.diagonal(ops.pose_covariance(4 * np.eye(5)[None])[0]).tolist()
    [0.25, 0.25, 0.25, 0.25, 0.25]
    """
    # In units of each parameter's own error: radians and pixels differ by orders, and an unscaled condition would mean
    # nothing.
    size = np.sqrt(np.diagonal(fisher, axis1=1, axis2=2))
    informed = (size > 0).all(axis=1)
    out = np.full_like(fisher, np.inf)
    units = size[informed, :, None] * size[informed, None, :]
    eigenvalues, vectors = np.linalg.eigh(fisher[informed] / units)
    regular = eigenvalues[:, 0] > least
    inverse = np.einsum("nij,nj,nkj->nik", vectors[regular], 1 / eigenvalues[regular], vectors[regular])
    out[np.flatnonzero(informed)[regular]] = inverse / units[regular]
    return out


@dataclass(frozen=True)
class PoseResult:
    """What :func:`refine_pose` found for n poses. Parameters are ordered (omega_x, omega_y, omega_z, d_x, d_y).

    Attributes
    ----------
    matrices : (n, 3, 3) float64
        Rotation matrices A.
    shifts_px : (n, 2) float64
        Displacement of the particle from the centre, x and y in pixels.
    scores : (n,) float64
        Log-likelihood L of the poses, up to a term that no pose changes; priors not included.
    log_prior : (n,) float64
        Logarithm of the prior, up to its normaliser.
    gradient : (n, 5) float64
        dL/d(parameters), per radian and per pixel; omega is a rotation vector in the frame of the image (x, y, viewing
        axis): the pose is exp([omega]x) A.
    fisher : (n, 5, 5) float64
        Fisher information, without the prior; its inverse is the Cramer-Rao bound.
    evaluations : (n,) int32
        Evaluations of the score.
    status : (n,) uint8
        Index into ``ops.POSE_STATUS``.
    """

    matrices: FloatArray
    shifts_px: FloatArray
    scores: FloatArray
    log_prior: FloatArray
    gradient: FloatArray
    fisher: FloatArray
    evaluations: npt.NDArray[np.int32]
    status: npt.NDArray[np.uint8] = field(repr=False)

    @property
    def converged(self) -> npt.NDArray[np.bool_]:
        """Which poses met the tolerances."""
        return self.status == STATUS.index("converged")

    def covariance(self) -> FloatArray:
        """(n, 5, 5) Cramer-Rao bound: the inverse Fisher information, rad and px; infinite where it is singular."""
        return pose_covariance(self.fisher)

    def angle_error_deg(self) -> FloatArray:
        """(n,) root mean square angle between estimated and true orientation at the Cramer-Rao bound, degrees."""
        return np.rad2deg(np.sqrt(np.trace(self.covariance()[:, :3, :3], axis1=1, axis2=2)))

    def shift_error_px(self) -> FloatArray:
        """(n,) root mean square distance between estimated and true shift at the Cramer-Rao bound, pixels."""
        return np.sqrt(np.trace(self.covariance()[:, 3:, 3:], axis1=1, axis2=2))


def pose_radii(grid: Grid, angle_error_deg: float, shift_error_px: float, diameter_px: float) -> tuple[int, ...]:
    r"""Coarse radii for :class:`PoseSettings` that lead a pose this far off to the maximum at the grid's radius.

    The score of radius R has one peak over about the poses that turn no phase by more than a quarter of a turn: with
    the voxel at the edge of the particle :math:`\delta D/2` off and the image d off, :math:`2\pi R (\delta D/2 + d)/N
    \le \pi/2` gives the first radius; each one doubles, since the pose has by then become far better than half as good.

    Parameters
    ----------
    grid : Grid
        Its ``max_radius`` ends the series, and is not part of it.
    angle_error_deg, shift_error_px : float
        How far off the starting pose may be: half a step of the search grid.
    diameter_px : float
        Diameter of the particle.

    Returns
    -------
    tuple of int
        Ascending; empty where the start is good enough.

    Examples
    --------
    >>> from verglas import ops
    >>> ops.pose_radii(ops.Grid(128), 3.75, 1.0, 90)
    (8, 16, 32)
    """
    moved_px = np.deg2rad(angle_error_deg) * diameter_px / 2 + shift_error_px
    if not moved_px >= 0:
        raise InputError(f"pose_radii: expected errors and a diameter of 0 or more, got {moved_px} px in all")
    first = max(2, int(grid.box / (4 * moved_px))) if moved_px > 0 else grid.max_radius
    radii = []
    # A last step of less than 1.5 in radius is not worth a climb of its own.
    while 3 * first <= 2 * grid.max_radius:
        radii.append(first)
        first *= 2
    return tuple(radii)


def _prior_arguments(prior: PosePrior | None, matrices: FloatArray, shifts: FloatArray) -> dict[str, object]:
    if prior is None:
        prior = PosePrior()
    centres = matrices.copy() if prior.matrices is None else as_array(prior.matrices, np.float64)
    offsets = shifts.copy() if prior.shifts_px is None else as_array(prior.shifts_px, np.float64)
    if prior.shifts_px is not None and not np.isfinite(offsets).all():
        raise InputError("refine_pose: prior.shifts_px: expected finite numbers, got NaN or infinity")
    return {
        "angle_sigma_rad": float(np.deg2rad(prior.angle_sigma_deg or 0.0)),
        "shift_sigma_px": float(prior.shift_sigma_px or 0.0),
        "matrices": centres,
        "shifts_px": offsets,
    }


def _refuse_not_finite(
    result: PoseResult, images: dict[str, npt.NDArray | None], index: npt.NDArray[np.int64] | None
) -> None:
    """Name the particle, and which of its arrays holds the NaN or infinity."""
    bad = np.flatnonzero(result.status == _NOT_FINITE)
    if len(bad) == 0:
        return
    particle = int(bad[0] if index is None else index[bad[0]])
    culprits = [k for k, v in images.items() if v is not None and not np.isfinite(v[particle]).all()]
    if not np.isfinite(result.shifts_px[bad[0]]).all():
        culprits.append("shifts_px")
    where = " and ".join(culprits) or "the map's transform"
    more = f" ({len(bad)} poses in all)" if len(bad) > 1 else ""
    raise InputError(f"refine_pose: particle {particle}: NaN or infinity in {where}{more}; remove the particle")


def _refine_cuda(
    device: str,
    volume: GridSpectrum,
    data: dict[str, Any],
    prior: dict[str, Any],
    options: dict[str, Any],
    poses: dict[str, Any],
) -> None:
    """As the core does, on a device; results come back into the arrays of ``poses``."""
    grid, spectrum = volume.grid, volume.spectrum
    cuda = cuda_session(device)
    cuda.kernels.check_rotations(poses["matrices"], "matrices")
    if prior["angle_sigma_rad"] > 0:
        cuda.kernels.check_rotations(prior["matrices"], "prior.matrices")
    index, n = poses["image_of_pose"], len(data["images"])
    if index is not None and index.size and not (index.min() >= 0 and index.max() < n):
        raise InputError(f"image_of_pose: expected 0 to {n} (excluded), got {index.min()} to {index.max()}")
    with cuda.active() as stream:
        there = {name: cuda.to_device_or_none(value) for name, value in poses.items()}
        cuda.kernels.refine_pose(
            grid.native_for(cuda.kernels),
            cuda.to_device_or_none(spectrum),
            {k: cuda.to_device_or_none(v) for k, v in data.items()},
            {k: cuda.to_device_or_none(v) if isinstance(v, np.ndarray) else v for k, v in prior.items()},
            options,
            there,
            stream,
        )
        for name, value in poses.items():
            if name != "image_of_pose":
                value[...] = there[name].get()


def refine_pose(
    images: npt.NDArray[np.complex64],
    spectrum: npt.NDArray[np.complex64],
    grid: Grid,
    matrices: npt.ArrayLike,
    shifts_px: npt.ArrayLike | None = None,
    *,
    ctf: npt.NDArray[np.float32] | None = None,
    shell_weight: npt.NDArray[np.float32] | None = None,
    scale: npt.ArrayLike | None = None,
    image_of_pose: npt.ArrayLike | None = None,
    prior: PosePrior | None = None,
    search: PoseSettings | None = None,
    device: str = "cpu",
    threads: int | None = None,
) -> PoseResult:
    r"""Climb from given poses to the maximum of the exact log-likelihood, over three angles and two shifts.

    .. math::
        L(A, d) = \sum_{0 < |k| < R + 1/2} \frac{\Re[\mu_k^* X_k] - |\mu_k|^2/2}{\sigma^2_k}, \qquad
        \mu_k = s\, C_k\, \hat V(A^T k)\, e^{-2\pi i\, k \cdot d/N}

    over the full Fourier plane, with :math:`\hat V` interpolated as in :func:`project`. Gradient and Fisher information
    :math:`F_{ab} = \sum \Re[\partial_a \mu^*\, \partial_b \mu]/\sigma^2` are those of the interpolated transform, by
    the polynomials of its window, and cost as much again as the score. Steps are Levenberg-Marquardt, limited to a
    radian of phase, and taken only where the exact L (plus log prior) rises.

    Parameters
    ----------
    images : (n, N, N // 2 + 1) complex64
        Phase-centred half transforms X.
    spectrum : grid.shape complex64
        :func:`verglas.gridding.to_grid` of the map, on the images' grey scale.
    grid : Grid
        Its geometry.
    matrices : (m, 3, 3) float64
        Starting rotations A in RELION's convention; m = n, or as ``image_of_pose`` says.
    shifts_px : (m, 2) float64, optional
        Starting displacement d of the particle from the centre, x and y in pixels (minus the origin of a STAR file);
        0 without.
    ctf : (n, N, N // 2 + 1) float32, optional
        C; 1 without.
    shell_weight : (n, R + 1) float32, optional
        :math:`1/\sigma^2` per shell, :math:`\sigma^2 = E|noise|^2` of one coefficient of the unnormalised transform;
        1 without, and then L is no log-likelihood.
    scale : (n,) float64, optional
        s, the particle's grey scale; 1 without.
    image_of_pose : (m,) int64, optional
        Which image each pose is for, when several candidates of an image are compared.
    prior : PosePrior, optional
        Added to L; none by default.
    search : PoseSettings, optional
        Radii, steps, tolerances. ``PoseSettings(steps=0)`` evaluates score, gradient and Fisher information only.
    device : str
        ``"cpu"`` or ``"cuda:<number>"``; images, spectrum, CTF and weights may then lie on that device.
    threads : int, optional
        Threads; all by default. The result does not depend on it, nor on what else is in the batch. CPU only.

    Returns
    -------
    PoseResult
        Refined poses and what is known about them, the gradient and Fisher information at the refined poses; on the
        host, whatever the device.

    Raises
    ------
    InputError
        NaN in an image, its CTF, weights or scale; the message names the particle.
    ValueError
        A matrix is no rotation, an array has another shape or dtype, or a radius is beyond the grid's.
    DeviceError
        The device cannot be used.

    Notes
    -----
    A pose without information (a reference of zeros) does not fail: its status says so. On noise-free data the maximum
    is that of the exact transform to within the window's error; docs/kernels.md gives the figures.

    Examples
    --------
    >>> import numpy as np
    >>> from verglas import gridding, ops
    >>> density = np.zeros((32, 32, 32), np.float32); density[10:18, 12:20, 14:18] = 1; density[18:24, 14:17, 8:16] = 2
    >>> g = ops.Grid(32, width=6)
    >>> v = gridding.to_grid(density, g)
    >>> c, s = np.cos(0.05), np.sin(0.05)
    >>> truth = np.array([[[c, s, 0], [-s, c, 0], [0, 0, 1]]])
    >>> x = ops.project(v, g, truth, shifts_px=[[0.5, -0.3]])
    >>> fit = ops.refine_pose(x, v, g, np.eye(3)[None])
    >>> bool(fit.converged[0]), bool(np.allclose(fit.matrices, truth, atol=1e-4)), fit.shifts_px.round(3).tolist()
    (True, True, [[0.5, -0.3]])
    """
    if search is None:
        search = PoseSettings()
    # Copies, even of float64: the kernel writes the refined poses into these arrays.
    rotations = np.array(matrices, np.float64, order="C")
    n = len(rotations)
    shifts = np.zeros((n, 2)) if shifts_px is None else np.array(shifts_px, np.float64, order="C")
    index = None if image_of_pose is None else as_array(image_of_pose, np.int64)
    data: dict[str, Any] = {"images": images, "ctf": ctf, "shell_weight": shell_weight}
    data["scale"] = scale if hasattr(scale, "get") or scale is None else as_array(scale, np.float64)
    prior_arguments = _prior_arguments(prior, rotations, shifts)
    options = {
        "radii": search.radii(grid),
        "steps": int(search.steps),
        "tolerance_rad": float(np.deg2rad(search.tolerance_deg)),
        "tolerance_px": float(search.tolerance_px),
    }
    result = PoseResult(
        rotations,
        shifts,
        np.zeros(n),
        np.zeros(n),
        np.zeros((n, 5)),
        np.zeros((n, 5, 5)),
        np.zeros(n, np.int32),
        np.zeros(n, np.uint8),
    )
    # The kernel fills the result's own arrays.
    poses = vars(result) | {"image_of_pose": index}
    if device == "cpu":
        core.refine_pose(grid.native, spectrum, data, prior_arguments, options, poses, resolve_threads(threads))
    else:
        _refine_cuda(device, GridSpectrum(grid, spectrum), data, prior_arguments, options, poses)
    _refuse_not_finite(result, data, index)
    return result
