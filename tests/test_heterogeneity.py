"""The test for more than one structure, before any other question."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pandas as pd
import pytest

import verglas as vg
from verglas.cli import heterogeneity as command
from verglas.cli import main
from verglas.errors import VerglasWarning
from verglas.heterogeneity.components import mean_model
from verglas.heterogeneity.evidence import HeterogeneityTest, _judge, pose_share
from verglas.heterogeneity.gain import mean_gain
from verglas.heterogeneity.pose_null import PoseFreedom, pose_null
from verglas.heterogeneity.posed import posed_images
from verglas.heterogeneity.settings import TestSettings
from verglas.run.heterogeneity import heterogeneity_files
from verglas.simulate import hinge, phantom
from verglas.types import Poses

BOX, PIXEL_A = 32, 5.0
HOW = {
    "resolution_A": 20,
    "diameter_A": 130,
    "most_classes": 2,
    "most_components": 1,
    "iterations": 6,
}


def simulated(states, n=160, snr=0.3):
    return vg.simulate.particles(states, n, BOX, PIXEL_A, snr=snr, seed=4, listener=None)


@pytest.mark.slow
def test_one_structure_is_one_and_two_are_not(tmp_path):
    model = phantom(BOX, PIXEL_A, 110.0, seed=2)
    found = vg.heterogeneity_test(simulated(model, 100), listener=None, **HOW)
    assert found.verdict == "none"
    star = tmp_path / "p.star"
    vg.write_particles(star, simulated([model, hinge(model, 50)]))
    settings = TestSettings(**HOW)
    found = heterogeneity_files(star, tmp_path / "h.json", settings=settings, listener=None)
    assert found.verdict in ("classes", "continuous")
    assert json.loads((tmp_path / "h.json").read_text())["verdict"] == found.verdict
    best = found.models.set_index("model")["gain_nats"]
    assert best["2 classes"] > 1


def table(*rows):
    return pd.DataFrame([{"model": m, "gain_nats": g, "error_nats": e} for m, g, e in [("one map", 0.0, 0.0), *rows]])


@pytest.mark.parametrize(
    ("rows", "kept", "share", "verdict"),
    [
        ([("1 components", 0.1, 0.1), ("2 classes", 0.2, 0.1)], 0, [], "none"),
        ([("1 components", 2.0, 0.1), ("2 classes", 1.0, 0.1)], 1, [0.1], "continuous"),
        ([("1 components", 1.0, 0.1), ("2 classes", 2.0, 0.1)], 1, [0.1], "classes"),
        ([("1 components", 2.0, 0.1), ("2 classes", 1.0, 0.1)], 1, [0.9], "poses"),
        ([("1 components", -1.0, 0.1), ("2 classes", -2.0, 0.1)], 0, [], "none"),
    ],
)
def test_verdict_follows_the_gains(rows, kept, share, verdict):
    assert _judge(table(*rows), kept, share)[0] == verdict


def test_what_free_poses_explain_as_well_is_no_structure():
    rows = table(("1 components", 2.0, 0.1), ("2 classes", 3.0, 0.1))
    off = PoseFreedom(4.0, 2.0, 0.1)
    nothing = rows.assign(gain_with_free_poses_nats=[0.0, 0.1, -1.0], error_with_free_poses_nats=0.1)
    verdict, sentence = _judge(nothing, 1, [0.1], off)
    assert verdict == "poses"
    assert "turned by 4 degrees, moved by 2 A, 10 % anywhere" in sentence
    some = rows.assign(gain_with_free_poses_nats=[0.0, 1.0, -1.0], error_with_free_poses_nats=0.1)
    assert _judge(some, 1, [0.1], off)[0] == "continuous"  # of the classes nothing is left


@pytest.mark.slow
def test_pose_errors_are_measured_and_the_profile_stands_for_poses_that_say_nothing():
    """Of poses off by 8 degrees and 4 A in each direction, and of a third that are random."""
    rng = np.random.default_rng(1)
    p = simulated(phantom(BOX, PIXEL_A, 110.0, seed=2), 120)
    angles, shifts = p.poses.angles_deg, p.poses.shifts_A
    off = p.with_poses(Poses(angles + 6 * rng.normal(size=angles.shape), shifts + 4 * rng.normal(size=shifts.shape)))
    anywhere = angles.copy()
    anywhere[:40] = rng.uniform(0, 180, size=(40, 3))
    for given, least, most in ((p, (0, 0, 0.0), (1, 1, 0.05)), (off, (2, 2, 0.0), (8, 4, 0.3))):
        made = pose_null(*posed_and_mean(given)).freedom
        values = (made.turn_deg, made.shift_A, made.elsewhere)
        assert all(a <= v <= b for a, v, b in zip(least, values, most, strict=True)), str(made)
    found = pose_null(*posed_and_mean(p.with_poses(Poses(anywhere, shifts))))
    assert 0.2 < found.freedom.elsewhere < 0.45
    lost = found.profile > found.evidence - np.log(2)
    assert lost[:40].mean() > lost[40:].mean() + 0.3


def posed_and_mean(particles):
    posed = posed_images(particles, job="test", resolution_A=20, diameter_A=130)
    return posed, mean_model(posed, contrast=True)


def test_gain_of_copies_is_as_sure_as_that_of_their_images():
    """Of a set expanded by D2, whose copies all say the same, and of half sets that must not be silently changed."""
    p = simulated(phantom(BOX, PIXEL_A, 110.0, seed=2), 40)
    names = [f"{i + 1:06d}@s.mrcs" for i in range(len(p))]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        posed = posed_images(
            vg.expand_symmetry(p.with_columns(rlnImageName=names), "D2"), job="test", resolution_A=30, diameter_A=130
        )
    gain = np.random.default_rng(0).normal(size=len(p))
    assert mean_gain(np.repeat(gain, 4), posed.image)[1] == pytest.approx(gain.std(ddof=1) / np.sqrt(len(p)))
    with pytest.warns(VerglasWarning, match="split anew"):
        posed_images(p.with_columns(rlnRandomSubset=1), job="test", resolution_A=30, diameter_A=130)


def test_turned_map_is_taken_for_wrong_poses_and_a_hinge_is_not():
    model = phantom(BOX, PIXEL_A, 110.0, seed=2)
    posed = posed_images(simulated(model, 40), job="test", resolution_A=None, diameter_A=130)

    def density(m):
        return vg.filters.apply(vg.simulate.density(m, BOX, PIXEL_A), vg.filters.low_pass(20.0)).data

    turn = vg.euler_to_matrix([[4.0, 3.0, 0.0]])[0]
    assert pose_share(posed, density(model), density(model.move(turn, (1.0, 0.0, 0.0))) - density(model)) > 0.8
    assert pose_share(posed, density(model), density(hinge(model, 40)) - density(model)) < 0.5
    assert pose_share(posed, density(model), np.zeros((BOX,) * 3, np.float32)) == 0.0


def test_the_command_says_what_is_gained_with_free_poses(monkeypatch, capsys):
    rows = table(("2 classes", 3.0, 0.1)).assign(gain_with_free_poses_nats=[0.0, 0.05], error_with_free_poses_nats=0.1)
    found = HeterogeneityTest("poses", "refine first", rows, [], 9, {}, PoseFreedom(4.0, 2.0, 0.1))
    monkeypatch.setattr(command, "heterogeneity_files", lambda *given, **how: found)
    with pytest.raises(SystemExit) as status:
        main(["heterogeneity", "p.star"])
    assert status.value.code == 0
    assert "+3.0000 +- 0.1000 nats per particle; with free poses   +0.0500 +- 0.1000" in capsys.readouterr().out
