"""``verglas screen``: which micrographs are worth picking, before anything is picked."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from verglas._native import resolve_threads
from verglas._screen import ListenerChoice, shown_to
from verglas._version import __version__
from verglas.assessment.micrographs import judge_set
from verglas.errors import InputError, VerglasError
from verglas.io import (
    check_folder,
    find_micrographs,
    make_folder,
    read_micrograph,
    write_json,
    write_micrographs,
    write_text,
)
from verglas.io.micrographs import MICROGRAPH, PATH, PIXEL
from verglas.picking import Screening, screen, screen_square
from verglas.report.html import Page, Section, Table, render
from verglas.run.extract import Microscope
from verglas.run.kept_inputs import keeps_inputs
from verglas.run.parallel import in_order
from verglas.run.reasons import most_common_reason, without_name
from verglas.types import Micrograph


@dataclass(frozen=True)
class ScreenJob:
    """What ``verglas screen`` is asked for.

    Attributes
    ----------
    micrographs : sequence of str
        Patterns, folders, files, or a STAR file that names them.
    out : Path
        Folder to write: micrographs.star (those that nothing is said against), screen.json, report.html.
    microscope : Microscope
        Pixel size where no file says it.
    threads : int, optional
        Micrographs at a time.
    squares : bool
        The images are of grid squares at low magnification, not micrographs.
    """

    micrographs: Sequence[str]
    out: Path
    microscope: Microscope
    threads: int | None = None
    squares: bool = False


def screening_reason(micrograph: Micrograph) -> str:
    """What screening says against a micrograph; nothing where it cannot judge: small, coarse or synthetic ones."""
    try:
        return screen(micrograph).reason
    except InputError:
        return ""


@keeps_inputs("screen")
def screen_files(job: ScreenJob, *, listener: ListenerChoice = "screen") -> dict[str, Any]:
    """Judge micrograph files and write the list of good ones, the judgements and a page.

    Parameters
    ----------
    job : ScreenJob
    listener : Listener, "screen" or None
        Who is told how it goes.

    Returns
    -------
    dict
        What screen.json holds.

    Raises
    ------
    InputError
        No micrographs, or none that could be judged.
    """
    check_folder(job.out)
    table = job.microscope.apply(find_micrographs(list(job.micrographs)))
    names = [str(name) for name in table[MICROGRAPH]]
    results: list[Screening | str] = []
    with shown_to(listener) as heard:
        work = in_order(
            lambda row: _one(table.iloc[row], job.squares),
            range(len(table)),
            min(resolve_threads(job.threads), len(table)),
        )
        for one in work:
            results.append(one)
            heard.progress("micrographs", len(results), len(table))
    judged = {name: one for name, one in zip(names, results, strict=True) if isinstance(one, Screening)}
    set_aside = {name: one for name, one in zip(names, results, strict=True) if isinstance(one, str)}
    if not judged:
        why = most_common_reason(list(set_aside.items()))
        raise InputError(f"screen: none of {len(names)} micrographs could be judged: {why}")
    record = {"of": "grid squares" if job.squares else "micrographs"} | _record(judged, set_aside)
    make_folder(job.out)
    good = [name in judged and not judged[name].reason for name in names]
    write_micrographs(job.out / "micrographs.star", table[good].reset_index(drop=True))
    write_json(job.out / "screen.json", record)
    write_text(job.out / "report.html", render(_page(judged, set_aside, record)))
    return record


def _one(row: pd.Series[Any], squares: bool) -> Screening | str:
    name = str(row[MICROGRAPH])
    try:
        if squares:  # whatever pixel size is said: an atlas' may be beyond all that micrographs have
            return screen_square(read_micrograph(row[PATH], 1.0))
        return screen(read_micrograph(row[PATH], float(row[PIXEL]) if PIXEL in row and row[PIXEL] > 0 else None))
    # One micrograph must not end a session of thousands: why it failed stands in the account.
    except (VerglasError, OSError, MemoryError) as error:
        return without_name(error, name)


def _record(judged: dict[str, Screening], set_aside: dict[str, str]) -> dict[str, Any]:
    reasons = {name: (one.reason,) if one.reason else () for name, one in judged.items()}
    # an opinion that may be wrong: a set is stopped where it leaves nothing to go on with
    none = set(reasons) if all(reasons.values()) else set()
    return {
        "verglas": __version__,
        "micrographs": len(judged),
        "good": sum(not those for those in reasons.values()),
        "kinds": dict(Counter(one.kind for one in judged.values() if one.reason)),
        "verdict": judge_set(reasons, len(set_aside), untrusted=none).as_dict(),
        "judgements": {
            name: {
                "kind": one.kind,
                "reason": one.reason,
                "familiar": one.familiar,
                "probabilities": {kind: round(p, 4) for kind, p in one.probabilities.items()},
            }
            for name, one in judged.items()
        },
        "set_aside": set_aside,
    }


def _page(judged: dict[str, Screening], set_aside: dict[str, str], record: dict[str, Any]) -> Page:
    ordered = sorted(judged.items(), key=lambda item: item[1].good)
    rows = [(name, one.reason or "good", f"{one.good:.3f}") for name, one in ordered]
    marked = [number for number, (_, one) in enumerate(ordered) if one.reason]
    sections = [
        Section(
            record["of"].capitalize(),
            "Those least likely to be good come first.",
            [Table(("image", "judgement", "good"), rows, True, marked)],
        )
    ]
    if set_aside:
        sections.append(Section("Set aside", blocks=[Table(("file", "reason"), list(set_aside.items()))]))
    numbers = {record["of"]: str(record["micrographs"]), "good": str(record["good"])}
    numbers |= {kind: str(count) for kind, count in record["kinds"].items()}
    summary = f"Nothing was found wrong with {record['good']} of {record['micrographs']} {record['of']}."
    return Page("verglas screen", summary, numbers, sections, f"verglas {__version__}")
