"""Micrographs in TIFF, MRC, SPIDER, PNG and JPEG files."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import tifffile

from verglas.errors import FormatError, VerglasWarning
from verglas.io.kinds import require_file
from verglas.io.mrc import MRC_SUFFIXES, PathLike, read_header, read_map, read_stack
from verglas.io.mrc_header import compression_of, open_plain
from verglas.io.rules import RECALIBRATED, file_rules, pixel_size_refused
from verglas.io.spider import read_spider, spider_header
from verglas.types import Micrograph
from verglas.types.ctf_ranges import check_pixel_size

PICTURES = (".png", ".jpg", ".jpeg")
# What deflate, twice, can make of constant pixels; a file that claims more is damaged.
_MOST_TIMES = 2_000
# tifffile reports damaged tags there; without a handler they would be printed
logging.getLogger("tifffile").addHandler(logging.NullHandler())
_TIFF = (".tif", ".tiff")
# TIFF 6.0, tag ResolutionUnit: 2 inch, 3 centimetre; 1 is none
_UNIT_A = {2: 2.54e8, 3: 1e8}


def read_micrograph(
    path: PathLike, pixel_size_A: float | None = None, *, flip_y: bool = False, listed: bool = False
) -> Micrograph:
    """Read one micrograph.

    Parameters
    ----------
    path : path
        TIFF (any compression tifffile reads), MRC or SPIDER with one image, PNG, JPEG (whose losses are on top of its
        8 bits); the file itself may be compressed by gzip or bzip2.
    pixel_size_A : float, optional
        Pixel size; the file's by default: the MRC header's, or the TIFF's resolution tags where they give a value
        between 0.05 and 100 A. NaN where neither says.
    flip_y : bool
        Reverse the rows, as RELION does when it reads TIFF: coordinates and hand from RELION projects on TIFF
        need it.
    listed : bool
        The pixel size is what a list of micrographs says, not what a person asks for: one that is more than 1 % from
        the file's is refused (but by ``--any-pixel-size``).

    Returns
    -------
    Micrograph
        (y, x) float32, rows as in the file, grey values as recorded.

    Raises
    ------
    FormatError
        Not such a file, several frames (a movie), colours, or a listed pixel size that is not the file's.
    InputError
        A pixel size that no image has.
    """
    path = Path(path)
    require_file(path)
    packed = compression_of(path) is not None
    inner = Path(path.stem) if packed and path.suffix.lower() in (".gz", ".bz2") else path
    if inner.suffix.lower() in _TIFF:
        data, in_file = _read_tiff(path, packed)
    elif inner.suffix.lower() in PICTURES:
        data, in_file = _read_picture(path, inner.suffix.lower()), float("nan")
    elif inner.suffix.lower() not in MRC_SUFFIXES and (spider := spider_header(path)) is not None:
        if spider.shape[0] != 1:
            raise FormatError(f"{path}: {spider.shape[0]} images of SPIDER; a micrograph has one")
        data, in_file = read_spider(spider)[0], spider.pixel_size_A or float("nan")
    else:
        header = read_header(path)
        if header.shape[0] != 1:
            raise FormatError(f"{path}: {header.shape[0]} images: a movie or a stack; a micrograph has one")
        data = read_map(path, header.pixel_size_A or 1.0).data[0] if packed else read_stack(path)[0]
        in_file = header.pixel_size_A or float("nan")
    if pixel_size_A is not None:
        check_pixel_size(pixel_size_A, str(path))
        apart = abs(in_file / pixel_size_A - 1)
        # 1 A in a header stands for unknown.
        if listed and apart > RECALIBRATED and in_file != 1.0 and not file_rules().any_pixel_size:
            raise pixel_size_refused("the list of micrographs", pixel_size_A, path, in_file)
        if np.isfinite(in_file) and apart > 1e-3:
            why = "as asked" if not listed or file_rules().any_pixel_size else "as listed"
            warnings.warn(
                f"{path}: pixel size {in_file:.6g} A in the file, {pixel_size_A:g} A used {why}",
                VerglasWarning,
                stacklevel=2,
            )
        in_file = float(pixel_size_A)
    # RELION turns TIFF files upside down on reading; verglas keeps the rows, and flip_y follows RELION's coordinates.
    return Micrograph(data[::-1] if flip_y else data, in_file, path.name)


def micrograph_header(path: PathLike) -> tuple[int, int] | None:
    """Rows and columns by the header, if the file is as long as its header says.

    Parameters
    ----------
    path : path
        TIFF or MRC.

    Returns
    -------
    (rows, columns) or None
        None for files packed by gzip or bzip2, whose length says nothing.

    Raises
    ------
    FormatError
        No such file, no header yet, or fewer bytes than it promises: still being written, or cut off.
    """
    path = Path(path)
    require_file(path)
    if compression_of(path) is not None:
        return None
    if path.suffix.lower() in PICTURES:
        rows, columns = _read_picture(path, path.suffix.lower()).shape
        return rows, columns
    if path.suffix.lower() not in _TIFF:
        spider = spider_header(path) if path.suffix.lower() not in MRC_SUFFIXES else None
        shape = read_header(path).shape if spider is None else spider.shape
        return shape[1], shape[2]
    size = path.stat().st_size
    try:
        with tifffile.TiffFile(path) as tiff:
            page = tiff.pages.first
            for each in tiff_pages(path, tiff):
                places = zip(each.dataoffsets, each.databytecounts, strict=True)
                end = max((start + count for start, count in places), default=0)
                if end > size:
                    raise FormatError(f"{path}: {size} bytes, but its images end at {end}: cut off")
            return int(page.shape[0]), int(page.shape[1])
    except FormatError:
        raise
    except Exception as error:  # damaged tags end anywhere in the library
        raise FormatError(f"{path}: not a TIFF file that can be read: {error}") from None


def tiff_pages(path: PathLike, tiff: tifffile.TiffFile) -> Iterator[Any]:
    """Images of an open TIFF file, one after another.

    Raises
    ------
    FormatError
        The list leads back to an image before; tifffile follows such a circle for ever.
    """
    seen: set[int] = set()
    for page in tiff.pages:
        if page.offset in seen:
            raise FormatError(f"{path}: its list of images leads back to byte {page.offset}: damaged")
        seen.add(page.offset)
        yield page


def _read_tiff(path: Path, packed: bool) -> tuple[np.ndarray, float]:
    if not path.stat().st_size:
        raise FormatError(f"{path}: the file is empty")
    try:
        source: Any = path
        if packed:
            with open_plain(path) as handle:
                source = io.BytesIO(handle.read())
        with tifffile.TiffFile(source) as tiff:
            pages = len(tiff.pages)
            page = tiff.pages.first
            if pages != 1:
                raise FormatError(f"{path}: {pages} frames: a movie; average its aligned frames first")
            if page.ndim != 2 or page.samplesperpixel != 1:
                raise FormatError(f"{path}: pixels of {page.samplesperpixel} samples; expected grey values")
            if page.nbytes > _MOST_TIMES * path.stat().st_size:
                raise FormatError(f"{path}: its tags claim {page.nbytes} bytes of pixels, far beyond the file")
            return page.asarray(), tiff_pixel_A(page)
    except FormatError:
        raise
    except Exception as error:  # a cut-off or damaged file ends anywhere in the library and its decoders
        raise FormatError(f"{path}: not a TIFF file that can be read (cut short?): {error}") from None


def _read_picture(path: Path, suffix: str) -> np.ndarray:
    with open_plain(path) as handle:
        content = handle.read()
    decode = imagecodecs.png_decode if suffix == ".png" else imagecodecs.jpeg_decode
    try:
        data = decode(content)
    except (RuntimeError, ValueError) as error:
        raise FormatError(f"{path}: not a {suffix[1:].upper()} file that can be read (cut short?): {error}") from None
    if data.ndim == 3 and (data[..., :3] == data[..., :1]).all():
        data = data[..., 0]  # grey, written as colours
    if data.ndim != 2:
        raise FormatError(f"{path}: a picture in colours; expected grey values")
    return np.asarray(data)


def tiff_pixel_A(page: tifffile.TiffPage) -> float:
    """Pixel size by the resolution tags; NaN where they are absent, without unit, or about a printer."""
    unit = page.tags.get("ResolutionUnit")
    resolution = page.tags.get("XResolution")
    if unit is None or resolution is None or int(unit.value) not in _UNIT_A or not resolution.value[0]:
        return float("nan")
    size = _UNIT_A[int(unit.value)] * resolution.value[1] / resolution.value[0]
    return size if 0.05 <= size <= 100 else float("nan")
