"""``verglas process``: from micrographs to particles, classes or a map, stage by stage, each with a verdict."""

from __future__ import annotations

from functools import partial

from verglas.pipeline.job import Outcome, process
from verglas.pipeline.settings import ProcessSettings
from verglas.pipeline.stage import Stage, StageRecord
from verglas.pipeline.watch import WatchOptions, watch_folder
from verglas.types.verdict import Verdict

__all__ = ["Outcome", "ProcessSettings", "Stage", "StageRecord", "Verdict", "WatchOptions", "process", "watch_folder"]
__dir__ = partial(sorted, __all__)
