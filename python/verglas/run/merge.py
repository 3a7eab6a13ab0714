"""Sets of particles joined to one, each image once; and the other hand of a map with its poses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from verglas._screen import ListenerChoice, shown_to
from verglas.errors import InputError
from verglas.io import make_folder, read_map, write_map
from verglas.io.mrc import PathLike
from verglas.io.particles import as_stored, read_particles, write_particles
from verglas.io.stack import StackPaths, StackSource
from verglas.map_geometry.hand import flip_hand, mirrored_angles
from verglas.optics.stored import FLIPPED, PREMULTIPLIED
from verglas.reconstruction.half_sets import images_of, near_pairs
from verglas.run.kept_inputs import keeps_inputs
from verglas.types import Map, Particles, Poses
from verglas.types._columns import NO_ABERRATION
from verglas.types.arrays import FloatArray, IntArray
from verglas.types.even_aberrations import EVEN_ZERNIKE
from verglas.types.mtf import is_mtf_table

_NAMES_OF_GROUP = ("rlnOpticsGroup", "rlnOpticsGroupName")
_NOTHING: dict[str, float | str] = {**NO_ABERRATION, EVEN_ZERNIKE: "[0]", FLIPPED: 0, PREMULTIPLIED: 0}


@dataclass(frozen=True)
class Merged:
    """What came of a merge.

    Attributes
    ----------
    particles : Particles
        In the order of the sets.
    read : tuple of int
        Particles of each set.
    duplicates : int
        Rows left out because an earlier one shows the same particle.
    left_out : tuple of str
        Columns that not every set has.
    """

    particles: Particles
    read: tuple[int, ...]
    duplicates: int
    left_out: tuple[str, ...]


def merge_particles(sets: Sequence[Particles | PathLike], *, distance_A: float | None = None) -> Merged:
    """Join sets of particles; an image that is there twice, or a particle picked twice, stays once: the first.

    Optics groups that agree in everything but number and name become one. Columns that some set lacks are left out.

    Parameters
    ----------
    sets : sequence of Particles or path
        One set alone is freed of its duplicates.
    distance_A : float, optional
        Particles of one micrograph closer than this are one; by default rows of one image, and those closer than a
        tenth of the box.

    Raises
    ------
    InputError
        No set; images in memory; other boxes; no optics table.

    Examples
    --------
    >>> import numpy as np, verglas as vg, tempfile, pathlib
    >>> from verglas.run.merge import merge_particles
    >>> star = pathlib.Path(tempfile.mkdtemp()) / "a.star"
    >>> vg.write_particles(star, vg.Particles.from_images(np.ones((3, 8, 8)), 2.0))
    >>> merged = merge_particles([star, star])
    >>> merged.read, merged.duplicates, len(merged.particles)
    ((3, 3), 3, 3)
    """
    if not sets:
        raise InputError("merge: expected one set of particles or more")
    if distance_A is not None and not distance_A > 0:
        raise InputError(f"merge: distance: expected more than 0 A, got {distance_A:g}")
    parts = [as_stored(s if isinstance(s, Particles) else read_particles(s), restacked=False) for s in sets]
    boxes = sorted({part.box for part in parts if len(part)})
    if len(boxes) > 1:
        raise InputError(
            f"merge: images of {' and '.join(map(str, boxes))} pixels; bring them to one box with resample"
        )
    groups, optics = _join_optics(parts)
    # A column that one set lacks would have to be invented for its particles; what is left out is listed.
    common = [str(name) for name in parts[0].table if all(name in part.table for part in parts)]
    left_out = sorted({str(name) for part in parts for name in part.table} - set(common))
    table = pd.concat([part.table[common] for part in parts], ignore_index=True)
    source = _join_sources(parts)
    table["rlnOpticsGroup"] = groups
    stacks = np.asarray(source.names, dtype=object)[source.stack_of]
    table["rlnImageName"] = [f"{f + 1:06d}@{name}" for f, name in zip(source.frame, stacks, strict=True)]
    curves = {name: t for part in parts for name, t in part.tables.items() if is_mtf_table(name)}
    union = Particles(table, source, optics_table=optics, tables=curves, where="the merged set")
    keep = _first_of_each(union, distance_A)
    number = tuple(len(part) for part in parts)
    return Merged(union[keep], number, int((~keep).sum()), tuple(left_out))


def _join_optics(parts: Sequence[Particles]) -> tuple[IntArray, pd.DataFrame]:
    tables = []
    for k, part in enumerate(parts):
        if part.optics_table is None or "rlnOpticsGroup" not in part.table:
            raise InputError(f"{part.where}: no optics table; verglas convert writes one")
        tables.append(part.optics_table.assign(_set=k))
    every = pd.concat(tables, ignore_index=True)
    # a set without a column of aberrations has none; without a label of what was done to images, nothing was
    every = every.fillna({label: none for label, none in _NOTHING.items() if label in every})
    # Groups are one if their optics are equal; their names and numbers were dealt out in every set alike.
    values = every.drop(columns=[*_NAMES_OF_GROUP, "_set"], errors="ignore")
    # dropna: groups with an unknown value would all get number -1, and be one.
    code = values.groupby(list(values), dropna=False, sort=False).ngroup().to_numpy() + 1
    rows = []
    for k, part in enumerate(parts):
        mine = (every["_set"] == k).to_numpy()
        new = dict(zip(every["rlnOpticsGroup"][mine], code[mine], strict=True))
        rows.append(part.table["rlnOpticsGroup"].map(new).to_numpy(np.int64))
    optics = every[~pd.Series(code).duplicated()].drop(columns="_set")
    optics = optics.assign(
        rlnOpticsGroup=np.arange(1, len(optics) + 1),
        rlnOpticsGroupName=[f"opticsGroup{i + 1}" for i in range(len(optics))],
    )
    return np.concatenate(rows), optics


def _join_sources(parts: Sequence[Particles]) -> StackSource:
    names: dict[str, int] = {}
    stack_of, frame = [], []
    for part in parts:
        source = part.source
        if not isinstance(source, StackSource):
            raise InputError(f"{part.where}: its images lie in no stack; write them with verglas convert --restack")
        stacks = np.unique(source.stack_of)
        new = np.zeros(len(source.names), np.int32)
        for k in stacks:
            # Sets read from different folders may name different files alike: whole paths tell them apart.
            new[k] = names.setdefault(str(source.path(int(k)).resolve()), len(names))
        stack_of.append(new[source.stack_of])
        frame.append(source.frame)
    # Boxes and pixel sizes are read from the headers when images are: a list of thousands of stacks is not opened now.
    unknown = np.full(len(names), np.nan)
    rows = np.concatenate(frame)
    return StackSource(
        list(names), np.concatenate(stack_of), rows, StackPaths(()), unknown, unknown, "merge", np.arange(len(rows))
    )


def _first_of_each(particles: Particles, distance_A: float | None) -> npt.NDArray[np.bool_]:
    keep = images_of(particles) == np.arange(len(particles))
    if distance_A is None:
        return keep
    pairs = near_pairs(particles, distance_A)
    if pairs is None:
        raise InputError("merge: a distance needs rlnMicrographName, rlnCoordinateX and rlnCoordinateY in every set")
    # In the order of the rows: who is left out takes nobody with it, as a chain of neighbours would.
    in_order = np.sort(pairs, axis=1)
    for first, second in in_order[np.lexsort(in_order.T[::-1])]:
        if keep[first]:
            keep[second] = False
    return keep


def flip_particles(particles: Particles) -> Particles:
    """Poses of the same images for the mirrored map (:func:`verglas.map_geometry.flip_hand`).

    Raises
    ------
    InputError
        No poses.
    """
    poses = particles.poses
    if poses is None:
        raise InputError(f"{particles.where}: no poses (rlnAngleRot, rlnAngleTilt, rlnAnglePsi)")
    angles: FloatArray = mirrored_angles(poses.angles_deg)
    return particles.with_poses(Poses(angles, poses.shifts_A))


def flip_map(volume: Map) -> Map:
    """The mirror image of a map: the other hand."""
    return volume.with_data(flip_hand(volume.data))


@keeps_inputs("merge")
def merge_files(
    sets: Sequence[PathLike], out: PathLike, *, distance_A: float | None = None, listener: ListenerChoice = "screen"
) -> Merged:
    """:func:`merge_particles` of files, written to ``out``; the listener is told of every file read."""
    parts: list[Particles] = []
    with shown_to(listener) as heard:
        for path in sets:
            parts.append(read_particles(path))
            heard.progress("files read", len(parts), len(sets))
    union = merge_particles(parts, distance_A=distance_A)
    write_particles(out, union.particles)
    return union


@keeps_inputs("flip-hand")
def flip_files(files: Sequence[PathLike], out: PathLike, *, listener: ListenerChoice = "screen") -> list[Path]:
    """The other hand of maps and particles, written to a folder under the same names; the listener is told of each.

    Raises
    ------
    InputError
        Two files of one name, or a file that would be written over itself.
    """
    folder = Path(out)
    targets = [folder / Path(name).name for name in files]
    if len(set(targets)) < len(targets):
        raise InputError("flip-hand: two files of one name would be written to one")
    # All before the first is written: half a folder of flipped files looks like a whole one.
    for name, target in zip(files, targets, strict=True):
        if target.exists() and target.samefile(name):
            raise InputError(f"flip-hand: {target} would be written over itself; give another folder")
    make_folder(folder)
    with shown_to(listener) as heard:
        for number, (name, target) in enumerate(zip(files, targets, strict=True), 1):
            if target.suffix.lower() in (".star", ".cs"):
                write_particles(target, flip_particles(read_particles(name)))
            else:
                write_map(target, flip_map(read_map(name)))
            heard.progress("files flipped", number, len(files))
    return targets
