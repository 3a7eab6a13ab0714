"""One file format into another: what ``verglas convert`` does."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from verglas.errors import InputError
from verglas.io import read_map, read_particles, write_map, write_particles

PARTICLES = (".star", ".cs", ".par")
MAPS = (".mrc", ".map", ".ccp4")
COMPRESSED = (".gz", ".bz2")


@dataclass(frozen=True)
class ConvertOptions:
    """What :func:`convert` may be told.

    Attributes
    ----------
    stack, path_map, passthrough
        As in :func:`verglas.read_particles`.
    restack : path, optional
        Write the images of particles into this new MRC stack, too.
    pixel_size_A : float, optional
        Pixel size of a map, instead of its header's.
    dtype : str
        Type of the voxels of a map, see :func:`verglas.write_map`.
    """

    stack: Path | None = None
    path_map: Mapping[str, str] = field(default_factory=dict)
    passthrough: Path | None = None
    restack: Path | None = None
    pixel_size_A: float | None = None
    dtype: str = "float32"


def kind_of(path: str | os.PathLike[str]) -> str:
    """``"particles"`` or ``"map"``, by the suffix.

    Raises
    ------
    InputError
        Neither.

    Examples
    --------
    >>> kind_of("a/particles.cs"), kind_of("b.mrc.gz")
    ('particles', 'map')
    """
    suffixes = [suffix.lower() for suffix in Path(path).suffixes]
    if suffixes and suffixes[-1] in PARTICLES:
        return "particles"
    # The ending of the compression hides that of the format.
    if suffixes and suffixes[-1] in COMPRESSED:
        suffixes.pop()
    if suffixes and suffixes[-1] in MAPS:
        return "map"
    raise InputError(
        f"{path}: cannot tell the format by the suffix; expected {', '.join(PARTICLES)} for particles or "
        f"{', '.join(MAPS)}, with {' or '.join(COMPRESSED)} if compressed, for maps"
    )


def convert(
    source: str | os.PathLike[str], target: str | os.PathLike[str], options: ConvertOptions | None = None
) -> dict[str, Any]:
    """Read ``source``, write ``target``; the formats follow from the suffixes.

    Returns
    -------
    dict
        What was converted: kind, number of particles or shape, pixel size, what the target holds.

    Raises
    ------
    InputError
        A suffix that is not known, particles into a map, or a file onto itself.
    """
    options = options or ConvertOptions()
    kind = kind_of(source)
    if kind_of(target) != kind:
        raise InputError(f"cannot convert {source} ({kind}) into {target} ({kind_of(target)})")
    # By file, not by name: links and relative paths lead to the same one.
    if Path(target).exists() and os.path.samefile(source, target):
        raise InputError(f"{target}: source and target are the same file")
    if kind == "map":
        density = read_map(source, options.pixel_size_A)
        write_map(target, density, options.dtype)
        return {
            "kind": kind,
            "shape_zyx": list(density.data.shape),
            "pixel_size_A": density.pixel_size_A,
            "origin_A": list(density.origin_A),
            "dtype": options.dtype,
            "written": str(target),
        }
    particles = read_particles(source, options.stack, options.path_map, passthrough=options.passthrough)
    write_particles(target, particles, options.restack)
    halves = particles.half_sets
    return {
        "kind": kind,
        "particles": len(particles),
        "optics_groups": 0 if particles.optics_table is None else len(particles.optics_table),
        "poses": particles.poses is not None,
        "half_sets": None if halves is None else [int((halves == half).sum()) for half in (1, 2)],
        "columns": particles.table.shape[1],
        "written": str(target),
    }
