"""Linear operators of images, SciPy's kind: their solvers, and ours, run on them unchanged."""

from functools import partial

from verglas.reconstruction.operators.particles import (
    ParticleOperator,
    particles,
    view_overlap,
    weighted_back_projection_of_views,
)
from verglas.reconstruction.operators.tilt_series import (
    TiltSeries,
    leave_one_out,
    parallel_beam,
    tilt_series,
    weighted_back_projection,
)

__all__ = [
    "ParticleOperator",
    "TiltSeries",
    "leave_one_out",
    "parallel_beam",
    "particles",
    "tilt_series",
    "view_overlap",
    "weighted_back_projection",
    "weighted_back_projection_of_views",
]
__dir__ = partial(sorted, __all__)
