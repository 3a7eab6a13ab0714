"""Metadata of acquisition software: SerialEM's mdoc files, EPU's XML, and what names of files say."""

from __future__ import annotations

import functools
import re
import time
import warnings
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path, PureWindowsPath
from typing import Any
from xml.etree import ElementTree

from verglas.errors import FormatError, InputError, VerglasWarning
from verglas.io.mrc import PathLike
from verglas.io.mrc_header import require_file
from verglas.types.acquisition import Acquisition

_SECTION = re.compile(r"^\[\s*(\w+)\s*=\s*(.*?)\s*\]$")
_PACKED = (".gz", ".bz2")
OF_NAME = "its name"  # source of what no file says
# EPU: FoilHole_<hole>_Data_<shot of the template>_<...>_<date>_<time>[_fractions|_EER]; older ones without seconds
_EPU = re.compile(r"FoilHole_\d+_Data_(\d+)_[\w-]*?\d{8}_\d{4}(?:\d{2})?(?!\d)")
_EPU_ENDINGS = re.compile(r"_(fractions|eer|fractions_eer)$", re.IGNORECASE)
# SerialEM, multiple record: hole and shot at the end of the name, X+1Y-1-2
_SHOT = re.compile(r"X([+-]\d+)Y([+-]\d+)-(\d+)")
# Leginon: five digits and the preset for every image on the way, <session>_00003gr_00032sq_v02_00002hln_00005esn-a-DW;
# users name presets (en, ex, ed, enn2, esn, ...), versions (_v02) and tilts (_00) may follow each
_LEGINON = re.compile(r"_(\d{5})([a-z]{2,4}\d?)(?=[_.-]|$)")
_LEGINON_GRIDS = ("gr", "sq")  # exposures of these alone are reached by the stage: their numbers are no places
_RESCAN_S = 10.0  # a tree is looked through again for a file that it did not have, as sessions go on


# ---- SerialEM


def read_mdoc(path: PathLike) -> list[dict[str, str]]:
    """Sections of an mdoc file, the part before the first section as one of its own.

    Parameters
    ----------
    path : path

    Returns
    -------
    list of dict
        Key and text of every line; ``section`` holds the kind (``"FrameSet"``, ``"ZValue"``, ``""`` of the first).
        Titles (``[T = ...]``) belong to none.

    Raises
    ------
    FormatError
        A line that is neither ``key = value`` nor a section.
    """
    path = require_file(path)
    sections: list[dict[str, str]] = [{"section": ""}]
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
        text = line.strip()
        if not text:
            continue
        header = _SECTION.match(text)
        if header:
            # [T = ...] is a title, not a section.
            if header[1] != "T":
                sections.append({"section": header[1], "number": header[2]})
            continue
        key, mark, value = text.partition("=")
        if not mark:
            raise FormatError(f"{path}, line {number}: {text[:60]!r}; expected key = value, or a section in brackets")
        sections[-1][key.strip()] = value.strip()
    return sections


def mdoc_acquisitions(path: PathLike) -> list[Acquisition]:
    """What an mdoc file says of movies: of its frame set, or of each section with a ``SubFramePath``.

    Raises
    ------
    FormatError
        No such section: a montage or a stack of images; or a value that is no number.
    """
    path = require_file(path)
    sections = read_mdoc(path)
    shared: dict[str, str] = {key: text for key, text in sections[0].items() if key in ("Voltage", "PixelSpacing")}
    sets = [s for s in sections if s["section"] == "FrameSet"]
    frames = sets or [s for s in sections if s["section"] == "ZValue" and "SubFramePath" in s]
    if not frames:
        raise FormatError(f"{path}: no FrameSet, and no section has SubFramePath: this mdoc is not one of movies")
    return [_of_section(path, {**shared, **section}) for section in frames]


