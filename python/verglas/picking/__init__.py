"""Particles in micrographs: pickers, thresholds, bad areas, merit."""

from functools import partial

from verglas.picking.consensus import consensus, remove_duplicates
from verglas.picking.examples import PickExamples
from verglas.picking.filaments import FilamentSettings, trace_detailed, trace_filaments
from verglas.picking.grid_squares import screen_square
from verglas.picking.image import SmallImage, prepare
from verglas.picking.mask import BadAreas, bad_areas
from verglas.picking.merit import PickMerit, RocCurve, compare_picks, inside, match_picks, roc_curve
from verglas.picking.particles import Averages, PickResult, PickSettings, pick, pick_detailed, teach
from verglas.picking.screening import Screening, screen

__all__ = [
    "Averages",
    "BadAreas",
    "FilamentSettings",
    "PickExamples",
    "PickMerit",
    "PickResult",
    "PickSettings",
    "RocCurve",
    "Screening",
    "SmallImage",
    "bad_areas",
    "compare_picks",
    "consensus",
    "inside",
    "match_picks",
    "pick",
    "pick_detailed",
    "prepare",
    "remove_duplicates",
    "roc_curve",
    "screen",
    "screen_square",
    "teach",
    "trace_detailed",
    "trace_filaments",
]
__dir__ = partial(sorted, __all__)
