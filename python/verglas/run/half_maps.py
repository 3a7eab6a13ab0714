"""Maps of two half sets as references: reconstructed where none are given, and masked."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from verglas.assessment.solvent import find_solvent_mask
from verglas.errors import InputError
from verglas.masks import soft_sphere
from verglas.optics.refine import Pixels
from verglas.reconstruction import reconstruct_report
from verglas.types import Map, Particles

_FIRST_SHELL_A = 40.0  # solvent and what lies beside a particle are coarser


def maps_digest(maps: Sequence[Map] | None) -> str | None:
    """Fingerprint of the voxels of maps, which a run that goes on must find again; None where there are none."""
    if maps is None:
        return None
    voxels = hashlib.sha1(usedforsecurity=False)
    for one in maps:
        voxels.update(np.ascontiguousarray(one.data).data)
    return voxels.hexdigest()[:12]


def reconstruct_halves(
    particles: Particles, symmetry: str, threads: int | None, device: str = "cpu"
) -> tuple[Map, Map]:
    """Maps of rlnRandomSubset 1 and 2, from known poses."""
    made = reconstruct_report(particles, symmetry=symmetry, halves=True, device=device, threads=threads, listener=None)
    assert made.half_maps is not None
    return made.half_maps


def masked_halves(
    job: str, maps: tuple[Map, Map], mask: Map | None, diameter_A: float | None, threads: int | None
) -> tuple[Map, Map]:
    """Half maps times a mask; without one, times that of their mean.

    Raises
    ------
    InputError
        Maps or mask of different sizes.
    """
    if maps[0].data.shape != maps[1].data.shape:
        raise InputError(f"{job}: half maps of {maps[0].box} and {maps[1].box} px; expected one size")
    mean = Map(np.asarray((maps[0].data + maps[1].data) / 2, np.float32), maps[0].pixel_size_A)
    inside = mask or solvent_or_sphere(mean, diameter_A, threads)
    if inside.data.shape != mean.data.shape:
        raise InputError(f"{job}: the mask has {inside.box} px, the maps {mean.box}")
    first, second = (Map(np.asarray(m.data * inside.data, np.float32), m.pixel_size_A) for m in maps)
    return first, second


def solvent_or_sphere(mean: Map, diameter_A: float | None, threads: int | None) -> Map:
    """The solvent mask of a map, or a sphere where there is no molecule to draw one around."""
    mask = find_solvent_mask(mean, diameter_A=diameter_A, threads=threads)
    if mask is not None:
        return mask
    # The shells that a map of noise explains decide, in a sphere.
    reach_A = diameter_A or 0.7 * mean.box * mean.pixel_size_A
    sphere = soft_sphere(mean.data.shape, min(reach_A / 2 / mean.pixel_size_A, mean.box / 2 - 4), 4.0)
    return Map(np.asarray(sphere, np.float32), mean.pixel_size_A)


def pixels_between(job: str, particles: Particles, volume: Map, finest_A: float | None) -> Pixels:
    """Coefficients that a job on particles and half maps uses: from 40 A to a resolution, or nearly to Nyquist.

    Raises
    ------
    InputError
        Particles and map differ in box or pixel size.
    """
    box, pixel_A = particles.box, particles.pixel_size_A
    if volume.box != box or abs(volume.pixel_size_A / pixel_A - 1) > 0.01:
        raise InputError(
            f"{job}: the maps have {volume.box} px of {volume.pixel_size_A:g} A, the particles {box} px of "
            f"{pixel_A:g} A; resample the maps"
        )
    finest = (box - 1) // 2 - 1
    if finest_A is not None:
        finest = min(finest, int(box * pixel_A / finest_A))
    return Pixels(box, pixel_A, min(max(2, round(box * pixel_A / _FIRST_SHELL_A)), finest - 2), finest)
