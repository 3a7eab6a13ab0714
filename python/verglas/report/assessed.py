"""What postprocessing wrote, read back, and the sections that show it: resolution, Guinier plot."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from verglas.assessment.fsc import FSC
from verglas.assessment.guinier import Guinier
from verglas.io import read_csv, read_json
from verglas.report.chart import charts_block, fsc_curves_chart
from verglas.report.curves import guinier_chart
from verglas.report.html import Fragment, Picture, Section, Table
from verglas.types.verdict import notes_of

_CURVES = {
    "unmasked": "unmasked",
    "masked": "masked",
    "phase_randomised": "phases randomised",
    "corrected": "corrected",
}


@dataclass(frozen=True)
class Assessed:
    """Curves and numbers of one map.

    Attributes
    ----------
    curves : dict of str -> FSC
        unmasked, masked, corrected, and phase_randomised if phases were.
    guinier : Guinier
        Points and line.
    record : dict
        postprocess.json.
    """

    curves: dict[str, FSC]
    guinier: Guinier
    record: dict[str, Any]

    @property
    def resolution_A(self) -> float | None:
        """Corrected, at 0.143."""
        return self.record.get("resolution_A")

    @property
    def withheld_by(self) -> str | None:
        """Code of the finding of a refinement under which no resolution is to be stated."""
        return self.record.get("resolution_withheld_by")

    @property
    def claim(self) -> dict[str, str]:
        """For the numbers of a page: what to state, where that is coarser than the crossing, or nothing."""
        found, claimed = self.resolution_A, self.record.get("claimed_resolution_A")
        if self.withheld_by:
            return {"to be stated": f"nothing ({self.withheld_by})"}
        return {"to be stated": length(claimed)} if found and claimed and claimed > found else {}


def read_assessed(folder: Path, suffix: str = "") -> Assessed | None:
    """Read fsc.csv, guinier.csv and postprocess.json of a folder; None if postprocessing has not been done yet.

    Raises
    ------
    FormatError
        A file lacks a column or is no table.
    """
    paths = [folder / f"{stem}{suffix}{end}" for stem, end in (("fsc", ".csv"), ("guinier", ".csv"))]
    record_path = folder / f"postprocess{suffix}.json"
    if not all(path.is_file() for path in (*paths, record_path)):
        return None
    record = read_json(record_path)
    table = read_csv(paths[0], ("frequency_per_A", *_CURVES))
    frequency = table["frequency_per_A"].to_numpy(np.float64)
    fscs = {}
    for name in _CURVES:
        if table[name].isna().all():
            continue
        column = "n_unmasked" if name == "unmasked" else "n_masked"
        n = table[column].to_numpy(np.float64) if column in table.columns else np.full(len(frequency), np.inf)
        counts = np.where(np.isfinite(n), np.rint(n), 0).astype(np.int64)
        pixel = float(record.get("pixel_size_A", 0.5 / frequency[-1]))
        fscs[name] = FSC(frequency, table[name].to_numpy(np.float64), counts, counts // 2, pixel, n)
    points = read_csv(paths[1], ("s2_per_A2", "ln_amplitude", "ln_weighted"))
    band = record.get("fit_band_A")
    s2, plain, weighted = (points[name].to_numpy(np.float64) for name in ("s2_per_A2", "ln_amplitude", "ln_weighted"))
    ends = None if not band else (float(band[0]), float(band[1]))
    plot = Guinier(
        s2,
        plain,
        weighted,
        record.get("fitted_b_factor_A2"),
        record.get("guinier_intercept"),
        ends,
        b_error_A2=record.get("fitted_b_factor_error_A2"),
    )
    return Assessed(fscs, plot, record)


def length(value: float | None, digits: int = 2) -> str:
    """A length in angstrom, or a dash."""
    return "–" if value is None or not np.isfinite(value) else f"{value:.{digits}f} Å"


def b_factor(plot: Guinier) -> str:
    """B with its standard error, or a dash."""
    if plot.b_factor_A2 is None:
        return "–"
    error = "" if plot.b_error_A2 is None else f" ± {plot.b_error_A2:.0f}"
    return f"{plot.b_factor_A2:.0f}{error} Å²"


def resolution_section(assessed: Mapping[str, Assessed]) -> Section:
    """FSC curves with thresholds, and the resolution at each threshold."""
    blocks: list[Picture | Table | Fragment] = []
    for title, one in assessed.items():
        shown = {}
        for key in ("corrected", "unmasked", "masked"):
            shown[f"{_CURVES[key]}, {length(one.curves[key].resolution_A(0.143))}"] = one.curves[key]
        if "phase_randomised" in one.curves:
            shown[_CURVES["phase_randomised"]] = one.curves["phase_randomised"]
        name = f"{title.capitalize()}: " if len(assessed) > 1 else ""
        start = one.record.get("randomised_from_A")
        caption = f"{name}Half maps against each other. "
        if start is None:
            caption += (
                "The unmasked curve never falls below 0.8, so no phases were randomised and no correction was made."
            )
        else:
            caption += (
                "The mask by itself correlates the maps; the correlation that remains under it when phases are "
                f"randomised beyond {length(start, 1)} is subtracted in the corrected curve (Chen et al. 2013). The "
                "half-bit and 3-sigma thresholds count the voxels that are independent under the mask."
            )
        chart = fsc_curves_chart(f"{name}Fourier shell correlation", shown, ("half-bit", "3sigma", 0.5, 0.143))
        blocks.append(charts_block([chart], caption))
        if len(assessed) == 1:
            blocks.append(_table(one))
    if len(assessed) > 1:
        names = tuple(next(iter(assessed.values())).record.get("resolutions_A", {}))
        rows = [(n, *(_corrected_text(one, n) for one in assessed.values())) for n in names]
        blocks.append(Table(("threshold, corrected curve", *assessed), rows))
    text = " ".join(
        _sentence(one, f"{title.capitalize()}: the" if len(assessed) > 1 else "The") for title, one in assessed.items()
    )
    return Section("Resolution", text, blocks)


def _sentence(one: Assessed, start: str) -> str:
    if one.resolution_A is None:
        return f"{start} corrected curve is below 0.143 from its first shell: the half maps share no signal."
    if one.record.get("limited_by_sampling"):
        return f"{start} corrected curve stays above 0.143 up to the last shell, {length(one.resolution_A)}."
    return f"{start} corrected curve falls to 0.143 at {length(one.resolution_A)}."


def _corrected_text(one: Assessed, threshold: str) -> str:
    return length(one.record.get("resolutions_A", {}).get(threshold, {}).get("corrected"))


def _table(one: Assessed) -> Table:
    rows = one.record.get("resolutions_A", {})
    names = list(next(iter(rows.values()), {}))
    untestable = one.record.get("untestable_thresholds", ())
    body = [
        (f"{threshold} (too few voxels)" if threshold in untestable else threshold, *map(length, map(row.get, names)))
        for threshold, row in rows.items()
    ]
    return Table(("threshold", *names), body)


def guinier_section(assessed: Mapping[str, Assessed]) -> Section:
    """The Guinier plot and what was divided out."""
    lines = []
    for title, one in assessed.items():
        name = f"{title.capitalize()}: " if len(assessed) > 1 else ""
        record, plot = one.record, one.guinier
        if plot.b_factor_A2 is None:
            why = next((note.sentence for note in notes_of(record) if note.code == "no_b_factor"), "")
            lines.append(f"{name}{why or 'no B-factor was fitted'}.")
            continue
        assert plot.band_A is not None
        lines.append(
            f"{name}B = {b_factor(plot)} between {length(plot.band_A[0], 1)} and {length(plot.band_A[1])}; "
            f"the sharpened map was raised by exp(B s²/4) with B = {record.get('b_factor_A2', 0):.0f} Å², weighted by "
            f"sqrt(2 FSC / (1 + FSC)) and cut at {length(record.get('low_pass_A'))}."
        )
    caption = "Root-mean-square amplitude per shell of the masked map; weighted: what both half maps share."
    chart = charts_block([guinier_chart({title: one.guinier for title, one in assessed.items()})], caption)
    return Section("Amplitudes and sharpening", " ".join(lines), [chart])
