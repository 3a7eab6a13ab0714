"""First maps from the common lines of all averages jointly, and SIMPLE's second stage.

SIMPLE (Elmlund, Davis and Elmlund 2010, Structure 18, 777-786; 2012, J. Struct. Biol. 180, 420-427) orients averages
by annealing of their common lines (3 N parameters), then searches the five parameters of each average, two of them its
shift, by differential evolution against the map of the others.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import scipy.optimize
from scipy.spatial.transform import Rotation

from verglas import fourier, gridding, ops
from verglas.geometry import euler_to_matrix
from verglas.initial_model.averages.views import Views
from verglas.initial_model.common_lines import find_common_lines
from verglas.initial_model.line_cost import search_orientations
from verglas.types.arrays import Complex64Array, Float32Array, FloatArray

_EVALUATIONS = 4000
_SIMPLE_ROUNDS = 2
_REACH_DEG, _REACH_PX = 20.0, 1.5
_MEMBERS, _GENERATIONS = 24, 12
_LOTS = 4  # each average meets a map that it had no part in


def line_orientations(views: Views, method: str, seed: int) -> FloatArray:
    """Matrices (n, 3, 3) of all averages from their common lines, by an optimiser's name."""
    lines = find_common_lines(views.images, views.radius, diameter_px=views.diameter_px, threads=views.threads)
    joint, _ = search_orientations(lines, method, evaluations=_EVALUATIONS, seed=seed, threads=views.threads)
    return euler_to_matrix(joint.angles_deg)


def orient_by_lines(method: str, views: Views, rng: np.random.Generator) -> Float32Array:
    """The map of such orientations; a start sees nine tenths of the averages, so that starts differ."""
    part = views.draw(rng, 0.9)
    return part.map(line_orientations(part, method, int(rng.integers(2**31))))


def run_simple(views: Views, rng: np.random.Generator) -> Float32Array:
    """Annealing of the common lines, then differential evolution of each average's five parameters."""
    matrices, shifts = line_orientations(views, "annealing", int(rng.integers(2**31))), np.zeros((len(views), 2))
    for _ in range(_SIMPLE_ROUNDS):
        lots = rng.permutation(len(views)) % min(_LOTS, len(views))
        fresh, moved = matrices.copy(), shifts.copy()
        for lot in np.unique(lots):
            others = np.flatnonzero(lots != lot)
            volume = _shift(views, shifts).map(matrices[others], others)
            spectrum = gridding.to_grid(volume, views.grid, threads=views.threads)
            for i in np.flatnonzero(lots == lot):
                fresh[i], moved[i] = _evolve(views, spectrum, int(i), matrices[i], shifts[i], rng)
        matrices, shifts = fresh, moved
    return _shift(views, shifts).map(matrices)


def _shift(views: Views, shifts_px: FloatArray) -> Views:
    """Averages moved by minus their shifts, to the centre."""
    phases = fourier.shift_phases((views.box, views.box), -shifts_px)
    images = fourier.inverse((views.spectra * phases).astype(np.complex64), (views.box, views.box))
    return replace(views, images=images)


def _evolve(
    views: Views, spectrum: Complex64Array, image: int, matrix: FloatArray, shift: FloatArray, rng: np.random.Generator
) -> tuple[FloatArray, FloatArray]:
    """Turn (rotation vector) and shift about a pose that correlate one average best with a map on its grid."""
    shells = fourier.shells((views.box, views.box))
    inside = (shells > 0) & (shells <= views.radius)
    weight = views.ring_weight[shells[inside] - 1]
    target = views.spectra[image][inside]
    power = np.sqrt((weight * np.abs(target) ** 2).sum())

    def cost(x: FloatArray) -> FloatArray:
        poses = Rotation.from_rotvec(x[:3].T).as_matrix() @ matrix
        slices = ops.project(
            spectrum, views.grid, poses, max_radius=views.radius, shifts_px=shift + x[3:].T, threads=views.threads
        )[:, inside]
        norm = np.sqrt((weight * np.abs(slices) ** 2).sum(axis=1))
        return np.asarray(-((slices.conj() * target).real @ weight) / np.maximum(norm * power, 1e-30))

    reach = np.array([np.deg2rad(_REACH_DEG)] * 3 + [_REACH_PX] * 2)
    members = reach[None] * rng.uniform(-1, 1, (_MEMBERS, 5))
    members[0] = 0  # to stay is one of the members, so that no average gets worse
    optimum = scipy.optimize.differential_evolution(
        lambda x: cost(x) if x.ndim == 2 else float(cost(x[:, None])[0]),
        list(zip(-reach, reach, strict=True)),
        init=members,
        maxiter=_GENERATIONS,
        polish=False,
        updating="deferred",
        vectorized=True,
        tol=0,
        seed=int(rng.integers(2**31)),
    )
    return Rotation.from_rotvec(optimum.x[:3]).as_matrix() @ matrix, shift + optimum.x[3:]
