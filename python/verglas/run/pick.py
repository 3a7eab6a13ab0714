"""Picking on files: micrographs in, coordinates, pictures, a page and a verdict out."""

from __future__ import annotations

import csv
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from verglas._native import resolve_threads
from verglas._screen import ListenerChoice, shown_to
from verglas.assessment.micrographs import (
    MicrographQuality,
    inverted_contrast,
    judge_micrographs,
    judge_set,
    untrusted_picks,
)
from verglas.errors import InputError, VerglasError
from verglas.io import (
    atomic_path,
    find_micrographs,
    read_ctf_table,
    read_micrograph,
    read_picks,
    write_bytes,
    write_picks,
    write_text,
)
from verglas.io.coordinates import match_names, unique_stems
from verglas.io.micrographs import MICROGRAPH, PATH, join_ctf
from verglas.io.rules import written_name
from verglas.picking import (
    FilamentSettings,
    PickExamples,
    PickMerit,
    PickResult,
    PickSettings,
    RocCurve,
    compare_picks,
    inside,
    match_picks,
    pick_detailed,
    roc_curve,
    teach,
    trace_detailed,
)
from verglas.picking.blob import contrast_skewness
from verglas.picking.particles import MERIT, Templates
from verglas.run.candidates import FOLDER as CANDIDATES
from verglas.run.candidates import LeftOut, candidates_star
from verglas.run.edited_picks import set_aside_edits
from verglas.run.extract import Microscope
from verglas.run.fine_tune import chosen_weights
from verglas.run.kept_inputs import keeps_inputs
from verglas.run.micrograph_pages import PICTURES, pick_picture_names, write_pick_page
from verglas.run.parallel import in_order
from verglas.run.pick_inputs import optics_of, pixel_size_of, read_templates
from verglas.run.reasons import most_common_reason, without_name
from verglas.run.screen import screening_reason
from verglas.run.tenure import Tenure, tenure
from verglas.types import Micrograph, Optics, Picks
from verglas.types.arrays import FloatArray
from verglas.types.verdict import Verdict

if TYPE_CHECKING:  # loaded by what asks for a network
    from verglas.learned import Weights


@dataclass(frozen=True)
class PickJob:
    """What ``verglas pick`` is asked for.

    Attributes
    ----------
    micrographs : sequence of str
        Patterns, folders, files, or a STAR file that names them.
    diameter_A : float
        Of the particle.
    out : Path
        Folder to write: picks.star, pictures/, report.html, quality.csv, verdict.json.
    settings : PickSettings
    microscope : Microscope
        Pixel size and optics where no file says them.
    ctf : Path, optional
        CTFs of the micrographs.
    templates : Path, optional
        A map (.mrc, .map) or class averages (.mrcs, particles white).
    compare : Path, optional
        Picks taken as the truth.
    pictures : bool
        One picture per micrograph.
    threads : int, optional
        Micrographs worked on at a time.
    one_file : bool
        picks.star holds all coordinates, instead of a list of one file per micrograph.
    leave_out : Path, optional
        Discs in which nothing is picked, drawn by a person (:class:`verglas.run.candidates.LeftOut`).
    examples : Path, optional
        Picks of some particles on some of the micrographs, which teach the methods by features.
    filaments : FilamentSettings, optional
        Trace filaments, whose width is ``diameter_A``, instead of particles.
    weights : Path, optional
        Of the method ``learned``: a safetensors file; those that come with verglas by default.
    fine_tune : str, optional
        Train the weights further before picking: a file of clicks, or ``consensus``
        (:func:`verglas.run.fine_tune.tuned_weights`).
    clicks_complete : bool
        All particles of the clicked micrographs are clicked.
    """

    micrographs: Sequence[str]
    diameter_A: float
    out: Path
    settings: PickSettings = field(default_factory=PickSettings)
    microscope: Microscope = field(default_factory=Microscope)
    ctf: Path | None = None
    templates: Path | None = None
    compare: Path | None = None
    pictures: bool = True
    threads: int | None = None
    one_file: bool = False
    leave_out: Path | None = None
    examples: Path | None = None
    filaments: FilamentSettings | None = None
    weights: Path | None = None
    fine_tune: str | None = None
    clicks_complete: bool = False


@dataclass(frozen=True)
class _Given:
    """What was read before the first micrograph."""

    templates: Templates | None
    truth: Mapping[str, Picks] | None
    areas: Sequence[FloatArray | None]
    taught: PickExamples | None
    weights: Weights | None = None


