"""``verglas validate``: the questions that a finished run has to answer before its map is believed."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

from verglas._version import __version__
from verglas.assessment.directional import directional_fsc
from verglas.assessment.judge import judge_directions
from verglas.assessment.validation import (
    QUESTIONS,
    judge_independence,
    judge_mask,
    judge_shared_noise,
    judge_shared_particles,
    judge_signal,
)
from verglas.errors import InputError
from verglas.io import read_csv, read_json, read_map, read_particles, write_json, write_text
from verglas.report.html import Page, Section, Table, render
from verglas.types import Map
from verglas.types.verdict import STATES, Finding, Verdict

_SUFFIXES = ("", "_class1")


def validate_run(folder: Path, out: Path | None = None, *, threads: int | None = None) -> Verdict:
    """Ask a run's folder, and write validate.json and validate.html.

    Parameters
    ----------
    folder : Path
        Of ``verglas refine`` or ``verglas postprocess`` with half1.mrc and half2.mrc beside what they wrote.
    out : Path, optional
        Where to write; the folder itself if not given.
    threads : int, optional
        Threads; the result does not depend on it.

    Returns
    -------
    Verdict
        With what the run itself said.

    Raises
    ------
    InputError
        There are no half maps.
    """
    suffix = next((s for s in _SUFFIXES if (folder / f"half1{s}.mrc").is_file()), None)
    if suffix is None:
        raise InputError(f"{folder}: no half1.mrc and half2.mrc; expected the folder of a refinement that has finished")
    halves = [read_map(folder / f"half{number}{suffix}.mrc") for number in (1, 2)]
    if halves[0].data.shape != halves[1].data.shape:
        raise InputError(f"{folder}: half maps of shapes {halves[0].data.shape} and {halves[1].data.shape}")
    mask = read_map(folder / f"mask{suffix}.mrc") if (folder / f"mask{suffix}.mrc").is_file() else None
    findings = [*_of_half_maps(halves, mask, threads), *_of_particles(folder), *_of_mask(folder, suffix)]
    said = {finding.code for finding in findings}
    findings += [finding for finding in _of_run(folder) if finding.code not in said]
    verdict = Verdict.of(findings, "validate.html")
    target = out or folder
    target.mkdir(parents=True, exist_ok=True)
    write_json(target / "validate.json", {"verglas": __version__, "run": str(folder), **verdict.as_dict()})
    write_text(target / "validate.html", render(_page(folder, verdict)))
    return verdict


def _of_half_maps(halves: list[Map], mask: Map | None, threads: int | None) -> list[Finding]:
    first, second = halves
    independent = judge_independence(first, second)
    if independent.state == "stop":
        return [independent]  # every other number of one map twice is meaningless
    signal = judge_signal(first, second, threads=threads)
    findings = [independent, judge_shared_noise(first, second, threads=threads), signal]
    if signal.state == "go on":
        findings.append(judge_directions(directional_fsc(first, second, mask, threads=threads)))
    return findings


def _of_particles(folder: Path) -> list[Finding]:
    path = folder / "particles.star"
    if not path.is_file():
        return []
    particles = read_particles(path)
    half_sets = particles.half_sets
    if half_sets is None or "rlnImageName" not in particles.table:
        return []
    return [judge_shared_particles(particles.table["rlnImageName"].astype(str).tolist(), half_sets)]


def _of_mask(folder: Path, suffix: str) -> list[Finding]:
    curves, record = folder / f"fsc{suffix}.csv", folder / f"postprocess{suffix}.json"
    if not (curves.is_file() and record.is_file()):
        return []
    table, said = read_csv(curves), read_json(record)
    if "phase_randomised" not in table or said.get("resolution_A") is None:
        return []
    frequency, random = (table[name].to_numpy(float) for name in ("frequency_per_A", "phase_randomised"))
    return [judge_mask(frequency, random, float(said["resolution_A"]), said.get("randomised_from_A"))]


def _of_run(folder: Path) -> list[Finding]:
    """What the run found out itself."""
    path = folder / "run.json"
    verdict: dict[str, Any] = read_json(path).get("verdict") or {} if path.is_file() else {}
    return list(Verdict.from_dict(verdict).findings) if verdict else []


def _page(folder: Path, verdict: Verdict) -> Page:
    asked = {question.code: question for question in QUESTIONS}
    rows = []
    for finding in sorted(verdict.findings, key=lambda f: -STATES.index(f.state)):
        question = asked.get(finding.code)
        numbers = ", ".join(f"{name.replace('_', ' ')} {_text(value)}" for name, value in finding.numbers.items())
        rows.append(
            (
                question.text if question else finding.code.replace("-", " "),
                finding.state,
                finding.sentence,
                numbers,
                question.threshold if question else "",
                question.false_alarms if question else "",
            )
        )
    head = ("question", "answer", "why", "numbers", "threshold", "false alarms")
    worst = {
        "go on": "Nothing speaks against this map.",
        "warn": "Look at the warnings.",
        "stop": "Do not use this map.",
    }
    counts = {state: str(sum(f.state == state for f in verdict.findings)) for state in STATES}
    now = datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    marked = [i for i, row in enumerate(rows) if row[1] != "go on"]
    table = Table(head, rows, marked=marked)
    return Page(
        f"verglas validate: {folder.name}",
        worst.get(verdict.state, "Do not use this map."),
        counts,
        [Section("Questions", blocks=[table])],
        f"verglas {__version__}, {now}",
    )


def _text(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}" if np.isfinite(value) else "none"
    return str(value)
