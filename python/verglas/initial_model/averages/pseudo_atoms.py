r"""A map of K Gaussians, whose places, weights and poses are fitted to averages by expectation-maximisation.

Averages, taken as densities, are drawn from :math:`q_i(x) = \sum_k w_k N(x; P_i \mu_k, \sigma^2)`. Each pixel belongs
to each Gaussian with a probability, and the places follow from 3 x 3 systems (after Joubert and Habeck 2015, Biophys.
J. 108, 1165-1175, with EM and a falling :math:`\sigma` in place of Gibbs' sampler). Poses are found by matching.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.spatial.transform import Rotation

from verglas.initial_model.averages.matching import draw_in_ball
from verglas.initial_model.averages.views import Views
from verglas.types.arrays import Float32Array, FloatArray
from verglas.types.display import one_line

_ATOMS = 120
_ROUNDS = 24  # of poses; each with a few steps of the atoms
_STEPS = 3
_ORDER = 2
_LAST_SIGMA_PX = 1.3


@one_line
@dataclass(frozen=True)
class PseudoAtoms:
    """Gaussians: places (k, 3) in pixels from the centre (x, y, z), weights (k,), width."""

    places_px: FloatArray
    weights: FloatArray
    sigma_px: float

    def density(self, box: int) -> Float32Array:
        """Their sum on a grid (z, y, x)."""
        at = np.arange(box) - box // 2
        x, y, z = (
            np.exp(-0.5 * ((at - self.places_px[:, [axis]]) / self.sigma_px) ** 2).astype(np.float32)
            for axis in range(3)
        )
        weighted = (z * self.weights[:, None].astype(np.float32)).T
        plane = np.einsum("ky,kx->kyx", y, x).reshape(len(self.weights), -1)
        return np.ascontiguousarray((weighted @ plane).reshape(box, box, box))


def fit_atoms(atoms: PseudoAtoms, densities: FloatArray, matrices: FloatArray) -> PseudoAtoms:
    """One step of expectation-maximisation at given poses; the likelihood of the densities does not fall.

    Parameters
    ----------
    atoms : PseudoAtoms
    densities : (n, N, N) float64
        Not negative, each of the sum 1.
    matrices : (n, 3, 3) float64
    """
    box = densities.shape[-1]
    at = np.arange(box) - box // 2
    axes = matrices[:, :2]  # (n, 2, 3): image from space
    centres = np.einsum("nab,kb->nka", axes, atoms.places_px)
    gx, gy = (np.exp(-0.5 * ((at - centres[:, :, [axis]]) / atoms.sigma_px) ** 2) for axis in (0, 1))
    model = np.matmul((gy * atoms.weights[:, None]).transpose(0, 2, 1), gx)
    ratio = densities / np.maximum(model, 1e-12 * model.max())
    along_x, moment = np.matmul(ratio, gx.transpose(0, 2, 1)), np.matmul(ratio, (gx * at).transpose(0, 2, 1))
    mass = np.einsum("nky,nyk->nk", gy, along_x) * atoms.weights
    first = (
        np.stack([np.einsum("nky,nyk->nk", gy, moment), np.einsum("nky,nyk->nk", gy * at, along_x)], axis=-1)
        * atoms.weights[:, None]
    )
    system = np.einsum("nk,nab,nac->kbc", mass, axes, axes)
    right = np.einsum("nab,nka->kb", axes, first)
    # An atom that no density wants has an empty system: it stays at the centre of what is left, with no weight.
    ridge = 1e-9 * float(mass.sum()) / len(atoms.weights)
    places = np.linalg.solve(system + ridge * np.eye(3), right[..., None])[..., 0]
    weights = mass.sum(axis=0)
    return PseudoAtoms(places, weights / weights.sum(), atoms.sigma_px)


def densities_of(views: Views) -> FloatArray:
    """Averages as densities: values above the level of half the pixels, each of the sum 1."""
    low = np.median(views.images.reshape(len(views), -1), axis=1)
    positive = np.maximum(views.images - low[:, None, None], 0.0).astype(np.float64)
    return positive / np.maximum(positive.sum(axis=(1, 2), keepdims=True), 1e-30)


def fit_pseudo_atoms(
    views: Views,
    rng: np.random.Generator,
    known: FloatArray | None = None,
    *,
    count: int = _ATOMS,
    last_sigma_px: float = _LAST_SIGMA_PX,
) -> Float32Array:
    """Gaussians that start anywhere, wide at first; poses are found anew after every few steps, unless they are known.

    Parameters
    ----------
    views : Views
    rng : numpy.random.Generator
        Of places, and of poses at first.
    known : (n, 3, 3) float64, optional
        Matrices that are kept.
    count : int
        Gaussians.
    last_sigma_px : float
        Their width in the end.
    """
    densities = densities_of(views)
    places = draw_in_ball(count, 0.3 * views.diameter_px, rng)
    atoms = PseudoAtoms(places, np.full(count, 1 / count), 0.0)
    matrices = Rotation.random(len(views), rng).as_matrix() if known is None else known
    for sigma in np.geomspace(max(views.diameter_px / 7, last_sigma_px), last_sigma_px, _ROUNDS):
        atoms = PseudoAtoms(atoms.places_px, atoms.weights, float(sigma))
        for _ in range(_STEPS):
            atoms = fit_atoms(atoms, densities, matrices)
        if known is not None:
            continue
        radius = int(np.clip(views.box / (2.2 * sigma), 3, views.radius))
        matrices = views.place(atoms.density(views.box), _ORDER, radius).matrices
    return atoms.density(views.box) * views.sphere
