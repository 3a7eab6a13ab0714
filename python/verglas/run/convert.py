"""One file format into another: what ``verglas convert`` does."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from verglas.errors import InputError
from verglas.io import cs, read_map, read_particles, read_star, write_map, write_particles, write_picks
from verglas.io.coordinates import LISTED
from verglas.run.extract_inputs import all_picks

PARTICLES = (".star", ".cs", ".par")
COORDINATES = (".box", ".cbox", ".json", ".pos", ".csv", ".tsv", ".txt")
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
    one_file : bool
        All coordinates in one STAR file, instead of RELION's list of one file per micrograph.
    """

    stack: Path | None = None
    path_map: Mapping[str, str] = field(default_factory=dict)
    passthrough: Path | None = None
    restack: Path | None = None
    pixel_size_A: float | None = None
    dtype: str = "float32"
    one_file: bool = False


def kind_of(path: str | os.PathLike[str]) -> str:
    """``"particles"``, ``"map"`` or ``"coordinates"``, by the suffix; a folder holds coordinates of other pickers.

    Raises
    ------
    InputError
        Neither.

    Examples
    --------
    >>> kind_of("a/particles.cs"), kind_of("b.mrc.gz"), kind_of("CBOX/mic.cbox")
    ('particles', 'map', 'coordinates')
    """
    suffixes = [suffix.lower() for suffix in Path(path).suffixes]
    if suffixes and suffixes[-1] in PARTICLES:
        return "particles"
    # The ending of the compression hides that of the format.
    if suffixes and suffixes[-1] in COMPRESSED:
        suffixes.pop()
    if suffixes and suffixes[-1] in MAPS:
        return "map"
    if (suffixes and suffixes[-1] in COORDINATES) or Path(path).is_dir():
        return "coordinates"
    raise InputError(
        f"{path}: cannot tell the format by the suffix; expected {', '.join(PARTICLES)} for particles, "
        f"{', '.join(MAPS)}, with {' or '.join(COMPRESSED)} if compressed, for maps, or {', '.join(COORDINATES)} for "
        "coordinates"
    )


def kind_of_source(path: str | os.PathLike[str]) -> str:
    """As :func:`kind_of`; picks of cryoSPARC and RELION's lists of coordinate files by what they hold.

    Raises
    ------
    InputError
        Neither.
    """
    kind, path = kind_of(path), Path(path)
    if kind != "particles" or not path.is_file():
        return kind
    if path.suffix.lower() == ".cs":
        fields = cs.load(path).dtype.names or ()
        return "coordinates" if "blob/path" not in fields and "location/center_x_frac" in fields else kind
    listed = path.suffix.lower() == ".star" and any(LISTED in table for table in read_star(path).values())
    return "coordinates" if listed else kind


def check_kinds(source: str | os.PathLike[str], target: str | os.PathLike[str]) -> str:
    """Kind of the source, where the target can hold it; coordinates become STAR files.

    Raises
    ------
    InputError
        It cannot.
    """
    kind, wanted = kind_of_source(source), kind_of(target)
    if kind == "coordinates" and Path(target).suffix.lower() != ".star":
        raise InputError(f"cannot convert {source} (coordinates) into {target}: coordinates are written as .star")
    if kind not in ("coordinates", wanted):
        raise InputError(f"cannot convert {source} ({kind}) into {target} ({wanted})")
    return kind


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
    kind = check_kinds(source, target)
    # By file, not by name: links and relative paths lead to the same one.
    if Path(target).exists() and os.path.samefile(source, target):
        raise InputError(f"{target}: source and target are the same file")
    if kind == "coordinates":
        return _convert_coordinates(Path(source), Path(target), options)
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


def _convert_coordinates(source: Path, target: Path, options: ConvertOptions) -> dict[str, Any]:
    """Of one file, or of all files of a folder, which must be of one format."""
    files = [source]
    if source.is_dir():
        files = sorted(f for f in source.iterdir() if f.suffix.lower() in COORDINATES and f.is_file())
        suffixes = sorted({f.suffix.lower() for f in files})
        if len(suffixes) != 1:
            held = f"files of {' and '.join(suffixes)}" if suffixes else "none"
            raise InputError(f"{source}: expected files of one of {', '.join(COORDINATES)}, the folder holds {held}")
    picks = all_picks(files)
    written = write_picks(target, picks, one_file=options.one_file)
    return {
        "kind": "coordinates",
        "micrographs": len(picks),
        "picks": sum(len(p) for p in picks.values()),
        "columns": sorted({label for p in picks.values() for label in p.columns}),
        "files": len(written),
        "written": str(target),
    }
