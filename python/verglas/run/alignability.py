"""Alignability of some particles of a run, for the jobs that ask for it."""

from __future__ import annotations

import numpy as np

from verglas.assessment import Alignability, alignability, judge_alignability
from verglas.optics.refine import Calibration, Setting, calibrate
from verglas.run.ctf_refine_inputs import prepare
from verglas.run.half_maps import masked_halves, pixels_between
from verglas.types import Map, Particles
from verglas.types.arrays import IntArray
from verglas.types.verdict import Finding

_SHARE_OF_BOX = 0.6  # diameter, where no mask says it


def alignability_of_some(
    setting: Setting,
    calibration: Calibration,
    count: int,
    *,
    diameter_A: float | None,
    mask: Map | None,
    symmetry: str,
    seed: int,
) -> tuple[IntArray, Alignability]:
    """Rows of at most so many particles at random, in order, and their alignability."""
    pixels, n = setting.pixels, len(setting.particles)
    rows = np.arange(n)
    if n > count:
        rows = np.sort(np.random.default_rng((seed, 20)).choice(n, count, replace=False))
    across = diameter_A or _diameter_A(mask) or _SHARE_OF_BOX * pixels.box * pixels.pixel_size_A
    return rows, alignability(setting, calibration, rows, diameter_A=across, symmetry=symmetry)


def _diameter_A(mask: Map | None) -> float:
    """Twice the largest distance of the mask's inside from the centre; 0 without."""
    inside = np.argwhere(mask.data > 0.5) if mask is not None else np.empty((0, 3))
    if mask is None or not len(inside):
        return 0.0
    return float(2 * np.linalg.norm(inside - mask.box // 2, axis=1).max() * mask.pixel_size_A)


def judge_poses(
    particles: Particles,
    half_maps: tuple[Map, Map],
    mask: Map | None,
    *,
    count: int,
    symmetry: str = "C1",
    threads: int | None = None,
) -> Finding:
    """Whether some of the particles are at the poses that their images are for, by the other half's map.

    Raises
    ------
    InputError
        No poses, no CTFs, no images, no half sets; maps of another size.
    """
    prepared = prepare(particles, fits_ctf=False, needs_halves=True, job="validate")
    masked = masked_halves("validate", half_maps, mask, None, threads)
    pixels = pixels_between("validate", prepared.particles, masked[0], None)
    setting = Setting.of(prepared.particles, prepared.half, masked, pixels, threads)
    told = alignability_of_some(
        setting, calibrate(setting), count, diameter_A=None, mask=mask, symmetry=symmetry, seed=0
    )[1]
    return judge_alignability(told)
