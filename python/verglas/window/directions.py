"""The picture of viewing directions, drawn once for each particles.star."""

from __future__ import annotations

import threading
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pandas as pd

from verglas.io import sample_star
from verglas.report.figures import angular_distribution
from verglas.window.job import Job

_LABELS = ["rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"]
_KEPT = 32
_drawn: OrderedDict[tuple[Path, int, str], bytes] = OrderedDict()
_lock = threading.Lock()


def angles_picture(job: Job) -> bytes | None:
    """PNG of the viewing directions of a job's particles; None where they have none."""
    path = job.folder / "particles.star"
    if not path.is_file():
        return None
    symmetry = str(job.settings.get("symmetry") or "C1")
    key = path, path.stat().st_mtime_ns, symmetry
    with _lock:  # matplotlib draws one figure at a time
        if key not in _drawn:
            tables, _ = sample_star(path)
            posed = [t for t in tables.values() if isinstance(t, pd.DataFrame) and set(_LABELS) <= set(t.columns)]
            angles = posed[0][_LABELS].to_numpy(np.float64) if posed else np.zeros((0, 3))
            angles = angles[np.isfinite(angles).all(axis=1)]
            if not len(angles):
                return None
            _drawn[key] = angular_distribution(angles, symmetry)
            while len(_drawn) > _KEPT:
                _drawn.popitem(last=False)
        return _drawn[key]
