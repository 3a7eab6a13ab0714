"""What a refinement says of itself: a line of each iteration, and the JSON summary."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from verglas.assessment.judge import resolution_withheld_by, withheld_claim
from verglas.refinement.score_mask import WHOLE
from verglas.run import credible
from verglas.types import Particles

if TYPE_CHECKING:
    from verglas.run.refine import Refinement


def summary(result: Refinement) -> dict[str, Any]:
    """What ``verglas refine --json`` prints."""
    rows = result.iterations
    assessed = result.postprocessed.as_dict()
    return {
        "folder": None if result.folder is None else str(result.folder),
        **{name: assessed[name] for name in ("resolution_A", "claimed_resolution_A", "resolutions_A")},
        **withheld_claim(resolution_withheld_by(result.verdict)),
        "b_factor_A2": result.postprocessed.b_factor_A2,
        "particles": len(result.particles),
        "excluded": len(result.excluded),
        "iterations": len(rows),
        "regularisation": _regularisation_summary(rows),
        "score_mask": _score_mask_summary(rows),
        "populations": [round(p, 4) for p in result.populations],
        "median_credible_radius_deg": _median_radius_deg(result.particles),
        "seconds": round(float(rows["seconds"].sum()), 2),
        "peak_memory_GB": round(float(rows["peak_memory_GB"].max()), 3),
        "verdict": result.verdict.as_dict(),
    }


def _regularisation_summary(rows: pd.DataFrame) -> dict[str, Any]:
    """The last iteration's prior, and what auto found it to gain."""
    return {"prior": str(rows.iloc[-1]["regularisation"]), **_gain_summary(rows, "regularisation")}


def _score_mask_summary(rows: pd.DataFrame) -> dict[str, Any]:
    """What of the references the last poses were found by, and what auto found at the end that a weight would gain."""
    # A row tells what the next iteration scores.
    mask = str(rows.iloc[-2]["score_mask"]) if len(rows) > 1 else WHOLE
    return {"mask": mask, **_gain_summary(rows, "score_mask")}


def _gain_summary(rows: pd.DataFrame, what: str) -> dict[str, float | None]:
    gain, error = (float(rows.iloc[-1][f"{what}_{name}"]) for name in ("gain", "gain_error"))
    known = bool(np.isfinite(gain))
    return {"gain_nats": round(gain, 4) if known else None, "gain_error_nats": round(error, 4) if known else None}


def _median_radius_deg(particles: Particles) -> float | None:
    has_radii = credible.COLUMN in particles.table
    return float(particles.table[credible.COLUMN].median()) if has_radii else None


def iteration_sentence(figures: Mapping[str, Any]) -> str:
    """What a log says of an iteration."""
    classes = "" if ";" not in figures["populations"] else f", classes {figures['populations'].replace(';', ' ')}"
    change_deg = figures["angle_change_deg"]
    change = f"  median change of angles {change_deg:.2f} deg" if np.isfinite(change_deg) else ""
    gain, error = figures["regularisation_gain"], figures["regularisation_gain_error"]
    prior = f", {figures['regularisation']} prior (local: {gain:+.3f} +- {error:.3f} nats)" if np.isfinite(gain) else ""
    gain, error, taken = (figures[name] for name in ("score_mask_gain", "score_mask_gain_error", "score_mask"))
    scored = f", score mask {taken} (local: {gain:+.3f} +- {error:.3f} nats)" if np.isfinite(gain) else ""
    return (
        f"iteration {figures['iteration']:2d}, {figures['phase']}: data to {figures['search_resolution_A']:.2f} A, "
        f"resolution {figures['resolution_A']:.2f} A, mean probability of the best pose "
        f"{figures['max_probability']:.2f}{change}{classes}{prior}{scored}, {figures['seconds']:.1f} s"
    )
