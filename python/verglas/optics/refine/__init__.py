"""CTF refinement on arrays: what particles with known poses say of defocus and aberrations."""

from functools import partial

from verglas.optics.refine.defocus import DefocusFit, DefocusScores, fit_defocus
from verglas.optics.refine.micrographs import MicrographFit, micrograph_pass
from verglas.optics.refine.passes import Calibration, Setting, calibrate, defocus_pass, group_pass, recalibrate
from verglas.optics.refine.phases import GroupFit, GroupSums, fit_magnification, fit_phase
from verglas.optics.refine.pixels import Pixels, Reference

__all__ = [
    "Calibration",
    "DefocusFit",
    "DefocusScores",
    "GroupFit",
    "GroupSums",
    "MicrographFit",
    "Pixels",
    "Reference",
    "Setting",
    "calibrate",
    "defocus_pass",
    "fit_defocus",
    "fit_magnification",
    "fit_phase",
    "group_pass",
    "micrograph_pass",
    "recalibrate",
]
__dir__ = partial(sorted, __all__)
