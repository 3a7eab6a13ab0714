"""MRC headers: what a file holds, checked against its size.

Format: MRC2014 (Cheng et al. 2015, J. Struct. Biol. 192, 146-150), with mode 101 (4-bit) and the signedness flag of
mode 0 as documented by IMOD. Field layout from mrcfile.
"""

from __future__ import annotations

import bz2
import gzip
import os
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
from mrcfile.dtypes import HEADER_DTYPE

from verglas.errors import FormatError, VerglasWarning
from verglas.io.kinds import require_file

PathLike = str | os.PathLike[str]

_HEADER_BYTES = 1024
_MODES = {0: "i1", 1: "i2", 2: "f4", 6: "u2", 12: "f2"}
PACKED_4BIT = 101
_REASONS = {3: "complex integers", 4: "a Fourier transform"}
_IMOD_STAMP = 1146047817  # header bytes 153-156 of files written by IMOD; the next word holds its flags


@dataclass(frozen=True)
class MrcHeader:
    """What a reader needs to know of an MRC file.

    Attributes
    ----------
    path : Path
    shape : (nz, ny, nx)
        Sections, rows, columns as stored.
    mode : int
        0, 1, 2, 6, 12 or 101.
    dtype : str
        NumPy dtype of the stored values, byte order included; ``"|u1"`` for mode 101.
    offset : int
        Bytes before the first value (1024 + extended header).
    voxel_A : (x, y, z)
        Voxel size along columns, rows, sections; 0 where the header does not say.
    origin_A : (x, y, z)
        ORIGIN, or NXSTART... times the voxel size where ORIGIN is zero.
    axes : (mapc, mapr, maps)
        Which of x = 1, y = 2, z = 3 runs along columns, rows, sections.
    """

    path: Path
    shape: tuple[int, int, int]
    mode: int
    dtype: str
    offset: int
    voxel_A: tuple[float, float, float]
    origin_A: tuple[float, float, float]
    axes: tuple[int, int, int]

    @property
    def row_bytes(self) -> int:
        """Bytes of one row; rows of mode 101 are padded to whole bytes (IMOD)."""
        nx = self.shape[2]
        return (nx + 1) // 2 if self.mode == PACKED_4BIT else nx * np.dtype(self.dtype).itemsize

    @property
    def section_bytes(self) -> int:
        """Bytes of one section."""
        return self.row_bytes * self.shape[1]

    @property
    def pixel_size_A(self) -> float:
        """Pixel size in x; 0 where the header does not say."""
        return self.voxel_A[0]


def compression_of(path: Path) -> str | None:
    """``"gzip"``, ``"bzip2"`` or None, by the first bytes (files are often misnamed)."""
    with open(path, "rb") as handle:
        magic = handle.read(3)
    return "gzip" if magic[:2] == b"\x1f\x8b" else "bzip2" if magic == b"BZh" else None


@contextmanager
def open_plain(path: Path) -> Iterator[BinaryIO]:
    """The file's bytes, decompressed on the fly."""
    packed = compression_of(path)
    opener: Any = {"gzip": gzip.open, "bzip2": bz2.open, None: open}[packed]
    try:
        with opener(path, "rb") as handle:
            yield cast(BinaryIO, handle)
    except (OSError, EOFError, zlib.error, ValueError) as error:
        # those of the unpackers have no number; one with a number is of the file system
        if packed is None or isinstance(error, FormatError) or (isinstance(error, OSError) and error.errno):
            raise
        raise FormatError(f"{path}: not a {packed} file that can be read (cut off?): {error}") from None


def read_header(path: PathLike) -> MrcHeader:
    """Read and check the header of an MRC file (compressed or not).

    Raises
    ------
    FormatError
        No MRC header, unknown mode, dimensions that are not positive, or a file shorter than its header promises.
    """
    path = require_file(path)
    with open_plain(path) as handle:
        raw = handle.read(_HEADER_BYTES)
    if len(raw) < _HEADER_BYTES:
        raise FormatError(f"{path}: {len(raw)} bytes, but an MRC header has {_HEADER_BYTES}; not an MRC file, or cut")
    header = _parse_header(path, raw)
    if compression_of(path) is None:
        check_size(header, path.stat().st_size)
    return header


