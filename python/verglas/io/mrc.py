"""MRC maps and stacks.

Headers, modes and byte orders come from mrcfile; images are then read with plain sequential reads, so that a stack
of any size costs no more memory than what is asked for. Format: MRC2014 (Cheng et al. 2015, J. Struct. Biol. 192,
146-150), with mode 101 (4-bit) as documented by IMOD.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, cast

import mrcfile
import numpy as np
import numpy.typing as npt

from verglas.errors import FormatError, InputError, VerglasWarning
from verglas.io.atomic import atomic_path
from verglas.io.mrc_header import PACKED_4BIT, MrcHeader, PathLike, check_size, compression_of, open_plain, read_header
from verglas.io.plain import PlainFile
from verglas.io.rules import MAP_DTYPES, file_rules
from verglas.io.spider import SpiderHeader, read_spider, spider_header
from verglas.types import Map
from verglas.types.arrays import IntArray
from verglas.types.profile import count_read

# Other files may be of SPIDER, which has no suffix of its own.
MRC_SUFFIXES = (".mrc", ".mrcs", ".map", ".ccp4", ".st", ".rec", ".gz", ".bz2")
_MOST_BYTES = 1 << 40  # of a map, which is read as a whole; packed files cannot be checked by their size
_COARSE, _LOST = 0.03, 0.3  # rounding beside the standard deviation: 0.1 % of the power, which is said, and 10 %
_SAME_PIXEL = 1e-3  # relative; headers are float32 and often rounded to three decimals


# ---- reading sections


def unpack_4bit(packed: npt.NDArray[np.uint8], nx: int) -> npt.NDArray[np.uint8]:
    """(..., row_bytes) to (..., nx): two values a byte, the first in the low four bits (IMOD, SerialEM)."""
    values = np.empty((*packed.shape[:-1], 2 * packed.shape[-1]), dtype=np.uint8)
    values[..., 0::2] = packed & 15
    values[..., 1::2] = packed >> 4
    return values[..., :nx]


def pack_4bit(values: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """The inverse of :func:`unpack_4bit`; a row of odd length is padded with 0."""
    if values.shape[-1] % 2:
        values = np.concatenate([values, np.zeros((*values.shape[:-1], 1), np.uint8)], axis=-1)
    return (values[..., 0::2] | (values[..., 1::2] << 4)).astype(np.uint8)


def decode_sections(header: MrcHeader, raw: npt.NDArray[np.uint8]) -> npt.NDArray[Any]:
    """Bytes of whole sections to (n, ny, nx) in the stored dtype."""
    _, ny, nx = header.shape
    if header.mode == PACKED_4BIT:
        return unpack_4bit(raw.reshape(-1, ny, header.row_bytes), nx)
    return raw.view(header.dtype).reshape(-1, ny, nx)


def read_sections(
    header: MrcHeader, frames: IntArray, out: npt.NDArray[np.float32], at: IntArray, *, chunk_bytes: int = 8 << 20
) -> None:
    """Read sections ``frames`` into ``out[at]``, in as few large sequential reads as their order on disk allows.

    Frames are sorted; neighbours on disk are read together, and so are those apart by less than 256 KiB, where
    reading on costs less than a seek. float32 whose order in ``out`` is that on disk goes there directly.
    """
    if not len(frames):
        return
    order = np.argsort(frames, kind="stable")
    frames, at = frames[order], at[order]
    section = header.section_bytes
    # Gaps below 256 kB are read along: on disks and network file systems a seek costs more.
    near = max(1, (256 << 10) // section)
    most = max(1, chunk_bytes // section)
    direct = np.dtype(header.dtype) == out.dtype and out.flags.c_contiguous
    buffer = np.empty(0, dtype=np.uint8)
    with open(header.path, "rb", buffering=0) as handle:
        for a, b in _runs(frames, near, most):
            first, count = int(frames[a]), int(frames[b - 1] - frames[a]) + 1
            handle.seek(header.offset + first * section)
            whole = count == b - a and bool((np.diff(frames[a:b]) == 1).all())
            if direct and whole and bool((np.diff(at[a:b]) == 1).all()):
                _fill(handle, out[at[a] : at[a] + count].reshape(-1).view(np.uint8), header.path)
                continue
            if len(buffer) < count * section:
                buffer = np.empty(count * section, dtype=np.uint8)
            raw = buffer[: count * section]
            _fill(handle, raw, header.path)
            sections = decode_sections(header, raw)
            out[at[a:b]] = sections if whole else sections[frames[a:b] - first]


def _runs(frames: IntArray, near: int, most: int) -> Iterator[tuple[int, int]]:
    """Slices [a, b) of sorted frames to read in one go."""
    cuts = np.flatnonzero(np.diff(frames) > near) + 1
    for a, b in zip(np.r_[0, cuts], np.r_[cuts, len(frames)], strict=True):
        while a < b:
            stop = int(np.searchsorted(frames[a:b], frames[a] + most, side="left")) + int(a)
            yield int(a), stop
            a = stop


def _fill(handle: Any, raw: npt.NDArray[np.uint8], path: Path) -> None:
    view, position = memoryview(cast(Any, raw)), 0
    while position < len(view):
        count = handle.readinto(view[position:])
        if not count:
            raise FormatError(f"{path}: ends {len(view) - position} bytes early; was it changed while being read?")
        position += count
    count_read(position)


def read_stack(path: PathLike, frames: npt.ArrayLike | None = None) -> npt.NDArray[np.float32]:
    """Images of a stack.

    Parameters
    ----------
    path : path
        An MRC file, plain or compressed by gzip or bzip2 (read from a temporary copy), or a stack of SPIDER.
    frames : (m,) int, optional
        Which images, from 0, in the order wanted; all by default.

    Returns
    -------
    (m, y, x) float32

    Raises
    ------
    FormatError
        Not a readable stack, or an index beyond it.
    """
    spider = spider_header(path) if Path(path).suffix.lower() not in MRC_SUFFIXES else None
    if spider is not None:
        images = read_spider(spider)
        return images[_in_stack(path, frames, len(images))]
    header = read_header(path)
    numbers = _in_stack(path, frames, header.shape[0])
    out = np.empty((len(numbers), *header.shape[1:]), dtype=np.float32)
    plain = PlainFile(header.path)  # as long as it lives, a compressed file's copy lives
    read_sections(replace(header, path=plain.plain), numbers, out, np.arange(len(numbers)))
    return out


def _in_stack(path: PathLike, frames: npt.ArrayLike | None, count: int) -> IntArray:
    numbers = np.arange(count) if frames is None else np.atleast_1d(np.asarray(frames, dtype=np.int64))
    bad = numbers[(numbers < 0) | (numbers >= count)]
    if bad.size:
        raise FormatError(f"{path}: image {bad[0]} (from 0) asked for, but the stack has {count}")
    return numbers


# ---- maps

_GIVE_PIXEL = "pixel_size_A, or write one (verglas convert --pixel-size)"


def read_map(path: PathLike, pixel_size_A: float | None = None) -> Map:
    """Read a map.

    Parameters
    ----------
    path : path
        MRC, MAP or CCP4, modes 0, 1, 2, 6, 12, 101; plain, gzip or bzip2. Or a volume of SPIDER.
    pixel_size_A : float, optional
        Overrides the header; a header that says otherwise gives a warning.

    Returns
    -------
    Map
        (z, y, x) float32, axes in that order whatever order the file stores them in.

    Raises
    ------
    FormatError
        The file breaks its format, or voxels are not cubic.
    InputError
        The header has no pixel size and none is given.

    Examples
    --------
    >>> import tempfile, numpy as np, verglas as vg
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     vg.write_map(f"{folder}/a.mrc.gz", vg.Map(np.ones((4, 4, 4), np.float32), 1.5))
    ...     vg.read_map(f"{folder}/a.mrc.gz").pixel_size_A
    1.5
    """
    spider = spider_header(path) if Path(path).suffix.lower() not in MRC_SUFFIXES else None
    if spider is not None:
        return _spider_map(spider, pixel_size_A)
    header = read_header(path)
    if header.section_bytes * header.shape[0] > _MOST_BYTES:
        nz, ny, nx = header.shape
        raise FormatError(f"{path}: the header promises {nx} x {ny} x {nz} values, more than a terabyte")
    with open_plain(header.path) as handle:
        handle.seek(header.offset)
        # One byte more than promised shows that a packed file, whose size says nothing, goes on.
        payload = handle.read(header.section_bytes * header.shape[0] + 1)
    if compression_of(header.path):
        check_size(header, header.offset + len(payload))
    raw = np.frombuffer(payload, dtype=np.uint8, count=header.section_bytes * header.shape[0])
    data = decode_sections(header, raw).astype(np.float32)
    # stored as (sections, rows, columns); where x, y and z stand among them
    stored = [header.axes[2], header.axes[1], header.axes[0]]
    data = np.ascontiguousarray(data.transpose([stored.index(axis) for axis in (3, 2, 1)]))
    return Map(data, _map_pixel(header, pixel_size_A), header.origin_A)


def stated_pixel_A(path: PathLike) -> float:
    """The pixel size along x that a map's header gives, 0 where it has none."""
    spider = spider_header(path) if Path(path).suffix.lower() not in MRC_SUFFIXES else None
    return float(spider.pixel_size_A or 0.0) if spider is not None else float(read_header(path).voxel_A[0])


