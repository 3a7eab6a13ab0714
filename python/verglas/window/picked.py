"""Picks of one micrograph, shown over it and changed by hand; what is changed goes to files of its own."""

from __future__ import annotations

import shlex
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from verglas.errors import InputError, VerglasError
from verglas.io import read_micrograph, read_picks, write_picks, write_star
from verglas.io.coordinates import match_names
from verglas.report.chart import round_or_none
from verglas.report.grey import bin_to, grey_bytes, grey_png
from verglas.run.candidates import FOLDER as CANDIDATES
from verglas.run.candidates import RADIUS, Candidates, LeftOut, candidates_name, read_candidates
from verglas.run.edited_picks import BEFORE, EDITED, Edits, edited_file, listed_names, picks_mark, set_aside_edits
from verglas.types import Picks
from verglas.types.arrays import Float32Array, FloatArray
from verglas.window.commands import diameter_word, extract_command, process_command
from verglas.window.control import given_option, repeat_text
from verglas.window.job import Job
from verglas.window.kept import Kept
from verglas.window.listed_picks import picks_by_micrograph
from verglas.window.versions import check_seen

LEFT_OUT = "left_out.star"
_MERIT = "rlnAutopickFigureOfMerit"
_MERIT_DIGITS = 7
_SHOWN_PX = 1024
_KEPT_LISTS, _KEPT_PICTURES, _KEPT_CANDIDATES = 4, 32, 64
_FEW = 1e-7  # the threshold is often the merit of a peak, and both are rounded in their file
_MOST_PICKS, _MOST_DISCS = 100_000, 5_000


