"""The table of stages: adding one takes its class and a line here."""

from __future__ import annotations

from verglas.errors import SettingError
from verglas.pipeline.centre import CentreStage
from verglas.pipeline.finish import FINISHING
from verglas.pipeline.maps import AbInitioStage, Class2DStage, PostprocessStage, RefineStage
from verglas.pipeline.micrographs import CtfStage, PickStage
from verglas.pipeline.motion import MotionStage
from verglas.pipeline.particles import ExtractStage
from verglas.pipeline.settings import ProcessSettings
from verglas.pipeline.stage import Stage

# In the order in which they run.
STAGES: dict[str, type[Stage]] = {
    "motion": MotionStage,
    "ctf": CtfStage,
    "pick": PickStage,
    "extract": ExtractStage,
    "centre": CentreStage,
    "class2d": Class2DStage,
    "abinitio": AbInitioStage,
    "refine": RefineStage,
    **{stage.name: stage for stage in FINISHING},
    "postprocess": PostprocessStage,
}


def stages_of(process_settings: ProcessSettings) -> list[Stage]:
    """The stages that lead to what is asked for.

    Raises
    ------
    SettingError
        ``set`` names a stage that is not in the table.

    Examples
    --------
    >>> from verglas.pipeline import ProcessSettings
    >>> from verglas.pipeline.stages import stages_of
    >>> [stage.name for stage in stages_of(ProcessSettings(("mics",), 120.0, to="classes"))]
    ['ctf', 'pick', 'extract', 'centre', 'class2d']
    """
    stray = sorted(key for key in process_settings.set if key.split(".", 1)[0] not in STAGES)
    if stray:
        names = ", ".join(STAGES)
        raise SettingError("process", [("", f"--set {key}: no such stage; there are {names}") for key in stray])
    return [stage() for stage in STAGES.values() if stage.is_wanted(process_settings)]