def _spider_map(header: SpiderHeader, override: float | None) -> Map:
    if header.stack:
        raise FormatError(f"{header.path}: a SPIDER stack of {header.shape[0]} images, expected a volume")
    if override is None and not header.pixel_size_A:
        raise InputError(f"{header.path}: a SPIDER volume, whose header has no pixel size; give {_GIVE_PIXEL}")
    return Map(read_spider(header), float(override or header.pixel_size_A))


def _map_pixel(header: MrcHeader, override: float | None) -> float:
    in_header = header.voxel_A[0]
    if override is not None:
        if in_header and abs(in_header / override - 1) > _SAME_PIXEL:
            warnings.warn(
                f"{header.path}: pixel size {in_header:.6g} A in the header, {override:g} A used as asked",
                VerglasWarning,
                stacklevel=3,
            )
        return float(override)
    if min(header.voxel_A) <= 0:
        raise InputError(f"{header.path}: the header has no pixel size; give {_GIVE_PIXEL}")
    if max(header.voxel_A) / min(header.voxel_A) > 1 + _SAME_PIXEL:
        sizes = " x ".join(f"{v:.6g}" for v in header.voxel_A)
        raise FormatError(f"{header.path}: voxels of {sizes} A are not cubic; resample the map, or give {_GIVE_PIXEL}")
    return in_header