@dataclass(frozen=True)
class _Done:
    """One micrograph: what was found, or why nothing."""

    row: int
    name: str
    picks: Picks | None = None
    candidates: Picks | None = None
    quality: MicrographQuality | None = None
    shape: tuple[int, int] = (0, 0)
    pixel_size_A: float = float("nan")
    result: PickResult | None = None
    reason: str = ""
    seconds: float = 0.0
    skewness: float = float("nan")


@dataclass(frozen=True)
class PickSummary:
    """What ``verglas pick`` reports.

    Attributes
    ----------
    picks : dict of str -> Picks
        By micrograph, those that were used.
    set_aside : dict of str -> str
        Micrographs that could not be used, and why.
    flags : dict of str -> tuple of str
        Reasons to look at a micrograph.
    verdict : Verdict
    merit : PickMerit or None
        Against the picks to compare with.
    roc : RocCurve or None
    seconds, seconds_each : float
        Wall time; median time of one micrograph in one thread.
    """

    picks: dict[str, Picks]
    set_aside: dict[str, str]
    flags: dict[str, tuple[str, ...]]
    verdict: Verdict
    merit: PickMerit | None
    roc: RocCurve | None
    seconds: float
    seconds_each: float

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        numbers: dict[str, Any] = {
            "micrographs": len(self.picks),
            "picks": sum(len(p) for p in self.picks.values()),
            "verdict": self.verdict.as_dict(),
            "flagged": {name: list(reasons) for name, reasons in self.flags.items() if reasons},
            "set_aside": self.set_aside,
            "seconds": round(self.seconds, 2),
            "seconds_per_micrograph": round(self.seconds_each, 3),
        }
        if self.merit is not None:
            numbers["comparison"] = self.merit.as_dict()
            if self.roc is not None:
                numbers["comparison"] |= {"auc": self.roc.auc, "auc_band": self.roc.band}
        return numbers


@keeps_inputs("pick")
def pick_files(job: PickJob, *, listener: ListenerChoice = "screen") -> PickSummary:
    """Pick particles in micrograph files and write coordinates, pictures, a page and a verdict.

    Parameters
    ----------
    job : PickJob
    listener : Listener, "screen" or None
        Who is told how it goes (:class:`verglas.types.listener.Listener`).

    Returns
    -------
    PickSummary

    Raises
    ------
    InputError
        No micrographs, settings that do not go together, or no micrograph that could be used.
    """
    start_time = time.perf_counter()
    table = find_micrographs(list(job.micrographs))
    if job.ctf is not None:
        table = join_ctf(table, read_ctf_table(job.ctf))
    table = job.microscope.apply(table)
    templates = None if job.templates is None else read_templates(job.templates)
    truth = None if job.compare is None else read_picks(job.compare)
    names = [str(name) for name in table[MICROGRAPH]]
    areas = [None] * len(table) if job.leave_out is None else LeftOut(job.leave_out).of(names)
    settings = {k: v for k, v in asdict(job.settings).items() if v is not None} | {"diameter_A": job.diameter_A}
    if job.filaments is not None:
        settings |= {"filaments": asdict(job.filaments)}
    with shown_to(listener) as heard, tenure(job.out, "pick", heard) as held:
        for folder in (CANDIDATES, *(["pictures/small"] if job.pictures else [])):
            (job.out / folder).mkdir(parents=True, exist_ok=True)
        held.write(state="running", settings=settings)
        taught = None if job.examples is None else taught_by(job.examples, table, job)
        weights, said = chosen_weights(job, table)
        if said:
            held.note("fine_tune", said)
        given = _Given(templates, truth, areas, taught, weights)
        return _pick_all(job, table, given, held, start_time)


def taught_by(path: Path, table: pd.DataFrame, job: PickJob) -> PickExamples:
    """Examples of the particles that a file names on micrographs of the list.

    Raises
    ------
    InputError
        None of its micrographs is in the list.
    """
    clicks = read_picks(path)
    rows = match_names(list(clicks), [str(name) for name in table[MICROGRAPH]])
    known = [(picks, int(row)) for picks, row in zip(clicks.values(), rows, strict=True) if row >= 0]
    if not known:
        first = next(iter(clicks), "none")
        raise InputError(f"pick: {path}: none of its {len(clicks)} micrographs ({first}, ...) is among those given")
    read = (
        (read_micrograph(table[PATH].iloc[row], pixel_size_of(table.iloc[row])), picks.xy_px) for picks, row in known
    )
    return teach(read, job.diameter_A, job.settings, threads=job.threads)


