"""``verglas check-conventions``: whether poses and CTFs of a file mean the same in every format."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from verglas import simulate
from verglas.errors import InputError
from verglas.image import correlation_coefficient
from verglas.io import read_particles, write_particles
from verglas.map_geometry import flip_hand
from verglas.reconstruction import project
from verglas.types import ArraySource, Map, Particles
from verglas.types.arrays import FloatArray

_BOX, _MOST = 48, 50
_AGREES = 0.999


@dataclass(frozen=True)
class ConventionCheck:
    """One reader.

    Attributes
    ----------
    name : str
        Of the format.
    correlation : float
        Of projections of a chiral phantom at the poses that were read with those at the original poses, the smallest.
    mirror : float
        The same with the mirror image of the phantom, the mean: what a wrong hand would give.
    agrees : bool
    """

    name: str
    correlation: float
    mirror: float
    agrees: bool


def check_conventions(path: str | Path) -> list[ConventionCheck]:
    """Project a chiral phantom at the poses and CTFs of a file, through every reader, and compare.

    The first particles' metadata are written as RELION 3.1 and as 3.0 STAR (shifts in pixels), and as cryoSPARC .cs,
    read again, and a phantom without symmetry is projected at what was read: a sign, an axis, an order of angles or a
    unit that differs shows as a correlation below 1.

    Parameters
    ----------
    path : path
        STAR or CS file with poses.

    Returns
    -------
    list of ConventionCheck

    Raises
    ------
    InputError
        The file has no poses.
    """
    particles = read_particles(path)
    if particles.poses is None:
        raise InputError(f"{path}: no poses (rlnAngleRot, rlnAngleTilt, rlnAnglePsi) to check")
    few = particles[: min(_MOST, len(particles))]
    pixel_A = few.pixel_size_A
    # Empty images: only what stands in the table is tried.
    small = few.with_source(ArraySource(np.zeros((len(few), few.box, few.box), np.float32), pixel_A))
    phantom = simulate.density(simulate.phantom(_BOX, pixel_A, 0.6 * _BOX * pixel_A, seed=7), _BOX, pixel_A)
    truth = _projections(phantom, small)
    mirrored = _projections(Map(flip_hand(phantom.data), pixel_A), small)
    mirror = float(np.mean([correlation_coefficient(a, b) for a, b in zip(truth, mirrored, strict=True)]))
    findings = []
    with tempfile.TemporaryDirectory() as folder:
        for name, file, images in (
            ("RELION 3.1 STAR", "a.star", small),
            ("RELION 3.0 STAR, shifts in pixels", "b.star", _in_pixels(small)),
            ("cryoSPARC .cs", "c.cs", small),
        ):
            write_particles(Path(folder) / file, images)
            again = _projections(phantom, read_particles(Path(folder) / file))
            worst = min(correlation_coefficient(a, b) for a, b in zip(truth, again, strict=True))
            findings.append(ConventionCheck(name, round(float(worst), 6), round(mirror, 3), bool(worst >= _AGREES)))
    return findings


def _projections(phantom: Map, particles: Particles) -> FloatArray:
    poses = particles.poses
    assert poses is not None
    return np.asarray(project(phantom, poses, particles.optics), np.float64)


def _in_pixels(particles: Particles) -> Particles:
    """As RELION 3.0 wrote it: one table, shifts in pixels."""
    poses, optics = particles.poses, particles.optics
    assert poses is not None
    x, y = (poses.shifts_A / particles.pixel_size_A).T
    plain = particles.with_columns(
        rlnOriginX=x,
        rlnOriginY=y,
        rlnOriginXAngst=None,
        rlnOriginYAngst=None,
        rlnOpticsGroup=None,
        rlnVoltage=optics.voltage_kV,
        rlnSphericalAberration=optics.cs_mm,
        rlnAmplitudeContrast=optics.amplitude_contrast,
        # RELION 3.0 knows micrometres of the detector over magnification: at 10,000 that number is angstroms.
        rlnMagnification=np.full(len(particles), 10000.0),
        rlnDetectorPixelSize=np.full(len(particles), particles.pixel_size_A),
    )
    return Particles(plain.table, plain.source, table_name="", where=particles.where)
