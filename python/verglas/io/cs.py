"""cryoSPARC particle files (.cs): one NumPy structured array, a field per property.

A field either means the same as a RELION label and is converted (``_CONVERTED``), or becomes a column of its own name
(``ctf/exp_group_id``; vectors one column per element, ``ctf/tilt_A[0]``). The table ``cryosparc_fields`` remembers
names, order and types, so that .cs -> STAR -> .cs gives the same fields back. Labels without a counterpart travel the
other way as ``star/<label>`` and ``star_optics/<label>``.

Formulas and their sources: docs/conventions.md, "Files".
"""

from __future__ import annotations

import hashlib
import math
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.spatial.transform import Rotation

from verglas.errors import FormatError, InputError, VerglasWarning
from verglas.geometry import euler_to_matrix, matrix_to_euler
from verglas.io.atomic import atomic_path
from verglas.io.kinds import require_file
from verglas.io.mrc import PathLike
from verglas.io.stack import ImageNames, StackSource, Where, build_source, stack_paths
from verglas.types import Particles, Poses
from verglas.types import _columns as col
from verglas.types.arrays import FloatArray
from verglas.types.mtf import is_mtf_table

FIELDS_TABLE = "cryosparc_fields"

_POSE, _SHIFT, _SHIFT_PIXEL = "alignments3D/pose", "alignments3D/shift", "alignments3D/psize_A"
_PATH, _INDEX, _SHAPE, _PIXEL, _SIGN = "blob/path", "blob/idx", "blob/shape", "blob/psize_A", "blob/sign"
_MICROGRAPH, _MICROGRAPH_SHAPE = "location/micrograph_path", "location/micrograph_shape"
_CENTRE = ("location/center_x_frac", "location/center_y_frac")

# field -> (label, scale, offset): label = field * scale + offset, in the particle table
_LINEAR = {
    "ctf/df1_A": ("rlnDefocusU", 1.0, 0.0),
    "ctf/df2_A": ("rlnDefocusV", 1.0, 0.0),
    "ctf/df_angle_rad": ("rlnDefocusAngle", 180 / np.pi, 0.0),
    "ctf/phase_shift_rad": ("rlnPhaseShift", 180 / np.pi, 0.0),
    "ctf/bfactor": ("rlnCtfBfactor", 1.0, 0.0),
    "ctf/scale": ("rlnCtfScalefactor", 1.0, 0.0),
    # Half sets and classes count from 0 here, from 1 in RELION.
    "alignments3D/split": ("rlnRandomSubset", 1.0, 1.0),
    "alignments3D/class": ("rlnClassNumber", 1.0, 1.0),
}
# field -> label in the optics table
_SHARED = {
    "ctf/accel_kv": "rlnVoltage",
    "ctf/cs_mm": "rlnSphericalAberration",
    "ctf/amp_contrast": "rlnAmplitudeContrast",
    _PIXEL: "rlnImagePixelSize",
}
_CONVERTED = {*_LINEAR, *_SHARED, _POSE, _SHIFT, _PATH, _INDEX, _SHAPE, _MICROGRAPH, *_CENTRE}

# what cryoSPARC expects in the slots blob and ctf, and the value of a field nothing is known about
_EXPECTED: dict[str, tuple[str, tuple[int, ...], Any]] = {
    "uid": ("<u8", (), None),
    _PATH: ("S", (), None),
    _INDEX: ("<u4", (), None),
    _SHAPE: ("<u4", (2,), None),
    _PIXEL: ("<f4", (), None),
    _SIGN: ("<f4", (), 1.0),
    "blob/import_sig": ("<u8", (), 0),
    "ctf/type": ("S", (), b"imported"),
    "ctf/exp_group_id": ("<u4", (), None),
    "ctf/accel_kv": ("<f4", (), None),
    "ctf/cs_mm": ("<f4", (), None),
    "ctf/amp_contrast": ("<f4", (), None),
    "ctf/df1_A": ("<f4", (), None),
    "ctf/df2_A": ("<f4", (), None),
    "ctf/df_angle_rad": ("<f4", (), None),
    "ctf/phase_shift_rad": ("<f4", (), 0.0),
    "ctf/scale": ("<f4", (), 1.0),
    "ctf/scale_const": ("<f4", (), 0.0),
    "ctf/shift_A": ("<f4", (2,), 0.0),
    "ctf/tilt_A": ("<f4", (2,), 0.0),
    "ctf/trefoil_A": ("<f4", (2,), 0.0),
    "ctf/tetra_A": ("<f4", (4,), 0.0),
    "ctf/anisomag": ("<f4", (4,), 0.0),
    "ctf/bfactor": ("<f4", (), 0.0),
    "alignments3D/split": ("<u4", (), None),
    _SHIFT: ("<f4", (2,), None),
    _POSE: ("<f4", (3,), None),
    _SHIFT_PIXEL: ("<f4", (), None),
    "alignments3D/class": ("<u4", (), None),
    _MICROGRAPH: ("S", (), None),
    _MICROGRAPH_SHAPE: ("<u4", (2,), None),
    _CENTRE[0]: ("<f4", (), None),
    _CENTRE[1]: ("<f4", (), None),
}
# Of these the shape is needed, and no value can be done without.
_FIXED = frozenset(_EXPECTED) - {"ctf/type"}
_FINITE = (_POSE, _SHIFT, _SHIFT_PIXEL, _PIXEL, *_CENTRE)
_HEADER_BYTES = 10_000_000
_NOT_TRANSLATED = ("rlnBeamTiltX", "rlnBeamTiltY", "rlnOddZernike", "rlnEvenZernike", "rlnMagMat00")


