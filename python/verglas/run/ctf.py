"""CTFs of many micrographs: reads them, fits, writes a STAR file, a table and a picture each."""

from __future__ import annotations

import csv
import json
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from verglas._screen import ListenerChoice, shown_to
from verglas.assessment.micrographs import judge_ctfs, judge_set
from verglas.errors import FormatError, InputError, VerglasError
from verglas.io import (
    atomic_path,
    find_micrographs,
    make_folder,
    read_micrograph,
    write_bytes,
    write_micrographs,
    write_text,
)
from verglas.io.coordinates import MICROGRAPH
from verglas.io.micrographs import CTF, GRADIENT, METADATA, PATH, PIXEL, SHARED, SPECTRUM
from verglas.io.power_spectra import read_power_spectrum
from verglas.io.rules import written_name
from verglas.optics.fit import CtfFit, CtfSettings, estimate_ctf
from verglas.report.ctf import ShownCtf, ctf_figure
from verglas.run.assumed import assumed_sentence
from verglas.run.kept_inputs import keeps_inputs
from verglas.run.micrograph_pages import PICTURES, ctf_picture_name, curves_name, write_ctf_page
from verglas.run.parallel import in_order
from verglas.run.reasons import most_common_reason, without_name
from verglas.run.tenure import Tenure, tenure
from verglas.types.ctf_ranges import OPTIONS, check_ctf
from verglas.types.power_spectrum import PowerSpectrum
from verglas.types.verdict import Verdict

_NONE = np.zeros((0, 0), np.float32)


@dataclass(frozen=True)
class CtfJob:
    """What ``verglas ctf`` is asked for.

    Attributes
    ----------
    micrographs : list of str
        Patterns, folders, files or STAR files.
    out : Path
        Folder to write.
    settings : CtfSettings
    pixel_size_A : float, optional
        In place of the headers'.
    pictures : bool
        A PNG per micrograph under ``png/``, and the numbers that the page draws under ``curves/``.
    threads : int, optional
        Micrographs worked on at a time; results do not depend on it.
    given : tuple of str
        Fields of ``settings`` that the user named: they take precedence over a STAR file's voltage, Cs and amplitude
        contrast.
    """

    micrographs: list[str]
    out: Path
    settings: CtfSettings = field(default_factory=CtfSettings)
    pixel_size_A: float | None = None
    pictures: bool = True
    threads: int | None = None
    given: tuple[str, ...] = ()


@dataclass(frozen=True)
class CtfSummary:
    """What ``verglas ctf`` did.

    Attributes
    ----------
    table : DataFrame
        One row per micrograph, also those that could not be fitted; ``reason`` is empty for good ones, ``flags`` says
        what else to look at.
    seconds : float
    verdict : Verdict
        Whether to go on to the next stage.
    """

    table: pd.DataFrame
    seconds: float
    verdict: Verdict = field(default_factory=lambda: Verdict("go on"))

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        good = self.table[self.table["reason"] == ""]
        resolution = good["resolution_A"].dropna() if len(good) else good["reason"]
        return {
            "micrographs": len(self.table),
            "good": len(good),
            "verdict": self.verdict.as_dict(),
            "flagged": {str(n): str(f) for n, f in zip(good["micrograph"], good["flags"], strict=True) if f},
            "set_aside": {str(r): int(n) for r, n in self.table["reason"].value_counts().items() if r},
            "median_resolution_A": float(resolution.median()) if len(resolution) else None,
            "seconds": round(self.seconds, 2),
            "fits": [
                {k: (None if isinstance(v, float) and not np.isfinite(v) else v) for k, v in row.items()}
                for row in self.table.to_dict("records")
            ],
        }


