"""Classes in three dimensions, ticked in the page that ticks 2D classes too."""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
import pandas as pd

from verglas.errors import VerglasError
from verglas.io import read_json, read_map, read_particles
from verglas.io.star_columns import kept_columns
from verglas.report.grey import grey_bytes
from verglas.window.job import Job
from verglas.window.kept import Kept

_MAP = re.compile(r"map_class(\d{1,3})\.mrc")  # of more, one picture could not hold all
_CLASS = "rlnClassNumber"
_counts: Kept[dict[int, int]] = Kept(4)


def map_numbers(job: Job) -> list[int]:
    """Numbers of the classes that have a map, in order; none where the particles have no file."""
    if not job.changeable or not (job.folder / "particles.star").is_file():
        return []
    try:
        names = (_MAP.fullmatch(path.name) for path in job.folder.glob("map_class*.mrc"))
        return sorted(int(one[1]) for one in names if one)
    except OSError:
        return []


def particles_by_class(job: Job) -> dict[int, int]:
    """How many particles each class has."""
    path = job.folder / "particles.star"

    def count() -> dict[int, int]:
        star = kept_columns(path)  # of a large file: millions of rows are not read for one of their columns
        table = star.frame([_CLASS]) if star and _CLASS in star.labels() else read_particles(path).table
        if _CLASS not in table:
            return {}
        numbers = pd.to_numeric(table[_CLASS], errors="coerce").dropna().to_numpy(np.int64)
        numbers, many = np.unique(numbers, return_counts=True)
        return dict(zip(numbers.tolist(), many.tolist(), strict=True))

    return _counts.of_file(path, count)


def resolutions_A(job: Job) -> dict[int, float]:
    """Resolution of each class, where the job's summary says it."""
    path = job.folder / "class3d.json"
    try:
        values: Any = read_json(path).get("resolutions_A", []) if path.is_file() else []
    except (VerglasError, OSError, AttributeError):
        return {}
    if not isinstance(values, list):
        return {}
    return {k: float(v) for k, v in enumerate(values, 1) if isinstance(v, int | float) and math.isfinite(v)}


def projections(job: Job, side: int) -> dict[int, np.ndarray]:
    """Grey sums of the maps along z, (side, side) uint8 each."""
    pictures = {}
    for number in map_numbers(job):
        volume = read_map(job.folder / f"map_class{number}.mrc").data
        image = volume.sum(axis=0, dtype=np.float64)
        y, x = (np.rint(np.linspace(0, n - 1, side)).astype(int) for n in image.shape)
        pictures[number] = grey_bytes(image)[np.ix_(y, x)]
    return pictures