def write_map(path: PathLike, map: Any, dtype: str | None = None) -> None:
    """Write a map; pixel size and origin always go into the header.

    Parameters
    ----------
    path : path
        ``.mrc`` or ``.map``, with ``.gz`` or ``.bz2`` for a compressed file.
    map : Map
        Or a result that has one, as a local resolution.
    dtype : str, optional
        ``float32`` (mode 2), ``float16`` (12), ``int8`` (0), ``int16`` (1), ``uint16`` (6) or ``uint4`` (101); by
        default what ``verglas --map-dtype`` says, or float32. A map that float16 by that rule would spoil is written as
        float32, with a warning.

    Raises
    ------
    InputError
        A value is not finite, or a type cannot hold the values.
    """
    if isinstance(getattr(map, "map", None), Map):
        map = map.map
    if not isinstance(map, Map):
        raise InputError(f"write_map: expected a Map, got {type(map).__name__}; wrap it: Map(array, pixel_size_A)")
    path = Path(path)
    compression = {".gz": "gzip", ".bz2": "bzip2"}.get(path.suffix.lower())
    bad = map.data.size - int(np.count_nonzero(np.isfinite(map.data)))
    if bad:
        raise InputError(f"cannot write {path}: {bad} voxels are NaN or infinite")
    values = _by_rule(map.data, str(path)) if dtype is None else as_stored(map.data, dtype, str(path))
    with atomic_path(path) as temporary, mrcfile.new(temporary, compression=compression) as f:
        # as int8, since mrcfile widens uint8 to 16 bits
        f.set_data(pack_4bit(values).view(np.int8) if dtype == "uint4" else values)
        f.set_volume()
        f.voxel_size = map.pixel_size_A
        for axis, value in zip("xyz", map.origin_A, strict=True):
            f.header.origin[axis] = value
        if dtype == "uint4":
            _mark_4bit(f.header, map.data.shape[2], map.pixel_size_A)
        f.add_label("verglas")