@keeps_inputs("ctf")
def ctf_files(job: CtfJob, *, listener: ListenerChoice = "screen") -> CtfSummary:
    """Fit all micrographs.

    Holds the folder while it works (``run.json`` says how far it is), and writes ``micrographs_ctf.star`` (good ones,
    with CTF columns; with a tilt also the gradient of defocus, which extraction turns into a defocus per particle),
    ``ctf.csv`` (all, with merit, resolution, reason and flags), ``verdict.json``, and, unless pictures are not wanted,
    ``png/``, ``curves/`` and ``report.html``.

    Parameters
    ----------
    job : CtfJob
    listener : Listener, "screen" or None
        Who is told how it goes (:class:`verglas.types.listener.Listener`).

    Raises
    ------
    InputError
        No micrographs, or none that could be fitted.
    """
    start_time = time.perf_counter()
    check_ctf({"pixel_size_A": job.pixel_size_A}, "ctf", OPTIONS)
    table = find_micrographs(job.micrographs)
    settings = {name: value for name, value in asdict(job.settings).items() if value is not None}
    if job.pixel_size_A is not None:
        settings["pixel_size_A"] = job.pixel_size_A
    with shown_to(listener) as heard, tenure(job.out, "ctf", heard, record={"settings": settings}) as hold:
        hold.write(state="running")
        return _fit_all(job, table, hold, start_time)


def _fit_all(job: CtfJob, table: pd.DataFrame, listener: Tenure, start_time: float) -> CtfSummary:
    assumption = assumed_sentence(job.given, [{k: 0.0 for k in SHARED if k in table}] * len(table))
    if assumption:
        listener.note("assumed", assumption)
    for folder in ("png", "curves") if job.pictures else (".",):
        make_folder(job.out / folder)
    rows: list[dict[str, Any]] = []
    good: list[_RowFit] = []
    for number, outcome in enumerate(in_order(lambda row: _fit_one(table, row, job), range(len(table)), job.threads)):
        name = str(table[MICROGRAPH][number])
        if isinstance(outcome, str):
            rows.append({"micrograph": name, "reason": outcome})
        else:
            if job.pictures:  # in the main thread: matplotlib's settings are shared by all
                picture = ctf_picture_name(number, name)
                write_bytes(job.out / picture, ctf_figure(outcome))
                write_bytes(job.out / curves_name(picture), ShownCtf.of_fit(outcome).as_bytes())
            rows.append({**outcome.as_dict(), "micrograph": name})
            if not outcome.reason:
                # what the STAR file needs, without the spectra: memory stays bounded for any number of micrographs
                good.append(
                    _RowFit(number, replace(outcome, spectra=replace(outcome.spectra, mean=_NONE, tiles=_NONE)))
                )
        listener.progress("micrographs", number + 1, len(table))
    summary = _summarise(rows, start_time)
    # Before anything is refused: the table says of each why it failed.
    _write_account(job, summary)
    if not good:
        why = most_common_reason([(str(row["micrograph"]), str(row["reason"])) for row in rows])
        raise InputError(f"ctf: none of {len(table)} micrographs could be fitted: {why}; all in {job.out / 'ctf.csv'}")
    write_micrographs(job.out / "micrographs_ctf.star", _table_with_ctfs(table, good, job.settings, job.out))
    return summary


def _summarise(rows: list[dict[str, Any]], start_time: float) -> CtfSummary:
    flags = judge_ctfs(rows)
    for row, reasons in zip(rows, flags, strict=True):
        row["flags"] = "" if row["reason"] else "; ".join(reasons)
    flags_of = {str(row["micrograph"]): reasons for row, reasons in zip(rows, flags, strict=True) if not row["reason"]}
    return CtfSummary(_frame(rows), time.perf_counter() - start_time, judge_set(flags_of, len(rows) - len(flags_of)))


def _write_account(job: CtfJob, summary: CtfSummary) -> None:
    """Table, verdict and, with pictures, the page."""
    table = summary.table
    with atomic_path(job.out / "ctf.csv") as temporary:
        table.to_csv(temporary, index=False, quoting=csv.QUOTE_MINIMAL)
    account = {name: value for name, value in summary.as_dict().items() if name != "fits"}
    account[PICTURES] = job.pictures
    write_text(job.out / "verdict.json", json.dumps(account, indent=1) + "\n")
    if job.pictures:
        write_ctf_page(job.out)