def _of_section(path: Path, section: dict[str, str]) -> Acquisition:
    def numbers(key: str) -> list[float]:
        try:
            return [float(word) for word in section.get(key, "").split()]
        except ValueError:
            raise FormatError(f"{path}: {key} = {section[key]!r}; expected numbers") from None

    def number(key: str) -> float | None:
        values = numbers(key)
        return values[0] if values else None

    shift = numbers("ImageShift")
    doses = numbers("FrameDosesAndNumber")  # pairs: exposure of a frame, how many such frames
    total, count = sum(d * n for d, n in zip(doses[::2], doses[1::2], strict=True)), sum(doses[1::2])
    # SerialEM runs on Windows: the path has backslashes, which Path on other systems takes for letters.
    name = PureWindowsPath(section["SubFramePath"]).name if "SubFramePath" in section else None
    frames = number("NumSubFrames")
    return Acquisition(
        str(path),
        number("PixelSpacing"),
        number("Voltage"),
        number("ExposureDose"),
        total / count if count else None,
        None if frames is None else int(frames),
        number("PriorRecordDose"),
        (shift[0], shift[1]) if len(shift) == 2 else None,
        _group_of_name(name or ""),
        name,
    )


# ---- EPU


def read_epu_xml(path: PathLike) -> Acquisition:
    """What EPU's XML file of an exposure says.

    Parameters
    ----------
    path : path
        ``FoilHole_..._Data_....xml``.

    Returns
    -------
    Acquisition

    Raises
    ------
    FormatError
        No XML, or not of an image.
    """
    path = require_file(path)
    try:
        root = ElementTree.fromstring(path.read_bytes())
    except ElementTree.ParseError as error:
        raise FormatError(f"{path}: not an XML file: {error}") from None
    if not root.tag.endswith("MicroscopeImage"):
        raise FormatError(f"{path}: {root.tag.split('}')[-1]}; expected a MicroscopeImage of EPU")
    custom = _key_values(root)
    pixel = _number(path, _first(root, "pixelSize", "x", "numericValue"))
    voltage = _number(path, _first(root, "gun", "AccelerationVoltage"))
    dose = _number(path, custom.get("Dose"))
    fractions = _number(path, _first(root, "NumberOffractions"))
    shift = [_number(path, _first(root, "BeamShift", axis)) for axis in ("_x", "_y")]
    return Acquisition(
        str(path),
        None if pixel is None else pixel * 1e10,
        None if voltage is None else voltage / 1e3,
        # EPU counts in SI units: metres, volts, electrons per square metre.
        None if dose is None else dose * 1e-20,
        frames=None if fractions is None else int(fractions),
        beam_shift=None if shift[0] is None or shift[1] is None else (shift[0], shift[1]),
        group=_group_of_name(path.name),
        movie=path.stem,
    )


def _local(element: Any) -> str:
    return str(element.tag).rsplit("}", 1)[-1]


def _first(root: Any, *names: str) -> str | None:
    """Text of the first element at the end of a path of names, each anywhere below the one before; or None."""
    at = root
    for name in names:
        at = next((e for e in at.iter() if _local(e) == name), None)
        if at is None:
            return None
    return None if at.text is None else str(at.text)


def _key_values(root: Any) -> dict[str, str]:
    values = {}
    for element in root.iter():
        parts = {_local(e): e.text for e in element}
        if parts.get("Key") and parts.get("Value"):
            values[str(parts["Key"])] = str(parts["Value"])
    return values


def _number(path: Path, text: str | None) -> float | None:
    if text is None or not text.strip():
        return None
    try:
        return float(text)
    except ValueError:
        raise FormatError(f"{path}: {text!r} where a number was expected") from None


# ---- names


def _group_of_name(name: str) -> str | None:
    """The place in a pattern of holes or shots that a name tells."""
    for pattern, words in ((_EPU, "shot {0}"), (_SHOT, "hole {0} {1} shot {2}")):
        match = pattern.search(name)
        if match:
            return words.format(*match.groups())
    chain = _LEGINON.findall(name)
    if len(chain) >= 3 and chain[0][1][:2] in _LEGINON_GRIDS and chain[-2][1][:2] not in _LEGINON_GRIDS:
        return f"exposure {chain[-1][0]}"
    return None


def plain_stem(movie: PathLike) -> str:
    """Name of a movie without folders, endings and EPU's words for fractions.

    Examples
    --------
    >>> from verglas.io.acquisition import plain_stem
    >>> plain_stem("raw/FoilHole_1_Data_2_3_20230919_154056_fractions.tiff")
    'FoilHole_1_Data_2_3_20230919_154056'
    """
    path = Path(movie)
    stem = Path(path.stem).stem if path.suffix.lower() in _PACKED else path.stem
    return _EPU_ENDINGS.sub("", stem)


