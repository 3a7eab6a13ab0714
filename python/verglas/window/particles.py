"""Particles of a job by their values: histograms of all, points of a sample, and the choice that regions make.

The choice is computed here, of all particles; a browser gets what it draws, whatever their number.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from verglas.errors import InputError
from verglas.heterogeneity import in_regions
from verglas.heterogeneity.regions import regions_of
from verglas.io import read_particles, write_json
from verglas.run.class2d import read_regions
from verglas.types.arrays import FloatArray, IntArray
from verglas.window.job import Job
from verglas.window.kept import Kept

KEPT_PARTICLES = "particles_kept.json"
_FILE = "particles.star"
_SAMPLE, _BINS, _PAGE, _MOST_COLUMNS = 20_000, 60, 100, 40
_KEPT_TABLES = 3
# What only counts or places a particle says nothing of its structure.
_LEFT_OUT = ("rlnOpticsGroup", "rlnImageSize", "rlnCoordinateX", "rlnCoordinateY", "rlnGroupNumber")
_FIRST = ("verglasCoordinate", "verglasContrast", "verglasPosterior", "rlnMaxValueProb", "rlnLogLikeli", "rlnDefocus")


@dataclass(frozen=True)
class _Table:
    """Values that vary, by column; the rows drawn as points; the file's particles."""

    values: pd.DataFrame
    sample: IntArray


class ParticleTables:
    """Tables of particles, read when they are asked for and again when their files change."""

    def __init__(self) -> None:
        self._tables: Kept[_Table] = Kept(_KEPT_TABLES)

    def has(self, job: Job) -> bool:
        """Whether a job has particles with values to look at."""
        return job.changeable and job.command != "process" and (job.folder / _FILE).is_file()

    def _of(self, job: Job) -> _Table:
        path = job.folder / _FILE

        def read() -> _Table:
            table = read_particles(path).table
            values = {}
            for name in sorted(map(str, table.columns), key=_rank):
                if name in _LEFT_OUT or not pd.api.types.is_numeric_dtype(table[name]):
                    continue
                column = table[name].to_numpy(np.float64)  # as `verglas select` reads it: a limit may be a value
                good = column[np.isfinite(column)]
                if len(good) and good.min() < good.max():
                    values[name] = column
            some = dict(list(values.items())[:_MOST_COLUMNS])
            rows = np.arange(len(table))
            if len(rows) > _SAMPLE:
                rows = np.sort(np.random.default_rng(0).choice(len(table), _SAMPLE, replace=False))
            return _Table(pd.DataFrame(some, index=range(len(table))), rows)

        return self._tables.of_file(path, read)

    def saved(self, job: Job) -> list[dict[str, Any]]:
        """Steps as they were saved last."""
        path = job.folder / KEPT_PARTICLES
        if not path.is_file():
            return []
        return [one.as_record() for one in read_regions(path)]

    def as_json(self, job: Job) -> dict[str, Any]:
        """For the page: columns with histograms of all particles, and the steps saved last."""
        table = self._of(job)
        columns = []
        for name in map(str, table.values.columns):
            low, high, counts = _histogram(table.values[name].to_numpy())
            columns.append({"name": name, "low": low, "high": high, "counts": counts})
        return {"total": len(table.values), "columns": columns, "steps": self.saved(job)}

    def points(self, job: Job, x: str, y: str) -> dict[str, Any]:
        """Points of a sample of the particles in two columns.

        Raises
        ------
        InputError
            A column that there is not.
        """
        table = self._of(job)
        for name in (x, y):
            if name not in table.values:
                raise InputError(f"particles: no column {name}")
        drawn = table.values.iloc[table.sample]
        return {"x": _rounded(drawn[x].to_numpy()), "y": _rounded(drawn[y].to_numpy())}

    def chosen(self, job: Job, steps: Any, sort: str = "", descending: bool = False, page: int = 0) -> dict[str, Any]:
        """What steps leave: how many, their histograms, which of the sample, and a page of the table of those kept.

        Raises
        ------
        InputError
            Steps that are none.
        """
        table = self._of(job)
        regions = regions_of(steps, "particles")
        kept = in_regions(table.values, regions)
        rows = np.flatnonzero(kept)
        if sort in table.values:
            values = table.values[sort].to_numpy()[rows]
            order = np.argsort(-values if descending else values, kind="stable")  # NaN comes last either way
            rows = rows[order]
        page = max(0, min(page, (len(rows) - 1) // _PAGE))
        shown = rows[page * _PAGE : (page + 1) * _PAGE]
        listed = table.values.iloc[shown]
        return {
            "kept": len(rows),
            "counts": {
                str(name): _histogram(table.values[name].to_numpy(), kept)[2] for name in table.values if regions
            },
            "sample": kept[table.sample].astype(int).tolist(),
            "page": page,
            "pages": max(1, -(-len(rows) // _PAGE)),
            "rows": [
                [int(row) + 1, *values]
                for row, values in zip(shown, map(_rounded, listed.to_numpy(np.float64)), strict=True)
            ],
        }

    def save(self, job: Job, steps: Any) -> str:
        """Write the steps; return the command that takes them.

        Raises
        ------
        InputError
            Steps that are none, or that leave no particle.
        """
        regions = regions_of(steps, "particles")
        kept = in_regions(self._of(job).values, regions)
        if not kept.any():
            raise InputError("particles: none would be left")
        record = {"particles": _FILE, "of": len(kept), "kept": int(kept.sum())}
        write_json(job.folder / KEPT_PARTICLES, record | {"steps": [one.as_record() for one in regions]})
        return self.command(job)

    def command(self, job: Job) -> str:
        """What takes the steps."""
        words = ["verglas", "select", str(job.folder / _FILE), "--regions", str(job.folder / KEPT_PARTICLES)]
        return shlex.join([*words, "--out", str(job.folder / "selected_by_eye.star")])


def _rank(name: str) -> tuple[int, str]:
    """Coordinates of heterogeneity first."""
    return next((k for k, start in enumerate(_FIRST) if name.startswith(start)), len(_FIRST)), name


def _histogram(values: FloatArray, kept: Any = None) -> tuple[float, float, list[int]]:
    """Limits and counts; outliers beyond the 0.1st and 99.9th percentile stand in the outermost bins."""
    good = values[np.isfinite(values)].astype(np.float64)
    low, high = (float(f"{v:.6g}") for v in np.percentile(good, (0.1, 99.9)))
    if not low < high:
        low, high = float(good.min()), float(good.max())
    shown = good if kept is None else values[np.isfinite(values) & kept].astype(np.float64)
    return low, high, np.histogram(np.clip(shown, low, high), _BINS, (low, high))[0].tolist()


def _rounded(values: Any) -> list[float | None]:
    return [float(f"{v:.5g}") if np.isfinite(v) else None for v in values]
