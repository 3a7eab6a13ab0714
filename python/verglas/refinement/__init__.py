"""Poses and maps from particles: global search and refinement."""

from verglas.refinement.alignment import AlignSettings, align, align_plan
from verglas.refinement.cells import Level, search_levels
from verglas.refinement.planner import SearchCost, search_cost
from verglas.refinement.posterior import LevelStatistics, SearchResult
from verglas.refinement.search import LocalWindow, PoseSearch, SearchSettings
from verglas.refinement.settings import RefineSettings

__all__ = [
    "AlignSettings",
    "Level",
    "LevelStatistics",
    "LocalWindow",
    "PoseSearch",
    "RefineSettings",
    "SearchCost",
    "SearchResult",
    "SearchSettings",
    "align",
    "align_plan",
    "search_cost",
    "search_levels",
]
