"""What the tried numbers of classes say: a row and a sentence of each, and of the result."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np

from verglas.assessment import fsc
from verglas.heterogeneity.classes import (
    ClassTrial,
    gain_over,
)
from verglas.heterogeneity.migration import stable_members
from verglas.heterogeneity.variability import SIGNIFICANT
from verglas.types import Map
from verglas.types.arrays import BoolArray, FloatArray, IntArray

FEWEST_PER_CLASS = 20
_TWINS = 0.95  # correlation of two maps over the shells that both resolve, above which they are one
_EMPTY = 0.01
_STABLE = 0.8  # of the particles, below which classes are said to depend on their start


def trial_row(trial: ClassTrial, before: ClassTrial, one: ClassTrial, image: IntArray) -> dict[str, Any]:
    """A number of classes against the one before and against one map, as class3d.json has it."""
    gain, error = gain_over(trial, before, image)
    whole, whole_error = gain_over(trial, one, image)
    first = trial is one
    return {
        "classes": trial.classes,
        "gain_nats": gain,
        "error_nats": error,
        "gain_over_one_nats": None if first else whole,
        "gain_over_one_error_nats": None if first else whole_error,
        "iterations": trial.iterations,
        "class_change": [round(c, 4) for c in trial.class_change],
        "shares": [round(float(s), 4) for s in trial.posterior.mean(axis=0)],
    }


def trial_sentence(row: dict[str, Any]) -> str:
    """What is said when a number of classes has been tried."""
    if row["gain_over_one_nats"] is None:
        return "one map: the particles' held-out evidence is what more classes are measured by"
    return (
        f"{row['classes']} classes: held-out gain {row['gain_nats']:+.4f} +- {row['error_nats']:.4f} nats per particle "
        f"over the number before, shares {' '.join(f'{s:.3f}' for s in row['shares'])}"
    )


def migration_of(trial: ClassTrial, others: list[ClassTrial]) -> tuple[BoolArray | None, dict[str, list[list[float]]]]:
    """Who is in the same class in all repeats, and where classes went: in the last iteration, and in the repeats."""
    made: dict[str, list[list[float]]] = {}
    if trial.migration is not None and trial.classes > 1:
        share = trial.migration / np.maximum(trial.migration.sum(axis=1, keepdims=True), 1)
        made["last_iteration"] = share.round(4).tolist()
    if not others:
        return None, made
    stable, matrix = stable_members(
        trial.number, [o.number for o in others], trial.classes, junk=trial.junk is not None
    )
    return stable, made | {"repeats": matrix.round(4).tolist()}


def further_sentence(
    number: IntArray, count: int, asked: str, junk: FloatArray | None, stable: BoolArray | None, repeats: int
) -> str:
    """What more a reader must know of classes that could not be had, of junk, and of repeats."""
    said = ""
    if asked.isdecimal() and int(asked) > count:
        said = f"; {asked} were asked for, but none of these can be split further"
    if junk is not None:
        said += f"; {100 * junk.mean():.1f} % of the particles are explained better by noise alone (junk)"
    if stable is not None:
        in_class = number < count
        share = stable[in_class].mean() if in_class.any() else 0.0
        whose = "the others" if junk is not None else "the particles"
        said += f"; {100 * share:.0f} % of {whose} are in the same class in all {repeats + 1} starts"
        if share < _STABLE:
            said += ": the classes depend on where they began"
    return said


def compare_pairs(maps: list[Map], curves: FloatArray) -> tuple[list[dict[str, Any]], list[tuple[int, int]]]:
    """How far the maps of every two classes agree, and which are one within what their half sets resolve."""
    pairs: list[dict[str, Any]] = []
    twins = []
    for p, q in combinations(range(len(maps)), 2):
        if not (maps[p].data.any() and maps[q].data.any()):
            pairs.append({"first": p + 1, "second": q + 1, "agree_to_A": None})
            continue
        curve = fsc(maps[p], maps[q]).curve
        reach = max(2, int(np.flatnonzero(np.append(np.minimum(curves[p], curves[q])[1:], 0) < 0.5)[0]) + 1)
        resolution = resolution_of_curve(curve, maps[p].box * maps[p].pixel_size_A, 0.5)
        pairs.append({"first": p + 1, "second": q + 1, "agree_to_A": resolution})
        if np.nanmin(curve[1:reach]) > _TWINS:
            twins.append((p + 1, q + 1))
    return pairs, twins


def resolution_of_curve(curve: FloatArray, field_A: float, threshold: float = 0.143) -> float:
    """Where an FSC first falls below a threshold, in angstrom."""
    below = np.flatnonzero(np.nan_to_num(curve[1:]) < threshold)
    return float(field_A / max(1, below[0] if len(below) else len(curve) - 1))


def result_sentence(
    shares: FloatArray, errors: FloatArray, rows: list[dict[str, Any]], twins: list[tuple[int, int]], *, auto: bool
) -> str:
    """What a reader must know; the row of the classes that were kept is the last."""
    count, row = len(shares), rows[-1]
    if count == 1 and auto:
        untried = f"one class: two take {2 * FEWEST_PER_CLASS} particles or more, and were not tried"
        return untried if len(rows) == 1 else "one structure: no second class raises the held-out likelihood"
    if count == 1:
        return "one class, as asked for"
    each = ", ".join(f"{100 * s:.1f} +- {100 * e:.1f} %" for s, e in zip(shares, errors, strict=True))
    gain, error = row["gain_over_one_nats"], row["gain_over_one_error_nats"]
    said = f"{count} classes of {each}; held-out gain over one map {gain:+.3f} +- {error:.3f} nats per particle"
    if gain < -SIGNIFICANT * error:
        said += ": a loss beyond its error, so that one map explains the particles better than these classes"
    elif not gain > SIGNIFICANT * error:
        said += ": within its error, so that nothing says that there is more than one structure"
    if auto and count == max(r["classes"] for r in rows):
        said += f"; more than {count} were not tried, and may explain the particles better"
    empty = [str(k + 1) for k in np.flatnonzero(shares < _EMPTY)]
    if empty:
        said += f"; class {', '.join(empty)} is all but empty"
    if twins:
        said += f"; {', '.join(f'classes {p} and {q}' for p, q in twins)} are one map within what is resolved"
    return said
