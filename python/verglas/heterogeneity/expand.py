"""Symmetry expansion: every particle once for each element of its point group, all copies of one image."""

from __future__ import annotations

import numpy as np

from verglas.errors import InputError
from verglas.geometry import euler_to_matrix, matrix_to_euler, symmetry_matrices
from verglas.reconstruction.known_poses import half_sets
from verglas.types import Particles, Poses
from verglas.types.convert import ParticlesLike, particles_of

COPY, PARENT = "verglasSymmetryCopy", "verglasExpandedFrom"


def expand_symmetry(particles: ParticlesLike, symmetry: str, *, seed: int = 0) -> Particles:
    """Each particle with each of its equivalent poses, so that its asymmetric units can be looked at one by one.

    Row ``i * order + j`` is particle i under element j of the group (element 0 is the identity). The copies name the
    same image, which is not written again, and lie in one half set, or the noise that they share would correlate
    between the half maps. ``verglasExpandedFrom`` holds the particle's number, ``verglasSymmetryCopy`` the element's.

    Parameters
    ----------
    particles : Particles
        With poses.
    symmetry : str
        Point group, RELION's orientation, in which the particles were refined.
    seed : int
        Of half sets, where the particles have none.

    Raises
    ------
    InputError
        No poses; particles that are expanded already.

    Examples
    --------
    >>> import numpy as np, verglas as vg
    >>> p = vg.Particles.from_images(np.ones((3, 8, 8)), 1.0, poses=vg.Poses(np.zeros((3, 3))))
    >>> expanded = vg.expand_symmetry(p, "D2")
    >>> len(expanded), expanded.poses.angles_deg[:4, 2].round(6).tolist()
    (12, [0.0, 180.0, 180.0, 0.0])
    """
    particles = particles_of(particles, "expand_symmetry: particles")
    if particles.poses is None:
        raise InputError(f"{particles.where}: expand needs poses and these particles have none; refine them first")
    if PARENT in particles.table:
        raise InputError(f"{particles.where}: these particles are expanded already ({PARENT})")
    group = symmetry_matrices(symmetry)
    identity = int(np.argmax(np.trace(group, axis1=1, axis2=2)))
    group = np.concatenate([group[identity : identity + 1], np.delete(group, identity, axis=0)])
    order, n = len(group), len(particles)
    half = half_sets(particles, seed=seed) if n > 1 else np.ones(n, np.int64)
    rows = np.repeat(np.arange(n), order)
    matrices = euler_to_matrix(particles.poses.angles_deg)[rows] @ np.tile(group, (n, 1, 1))
    angles = matrix_to_euler(matrices)
    angles[::order] = particles.poses.angles_deg  # the identity leaves angles as the file had them
    made = particles[rows].with_poses(Poses(angles, particles.poses.shifts_A[rows]))
    return made.with_columns(
        rlnRandomSubset=half[rows], **{PARENT: rows + 1, COPY: np.tile(np.arange(1, order + 1), n)}
    )


def collapse_symmetry(particles: Particles) -> Particles:
    """One row per particle of an expanded set: the copy that fits best.

    That is the copy of the largest ``rlnLogLikeliContribution``; without that column, of the largest
    ``rlnMaxValueProbDistribution``; without both, or where copies are equal, the first.

    What relaxes a symmetry: after a classification or a local search of the copies, every particle keeps the pose,
    among the equivalent ones, that explains it best.

    Raises
    ------
    InputError
        The particles are not expanded.
    """
    if PARENT not in particles.table:
        raise InputError(f"{particles.where}: these particles are not expanded (no {PARENT})")
    parent = particles.table[PARENT].to_numpy(np.int64)
    score = np.zeros(len(parent))
    for name in ("rlnLogLikeliContribution", "rlnMaxValueProbDistribution"):
        if name in particles.table:
            score = particles.table[name].to_numpy(np.float64)
            break
    order = np.lexsort((np.arange(len(parent)), -score, parent))
    first = np.flatnonzero(np.diff(parent[order], prepend=-1))
    return particles[np.sort(order[first])]
