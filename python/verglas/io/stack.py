"""Images of particles that lie in MRC stacks: found late, checked once, read in large pieces."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from verglas.errors import FormatError, InputError, VerglasWarning
from verglas.io.inputs import note_named, note_read
from verglas.io.mrc import MrcHeader, PathLike, read_header, read_sections
from verglas.io.plain import PlainFile
from verglas.io.rules import RECALIBRATED, file_rules, pixel_size_refused, search_folders
from verglas.types.arrays import IntArray

_SAME_PIXEL = 1e-3  # relative: rounding of header and metadata


@dataclass(frozen=True)
class StackPaths:
    """How the name of a stack in the metadata becomes a path.

    Attributes
    ----------
    roots : sequence of Path
        Folders against which relative names are tried, in this order.
    stack : Path, optional
        The one stack (or the folder of the stacks) to use instead of what the metadata say.
    path_map : mapping
        Old prefix -> new prefix; the longest that fits is used.
    given_roots : sequence of Path
        Folders that the caller says hold the stacks: tried first, also with leading folders of the names left out.
    any_pixel_size : bool
        Take stacks whose header disagrees with the metadata in pixel size by more than 1 %.
    """

    roots: tuple[Path, ...]
    stack: Path | None = None
    path_map: Mapping[str, str] = field(default_factory=dict)
    given_roots: tuple[Path, ...] = ()
    any_pixel_size: bool = False

    def map_prefix(self, name: str) -> str:
        """The name with its prefix replaced."""
        # The longest prefix first, so that /data/a is not taken by /data.
        for old in sorted(self.path_map, key=len, reverse=True):
            if name.startswith(old):
                return str(self.path_map[old]) + name[len(old) :]
        return name

    def find(self, name: str) -> Path:
        """The file, or an error that lists where it was looked for."""
        if self.stack is not None:
            tried = [self.stack / Path(name).name if self.stack.is_dir() else self.stack]
        else:
            mapped = Path(os.path.expanduser(self.map_prefix(name)))
            tried = [mapped] if mapped.is_absolute() else [root / mapped for root in self.roots]
            parts = mapped.relative_to(mapped.anchor).parts
            shortened = [root.joinpath(*parts[k:]) for root in self.given_roots for k in range(len(parts))]
            tried = [*shortened, *tried]
        for path in tried:
            if path.is_file():
                return path
        rules, shown = file_rules(), list(dict.fromkeys(map(os.path.normpath, tried)))
        places = ", ".join(shown[:3]) + (f" and {len(shown) - 3} other places" if len(shown) > 3 else "")
        renaming = "verglas convert --map-prefix" if rules.command_line else rules.word("path-map")
        raise FormatError(
            f"stack {name} not found; looked for {places}. Say where the stacks are: {rules.word('stack-root')} the "
            f"folder that the names start from, or {renaming}"
        )


@dataclass(frozen=True, eq=False)
class StackSource:
    """The images of n particles: image ``frame[i]`` (from 0) of stack ``names[stack_of[i]]``.

    Opening reads nothing; a stack is found, and its header checked against the metadata, when its first image is.

    Attributes
    ----------
    names : sequence of str
        Stacks as the metadata name them.
    stack_of : (n,) int32
    frame : (n,) int64
    paths : StackPaths
    box : (m,) float64
        Side the metadata give for the images of each stack, NaN where they do not.
    pixel_A : (m,) float64
        The same for the pixel size in angstrom.
    where : str
        The metadata file, for messages.
    file_row : (n,) int64
        Row of each particle in that file, for messages.
    joined : bool
        Whether one stack stands for several that the metadata name: names and numbers are not the metadata's.
    bare : frozenset of int
        Stacks that some row names without saying which image of it: right for files of one image only.
    """

    names: Sequence[str]
    stack_of: npt.NDArray[np.int32]
    frame: IntArray
    paths: StackPaths
    box: npt.NDArray[np.float64]
    pixel_A: npt.NDArray[np.float64]
    where: str
    file_row: IntArray
    joined: bool = False
    bare: frozenset[int] = frozenset()
    # shared between subsets: headers already read, and what has been warned about
    _headers: dict[int, MrcHeader] = field(default_factory=dict, repr=False)
    _files: dict[int, PlainFile] = field(default_factory=dict, repr=False)
    _warned: set[str] = field(default_factory=set, repr=False)

    def __len__(self) -> int:
        return len(self.frame)

    def take(self, rows: IntArray) -> StackSource:
        """The images of a subset."""
        return replace(self, stack_of=self.stack_of[rows], frame=self.frame[rows], file_row=self.file_row[rows])

    def files(self) -> Iterator[Path]:
        """Where the stacks in use lie, as far as they are there."""
        for stack in np.unique(self.stack_of):
            if stack in self._headers:
                yield self._headers[stack].path
                continue
            with suppress(FormatError):  # an image that is asked for later raises it
                yield self.paths.find(self.names[stack])

    def path(self, stack: int) -> Path:
        """Where stack number ``stack`` lies."""
        return self.header(stack).path

    def header(self, stack: int) -> MrcHeader:
        """The checked header of stack number ``stack``."""
        header = self._headers.get(stack)
        if header is None:
            try:
                path = self.paths.find(self.names[stack])
                note_read(path, named_by=self.where)
                header = read_header(path)
            except FormatError as error:
                row = self.file_row[np.flatnonzero(self.stack_of == stack)[:1]]
                particle = f", particle {row[0]} (row from 0)" if row.size else ""
                raise FormatError(f"{self.where}{particle}: {error}") from None
            self._check(stack, header)
            self._headers[stack] = header
        return header

    def _plain(self, stack: int) -> Path:
        """Plain bytes of a stack: of a compressed one a temporary copy, made once."""
        file = self._files.get(stack)
        if file is None:
            file = self._files[stack] = PlainFile(self.header(stack).path)
        return file.plain

    def _check(self, stack: int, header: MrcHeader) -> None:
        count, ny, nx = header.shape
        if stack in self.bare and count > 1:
            raise FormatError(
                f"{self.where}: rlnImageName {self.names[stack]!r} does not say which image (index@stack), but "
                f"{header.path} holds {count} sections: a stack, a volume or a tilt series?"
            )
        if nx != ny:
            raise FormatError(f"{header.path}: images of {nx} x {ny} pixels; particle images must be square")
        if np.isfinite(self.box[stack]) and self.box[stack] != nx:
            raise FormatError(
                f"{self.where}: rlnImageSize is {self.box[stack]:g}, but the images of {header.path} have {nx} pixels"
            )
        in_metadata, in_header = self.pixel_A[stack], header.pixel_size_A
        if not np.isfinite(in_metadata) or (in_header and abs(in_header / in_metadata - 1) <= _SAME_PIXEL):
            return
        # Many programs leave 1 A in the header for want of a better number.
        if in_header in (0.0, 1.0):
            self._warn(
                f"header pixel size {in_header:g}",
                f"{header.path}: pixel size {in_header:g} A in the header, which stands for unknown; "
                f"{in_metadata:.6g} A of {self.where} is used",
            )
        elif abs(in_header / in_metadata - 1) <= RECALIBRATED:
            self._warn(
                "recalibrated",
                f"{header.path}: pixel size {in_header:.6g} A in the header but {in_metadata:.6g} A in {self.where}, "
                "which is used (a recalibration?)",
            )
        elif self.paths.any_pixel_size:
            self._warn(
                "any pixel size",
                f"{header.path}: pixel size {in_header:.6g} A in the header; {in_metadata:.6g} A of {self.where} is "
                "used as asked",
            )
        else:
            raise pixel_size_refused(self.where, in_metadata, header.path, in_header)

    def _warn(self, kind: str, message: str) -> None:
        if kind not in self._warned:
            self._warned.add(kind)
            warnings.warn(f"{message}; said once for all stacks", VerglasWarning, stacklevel=6)

    def boxes(self) -> IntArray:
        """Side of every image; reads the header of every stack in use."""
        return self._per_stack(lambda header: header.shape[2]).astype(np.int64)

    def pixel_sizes_A(self) -> npt.NDArray[np.float64]:
        """Pixel size of every image by the headers, NaN where they have 0; reads the header of every stack in use."""
        return self._per_stack(lambda header: header.pixel_size_A or np.nan)

    def _per_stack(self, value: Any) -> npt.NDArray[np.float64]:
        table = np.full(len(self.names), np.nan)
        for stack in np.unique(self.stack_of):
            table[stack] = value(self.header(int(stack)))
        return table[self.stack_of]

    def read(self, rows: IntArray) -> npt.NDArray[np.float32]:
        """Images in the order asked, read stack by stack in the order on disk."""
        stack_of, frame = self.stack_of[rows], self.frame[rows]
        order = np.argsort(stack_of, kind="stable")
        cuts = np.flatnonzero(np.diff(stack_of[order])) + 1
        pieces = [piece for piece in np.split(order, cuts) if len(piece)]
        headers = [self.header(int(stack_of[piece[0]])) for piece in pieces]
        sides = {header.shape[2] for header in headers}
        if len(sides) > 1:
            raise InputError(
                f"{self.where}: images of several sizes asked for at once: {sorted(sides)} pixels; "
                "ask for those of one size at a time"
            )
        side = sides.pop() if sides else 0
        out = np.empty((len(rows), side, side), dtype=np.float32)
        for piece, header in zip(pieces, headers, strict=True):
            bad = piece[frame[piece] >= header.shape[0]]
            if bad.size:
                raise FormatError(
                    f"{self.where}, particle {self.file_row[rows[bad[0]]]} (row from 0): image {frame[bad[0]] + 1} of "
                    f"{header.path} asked for, but that stack has {header.shape[0]} images"
                )
            read_sections(replace(header, path=self._plain(int(stack_of[piece[0]]))), frame[piece], out, piece)
        return out


def source_from_names(
    image_names: npt.NDArray[Any],
    paths: StackPaths,
    box: npt.NDArray[Any] | None,
    pixel_A: npt.NDArray[Any] | None,
    where: str,
) -> StackSource:
    """A source from a column of ``index@stack`` (index from 1; a bare name is the one image of its file).

    ``box`` and ``pixel_A`` are the metadata's values per particle, or None.
    """
    images = _split(image_names, where)
    source = build_source(images, paths, box, pixel_A, where)
    return source if source.joined else replace(source, bare=images.bare)


def build_source(
    images: ImageNames,
    paths: StackPaths,
    box: npt.NDArray[Any] | None,
    pixel_A: npt.NDArray[Any] | None,
    where: str,
) -> StackSource:
    """A source from columns; rows of one stack must agree on box and pixel size."""
    names: Sequence[str] = images.stacks
    stack_of, frame, joined = np.asarray(images.stack_of, dtype=np.int32), images.frame, False
    if paths.stack is not None and paths.stack.is_file():
        named = names
        names, stack_of, frame = _merge_stacks(named, stack_of, frame, paths, where)
        joined = names is not named
    source = StackSource(
        names,
        stack_of,
        frame,
        paths,
        _value_per_stack(box, stack_of, names, "rlnImageSize", where),
        _value_per_stack(pixel_A, stack_of, names, "rlnImagePixelSize", where),
        where,
        np.arange(len(frame), dtype=np.int64),
        joined,
    )
    note_named(Path(where), source.files)
    return source


def _merge_stacks(
    names: Sequence[str], stack_of: npt.NDArray[np.int32], frame: IntArray, paths: StackPaths, where: str
) -> tuple[Sequence[str], npt.NDArray[np.int32], IntArray]:
    """One stack in place of those that the metadata name: whose numbers count within each of those, not in the one.

    Numbers that run through the one stack are taken as they are; else the images are in the order of the rows, if there
    are as many; else nothing says which image is whose.
    """
    several = [os.path.normpath(names[number]) for number in np.unique(stack_of)]
    if len(set(several)) < 2:
        return names, stack_of, frame
    assert paths.stack is not None
    n, n_images = len(frame), read_header(paths.stack).shape[0]
    if n_images != n:
        raise InputError(
            f"{where} names {len(set(several))} stacks ({several[0]}, {several[1]}, ...), whose image numbers do not "
            f"hold in the one stack {paths.stack}: expected as many images as particles, {n}, in the same order, got "
            f"{n_images}; give the folder of the stacks, or a stack with one image for each row"
        )
    if not np.array_equal(np.sort(frame), np.arange(n)):
        warnings.warn(
            f"{where} names {len(set(several))} stacks: images of {paths.stack} are taken in the order of the rows",
            VerglasWarning,
            stacklevel=5,
        )
        frame = np.arange(n, dtype=np.int64)
    one = os.path.relpath(os.path.abspath(paths.stack), paths.roots[0]).replace(os.sep, "/")
    return [one], np.zeros(n, np.int32), frame


class ImageNames(NamedTuple):
    """Distinct stacks, stack of each image, frame of each from 0, stacks named without a frame."""

    stacks: list[str]
    stack_of: IntArray
    frame: IntArray
    bare: frozenset[int] = frozenset()


def _split(image_names: npt.NDArray[Any], where: str) -> ImageNames:
    """One pass over the names."""
    numbers: dict[str, int] = {}
    bare: set[int] = set()
    codes = np.empty(len(image_names), dtype=np.int64)
    frames = np.zeros(len(image_names), dtype=np.int64)
    for i, text in enumerate(image_names):
        index, at, name = text.partition("@")
        if not at:
            name = index
        else:
            try:
                frames[i] = int(index) - 1
            except ValueError:
                frames[i] = -1
            if frames[i] < 0:
                raise FormatError(
                    f"{where}, rlnImageName of row {i} (from 0): {text!r}: expected index@stack with an index from 1"
                )
        if not name:
            raise FormatError(f"{where}, rlnImageName of row {i} (from 0): {text!r} names no stack")
        codes[i] = numbers.setdefault(name, len(numbers))
        if not at:
            bare.add(int(codes[i]))
    return ImageNames(list(numbers), codes, frames, frozenset(bare))


def _value_per_stack(
    values: npt.NDArray[Any] | None, stack_of: npt.NDArray[Any], names: Sequence[str], label: str, where: str
) -> npt.NDArray[np.float64]:
    """One value per stack, NaN where unknown."""
    table = np.full(len(names), np.nan)
    if values is None or not len(stack_of):
        return table
    # Of rows that share a stack the last one stays; the comparison below finds those that differ from it.
    table[stack_of] = values
    bad = np.flatnonzero(table[stack_of] != values)
    if bad.size:
        stack = stack_of[bad[0]]
        raise FormatError(
            f"{where}: {label} differs between rows of the one stack {names[stack]}: {values[bad[0]]:g} for particle "
            f"{bad[0]} (row from 0), {table[stack]:g} for others"
        )
    return table


@dataclass(frozen=True)
class Where:
    """What a caller of a reader says about the stacks; see :func:`verglas.io.read_particles`."""

    stack: PathLike | None = None
    path_map: Mapping[str, str] | None = None
    stack_root: PathLike | None = None
    any_pixel_size: bool = False


def stack_paths(file: Path, where: Where) -> StackPaths:
    """Check the options of a reader and put them together with the rules in force."""
    rules = file_rules()
    stack = where.stack
    if stack is not None and not Path(stack).exists():
        raise InputError(f"{rules.word('stack')} {os.fspath(stack)}: no such file or folder")
    roots = rules.stack_roots if where.stack_root is None else (Path(where.stack_root), *rules.stack_roots)
    missing = next((root for root in roots if not root.is_dir()), None)
    if missing is not None:
        raise InputError(f"{rules.word('stack-root')} {missing}: no such folder")
    return StackPaths(
        tuple(search_folders(file)),
        None if stack is None else Path(stack),
        {str(k): str(v) for k, v in (where.path_map or {}).items()},
        roots,
        where.any_pixel_size or rules.any_pixel_size,
    )