def find_acquisition(movie: PathLike, folders: Iterable[PathLike] = ()) -> Acquisition | None:
    """What lies beside a movie: its mdoc, its EPU XML, or what its name says.

    Parameters
    ----------
    movie : path
    folders : iterable of path
        Where else, or anywhere below, mdoc and XML files may lie: EPU keeps them in another tree than the movies.

    Returns
    -------
    Acquisition or None
        None where nothing is found and the name says nothing.

    Raises
    ------
    FormatError
        A file that is there but cannot be read.
    InputError
        A folder that is none, or two files below one that say different things of the movie.
    """
    movie = Path(movie)
    beside = _beside(movie)
    found = [beside] if beside is not None else [acquisition_tree(str(folder)).find(movie) for folder in folders]
    path = next((one for one in found if one is not None), None)
    group = _group_of_name(movie.name)
    if path is None:
        return None if group is None else Acquisition(OF_NAME, group=group, movie=movie.name)
    if path.suffix.lower() == ".xml":
        return read_epu_xml(path)
    acquisitions, stem = mdoc_acquisitions(path), plain_stem(movie)
    mine = [a for a in acquisitions if a.movie and plain_stem(a.movie) == stem]
    if not mine and len(acquisitions) > 1 and all(a.movie for a in acquisitions):
        # One exposure may have been given another name since; of several none can be told to be this movie's.
        warnings.warn(
            f"{path}: names {len(acquisitions)} movies ({acquisitions[0].movie}, ...), and {movie.name} is none of "
            "them: what it says is not used",
            VerglasWarning,
            stacklevel=2,
        )
        return None if group is None else Acquisition(OF_NAME, group=group, movie=movie.name)
    acquisition = (mine or acquisitions)[0]
    return replace(acquisition, group=acquisition.group or group)


def _beside(movie: Path) -> Path | None:
    stem = plain_stem(movie)
    names = (f"{movie.name}.mdoc", f"{stem}.mdoc", f"{movie.stem}.mdoc", f"{stem}.xml")
    return next((movie.parent / name for name in names if (movie.parent / name).is_file()), None)


class AcquisitionTree:
    """EPU's XML and SerialEM's mdoc files anywhere below a folder, by the names of their movies.

    Parameters
    ----------
    folder : path

    Raises
    ------
    InputError
        No such folder.
    """

    def __init__(self, folder: PathLike) -> None:
        self.folder = Path(folder)
        if not self.folder.is_dir():
            raise InputError(f"{folder}: no such folder; expected one with EPU's XML or SerialEM's mdoc files below it")
        self._paths: dict[str, list[Path]] = {}
        self._looked = -_RESCAN_S

    def find(self, movie: PathLike) -> Path | None:
        """The file of a movie, or None; the tree is looked through again for one that it did not have.

        Raises
        ------
        InputError
            Two files of the movie that differ.
        """
        stem = plain_stem(movie)
        if stem not in self._paths and time.monotonic() - self._looked >= _RESCAN_S:
            self._paths = self._look()
            self._looked = time.monotonic()
        paths = self._paths.get(stem, [])
        if len(paths) > 1 and len({path.read_bytes() for path in paths}) > 1:
            raise InputError(f"{movie}: {paths[0]} and {paths[1]} say different things of it; name the folder of one")
        return paths[0] if paths else None

    def _look(self) -> dict[str, list[Path]]:
        paths: dict[str, list[Path]] = {}
        for path in sorted(self.folder.rglob("*")):
            ending = path.suffix.lower()
            # of EPU's files those of exposures; squares and holes have XML files, too
            if ending == ".mdoc" or (ending == ".xml" and _EPU.match(path.name)):
                paths.setdefault(_movie_of(path), []).append(path)
        return paths


def _movie_of(path: Path) -> str:
    """Plain stem of the movie that a file of acquisition software is of; ``a.tif.mdoc`` and ``a.mdoc`` are of a."""
    movie = Path(path.stem)
    recorded = movie.suffix.lower() in (".tif", ".tiff", ".mrc", ".mrcs", ".eer", *_PACKED)
    return plain_stem(movie if recorded else f"{movie}.tif")


@functools.lru_cache(maxsize=16)
def acquisition_tree(folder: str) -> AcquisitionTree:
    """The tree of a folder, looked through once for all movies of a session."""
    return AcquisitionTree(folder)
