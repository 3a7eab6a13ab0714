"""Where the frames of a movie come from: MRC, TIFF and EER files, one frame at a time."""

from __future__ import annotations

import os
import struct
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import tifffile

from verglas import ops
from verglas.errors import FormatError, VerglasWarning
from verglas.io.mrc import decode_sections
from verglas.io.mrc_header import MrcHeader, read_header
from verglas.io.plain import PlainFile
from verglas.io.tiff import tiff_pages
from verglas.types import FrameSource
from verglas.types.arrays import Array, IntArray

_EER = {65000: 8, 65001: 7, 65002: 7}  # TIFF compression -> bits of a run length, where no tag says otherwise
# A cut-off file fails in the header (struct, IndexError) or in the decoder (RuntimeError of imagecodecs).
TIFF_ERRORS = (tifffile.TiffFileError, ValueError, OSError, EOFError, RuntimeError, struct.error, IndexError)


def _read_bytes(file: PlainFile, offset: int, count: int) -> bytes:
    with open(file.plain, "rb", buffering=0) as handle:
        handle.seek(offset)
        data = handle.read(count)
        while len(data) < count:
            more = handle.read(count - len(data))
            if not more:
                raise FormatError(
                    f"{file.path}: ends {count - len(data)} bytes early; was it changed while being read?"
                )
            data += more
    return data


# ---- MRC


@dataclass(frozen=True, eq=False)
class MrcFrames:
    """Sections of an MRC stack."""

    file: PlainFile
    header: MrcHeader
    unsigned: bool | None = None

    def __len__(self) -> int:
        return self.header.shape[0]

    @property
    def shape(self) -> tuple[int, int]:
        """(y, x)."""
        return self.header.shape[1], self.header.shape[2]

    def read(self, index: int) -> Array:
        """One section in its stored dtype."""
        h = self.header
        raw = np.frombuffer(_read_bytes(self.file, h.offset + index * h.section_bytes, h.section_bytes), np.uint8)
        frame = decode_sections(h, raw)[0]
        if h.mode != 0 or np.dtype(h.dtype).kind == "u":
            return frame
        if self.unsigned:
            return frame.view(np.uint8)
        if self.unsigned is None and frame.min() < 0:
            raise FormatError(
                f"{self.file.path}: frame {index} (from 0) has counts down to {frame.min()}, since bytes of mode 0 are "
                "signed unless IMOD's flag says otherwise; give unsigned_bytes=True (--mrc-bytes unsigned) if they are "
                "counts from 0 to 255, False (--mrc-bytes signed) if they are signed values"
            )
        return frame


def _open_mrc(file: PlainFile, unsigned: bool | None) -> MrcFrames:
    try:
        header = read_header(file.plain)
    except FormatError as error:
        raise FormatError(str(error).replace(str(file.plain), str(file.path))) from None
    return MrcFrames(file, header, unsigned)


# ---- TIFF


@dataclass(frozen=True, eq=False)
class TiffFrames:
    """Pages of a TIFF file."""

    file: PlainFile
    count: int
    shape: tuple[int, int]

    def __len__(self) -> int:
        return self.count

    def read(self, index: int) -> Array:
        """One page in its stored dtype."""
        try:
            # Opened anew for each frame: threads that read at the same time may not share one file position.
            with tifffile.TiffFile(self.file.plain) as tiff:
                return np.asarray(tiff.pages[index].asarray(maxworkers=1))
        except TIFF_ERRORS as error:
            raise FormatError(f"{self.file.path}: frame {index} (from 0) cannot be decoded: {error}") from None


@dataclass(frozen=True, eq=False)
class EerFrames:
    """Fractions of an EER file: each the electrons of ``per_fraction`` frames of the camera, as counts."""

    file: PlainFile
    offsets: IntArray
    sizes: IntArray
    sensor: tuple[int, int]
    run_bits: int
    sub_bits: tuple[int, int]
    per_fraction: int = 1
    upsampling: int = 1

    def __len__(self) -> int:
        return len(self.offsets) // self.per_fraction

    @property
    def shape(self) -> tuple[int, int]:
        """(y, x) after up-sampling."""
        return self.sensor[0] * self.upsampling, self.sensor[1] * self.upsampling

    def read(self, index: int) -> npt.NDArray[np.uint16]:
        """Counts of one fraction."""
        counts = np.zeros(self.shape, np.uint16)
        for f in range(index * self.per_fraction, (index + 1) * self.per_fraction):
            strip = _read_bytes(self.file, int(self.offsets[f]), int(self.sizes[f]))
            if ops.eer(strip, counts, run_bits=self.run_bits, sub_bits=self.sub_bits, upsampling=self.upsampling) < 0:
                raise FormatError(
                    f"{self.file.path}: frame {f} of the camera (from 0) ends before its last pixel: cut off"
                )
        return counts


@dataclass(frozen=True)
class TiffAbout:
    """What the directories of a TIFF file say."""

    pixel_size_A: float = float("nan")
    eer: dict[str, Any] | None = None