def pose_to_euler(pose: npt.ArrayLike) -> FloatArray:
    """CryoSPARC's rotation vectors (n, 3), radians, to rot, tilt, psi (n, 3), degrees.

    exp([pose]x) takes the particle's frame to the map's: it is the transpose of RELION's matrix A, so
    exp([pose]x) = Rz(rot) Ry(tilt) Rz(psi) with active factors.
    """
    matrices = Rotation.from_rotvec(np.asarray(pose, np.float64).reshape(-1, 3)).as_matrix()
    # Transposed: cryoSPARC's vectors turn the particle, RELION's angles the view.
    return matrix_to_euler(np.swapaxes(matrices, -1, -2))


def euler_to_pose(angles_deg: npt.ArrayLike) -> FloatArray:
    """The inverse of :func:`pose_to_euler`; vectors no longer than pi."""
    matrices = euler_to_matrix(np.asarray(angles_deg, np.float64).reshape(-1, 3))
    return Rotation.from_matrix(np.swapaxes(matrices, -1, -2)).as_rotvec()


# ---- reading


def load(path: PathLike) -> npt.NDArray[Any]:
    """The structured array of a .cs file."""
    path = Path(path)
    require_file(path)
    with open(path, "rb") as handle:
        start = handle.read(200)
    if start.startswith(b"version https://git-lfs"):
        raise FormatError(f"{path}: a pointer of Git LFS in place of the file; fetch the file itself (git lfs pull)")
    if not start.startswith(np.lib.format.MAGIC_PREFIX):
        text = start.isascii() and start.strip() != b""
        shown = f"; it is a text that starts {start[:40].decode()!r}" if text else ""
        raise FormatError(f"{path}: not a .cs file of cryoSPARC, which is an array of NumPy{shown}")
    try:
        # The default limit of 10,000 bytes guards eval on headers of strangers; a job of 100 classes leaves 14,000.
        array = np.load(path, allow_pickle=False, max_header_size=_HEADER_BYTES)
    except Exception as error:  # a damaged header is evaluated as Python: anything can come of it
        why = "it holds Python objects" if "pickle" in str(error) else "damaged, or cut off"
        raise FormatError(f"{path}: not a file as cryoSPARC writes it: {why}") from error
    if array.dtype.names is None or array.ndim != 1:
        raise FormatError(
            f"{path}: expected a structured array with one row per particle, got {array.dtype} of shape {array.shape}"
        )
    if array.dtype.hasobject:
        raise FormatError(f"{path}: not a file as cryoSPARC writes it: it holds Python objects")
    return _check_fields(path, array)


def count_rows(path: PathLike) -> int | None:
    """Rows of a .cs file by its header alone; None where it is none.

    Examples
    --------
    >>> import tempfile, numpy as np
    >>> from verglas.io.cs import count_rows
    >>> with tempfile.NamedTemporaryFile(suffix=".cs") as file:
    ...     np.save(file, np.zeros(7, [("uid", "u8")]))
    ...     _ = file.seek(0)
    ...     count_rows(file.name)
    7
    """
    try:
        with open(path, "rb") as file:
            version = np.lib.format.read_magic(file)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, _, _ = read(file, max_header_size=_HEADER_BYTES)
    except (OSError, ValueError, SyntaxError):
        return None
    return int(shape[0]) if shape else None