def _by_rule(data: npt.NDArray[Any], what: str) -> npt.NDArray[Any]:
    """As the rules in force store maps; hours of work do not end for a type that cannot hold their map."""
    try:
        return as_stored(data, file_rules().map_dtype, what)
    except InputError as error:
        if file_rules().map_dtype == MAP_DTYPES[0]:
            raise
        warnings.warn(f"{error}; written as float32", VerglasWarning, stacklevel=3)
        return as_stored(data, MAP_DTYPES[0], what)


def _mark_4bit(header: Any, nx: int, pixel_size_A: float) -> None:
    """Mrcfile wrote the packed bytes as mode 0; say what they are."""
    header.mode = PACKED_4BIT
    header.nx = header.mx = nx
    header.cella.x = nx * pixel_size_A


_DTYPES: dict[str, Any] = {
    "float32": np.float32,
    "float16": np.float16,
    "int8": np.int8,
    "int16": np.int16,
    "uint16": np.uint16,
    "uint4": np.uint8,
}


def as_stored(data: npt.NDArray[Any], dtype: str, what: str) -> npt.NDArray[Any]:
    """Cast, refusing what would change integers or overflow."""
    if dtype not in _DTYPES:
        raise InputError(f"{what}: cannot store {dtype!r}; expected one of {', '.join(_DTYPES)}")
    if np.iscomplexobj(data):
        raise InputError(f"{what}: the data are complex; images and maps are real: take .real, or the modulus")
    kind = _DTYPES[dtype]
    if data.dtype == kind and dtype != "uint4":
        return data
    if np.issubdtype(kind, np.floating):
        with np.errstate(over="ignore"):
            stored = data.astype(kind)
        if np.isinf(stored).any() and not np.isinf(data).any():
            raise InputError(f"{what}: values up to {np.abs(data).max():g} do not fit {dtype}; use float32")
        if dtype == "float16":
            _check_grain(data, stored, what)
        return stored
    low, high = (0, 15) if dtype == "uint4" else (np.iinfo(kind).min, np.iinfo(kind).max)
    if data.size and not (data.min() >= low and data.max() <= high and (data == np.rint(data)).all()):
        raise InputError(
            f"{what}: {dtype} holds integers from {low} to {high}, but the values go from {data.min():g} to "
            f"{data.max():g}"
            + ("" if (data == np.rint(data)).all() else " and are not integers")
            + "; use float16 or float32"
        )
    return data.astype(kind)


def _check_grain(data: npt.NDArray[Any], stored: npt.NDArray[Any], what: str) -> None:
    """Values far from zero beside what tells them apart: float16 has 11 bits, of which the mean then takes the most."""
    if not data.size or not np.isfinite(data).all():
        return
    axes = tuple(range(max(0, data.ndim - 2), data.ndim))  # of each image: those of a stack may differ in their means
    sd = float(np.sqrt(np.var(data, axis=axes, dtype=np.float64).mean()))
    error = float(np.sqrt(np.square(stored.astype(np.float64) - data).mean()))
    if error <= _COARSE * sd or not sd:
        return
    sentence = (
        f"{what}: float16 rounds these values (mean {data.mean(dtype=np.float64):g}, standard deviation {sd:.3g}) by "
        f"{100 * error / sd:.0f} % of their standard deviation; use float32, or subtract the mean and scale"
    )
    if error > _LOST * sd:
        raise InputError(sentence)
    warnings.warn(sentence, VerglasWarning, stacklevel=4)


# ---- stacks


