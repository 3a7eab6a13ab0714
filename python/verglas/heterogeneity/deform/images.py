r"""Zernike deformations fitted to images: one for all particles of a set, or one for each.

Pseudo-atoms r_j of a map move by :math:`u(r) = \sum_{lnm} c_{lnm} R_{ln}(|r|/r_0)\, y_l^m(r/|r|)`, and images are those
of :mod:`verglas.heterogeneity.deform.flexible`, with the same analytic derivatives. Rigid motions, which are poses, are
taken out of the basis. Here u says where density goes, while a :class:`Deformation` says where it comes from:
:meth:`ImageDeformation.apply` inverts u by fixed-point steps.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.ndimage import map_coordinates

from verglas.errors import InputError
from verglas.heterogeneity.deform.flexible import ImageBatch, ImageFit
from verglas.heterogeneity.deform.normal_modes import NormalModes
from verglas.heterogeneity.deform.zernike3d import zernike_basis
from verglas.optics import for_job
from verglas.types import Map
from verglas.types.arrays import FloatArray
from verglas.types.convert import MapLike, ParticlesLike, map_of, particles_of

_STEPS = 20
_STILL_A = 0.01
_BATCH = 32
_RIDGE = 1e-4
_SINGULAR = 1e-6
_INVERSION_STEPS = 8


@dataclass(frozen=True, eq=False)
class ZernikeWays:
    """Deformations of a set of points in a Zernike basis, without rigid motions.

    Attributes
    ----------
    modes : NormalModes
        Orthonormal ways of the points, for :func:`verglas.heterogeneity.deform.align_modes`; they have no energy, and
        their eigenvalues are 0.
    coefficients : (Q, F, 3) float64
        Zernike coefficients of a unit step along each.
    degree : int
    radius_A : float
    """

    modes: NormalModes
    coefficients: FloatArray
    degree: int
    radius_A: float

    def deformation(self, amplitudes_A: npt.ArrayLike) -> ImageDeformation:
        """The deformation at these amplitudes (Q,)."""
        made = np.tensordot(np.asarray(amplitudes_A, np.float64), self.coefficients, 1)
        return ImageDeformation(made, self.degree, self.radius_A)


@dataclass(frozen=True, eq=False)
class ImageDeformation:
    """Where density goes.

    Attributes
    ----------
    coefficients_A : (F, 3) float64
        Of u, x, y, z.
    degree : int
    radius_A : float
        Beyond it nothing moves.
    residual : float
        Power of what is left of the images on that before the fit; NaN where nothing was fitted.
    """

    coefficients_A: FloatArray
    degree: int
    radius_A: float
    residual: float = float("nan")

    def displacement_A(self, xyz_A: npt.ArrayLike) -> FloatArray:
        """(..., 3) way of points (..., 3) from the centre."""
        points = np.asarray(xyz_A, np.float64)
        made = zernike_basis(points.reshape(-1, 3) / self.radius_A, self.degree) @ self.coefficients_A
        return np.asarray(made.reshape(points.shape))

    def apply(self, map: MapLike) -> Map:
        """The map whose density at r + u(r) is that of this map at r."""
        volume = map_of(map, "ImageDeformation.apply: the map")
        box, pixel_size_A = volume.box, volume.pixel_size_A
        places = (np.moveaxis(np.indices((box,) * 3)[::-1], 0, -1).astype(np.float64) - box // 2) * pixel_size_A
        source = places.copy()
        for _ in range(_INVERSION_STEPS):
            source = places - self.displacement_A(source)
        at = np.moveaxis(source / pixel_size_A, -1, 0)[::-1] + box // 2
        return volume.with_data(map_coordinates(volume.data, at, order=3, mode="constant").astype(np.float32))


def zernike_ways(xyz_A: npt.ArrayLike, degree: int = 3, *, radius_A: float | None = None) -> ZernikeWays:
    """Deformations of points up to a degree of the Zernike functions, rigid motions taken out.

    Parameters
    ----------
    xyz_A : (n, 3) array_like
        Pseudo-atoms, from the centre.
    degree : int
        2 or more; 3 has 54 ways.
    radius_A : float, optional
        Of the ball; a tenth beyond the outermost point by default.

    Raises
    ------
    InputError
        A degree below 2, points outside the ball, fewer points than ways.

    Examples
    --------
    >>> import numpy as np
    >>> from verglas.heterogeneity.deform import zernike_ways
    >>> points = np.random.default_rng(0).uniform(-20, 20, (60, 3))
    >>> len(zernike_ways(points, 2).modes.vectors)  # 10 functions of 3 coefficients, less 6 rigid motions
    24
    """
    xyz = np.asarray(xyz_A, np.float64)
    if xyz.ndim != 2 or xyz.shape[1] != 3 or not np.isfinite(xyz).all():
        raise InputError(f"zernike_ways: expected finite positions (n, 3), got shape {xyz.shape}")
    if degree < 2:
        raise InputError(f"zernike_ways: degree {degree}: below 2 there are rigid and affine motions alone")
    furthest = float(np.linalg.norm(xyz, axis=1).max())
    radius = 1.1 * furthest if radius_A is None else radius_A
    if furthest > radius:
        raise InputError(f"zernike_ways: a point lies {furthest:.1f} A from the centre, outside {radius:g} A")
    basis = zernike_basis(xyz / radius, degree)
    n, count = basis.shape
    if 3 * n < 3 * count:
        raise InputError(f"zernike_ways: {n} points are too few for {count} functions; take more, or a lower degree")
    design = np.einsum("nf,ab->nafb", basis, np.eye(3)).reshape(3 * n, 3 * count)
    rigid = np.concatenate([np.tile(np.eye(3), (n, 1)).reshape(n, 3, 3), _turns(xyz)], axis=2).reshape(3 * n, 6)
    rigid = np.linalg.qr(rigid)[0]
    # Rigid motions are in the span of the basis: what is taken out has coefficients of its own.
    taken = np.linalg.lstsq(design, rigid @ (rigid.T @ design), rcond=None)[0]
    left, size, right = np.linalg.svd(design - rigid @ (rigid.T @ design), full_matrices=False)
    kept = size > _SINGULAR * size[0]
    coefficients = (np.eye(3 * count) - taken) @ (right[kept].T / size[kept])
    modes = NormalModes(xyz, left[:, kept].T.reshape(-1, n, 3), np.zeros(int(kept.sum())))
    return ZernikeWays(modes, coefficients.T.reshape(-1, count, 3), degree, radius)


def _turns(xyz: FloatArray) -> FloatArray:
    """(n, 3, 3) ways of points by small turns about x, y, z, in the last axis."""
    return np.stack([np.cross(axis, xyz) for axis in np.eye(3)], axis=2)


def fit_deformation_to_images(
    particles: ParticlesLike,
    ways: ZernikeWays,
    *,
    weights: npt.ArrayLike | None = None,
    width_A: float = 4.0,
    resolution_A: float = 10.0,
    ridge: float = _RIDGE,
    threads: int | None = None,
) -> ImageDeformation:
    """The one deformation of a map with which it is what these particles show, at their poses.

    Levenberg-Marquardt on the coefficients, with the analytic derivatives of all images. For one deformation per
    particle, give ``ways.modes`` to :func:`verglas.heterogeneity.deform.align_modes`.

    Parameters
    ----------
    particles : Particles or path
        With images, CTFs and poses: a class, or a cluster.
    ways : ZernikeWays
        Of the map's pseudo-atoms (:func:`verglas.heterogeneity.deform.pseudo_atoms`).
    weights : (n,) array_like, optional
        What each atom scatters; all alike without.
    width_A : float
        Standard deviation of the atoms' Gaussians.
    resolution_A : float
        Finest data in use.
    ridge : float
        Added to the normal equations, as a fraction of their mean diagonal.
    threads : int, optional

    Raises
    ------
    InputError
        No images or poses; weights of another length.

    Examples
    --------
    >>> import numpy as np, verglas as vg
    >>> from verglas.heterogeneity.deform import fit_deformation_to_images, zernike_ways
    >>> model = vg.simulate.phantom(32, 5.0, 90.0, seed=2)
    >>> p = vg.simulate.particles(model, 6, 32, 5.0, seed=2, listener=None)
    >>> fit = fit_deformation_to_images(p, zernike_ways(model.xyz_A[::8], 2), resolution_A=20)
    >>> fit.coefficients_A.shape
    (10, 3)
    """
    given = particles_of(particles, "fit_deformation_to_images: particles")
    if given.source is None or given.poses is None:
        missing = "images" if given.source is None else "poses"
        raise InputError(f"{given.where}: fit_deformation_to_images needs {missing}, and these particles have none")
    count, atoms = len(ways.modes.vectors), len(ways.modes.xyz_A)
    weight = np.ones(atoms) if weights is None else np.asarray(weights, np.float64)
    if weight.shape != (atoms,) or not np.isfinite(weight).all():
        raise InputError(f"fit_deformation_to_images: expected {atoms} finite weights, got shape {weight.shape}")
    work = for_job(given, "fit_deformation_to_images", posed=True)
    fit = ImageFit(
        work,
        ways.modes,
        weight,
        width_A=width_A,
        resolution_A=resolution_A,
        n_modes=count,
        refine_poses=False,
        threads=threads,
    )
    batches = [fit.open(np.arange(b, min(b + _BATCH, len(work)))) for b in range(0, len(work), _BATCH)]
    amplitudes, damping = np.zeros(count), 1e-3
    cost, normal, gradient = _sums(fit, batches, amplitudes)
    first = cost
    for _ in range(_STEPS):
        diagonal = normal.diagonal()
        stiff = ridge * diagonal.mean()
        step = np.linalg.solve(normal + np.diag(damping * diagonal + stiff), gradient - stiff * amplitudes)
        trial = _sums(fit, batches, amplitudes + step)
        worse = stiff * 0.5 * (np.square(amplitudes + step).sum() - np.square(amplitudes).sum())
        if trial[0] + worse < cost:
            amplitudes, damping = amplitudes + step, damping / 5
            cost, normal, gradient = trial
            if np.abs(step).max() < _STILL_A * np.sqrt(atoms):
                break
        elif (damping := damping * 8) > 1e6:
            break
    made = ways.deformation(amplitudes)
    return ImageDeformation(made.coefficients_A, made.degree, made.radius_A, cost / max(first, 1e-30))


def _sums(fit: ImageFit, batches: list[ImageBatch], amplitudes: FloatArray) -> tuple[float, FloatArray, FloatArray]:
    """Half the squared residuals of all images, normal equations and gradient."""
    count = len(amplitudes)
    cost, normal, gradient = 0.0, np.zeros((count, count)), np.zeros(count)
    for at in batches:
        at.amplitudes = np.tile(amplitudes, (len(at.images), 1))
        each, _, jacobian, residual = fit.evaluate(at)
        flat = np.moveaxis(jacobian, 1, 0).reshape(count, -1)
        cost += float(each.sum())
        normal += (flat.conj() @ flat.T).real
        gradient += (flat.conj() @ residual.ravel()).real
    return cost, normal, gradient