class PickedMicrographs:
    """Picks of jobs, read when they are asked for and again when their files change."""

    def __init__(self) -> None:
        self._picks: Kept[Mapping[str, Picks]] = Kept(_KEPT_LISTS)
        self._pictures: Kept[tuple[bytes, int, tuple[int, int]]] = Kept(_KEPT_PICTURES)
        self._candidates: Kept[Candidates] = Kept(_KEPT_CANDIDATES)
        self._places: Kept[dict[str, Path]] = Kept(_KEPT_LISTS)
        self._micrographs: dict[Path, dict[Path, tuple[int, str]]] = {}
        self._saving = threading.Lock()

    def has(self, job: Job) -> bool:
        """Whether a job has picks to look at, or is about to have some."""
        return job.changeable and ((job.folder / "picks.star").is_file() or (job.folder / CANDIDATES).is_dir())

    def _of(self, path: Path) -> Mapping[str, Picks]:
        return self._picks.of_file(path, lambda: picks_by_micrograph(path))

    # ---- micrographs and their candidates

    def _files(self, job: Job) -> dict[str, Path]:
        """Files of candidates by the micrograph's name, in the order in which they came."""
        folder = job.folder / CANDIDATES
        if not folder.is_dir():
            return {}

        def read() -> dict[str, Path]:
            times = {path: path.stat().st_mtime_ns for path in folder.glob("*.star")}
            known, now = self._micrographs.get(folder, {}), {}
            for path in sorted(times, key=lambda path: (times[path], path.name)):
                had = known.get(path)
                # A folder of a job that goes on changes with each micrograph: only those that are new are opened.
                now[path] = had if had and had[0] == times[path] else (times[path], candidates_name(path))
            self._micrographs[folder] = now
            return {name: path for path, (_, name) in now.items()}

        return self._places.of_file(folder, read)

    def _candidates_of(self, path: Path) -> Candidates:
        return self._candidates.of_file(path, lambda: read_candidates(path))

    def goes_on(self, job: Job) -> bool:
        """Whether the list of picks is still to come."""
        return not (job.folder / "picks.star").is_file()

    def names(self, job: Job) -> list[str]:
        """Micrographs with picks, in the order of their list, or in that in which they come."""
        return list(self._files(job) if self.goes_on(job) else self._of(job.folder / "picks.star"))

    def name(self, job: Job, number: int) -> str:
        """A micrograph by its number from 0."""
        names = self.names(job)
        if not 0 <= number < len(names):
            raise InputError(f"expected a micrograph from 0 to {len(names) - 1}")
        return names[number]

    def candidates(self, job: Job, name: str) -> Candidates | None:
        """All peaks of a micrograph; None where the job has not kept them."""
        try:
            files = self._files(job)
            if name in files:
                return self._candidates_of(files[name])
            at = match_names([name], list(files))[0] if files else -1
            return None if at < 0 else self._candidates_of(list(files.values())[at])
        except (VerglasError, OSError):  # of another version, or just being replaced
            return None

    # ---- picks

    def _original(self, job: Job, name: str) -> Picks:
        if not self.goes_on(job):
            return self._of(job.folder / "picks.star")[name]
        candidates = self.candidates(job, name)
        if candidates is None:
            return Picks(np.zeros((0, 2)), name)
        return candidates.peaks[candidates.peaks.columns[_MERIT] >= candidates.threshold - _FEW]

    def picks(self, job: Job, number: int) -> tuple[Picks, bool]:
        """Picks of a micrograph as they stand, and whether a person has changed them."""
        name = self.name(job, number)
        original = self._original(job, name)
        if not (job.folder / EDITED).is_dir() or Edits.read(job.folder).of.get(name) != picks_mark(original):
            return original, False
        path = edited_file(job.folder, self.names(job), number)
        if not path.is_file():
            return original, False
        return next(iter(read_picks(path).values()), Picks(np.zeros((0, 2)), name)), True

    def earlier(self, job: Job) -> list[str]:
        """Names of edits of picks that have been replaced since."""
        return sorted(path.name for path in job.folder.glob(f"{BEFORE}_*.star"))

    def as_json(self, job: Job, number: int) -> dict[str, Any]:
        """For the page: places in pixels of the micrograph, merits, all candidates, areas left out, the picture's block
        and the particle's radius.
        """
        picks, edited = self.picks(job, number)
        name = self.name(job, number)
        merit = picks.columns.get(_MERIT)
        left_out = Edits.read(job.folder).left_out.get(name, [])
        _, step, shape = self.picture(job, number)
        candidates = self.candidates(job, name)
        others = candidates.peaks if candidates is not None else Picks(np.zeros((0, 2)), "", {_MERIT: np.zeros(0)})
        return {
            "xy": np.round(picks.xy_px, 2).tolist(),
            "merit": [] if merit is None else round_or_none(merit, _MERIT_DIGITS),
            "candidates": [
                [*place, one]
                for place, one in zip(
                    np.round(others.xy_px, 2).tolist(),
                    round_or_none(others.columns[_MERIT], _MERIT_DIGITS),
                    strict=True,
                )
            ],
            "threshold": None if candidates is None or not np.isfinite(candidates.threshold) else candidates.threshold,
            "left_out": left_out,
            "step": step,
            "shape": shape,
            "radius": self.radius_px(job, candidates),
            "saved": edited,
            "name": name,
            "base": picks_mark(self._original(job, name)),
            "seen": _mark(picks.xy_px, left_out),
        }

    def _fingerprint(self, job: Job, number: int) -> str:
        """What tells picks and areas of a micrograph, as they stand, from those that another page saves."""
        areas = Edits.read(job.folder).left_out.get(self.name(job, number), [])
        return _mark(self.picks(job, number)[0].xy_px, areas)

    def radius_px(self, job: Job, candidates: Candidates | None = None) -> float:
        """Of the circles: half the diameter that the job was asked for."""
        if candidates is not None and np.isfinite(candidates.diameter_px) and candidates.diameter_px > 0:
            return candidates.diameter_px / 2
        diameter, pixel = (job.settings.get(name) for name in ("diameter_A", "pixel_size_A"))
        if isinstance(diameter, int | float) and isinstance(pixel, int | float) and pixel > 0:
            return float(diameter) / float(pixel) / 2
        return 20.0

    def picture(self, job: Job, number: int) -> tuple[bytes, int, tuple[int, int]]:
        """The micrograph as a grey PNG of at most 1,024 pixels, the pixels that make one of them, and its shape."""
        path = self._micrograph(job, self.name(job, number))

        def draw() -> tuple[bytes, int, tuple[int, int]]:
            data = self.micrograph(job, number)
            small, step = bin_to(data, _SHOWN_PX)
            return grey_png(grey_bytes(small)), step, (data.shape[0], data.shape[1])

        return self._pictures.of_file(path, draw)

    def micrograph(self, job: Job, number: int) -> Float32Array:
        """The micrograph itself."""
        return read_micrograph(self._micrograph(job, self.name(job, number))).data

    def _micrograph(self, job: Job, name: str) -> Path:
        for folder in (Path(), job.folder, *job.folder.parents[:4]):
            if (path := folder / name).is_file():
                return path
        raise InputError(f"the micrograph {name} is not where the picks say it is")

    # ---- saving

    def save(self, job: Job, number: int, record: Mapping[str, Any]) -> dict[str, str]:
        """Write the picks of a micrograph, and the areas left out.

        Returns ``command``, which takes the picks; ``seen``, as :meth:`as_json` has it now; ``set_aside``, what became
        of edits of other picks, empty where there were none.

        Parameters
        ----------
        record : mapping
            xy: (n, 2) pixels; merit: (n,) or empty; left_out: (m, 3) x, y, radius, or missing; name, base and seen
            as :meth:`as_json` had them when the page was opened, or missing.

        Raises
        ------
        InputError
            Places that are none, or outside the micrograph; a job that goes on, or has picked again since; other picks
            that another page has saved since.
        """
        name, shape = self.name(job, number), self.picture(job, number)[2]
        if self.goes_on(job):
            raise InputError("picks: this job still picks; they can be saved when it has ended")
        if record.get("name", name) != name:
            raise InputError(
                f"picks: the list has other micrographs since this page was opened: number {number + 1} is now {name}; "
                "open the page again"
            )
        xy, merit, discs = _check_marks(record, shape)
        columns = {_MERIT: merit} if len(merit) else {}
        listed = job.folder / f"{EDITED}.star"
        with self._saving:
            every = self._of(job.folder / "picks.star")
            if listed.is_file() and set(listed_names(listed)) != set(every):
                raise InputError(
                    f"{listed}: picks.star has other micrographs since it was made; move it and its folder "
                    f"{EDITED} away to begin again"
                )
            mark = picks_mark(every[name])
            if record.get("base", mark) != mark:
                raise InputError(
                    "picks: the job has picked again since this page was opened; open it again: these changes are of "
                    "the picks before"
                )
            now = self._fingerprint(job, number)
            seen = str(record.get("seen", now))  # a null is no mark, and not a page that does not say
            check_seen("picks", seen, now, _mark(xy, discs), "other picks of this micrograph")
            given = _areas_given(job) if len(discs) or Edits.read(job.folder).left_out else {}
            set_aside = set_aside_edits(job.folder, every)
            if not listed.is_file():
                # All others as they are: the list must name every micrograph.
                write_picks(listed, every)
            table = pd.DataFrame({"rlnCoordinateX": xy[:, 0], "rlnCoordinateY": xy[:, 1], **columns})
            write_star(edited_file(job.folder, self.names(job), number), {"": table})
            edits = Edits.read(job.folder)
            edits.of[name] = mark
            edits.left_out[name] = discs.tolist()
            edits.left_out = {one: areas for one, areas in edits.left_out.items() if areas}
            edits.write()
            _write_left_out(job.folder, edits.left_out, given)
            return {"command": self.command(job, name), "seen": self._fingerprint(job, number), "set_aside": set_aside}

    def command(self, job: Job, name: str = "") -> str:
        """What takes the picks as changed."""
        project = job.folder.parent
        if (project / "project.json").is_file():  # its extraction takes them by itself
            return process_command(project)
        return extract_command(job, job.folder / "picks.star", job.folder / f"{EDITED}.star")

    def left_out_command(self, job: Job) -> str:
        """What takes the areas left out; empty where there are none."""
        if not (job.folder / LEFT_OUT).is_file():
            return ""
        project, given = job.folder.parent, f"pick.leave_out={job.folder / LEFT_OUT}"
        if (project / "project.json").is_file():
            return process_command(project, "--redo", "pick", "--set", given)
        listed, out = str(job.folder / LEFT_OUT), job.folder.with_name(f"{job.folder.name}_again")
        if repeated := repeat_text(
            job, out, "--leave-out", job.folder / LEFT_OUT
        ):  # by the same method, with the same templates
            return repeated
        micrographs = str(job.folder / "picks.star")
        words = ["verglas", "pick", micrographs, "--diameter", diameter_word(job), "--leave-out", listed]
        return shlex.join([*words, "--out", str(out)])


