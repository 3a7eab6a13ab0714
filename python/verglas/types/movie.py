"""A movie: frames of the detector, read one at a time, flat-fielded and with its bad pixels replaced."""

from __future__ import annotations

import zlib
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from verglas.errors import InputError
from verglas.types.arrays import Float32Array, IntArray, host_array
from verglas.types.defects import DefectRepair, as_defects
from verglas.types.display import drawers


@runtime_checkable
class FrameSource(Protocol):
    """What :class:`Movie` asks of the thing that holds its frames.

    Sources are picklable, hold no open file, and may be read by several threads at once.
    """

    def __len__(self) -> int:
        """Number of frames."""

    @property
    def shape(self) -> tuple[int, int]:
        """(y, x) of every frame in pixels."""

    def read(self, index: int) -> npt.NDArray[Any]:
        """Frame ``index`` as recorded, (y, x), any real dtype; the caller does not change it."""


@dataclass(frozen=True, eq=False)
class FrameArray:
    """Frames in memory, for simulators and tests.

    Attributes
    ----------
    data : (n, y, x) array
        Any real dtype.
    """

    data: npt.NDArray[Any]

    def __post_init__(self) -> None:
        """Check the shape once."""
        data = host_array(self.data)
        if data.ndim != 3 or not len(data):
            raise InputError(f"movie: expected (n, y, x) frames with n >= 1, got shape {data.shape}")
        object.__setattr__(self, "data", data)

    def __len__(self) -> int:
        return len(self.data)

    @property
    def shape(self) -> tuple[int, int]:
        """(y, x) in pixels."""
        return int(self.data.shape[1]), int(self.data.shape[2])

    def read(self, index: int) -> npt.NDArray[Any]:
        """One frame, a view."""
        return np.asarray(self.data[index])


