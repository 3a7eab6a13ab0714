"""The page of a project written again, without working on it."""

from __future__ import annotations

from pathlib import Path

from verglas.pipeline.job import stages_of
from verglas.pipeline.page import write_page
from verglas.pipeline.project import Project, find_shots
from verglas.pipeline.request import load_request
from verglas.pipeline.stage import StageRecord, read_record


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
    request = load_request(root, {})
    project = Project(root, request, find_shots(request))
    for stage in stages_of(request):
        had, verdict = read_record(root, stage)
        if had.get("state") != "finished" or verdict is None:
            break
        project.records[stage.name] = StageRecord(
            stage.name, stage.folder, had["settings"], had["inputs"], had["outputs"], had["seconds"], verdict, True
        )
    write_page(project)
    return root / "report.html"
