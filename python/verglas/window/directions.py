"""The chart of viewing directions, made once for each particles.star."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from verglas.io import sample_star
from verglas.report.view_chart import view_chart
from verglas.window.job import Job
from verglas.window.kept import Kept
from verglas.window.particles import ParticleTables

_LABELS = ["rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"]
_POSED = ("refine", "abinitio", "class3d", "align", "variability", "multibody")  # commands that write angles
_POSED_RELION = ("Refine3D", "Class3D", "InitialModel")
_charts: Kept[str | None] = Kept(32)


def angles_stamp(job: Job) -> str:
    """Another word for other viewing directions; empty where a job has none."""
    path = _posed_file(job)
    try:
        return "" if path is None else f"{path.stat().st_mtime_ns:x}"
    except OSError:  # it was just replaced
        return ""


def _posed_file(job: Job) -> Path | None:
    """The particles with angles of a job; None where it has none."""
    if job.command not in (_POSED_RELION if job.package == "RELION" else _POSED):
        return None
    path = ParticleTables().file(job)
    return path if path is not None and path.suffix == ".star" else None


def angles_chart(job: Job) -> str | None:
    """JSON of the chart of a job's viewing directions, of a large set a sample; None where it has none."""
    path = _posed_file(job)
    if path is None:
        return None
    symmetry = str(job.settings.get("symmetry") or job.settings.get("sym_name") or "C1")
    return _charts.get((path, path.stat().st_mtime_ns, symmetry), lambda: _make(path, symmetry))


def _make(path: Path, symmetry: str) -> str | None:
    tables, _ = sample_star(path)
    posed = [t for t in tables.values() if isinstance(t, pd.DataFrame) and set(_LABELS) <= set(t.columns)]
    angles = posed[0][_LABELS].to_numpy(np.float64) if posed else np.zeros((0, 3))
    angles = angles[np.isfinite(angles).all(axis=1)]
    return view_chart(angles, symmetry).as_json() if len(angles) else None