class StackWriter:
    """Write a stack piece by piece; the file appears under its name when all images are there.

    Parameters
    ----------
    path : path
        ``.mrcs`` or ``.mrc``.
    n, box : int
        Number of images and their side.
    pixel_size_A : float
    dtype : str
        As in :func:`write_map`.

    Examples
    --------
    >>> import tempfile, numpy as np
    >>> from verglas.io import StackWriter, read_stack
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with StackWriter(f"{folder}/a.mrcs", 3, 4, 1.5) as stack:
    ...         stack.append(np.zeros((2, 4, 4)))
    ...         stack.append(np.ones((1, 4, 4)))
    ...     read_stack(f"{folder}/a.mrcs").mean(axis=(1, 2)).tolist()
    [0.0, 0.0, 1.0]
    """

    def __init__(self, path: PathLike, n: int, box: int, pixel_size_A: float, dtype: str = "float32") -> None:
        if n < 1 or box < 1 or not (np.isfinite(pixel_size_A) and pixel_size_A > 0):
            raise InputError(f"cannot write {path}: {n} images of {box} pixels of {pixel_size_A} A; all must exceed 0")
        if dtype not in _DTYPES:
            raise InputError(f"{path}: cannot store {dtype!r}; expected one of {', '.join(_DTYPES)}")
        self.path, self.n, self.box, self.pixel_size_A, self.dtype = Path(path), n, box, float(pixel_size_A), dtype
        self._done = 0

    def __enter__(self) -> StackWriter:
        self._target = atomic_path(self.path)
        temporary = self._target.__enter__()
        try:
            # mrcfile makes the header; the images then go straight to the file
            with mrcfile.new(temporary) as f:
                f.set_data(np.zeros((1, 1, 1), np.int8 if self.dtype == "uint4" else _DTYPES[self.dtype]))
                f.set_image_stack()
                h = f.header
                h.nx = h.mx = h.ny = h.my = self.box
                # mz = 1 says a stack of images; mz = nz would say a volume (MRC2014).
                h.nz, h.mz = self.n, 1
                h.cella.x = h.cella.y = self.box * self.pixel_size_A
                h.cella.z = self.pixel_size_A
                # statistics not determined: MRC2014 asks for max < min, mean < both, rms < 0
                h.dmin, h.dmax, h.dmean, h.rms = 0, -1, -2, -1
                if self.dtype == "uint4":
                    h.mode = PACKED_4BIT
                f.add_label("verglas")
                head = np.array(h).tobytes()
            self._handle = open(temporary, "wb")
            self._handle.write(head)
        except BaseException as error:
            self._target.__exit__(type(error), error, error.__traceback__)
            raise
        return self

    def append(self, images: npt.ArrayLike) -> None:
        """Add (m, box, box) images after those already written."""
        data = np.asarray(images)
        if data.ndim != 3 or data.shape[1:] != (self.box, self.box):
            raise InputError(f"{self.path}: expected (m, {self.box}, {self.box}) images, got shape {data.shape}")
        if self._done + len(data) > self.n:
            raise InputError(f"{self.path}: {self._done + len(data)} images for a stack of {self.n}")
        stored = as_stored(data, self.dtype, str(self.path))
        packed = pack_4bit(stored) if self.dtype == "uint4" else stored.astype(stored.dtype.newbyteorder("="))
        np.ascontiguousarray(packed).tofile(self._handle)
        self._done += len(data)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._handle.close()
        if kind is None and self._done != self.n:
            short = InputError(f"{self.path}: {self._done} images written, {self.n} announced")
            self._target.__exit__(InputError, short, None)
            raise short
        self._target.__exit__(kind, error, trace)


def write_stack(path: PathLike, images: npt.ArrayLike, pixel_size_A: float, dtype: str = "float32") -> None:
    """Write (n, box, box) images as an MRC stack; pixel size always goes into the header.

    Raises
    ------
    InputError
        No (n, box, box) array, or an integer type cannot hold the values exactly.
    """
    data = np.asarray(images)
    if data.ndim != 3 or data.shape[1] != data.shape[2]:
        raise InputError(f"cannot write {path}: expected (n, box, box) images, got shape {data.shape}")
    with StackWriter(path, len(data), data.shape[1], pixel_size_A, dtype) as stack:
        stack.append(data)
