"""The picture of viewing directions, drawn once for each particles.star."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from verglas.io import sample_star
from verglas.report.figures import angular_distribution
from verglas.window.job import Job
from verglas.window.kept import Kept

_LABELS = ["rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"]
# What is drawn for one reader is not drawn beside another's: matplotlib draws one figure at a time.
_pictures: Kept[bytes | None] = Kept(32)


def angles_picture(job: Job) -> bytes | None:
    """PNG of the viewing directions of a job's particles; None where they have none."""
    path = job.folder / "particles.star"
    if not path.is_file():
        return None
    symmetry = str(job.settings.get("symmetry") or "C1")
    return _pictures.get((path, path.stat().st_mtime_ns, symmetry), lambda: _draw(path, symmetry))


def _draw(path: Path, symmetry: str) -> bytes | None:
    tables, _ = sample_star(path)
    posed = [t for t in tables.values() if isinstance(t, pd.DataFrame) and set(_LABELS) <= set(t.columns)]
    angles = posed[0][_LABELS].to_numpy(np.float64) if posed else np.zeros((0, 3))
    angles = angles[np.isfinite(angles).all(axis=1)]
    return angular_distribution(angles, symmetry) if len(angles) else None
