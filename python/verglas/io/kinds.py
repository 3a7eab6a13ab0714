"""What a file is that is not what was asked for: by its first bytes, in the words of the program that wrote it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from verglas.errors import FormatError
from verglas.io.inputs import note_read

HEAD_BYTES = 4096
"""So much of a file is looked at."""
_STARTS: tuple[tuple[bytes, str], ...] = (
    (b"\x1f\x8b", "compressed by gzip: unpack it first (gunzip)"),
    (b"BZh", "compressed by bzip2: unpack it first (bunzip2)"),
    (b"PK\x03\x04", "a ZIP archive: unpack it first"),
    (b"\x89HDF", "an HDF5 file, as of EMAN2: write the particles as a STAR file there (e2refinetorelion3d.py)"),
    (b"SQLite format 3", "an SQLite database, as of Scipion and cisTEM: export the particles as a STAR file there"),
    (b"\x93NUMPY", "an array of NumPy: a .cs file of cryoSPARC needs its suffix"),
    (b"\xff\xfe", "text in UTF-16, as PowerShell's > writes it: save it as UTF-8"),
    (b"\xfe\xff", "text in UTF-16: save it as UTF-8"),
    (b"\x80\x02", "a Python pickle"),
    (b"\x80\x03", "a Python pickle"),
    (b"\x80\x04", "a Python pickle, as cryoDRGN keeps poses in: give the STAR or .cs file that it was made from"),
    (b"#LSX", "a list of EMAN2 (.lst): write the particles as a STAR file there (e2refinetorelion3d.py)"),
    (b"version https://git-lfs", "a pointer of Git LFS: fetch the file itself (git lfs pull)"),
    (b"<!DOCTYPE", "a web page: has the download failed?"),
    (b"<html", "a web page: has the download failed?"),
    (b"II*\x00", "a TIFF image"),
    (b"MM\x00*", "a TIFF image"),
    (b"{", "JSON"),
    (b"[", "JSON"),
)


def require_file(path: str | os.PathLike[str]) -> Path:
    """The path, if an ordinary file is there; a folder, a link that leads nowhere, a device or pipe are called that.

    Examples
    --------
    >>> from verglas.io.kinds import require_file
    >>> require_file("/dev/null")
    Traceback (most recent call last):
    verglas.errors.FormatError: /dev/null: a device or pipe, expected a file that can be read more than once
    """
    path = Path(path)
    if path.is_file():
        note_read(path)
        return path
    if path.is_dir():
        raise FormatError(f"{path}: is a folder, expected a file")
    if path.exists():
        raise FormatError(f"{path}: a device or pipe, expected a file that can be read more than once")
    raise FormatError(f"{path}: no such file{', but a link that leads nowhere' if path.is_symlink() else ''}")


def describe_kind(path: Path, head: bytes) -> str:
    """What a file is that holds no STAR table; empty where nothing tells.

    Examples
    --------
    >>> from pathlib import Path
    >>> from verglas.io.kinds import describe_kind
    >>> describe_kind(Path("p.star"), b"<!DOCTYPE html>")
    'a web page: has the download failed?'
    """
    if head[208:212] == b"MAP ":
        return "an MRC file, images or a map: give the STAR or .cs file that lists the particles"
    if path.suffix.lower() == ".csg":
        return "a group file of cryoSPARC: give the .cs file that it names as metafile"
    if b"\r" in head and b"\n" not in head and b"data_" in head:
        return "text with the line ends of old Macintoshes: turn them into line feeds"
    return next((kind for start, kind in _STARTS if head.lstrip(b"\xef\xbb\xbf \n\r").startswith(start)), "")


def describe_tables(tables: Mapping[str, Any]) -> str:
    """Whose STAR file without particles it is; empty where nothing tells."""
    columns = {str(column) for table in tables.values() for column in table}
    if "rlnExperimentalDataStarFile" in columns:
        return "this is RELION's optimiser file: the particles are in the _data.star beside it"
    if "rlnReferenceImage" in columns:
        return "this is RELION's model file: the particles are in the _data.star beside it"
    if "rlnJobTypeLabel" in columns:
        return "these are the settings of a job of RELION: give the particles.star or _data.star that it wrote"
    if "image" in columns and not any(column.startswith("rln") for column in columns):
        return "these look like metadata of Xmipp: export the particles in RELION's format"
    return ""
