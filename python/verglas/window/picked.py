"""Picks of one micrograph, shown over it and changed by hand; what is changed goes to files of its own."""

from __future__ import annotations

import shlex
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from verglas.errors import InputError
from verglas.io import read_micrograph, read_picks, read_star, write_picks, write_star
from verglas.io.coordinates import unique_stems
from verglas.report.grey import binned, grey_bytes, grey_png
from verglas.types import Picks
from verglas.window.job import Job
from verglas.window.kept import Kept

EDITED = "picks_edited"
_MERIT = "rlnAutopickFigureOfMerit"
_SHOWN_PX = 1024
_KEPT_LISTS, _KEPT_PICTURES = 4, 32
_MOST_PICKS = 100_000


class PickedMicrographs:
    """Picks of jobs, read when they are asked for and again when their files change."""

    def __init__(self) -> None:
        self._picks: Kept[dict[str, Picks]] = Kept(_KEPT_LISTS)
        self._pictures: Kept[tuple[bytes, int, tuple[int, int]]] = Kept(_KEPT_PICTURES)
        self._saving = threading.Lock()

    def has(self, job: Job) -> bool:
        """Whether a job has picks to look at."""
        return job.changeable and (job.folder / "picks.star").is_file()

    def _of(self, path: Path) -> dict[str, Picks]:
        return self._picks.get((path, path.stat().st_mtime_ns), lambda: read_picks(path))

    def names(self, job: Job) -> list[str]:
        """Micrographs with picks, in the order of their list."""
        return list(self._of(job.folder / "picks.star"))

    def name(self, job: Job, number: int) -> str:
        """A micrograph by its number from 0."""
        names = self.names(job)
        if not 0 <= number < len(names):
            raise InputError(f"expected a micrograph from 0 to {len(names) - 1}")
        return names[number]

    def picks(self, job: Job, number: int) -> tuple[Picks, bool]:
        """Picks of a micrograph as they stand, and whether a person has changed them."""
        name = self.name(job, number)
        path = self._edited(job, number)
        if path.is_file():
            return next(iter(read_picks(path).values()), Picks(np.zeros((0, 2)), name)), True
        return self._of(job.folder / "picks.star")[name], False

    def _edited(self, job: Job, number: int) -> Path:
        return job.folder / EDITED / unique_stems(self.names(job), "_picks.star")[number]

    def as_json(self, job: Job, number: int) -> dict[str, Any]:
        """For the page: places in pixels of the micrograph, merits, the picture's block and the particle's radius."""
        picks, edited = self.picks(job, number)
        merit = picks.columns.get(_MERIT)
        _, step, shape = self.picture(job, number)
        return {
            "xy": np.round(picks.xy_px, 2).tolist(),
            "merit": [] if merit is None else [float(f"{v:.5g}") if np.isfinite(v) else None for v in merit],
            "step": step,
            "shape": shape,
            "radius": self.radius_px(job),
            "saved": edited,
        }

    def radius_px(self, job: Job) -> float:
        """Of the circles: half the diameter that the job was asked for."""
        diameter, pixel = (job.settings.get(name) for name in ("diameter_A", "pixel_size_A"))
        if isinstance(diameter, int | float) and isinstance(pixel, int | float) and pixel > 0:
            return float(diameter) / float(pixel) / 2
        return 20.0

    def picture(self, job: Job, number: int) -> tuple[bytes, int, tuple[int, int]]:
        """The micrograph as a grey PNG of at most 1,024 pixels, the pixels that make one of them, and its shape."""
        path = self._micrograph(job, self.name(job, number))

        def draw() -> tuple[bytes, int, tuple[int, int]]:
            data = read_micrograph(path).data
            small, step = binned(data, _SHOWN_PX)
            return grey_png(grey_bytes(small)), step, (data.shape[0], data.shape[1])

        return self._pictures.get((path, path.stat().st_mtime_ns), draw)

    def _micrograph(self, job: Job, name: str) -> Path:
        for folder in (Path(), job.folder, *job.folder.parents[:4]):
            if (path := folder / name).is_file():
                return path
        raise InputError(f"the micrograph {name} is not where the picks say it is")

    def save(self, job: Job, number: int, record: Mapping[str, Any]) -> str:
        """Write the picks of a micrograph; return the command that takes all of them.

        Parameters
        ----------
        record : mapping
            xy: (n, 2) pixels; merit: (n,) or empty.

        Raises
        ------
        InputError
            Places that are none, or outside the micrograph.
        """
        name, shape = self.name(job, number), self.picture(job, number)[2]
        places = record.get("xy")
        if not isinstance(places, list) or len(places) > _MOST_PICKS:
            raise InputError(f"picks: expected a list of at most {_MOST_PICKS} places")
        try:
            xy = np.array(places, np.float64).reshape(-1, 2)
            merit = np.array(record.get("merit") or [], np.float64)
        except (ValueError, TypeError, OverflowError) as error:
            raise InputError("picks: expected pairs of numbers") from error
        if not np.isfinite(xy).all() or (xy < 0).any() or (xy > np.array(shape[::-1])).any():
            raise InputError(f"picks: expected places inside {shape[1]} x {shape[0]} pixels")
        if merit.shape not in ((0,), (len(xy),)) or not np.isfinite(merit).all():
            raise InputError(f"picks: expected a merit for each of {len(xy)} places, or none")
        columns = {_MERIT: merit} if len(merit) else {}
        listed = job.folder / f"{EDITED}.star"
        with self._saving:
            if not listed.is_file():
                # All others as they are: the list must name every micrograph.
                write_picks(listed, self._of(job.folder / "picks.star"))
            elif set(_names_of(listed)) != set(self.names(job)):
                raise InputError(
                    f"{listed}: picks.star has other micrographs since it was made; move it and its folder "
                    f"{EDITED} away to begin again"
                )
            table = pd.DataFrame({"rlnCoordinateX": xy[:, 0], "rlnCoordinateY": xy[:, 1], **columns})
            write_star(self._edited(job, number), {"": table})
        return self.command(job, name)

    def command(self, job: Job, name: str = "") -> str:
        """What takes the picks as changed."""
        listed = job.folder / f"{EDITED}.star"
        words = ["verglas", "extract", str(job.folder / "picks.star"), "--picks", str(listed), "--box", "BOX"]
        return shlex.join([*words, "--out", "extract"])


def _names_of(listed: Path) -> list[str]:
    tables = [t for t in read_star(listed).values() if isinstance(t, pd.DataFrame) and "rlnMicrographName" in t]
    return tables[0]["rlnMicrographName"].astype(str).tolist() if tables else []
