"""Thresholds between two classes of peaks, consensus of pickers, figures of merit."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import verglas as vg
from verglas.errors import InputError
from verglas.picking import (
    PickMerit,
    compare_picks,
    consensus,
    match_picks,
    remove_duplicates,
    roc_curve,
)
from verglas.picking.threshold import automatic_threshold

MERIT = "rlnAutopickFigureOfMerit"


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 999), count=st.integers(5, 200))
def test_threshold_lies_between_two_classes(seed, count):
    rng = np.random.default_rng(seed)
    background, particles = rng.normal(0.12, 0.03, 200), rng.normal(0.5, 0.05, count)
    cut = automatic_threshold(np.r_[background, particles], rng.normal(0, 0.05, (60, 60)))
    assert (particles >= cut.threshold).mean() > 0.98
    assert (background >= cut.threshold).mean() < 0.01


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 9999), sizes=st.lists(st.integers(0, 25), min_size=1, max_size=4), radius=st.floats(1, 20))
def test_consensus_is_set_algebra(seed, sizes, radius):
    rng = np.random.default_rng(seed)
    lists = [vg.Picks(rng.uniform(0, 100, (n, 2)), "m", {MERIT: rng.random(n)}) for n in sizes]
    near = lambda a, b: np.linalg.norm(a[:, None] - b[None], axis=2).min(axis=1, initial=np.inf) <= radius + 1e-9
    both, either = consensus(lists, radius, "and").xy_px, consensus(lists, radius, "or").xy_px
    for one in lists:
        assert near(both, one.xy_px).all()
        assert near(one.xy_px, either).all()
    assert near(both, either).all()
    counts = [len(consensus(lists, radius, votes)) for votes in range(1, len(lists) + 1)]
    assert counts[0] == len(either)
    assert counts[-1] == len(both)
    for xy in (both, either):
        distance = np.linalg.norm(xy[:, None] - xy[None], axis=2)
        assert distance[~np.eye(len(xy), dtype=bool)].min(initial=np.inf) >= radius


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 9999), n=st.integers(0, 60), distance=st.floats(0.5, 30))
def test_duplicates_are_removed_in_stable_order(seed, n, distance):
    rng = np.random.default_rng(seed)
    picks = vg.Picks(rng.uniform(0, 100, (n, 2)), "m", {MERIT: rng.random(n), "row": np.arange(n)})
    left = remove_duplicates(picks, distance)
    apart = np.linalg.norm(left.xy_px[:, None] - left.xy_px[None], axis=2)
    assert apart[~np.eye(len(left), dtype=bool)].min(initial=np.inf) >= distance
    rows = left.columns["row"]
    assert np.all(np.diff(rows) > 0)
    for row in set(range(n)) - set(rows.tolist()):  # each one that went had a better one within the distance
        better = left.columns[MERIT] >= picks.columns[MERIT][row]
        assert (np.hypot(*(left.xy_px - picks.xy_px[row]).T)[better] < distance).any()


def test_figures_of_merit_on_toy_counts():
    merit = PickMerit(30, 10, 20)
    assert (merit.precision, merit.recall, merit.f_score) == (0.75, 0.6, 60 / 90)
    assert (merit.false_negative_rate, merit.false_positive_rate) == (0.4, 0.25)
    assert merit + PickMerit(1, 2, 3) == PickMerit(31, 12, 23)
    assert compare_picks([], [[1, 1]], 5) == PickMerit(0, 0, 1)
    assert compare_picks([[0, 0], [1, 0]], [[0.5, 0]], 5) == PickMerit(1, 1, 0)


@settings(deadline=None, max_examples=25)
@given(seed=st.integers(0, 9999), n=st.integers(2, 40), levels=st.integers(1, 6))
def test_auc_is_the_chance_of_a_right_order(seed, n, levels):
    rng = np.random.default_rng(seed)
    scores, truth = rng.integers(0, levels, n).astype(float), rng.random(n) < 0.5
    if truth.all() or not truth.any():
        with pytest.raises(InputError, match="both kinds"):
            roc_curve(scores, truth)
        return
    pairs = scores[truth][:, None] - scores[~truth][None]
    curve = roc_curve(scores, truth)
    assert curve.auc == pytest.approx(((pairs > 0) + 0.5 * (pairs == 0)).mean())
    assert (curve.true_positive_rate[-1], curve.false_positive_rate[-1]) == (1, 1)


def test_bands():
    assert [roc_curve([2, 1], [True, False]).band, roc_curve([1, 2], [True, False]).band] == ["excellent", "useless"]


def test_matching_prefers_many_pairs_over_close_ones():
    found, true = match_picks([[0, 0], [3, 0]], [[2.9, 0], [-2, 0]], 3.1)
    assert list(zip(found.tolist(), true.tolist(), strict=True)) == [(0, 1), (1, 0)]
