"""Float64 NumPy versions of every kernel, written for clarity: the oracles of the tests. Never imported by ops."""

from functools import partial

from verglas.reference import (
    common_lines,
    convolve,
    correlate,
    ctf,
    ctf_score,
    eer,
    match,
    maximise,
    pack,
    peaks,
    polar,
    project,
    radon,
    refine_pose,
    rotate,
    scatter,
    score,
    shell_dot,
    shift_score,
    warp,
)

__all__ = [
    "common_lines",
    "convolve",
    "correlate",
    "ctf",
    "ctf_score",
    "eer",
    "match",
    "maximise",
    "pack",
    "peaks",
    "polar",
    "project",
    "radon",
    "refine_pose",
    "rotate",
    "scatter",
    "score",
    "shell_dot",
    "shift_score",
    "warp",
]
__dir__ = partial(sorted, __all__)
