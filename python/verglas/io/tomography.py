"""STAR files of tomography, told from those of single particles by their labels, and refused by name."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from verglas.errors import FormatError

_SET = ("rlnTomoParticlesFile", "rlnTomoTomogramsFile", "rlnTomoTrajectoriesFile", "rlnTomoManifoldsFile")


def refuse_tomography(path: Path, tables: Mapping[str, Any]) -> None:
    """Raise a FormatError that says what a STAR file of tomography holds; others pass.

    Their images are volumes, or series of tilts: read as single particles, section 1 of each would be taken for it.
    """
    kinds = [(name, kind) for name, table in tables.items() if (kind := _kind(table)) is not None]
    if kinds:
        name, (what, labels) = kinds[0]
        raise FormatError(
            f"{path}: table '{name}' holds {what} of tomography ({', '.join(labels)}); expected single particles or "
            "micrographs: average the subtomograms in the program that made them"
        )


def _kind(table: Any) -> tuple[str, list[str]] | None:
    labels = [str(label) for label in table]
    tomo = [label for label in labels if label.startswith("rlnTomo")]
    if any(label in _SET for label in labels):
        return "an optimisation set", [label for label in labels if label in _SET]
    if "rlnTomoTiltSeriesStarFile" in labels:
        return "tilt series", ["rlnTomoTiltSeriesStarFile"]
    if "rlnTomoNominalStageTiltAngle" in labels:
        return "the images of a tilt series", ["rlnTomoNominalStageTiltAngle"]
    if "rlnImageName" in labels and (tomo or "rlnCtfImage" in labels):
        kind = "stacks of tilts" if "rlnTomoVisibleFrames" in labels else "subtomograms"
        return kind, tomo or ["rlnCtfImage"]
    if "rlnCoordinateX" in labels and ("rlnTomoName" in labels or "rlnTomoParticleName" in labels):
        return "coordinates in tomograms", tomo
    if "rlnImageDimensionality" in labels and (_numbers(table["rlnImageDimensionality"]) == 3).any():
        return "subtomograms", ["rlnImageDimensionality 3"]
    return None


def _numbers(values: Any) -> np.ndarray:
    column = values if isinstance(values, pd.Series) else pd.Series([values])
    return pd.to_numeric(column, errors="coerce").to_numpy(np.float64, na_value=np.nan)
