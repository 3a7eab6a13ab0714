"""Curves of a job as the chart of the pages takes them: plain lists, from the files that the job has left so far."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd

from verglas.errors import VerglasError
from verglas.io import read_csv
from verglas.report.chart import Chart, Line, Series, column_numbers, fsc_chart
from verglas.report.course import iteration_charts, time_charts
from verglas.report.run_folder import class_suffixes
from verglas.window.job import Job
from verglas.window.relion import relion_fsc


def charts_of(job: Job) -> list[Chart]:
    """Charts that can be drawn of a job; those of files that are missing or half written are left out."""
    charts = []
    for make in (_fsc, _iterations):
        try:
            charts += list(make(job))
        except (VerglasError, OSError, ValueError, KeyError):  # a job that is writing, or of another version
            continue
    return charts


def _fsc(job: Job) -> Iterator[Chart]:
    tables = fsc_tables(job)
    for title, table in tables.items():
        yield fsc_chart(title, table)
    if not tables:
        yield from _latest_fsc(job.folder)


def fsc_tables(job: Job) -> dict[str, pd.DataFrame]:
    """FSC tables by title: frequency_per_A, and a column per curve."""
    if job.package == "RELION":
        table = relion_fsc(job.folder)
        return {} if table is None else {"Fourier shell correlation": table}
    classes = len(list(job.folder.glob("fsc_class*.csv")))
    return {
        "Fourier shell correlation" + ("" if title == "map" else f", {title}"): read_csv(path, ("frequency_per_A",))
        for title, suffix in class_suffixes(max(1, classes)).items()
        if (path := job.folder / f"fsc{suffix}.csv").is_file()
    }


def _latest_fsc(folder: Path) -> Iterator[Chart]:
    """Of the last iteration of a refinement that goes on."""
    paths = sorted((folder / "history").glob("iteration_*.npz"))
    if not paths:
        return
    with np.load(paths[-1], allow_pickle=False) as file:
        fsc, frequency = np.atleast_2d(file["fsc"]), file["frequency_per_A"]
    names = ["between half maps"] if len(fsc) == 1 else [f"class {k}" for k in range(1, len(fsc) + 1)]
    table = pd.DataFrame({"frequency_per_A": frequency} | dict(zip(names, fsc, strict=True)))
    yield fsc_chart(f"FSC after iteration {int(paths[-1].stem[-3:])}, unmasked", table)


def _iterations(job: Job) -> Iterator[Chart]:
    path = job.folder / "iterations.csv"
    if not path.is_file():
        return
    table = read_csv(path, ("iteration",))
    yield from iteration_charts(table)
    yield from time_charts(table)


def compared_charts(first: Job, second: Job) -> list[Chart]:
    """FSC curves of two jobs in one chart, if both have them."""
    tables = [next(iter(fsc_tables(job).values()), None) for job in (first, second)]
    if tables[0] is None or tables[1] is None:
        return []
    series, lines = [], [Line(0.5, "0.5"), Line(0.143, "0.143")]
    for job, table in zip((first, second), tables, strict=True):
        assert table is not None
        name = next(c for c in ("corrected", *table.columns) if c in table and c != "frequency_per_A")
        frequency = column_numbers(table["frequency_per_A"])
        series.append(Series(f"{job.name}: {name}", frequency, column_numbers(table[name])))
    return [Chart("Fourier shell correlation", "resolution (Å)", "FSC", series, lines, inverse=True)]
