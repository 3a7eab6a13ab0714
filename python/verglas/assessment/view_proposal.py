"""Which views of a set may be left out without loss, and which to collect."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from verglas.assessment.orientations import counts_of_views, view_counts
from verglas.assessment.sampling import ENOUGH, LEAST_SAMPLED, compensation_factor, slices_of, slices_through
from verglas.errors import InputError
from verglas.geometry import direction_vectors, healpix_directions, healpix_index, symmetry_matrices
from verglas.types.arrays import BoolArray, FloatArray, IntArray, any_arrays

_ORDER = 4  # of view_counts
_COLLECTED_ORDER = 3  # views that may be collected lie 7 degrees apart
_SMOOTHED_RAD = np.deg2rad(6.0)  # over which views are counted: few particles lie in one cell
_BISECTIONS = 12
_STEP = 0.02  # of the particles, that are added to a view at a time
_MOST_ADDED = 4.0  # times the particles that there are


@dataclass(frozen=True)
class ViewProposal:
    """Particles to keep and views to collect.

    Attributes
    ----------
    keep : (n,) bool
        False for particles of the commonest views that may be left out; all True where views are even enough.
    share_of_signal : float
        Of the signal to noise that the sampling leaves of all particles (their number times the sampling compensation
        factor), what those kept hold.
    compensation_factor_kept : float
        Of the particles kept.
    collect : (m, 3) float64
        Viewing directions x, y, z in the molecule's frame to be collected, the largest numbers first; none where views
        are even enough.
    collect_particles : (m,) int64
        Particles in each.
    compensation_factor_collected : float
        Of all particles and those to be collected.
    """

    keep: BoolArray
    share_of_signal: float
    compensation_factor_kept: float
    collect: FloatArray
    collect_particles: IntArray
    compensation_factor_collected: float


@any_arrays
def propose_views(
    angles_deg: npt.ArrayLike, symmetry: str = "C1", *, most_loss: float = 0.05, seed: int = 0
) -> ViewProposal:
    r"""Which particles of the commonest views may be left out, and which views to collect, where views are uneven.

    The noise of a map in a direction k of Fourier space falls as the number S(k) of slices through it, and its mean
    signal to noise is that of :math:`\langle 1/S \rangle^{-1}` particles whose views are even: the number of particles
    times the sampling compensation factor. A particle that is taken away never raises it. Those of the commonest
    views hardly lower it: of each view so many are kept that no more than ``most_loss`` goes. Particles that are added
    raise it by :math:`\sum_k w(v \cdot k) / S(k)^2` per view v: the best view gets particles until the factor is
    enough (0.81).

    Parameters
    ----------
    angles_deg : (n, 3) float
        rot, tilt, psi.
    symmetry : str
        Point group of the map.
    most_loss : float
        Part of the signal to noise that may be lost.
    seed : int
        Of the choice among particles of one view.

    Raises
    ------
    InputError
        Angles of another shape, or none; ``most_loss`` not between 0 and 1.

    References
    ----------
    Baldwin & Lyumkis, Prog. Biophys. Mol. Biol. 150 (2020) 160.

    Examples
    --------
    >>> import numpy as np, verglas as vg
    >>> from verglas.assessment import propose_views
    >>> angles = vg.geometry.random_orientations(2000, seed=0)
    >>> angles[:1600, 1] = np.random.default_rng(0).uniform(0, 20, 1600)
    >>> found = propose_views(angles)
    >>> bool(found.keep[1600:].mean() > 0.9), bool(found.keep[:1600].mean() < 0.8), found.share_of_signal > 0.95
    (True, True, True)
    """
    if not 0 < most_loss < 1:
        raise InputError(f"propose_views: most_loss is a part between 0 and 1, got {most_loss:g}")
    counts = counts_of_views(angles_deg, symmetry, "propose_views")
    angles = np.atleast_2d(np.asarray(angles_deg, np.float64))
    slices = slices_through(counts)
    factor, floor = compensation_factor(slices), LEAST_SAMPLED * slices.mean()
    if factor >= ENOUGH:
        none = np.zeros((0, 3)), np.zeros(0, np.int64)
        return ViewProposal(np.ones(len(angles), bool), 1.0, factor, *none, factor)
    keep = _kept(angles, symmetry, counts, floor, most_loss, seed)
    left = slices_through(view_counts(angles[keep], symmetry))
    share = _signal(left, floor) / _signal(slices, floor)
    return ViewProposal(keep, share, compensation_factor(left), *_collected(slices, len(angles), symmetry))


def _signal(slices: FloatArray, floor: float) -> float:
    """Slices of even views that would give the same mean signal to noise; empty directions count as a floor."""
    return float(1 / np.mean(1 / np.maximum(slices, floor)))


def _kept(
    angles: FloatArray, symmetry: str, counts: FloatArray, floor: float, most_loss: float, seed: int
) -> BoolArray:
    """Particles left when no view has more than a number of them, the least number that loses no more than is told."""
    cell = healpix_index(_ORDER, angles[:, :2])
    here = _smoothed(counts)[cell]
    # A particle's place among those of one view: each is kept while fewer are asked for.
    place = np.random.default_rng(seed).permutation(len(angles)) + 0.5
    whole = _signal(slices_through(counts), floor)
    low, high, best = 0.0, float(here.max()), np.ones(len(angles), bool)
    for _ in range(_BISECTIONS):
        most = 0.5 * (low + high)
        keep = place / len(angles) < most / here
        good = (
            keep.any()
            and _signal(slices_through(view_counts(angles[keep], symmetry)), floor) >= (1 - most_loss) * whole
        )
        low, high, best = (low, most, keep) if good else (most, high, best)
    return np.asarray(best)


def _smoothed(counts: FloatArray) -> FloatArray:
    """Counts of views about each cell and its opposite, which gives the same slice."""
    cells = direction_vectors(healpix_directions(_ORDER))
    filled = counts > 0
    along = np.abs(cells @ cells[filled].T)
    return np.asarray(np.exp((along - 1) / _SMOOTHED_RAD**2) @ counts[filled])


def _collected(slices: FloatArray, n: int, symmetry: str) -> tuple[FloatArray, IntArray, float]:
    """Views, particles in each, and the factor with them: the best view of each step gets a part of the particles."""
    views = direction_vectors(healpix_directions(_COLLECTED_ORDER))
    views = views[views[:, 2] >= 0]  # an opposite one gives the same slice
    # Slices of a particle in each view, with its copies: (directions, views).
    added = np.sum([slices_of(views @ g) for g in symmetry_matrices(symmetry)], axis=0)
    step = max(1, round(_STEP * n))
    particles, total = np.zeros(len(views), np.int64), slices.copy()
    while compensation_factor(total) < ENOUGH and particles.sum() < _MOST_ADDED * n:
        sampled = np.maximum(total, LEAST_SAMPLED * total.mean())
        best = int(np.argmax(sampled**-2.0 @ added))
        particles[best] += step
        total += step * added[:, best]
    order = np.argsort(-particles, kind="stable")[: np.count_nonzero(particles)]
    return views[order], particles[order], compensation_factor(total)