def _mark(xy: FloatArray, areas: npt.ArrayLike) -> str:
    discs = np.asarray(areas, np.float64).reshape(-1, 3)
    return picks_mark(Picks(xy)) + picks_mark(Picks(discs[:, :2]))


def _check_marks(record: Mapping[str, Any], shape: tuple[int, int]) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Places, merits and discs that a page has sent."""
    places, areas = record.get("xy"), record.get("left_out") or []
    if not isinstance(places, list) or len(places) > _MOST_PICKS:
        raise InputError(f"picks: expected a list of at most {_MOST_PICKS} places")
    if not isinstance(areas, list) or len(areas) > _MOST_DISCS:
        raise InputError(f"picks: expected at most {_MOST_DISCS} discs left out")
    try:
        xy = np.array(places, np.float64).reshape(-1, 2)
        merit = np.array(record.get("merit") or [], np.float64)
        discs = np.array(areas, np.float64).reshape(-1, 3)
    except (ValueError, TypeError, OverflowError) as error:
        raise InputError("picks: expected pairs of numbers") from error
    if not np.isfinite(xy).all() or (xy < 0).any() or (xy > np.array(shape[::-1])).any():
        raise InputError(f"picks: expected places inside {shape[1]} x {shape[0]} pixels")
    if merit.shape not in ((0,), (len(xy),)) or not np.isfinite(merit).all():
        raise InputError(f"picks: expected a merit for each of {len(xy)} places, or none")
    if not np.isfinite(discs).all() or (discs[:, 2] <= 0).any() or (np.abs(discs) > 10 * max(shape)).any():
        raise InputError("picks: expected discs of x, y and a positive radius")
    return xy, merit, discs


def _areas_given(job: Job) -> dict[str, FloatArray]:
    """Areas that the job was told to leave out: `verglas pick` takes one file, which must have them too."""
    given = given_option(job, "--leave-out")
    return {} if given is None or given.resolve() == (job.folder / LEFT_OUT).resolve() else LeftOut(given).areas


def _write_left_out(folder: Path, drawn: Mapping[str, Any], given: Mapping[str, FloatArray]) -> None:
    """The areas of all micrographs as `verglas pick --leave-out` reads them; no file where none are drawn."""
    if not drawn:
        (folder / LEFT_OUT).unlink(missing_ok=True)
        return
    rows = [(name, *disc) for areas in (drawn, given) for name, discs in areas.items() for disc in discs]
    labels = ["rlnMicrographName", "rlnCoordinateX", "rlnCoordinateY", RADIUS]
    write_star(folder / LEFT_OUT, {"": pd.DataFrame(rows, columns=labels)})
