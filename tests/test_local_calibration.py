"""The calibration that the page of local resolution shows is what the benchmark measured."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from verglas.assessment.local_calibration import CALIBRATION, CalibrationPoint

RESULTS = Path(__file__).resolve().parent.parent / "bench" / "results"


@pytest.mark.parametrize("method", CALIBRATION)
def test_points_are_those_of_the_benchmark(method):
    rows = json.loads((RESULTS / "local_resolution.json").read_text())["rows"]
    measured = [
        CalibrationPoint(row["noise"], planted, row[f"median_{planted:g}_A"])
        for row in rows
        if row["method"] == method and row["planted"] == "halves"
        for planted in (4.0, 8.0)
    ]
    assert list(CALIBRATION[method]) == measured