def _check_fields(path: Path, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The array, if the fields that are translated have the types and shapes that cryoSPARC gives them."""
    for name, (kind, shape, _) in _EXPECTED.items():
        if name not in (array.dtype.names or ()):
            continue
        field = array.dtype[name]
        kinds = "SU" if kind == "S" else "iufb"
        if field.base.kind not in kinds or (name in _FIXED and field.shape != shape):
            raise FormatError(
                f"{path}: field {name} is {field.base.name} of shape {field.shape}; expected "
                f"{'text' if kind == 'S' else 'numbers'} of shape {shape}"
            )
    for name in _FINITE:
        if name in (array.dtype.names or ()):
            with np.errstate(invalid="ignore"):
                values = array[name].astype(np.float64)
            bad = np.flatnonzero(~np.isfinite(values).all(axis=tuple(range(1, values.ndim))))
            if bad.size:
                raise FormatError(
                    f"{path}: field {name}, row {bad[0]} (from 0): {np.array2string(array[name][bad[0]])} is not finite"
                    f"{f' ({bad.size} rows)' if bad.size > 1 else ''}; take such particles out (cryoSPARC: subset)"
                )
    return array


def read_cs(path: Path, stacks: Where, passthrough: PathLike | None) -> Particles:
    """Open a .cs file; see :func:`verglas.io.read_particles`."""
    array = load(path)
    columns: dict[str, Any] = {name: array[name] for name in array.dtype.names or ()}
    if passthrough is not None:
        columns.update(_join_passthrough(path, columns, Path(passthrough)))
    fields = pd.DataFrame({"field": list(columns), "dtype": [_type_name(v) for v in columns.values()]})
    with np.errstate(invalid="ignore"):  # a NaN of damaged bits stays one: the job that needs the value names its row
        table, optics = _tables(path, columns, len(array))
    source = _source(path, columns, stacks)
    tables = {"optics": optics, "particles": table, FIELDS_TABLE: fields}
    return Particles(
        table, source, optics_table=optics if len(optics.columns) else None, tables=tables, where=str(path)
    )


def _join_passthrough(path: Path, columns: Mapping[str, Any], passthrough: Path) -> dict[str, Any]:
    """Fields that only the passthrough file has, in the order of the particles."""
    other = load(passthrough)
    names = other.dtype.names or ()
    if "uid" not in columns or "uid" not in names:
        raise FormatError(f"{passthrough}: joined by uid, but {path if 'uid' not in columns else passthrough} has none")
    order = np.argsort(other["uid"], kind="stable")
    at = np.searchsorted(other["uid"][order], columns["uid"]).clip(0, len(other) - 1)
    lost = np.flatnonzero(other["uid"][order][at] != columns["uid"]) if len(other) else np.arange(len(columns["uid"]))
    if lost.size:
        raise FormatError(
            f"{passthrough}: {lost.size} particles of {path} are missing, first uid {columns['uid'][lost[0]]}"
        )
    return {name: other[name][order][at] for name in names if name not in columns}


def _type_name(values: npt.NDArray[Any]) -> str:
    """``<f4`` or ``<f4:2``: no blanks, so that a STAR file holds it unquoted."""
    kind = "S" if values.dtype.kind in "SU" else values.dtype.str
    return kind if values.ndim == 1 else f"{kind}:{','.join(map(str, values.shape[1:]))}"


def _text(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    try:
        return (np.char.decode(values, "utf-8") if values.dtype.kind == "S" else values).astype(object)
    except UnicodeDecodeError as error:
        raise FormatError(f"a text of a .cs file is not UTF-8: {error.object[:60]!r}") from None


def _tables(path: Path, columns: Mapping[str, Any], n: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The particle and the optics table."""
    table: dict[str, Any] = {}
    if _PATH in columns and _INDEX in columns:
        names = _text(columns[_PATH])
        table["rlnImageName"] = [
            # Images count from 0 in cryoSPARC, from 1 in RELION; a ">" in front is no part of the path.
            f"{i:06d}@{p.removeprefix('>')}"
            for i, p in zip(columns[_INDEX] + 1, names, strict=True)
        ]
    table.update(location(columns))
    for field, (label, scale, offset) in _LINEAR.items():
        if field in columns:
            integer = columns[field].dtype.kind in "iu"
            table[label] = columns[field].astype(np.int64 if integer else np.float64) * (1 if integer else scale)
            table[label] = table[label] + (int(offset) if integer else offset)
    if _POSE in columns:
        table.update(zip(col.ANGLES, pose_to_euler(columns[_POSE]).T, strict=True))
    if _SHIFT in columns:
        # Shifts count the pixels of the alignment, which may have been run on binned images: not always those of the
        # blob.
        pixel = columns.get(_SHIFT_PIXEL, columns.get(_PIXEL))
        if pixel is None:
            raise FormatError(f"{path}: {_SHIFT} is in pixels, but there is neither {_SHIFT_PIXEL} nor {_PIXEL}")
        shifts = columns[_SHIFT].astype(np.float64) * pixel.astype(np.float64)[:, None]
        table.update(zip(col.SHIFTS_A, shifts.T, strict=True))
    optics, table["rlnOpticsGroup"] = _optics(columns, n)
    for field, values in columns.items():
        _keep_field(field, values, table, optics)
    groups = pd.DataFrame({label: values[:] for label, values in optics.items() if label != "first"})
    return pd.DataFrame(table, index=pd.RangeIndex(n)), groups


def location(columns: Mapping[str, Any]) -> dict[str, Any]:
    """Micrograph and coordinates in its pixels; cryoSPARC stores fractions of the sides."""
    table: dict[str, Any] = {}
    if _MICROGRAPH in columns:
        table["rlnMicrographName"] = [p.removeprefix(">") for p in _text(columns[_MICROGRAPH])]
    if all(name in columns for name in (*_CENTRE, _MICROGRAPH_SHAPE)):
        for label, field, axis in (("rlnCoordinateX", _CENTRE[0], 1), ("rlnCoordinateY", _CENTRE[1], 0)):
            # The shape is (y, x), unlike the names of the centre's fields.
            table[label] = columns[field].astype(np.float64) * columns[_MICROGRAPH_SHAPE][:, axis]
    return table


def _optics(columns: Mapping[str, Any], n: int) -> tuple[dict[str, Any], npt.NDArray[np.int64]]:
    """One group per exposure group and distinct values, numbered as they first appear."""
    shared = {label: columns[field].astype(np.float64) for field, label in _SHARED.items() if field in columns}
    if _SHAPE in columns:
        shared["rlnImageSize"] = columns[_SHAPE][:, 0].astype(np.int64)
    keys = [*shared.values()]
    if "ctf/exp_group_id" in columns:
        keys.append(columns["ctf/exp_group_id"])
    if not keys or not n:
        return {"first": np.zeros(0, np.int64)}, np.ones(n, dtype=np.int64)
    first, group = np.unique(np.column_stack(keys), axis=0, return_index=True, return_inverse=True)[1:]
    rank = np.argsort(np.argsort(first))
    first = np.sort(first)
    groups: dict[str, Any] = {
        "rlnOpticsGroupName": [f"opticsGroup{i + 1}" for i in range(len(first))],
        "rlnOpticsGroup": np.arange(1, len(first) + 1),
    }
    groups.update({label: values[first] for label, values in shared.items()})
    if _SHAPE in columns:
        groups["rlnImageDimensionality"] = np.full(len(first), 2)
    groups["first"] = first
    return groups, rank[group.ravel()] + 1


def _keep_field(field: str, values: npt.NDArray[Any], table: dict[str, Any], optics: dict[str, Any]) -> None:
    """A field without a counterpart, under its own name."""
    if field in _CONVERTED:
        return
    values = _text(values) if values.dtype.kind in "SU" else values
    if field.startswith("star_optics/"):
        optics[field.removeprefix("star_optics/")] = values[optics["first"]]
    elif field.startswith("star/"):
        table[field.removeprefix("star/")] = values
    elif values.ndim == 1:
        table[field] = values
    else:
        flat = values.reshape(len(values), math.prod(values.shape[1:]))
        table.update({f"{field}[{i}]": flat[:, i] for i in range(flat.shape[1])})


def _source(path: Path, columns: Mapping[str, Any], where: Where) -> StackSource | None:
    if _PATH not in columns or _INDEX not in columns:
        warnings.warn(
            f"{path}: no {_PATH} and {_INDEX}: metadata without images (is there a passthrough file?)",
            VerglasWarning,
            stacklevel=4,
        )
        return None
    stacks, stack_of = np.unique(columns[_PATH], return_inverse=True)
    names = [str(name).removeprefix(">") for name in _text(stacks)]
    shape = columns.get(_SHAPE)
    if shape is not None and (shape[:, 0] != shape[:, 1]).any():
        raise FormatError(f"{path}: {_SHAPE} of particle {np.flatnonzero(shape[:, 0] != shape[:, 1])[0]} is not square")
    box = None if shape is None else shape[:, 0].astype(np.float64)
    pixel = columns[_PIXEL].astype(np.float64) if _PIXEL in columns else None
    # blob/path starts at the project, a folder above the job that wrote the file
    images = ImageNames(names, stack_of.ravel(), columns[_INDEX].astype(np.int64))
    return build_source(images, stack_paths(path, where), box, pixel, str(path))


# ---- writing


def write_cs(path: Path, particles: Particles) -> None:
    """Write a .cs file; see :func:`verglas.io.write_particles`."""
    own = (particles.table_name, "optics", FIELDS_TABLE)
    others = [t for t in particles.tables if t not in own and not is_mtf_table(t)]
    if others:
        warnings.warn(
            f"{path}: a .cs file holds one table; left out: {', '.join(others)}", VerglasWarning, stacklevel=3
        )
    fields, labels = _fields(particles)
    fields.update(_remaining_fields(path, particles, labels))
    ordered = _in_order(particles, fields)
    array = np.empty(len(particles), dtype=[(k, v.dtype, v.shape[1:]) for k, v in ordered.items()])
    for name, values in ordered.items():
        array[name] = values
    with atomic_path(path) as temporary, open(temporary, "wb") as handle:
        np.save(handle, array, allow_pickle=False)


def _fields(particles: Particles) -> tuple[dict[str, Any], set[str]]:
    """The converted fields, and the labels they came from."""
    table, n = particles.table, len(particles)
    parts = col.Tables(table, particles.optics_table, particles.where)
    fields: dict[str, Any] = {}
    labels: set[str] = {"rlnOpticsGroup", "rlnOpticsGroupName", "rlnImageDimensionality"}
    if "rlnImageName" in table:
        frames, names = zip(*(_index_and_path(t) for t in table["rlnImageName"]), strict=True) if n else ((), ())
        fields[_PATH], fields[_INDEX] = np.array(names, dtype=bytes), np.array(frames, dtype=np.uint32)
        labels.add("rlnImageName")
        fields[_SHAPE] = np.repeat(np.asarray(_box_or_zero(particles, parts), np.uint32)[:, None], 2, axis=1)
        labels.add("rlnImageSize")
    for field, label in _SHARED.items():
        values = col.pixel_sizes_A(parts) if field == _PIXEL else parts.value(label, optics_first=True)
        if values is not None:
            fields[field] = values
            labels.add(label)
    for field, (label, scale, offset) in _LINEAR.items():
        if label in table:
            fields[field] = (col.number_column(table[label], label, particles.where) - offset) / scale
            labels.add(label)
    if "rlnMicrographName" in table:
        fields[_MICROGRAPH] = np.array([str(m).encode() for m in table["rlnMicrographName"]])
        labels.add("rlnMicrographName")
    shape = [f"{_MICROGRAPH_SHAPE}[{axis}]" for axis in (0, 1)]
    if all(label in table for label in shape):
        for label, field, size in (("rlnCoordinateX", _CENTRE[0], shape[1]), ("rlnCoordinateY", _CENTRE[1], shape[0])):
            if label in table:
                fields[field] = table[label].to_numpy(np.float64) / table[size].to_numpy(np.float64)
                labels.add(label)
    _pose_fields(particles, fields, labels)
    fields["ctf/exp_group_id"] = parts.group()
    fields["uid"] = _uids(table)
    return fields, labels


def _index_and_path(text: str) -> tuple[int, bytes]:
    index, at, name = text.partition("@")
    return (int(index) - 1, name.encode()) if at else (0, index.encode())


def _box_or_zero(particles: Particles, parts: col.Tables) -> npt.NDArray[Any]:
    sizes = parts.value("rlnImageSize", optics_first=True)
    if sizes is None and particles.source is not None:
        try:
            sizes = particles.source.boxes().astype(np.float64)
        except FormatError as error:
            warnings.warn(f"{error}; {_SHAPE} is written as 0", VerglasWarning, stacklevel=5)
    return np.broadcast_to(0 if sizes is None else sizes, len(particles))


def _pose_fields(particles: Particles, fields: dict[str, Any], labels: set[str]) -> None:
    poses: Poses | None = particles.poses
    if poses is None:
        return
    fields[_POSE] = euler_to_pose(poses.angles_deg)
    labels.update(col.ANGLES)
    pixel = fields.get(_PIXEL)
    if _SHIFT_PIXEL in particles.table:
        pixel = particles.table[_SHIFT_PIXEL].to_numpy(np.float64)
    if pixel is None:
        if poses.shifts_A.any():
            raise InputError(f"{particles.where}: cryoSPARC's shifts are in pixels, and the pixel size is unknown")
        pixel = np.ones(len(particles))
    fields[_SHIFT] = poses.shifts_A / pixel[:, None]
    fields[_SHIFT_PIXEL] = pixel
    labels.update((*col.SHIFTS_A, *col.SHIFTS_PX))


def _uids(table: pd.DataFrame) -> npt.NDArray[np.uint64]:
    """The file's uid, else one made from image name and row of its repetition: the same in every file."""
    if "uid" in table:
        return table["uid"].to_numpy(np.uint64)
    if "rlnImageName" not in table:
        return np.arange(1, len(table) + 1, dtype=np.uint64)
    again = table.groupby("rlnImageName", sort=False).cumcount()
    return np.array(
        [
            # A hash and not a running number: particle and passthrough files are joined by uid, and may be written
            # apart.
            int.from_bytes(hashlib.blake2b(f"{name}#{i}".encode(), digest_size=8).digest(), "little")
            for name, i in zip(table["rlnImageName"], again, strict=True)
        ],
        dtype=np.uint64,
    )


def _remaining_fields(path: Path, particles: Particles, labels: set[str]) -> dict[str, Any]:
    """Columns of other names: cryoSPARC's own put together again, RELION's under star/ and star_optics/."""
    fields: dict[str, Any] = {}
    vectors: dict[str, list[Any]] = {}
    for label in particles.table.columns:
        values = _to_array(particles.table[label])
        name, bracket, _ = label.partition("[")
        if label in labels:
            continue
        if "/" in label and bracket:
            vectors.setdefault(name, []).append(values)
        elif "/" in label or label == "uid":
            fields[label] = values
        else:
            fields[f"star/{label}"] = values
    fields.update({name: np.column_stack(parts) for name, parts in vectors.items()})
    optics = particles.optics_table
    if optics is not None:
        group = col.Tables(particles.table, optics, particles.where).group()
        for label in optics.columns:
            if label not in labels:
                fields[f"star_optics/{label}"] = _to_array(optics[label])[group]
        ignored = [label for label in _NOT_TRANSLATED if label in optics]
        if ignored:
            warnings.warn(
                f"{path}: {', '.join(ignored)} are kept as star_optics/ fields; cryoSPARC ignores them",
                VerglasWarning,
                stacklevel=4,
            )
    return fields


def _to_array(values: pd.Series[Any]) -> npt.NDArray[Any]:
    if pd.api.types.is_numeric_dtype(values):
        return values.to_numpy()
    return np.array([str(v).encode() for v in values], dtype=bytes)


def _in_order(particles: Particles, fields: dict[str, Any]) -> dict[str, Any]:
    """Fields in the order and types of the file they came from, else in cryoSPARC's; the rest after them."""
    n = len(particles)
    field_list = particles.tables.get(FIELDS_TABLE)
    types = {} if field_list is None else dict(zip(field_list["field"], field_list["dtype"], strict=True))
    for name, (kind, shape, default) in _EXPECTED.items():
        if field_list is None and name not in fields and default is not None and name.split("/")[0] in ("blob", "ctf"):
            fields[name] = np.full((n, *shape), default)
        if name not in types and name in fields:
            types[name] = kind + (f":{shape[0]}" if shape else "")
    ordered = {}
    for name in [*(k for k in types if k in fields), *(k for k in fields if k not in types)]:
        values, kind = np.asarray(fields[name]), types.get(name, "").partition(":")[0]
        if kind and kind != "S":
            # Rounded before the cast, which would cut 2.9999999 down to 2.
            values = np.rint(values) if np.dtype(kind).kind in "iu" and values.dtype.kind == "f" else values
            values = values.astype(kind)
        shape = types.get(name, "").partition(":")[2]
        ordered[name] = values.reshape(n, *map(int, shape.split(","))) if shape else values
    return ordered
