"""Particles of a job by their values: histograms of all, points of a sample, and the choice that regions make.

The choice is computed here, of all particles; a browser gets what it draws, whatever their number.
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from verglas.errors import InputError
from verglas.heterogeneity import Region, in_regions
from verglas.heterogeneity.regions import regions_of
from verglas.io import write_json
from verglas.io.columns import Columns
from verglas.report.chart import round_or_none
from verglas.run.select import read_regions
from verglas.types.arrays import BoolArray
from verglas.window.columns import BeingRead, ReadColumns
from verglas.window.job import Job
from verglas.window.said import column_text
from verglas.window.versions import check_seen, seen_mark

KEPT_PARTICLES = "particles_kept.json"
_SAMPLE, _PAGE, _MOST_COLUMNS = 20_000, 100, 40
_FEW = 1500  # points of a file that is being read
# What only counts or places a particle says nothing of its structure.
_LEFT_OUT = ("rlnOpticsGroup", "rlnImageSize", "rlnCoordinateX", "rlnCoordinateY", "rlnGroupNumber")
_FIRST = ("verglasCoordinate", "verglasContrast", "verglasPosterior", "rlnMaxValueProb", "rlnLogLikeli", "rlnDefocus")
# Of other packages: what a job ended with, or else the last iteration that it wrote.
_OF_RELION = ("run_data.star", "particles.star", "particles_ctf_refine.star", "shiny.star", "run_it*_data.star")
_OF_CRYOSPARC = ("*_particles.cs", "*particles*.cs")


class ParticleTables:
    """Tables of particles, read when they are asked for and again when their files change."""

    def __init__(self) -> None:
        self._columns = ReadColumns()

    def file(self, job: Job) -> Path | None:
        """The particles of a job; None where it has none."""
        if job.changeable:
            path = job.folder / "particles.star"
            return path if job.command != "process" and path.is_file() else None
        for pattern in _OF_RELION if job.package == "RELION" else _OF_CRYOSPARC:
            # Sorted by name the last iteration comes last; passthrough files hold what others lack, not particles.
            paths = (path for path in job.folder.glob(pattern) if "passthrough" not in path.name)
            inside = sorted(path for path in paths if _inside(path, job))
            if inside:
                return inside[-1]
        return None

    def has(self, job: Job) -> bool:
        """Whether a job has particles with values to look at."""
        return self.file(job) is not None

    def _path(self, job: Job) -> Path:
        path = self.file(job)
        if path is None:
            raise InputError("particles: this job has no file of them")
        return path

    def _of(self, job: Job) -> Columns:
        return self._columns.of(self._path(job))

    def read_steps(self, job: Job) -> list[dict[str, Any]]:
        """Steps as they were saved last."""
        path = job.folder / KEPT_PARTICLES
        if not path.is_file():
            return []
        return [one.as_record() for one in read_regions(path)]

    def as_json(self, job: Job) -> dict[str, Any]:
        """For the page: columns with histograms of all particles, and the steps saved last; ``reading`` while a large
        file is read for the first time, with histograms and values of a sample.
        """
        try:
            table = self._of(job)
        except BeingRead as reading:
            return {"reading": str(reading), **self._glance(job)}
        columns = _histograms(table)
        steps = self.read_steps(job)
        return {"total": table.n_rows, "columns": columns, "steps": steps, "seen": seen_mark(steps)}

    def _glance(self, job: Job) -> dict[str, Any]:
        """Of a file that is being read: number of rows, histograms of a sample of them, and values of fewer."""
        glance = self._columns.glance(self._path(job))
        if glance is None:
            return {}
        table = glance.columns
        few = np.unique(np.linspace(0, table.n_rows - 1, _FEW).astype(int)) if table.n_rows else np.zeros(0, int)
        values = {name: round_or_none(table.of(name)[few]) for name in _offered_columns(table)}
        return {"total": glance.n_rows, "sampled": table.n_rows, "columns": _histograms(table), "values": values}

    def points(self, job: Job, x: str, y: str) -> dict[str, Any]:
        """Points of a sample of the particles in two columns.

        Raises
        ------
        InputError
            A column that there is not.
        """
        table = self._of(job)
        for name in (x, y):
            if name not in table:
                raise InputError(f"particles: no column {name}")
        rows = _sample(table.n_rows)
        return {"x": round_or_none(table.of(x)[rows]), "y": round_or_none(table.of(y)[rows])}

    def choose(self, job: Job, steps: Any, sort: str = "", descending: bool = False, page: int = 0) -> dict[str, Any]:
        """What steps leave: how many, their histograms, which of the sample, and a page of the table of those kept.

        Raises
        ------
        InputError
            Steps that are none.
        """
        table = self._of(job)
        regions, names = regions_of(steps, "particles"), _offered_columns(table)
        kept = _kept_rows(table, regions)
        rows = np.flatnonzero(kept)
        if sort in names:
            values = table.of(sort)[rows]
            order = np.argsort(-values if descending else values, kind="stable")  # NaN comes last either way
            rows = rows[order]
        page = max(0, min(page, (len(rows) - 1) // _PAGE))
        shown = rows[page * _PAGE : (page + 1) * _PAGE]
        listed = np.stack([table.of(name)[shown] for name in names], axis=1) if names else np.zeros((len(shown), 0))
        return {
            "kept": len(rows),
            "counts": {name: table.counts(name, kept).tolist() for name in names if regions},
            "sample": kept[_sample(table.n_rows)].astype(int).tolist(),
            "page": page,
            "pages": max(1, -(-len(rows) // _PAGE)),
            "rows": [[int(row) + 1, *round_or_none(values)] for row, values in zip(shown, listed, strict=True)],
        }

    def save(self, job: Job, steps: Any, seen: Any = None) -> dict[str, str]:
        """Write the steps; returns ``command``, which takes them, and ``seen``, which the next save sends.

        Raises
        ------
        InputError
            Steps that are none, or that leave no particle; others that another page has saved since ``seen``.
        """
        regions = regions_of(steps, "particles")
        kept = _kept_rows(self._of(job), regions)
        if not kept.any():
            raise InputError("particles: none would be left")
        records = [one.as_record() for one in regions]
        check_seen("particles", seen, seen_mark(self.read_steps(job)), seen_mark(records))
        record = {"particles": self._path(job).name, "of": len(kept), "kept": int(kept.sum())}
        write_json(job.folder / KEPT_PARTICLES, record | {"steps": records})
        return {"command": self.command(job), "seen": seen_mark(records)}

    def command(self, job: Job) -> str:
        """What takes the steps; those of another package's job are downloaded, and nothing is written beside it."""
        path = self._path(job)
        steps, out = KEPT_PARTICLES, f"selected_by_eye{path.suffix}"
        if job.changeable:
            steps, out = str(job.folder / steps), str(job.folder / out)
        return shlex.join(["verglas", "select", str(path), "--regions", steps, "--out", out])


