"""Tilt-pair validation: a known turn of the stage must be found between the two orientations of each particle.

Rosenthal and Henderson's test of a map: both images of each pair are aligned to it on their own; the turn from one
orientation to the other is the stage's, if the map is right and its hand, too. Points of a polar plot (radius the tilt,
angle the axis) then lie together at the stage's tilt and axis; with the mirror image of the map they lie opposite.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from verglas._screen import ListenerChoice
from verglas.errors import InputError
from verglas.geometry import euler_to_matrix, matrix_to_euler, random_orientations, symmetry_matrices
from verglas.search import align
from verglas.tilting.conical import stage_turns
from verglas.tilting.geometry import TiltGeometry
from verglas.types import Poses
from verglas.types.arrays import FloatArray
from verglas.types.convert import MapLike, ParticlesLike, particles_of
from verglas.types.display import one_line

_DRAWS = 4000


@one_line
@dataclass(frozen=True)
class TiltPairPlot:
    """The turns of n pairs.

    Attributes
    ----------
    tilt_deg, axis_deg : (n,) float64
        Tilt, from 0 to 180, and angle of its axis from +y in the untilted image.
    distance_deg : (n,) float64
        In the plane of the polar plot from the stage's tilt and axis.
    expected_tilt_deg, expected_axis_deg : float
        The stage's (the middle of all pairs').
    within_share, mirrored_share : float
        Points within ``tolerance_deg`` of the stage's, and of the point opposite, where a map of the wrong hand puts
        them.
    chance_share : float
        Points of random orientations within the tolerance: what a map that explains nothing gives.
    tolerance_deg : float
    """

    tilt_deg: FloatArray
    axis_deg: FloatArray
    distance_deg: FloatArray
    expected_tilt_deg: float
    expected_axis_deg: float
    within_share: float
    mirrored_share: float
    chance_share: float
    tolerance_deg: float

    @property
    def verdict(self) -> str:
        """One sentence."""
        n = len(self.tilt_deg)
        error = np.sqrt(max(self.chance_share, 1 / n) / n)
        said = (
            f"{100 * self.within_share:.0f} % of {n} pairs lie within {self.tolerance_deg:g} degrees of the stage's "
            f"tilt and axis ({100 * self.chance_share:.1f} % would by chance)"
        )
        if max(self.within_share, self.mirrored_share) < self.chance_share + 5 * error:
            return f"The map does not explain the pairs: {said}."
        if self.mirrored_share > self.within_share:
            return (
                f"The map has the wrong hand, or the sign of the tilt is wrong: {said}, "
                f"{100 * self.mirrored_share:.0f} % opposite."
            )
        return f"Map and hand agree with the pairs: {said}."


def tilt_pair_plot(
    untilted: Poses,
    tilted: Poses,
    geometries: TiltGeometry | Sequence[TiltGeometry],
    symmetry: str = "C1",
    *,
    tolerance_deg: float = 5.0,
    seed: int = 0,
) -> TiltPairPlot:
    r"""Turns between the two orientations of each pair.

    .. math:: D_i = A_{t,i}\, g\, A_{u,i}^T, \quad g \in G \text{ that brings } D_i \text{ nearest to the stage's}

    Parameters
    ----------
    untilted, tilted : Poses
        Of the same n particles, found independently of each other.
    geometries : TiltGeometry, or n of them
        What the stage did.
    symmetry : str
        Point group of the map.
    tolerance_deg : float
        What counts as near.
    seed : int
        Of the random orientations that ``chance_share`` is from.

    Returns
    -------
    TiltPairPlot

    Raises
    ------
    InputError
        Other numbers of poses, or none.

    References
    ----------
    Rosenthal and Henderson (2003) J. Mol. Biol. 333, 721-745; Henderson et al. (2011) J. Mol. Biol. 413, 1028-1046.

    Examples
    --------
    >>> import verglas as vg
    >>> from verglas.tilting import TiltGeometry, tilt_pair_plot
    >>> stage = TiltGeometry(15.0, 30.0, 30.0)
    >>> angles = vg.geometry.random_orientations(50, seed=1)
    >>> plot = tilt_pair_plot(vg.Poses(angles), vg.Poses(stage.tilted_angles_deg(angles)), stage)
    >>> plot.within_share, plot.mirrored_share, float(plot.tilt_deg.max().round(6))
    (1.0, 0.0, 15.0)
    """
    n = len(untilted)
    if n != len(tilted) or not n:
        raise InputError(f"tilt_pair_plot: {n} untilted and {len(tilted)} tilted poses; expected pairs")
    group = symmetry_matrices(symmetry)
    expected = stage_turns(geometries, n)
    first, second = euler_to_matrix(untilted.angles_deg), euler_to_matrix(tilted.angles_deg)
    seen = _polar_points(first, second, expected, group)
    random = euler_to_matrix(random_orientations(2 * _DRAWS, seed=seed))
    rows = np.arange(_DRAWS) % n
    by_chance = _polar_points(random[:_DRAWS], random[_DRAWS:], expected[rows], group).distance
    stage = matrix_to_euler(expected)
    middle = np.exp(1j * np.radians(stage[:, 0])).mean()
    return TiltPairPlot(
        seen.tilt_deg,
        seen.axis_deg,
        seen.distance,
        float(np.median(stage[:, 1])),
        float(np.degrees(np.angle(middle))),
        float((seen.distance <= tolerance_deg).mean()),
        float((seen.opposite_distance <= tolerance_deg).mean()),
        float((by_chance <= tolerance_deg).mean()),
        tolerance_deg,
    )


class _PolarPoints(NamedTuple):
    """Of pairs in the polar plot: tilt and axis, and distances from the expected point and from the one opposite."""

    tilt_deg: FloatArray
    axis_deg: FloatArray
    distance: FloatArray
    opposite_distance: FloatArray


def _polar_points(first: FloatArray, second: FloatArray, expected: FloatArray, group: FloatArray) -> _PolarPoints:
    """Points of pairs, each distance with its own best operator."""
    stage = matrix_to_euler(expected)
    near = np.full(len(first), np.inf)
    opposite = near.copy()
    tilt, axis = np.zeros(len(first)), np.zeros(len(first))
    for operator in group:
        angles = matrix_to_euler(second @ operator @ first.transpose(0, 2, 1))
        here = _distance(angles[:, 1], angles[:, 0], stage[:, 1], stage[:, 0])
        better = here < near
        tilt[better], axis[better], near[better] = angles[better, 1], angles[better, 0], here[better]
        opposite = np.minimum(opposite, _distance(angles[:, 1], angles[:, 0], stage[:, 1], stage[:, 0] + 180))
    return _PolarPoints(tilt, axis, near, opposite)


def _distance(tilt: FloatArray, axis: FloatArray, tilt0: FloatArray, axis0: FloatArray) -> FloatArray:
    """In the plane of the polar plot."""
    squares = tilt**2 + tilt0**2 - 2 * tilt * tilt0 * np.cos(np.radians(axis - axis0))
    return np.sqrt(np.maximum(squares, 0))


def validate_with_pairs(
    untilted: ParticlesLike,
    tilted: ParticlesLike,
    map: MapLike,
    geometries: TiltGeometry | Sequence[TiltGeometry],
    symmetry: str = "C1",
    *,
    tolerance_deg: float = 5.0,
    threads: int | None = None,
    listener: ListenerChoice = None,
    **align_settings: Any,
) -> TiltPairPlot:
    """Align both images of each pair to a map, and compare the turns between them with the stage's.

    Parameters
    ----------
    untilted, tilted : Particles
        The same particles in the same order; images with CTFs.
    map : Map
        Under test.
    geometries : TiltGeometry, or one for each particle
    symmetry : str
    tolerance_deg : float
    threads : int, optional
    listener : Listener, "screen" or None
    **align_settings
        As the fields of :class:`verglas.search.AlignSettings`: ``step_deg``, ``max_resolution_A``, ...

    Returns
    -------
    TiltPairPlot
        Of the pairs of which both images could be used.

    Raises
    ------
    InputError
        As :func:`verglas.align`, or other numbers of particles.
    """
    sets = [particles_of(p, "validate_with_pairs: particles") for p in (untilted, tilted)]
    if len(sets[0]) != len(sets[1]):
        raise InputError(f"validate_with_pairs: {len(sets[0])} untilted and {len(sets[1])} tilted particles")
    placed = [
        align(
            p.with_columns(**{_ROW: np.arange(len(p))}),
            map,
            symmetry,
            threads=threads,
            listener=listener,
            **align_settings,
        )
        for p in sets
    ]
    rows = [p.table[_ROW].to_numpy(np.int64) for p in placed]
    both, mine, theirs = np.intersect1d(rows[0], rows[1], return_indices=True)
    chosen = geometries if isinstance(geometries, TiltGeometry) else [geometries[int(i)] for i in both]
    poses = [p.poses for p in placed]
    assert poses[0] is not None
    assert poses[1] is not None
    return tilt_pair_plot(poses[0][mine], poses[1][theirs], chosen, symmetry, tolerance_deg=tolerance_deg)


_ROW = "vgPairRow"
