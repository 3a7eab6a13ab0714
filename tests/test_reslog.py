"""ResLog: a planted B factor comes back; movies far from the others are flagged."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import verglas as vg
from verglas.assessment import judge_movies, reslog
from verglas.assessment.movies import mixture_of


@pytest.mark.parametrize("b_factor_A2", [40.0, 100.0, 250.0])
def test_planted_b_factor_comes_back(b_factor_A2):
    """Within 10 %, from resolutions good to 1 %."""
    n = np.array([500, 1000, 2000, 4000, 8000, 16000, 32000, 64000])
    inverse = 2 / b_factor_A2 * np.log(n / 30)
    found = []
    for seed in range(20):
        noise = 1 + 0.01 * np.random.default_rng(seed).standard_normal(len(n))
        line = reslog(n, noise / np.sqrt(inverse))
        assert line.b_factor_A2 == pytest.approx(b_factor_A2, rel=0.1)
        found.append((line.b_factor_A2 - b_factor_A2) / line.b_factor_error_A2)
    assert 0.5 < np.std(found) < 2
    assert line.particles(line.resolution_A(5000)) == pytest.approx(5000)


def test_reslog_refuses():
    with pytest.raises(vg.InputError, match="two and more"):
        reslog([100, 100], [3, 4])
    with pytest.raises(vg.InputError, match="does not get better"):
        reslog([100, 1000], [3, 4])
    with pytest.raises(vg.InputError, match="positive"):
        reslog([100, 1000], [3, -4])


def test_movies_unlike_the_others_are_flagged():
    rng = np.random.default_rng(0)
    rows = pd.DataFrame(
        {
            "early_px": rng.normal(3, 0.3, 30),
            "late_px": rng.normal(2, 0.2, 30),
            "shift_error_px": 0.1,
            "reason": "",
            "flags": "",
        }
    )
    assert judge_movies(rows)[1].state == "go on"
    rows.loc[4, "late_px"] = 20.0
    rows.loc[9, "reason"] = "cut in the middle"
    table, verdict = judge_movies(rows)
    assert table["flags"].to_list().count("") == 29
    assert table["flags"][4].startswith("moved 20.0 px late")
    assert verdict.state == "warn"
    rows["reason"] = "no file"
    assert judge_movies(rows)[1].state == "stop"


def test_pixel_sizes_that_headers_rounded_differently_are_one_kind():
    rows = pd.DataFrame({"movie": list("abcd"), "original_pixel_size_A": [0.88505, 0.885050001, 0.88504999, 0.8851]})
    assert mixture_of(rows) is None
    rows.loc[3, "original_pixel_size_A"] = 0.9
    assert mixture_of(rows).sentence.startswith("not all movies were recorded alike: 1 of 4 (d) differ")
