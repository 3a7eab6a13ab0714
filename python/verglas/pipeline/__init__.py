"""``verglas process``: from micrographs to particles, classes or a map, stage by stage, each with a verdict."""

from __future__ import annotations

from verglas.pipeline.job import Outcome, process
from verglas.pipeline.request import Request
from verglas.pipeline.stage import Stage, StageRecord, StageVerdict
from verglas.pipeline.watch import WatchOptions, watch_folder

__all__ = ["Outcome", "Request", "Stage", "StageRecord", "StageVerdict", "WatchOptions", "process", "watch_folder"]
