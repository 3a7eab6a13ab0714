"""Particle metadata of RELION and cryoSPARC, and where their images are."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from verglas.errors import FormatError, InputError, VerglasWarning
from verglas.io import cs
from verglas.io.frealign import from_cistem, is_cistem, read_par, write_par
from verglas.io.kinds import describe_tables, require_file
from verglas.io.mrc import PathLike, StackWriter
from verglas.io.mtf import mtf_tables
from verglas.io.rules import file_rules, written_name
from verglas.io.stack import ImageNames, StackPaths, StackSource, Where, build_source, source_from_names, stack_paths
from verglas.io.star import read_star, write_star
from verglas.io.star_columns import NotColumns, StarColumns, open_columns
from verglas.io.tomography import refuse_tomography
from verglas.types import Particles
from verglas.types import _columns as col
from verglas.types.contradictions import warn_of_contradictions
from verglas.types.ctf_ranges import refuse_outside
from verglas.types.images import ChangedSource, GridSource
from verglas.types.mtf import MTF_FILE, NO_FILE, is_mtf_table
from verglas.types.particles import SIGN_COLUMN

_CTF_IN_IMAGES = ("rlnCtfDataArePhaseFlipped", "rlnCtfDataAreCtfPremultiplied")
IMAGE, MICROGRAPH = "rlnImageName", "rlnMicrographName"
LARGE_BYTES = 64 << 20  # a STAR file from here on gets columns beside it


def read_particles(
    path: PathLike,
    stack: PathLike | None = None,
    path_map: Mapping[str, str] | None = None,
    *,
    passthrough: PathLike | None = None,
    stack_root: PathLike | None = None,
    any_pixel_size: bool = False,
) -> Particles:
    """Open particles; the metadata are read, the images wait until they are asked for.

    Parameters
    ----------
    path : path
        ``.star`` of RELION 3.0, 3.1 or later, or of cisTEM; ``.cs`` of cryoSPARC; ``.par`` of Frealign, which names no
        stack unless its head does: give ``stack``.
    stack : path, optional
        The stack that holds the images, or the folder that holds the stacks, instead of what the file says. One stack
        in place of several must hold one image for each row, in this order.
    path_map : mapping, optional
        Prefixes of stack names to replace: ``{"Extract/job012": "/data/stacks"}``.
    passthrough : path, optional
        cryoSPARC's passthrough file of the same particles; its fields are joined by uid.
    stack_root : path, optional
        Folder that the names of the stacks start from, or hold some of their last folders: a project that was moved.
    any_pixel_size : bool
        Read stacks whose header gives a pixel size more than 1 % from the metadata's, which is used.

    Returns
    -------
    Particles
        The table has RELION's labels; columns that verglas does not know are kept.

    Raises
    ------
    FormatError
        The file breaks its format; the message names the table, the line or the column.
    InputError
        ``stack`` is one stack in place of several, and has not one image for each row.

    Notes
    -----
    The particle table is the one that holds rlnImageName, whatever its name. Relative stack names are looked for
    beside the file, in the folders above it, then in the working directory. A STAR file of 64 MB and more gets columns
    beside it (:func:`verglas.io.open_columns`), so that it opens at once from the second time on.

    Examples
    --------
    >>> import tempfile, numpy as np, verglas as vg
    >>> p = vg.Particles.from_images(np.ones((5, 8, 8), np.float32), 2.0)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     vg.write_particles(f"{folder}/p.star", p)
    ...     q = vg.read_particles(f"{folder}/p.star")
    ...     len(q), q.box, q.pixel_size_A, q[[4, 1]].images().shape
    (5, 8, 2.0, (2, 8, 8))
    """
    path = Path(path)
    require_file(path)
    stacks = Where(stack, path_map, stack_root, any_pixel_size)
    columns: StarColumns | None = None
    if path.suffix.lower() == ".cs":
        found = cs.read_cs(path, stacks, passthrough)
        _refuse_impossible(col.Tables(found.table, found.optics_table, found.where))
        return found
    if passthrough is not None:
        raise InputError(f"{path}: passthrough is for cryoSPARC's .cs files")
    if path.suffix.lower() == ".par":
        tables: dict[str, Any] = {"particles": read_par(path)}
    else:
        columns, tables = _star_of(path)
        refuse_tomography(path, tables)
        tables = {n: from_cistem(_frame(t), path) if is_cistem(t) and IMAGE not in t else t for n, t in tables.items()}
    name = _particle_table(path, tables)
    table = _frame(tables[name])
    optics_name = next((n for n in ("optics", "data_optics") if n in tables and n != name), None)
    optics = _frame(tables[optics_name]) if optics_name else None
    where = str(path)
    parts = col.Tables(table, optics, where)
    pixel = col.pixel_sizes_A(parts)
    _refuse_impossible(parts)
    warn_of_contradictions(parts)
    if optics is None and "rlnOpticsGroup" in table:
        lost = "" if pixel is not None else "; pixel size, voltage and Cs are unknown unless that table has them"
        warnings.warn(
            f"{where}: table '{name}' has optics groups but there is no optics table{lost}",
            VerglasWarning,
            stacklevel=2,
        )
    paths = stack_paths(path, stacks)
    source = _source(table, None if columns is None else columns.images(IMAGE, name), paths, parts)
    if source.joined:
        table = table.assign(**{IMAGE: [f"{i + 1:06d}@{source.names[0]}" for i in source.frame]})
    tables = {**tables, **mtf_tables((table, optics), paths)}
    return Particles(table, source, optics_table=optics, tables=tables, table_name=name, where=where)


def _refuse_impossible(parts: col.Tables) -> None:
    """Poses that are no numbers, voltages and boxes that no image has: for all jobs, whether or not they use them.

    Here and not where they are used: a job that passes rows on would hand them to the next program.
    """
    for label in (*col.ANGLES, *col.SHIFTS_A, *col.SHIFTS_PX):
        if label in parts.particles:
            col.number_column(parts.particles[label], label, parts.where)
    for table, where in ((parts.optics, f"{parts.where}, optics table"), (parts.particles, parts.where)):
        for label, name in (("rlnVoltage", "voltage_kV"), ("rlnImageSize", "")):
            if table is None or label not in table:
                continue
            values = col.number_column(table[label], label, where, missing=True)
            if name:
                refuse_outside({name: values}, where, {name: label})
            elif (values < 1).any():
                raise InputError(f"{where}: {label}: expected at least 1 pixel, got {np.nanmin(values):g}")


def _star_of(path: Path) -> tuple[StarColumns | None, dict[str, Any]]:
    """The tables of a STAR file; of a large one by its columns, of which those that are numbers stay in their file."""
    if path.stat().st_size >= LARGE_BYTES:
        try:
            columns = open_columns(path)
        except NotColumns:
            return None, read_star(path)
        return columns, columns.as_tables()
    return None, read_star(path)


def _source(table: pd.DataFrame, images: ImageNames | None, paths: StackPaths, parts: col.Tables) -> StackSource:
    box, pixel = parts.value("rlnImageSize", optics_first=True), col.pixel_sizes_A(parts)
    if images is not None and (images.frame >= 0).all():
        return build_source(images, paths, box, pixel, parts.where)
    return source_from_names(table[IMAGE].to_numpy(dtype=object), paths, box, pixel, parts.where)


def _frame(table: Any) -> pd.DataFrame:
    return table if isinstance(table, pd.DataFrame) else pd.DataFrame({k: [v] for k, v in table.items()})


def _particle_table(path: Path, tables: Mapping[str, Any]) -> str:
    names = [name for name, table in tables.items() if IMAGE in table]
    if len(names) == 1:
        return names[0]
    have = "; ".join(
        f"'{name}' has {', '.join(list(table)[:6])}{', ...' if len(table) > 6 else ''}"
        for name, table in tables.items()
    )
    if not names:
        kind = "".join(f"; {words}" for words in [describe_tables(tables)] if words)
        raise FormatError(
            f"{path}: no table has the column rlnImageName, so there are no particles in it{kind} ({have})"
        )
    raise FormatError(f"{path}: several tables have the column rlnImageName: {', '.join(names)}; split the file")


# ---- writing


def write_particles(
    path: PathLike,
    particles: Particles,
    stack: PathLike | None = None,
    *,
    paths: str | None = None,
    dtype: str = "float32",
) -> None:
    """Write particles: every column, table and their order are kept.

    Parameters
    ----------
    path : path
        ``.star`` (RELION 3.1 and later), ``.cs`` (cryoSPARC) or ``.par`` (Frealign 9: poses and CTFs, of the images of
        one stack in its order).
    particles : Particles
    stack : path, optional
        Write the images, too, as one new MRC stack in this order. Images that lie only in memory always are, by
        default beside the metadata under the same name with the suffix ``.mrcs``.
    paths : "relion", "star" or "absolute", optional
        Names of stacks and micrographs: relative to the project's folder, which is where RELION looks from (the working
        directory, or the folder above it that holds RELION's pipeline), to the folder of the file, or absolute. The
        default is "relion", or what ``verglas --paths`` says. Names of files that are not found stay as they are.
    dtype : str
        Of a new stack: "float32", or "float16" in half the space.

    Notes
    -----
    Metadata of RELION 3.0 get what 3.1 needs: an optics table made from their columns and origins in angstrom; the
    old columns stay.

    Raises
    ------
    InputError
        Images in memory but no pixel size, or a suffix other than those.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in (".star", ".cs", ".par"):
        raise InputError(f"cannot write {path}: expected the suffix .star, .cs or .par")
    if not path.parent.is_dir():
        raise InputError(f"cannot write {path}: the folder {path.parent} does not exist")
    particles = as_stored(particles, restacked=stack is not None)
    if particles.source is not None and (stack is not None or not isinstance(particles.source, StackSource)):
        target = path.with_suffix(".mrcs") if stack is None else Path(stack)
        particles = _restack(particles, target, path.parent, paths, dtype)
    elif isinstance(particles.source, StackSource):
        particles = _rename_stacks(particles, path.parent, paths)
    if suffix == ".cs":
        cs.write_cs(path, particles)
    elif suffix == ".par":
        _check_one_stack(path, particles)
        write_par(path, particles)
    else:
        if SIGN_COLUMN in particles.table and (particles.table[SIGN_COLUMN] != 1).any():
            warnings.warn(
                f"{path}: the images are stored dark (blob/sign -1); verglas turns them white on reading, RELION does "
                "not: write white ones with stack= (verglas convert --restack)",
                VerglasWarning,
                stacklevel=2,
            )
        write_star(path, _star_tables(particles))


