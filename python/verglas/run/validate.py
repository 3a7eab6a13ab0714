"""``verglas validate``: the questions that a finished run has to answer before its map is believed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

from verglas._version import __version__
from verglas.assessment.directional import directional_fsc
from verglas.assessment.homogeneity import judge_homogeneity
from verglas.assessment.judge import judge_directions
from verglas.assessment.validation import (
    QUESTIONS,
    judge_half_sets,
    judge_independence,
    judge_mask,
    judge_mask_edge,
    judge_shared_noise,
    judge_shared_particles,
    judge_signal,
)
from verglas.errors import InputError
from verglas.image.near_copies import near_copies
from verglas.image.outliers import inspect_images
from verglas.io import make_folder, read_csv, read_json, read_particles, write_json, write_text
from verglas.reconstruction.half_sets import images_of
from verglas.report.html import Page, Section, Table, render
from verglas.run.alignability import judge_poses
from verglas.run.aligned_noise import judge_aligned_noise
from verglas.run.kept_inputs import keeps_inputs
from verglas.run.maps import half_map_suffixes, read_half_maps, read_mask
from verglas.run.repeat_refinement import judge_repeat_refinement
from verglas.types import Map, Particles
from verglas.types.arrays import IntArray
from verglas.types.verdict import STATES, Finding, Verdict

_MOST_PIXELS = 1 << 28  # of all images, that are read to compare them: 1 GB
_MOST_IMAGES = 50_000  # that are compared pair by pair
_NOT_ASKED = {
    "half-sets": "there is no particles.star",
    "homogeneity": "there is one map, or a class whose half maps are not two",
    "better-than-noise": "it takes an alignment of noise; --aligned-noise asks",
    "repeat": "it takes a refinement; --refine-again asks",
    "shared-particles": "there is no particles.star with images and half sets",
    "mask-edge": "there is no mask.mrc",
    "mask": "there is no fsc.csv with phase-randomised halves and no postprocess.json",
}


@keeps_inputs("validate")
def validate(
    folder: str | Path,
    out: str | Path | None = None,
    *,
    alignability: int = 0,
    refine_again: bool = False,
    aligned_noise: int = 0,
    threads: int | None = None,
) -> Verdict:
    """Ask a run's folder, and write validate.json and validate.html.

    Parameters
    ----------
    folder : path
        Of ``verglas refine`` or ``verglas postprocess`` with half1.mrc and half2.mrc beside what they wrote.
    out : path, optional
        Where to write; the folder itself if not given.
    alignability : int
        Particles, at random, whose orientation is searched for in the other half's map
        (:func:`verglas.assessment.alignability`); none by default. Of one map only.
    refine_again : bool
        Refine the half sets again, each by itself, from the map without its fine shells, and compare how far they
        agree: names half maps of one common refinement. Takes what a refinement takes. Of one map only.
    aligned_noise : int
        Images of noise that are aligned to the map, and compared with as many particles
        (:func:`verglas.run.aligned_noise.judge_aligned_noise`); none by default. Of one map only.
    threads : int, optional
        Threads; the result does not depend on it.

    Returns
    -------
    Verdict
        With what the run itself said; of several classes, a finding for each.

    Raises
    ------
    InputError
        There are no half maps, or they, or the mask, do not go together; the message names the file.
    """
    folder = Path(folder)
    suffixes = half_map_suffixes(folder)
    if not suffixes:
        raise InputError(f"{folder}: no half1.mrc and half2.mrc; expected the folder of a refinement that has finished")
    symmetry, findings = _symmetry(folder, suffixes[0]), _of_particles(folder)
    for suffix in suffixes:
        findings += [_name_class(finding, suffix) for finding in _of_class(folder, suffix, symmetry, threads)]
    if len(suffixes) > 1 and not any(f.code == "independent-halves" and f.state == "stop" for f in findings):
        halves = {s: read_half_maps(folder / f"half1{s}.mrc", folder / f"half2{s}.mrc") for s in suffixes}
        named = {suffix.removeprefix("_class"): pair for suffix, pair in halves.items()}
        findings.append(judge_homogeneity(named, symmetry=symmetry, threads=threads))
    if alignability:
        findings.append(_of_poses(folder, suffixes, symmetry, alignability, threads))
    if refine_again:
        findings.append(_of_repeat(folder, suffixes, symmetry, threads))
    if aligned_noise:
        findings.append(_of_noise(folder, suffixes, symmetry, aligned_noise, threads))
    said = {finding.code for finding in findings}
    findings += [finding for finding in _of_run(folder) if finding.code not in said]
    verdict = Verdict.of(findings, "validate.html")
    target = folder if out is None else Path(out)
    make_folder(target)
    write_json(
        target / "validate.json",
        {"verglas": __version__, "run": str(folder), **verdict.as_dict(), "not_asked": questions_not_asked(verdict)},
    )
    write_text(target / "validate.html", render(_page(folder, verdict)))
    return verdict


def _symmetry(folder: Path, suffix: str) -> str:
    """The point group that the half maps were made under, as the run or its postprocessing says."""
    run, done = folder / "run.json", folder / f"postprocess{suffix}.json"
    stated = read_json(run).get("symmetry") if run.is_file() else None
    if stated is None and done.is_file():
        stated = (read_json(done).get("settings") or {}).get("symmetry")
    return str(stated or "C1")


def _name_class(finding: Finding, suffix: str) -> Finding:
    """With the class in the sentence, where there are several."""
    number = suffix.removeprefix("_class")
    if not number:
        return finding
    numbers = {**finding.numbers, "class": int(number)}
    return replace(finding, sentence=f"Class {number}: {finding.sentence}", numbers=numbers)


def _of_class(folder: Path, suffix: str, symmetry: str, threads: int | None) -> list[Finding]:
    first, second = read_half_maps(folder / f"half1{suffix}.mrc", folder / f"half2{suffix}.mrc")
    path = folder / f"mask{suffix}.mrc"
    mask = first.with_data(read_mask(path, first)) if path.is_file() else None
    edge = [] if mask is None else [judge_mask_edge(mask)]
    return [*_of_half_maps(first, second, mask, symmetry, threads), *_of_mask(folder, suffix), *edge]


def questions_not_asked(verdict: Verdict) -> dict[str, str]:
    """Questions that a verdict of :func:`validate` does not answer, code -> why.

    Examples
    --------
    >>> from verglas.run.validate import questions_not_asked
    >>> from verglas.types.verdict import Verdict
    >>> questions_not_asked(Verdict("go on"))["shared-particles"]
    'there is no particles.star with images and half sets'
    """
    return {
        question.code: _NOT_ASKED.get(question.code, "the half maps are not two")
        for question in QUESTIONS
        if question.code not in verdict.codes
    }


def _of_half_maps(first: Map, second: Map, mask: Map | None, symmetry: str, threads: int | None) -> list[Finding]:
    independent = judge_independence(first, second)
    if independent.state == "stop":
        return [independent]  # every other number of one map twice is meaningless
    signal = judge_signal(first, second, symmetry=symmetry, threads=threads)
    findings = [independent, judge_shared_noise(first, second, symmetry=symmetry, threads=threads), signal]
    if signal.state == "go on":
        findings.append(judge_directions(directional_fsc(first, second, mask, threads=threads)))
    return findings


def _of_particles(folder: Path) -> list[Finding]:
    path = folder / "particles.star"
    if not path.is_file():
        return []
    particles = read_particles(path)
    half_sets = particles.half_sets
    told = judge_half_sets(half_sets)
    if half_sets is None:
        return [told]
    # Rows of one name, of one place in a micrograph, or, where the images are not too many to read, of one picture.
    copies = _copies(particles, half_sets)
    first = images_of(particles, copies)
    if "rlnImageName" in particles.table:
        names = particles.table["rlnImageName"].astype(str).tolist()
    else:
        names = [f"particle {i}" for i in range(len(first))]
    found = judge_shared_particles([names[i] for i in first], half_sets)
    return [told, replace(found, numbers={**found.numbers, "pixels_compared": copies is not None})]


def _copies(particles: Particles, half_sets: IntArray) -> IntArray | None:
    """For every particle the first with nearly equal pixels; None where images are not there, or too many."""
    if particles.source is None:
        return None
    try:
        few = len(particles) * particles.box**2 <= _MOST_PIXELS
        if not few:
            return None
        equal = inspect_images(particles).copy_of
        alike = equal == np.arange(len(equal))  # the others are told already
        return np.where(alike, near_copies(particles, half_sets), equal) if len(equal) <= _MOST_IMAGES else equal
    except InputError:  # a stack that was moved away: names and places are compared, which the finding says
        return None


def _of_poses(folder: Path, suffixes: Sequence[str], symmetry: str, count: int, threads: int | None) -> Finding:
    particles, halves, mask = _of_one_map(folder, suffixes, "alignability is")
    return judge_poses(particles, halves, mask, count=count, symmetry=symmetry, threads=threads)


def _of_repeat(folder: Path, suffixes: Sequence[str], symmetry: str, threads: int | None) -> Finding:
    particles, halves, _ = _of_one_map(folder, suffixes, "another refinement is")
    return judge_repeat_refinement(particles, halves, symmetry=symmetry, threads=threads)


def _of_noise(folder: Path, suffixes: Sequence[str], symmetry: str, count: int, threads: int | None) -> Finding:
    particles, halves, _ = _of_one_map(folder, suffixes, "aligned noise is")
    return judge_aligned_noise(particles, halves, count=count, symmetry=symmetry, threads=threads)


def _of_one_map(folder: Path, suffixes: Sequence[str], asked: str) -> tuple[Particles, tuple[Map, Map], Map | None]:
    """Particles, half maps and mask of a run of one map."""
    star = folder / "particles.star"
    if len(suffixes) > 1 or not star.is_file():
        what = f"maps of {len(suffixes)} classes" if len(suffixes) > 1 else "no particles.star"
        raise InputError(f"{folder}: {what}; {asked} asked of the particles of one map")
    halves = read_half_maps(folder / "half1.mrc", folder / "half2.mrc")
    path = folder / "mask.mrc"
    mask = halves[0].with_data(read_mask(path, halves[0])) if path.is_file() else None
    return read_particles(star), halves, mask


def _of_mask(folder: Path, suffix: str) -> list[Finding]:
    curves, record = folder / f"fsc{suffix}.csv", folder / f"postprocess{suffix}.json"
    if not (curves.is_file() and record.is_file()):
        return []
    table, said = read_csv(curves), read_json(record)
    if "phase_randomised" not in table or said.get("resolution_A") is None:
        return []
    frequency, random = (table[name].to_numpy(float) for name in ("frequency_per_A", "phase_randomised"))
    vouched = bool(said.get("vouched_by_phase_randomisation", True))
    from_A = said.get("randomised_from_A")
    return [judge_mask(frequency, random, float(said["resolution_A"]), from_A, vouched=vouched)]


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
    rows += [
        (asked[code].text, "not asked", reason, "", asked[code].threshold, asked[code].false_alarms)
        for code, reason in questions_not_asked(verdict).items()
    ]
    marked = [i for i, row in enumerate(rows) if row[1] in ("warn", "stop")]
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
