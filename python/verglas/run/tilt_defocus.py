r"""Defocus of particles across a tilted micrograph, from their places and the geometry of the pair.

A particle at :math:`x` of the tilted image lies :math:`z = D_{3,1:2}\, M^{-1} (x - c)` above the plane of the image's
centre c (D the stage's turn, M the map of the plane of the specimen), and its underfocus differs by :math:`\pm z` from
that fitted to the whole micrograph. The sign is not in the coordinates: the underfocus grows with z if the electrons
travel along the +z of the turned specimen, and falls otherwise. It is asked of the data: both signs, and none, make
two half maps, and the sign is taken under which they agree best.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from verglas.errors import FormatError, InputError
from verglas.io import read_header, read_micrograph
from verglas.tilting import ConicalSettings, ConicalTilt, TiltGeometry, fsc_outside_cone
from verglas.tilting.projections import reconstruct_tilted
from verglas.types import Particles
from verglas.types.arrays import FloatArray

_LEAST_GAIN = 0.01  # of the mean FSC of half sets: less is chance
_STEEP = 1e-2  # cosine of the tilt below which places across the axis say nothing


def heights_A(
    positions_px: FloatArray, centres_px: FloatArray, geometries: Sequence[TiltGeometry], pixel_size_A: float
) -> FloatArray:
    """(n,) height of places in tilted micrographs above the plane of their centres.

    Parameters
    ----------
    positions_px, centres_px : (n, 2) float64
        x, y of the particles and of the centres of their tilted micrographs.
    geometries : n TiltGeometry
    pixel_size_A : float
        Of the micrographs.

    Returns
    -------
    (n,) float64
        0 where the tilt is 90 degrees.

    Examples
    --------
    >>> import numpy as np
    >>> from verglas.run.tilt_defocus import heights_A
    >>> from verglas.tilting import TiltGeometry
    >>> z = heights_A(np.array([[150.0, 40.0]]), np.array([[100.0, 100.0]]), [TiltGeometry(60.0, 0.0, 0.0)], 2.0)
    >>> bool(np.isclose(abs(z[0]), 2 * 50 * np.tan(np.radians(60))))
    True
    """
    out = np.zeros(len(positions_px))
    # Particles of one micrograph share a geometry.
    groups: dict[int, list[int]] = {}
    for row, geometry in enumerate(geometries):
        groups.setdefault(id(geometry), []).append(row)
    for rows in groups.values():
        geometry = geometries[rows[0]]
        if abs(np.cos(np.radians(geometry.tilt_deg))) > _STEEP:
            flat = (positions_px[rows] - centres_px[rows]) @ np.linalg.inv(geometry.matrix).T
            out[rows] = flat @ geometry.rotation[2, :2] * pixel_size_A
    return out


def micrograph_frame(name: str, pixel_size_A: float | None) -> tuple[FloatArray, float]:
    """Centre x, y (px) of a micrograph's file, and its pixel size."""
    try:
        header = read_header(name)
        rows, columns, pixel = header.shape[-2], header.shape[-1], header.voxel_A[0]
    except FormatError:
        micrograph = read_micrograph(name, pixel_size_A)
        rows, columns, pixel = *micrograph.data.shape, micrograph.pixel_size_A
    size = pixel_size_A or pixel
    if not size:
        raise InputError(f"{name}: no pixel size; give --pixel-size")
    return np.array([columns - 1, rows - 1]) / 2, float(size)


def with_defocus_moved(particles: Particles, by_A: FloatArray) -> Particles:
    """The particles with both defoci moved."""
    optics = particles.optics
    return particles.with_optics(
        replace(optics, defocus_u_A=optics.defocus_u_A + by_A, defocus_v_A=optics.defocus_v_A + by_A)
    )


def choose_sign(
    classes: Sequence[ConicalTilt], heights: Sequence[FloatArray], settings: ConicalSettings, *, threads: int | None
) -> tuple[int, dict[int, float]]:
    """The sign of the gradient under which the half sets of the classes agree best; 0 where none gains.

    Parameters
    ----------
    classes : sequence of ConicalTilt
        Made with one defocus for each micrograph.
    heights : sequence of (n,) float64
        Of the tilted particles of each class, A.
    settings : ConicalSettings
    threads : int, optional

    Returns
    -------
    (int, dict)
        -1, 0 or 1, and the mean FSC of each.
    """
    agreement: dict[int, float] = {}
    for sign in (0, 1, -1):
        means, sizes = [], []
        for one, z in zip(classes, heights, strict=True):
            moved = with_defocus_moved(one.tilted, sign * z)
            halves = [reconstruct_tilted(moved[start::2], settings, threads=threads) for start in (0, 1)]
            curve = fsc_outside_cone(halves[0], halves[1], one.missing.half_angle_deg).curve
            means.append(float(curve[1:].mean()))
            sizes.append(len(z))
        agreement[sign] = float(np.average(means, weights=sizes))
    best = max((1, -1), key=lambda sign: agreement[sign])
    return (best if agreement[best] > agreement[0] + _LEAST_GAIN else 0), agreement
