"""First maps without a reference: random starts, contest, symmetry, consensus; common lines; class averages."""

from functools import partial

from verglas.initial_model.averages import AveragesMap, Views, find_from_averages, swarm_consensus
from verglas.initial_model.common_lines import CommonLines, Synchronised, find_common_lines, sinogram, synchronise
from verglas.initial_model.consensus import Comparison, Verdict
from verglas.initial_model.find import AbInitio, find_initial_model
from verglas.initial_model.line_cost import search_orientations
from verglas.initial_model.optimisers import minimise
from verglas.initial_model.settings import AbInitioSettings
from verglas.initial_model.starts import Start
from verglas.initial_model.symmetry import SymmetryFound

__all__ = [
    "AbInitio",
    "AbInitioSettings",
    "AveragesMap",
    "CommonLines",
    "Comparison",
    "Start",
    "SymmetryFound",
    "Synchronised",
    "Verdict",
    "Views",
    "find_common_lines",
    "find_from_averages",
    "find_initial_model",
    "minimise",
    "search_orientations",
    "sinogram",
    "swarm_consensus",
    "synchronise",
]
__dir__ = partial(sorted, __all__)
