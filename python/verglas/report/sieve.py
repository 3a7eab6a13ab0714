"""The page of a sieve: what held-out particles say of each share kept, and what separates those removed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from verglas.report.chart import Chart, Line, Series, chart_block, charts_block, histogram_chart
from verglas.report.html import Page, Section, Table, render
from verglas.types.arrays import FloatArray
from verglas.types.verdict import Verdict

_LISTED, _TENTHS = 10, 10
_SHOWN = {
    "verglasQuality": "quality",
    "verglasGain": "gain, nats",
    "verglasCorrelation": "correlation",
    "verglasNoiseRatio": "noise over that of the group",
    "verglasAngleChange": "change of orientation, degrees",
    "verglasAlignabilityPrecision": "precision of the alignment",
    "verglasAlignabilityAccuracy": "accuracy of the alignment",
}


def share_charts(rounds: pd.DataFrame) -> list[Chart]:
    """Held-out evidence, resolution and B-factor against the share of particles kept."""
    if not len(rounds):
        return []
    share = 100 * rounds["share_kept"].to_numpy(np.float64)

    def series(name: str, column: str) -> Series:
        return Series(name, share, rounds[column].to_numpy(np.float64))

    error = rounds["gain_error_nats"].to_numpy(np.float64)
    gain = rounds["gain_nats"].to_numpy(np.float64)
    control = gain - rounds["gain_over_control_nats"].to_numpy(np.float64)
    x = "particles kept, %"
    charts = [
        Chart(
            "What held-out particles gain",
            x,
            "nats each, over the maps of all",
            [
                Series("lowest dropped", share, gain),
                Series("less one standard error", share, gain - error),
                Series("as many at random", share, control),
            ],
            [Line(0.0, "maps of all")],
        ),
        Chart(
            "Resolution of the half maps",
            x,
            "Å at FSC 0.143",
            [series("lowest dropped", "resolution_A"), series("as many at random", "resolution_A_control")],
        ),
    ]
    if rounds[["b_factor_A2", "b_factor_A2_control"]].notna().to_numpy().any():
        both = [series("lowest dropped", "b_factor_A2"), series("as many at random", "b_factor_A2_control")]
        charts.append(Chart("B-factor of the map", x, "Å²", both))
    return charts


def score_chart(values: FloatArray, gone: npt.NDArray[np.bool_], label: str) -> Chart | None:
    """Histograms of a score, of the particles kept and of those removed."""
    known = np.isfinite(values)
    low, high = (float(v) for v in np.percentile(values[known], [0.2, 99.8]))
    groups = {"kept": values[known & ~gone], "removed": values[known & gone]}
    return histogram_chart(label, groups, "particles", limits=(low, high))


def sieve_page(
    scores: pd.DataFrame,
    gone: npt.NDArray[np.bool_],
    rounds: pd.DataFrame,
    verdict: Verdict,
    told: Mapping[str, Any],
    footer: str,
) -> str:
    """The page as HTML.

    Parameters
    ----------
    scores : DataFrame
        A row for each particle of the input; with columns ``image`` and ``defocus_A``, where they are known, the page
        names the best and the worst, and shows the correlation against the defocus.
    gone : (n,) bool
        Those removed.
    rounds : DataFrame
        Of :class:`verglas.run.sieve.Sieved`.
    verdict : Verdict
    told : mapping
        The summary of the job.
    footer : str
    """
    sections = []
    charts = share_charts(rounds)
    if charts:
        text = (
            "Held-out particles are in none of these maps, and were not chosen by them: they alone decide. The FSC of "
            "sieved half maps is biased upwards, since the particles of each half were chosen by the map of the other, "
            "and so is that of a new refinement of them; random removal of as many says what the number of particles "
            "alone does."
        )
        sections.append(Section("Against the share kept", text, [chart_block(chart) for chart in charts]))
        sections.append(Section("Rounds", "", [_table(rounds, told["round"])]))
    pictures = [
        charts_block([score_chart(scores[name].to_numpy(np.float64), gone, label)])
        for name, label in _SHOWN.items()
        if name in scores and scores[name].notna().any()
    ]
    if "defocus_A" in scores and scores["defocus_A"].nunique() > 1 and "verglasCorrelation" in scores:
        pictures.append(chart_block(_against_defocus(scores)))
    if pictures:
        text = "Every particle against the map of the half set that it is not in."
        sections.append(Section("Scores of the particles", text, pictures))
        sections += _extremes(scores)
    if told["reasons"]:
        rows = [(reason, str(count)) for reason, count in told["reasons"].items()]
        sections.append(Section("Removed", "", [Table(("why", "particles"), rows)]))
    figures = {name: str(told[name]) for name in ("particles", "kept", "removed")}
    others = [f"{finding.sentence[0].upper()}{finding.sentence[1:]}." for finding in verdict.findings]
    return render(Page("Particles sieved", " ".join(others), figures, sections, footer))


def _against_defocus(scores: pd.DataFrame) -> Chart:
    """Correlations at each defocus, and the medians of tenths of the particles."""
    known = scores[["defocus_A", "verglasCorrelation"]].dropna()
    micrometres, correlation = known["defocus_A"].to_numpy() / 1e4, known["verglasCorrelation"].to_numpy()
    parts = [part for part in np.array_split(np.argsort(micrometres, kind="stable"), _TENTHS) if len(part)]
    middle_um, median = (np.array([np.median(values[part]) for part in parts]) for values in (micrometres, correlation))
    series = [Series("particles", micrometres, correlation, "points"), Series("median", middle_um, median)]
    return Chart("Correlation with the map against the defocus", "defocus, µm", "correlation", series)


def _extremes(scores: pd.DataFrame) -> list[Section]:
    """The particles that fit the map best and worst, by quality."""
    known = scores[scores["verglasQuality"].notna()].sort_values("verglasQuality", kind="stable")
    if len(known) < 2 * _LISTED:
        return []
    head = ("particle", "image", "quality", "correlation", "residual, standard deviations")

    def rows(of: pd.DataFrame) -> list[tuple[str, ...]]:
        return [
            (
                str(int(number) + 1),
                str(row["image"]) if "image" in of else "",
                _number(row["verglasQuality"], 3),
                _number(row["verglasCorrelation"], 3),
                f"{row['verglasResidualZ']:+.1f}",
            )
            for number, row in zip(of.index, of.to_dict("records"), strict=True)
        ]

    text = "By quality; the residual is that of the image less the map's slice, 0 ± 1 where pose and noise are right."
    best, worst = known.iloc[: -_LISTED - 1 : -1], known.iloc[:_LISTED]
    tables = {"Best particles": best, "Worst particles": worst}
    return [Section(name, text, [Table(head, rows(of))]) for name, of in tables.items()]


def _table(rounds: pd.DataFrame, chosen: int) -> Table:
    head = ("round", "kept", "resolution, Å", "at random, Å", "B, Å²", "gain, nats", "over random, nats")
    rows = [
        (
            str(row["round"]),
            f"{row['kept']} ({100 * row['share_kept']:.0f} %)",
            _number(row["resolution_A"], 2),
            _number(row["resolution_A_control"], 2),
            _number(row["b_factor_A2"], 0),
            f"{row['gain_nats']:+.3f} ± {row['gain_error_nats']:.3f}",
            f"{row['gain_over_control_nats']:+.3f} ± {row['gain_over_control_error_nats']:.3f}",
        )
        for row in rounds.to_dict("records")
    ]
    return Table(head, rows, marked=(chosen,) if chosen else ())


def _number(value: float, digits: int) -> str:
    return f"{value:.{digits}f}" if np.isfinite(value) else ""
