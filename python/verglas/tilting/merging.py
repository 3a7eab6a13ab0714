r"""One map of several classes of tilt pairs: class maps turned onto each other, all images in one reconstruction.

Every class misses the cone about its own view; classes of different views miss different ones. Class maps are compared
where both saw something, shell by shell whitened,

.. math:: c(A) = \frac{\sum_k w_k \mathrm{Re}\, \hat V_1^*(k) \hat V_2(A^T k)}
                      {\sqrt{\sum_k w_k |\hat V_1(k)|^2 \sum_k w_k |\hat V_2(A^T k)|^2}}, \qquad
          w_k = [k \in D_1]\,[A^T k \in D_2],

D what is outside a map's cone: without that the cones themselves are laid on one another. Averages of maps would have
to be weighted by what each holds; instead the poses of a class are turned with its map, and one reconstruction of all
images weights every Fourier coefficient by what is known of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from verglas import fourier
from verglas.errors import InputError
from verglas.geometry import euler_to_matrix, matrix_to_euler, orientation_grid
from verglas.map_geometry.map_alignment import Sections, climb_rotation, turned_map
from verglas.map_geometry.symmetry_search import moved_map
from verglas.masks import soft_sphere
from verglas.tilting.conical import ConicalSettings, ConicalTilt
from verglas.tilting.projections import mask_radius_px, reconstruct_tilted
from verglas.types import Map, Particles, Poses
from verglas.types.arrays import Float32Array, FloatArray, IntArray, any_arrays
from verglas.types.display import one_line

_SEARCH_DEG = 15.0
_STARTS = 6
_BLOCK = 256


@one_line
@dataclass(frozen=True)
class MergedClasses:
    """One map of several classes.

    Attributes
    ----------
    map : Map
        In the frame of the class of most pairs.
    tilted : Particles
        The tilted images of all classes that joined, with poses in that frame.
    of_class : (n,) int64
        Class of each image, in the order given.
    rotations : (classes, 3, 3) float64
        What was at r in a class map is at A r + t.
    shifts_px : (classes, 3) float64
        t (x, y, z).
    correlation : (classes,) float64
        Of each class map with the map of the others where both saw something; 1 of the class that all are turned onto.
    joined : (classes,) bool
        Those that reached ``least`` when they were first turned onto the others.
    missing_share : float
        Of the directions in Fourier space that no class reaches.
    """

    map: Map
    tilted: Particles
    of_class: npt.NDArray[np.int64]
    rotations: FloatArray
    shifts_px: FloatArray
    correlation: FloatArray
    joined: npt.NDArray[np.bool_]
    missing_share: float


@any_arrays
def merge_classes(
    classes: Sequence[ConicalTilt],
    tilted: Particles,
    rows: Sequence[IntArray],
    settings: ConicalSettings | None = None,
    *,
    least: float = 0.3,
    max_radius: int | None = None,
    threads: int | None = None,
) -> MergedClasses:
    """Turn class maps onto each other and reconstruct all their images as one.

    Parameters
    ----------
    classes : sequence of ConicalTilt
        Two or more of one box, all of the same sign of the tilt.
    tilted : Particles
        The tilted images of all classes.
    rows : sequence of (n,) int
        Which of them are each class's, in the order of its own.
    settings : ConicalSettings, optional
        How the maps were made.
    least : float
        Correlation below which a class stays out: it may be another structure.
    max_radius : int, optional
        Last shell compared; a quarter of the box by default.
    threads : int, optional
        Threads; all by default.

    Returns
    -------
    MergedClasses

    Raises
    ------
    InputError
        Fewer than two classes, or other boxes.

    References
    ----------
    Radermacher et al. (1987) J. Microsc. 146, 113-136; Penczek, Grassucci and Frank (1994) Ultramicroscopy 53, 251-270
    (merging of tilt sets); Foerster et al. (2008) J. Struct. Biol. 161, 276-286 (constrained correlation).
    """
    chosen = settings or ConicalSettings()
    if len(classes) < 2 or len({one.map.data.shape for one in classes}) > 1:
        raise InputError("merge_classes: expected two classes or more, of one box")
    count, radius = len(classes), max_radius or max(4, classes[0].map.box // 4)
    order = np.argsort([-len(one.tilted) for one in classes], kind="stable")
    turns, shifts, correlation = np.tile(np.eye(3), (count, 1, 1)), np.zeros((count, 3)), np.zeros(count)
    joined = np.arange(count) == order[0]
    correlation[order[0]] = 1.0

    def views_of(some: npt.NDArray[np.bool_]) -> _Seen:
        inside = [j for j in range(count) if some[j]]
        return _Seen([turns[j][:, 2] for j in inside], [_cone(classes[j]) for j in inside])

    for again in (False, True):
        # The first stays where it is: its frame is the frame of all.
        for k in map(int, order[1:]):
            if again and not joined[k]:
                continue
            others = joined & (np.arange(count) != k)
            made = reconstruct_tilted(_together(tilted, rows, classes, others, turns, shifts), chosen, threads=threads)
            start = turns[k] if again else None
            partial_map = _PartialMap(made, views_of(others))
            turns[k], shifts[k], correlation[k] = _place(partial_map, classes[k], radius, start, chosen, threads)
            joined[k] = again or correlation[k] >= least
    together = _together(tilted, rows, classes, joined, turns, shifts)
    of_class = np.concatenate([np.full(len(mine), k) for k, mine in enumerate(rows) if joined[k]]).astype(np.int64)
    whole = reconstruct_tilted(together, chosen, threads=threads)
    missing = float(1 - views_of(joined).covers(_ball_directions()).mean())
    return MergedClasses(whole, together, of_class, turns, shifts, correlation, joined, missing)


def _cone(one: ConicalTilt) -> float:
    return float(np.cos(np.radians(one.missing.half_angle_deg)))


@dataclass(frozen=True)
class _Seen:
    """Directions that at least one of some classes reaches: outside its cone about its axis."""

    axes: Sequence[FloatArray]
    cosines: Sequence[float]

    def covers(self, directions: FloatArray) -> npt.NDArray[np.bool_]:
        """(...,) bool of unit vectors (..., 3)."""
        seen = np.zeros(directions.shape[:-1], bool)
        for axis, cosine in zip(self.axes, self.cosines, strict=True):
            seen |= np.abs(directions @ axis) <= cosine + 1e-9
        return seen


def _ball_directions(count: int = 2000) -> FloatArray:
    z = (np.arange(count) + 0.5) / count
    azimuth = np.pi * (1 + 5**0.5) * np.arange(count)
    flat = np.sqrt(1 - z**2)
    return np.column_stack([flat * np.cos(azimuth), flat * np.sin(azimuth), z])


def _together(
    tilted: Particles,
    rows: Sequence[IntArray],
    classes: Sequence[ConicalTilt],
    chosen: npt.NDArray[np.bool_],
    turns: FloatArray,
    shifts: FloatArray,
) -> Particles:
    """Tilted images of the classes chosen, their poses in the common frame."""
    angles, moves = [], []
    for k in range(len(classes)):
        if not chosen[k]:
            continue
        poses = classes[k].tilted.poses
        assert poses is not None
        matrices = euler_to_matrix(poses.angles_deg) @ turns[k].T
        angles.append(matrix_to_euler(matrices))
        # A map that lies t farther makes the images of particles that have not moved lie A t less far.
        moves.append(poses.shifts_A + (matrices @ shifts[k])[:, :2] * tilted.pixel_size_A)
    some = np.concatenate([mine for mine, inside in zip(rows, chosen, strict=True) if inside])
    return tilted[some].with_poses(Poses(np.concatenate(angles), np.concatenate(moves)))


class _PartialMap(NamedTuple):
    """A map, and the directions that it holds data of."""

    map: Map
    seen: _Seen


def _place(
    others: _PartialMap,
    one: ConicalTilt,
    radius: int,
    start: FloatArray | None,
    settings: ConicalSettings,
    threads: int | None,
) -> tuple[FloatArray, FloatArray, float]:
    """Turn and shift of a class map onto the map of the others, and their correlation where both saw something."""
    made = others.map
    mask = soft_sphere(made.box, mask_radius_px(made.box, made.pixel_size_A, settings.diameter_A), 3.0)
    fixed = _Compared(made.data * mask, others.seen, radius, threads)
    own = _Seen([np.array([0.0, 0.0, 1.0])], [_cone(one)])
    data, shift = one.map.data * mask, np.zeros(3)
    turn, value = np.eye(3) if start is None else start, -np.inf
    for narrow in (start is not None, True):
        # A map moved before it is turned: its centre is on the axis of every turn that is tried.
        moved = _Compared(moved_map(data, shift), own, radius, threads)
        starts = [turn] if narrow else moved.best_starts(fixed)
        placed = [climb_rotation(partial(fixed.likeness, moved), s) for s in starts]
        turn, value = max(placed, key=lambda found: found[1])
        shift = shift + turn.T @ _offset(made.data * mask, turned_map(moved_map(data, shift), turn, threads=threads))
    return turn, turn @ shift, value


def _offset(fixed: Float32Array, moved: Float32Array) -> FloatArray:
    """Shift x, y, z, to a fraction of a pixel, that brings one map onto the other."""
    box = len(fixed)
    spectra = [fourier.forward(v.astype(np.float32), 3) for v in (fixed, moved)]
    product = fourier.inverse((spectra[0] * np.conj(spectra[1])).astype(np.complex64), (box,) * 3)
    peak = np.array(np.unravel_index(int(product.argmax()), product.shape))
    out = np.empty(3)
    for axis in range(3):
        three = [float(product[tuple((peak + d * np.eye(3, dtype=int)[axis]) % box)]) for d in (-1, 0, 1)]
        bend = three[0] - 2 * three[1] + three[2]
        out[axis] = peak[axis] - box // 2 + (0.5 * (three[0] - three[2]) / bend if bend < 0 else 0.0)
    return out[::-1]


class _Compared(Sections):
    """Sections of a whitened map, with what it holds no data of told apart."""

    def __init__(self, volume: Float32Array, seen: _Seen, max_radius: int, threads: int | None) -> None:
        super().__init__(_whiten(volume), max_radius, threads=threads)
        self.seen = seen
        box = self.box
        y, x = np.meshgrid(np.fft.fftfreq(box), np.fft.rfftfreq(box), indexing="ij")
        flat = np.stack([x, y, 0 * x], axis=-1)[self._inside]
        flat /= np.linalg.norm(flat, axis=1, keepdims=True)
        self.directions = np.concatenate([flat @ plane for plane in self.planes])  # E^T k, as rows

    def correlations(self, other: Sections, rotations: FloatArray) -> FloatArray:
        """Correlation with the other turned by each rotation, where both hold data."""
        assert isinstance(other, _Compared)
        mine, out = self.coefficients, np.empty(len(rotations))
        here = self.seen.covers(self.directions)
        for begin in range(0, len(rotations), _BLOCK):
            some = rotations[begin : begin + _BLOCK]
            turned = other.at(some)
            both = here & other.seen.covers(np.einsum("pa,nab->npb", self.directions, some))  # A^T p, as rows
            cross = ((turned * mine.conj()).real * both).sum(axis=1)
            power = (np.abs(turned) ** 2 * both).sum(axis=1) * ((np.abs(mine) ** 2) * both).sum(axis=1)
            out[begin : begin + _BLOCK] = cross / np.sqrt(np.maximum(power, 1e-30))
        return out

    def likeness(self, other: _Compared, rotation: FloatArray) -> float:
        """Correlation with the other turned by one rotation."""
        return float(self.correlations(other, rotation[None])[0])

    def best_starts(self, fixed: _Compared) -> list[FloatArray]:
        """The best rotations of a grid that are not neighbours."""
        directions, psi = orientation_grid(_SEARCH_DEG)
        angles = np.column_stack([np.repeat(directions, len(psi), axis=0), np.tile(psi, len(directions))])
        rotations = euler_to_matrix(angles)
        score = fixed.correlations(self, rotations)
        starts: list[FloatArray] = []
        for i in np.argsort(-score, kind="stable"):
            near = [np.trace(rotations[i] @ t.T) for t in starts]
            if not near or max(near) <= 1 + 2 * np.cos(np.deg2rad(1.5 * _SEARCH_DEG)):
                starts.append(rotations[i])
            if len(starts) == _STARTS:
                break
        return starts


def _whiten(volume: Float32Array) -> Float32Array:
    """The map with equal power in every shell: its lowest ones would decide alone."""
    box = len(volume)
    spectrum = fourier.forward(volume.astype(np.float32), 3)
    shells = fourier.shells((box,) * 3)
    weight = np.broadcast_to(fourier.half_weights((box,) * 3), spectrum.shape).ravel()
    count = np.bincount(shells.ravel(), weight)
    power = np.bincount(shells.ravel(), (np.abs(spectrum) ** 2).ravel() * weight) / np.maximum(count, 1)
    scale = np.divide(1.0, np.sqrt(power), out=np.zeros_like(power), where=power > 0)
    return fourier.inverse((spectrum * scale[shells]).astype(np.complex64), (box,) * 3)
