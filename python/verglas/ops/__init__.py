"""The kernels on plain arrays: one documented function per op, the same word in every tree."""

from functools import partial
from inspect import isfunction

from verglas.ops.common_lines import common_line_scores, common_lines
from verglas.ops.convolve import convolve, convolve_gradient
from verglas.ops.correlate import Correlation, correlate, correlate_rotations
from verglas.ops.ctf import ctf
from verglas.ops.ctf_score import CtfScores, ctf_score
from verglas.ops.eer import eer
from verglas.ops.grid import Grid
from verglas.ops.insert import GridSums, fold, insert, symmetrise
from verglas.ops.match import match
from verglas.ops.maximise import MaximisePlan, maximise
from verglas.ops.pack import count_points, pack, unpack
from verglas.ops.peaks import peaks
from verglas.ops.polar import (
    PolarGrid,
    polar,
    polar_ctf_power,
    polar_harmonics,
    polar_power,
    polar_slices,
    polar_weighted,
)
from verglas.ops.polar_insert import images_from_polar, polar_insert
from verglas.ops.posterior import Posterior
from verglas.ops.project import project
from verglas.ops.radon import radon, radon_adjoint
from verglas.ops.refine_pose import STATUS as POSE_STATUS
from verglas.ops.refine_pose import PosePrior, PoseResult, PoseSettings, pose_covariance, pose_radii, refine_pose
from verglas.ops.residuals import GroupSums, Residuals, grey_scale, noise_variance
from verglas.ops.rotate import rotate
from verglas.ops.scatter import scatter, scatter_volume
from verglas.ops.score import ScorePlan, Scores, psi_angles_deg, score
from verglas.ops.score_cells import CellTasks, score_cells
from verglas.ops.shell_dot import shell_dot
from verglas.ops.shift_score import ShiftScores, shift_score
from verglas.ops.warp import warp
from verglas.types.profile import time_calls

__all__ = [
    "POSE_STATUS",
    "CellTasks",
    "Correlation",
    "CtfScores",
    "Grid",
    "GridSums",
    "GroupSums",
    "MaximisePlan",
    "PolarGrid",
    "PosePrior",
    "PoseResult",
    "PoseSettings",
    "Posterior",
    "Residuals",
    "ScorePlan",
    "Scores",
    "ShiftScores",
    "common_line_scores",
    "common_lines",
    "convolve",
    "convolve_gradient",
    "correlate",
    "correlate_rotations",
    "count_points",
    "ctf",
    "ctf_score",
    "eer",
    "fold",
    "grey_scale",
    "images_from_polar",
    "insert",
    "match",
    "maximise",
    "noise_variance",
    "pack",
    "peaks",
    "polar",
    "polar_ctf_power",
    "polar_harmonics",
    "polar_insert",
    "polar_power",
    "polar_slices",
    "polar_weighted",
    "pose_covariance",
    "pose_radii",
    "project",
    "psi_angles_deg",
    "radon",
    "radon_adjoint",
    "refine_pose",
    "rotate",
    "scatter",
    "scatter_volume",
    "score",
    "score_cells",
    "shell_dot",
    "shift_score",
    "symmetrise",
    "unpack",
    "warp",
]
__dir__ = partial(sorted, __all__)

# What takes time is counted under its name (verglas.types.profile); the rest is arithmetic on a few numbers.
_QUICK = ("grey_scale", "noise_variance", "pose_covariance", "pose_radii", "psi_angles_deg")
for _name in __all__:
    _op = globals()[_name]
    if isfunction(_op) and _name not in _QUICK:
        globals()[_name] = time_calls(_name, _op)
for _plan, _method, _name in (
    (ScorePlan, "set_reference", "score: reference"),
    (ScorePlan, "run", "score"),
    (MaximisePlan, "set_reference", "maximise: reference"),
    (MaximisePlan, "add", "maximise"),
    (MaximisePlan, "insert", "maximise: insert"),
):
    setattr(_plan, _method, time_calls(_name, getattr(_plan, _method)))