def _frame(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """The table of all; columns of the fullest row, reason and flags last."""
    columns = [c for c in max(rows, key=len) if c not in ("reason", "flags")]
    return pd.DataFrame(rows, columns=[*columns, "reason", "flags"])


def _fit_one(table: pd.DataFrame, row: int, job: CtfJob) -> CtfFit | str:
    """Fit of one micrograph, or why there is none."""
    pixel_size_A = job.pixel_size_A
    if pixel_size_A is None and PIXEL in table and np.isfinite(table[PIXEL][row]):
        pixel_size_A = float(table[PIXEL][row])
    header: dict[str, Any] = {}
    for name, label in zip(("voltage_kV", "cs_mm", "amplitude_contrast"), SHARED, strict=True):
        # What the caller gives goes before what the list says.
        if label in table and name not in job.given:
            header[name] = float(table[label][row])
    try:
        micrograph = read_micrograph(table[PATH][row], pixel_size_A, listed=job.pixel_size_A is None)
        fit = estimate_ctf(micrograph, replace(job.settings, **header), spectrum=_spectrum(table, row))
    # One micrograph must not end a session of thousands: why it failed stands in the table.
    except (VerglasError, OSError, MemoryError) as error:
        return without_name(error, str(table[MICROGRAPH][row]))
    return replace(fit, name=Path(str(table[MICROGRAPH][row])).name)


def _spectrum(table: pd.DataFrame, row: int) -> PowerSpectrum | None:
    """The averaged spectrum that motion correction has written, where the list names one that is there and ours."""
    if SPECTRUM not in table or not Path(str(table[SPECTRUM][row])).is_file():
        return None
    try:
        return read_power_spectrum(str(table[SPECTRUM][row]))
    except FormatError:  # of another program, with other windows: the micrograph has its own
        return None


class _RowFit(NamedTuple):
    """The fit of a micrograph, and its row of the list."""

    row: int
    fit: CtfFit


def _table_with_ctfs(table: pd.DataFrame, good: list[_RowFit], settings: CtfSettings, folder: Path) -> pd.DataFrame:
    """The good micrographs with their CTFs."""
    fits = [one.fit for one in good]
    optics = [fit.optics for fit in fits]
    result = table.iloc[[one.row for one in good]].reset_index(drop=True)
    result[MICROGRAPH] = [written_name(path, folder) for path in result[PATH]]
    for label in (SPECTRUM, METADATA):  # files beside the micrographs, which the list leads to from its new folder
        if label in result:
            result[label] = [written_name(name, folder) if Path(name).is_file() else name for name in result[label]]
    columns: dict[str, Any] = {PIXEL: [fit.spectra.band.pixel_size_A for fit in fits]}
    for label, name in zip(
        (*SHARED, *CTF),
        (
            "voltage_kV",
            "cs_mm",
            "amplitude_contrast",
            "defocus_u_A",
            "defocus_v_A",
            "defocus_angle_deg",
            "phase_shift_deg",
        ),
        strict=True,
    ):
        columns[label] = [float(getattr(o, name)[0]) for o in optics]
    columns["rlnCtfAstigmatism"] = [fit.astigmatism_A for fit in fits]
    columns["rlnCtfFigureOfMerit"] = [fit.merit for fit in fits]
    columns["rlnCtfMaxResolution"] = [fit.resolution_A for fit in fits]
    if settings.tilt:
        for axis, label in enumerate(GRADIENT):
            columns[label] = [float(fit.gradient[axis]) for fit in fits]
        for axis, label in enumerate(("vgCentreX", "vgCentreY")):
            columns[label] = [float(fit.centre_px[axis]) for fit in fits]
    return result.assign(**columns)
