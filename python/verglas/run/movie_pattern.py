"""What the movies of a folder have in common, kept in a file while they are corrected one by one."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from verglas.errors import FormatError
from verglas.io import write_bytes
from verglas.motion import FixedPattern, PatternOfMovies, RecordedSum
from verglas.motion.fixed_pattern import WHAT_TO_DO

FILE = "fixed_pattern.npz"
CODE = "fixed_pattern"


@dataclass(frozen=True)
class PatternFile:
    """The file of a folder, for movies that were read alike.

    Attributes
    ----------
    folder : Path
    reading : str
        Gain, bad pixels and the like: sums that were made otherwise do not count.
    """

    folder: Path
    reading: str

    @classmethod
    def of(cls, folder: Path, record: Mapping[str, Any]) -> PatternFile:
        """For the settings of a session."""
        return cls(folder, json.dumps(dict(record), sort_keys=True, default=str))

    @property
    def path(self) -> Path:
        """Where it lies."""
        return self.folder / FILE

    def read(self) -> PatternOfMovies:
        """What was added so far.

        Raises
        ------
        FormatError
            Not such a file.
        """
        if not self.path.is_file():
            return PatternOfMovies()
        try:
            with np.load(self.path, allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
            return PatternOfMovies.from_arrays(arrays) if str(arrays["reading"]) == self.reading else PatternOfMovies()
        except (OSError, ValueError, KeyError, EOFError, BadZipFile) as error:
            raise FormatError(
                f"{self.path}: cannot be read ({error}); expected the sums of the movies of this folder; remove it"
            ) from error

    def add(self, name: str, movie: RecordedSum | None) -> None:
        """One more movie; written whole or not at all."""
        if movie is None:
            return
        pattern = self.read()
        pattern.add(name, movie)
        content = io.BytesIO()
        np.savez(content, **pattern.as_arrays(), reading=np.array(self.reading))  # type: ignore[arg-type]
        write_bytes(self.path, content.getvalue())

    def summary(self) -> dict[str, Any] | None:
        """For JSON and people: share, standard errors, movies, and a sentence where the pattern is there; or None."""
        pattern = self.read()
        fixed_pattern = pattern.estimate()
        return None if fixed_pattern is None else _as_record(fixed_pattern, len(pattern.names))


def _as_record(fixed_pattern: FixedPattern, movies: int) -> dict[str, Any]:
    return {
        "is_there": fixed_pattern.is_there,
        "share": round(fixed_pattern.share, 4) if np.isfinite(fixed_pattern.share) else None,
        "sigmas": round(fixed_pattern.sigmas, 2),
        "movies": movies,
        "sentence": f"of {movies} movies, {fixed_pattern.sentence}; {WHAT_TO_DO}" if fixed_pattern.is_there else "",
    }