def _inside(path: Path, job: Job) -> bool:
    """Whether a file, links followed, lies in the folder of its job."""
    try:
        return path.is_file() and path.resolve(strict=True).is_relative_to(job.folder.resolve())
    except (OSError, RuntimeError):
        return False


def _histograms(table: Columns) -> list[dict[str, Any]]:
    """Of the columns that the page offers: name, limits and counts."""
    columns = []
    for name in _offered_columns(table):
        low, high = table.limits[table.names.index(name)].tolist()
        columns.append(
            {"name": name, "label": column_text(name), "low": low, "high": high, "counts": table.counts(name).tolist()}
        )
    return columns


def _offered_columns(table: Columns) -> list[str]:
    """Columns that the page offers, the most telling first."""
    return sorted((name for name in table.names if name not in _LEFT_OUT), key=_rank)[:_MOST_COLUMNS]


def _kept_rows(table: Columns, regions: list[Region]) -> BoolArray:
    used = {name for one in regions for name in (one.x, one.y) if name in table}
    frame = pd.DataFrame({name: table.of(name) for name in used}, index=range(table.n_rows))
    return in_regions(frame, regions)


def _sample(n_rows: int) -> Any:
    """Rows that are drawn as points, the same at each look."""
    if n_rows <= _SAMPLE:
        return np.arange(n_rows)
    return np.sort(np.random.default_rng(0).choice(n_rows, _SAMPLE, replace=False))


def _rank(name: str) -> tuple[int, str]:
    """Coordinates of heterogeneity first."""
    return next((k for k, start in enumerate(_FIRST) if name.startswith(start)), len(_FIRST)), name