def _check_one_stack(path: Path, particles: Particles) -> None:
    source = particles.source
    if not isinstance(source, StackSource):
        return
    if len(np.unique(source.stack_of)) > 1 or not np.array_equal(source.frame, np.arange(len(source))):
        raise InputError(
            f"cannot write {path}: its rows stand for the images of one stack in their order, unlike these particles; "
            f"write that stack, too: {file_rules().word('restack' if file_rules().command_line else 'stack')}"
        )


def as_stored(particles: Particles, *, restacked: bool) -> Particles:
    """Undo what happens to images on reading, so that the labels fit the stack that the rows will name."""
    source = particles.source
    if not isinstance(source, ChangedSource):
        # a file's own rows stay as they are; images computed from plain ones say it where every program looks
        return particles if source is None or isinstance(source, StackSource) else _plain_in_groups(particles)
    if not restacked and isinstance(source.inner, StackSource):
        return particles.with_source(source.inner).with_columns(**source.labels())
    optics = particles.optics_table
    plain = particles.with_columns(**dict.fromkeys(source.stored))
    if optics is None:
        return plain
    none = {label: col.NO_ABERRATION.get(label, 0) for label in source.stored if label in optics}
    if isinstance(source, GridSource):
        none |= {"rlnImagePixelSize": source.pixel_size_A, "rlnImageSize": source.box}
    return Particles(
        plain.table,
        source,
        optics_table=_without_mtf(optics.assign(**none)),
        tables=plain.tables,
        table_name=plain.table_name,
        where=plain.where,
    )


