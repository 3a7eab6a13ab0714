"""Poses that two runs agree on: the angle between both assignments of each particle, modulo symmetry."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from verglas._screen import ListenerChoice, shown_to
from verglas.assessment.poses import agreed_errors
from verglas.errors import InputError
from verglas.io import read_particles, write_particles
from verglas.map_geometry.hand import mirrored_angles
from verglas.run.image_names import image_names
from verglas.run.kept_inputs import keeps_inputs
from verglas.types import Particles
from verglas.types.arrays import FloatArray, IntArray

ANGLE, SHIFT = "verglasAngleChange", "verglasShiftChange"
_LEAST = 5  # particles: the common frame is taken from them, and one always agrees with itself


@dataclass(frozen=True)
class Consensus:
    """What two assignments of the same particles agree on.

    Attributes
    ----------
    particles : Particles
        Those of the first set that are in both, with the columns verglasAngleChange (degrees) and verglasShiftChange
        (A).
    angle_deg, shift_A : (n,) float64
        Between both poses of each, once the frames of the two maps agree.
    agree : (n,) bool
        Both below their limits.
    other_hand : bool
        The second run's map is the mirror image of the first's.
    only_one : int
        Particles of one set only, which are left out.
    """

    particles: Particles
    angle_deg: FloatArray
    shift_A: FloatArray
    agree: npt.NDArray[np.bool_]
    other_hand: bool
    only_one: int

    @property
    def kept(self) -> Particles:
        """Those that agree, with the first run's poses."""
        return self.particles[self.agree]


def pose_consensus(
    first: Particles,
    second: Particles,
    symmetry: str = "C1",
    *,
    within_deg: float = 10.0,
    within_A: float | None = None,
) -> Consensus:
    """Compare the poses that two runs gave to the same particles.

    The maps of two runs stand in different frames, and may be mirror images: a turn and an offset that all share are
    taken out (:func:`verglas.assessment.poses.agreed_errors`), in the hand in which more poses agree.

    Parameters
    ----------
    first, second : Particles
        With poses; joined by their images, or row by row where images have no names.
    symmetry : str
        Point group of both maps, its axes in the same places.
    within_deg : float
        Largest angle between poses that agree.
    within_A : float, optional
        Largest distance between their shifts; any by default.

    Returns
    -------
    Consensus

    Raises
    ------
    InputError
        No poses, fewer than five particles in both, or an image twice in one set.

    References
    ----------
    Method: Scipion's "compare angles" (de la Rosa-Trevin et al. 2016, J. Struct. Biol. 195, 93-99).

    Examples
    --------
    >>> import numpy as np, verglas as vg
    >>> from verglas.run.consensus import pose_consensus
    >>> angles = vg.geometry.random_orientations(30, seed=0)
    >>> images = np.zeros((30, 8, 8), np.float32)
    >>> one = vg.Particles.from_images(images, 2.0, poses=vg.Poses(angles))
    >>> angles[:5] = vg.geometry.random_orientations(5, seed=9)
    >>> two = vg.Particles.from_images(images, 2.0, poses=vg.Poses(angles))
    >>> int(pose_consensus(one, two).agree.sum())
    25
    """
    if not within_deg > 0 or (within_A is not None and not within_A > 0):
        raise InputError(f"consensus: expected limits above 0, got {within_deg} degrees and {within_A} A")
    mine, theirs = _match_rows(first, second)
    if not len(mine):
        raise InputError(f"consensus: no image of {first.where} is in {second.where}")
    if len(mine) < _LEAST:
        raise InputError(
            f"consensus: {len(mine)} particles are in both sets; a frame and a hand can be told from {_LEAST} or more"
        )
    here, there = first[mine], second[theirs]
    for side in (here, there):
        if side.poses is None:
            raise InputError(f"{side.where}: consensus: no poses (rlnAngleRot, rlnAngleTilt, rlnAnglePsi)")
    assert here.poses is not None
    assert there.poses is not None
    mirrored: FloatArray = mirrored_angles(there.poses.angles_deg)
    hands = there.poses, replace(there.poses, angles_deg=mirrored)
    both = [agreed_errors(poses, here.poses, symmetry, near_deg=within_deg) for poses in hands]
    near = [errors.angle_deg <= within_deg for errors in both]
    other_hand = bool(near[1].sum() > near[0].sum())
    errors, agree = both[other_hand], near[other_hand]
    if within_A is not None:
        agree &= errors.shift_A <= within_A
    scored = here.with_columns(**{ANGLE: errors.angle_deg, SHIFT: errors.shift_A})
    only_one = len(first) + len(second) - 2 * len(mine)
    return Consensus(scored, errors.angle_deg, errors.shift_A, agree, other_hand, only_one)


def _match_rows(first: Particles, second: Particles) -> tuple[IntArray, IntArray]:
    """Rows of either set that show the same image."""
    names = [image_names(p) for p in (first, second)]
    if names[0] is None or names[1] is None:
        if len(first) != len(second):
            raise InputError(
                f"consensus: {len(first)} and {len(second)} particles, and images without names to join them by"
            )
        return np.arange(len(first)), np.arange(len(second))
    for own, particles in zip(names, (first, second), strict=True):
        assert own is not None
        if not own.is_unique:
            raise InputError(f"{particles.where}: consensus: an image is there twice; verglas merge leaves it once")
    rows = names[1].get_indexer(names[0])
    mine = np.flatnonzero(rows >= 0)
    return mine, rows[mine].astype(np.int64)


@keeps_inputs("consensus")
def consensus_files(
    first: Path,
    second: Path,
    out: Path,
    symmetry: str = "C1",
    *,
    within_deg: float = 10.0,
    within_A: float | None = None,
    listener: ListenerChoice = "screen",
) -> Consensus:
    """:func:`pose_consensus` of two files; particles that agree are written with the first one's poses."""
    with shown_to(listener) as heard:
        heard.progress("files compared", 0, 1)
        compared = pose_consensus(
            read_particles(first), read_particles(second), symmetry, within_deg=within_deg, within_A=within_A
        )
        heard.progress("files compared", 1, 1)
    if not compared.agree.any():
        raise InputError(f"consensus: {first} and {second} agree on no particle to {within_deg:g} degrees")
    write_particles(out, compared.kept)
    return compared