def _pick_all(
    job: PickJob,
    table: pd.DataFrame,
    given: _Given,
    held: Tenure,
    start_time: float,
) -> PickSummary:
    """Each micrograph, written as it is done; then the set."""
    outcomes: list[_Done] = []
    # Micrographs side by side before threads inside one: transforms of one micrograph do not fill many cores.
    workers = min(resolve_threads(job.threads), len(table))
    each = 1 if workers > 1 else job.threads  # micrographs side by side use the cores
    work = in_order(lambda row: _pick_one(job, table.iloc[row], row, given, each), range(len(table)), workers)
    files = unique_stems([str(name) for name in table[MICROGRAPH]], ".star")
    listed = [written_name(path, job.out) for path in table[PATH]]  # as picks.star has them
    for one in work:
        if one.result is not None:
            write_bytes(job.out / CANDIDATES / files[one.row], candidates_star(one.result, listed[one.row]))
        if one.result is not None and job.pictures:  # here, in one thread: matplotlib's settings are global
            for file, picture in zip(pick_picture_names(one.name), _pictures(one.result, one.name), strict=True):
                write_bytes(job.out / file, picture)
        # Without the result: score maps of a whole session would fill the memory.
        outcomes.append(replace(one, result=None))
        held.progress("micrographs", len(outcomes), len(table))
    usable = [one for one in outcomes if one.picks is not None]
    if not usable:
        why = most_common_reason([(one.name, one.reason) for one in outcomes])
        raise InputError(f"pick: none of {len(outcomes)} micrographs could be used: {why}")
    summary = _summarise(job, outcomes, usable, given.truth, start_time)
    file_names = {one.name: listed[one.row] for one in usable}
    by_file = {file_names[n]: p for n, p in summary.picks.items()}
    write_picks(job.out / "picks.star", by_file, one_file=job.one_file)
    if said := set_aside_edits(job.out, by_file):
        held.note("edits", said)
    _write_quality(job.out, usable, summary, pictures=job.pictures)
    write_pick_page(job.out)
    return summary


def _search(
    job: PickJob, micrograph: Micrograph, optics: Optics | None, given: _Given, number: int, threads: int | None
) -> PickResult:
    """Particles of a micrograph, or segments of its filaments."""
    left_out = given.areas[number]
    if job.filaments is not None:
        return trace_detailed(micrograph, job.diameter_A, job.filaments, left_out=left_out, threads=threads)
    return pick_detailed(
        micrograph,
        job.diameter_A,
        templates=given.templates,
        settings=job.settings,
        threads=threads,
        optics=optics if given.templates is not None else None,
        left_out=left_out,
        examples=given.taught,
        weights=given.weights,
    )


def _pick_one(
    job: PickJob,
    row: pd.Series[Any],
    number: int,
    given: _Given,
    threads: int | None,
) -> _Done:
    name = str(row[MICROGRAPH])
    began = time.perf_counter()
    optics = optics_of(row)
    try:
        micrograph = replace(
            read_micrograph(row[PATH], pixel_size_of(row), listed=job.microscope.pixel_size_A is None), name=name
        )
        screening = screening_reason(micrograph)
        result = _search(job, micrograph, optics, given, number, threads)
    # One micrograph must not end a session of thousands: why it failed stands in the account.
    except (VerglasError, OSError, MemoryError) as error:
        return _Done(number, name, reason=without_name(error, name))
    seconds = time.perf_counter() - began
    quality = MicrographQuality(
        name,
        len(result.picks),
        result.bad.fraction,
        result.cut.separation,
        result.cut.clear,
        float(np.mean([optics.defocus_u_A[0], optics.defocus_v_A[0]])) if optics is not None else float("nan"),
        float(row["rlnCtfMaxResolution"]) if "rlnCtfMaxResolution" in row else float("nan"),
        result.cut.precision,
        result.ring_contrast,
        result.doubts,
        screening,
    )
    return _Done(
        number,
        name,
        result.picks,
        result.candidates,
        quality,
        micrograph.shape,
        micrograph.pixel_size_A,
        result,
        seconds=seconds,
        # filaments have a width, and no blobs of it
        skewness=float("nan") if job.filaments is not None else contrast_skewness(result.small),
    )