def _plain_in_groups(particles: Particles) -> Particles:
    """Labels of the particle table by which all images are plain, moved to an optics table that says otherwise."""
    table, optics = particles.table, particles.optics_table
    if optics is None:
        return particles
    if col.GRID_BOX in table:
        grid = {"rlnImagePixelSize": particles.pixel_size_A, "rlnImageSize": particles.box}
        table, optics = table.drop(columns=[col.GRID_BOX, col.GRID_PIXEL]), optics.assign(**grid)
        particles = Particles(
            table,
            particles.source,
            optics_table=optics,
            tables=particles.tables,
            table_name=particles.table_name,
            where=particles.where,
        )
    none: dict[str, Any] = col.NO_ABERRATION | dict.fromkeys(_CTF_IN_IMAGES, 0)
    plain = [label for label, value in none.items() if label in table and (table[label] == value).all()]
    if not plain:
        return particles
    return Particles(
        table.drop(columns=plain),
        particles.source,
        optics_table=_without_mtf(optics.assign(**{label: none[label] for label in plain if label in optics})),
        tables=particles.tables,
        table_name=particles.table_name,
        where=particles.where,
    )


def _without_mtf(optics: pd.DataFrame) -> pd.DataFrame:
    """Without names of MTF files where no group has one: another program would look for a file called None."""
    none = MTF_FILE in optics and (optics[MTF_FILE] == NO_FILE).all()
    return optics.drop(columns=MTF_FILE) if none else optics


