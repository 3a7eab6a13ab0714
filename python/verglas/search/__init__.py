"""Poses of images against maps: grids of poses, branch and bound, continuous refinement, alignment."""

from functools import partial

from verglas.search.alignment import AlignSettings, align, align_plan
from verglas.search.cells import Level, search_levels
from verglas.search.planner import SearchCost, search_cost
from verglas.search.pose_search import PoseSearch
from verglas.search.posterior import LevelStatistics, SearchResult
from verglas.search.search_settings import LocalWindow, SearchSettings

__all__ = [
    "AlignSettings",
    "Level",
    "LevelStatistics",
    "LocalWindow",
    "PoseSearch",
    "SearchCost",
    "SearchResult",
    "SearchSettings",
    "align",
    "align_plan",
    "search_cost",
    "search_levels",
]
__dir__ = partial(sorted, __all__)
