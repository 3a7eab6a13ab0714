"""First maps from particles alone: random starts, contest, symmetry, consensus; hill climbing; common lines."""

from functools import partial

from verglas.initial_model.common_lines import CommonLines, Synchronised, find_common_lines, sinogram, synchronise
from verglas.initial_model.consensus import Comparison, Verdict
from verglas.initial_model.find import AbInitio, find_initial_model
from verglas.initial_model.observer import Observer
from verglas.initial_model.settings import AbInitioSettings
from verglas.initial_model.starts import Start
from verglas.initial_model.symmetry import SymmetryFound

__all__ = [
    "AbInitio",
    "AbInitioSettings",
    "CommonLines",
    "Comparison",
    "Observer",
    "Start",
    "SymmetryFound",
    "Synchronised",
    "Verdict",
    "find_common_lines",
    "find_initial_model",
    "sinogram",
    "synchronise",
]
__dir__ = partial(sorted, __all__)
