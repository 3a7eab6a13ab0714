"""The page of a project written again, without working on it."""

from __future__ import annotations

from pathlib import Path

from verglas.pipeline.page import write_page
from verglas.pipeline.project import Project, find_shots
from verglas.pipeline.settings import load_settings
from verglas.pipeline.stage import StageRecord, read_record
from verglas.pipeline.stages import stages_of


def rewrite_project_page(root: Path) -> Path:
    """Write report.html of a project from what its stages left.

    Parameters
    ----------
    root : Path
        Project folder.

    Returns
    -------
    Path
        Of the page.
    """
    process_settings = load_settings(root)
    project = Project(root, process_settings, find_shots(process_settings))
    for stage in stages_of(process_settings):
        had, verdict = read_record(project, stage)
        if had.get("state") != "finished" or verdict is None:
            break
        project.records[stage.name] = StageRecord(
            stage.name,
            project.folder_name(stage.name),
            had["settings"],
            had["inputs"],
            had["outputs"],
            had["seconds"],
            verdict,
            True,
        )
    write_page(project)
    return root / "report.html"
