"""Projections of a map at given poses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from verglas import fourier, gridding, ops
from verglas.errors import InputError
from verglas.geometry import euler_to_matrix
from verglas.reconstruction.ewald import SideBands, Sign, project_bands
from verglas.types import Optics, Particles, Poses
from verglas.types.convert import MapLike, map_of, poses_of

_BATCH_PIXELS = 1 << 24  # pixels per batch of transforms: 128 MB of complex64 half transforms at most


def project(
    map: MapLike,
    poses: Poses | Particles | str | Path,
    optics: Optics | None = None,
    shift: bool = True,
    *,
    ewald: bool = False,
    ewald_sign: Sign = "positive",
    threads: int | None = None,
) -> npt.NDArray[np.float32]:
    r"""Clean projections of a map: sums of voxels along the ray, CTF-modulated if optics are given.

    Frequencies beyond shell (box - 1) // 2, the corners of the transform, are zero.

    Parameters
    ----------
    map : Map or path
        A cubic map.
    poses : Poses, Particles or path
        Orientations and shifts of n projections; of particles, theirs.
    optics : Optics, optional
        Contrast-transfer parameters of the n projections, or of one for all.
    shift : bool
        Whether to apply the shifts (the particle then sits at minus ``poses.shifts_A``).
    ewald : bool
        Both side bands of every image, each a slice on Ewald's sphere (:mod:`verglas.reconstruction.ewald`), in place
        of one flat slice.
    ewald_sign : {"positive", "negative"}
        Whether the electrons travel along or against the +z of the turned particle.
    threads : int, optional
        Threads; all by default.

    Returns
    -------
    (n, box, box) float32

    Raises
    ------
    InputError
        The map is not a cube, there are not as many optics as poses or none for ``ewald``, or a sign without it.

    Examples
    --------
    >>> import numpy as np, verglas as vg
    >>> m = vg.Map(np.zeros((16, 16, 16)), 2.0)
    >>> m.data[8, 8, 8] = 1
    >>> vg.project(m, vg.Poses([[10, 20, 30]])).shape
    (1, 16, 16)
    """
    map = map_of(map, "project: map")
    poses = poses_of(poses, "project: poses")
    n, box = len(poses), map.box
    if optics is not None and len(optics) not in (1, n):
        raise InputError(f"project: {n} poses but {len(optics)} optics; give one for all or one for each")
    if not ewald and ewald_sign != "positive":
        raise InputError(f"project: ewald_sign={ewald_sign} has no effect without ewald=True")
    if ewald and optics is None:
        raise InputError("project: ewald needs optics: voltage and phase part the two side bands")
    grid = ops.Grid(box)
    spectrum = gridding.to_grid(map.data, grid, threads=threads)
    matrices = euler_to_matrix(poses.angles_deg)
    # Minus: poses hold the shift that brings a particle to the centre; here it is moved to where it lay.
    displacement = -poses.shifts_A / map.pixel_size_A if shift else None
    out = np.empty((n, box, box), np.float32)
    step = max(1, _BATCH_PIXELS // box**2)
    for begin in range(0, n, step):
        part = slice(begin, min(begin + step, n))
        ctf = bands = None
        common: dict[str, Any] = {"shifts_px": None if displacement is None else displacement[part], "threads": threads}
        if optics is not None:
            params = optics.as_params()
            params = params[part] if len(params) == n else np.repeat(params, part.stop - begin, axis=0)
            ctf = ops.ctf(params, box, map.pixel_size_A, threads=threads)
            if ewald:
                bands = SideBands.of(params, box, map.pixel_size_A, ewald_sign, None, threads=threads)
        if bands is not None and ctf is not None:
            slices = project_bands(spectrum, grid, matrices[part], bands, ctf, **common)
        else:
            slices = ops.project(spectrum, grid, matrices[part], ctf=ctf, **common)
        out[part] = fourier.inverse(slices, (box, box), threads=threads)
    return out
