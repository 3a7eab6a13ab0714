"""First maps from class averages, by the methods that the field has."""

from functools import partial

from verglas.initial_model.averages.find import METHODS, SWARM, AveragesMap, find_from_averages, start_from
from verglas.initial_model.averages.swarm import SwarmConsensus, swarm_consensus
from verglas.initial_model.averages.views import Views

__all__ = [
    "METHODS",
    "SWARM",
    "AveragesMap",
    "SwarmConsensus",
    "Views",
    "find_from_averages",
    "start_from",
    "swarm_consensus",
]
__dir__ = partial(sorted, __all__)
