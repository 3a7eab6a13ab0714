r"""Flexible alignment of images to a model that bends along modes (HEMNMA; Jin et al. 2014, Structure 22, 496-506).

.. math:: X_i = a_i\, C_i\, g(k) \sum_j w_j\, e^{-2\pi i\, k \cdot x_{ij}} + n, \qquad
          x_{ij} = \bigl(A_i (r_j + \sum_q \alpha_{iq} u_{qj})\bigr)_{xy} + d_i

with Gaussian atoms, :math:`g = e^{-2\pi^2\sigma^2 k^2}`. Amplitudes and, if asked for, pose corrections are found by
Levenberg-Marquardt on all of them at once: a rigid motion is a mode like the others. The scale a is the best one at
every step.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.spatial.transform import Rotation

from verglas import fourier, ops
from verglas.errors import InputError
from verglas.geometry import euler_to_matrix, matrix_to_euler
from verglas.heterogeneity.deform.normal_modes import NormalModes
from verglas.optics import for_job
from verglas.types import Particles, Poses
from verglas.types.arrays import Complex64Array, FloatArray, IntArray
from verglas.types.convert import ParticlesLike, particles_of
from verglas.types.display import one_line

_BATCH_VALUES = 1 << 22  # of the waves of all atoms of a batch
_SLOPE_VALUES = 1 << 24  # of the derivatives of a batch: of many ways they are larger than the waves
_STEPS = 15
_STILL_A = 0.01
_STUCK = 1e6  # damping at which no step is left
_POSE = 5


@one_line
@dataclass(frozen=True, eq=False)
class FlexibleAlignment:
    """Where particles lie along modes.

    Attributes
    ----------
    amplitudes_A : (n, Q) float64
        Along each mode.
    errors_A : (n, Q) float64
        Standard errors: the Cramer-Rao bound at the noise that is left of each image.
    poses : Poses
        As given, or refined together with the amplitudes.
    scale : (n,) float64
        Grey scale of each image.
    iterations : int
        Made, at most, by any batch.
    """

    amplitudes_A: FloatArray
    errors_A: FloatArray
    poses: Poses
    scale: FloatArray
    iterations: int


@dataclass
class ImageBatch:
    """Some images at the pixels in use, and where their models stand."""

    images: Complex64Array  # (m, pixels)
    factor: FloatArray  # (m, pixels): CTF times the atoms' width
    matrices: FloatArray
    displacement_A: FloatArray
    amplitudes: FloatArray


class FittedModes(NamedTuple):
    """What a fit says of particles; iterations are those of the batch."""

    amplitudes: FloatArray
    errors: FloatArray
    angles_deg: FloatArray
    shifts_A: FloatArray
    scale: FloatArray
    iterations: int


class ModelDerivatives(NamedTuple):
    """Half the squared residual, scale, derivatives of the model (m, parameters, pixels), and residual of images."""

    cost: FloatArray
    scale: FloatArray
    jacobian: npt.NDArray[np.complex128]
    residual: npt.NDArray[np.complex128]


class _Waves:
    """The pixels 0 < |k| < R + 1/2 of a half transform, as products of waves along x and y."""

    def __init__(self, box: int, pixel_size_A: float, radius: int) -> None:
        self.kx = np.arange(radius + 1) / (box * pixel_size_A)
        self.ky = np.arange(-radius, radius + 1) / (box * pixel_size_A)
        y, x = np.meshgrid(np.arange(-radius, radius + 1), np.arange(radius + 1), indexing="ij")
        shell = np.rint(np.hypot(x, y))
        # Each pixel with x = 0 has its mate in the list: the half with y > 0 counts for both.
        self.used = (shell >= 1) & (shell <= radius) & ((x > 0) | (y > 0))
        self.at = ((y[self.used] % box), x[self.used])
        self.kx_used, self.ky_used = self.kx[x[self.used]], self.ky[y[self.used] + radius]

    def transform(self, x_A: FloatArray, y_A: FloatArray, weights: npt.NDArray) -> npt.NDArray[np.complex128]:
        """(m, F, pixels) transforms of points (m, n) with F weights each (m, F, n)."""
        along_x = np.exp(-2j * np.pi * self.kx * x_A[..., None])  # (m, n, columns)
        along_y = np.exp(-2j * np.pi * self.ky * y_A[..., None])
        out = np.empty((*weights.shape[:2], int(self.used.sum())), np.complex128)
        for f in range(weights.shape[1]):
            plane = np.matmul((along_y * weights[:, f, :, None]).transpose(0, 2, 1), along_x)
            out[:, f] = plane[:, self.used]
        return out


def align_modes(
    particles: ParticlesLike,
    modes: NormalModes,
    *,
    weights: npt.ArrayLike | None = None,
    width_A: float = 4.0,
    resolution_A: float = 10.0,
    n_modes: int = 3,
    refine_poses: bool = True,
    prior_A: float | None = None,
    threads: int | None = None,
) -> FlexibleAlignment:
    r"""Amplitudes of every particle along the softest modes of a model, together with corrections of its pose.

    Parameters
    ----------
    particles : Particles or path
        With images, CTFs and poses.
    modes : NormalModes
        Of atoms in the frame of the map (:func:`verglas.heterogeneity.deform.normal_modes`).
    weights : (n,) array_like, optional
        What each atom scatters; all alike without.
    width_A : float
        Standard deviation of the atoms' Gaussians.
    resolution_A : float
        Finest data in use.
    n_modes : int
        Modes in use, the softest first.
    refine_poses : bool
        Angles and shifts too, from the ones given; else they stay.
    prior_A : float, optional
        Width of a normal prior of every amplitude, beside which the noise of each image counts as what is left of it by
        the model at rest. Many modes in a noisy image need one.
    threads : int, optional

    Returns
    -------
    FlexibleAlignment

    Raises
    ------
    InputError
        No images or poses; fewer modes than asked for; weights of another length.

    Examples
    --------
    >>> import numpy as np, verglas as vg
    >>> from verglas.heterogeneity.deform import align_modes, normal_modes
    >>> model = vg.simulate.phantom(32, 5.0, 90.0, seed=2)
    >>> p = vg.simulate.particles(model, 3, 32, 5.0, seed=2, listener=None)
    >>> modes = normal_modes(model.xyz_A[::4], 16.0, count=1)
    >>> found = align_modes(p, modes, n_modes=1, resolution_A=15)
    >>> found.amplitudes_A.shape, found.errors_A.shape
    ((3, 1), (3, 1))
    """
    given = particles_of(particles, "align_modes: particles")
    if given.source is None or given.poses is None:
        missing = "images" if given.source is None else "poses"
        raise InputError(f"{given.where}: align_modes needs {missing}, and these particles have none")
    if not 1 <= n_modes <= len(modes.vectors):
        raise InputError(f"align_modes: {n_modes} modes asked for, there are {len(modes.vectors)}")
    weight = np.ones(len(modes.xyz_A)) if weights is None else np.asarray(weights, np.float64)
    if weight.shape != (len(modes.xyz_A),) or not np.isfinite(weight).all():
        raise InputError(f"align_modes: expected {len(modes.xyz_A)} finite weights, got shape {weight.shape}")
    work = for_job(given, "align_modes", posed=True)
    if prior_A is not None and not prior_A > 0:
        raise InputError(f"align_modes: expected a positive prior_A, got {prior_A}")
    fit = ImageFit(
        work,
        modes,
        weight,
        width_A=width_A,
        resolution_A=resolution_A,
        n_modes=n_modes,
        refine_poses=refine_poses,
        threads=threads,
    )
    fit.prior_A = np.inf if prior_A is None else prior_A
    slopes = 2 * (n_modes + _POSE) * max(len(weight), len(fit.waves.kx_used))
    step = max(1, min(_BATCH_VALUES // (len(weight) * len(fit.waves.ky)), _SLOPE_VALUES // slopes))
    parts = [fit.run(np.arange(b, min(b + step, len(work)))) for b in range(0, len(work), step)]
    names = ("amplitudes", "errors", "angles_deg", "shifts_A", "scale")
    amplitudes, errors, angles, shifts, scale = (np.concatenate([getattr(p, name) for p in parts]) for name in names)
    return FlexibleAlignment(amplitudes, errors, Poses(angles, shifts), scale, max(p.iterations for p in parts))


class ImageFit:
    """Levenberg-Marquardt of many images side by side."""

    def __init__(
        self,
        work: Particles,
        modes: NormalModes,
        weight: FloatArray,
        *,
        width_A: float,
        resolution_A: float,
        n_modes: int,
        refine_poses: bool,
        threads: int | None,
    ) -> None:
        box, pixel_size_A = work.box, work.pixel_size_A
        radius = int(np.clip(round(box * pixel_size_A / resolution_A), 2, (box - 1) // 2))
        self.work, self.modes, self.weight, self.threads = work, modes, weight, threads
        self.n_modes, self.refine_poses = n_modes, refine_poses
        self.waves = _Waves(box, pixel_size_A, radius)
        k2 = self.waves.kx_used**2 + self.waves.ky_used**2
        self.prior_A = np.inf
        self.envelope = np.exp(-2 * np.pi**2 * width_A**2 * k2)
        # A turn of 1 / reach moves the atoms by about an angstrom: all parameters are then lengths.
        self.reach_A = float(np.sqrt(np.mean(np.square(modes.xyz_A).sum(axis=1))))

    def run(self, rows: IntArray) -> FittedModes:
        """The fit of these particles."""
        at = self.open(rows)
        m, q = len(rows), self.n_modes
        damping = np.full(m, 1e-3)
        cost, scale, jacobian, residual = self.evaluate(at)
        # Of the negative log posterior times the noise variance of a real or imaginary part.
        stiff = np.zeros((m, jacobian.shape[1]))
        stiff[:, :q] = (cost / residual.shape[1])[:, None] / self.prior_A**2
        penalty = np.zeros(m)
        # A unit mode moves the atoms by 1 / sqrt(n), root mean square.
        unit = np.where(np.arange(jacobian.shape[1]) < q, np.sqrt(len(self.weight)), 1.0)
        made = 0
        while made < _STEPS:
            made += 1
            normal = np.einsum("iap,ibp->iab", jacobian.conj(), jacobian).real
            gradient = np.einsum("iap,ip->ia", jacobian.conj(), residual).real
            gradient[:, :q] -= stiff[:, :q] * at.amplitudes
            diagonal = np.einsum("iaa->ia", normal)
            added = damping[:, None] * diagonal + 1e-12 * diagonal.max() + stiff
            system = normal + np.eye(normal.shape[1]) * added[:, None]
            step = np.linalg.solve(system, gradient[:, :, None])[:, :, 0]
            trial = self._step(at, step)
            new_cost, new_scale, new_jacobian, new_residual = self.evaluate(trial)
            new_penalty = 0.5 * (stiff[:, :q] * np.square(trial.amplitudes)).sum(axis=1)
            better = new_cost + new_penalty < cost + penalty
            penalty = np.where(better, new_penalty, penalty)
            damping = np.where(better, damping / 5, damping * 8)
            for name in ("matrices", "displacement_A", "amplitudes"):
                getattr(at, name)[better] = getattr(trial, name)[better]
            cost, scale = np.where(better, new_cost, cost), np.where(better, new_scale, scale)
            jacobian[better], residual[better] = new_jacobian[better], new_residual[better]
            if np.abs(step / unit).max() < _STILL_A or (damping > _STUCK).all():
                break
        normal = np.einsum("iap,ibp->iab", jacobian.conj(), jacobian).real
        noise = 2 * cost / (2 * residual.shape[1] - normal.shape[1])  # variance of a real or imaginary part
        prior = np.eye(normal.shape[1]) * stiff[:, None]
        covariance = np.linalg.pinv(normal + prior, hermitian=True) * noise[:, None, None]
        errors = np.sqrt(np.maximum(np.einsum("iaa->ia", covariance)[:, :q], 0))
        return FittedModes(at.amplitudes, errors, matrix_to_euler(at.matrices), -at.displacement_A, scale, made)

    def open(self, rows: IntArray) -> ImageBatch:
        """These particles' pixels, and their models at rest."""
        work, poses = self.work, self.work.poses
        assert poses is not None
        spectra = fourier.forward(work.images(rows), 2, threads=self.threads)
        ctf = ops.ctf(work.optics.as_params()[rows], work.box, work.pixel_size_A, threads=self.threads)
        y, x = self.waves.at
        return ImageBatch(
            spectra[:, y, x],
            ctf[:, y, x].astype(np.float64) * self.envelope,
            euler_to_matrix(poses.angles_deg[rows]),
            -np.array(poses.shifts_A[rows], np.float64),
            np.zeros((len(rows), self.n_modes)),
        )

    def evaluate(self, at: ImageBatch) -> ModelDerivatives:
        """The models of images, and how they change with every parameter."""
        waves, turned = self.waves, self.modes.displace(at.amplitudes) @ np.swapaxes(at.matrices, 1, 2)
        x, y = turned[..., 0] + at.displacement_A[:, :1], turned[..., 1] + at.displacement_A[:, 1:]
        ways = self._ways(at, turned)  # (m, parameters, n, 2)
        plain = np.broadcast_to(self.weight, (len(x), 1, len(self.weight)))
        weights = np.concatenate([plain, *(self.weight * ways[..., k] for k in (0, 1))], axis=1)
        made = waves.transform(x, y, weights) * at.factor[:, None]
        count = ways.shape[1]
        model = made[:, 0]
        slope = -2j * np.pi * (waves.kx_used * made[:, 1 : count + 1] + waves.ky_used * made[:, count + 1 :])
        power = np.square(np.abs(model)).sum(axis=1)
        cross = (model.conj() * at.images).real.sum(axis=1)
        scale = cross / np.maximum(power, 1e-30)
        # At the best scale, what a parameter does along the model itself is taken up by the scale.
        along = (model.conj()[:, None] * slope).real.sum(axis=2) / np.maximum(power, 1e-30)[:, None]
        jacobian = scale[:, None, None] * (slope - along[:, :, None] * model[:, None])
        residual = at.images - scale[:, None] * model
        return ModelDerivatives(0.5 * np.square(np.abs(residual)).sum(axis=1), scale, jacobian, residual)

    def _ways(self, at: ImageBatch, turned: FloatArray) -> FloatArray:
        """Where each parameter moves the atoms in the image: modes, then turns about x, y, z, and shifts."""
        modes = np.einsum("ikc,qnc->iqnk", at.matrices[:, :2], self.modes.vectors[: self.n_modes])
        if not self.refine_poses:
            return modes
        rigid = np.zeros((len(turned), _POSE, turned.shape[1], 2))
        x, y, z = np.moveaxis(turned, -1, 0) / self.reach_A
        rigid[:, 0, :, 1] = -z
        rigid[:, 1, :, 0] = z
        rigid[:, 2, :, 0], rigid[:, 2, :, 1] = -y, x
        rigid[:, 3, :, 0] = rigid[:, 4, :, 1] = 1
        return np.concatenate([modes, rigid], axis=1)

    def _step(self, at: ImageBatch, step: FloatArray) -> ImageBatch:
        q = self.n_modes
        matrices, displacement = at.matrices.copy(), at.displacement_A.copy()
        if self.refine_poses:
            turn = Rotation.from_rotvec(step[:, q : q + 3] / self.reach_A).as_matrix()
            matrices = turn @ at.matrices
            displacement = at.displacement_A + step[:, q + 3 :]
        return ImageBatch(at.images, at.factor, matrices, displacement, at.amplitudes + step[:, :q])
