"""The page of a project, from what lies in its folder."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from verglas._version import __version__
from verglas.io import write_text
from verglas.pipeline.micrographs import has_passed, result_of
from verglas.pipeline.project import Project, Shot
from verglas.pipeline.stage_sections import TITLES, own_page, stage_sections
from verglas.pipeline.tables import Standing, standings
from verglas.report.process import ProcessShown, SetRow, StageRow, process_page
from verglas.run.tenure import now_text


def _float(value: Any) -> float:
    return float("nan") if value is None else float(value)


def set_row(project: Project, one: Standing, waiting: Mapping[str, str] | None = None) -> SetRow:
    """One line of the table of micrographs."""
    shot = one.shot
    state = "set aside" if not one.is_used else "flagged" if one.flags else "used"
    if one.is_used and project.results("ctf").get(shot.key) is None:
        state = (waiting or {}).get(shot.key, "waiting")
    facts: dict[str, Any] = {}
    if has_passed(project, "ctf", shot):
        ctf = result_of(project, "ctf", shot)
        facts = {
            "defocus_A": (ctf["defocus_u_A"] + ctf["defocus_v_A"]) / 2,
            "astigmatism_A": _float(ctf["astigmatism_A"]),
            "resolution_A": _float(ctf["resolution_A"]),
            "merit": _float(ctf["merit"]),
            "ice_ring": _float(ctf["ice_ring"]),
        }
    if has_passed(project, "pick", shot):
        pick_result = result_of(project, "pick", shot)
        facts |= {"picks": pick_result["picks"], "bad_fraction": pick_result["bad_fraction"]}
    if has_passed(project, "extract", shot):
        facts["particles"] = len(result_of(project, "extract", shot)["kept"])
    picture = next(
        (
            f"{project.folder_name(stage)}/png/{shot.key}.png"
            for stage in ("pick", "ctf")
            if has_passed(project, stage, shot)
        ),
        "",
    )
    reason = _without_path(one.reason, shot) or "; ".join(one.flags)
    return SetRow(shot.name, state, reason, picture=picture, **facts)


def _without_path(text: str, shot: Shot) -> str:
    """A reason without the path that it begins with: the row has the name already."""
    for name in (str(shot.path), shot.name, shot.path.name):
        text = text.removeprefix(f"{name}: ")
    return text


def _short_paths(text: str, rows: Sequence[Standing]) -> str:
    """A sentence with the names of micrographs set aside in place of their paths."""
    for one in rows:
        if not one.is_used and str(one.shot.path) in text:
            text = text.replace(str(one.shot.path), one.shot.path.name)
    return text


def write_page(project: Project, *, running: bool = False, waiting: Mapping[str, str] | None = None) -> None:
    """Write report.html of the project.

    Parameters
    ----------
    project : Project
    running : bool
        The page loads itself again: files are still being watched.
    waiting : mapping of key -> state, optional
        What watched files wait for.
    """
    every = standings(project)
    rows = [set_row(project, one, waiting) for one in every]
    usable = [row for row in rows if row.state in ("used", "flagged")]
    stages = [
        StageRow(
            r.name,
            r.verdict.state,
            [_short_paths(reason, every) for reason in r.verdict.reasons],
            r.seconds,
            r.settings,
            own_page(project.root, r),
            TITLES.get(r.name, r.name),
        )
        for r in project.records.values()
    ]
    defoci = [row.defocus_A for row in usable if np.isfinite(row.defocus_A)]
    numbers = {
        "micrographs used": f"{len(usable)} of {len(rows)}",
        "picks": f"{sum(row.picks or 0 for row in usable):,}",
        "particles": f"{sum(row.particles or 0 for row in usable):,}",
        "defocus": f"{min(defoci) / 1e4:.2f} to {max(defoci) / 1e4:.2f} µm" if defoci else "unknown",
    }
    for name in ("postprocess", "refine"):
        record = project.records.get(name)
        if record is not None and record.verdict.numbers.get("resolution_A"):
            withheld_by = record.verdict.numbers.get("resolution_withheld_by")
            doubt = f", not to be stated ({withheld_by})" if withheld_by else ""
            numbers["resolution"] = f"{record.verdict.numbers['resolution_A']:.2f} Å{doubt}"
            break
    worst = next((s for word in ("stop", "warn") for s in stages if s.state == word), None)
    summary = (
        "All stages say: go on." if worst is None else f"{worst.title}: {worst.state}: {'; '.join(worst.reasons)}."
    )
    if project.assumptions:
        summary += f" {project.assumptions[:1].upper()}{project.assumptions[1:]}."
    if running:
        summary = "Watching for micrographs. " + (summary if stages else "")
    figures = ProcessShown(
        f"verglas process: {project.root.resolve().name}",
        summary,
        numbers,
        rows,
        stages,
        stage_sections(project.root, project.records),
        f"verglas {__version__}, {now_text()}",
        running,
        f"verglas process --out {shlex.quote(project.root.name)} --keep micrographs_kept.star",
    )
    write_text(project.root / "report.html", process_page(figures))
