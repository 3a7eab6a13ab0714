"""Volumes without symmetry, and the relative error of arrays, for tests of projections and rotations."""

from __future__ import annotations

import numpy as np


def blob(box: int, seed: int, fill: float = 0.75) -> np.ndarray:
    """Noise inside a sphere of diameter fill * box: no symmetry, every frequency present."""
    x = np.arange(box) - box // 2
    inside = x[:, None, None] ** 2 + x[:, None] ** 2 + x**2 <= (fill * box / 2) ** 2
    return (np.random.default_rng(seed).normal(size=(box,) * 3) * inside).astype(np.float32)


def relative(got: np.ndarray, want: np.ndarray) -> float:
    return float(np.linalg.norm(got - want) / np.linalg.norm(want))
