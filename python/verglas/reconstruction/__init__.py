"""Known poses: maps to projections, and projections back to maps; solvers and priors for linear systems."""

from functools import partial

from verglas.reconstruction import operators, priors, solvers
from verglas.reconstruction.compositions import diffuse, solve_firt, solve_icon, solve_mbir
from verglas.reconstruction.forward import project
from verglas.reconstruction.known_poses import Reconstruction, ReconstructSettings, reconstruct, reconstruct_report
from verglas.reconstruction.misfit import objective
from verglas.reconstruction.solvers import Solution, solve
from verglas.reconstruction.thickness import reconstruct_3d_ctf
from verglas.reconstruction.wedge import MissingWedge, missing_wedge

__all__ = [
    "MissingWedge",
    "ReconstructSettings",
    "Reconstruction",
    "Solution",
    "diffuse",
    "missing_wedge",
    "objective",
    "operators",
    "priors",
    "project",
    "reconstruct",
    "reconstruct_3d_ctf",
    "reconstruct_report",
    "solve",
    "solve_firt",
    "solve_icon",
    "solve_mbir",
    "solvers",
]
__dir__ = partial(sorted, __all__)
