"""A gain reference estimated from the movies of a session, written beside a list of bad pixels."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from verglas._screen import ListenerChoice, shown_to
from verglas.detector import GainEstimate, estimate_gain, frame_totals
from verglas.errors import InputError
from verglas.io import check_writable, find_movies, open_movie, write_micrograph, write_text
from verglas.io.mrc import PathLike
from verglas.run.kept_inputs import keeps_inputs
from verglas.types import Micrograph


@dataclass(frozen=True)
class GainFiles:
    """What was made.

    Attributes
    ----------
    estimate : GainEstimate
    gain, defects : Path
        The files.
    movies, frames : int
        How many were added.
    excluded : list of str
        Movies that could not be read or do not fit, each with its reason.
    """

    estimate: GainEstimate
    gain: Path
    defects: Path
    movies: int
    frames: int
    excluded: list[str]

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "gain": str(self.gain),
            "defects": str(self.defects),
            "movies": self.movies,
            "frames": self.frames,
            "bad_pixels": len(self.estimate.defects),
            "relative_error": self.estimate.relative_error,
            "pattern": self.estimate.pattern,
            "excluded": self.excluded,
        }


@keeps_inputs("gain")
def estimate_gain_files(
    movies: PathLike | Iterable[PathLike],
    out: PathLike,
    *,
    illumination_px: float | None = None,
    most_frames: int | None = None,
    listener: ListenerChoice = "screen",
    **known: Any,
) -> GainFiles:
    """Estimate a gain from movies, and write it with its bad pixels.

    Parameters
    ----------
    movies : path, pattern, folder, or several
    out : path
        ``.mrc`` to write: factors that multiply frames, 0 at bad pixels. ``<name>_defects.txt`` beside it holds these
        as lines ``x y width height``.
    illumination_px : float, optional
        Of :func:`verglas.detector.estimate_gain`.
    most_frames : int, optional
        Frames read of each movie; all by default.
    listener : Listener, "screen" or None
        Who is told how it goes (:class:`verglas.types.listener.Listener`).
    **known
        Of :func:`verglas.io.open_movie`.

    Returns
    -------
    GainFiles

    Raises
    ------
    InputError
        No movie that can be read, or too few counts.
    """
    out = Path(out)
    check_writable(out)
    paths = find_movies(movies)
    total: Any = None
    frames, n_movies, refusals = 0, 0, []
    with shown_to(listener) as heard:
        for number, path in enumerate(paths):
            heard.progress("movies", number, len(paths))
            try:
                added, count = frame_totals([open_movie(path, **known)], most_frames=most_frames)
                if total is not None and added.shape != total.shape:
                    size = f"{added.shape[1]} x {added.shape[0]}, those before {total.shape[1]} x {total.shape[0]}"
                    raise InputError(f"{path}: frames of {size} pixels")
            # One movie that cannot be read must not spoil the rest; it is named.
            except (InputError, OSError) as error:
                refusals.append(str(error))
                heard.note("excluded", str(error))
                continue
            total = added if total is None else total + added
            frames, n_movies = frames + count, n_movies + 1
        heard.progress("movies", len(paths), len(paths))
    if total is None:
        raise InputError(f"none of {len(paths)} movies can be used; the first: {refusals[0]}")
    estimate = estimate_gain(total, illumination_px=illumination_px)
    write_micrograph(out, Micrograph(estimate.gain.data))
    defects = out.with_name(f"{out.stem}_defects.txt")
    write_text(defects, "".join(f"{x} {y} 1 1\n" for y, x in np.asarray(estimate.defects).tolist()))
    return GainFiles(estimate, out, defects, n_movies, frames, refusals)
