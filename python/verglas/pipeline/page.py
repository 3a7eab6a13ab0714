"""The page of a project, from what lies in its folder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from verglas._version import __version__
from verglas.io import write_text
from verglas.pipeline.micrographs import has_passed, result_of
from verglas.pipeline.project import Project
from verglas.pipeline.stage import StageRecord
from verglas.pipeline.stages import STAGES
from verglas.pipeline.tables import Standing, standings
from verglas.report.html import Fragment, Picture, Section, Table, value_text
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
    return SetRow(shot.name, state, one.reason or "; ".join(one.flags), picture=picture, **facts)


def _sections(project: Project) -> list[Section]:
    sections = []
    for name, record in reversed(project.records.items()):  # the result first, then what led to it
        blocks: list[Picture | Table | Fragment] = []
        for file, words in STAGES[name].pictures if name in STAGES else ():
            path = project.folder(name) / file
            if path.is_file():
                blocks.append(Picture(path.read_bytes(), words, words))
        numbers = [(_label(k), _format_value(v)) for k, v in record.verdict.numbers.items()]
        if blocks:
            text = ". ".join(reason[:1].upper() + reason[1:] for reason in record.verdict.reasons)
            sections.append(Section(name, text, [*blocks, Table(("", ""), numbers)]))
    return sections


def _own_page(project: Project, record: StageRecord) -> str:
    """The page that a stage has left in its folder, from the project's; empty without."""
    page = STAGES[record.name].page if record.name in STAGES else ""
    return f"{record.folder}/{page}" if page and (project.root / record.folder / page).is_file() else ""


def _label(name: str) -> str:
    """A field's name in words: rms_shift_A is "rms shift (Å)"."""
    words, _, unit = name.rpartition("_")
    shown = {"A": "Å", "A2": "Å²", "px": "px", "deg": "°"}.get(unit)
    return name.replace("_", " ") if shown is None or not words else f"{words.replace('_', ' ')} ({shown})"


def _format_value(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return value_text(value)
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict):
        return "; ".join(f"{k}: {_format_value(v)}" for k, v in value.items()) or "none"
    return str(value)


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
    rows = [set_row(project, one, waiting) for one in standings(project)]
    usable = [row for row in rows if row.state in ("used", "flagged")]
    stages = [
        StageRow(
            r.name,
            r.verdict.state,
            r.verdict.reasons,
            r.seconds,
            r.settings,
            _own_page(project, r),
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
            numbers["resolution"] = f"{record.verdict.numbers['resolution_A']:.2f} Å"
            break
    worst = next((s for word in ("stop", "warn") for s in stages if s.state == word), None)
    summary = "All stages say: go on." if worst is None else f"{worst.name}: {worst.state}: {'; '.join(worst.reasons)}."
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
        _sections(project),
        f"verglas {__version__}, {now_text()}",
        running,
    )
    write_text(project.root / "report.html", process_page(figures))
