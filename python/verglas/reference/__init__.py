"""Float64 NumPy versions of every kernel, written for clarity: the oracles of the tests. Never imported by ops."""

from verglas.reference import (
    correlate,
    ctf,
    match,
    maximise,
    peaks,
    polar,
    project,
    refine_pose,
    rotate,
    scatter,
    score,
)

__all__ = [
    "correlate", "ctf", "match", "maximise", "peaks", "polar", "project", "refine_pose", "rotate", "scatter", "score",
]  # fmt: skip