def _pictures(result: PickResult, name: str) -> tuple[bytes, bytes]:
    from verglas.report.picks import picks_picture

    title = f"{Path(name).name}: {len(result.picks)} picks"
    return picks_picture(result, title, 5.0), picks_picture(result, width_in=2.4)


def _summarise(
    job: PickJob,
    outcomes: Sequence[_Done],
    usable: Sequence[_Done],
    truth: Mapping[str, Picks] | None,
    start_time: float,
) -> PickSummary:
    set_aside = {one.name: one.reason for one in outcomes if one.picks is None}
    qualities = [one.quality for one in usable if one.quality is not None]
    flags = judge_micrographs(qualities)
    merit, roc = (None, None) if truth is None else compare_with(usable, truth, job.diameter_A)
    # who gives a threshold has judged what lies above it
    given = job.settings.threshold is not None
    doubtful = {one.name for one in qualities if not one.picks} if given else untrusted_picks(qualities)
    verdict = judge_set(flags, len(set_aside), untrusted=doubtful)
    if inverted := inverted_contrast([one.skewness for one in usable]):
        verdict = Verdict.of_notes([*inverted, *verdict.findings], {})
    if why := _threshold_hint(job.settings.threshold, usable):
        verdict = Verdict("stop", (why, *verdict.reasons))
    return PickSummary(
        {one.name: one.picks for one in usable if one.picks is not None},
        set_aside,
        flags,
        verdict,
        merit,
        roc,
        time.perf_counter() - start_time,
        float(np.median([one.seconds for one in usable])),
    )


def _threshold_hint(threshold: float | None, usable: Sequence[_Done]) -> str:
    """What to say where a given threshold leaves no pick at all."""
    if threshold is None or any(one.picks is not None and len(one.picks) for one in usable):
        return ""
    merits = [
        one.candidates.columns[MERIT].max() for one in usable if one.candidates is not None and len(one.candidates)
    ]
    best = f"the highest is {max(merits):.2f}" if merits else "there is no candidate"
    return f"no candidate has a figure of merit of {threshold:g} ({best}); give a lower --threshold, or none"


def compare_with(
    micrographs: Sequence[Any], truth: Mapping[str, Picks], diameter_A: float
) -> tuple[PickMerit, RocCurve | None]:
    """Figures of merit of a set: pairs within a third of the diameter, both lists half a diameter inside.

    Raises
    ------
    InputError
        No micrograph is in both.
    """
    at = match_names([one.name for one in micrographs], list(truth))
    total, scores, labels = PickMerit(0, 0, 0), [], []
    names = list(truth)
    for one, index in zip(micrographs, at, strict=True):
        if index < 0:
            continue
        margin, radius = diameter_A / 2 / one.pixel_size_A, diameter_A / 3 / one.pixel_size_A
        true = truth[names[index]].xy_px
        # Boxes near the border cannot be cut out, so picks there are neither a merit nor a fault.
        true = true[inside(true, one.shape, margin)]
        mine = one.picks.xy_px[inside(one.picks.xy_px, one.shape, margin)]
        total = total + compare_picks(mine, true, radius)
        others = one.candidates[inside(one.candidates.xy_px, one.shape, margin)]
        hit = np.zeros(len(others), bool)
        hit[match_picks(others.xy_px, true, radius)[0]] = True
        scores.append(others.columns[MERIT])
        labels.append(hit)
    if not scores:
        raise InputError(
            f"compare: no picks to compare with for any of {len(micrographs)} micrographs, "
            f"such as {micrographs[0].name}"
        )
    together = np.concatenate(labels)
    roc = roc_curve(np.concatenate(scores), together) if 0 < together.sum() < len(together) else None
    return total, roc


def _write_quality(out: Path, usable: Sequence[_Done], summary: PickSummary, *, pictures: bool) -> None:
    with atomic_path(out / "quality.csv") as temporary, open(temporary, "w", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle)
        writer.writerow(("micrograph", "picks", "bad_fraction", "separation", "defocus_A", "resolution_A", "flags"))
        for one in usable:
            q = one.quality
            assert q is not None
            writer.writerow(
                (
                    q.name,
                    q.picks,
                    f"{q.bad_fraction:.4f}",
                    f"{q.separation:.3f}",
                    f"{q.defocus_A:.0f}",
                    f"{q.resolution_A:.2f}",
                    "; ".join(summary.flags[q.name]),
                )
            )
    account = {**summary.as_dict(), PICTURES: pictures}
    write_text(out / "verdict.json", json.dumps(account, indent=1) + "\n")