def _open_tiff(file: PlainFile, unit_A: Any) -> tuple[FrameSource, TiffAbout]:
    """Check every directory before anything is read: sizes, samples, and that the file reaches its last byte."""
    try:
        with tifffile.TiffFile(file.plain) as tiff:
            # EER files may hold a summed picture besides, which is no frame of events.
            pages = [page for page in tiff_pages(file.path, tiff) if not (tiff.is_eer and page.compression not in _EER)]
            if not pages:
                raise FormatError(f"{file.path}: an EER file without frames of events")
            _check_directories(file, tiff, pages)
            first = pages[0]
            if int(first.compression) in _EER:
                return _eer_frames(file, pages), TiffAbout(eer=tiff.eer_metadata or {})
            return TiffFrames(file, len(pages), (int(first.shape[0]), int(first.shape[1]))), TiffAbout(unit_A(first))
    except TIFF_ERRORS as error:
        if isinstance(error, FormatError):
            raise
        raise FormatError(f"{file.path}: not a TIFF file that can be read (cut short?): {error}") from None


def _check_directories(file: PlainFile, tiff: tifffile.TiffFile, pages: list[Any]) -> None:
    size, first = file.plain.stat().st_size, pages[0]
    for number, page in enumerate(pages):
        if page.ndim != 2 or page.samplesperpixel != 1:
            raise FormatError(
                f"{file.path}: frame {number} (from 0) has pixels of {page.samplesperpixel} samples; "
                "expected grey values"
            )
        if page.dtype is None or page.dtype.kind not in "buif":
            raise FormatError(
                f"{file.path}: frame {number} (from 0) has values of type {page.dtype}; expected integers or "
                "floating-point numbers"
            )
        if page.shape != first.shape or page.dtype != first.dtype:
            here, there = (f"{p.shape[1]} x {p.shape[0]} pixels ({p.dtype})" for p in (page, first))
            raise FormatError(f"{file.path}: frame {number} (from 0) has {here}, the first {there}")
        end = max((a + n for a, n in zip(page.dataoffsets, page.databytecounts, strict=True)), default=0)
        if end > size:
            raise FormatError(f"{file.path}: {size} bytes, but frame {number} (from 0) ends at byte {end}: truncated")
    # tifffile stops in silence where the next directory is not there
    last = tiff.pages[len(tiff.pages) - 1]
    form = tiff.byteorder + ("Q" if tiff.is_bigtiff else "H")
    count_bytes, entry, link = (8, 20, "Q") if tiff.is_bigtiff else (2, 12, "I")
    raw = _read_bytes(file, last.offset, count_bytes)
    n = struct.unpack(form, raw)[0]
    link_bytes = struct.calcsize(link)
    following = struct.unpack(
        tiff.byteorder + link, _read_bytes(file, last.offset + count_bytes + n * entry, link_bytes)
    )[0]
    if following:
        raise FormatError(
            f"{file.path}: {size} bytes with {len(tiff.pages)} whole frames, but another is announced at "
            f"byte {following}: truncated"
        )


def _eer_frames(file: PlainFile, pages: list[Any]) -> EerFrames:
    for number, page in enumerate(pages):
        if len(page.dataoffsets) != 1 or page.compression != pages[0].compression:
            raise FormatError(
                f"{file.path}: frame {number} (from 0) of the camera has {len(page.dataoffsets)} strips "
                f"of compression {int(page.compression)}; expected one strip a frame"
            )
    first = pages[0]
    run_bits, sub_bits = _EER[int(first.compression)], (2, 2)
    if int(first.compression) == 65002:
        run_bits = int(first.tags.valueof(65007, 7))
        sub_bits = (int(first.tags.valueof(65008, 2)), int(first.tags.valueof(65009, 2)))
    offsets = np.array([page.dataoffsets[0] for page in pages], np.int64)
    sizes = np.array([page.databytecounts[0] for page in pages], np.int64)
    return EerFrames(file, offsets, sizes, (int(first.shape[0]), int(first.shape[1])), run_bits, sub_bits)


# ---- any of them


@dataclass(frozen=True, eq=False)
class FrameSums:
    """Sums of ``per_fraction`` neighbouring frames of another source, or its frames with their rows reversed."""

    source: FrameSource
    per_fraction: int = 1
    flip_y: bool = False

    def __len__(self) -> int:
        return len(self.source) // self.per_fraction

    @property
    def shape(self) -> tuple[int, int]:
        """(y, x)."""
        return self.source.shape

    def read(self, index: int) -> Array:
        """One sum; integers as int32, floats as float32."""
        first = index * self.per_fraction
        total = self.source.read(first)
        if self.per_fraction > 1:
            # int32: sums of bytes would wrap round at 255.
            total = total.astype(np.float32 if total.dtype.kind == "f" else np.int32)
            for f in range(first + 1, first + self.per_fraction):
                total += self.source.read(f)
        # a copy: a view would keep both, and who keeps frames keeps no views
        return total[::-1].copy() if self.flip_y else total


def is_tiff(path: Path) -> bool:
    """By the first bytes: classic or big TIFF of either byte order."""
    with open(path, "rb") as handle:
        return handle.read(4) in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")


def open_frames(
    path: str | os.PathLike[str], *, unsigned_bytes: bool | None = None, unit_A: Any
) -> tuple[FrameSource, TiffAbout]:
    """Frames of a file as it stores them, and what its header says."""
    file = PlainFile(Path(path))
    if is_tiff(file.plain):
        return _open_tiff(file, unit_A)
    mrc = _open_mrc(file, unsigned_bytes)
    return mrc, TiffAbout(mrc.header.pixel_size_A or float("nan"))


def say_dropped(path: Path, frames: int, per_fraction: int) -> None:
    """Say which frames make no whole fraction."""
    remainder = frames % per_fraction
    if remainder:
        warnings.warn(
            f"{path}: the last {remainder} of {frames} frames make no whole fraction of {per_fraction}; dropped",
            VerglasWarning,
            stacklevel=4,
        )
