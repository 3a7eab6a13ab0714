"""Reference of ops.match: every combination, then the largest."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def match(maps: npt.ArrayLike, mix: npt.ArrayLike) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """Largest combination at every pixel and its number, in float64."""
    scores = np.asarray(mix, np.float64) @ np.asarray(maps, np.float64)
    return scores.max(axis=0), scores.argmax(axis=0)
