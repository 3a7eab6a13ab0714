"""``verglas process``: from micrographs to particles, classes or a map, stage by stage, each with a verdict."""

from __future__ import annotations

from verglas.run.process.job import Outcome, process
from verglas.run.process.request import Request
from verglas.run.process.stage import Stage, StageRecord, StageVerdict
from verglas.run.process.watch import WatchOptions, watch_folder

__all__ = ["Outcome", "Request", "Stage", "StageRecord", "StageVerdict", "WatchOptions", "process", "watch_folder"]