def _parse_header(path: Path, raw: bytes) -> MrcHeader:
    order = _byte_order(path, raw)
    h = np.frombuffer(raw, dtype=HEADER_DTYPE.newbyteorder(order))[0]
    mode = int(h["mode"])
    if mode != PACKED_4BIT and mode not in _MODES:
        modes = ", ".join(map(str, (*_MODES, PACKED_4BIT)))
        what = f" ({_REASONS[mode]})" if mode in _REASONS else ""
        raise FormatError(f"{path}: MRC mode {mode}{what} is not supported; expected one of {modes}")
    shape = tuple(int(h[k]) for k in ("nz", "ny", "nx"))
    if min(shape) < 1:
        raise FormatError(f"{path}: the header gives {shape[2]} x {shape[1]} x {shape[0]} values; each must be over 0")
    if int(h["nsymbt"]) < 0:
        raise FormatError(f"{path}: the header gives an extended header of {int(h['nsymbt'])} bytes")
    voxel = _voxel_A(h)
    origin = tuple(float(h["origin"][k]) for k in "xyz")
    start = [float(h[k]) for k in ("nxstart", "nystart", "nzstart")]
    # Two conventions for one thing: ORIGIN in angstrom (MRC2014), NSTART in voxels (CCP4). ORIGIN counts where both are
    # set.
    if not any(origin) and any(start):
        origin = tuple(s * v for s, v in zip(start, voxel, strict=True))
    axes = tuple(int(h[k]) for k in ("mapc", "mapr", "maps"))
    if sorted(axes) != [1, 2, 3]:
        if any(axes):
            warnings.warn(
                f"{path}: axis order {axes} in the header is no permutation of 1, 2, 3; taken as x, y, z",
                VerglasWarning,
                stacklevel=4,
            )
        axes = (1, 2, 3)
    dtype = np.dtype("u1" if mode == PACKED_4BIT or (mode == 0 and _unsigned_bytes(raw, order)) else _MODES[mode])
    stored = dtype.newbyteorder(cast(Any, order)).str
    return MrcHeader(
        path,
        cast(Any, shape),
        mode,
        stored,
        _HEADER_BYTES + int(h["nsymbt"]),
        voxel,
        cast(Any, origin),
        cast(Any, axes),
    )


def _byte_order(path: Path, raw: bytes) -> str:
    """By the machine stamp; files older than MRC2000 have none: then the order in which the header makes sense."""
    stamp = raw[212:214]
    has_map = raw[208:211] == b"MAP"
    # A stamp by which the header makes no sense is not believed where the other order makes it.
    if stamp in (b"\x44\x44", b"\x44\x41", b"\x11\x11"):
        order = ">" if stamp == b"\x11\x11" else "<"
        if _is_plausible(raw, order) or not _is_plausible(raw, "<>"[order == "<"]):
            return order
    fits = [order for order in "<>" if _is_plausible(raw, order)]
    if not fits:
        if has_map:
            return "<"  # let the caller say what is wrong with it
        raise FormatError(f"{path}: not an MRC file: no 'MAP ' mark, and mode and dimensions make no sense")
    if not has_map:
        warnings.warn(
            f"{path}: an old MRC header without 'MAP ' mark and machine stamp; "
            f"read as {'little' if fits[0] == '<' else 'big'}-endian",
            VerglasWarning,
            stacklevel=5,
        )
    return fits[0]


def _is_plausible(raw: bytes, order: str) -> bool:
    nx, ny, nz, mode = np.frombuffer(raw, dtype=f"{order}i4", count=4)
    return bool(0 < nx < 1 << 20 and 0 < ny < 1 << 20 and 0 < nz < 1 << 28 and (mode in _MODES or mode == PACKED_4BIT))


def _unsigned_bytes(raw: bytes, order: str) -> bool:
    """IMOD wrote mode 0 unsigned before 2014 and says so in its flags; everybody else's mode 0 is signed."""
    stamp, flags = np.frombuffer(raw, dtype=f"{order}i4", count=2, offset=152)
    return bool(stamp == _IMOD_STAMP and not flags & 1)


def _voxel_A(h: Any) -> tuple[float, float, float]:
    sizes = []
    for axis in "xyz":
        cell, count = float(h["cella"][axis]), int(h[f"m{axis}"])
        # The cell over MX, not NX: of a stack or a cut-out NX is not the number of voxels in the cell.
        sizes.append(cell / count if np.isfinite(cell) and cell > 0 and count > 0 else 0.0)
    return sizes[0], sizes[1], sizes[2]


def check_size(header: MrcHeader, size: int) -> None:
    """A file shorter than its header promises is an error, a longer one a warning."""
    expected = header.offset + header.section_bytes * header.shape[0]
    nz, ny, nx = header.shape
    if size < expected:
        whole = max(0, size - header.offset) // header.section_bytes
        raise FormatError(
            f"{header.path}: the header promises {nz} sections of {nx} x {ny} (mode {header.mode}), {expected} bytes, "
            f"but the file has {size}, {whole} whole sections: truncated, or the header is wrong"
        )
    if size > expected:
        warnings.warn(
            f"{header.path}: {size - expected} bytes beyond the {nz} sections of {nx} x {ny} that the header promises; "
            "ignored",
            VerglasWarning,
            stacklevel=3,
        )
