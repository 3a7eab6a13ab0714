"""Automatic selection of classes: each rule, states, and the command on planted views with a quarter of noise."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from command_line import main
from planted_classes import planted

import verglas as vg
from verglas.classification import SelectionRules, select_classes
from verglas.run.select import select_automatically


def table(**columns):
    """Three good classes, changed column by column."""
    good = {
        "class": [1, 2, 3],
        "particles": [200, 100, 50],
        "resolution_A": [8.0, 9.0, 10.0],
        "signal": [9.0, 8.0, 7.0],
        "offset": [0.0, 0.02, 0.03],
    }
    return pd.DataFrame(good | columns)


@pytest.mark.parametrize(
    ("columns", "left", "reason"),
    [
        ({}, None, ""),
        ({"particles": [200, 9, 50]}, 2, "9 particles"),
        ({"offset": [0.0, 0.02, 0.3]}, 3, "0.30 diameters off the centre"),
        ({"signal": [1.2, 8.0, 7.0]}, 1, "inside the circle"),
        ({"signal": [np.nan, 8.0, 7.0]}, None, ""),
        ({"resolution_A": [8.0, 9.0, 60.0]}, 3, "resolved to 60 A"),
        ({"resolution_A": [8.0, 9.0, 19.0]}, None, ""),
        ({"resolution_A": [8.0, np.inf, 10.0]}, 2, "not resolved"),
        ({"resolution_A": [30.0, 31.0, 40.0]}, None, ""),
    ],
)
def test_each_rule(columns, left, reason):
    chosen = select_classes(table(**columns))
    assert chosen.classes == [c for c in (1, 2, 3) if c != left]
    assert set(chosen.left_out) == ({left} if left else set())
    if left:
        assert reason in chosen.left_out[left]
    assert chosen.state == "go on"
    assert chosen.particles == table(**columns).set_index("class").particles[chosen.classes].sum()


def test_states_say_whether_to_go_on():
    junk = table(offset=[0.4, 0.4, 0.01])
    assert select_classes(junk).state == "warn"  # 50 of 350 particles
    assert select_classes(junk, rules=SelectionRules(few_left=0.1)).state == "go on"
    assert select_classes(table(offset=[0.4, 0.4, 0.4])).state == "stop"
    noise = select_classes(table(), signal=False)
    assert (noise.state, noise.classes) == ("stop", [])
    assert "nothing but noise" in noise.sentence
    assert 3 in select_classes(table(), empty_class=3).left_out
    with pytest.raises(vg.InputError, match="no column resolution_A"):
        select_classes(table().drop(columns="resolution_A"))


def test_command_keeps_particles_and_leaves_noise(tmp_path, capsys):
    """A quarter of the images are noise: at least 90 % of the particles kept, at most 10 % of the noise."""
    particles, truth = planted(240, noise=80, snr=0.2, seed=11)
    vg.write_particles(tmp_path / "p.star", particles)
    arguments = ["-K", "4", "--diameter", "170", "--max-resolution", "16", "--out", str(tmp_path / "c"), "--json"]
    status, text, _ = main(["class2d", str(tmp_path / "p.star"), *arguments], capsys)
    assert status == 0
    summary = json.loads(text)["selection"]
    status, text, _ = main(
        ["select", str(tmp_path / "c" / "particles.star"), "--auto", "--json", "--out", str(tmp_path / "good.star")],
        capsys,
    )
    assert status == 0
    assert json.loads(text)["classes"] == summary["classes"]
    kept, chosen = select_automatically(tmp_path / "c" / "particles.star")
    assert (chosen.as_dict(), chosen.state) == (summary, "go on")
    rows = np.array([int(name.split("@")[0]) - 1 for name in kept.table["rlnImageName"]])
    assert (truth[rows] >= 0).sum() >= 0.9 * 240
    assert (truth[rows] < 0).sum() <= 0.1 * 80
    page = (tmp_path / "c" / "classes.html").read_text()
    assert page.count('type="checkbox" checked') == len(chosen.classes)


def test_command_refuses_noise_and_two_ways_at_once(tmp_path, capsys):
    images = np.random.default_rng(0).standard_normal((4, 8, 8))
    named = vg.Particles.from_images(images, 4.0).with_columns(rlnClassNumber=[1, 1, 2, 2])
    vg.write_particles(tmp_path / "p.star", named)
    general = {"verglasSignalFound": 0, "verglasEmptyClass": 0}
    classes = pd.DataFrame({"rlnClassNumber": [1, 2], "rlnEstimatedResolution": [8.0, 9.0]})
    vg.io.write_star(tmp_path / "classes.star", {"classification": general, "classes": classes})
    command = ["select", str(tmp_path / "p.star"), "--auto", "--out", str(tmp_path / "o.star")]
    status, _, err = main(command, capsys)
    assert status == 1
    assert "nothing but noise" in err
    assert main([*command, "--classes", "1"], capsys)[0] == 2