@dataclass(frozen=True, eq=False, repr=False)
class Movie:
    """Frames of one exposure, lazy: a frame is read when it is asked for.

    ``movie.frame(i)`` is the recorded frame times the gain, with every defect replaced by one of its good neighbours
    (:class:`verglas.types.defects.DefectRepair`); the same frame comes out whoever asks, and how often.

    Attributes
    ----------
    source : FrameSource
        Where the frames come from.
    pixel_size_A : float
        NaN where nobody knows it.
    dose_per_frame_e_A2 : float or None
        Exposure of one frame in electrons per square angstrom; None where unknown.
    pre_exposure_e_A2 : float
        Exposure before the first frame.
    voltage_kV : float or None
        None where unknown.
    gain : (y, x) float32 or None
        What multiplies every recorded frame, already turned to lie on it.
    defects : (n, 2) int64
        Rows (y, x) of bad pixels, sorted, each once; a mask (y, x) of bool is accepted.
    name : str
        What rlnMicrographMovieName calls it.
    path : Path or None
        The file; None for frames in memory.

    Raises
    ------
    InputError
        A gain of another shape or with a value that is not finite or not positive, a defect outside the frame, a
        pixel size, exposure or voltage outside its range.

    Examples
    --------
    >>> import numpy as np
    >>> from verglas.types import Movie
    >>> movie = Movie.from_array(np.arange(24).reshape(2, 3, 4), 1.2, gain=np.full((3, 4), 2), defects=[[1, 1]])
    >>> len(movie), movie.shape, movie.frame(1)[0].tolist()
    (2, (3, 4), [24.0, 26.0, 28.0, 30.0])
    >>> bool(movie.frame(1)[1, 1] == 34), [frame.shape for frame in movie]
    (False, [(3, 4), (3, 4)])
    """

    source: FrameSource
    pixel_size_A: float = float("nan")
    dose_per_frame_e_A2: float | None = None
    pre_exposure_e_A2: float = 0.0
    voltage_kV: float | None = None
    gain: Float32Array | None = None
    defects: IntArray | Any = ()
    name: str = ""
    path: Path | None = None

    def __post_init__(self) -> None:
        """Check once, here."""
        where = f"movie {self.name}".strip()
        for name in ("pixel_size_A", "dose_per_frame_e_A2", "voltage_kV"):
            value = getattr(self, name)
            # NaN is "unknown" for a pixel size only
            if value is not None and (value <= 0 or np.isinf(value) or (np.isnan(value) and name != "pixel_size_A")):
                raise InputError(f"{where}: expected a positive {name}, got {value:g}")
        if not 0 <= self.pre_exposure_e_A2 < np.inf:
            raise InputError(f"{where}: expected pre_exposure_e_A2 of 0 or more, got {self.pre_exposure_e_A2:g}")
        if self.gain is not None:
            object.__setattr__(self, "gain", _check_gain(self.gain, self.source.shape, where))
        object.__setattr__(self, "defects", as_defects(self.defects, self.source.shape, where))

    @classmethod
    def from_array(cls, frames: npt.ArrayLike, pixel_size_A: float = float("nan"), **known: Any) -> Movie:
        """A movie of frames in memory.

        Parameters
        ----------
        frames : (n, y, x) array_like
            As recorded: ``gain`` and ``defects`` are still to be applied.
        pixel_size_A : float
        **known
            Further attributes of :class:`Movie`.
        """
        return cls(FrameArray(host_array(frames)), pixel_size_A, **known)

    def __len__(self) -> int:
        return len(self.source)

    def __repr__(self) -> str:
        size = " x ".join(map(str, self.shape))
        name = self.name or "in memory"
        return f"Movie({name}: {len(self)} frames of {size} (y, x), {self.pixel_size_A:.5g} A per pixel)"

    def _repr_html_(self) -> str | None:
        """What a notebook shows."""
        return drawers[0](self) if drawers else None

    @property
    def shape(self) -> tuple[int, int]:
        """(y, x) in pixels."""
        return self.source.shape

    @property
    def defect_mask(self) -> npt.NDArray[np.bool_]:
        """(y, x), True at defects."""
        mask = np.zeros(self.shape, bool)
        mask[self.defects[:, 0], self.defects[:, 1]] = True
        return mask

    @cached_property
    def _repair(self) -> DefectRepair:
        # by the name, not the path: the same movie in another folder gives the same frames
        return DefectRepair(self.defects, self.shape, seed=zlib.crc32(self.name.encode()))

    def frame(self, index: int, out: Float32Array | None = None) -> Float32Array:
        """One frame, gain-corrected and with its defects replaced.

        Parameters
        ----------
        index : int
            From 0; negative counts from the end.
        out : (y, x) float32, optional
            Where it goes.

        Returns
        -------
        (y, x) float32
            ``out``, or a fresh array.

        Raises
        ------
        InputError
            No such frame, or a value that is not finite.
        """
        n = len(self)
        if not -n <= index < n:
            raise InputError(f"movie {self.name}: frame {index} asked for, but it has {n} (from 0)")
        index = int(index) % n
        raw = np.asarray(self.source.read(index))
        frame = np.empty(self.shape, np.float32) if out is None else out
        if self.gain is None:
            np.copyto(frame, raw, casting="unsafe")
        else:
            np.multiply(raw, self.gain, out=frame, dtype=np.float32)
        if len(self.defects):
            self._repair.apply(frame, index)
        # defects are replaced first: a detector's dead pixel may well be NaN
        if raw.dtype.kind == "f" and not np.isfinite(frame).all():
            y, x = np.argwhere(~np.isfinite(frame))[0]
            raise InputError(
                f"movie {self.name}: frame {index} (from 0) has {frame[y, x]} at row {y}, column {x}; "
                "expected finite values; name such pixels as defects, or leave the movie out"
            )
        return frame

    def frames(
        self, indices: Iterable[int] | None = None, *, ahead: int = 2, threads: int = 1, recycle: bool = False
    ) -> Iterator[Float32Array]:
        """Frames one after the other, the next ones read while the caller works.

        Parameters
        ----------
        indices : iterable of int, optional
            Which, in which order; all by default.
        ahead : int
            Frames read in advance: at most so many wait in memory. 0 reads in the caller's thread.
        threads : int
            Threads that read; more than one helps where frames are compressed.
        recycle : bool
            A frame is overwritten once the one after it has been asked for: memory that is used again is not cleared
            anew for each.

        Yields
        ------
        (y, x) float32
        """
        wanted = iter(range(len(self)) if indices is None else indices)
        if ahead < 1:
            yield from map(self.frame, wanted)
            return
        pool = ThreadPoolExecutor(max(1, min(threads, ahead)), thread_name_prefix="frames")
        waiting: deque[Future[Float32Array]] = deque()
        free: list[Float32Array] = []
        try:
            for index in wanted:
                waiting.append(pool.submit(self.frame, index, free.pop() if free else None))
                if len(waiting) > ahead:
                    frame = waiting.popleft().result()
                    yield frame
                    if recycle:
                        free.append(frame)
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def __iter__(self) -> Iterator[Float32Array]:
        return self.frames()

    def __getitem__(self, index: int) -> Float32Array:
        """``movie[i]`` is ``movie.frame(i)``."""
        return self.frame(index)


def _check_gain(gain: npt.ArrayLike, shape: tuple[int, int], where: str) -> Float32Array:
    data = np.ascontiguousarray(host_array(gain), np.float32)
    if data.shape != shape:
        size = " x ".join(map(str, data.shape[::-1]))
        raise InputError(f"{where}: the gain has {size} pixels, the frames have {shape[1]} x {shape[0]}")
    bad = data.size - int(np.count_nonzero(np.isfinite(data) & (data >= 0)))
    if bad:
        raise InputError(f"{where}: {bad} values of the gain are negative or not finite; expected factors about 1")
    if not data.any():
        raise InputError(f"{where}: the gain is zero everywhere; expected factors about 1")
    return data