def _restack(
    particles: Particles, stack: Path, folder: Path, style: str | None, dtype: str, chunk_bytes: int = 64 << 20
) -> Particles:
    """Write the images and point the rows at them."""
    n, box = len(particles), particles.box
    if not n:
        raise InputError(f"cannot write {stack}: no particles")
    step = max(1, chunk_bytes // (4 * box * box))
    with StackWriter(stack, n, box, particles.pixel_size_A, dtype) as writer:
        for start in range(0, n, step):
            writer.append(particles.images(slice(start, start + step)))
    name = written_name(stack, folder, style)
    names = {IMAGE: [f"{i:06d}@{name}" for i in range(1, n + 1)]}
    if SIGN_COLUMN in particles.table:
        names[SIGN_COLUMN] = np.ones(n, np.float32)  # type: ignore[assignment]
    return particles.with_columns(**names)


def _rename_stacks(particles: Particles, folder: Path, style: str | None) -> Particles:
    """Names of stacks and micrographs by the rule of paths; those of files that are not there stay."""
    source = particles.source
    assert isinstance(source, StackSource)
    new: dict[int, str] = {}
    for number in np.unique(source.stack_of):
        try:
            name = written_name(source.paths.find(source.names[number]), folder, style)
        except FormatError:
            continue
        if name != source.names[number]:
            new[int(number)] = name
    particles = _micrographs_renamed(particles, source.paths.roots, folder, style)
    if IMAGE in particles.table and not new:
        return particles
    if IMAGE in particles.table:
        old = [(text, text.partition("@")[0] if "@" in text else "1") for text in particles.table[IMAGE]]
    else:
        old = [
            (f"{f + 1:06d}@{source.names[s]}", f"{f + 1:06d}")
            for s, f in zip(source.stack_of, source.frame, strict=True)
        ]
    names = [
        f"{index}@{new[s]}" if s in new else text
        for (text, index), s in zip(old, source.stack_of.tolist(), strict=True)
    ]
    return particles.with_columns(**{IMAGE: names})


def _micrographs_renamed(particles: Particles, roots: Sequence[Path], folder: Path, style: str | None) -> Particles:
    """RlnMicrographName by the same rule, so that both names of a row start from one folder."""
    if MICROGRAPH not in particles.table:
        return particles
    codes, names = pd.factorize(particles.table[MICROGRAPH])
    order, new = list(roots), []
    for name in map(str, names):
        home = next((root for root in order if (root / name).is_file()), None)
        if home is not None and order[0] != home:  # the others are most likely there, too
            order = [home, *(root for root in order if root != home)]
        new.append(name if home is None else written_name(home / name, folder, style))
    if new == list(names) or (codes < 0).any():
        return particles
    return particles.with_columns(**{MICROGRAPH: np.array(new, dtype=object)[codes]})


def _star_tables(particles: Particles) -> dict[str, Any]:
    """All tables in the order of the file they came from, optics first where that file had none."""
    table, optics = particles.table, particles.optics_table
    if optics is None:
        table, optics = _with_optics_table(particles)
    tables = {name: table for name, table in particles.tables.items() if not is_mtf_table(name)}
    if particles.table_name not in tables:
        tables[particles.table_name] = table
    if optics is not None and "optics" not in tables:
        tables = {"optics": optics, **tables}
    for name in tables:
        if name == particles.table_name:
            tables[name] = table
        elif name == "optics" and optics is not None:
            tables[name] = optics
    return tables


def _with_optics_table(particles: Particles) -> tuple[pd.DataFrame, pd.DataFrame | None]:
    """RELION 3.0 to 3.1: one optics group per distinct set of shared values; None where nothing is known."""
    parts = col.Tables(particles.table, None, particles.where)
    shared: dict[str, Any] = {"rlnImagePixelSize": col.pixel_sizes_A(parts)}
    for label in ("rlnVoltage", "rlnSphericalAberration", "rlnAmplitudeContrast", "rlnImageSize"):
        shared[label] = parts.value(label, optics_first=False)
    columns = {label: values for label, values in shared.items() if values is not None}
    if "rlnImagePixelSize" not in columns or not len(particles):
        warnings.warn(
            f"{particles.where}: written without an optics table, since the pixel size is unknown",
            VerglasWarning,
            stacklevel=4,
        )
        return particles.table, None
    if "rlnOpticsGroup" in particles.table:
        columns["rlnOpticsGroup"] = parts.value("rlnOpticsGroup", optics_first=False)
    table_of_values = np.column_stack(list(columns.values()))
    _, first, group = np.unique(table_of_values, axis=0, return_index=True, return_inverse=True)
    # groups are numbered in the order in which they first appear
    rank = np.argsort(np.argsort(first))
    number = rank[group.ravel()] + 1
    first = np.sort(first)
    groups: dict[str, Any] = {
        "rlnOpticsGroupName": [f"opticsGroup{i + 1}" for i in range(len(first))],
        "rlnOpticsGroup": np.arange(1, len(first) + 1),
    }
    groups.update({label: values[first] for label, values in columns.items() if label != "rlnOpticsGroup"})
    if "rlnImageSize" not in groups and particles.source is not None:
        try:
            groups["rlnImageSize"] = np.broadcast_to(particles.source.boxes(), len(particles))[first]
        except FormatError as error:  # the stacks are elsewhere: metadata alone can still be written
            warnings.warn(f"{error}; written without rlnImageSize", VerglasWarning, stacklevel=4)
    groups["rlnImageDimensionality"] = 2
    table = particles.table.copy(deep=False)
    table["rlnOpticsGroup"] = number
    poses = particles.poses
    if poses is not None and not all(label in table for label in col.SHIFTS_A):
        for axis, label in enumerate(col.SHIFTS_A):
            table[label] = poses.shifts_A[:, axis]
    return table, pd.DataFrame(groups)
