"""Which hand of a map fits another, by Fourier shell correlation with both."""

from __future__ import annotations

import json

import numpy as np
import pytest
from command_line import main

import verglas as vg
from verglas.map_geometry import flip_hand
from verglas.map_geometry.map_alignment import turned_map
from verglas.run.hands import fsc_of_hands


@pytest.fixture(scope="module")
def pair():
    """A map, and the same with noise, turned."""
    truth = vg.simulate.density(vg.simulate.phantom(20, 6.0, 90.0, seed=2), 20, 6.0, b_factor_A2=300.0)
    noise = np.random.default_rng(0).normal(0, 0.3 * truth.data.std(), truth.data.shape)
    turned = turned_map(truth.data, vg.euler_to_matrix([[40.0, 70.0, 10.0]])[0], threads=1)
    return truth, turned + noise.astype(np.float32)


@pytest.mark.slow
@pytest.mark.parametrize("mirrored", [False, True])
def test_the_hand_is_found_whatever_the_orientation(pair, mirrored):
    truth, other = pair
    both = fsc_of_hands(truth, vg.Map(flip_hand(other) if mirrored else other, 6.0), threads=1)
    right, wrong = (both.mirrored, both.as_given) if mirrored else (both.as_given, both.mirrored)
    assert both.same_hand != mirrored
    assert right.curve[1:6].min() > 0.8
    assert wrong.curve[4:8].mean() < right.curve[4:8].mean() - 0.3


def test_the_command_says_which(pair, tmp_path, capsys, blank_figures):
    truth, other = pair
    vg.write_map(tmp_path / "a.mrc", truth)
    vg.write_map(tmp_path / "b.mrc", vg.Map(flip_hand(other), 6.0))
    files = [str(tmp_path / "a.mrc"), str(tmp_path / "b.mrc")]
    status, out, _ = main(["fsc", *files, "--hands", "--json", "--plot", str(tmp_path / "p.png")], capsys)
    told = json.loads(out)
    assert status == 0
    assert not told["same_hand"]
    assert told["decided"]
    assert told["mirrored"]["fsc"][3] > told["as_given"]["fsc"][3]
    assert (tmp_path / "p.png").is_file()
    assert main(["fsc", *files, "--hands", "--mask", files[0]], capsys)[0] == 2


def test_no_hand_is_named_where_both_fit_alike(pair, tmp_path, capsys):
    truth, _ = pair
    noise = np.random.default_rng(1).standard_normal(truth.data.shape).astype(np.float32)
    vg.write_map(tmp_path / "a.mrc", truth)
    vg.write_map(tmp_path / "n.mrc", vg.Map(noise, 6.0))
    status, out, _ = main(["fsc", str(tmp_path / "a.mrc"), str(tmp_path / "n.mrc"), "--hands"], capsys)
    assert status == 0
    assert "cannot be told" in out


def test_pixel_sizes_must_agree(pair):
    with pytest.raises(vg.InputError, match="resample one"):
        fsc_of_hands(pair[0], vg.Map(pair[1], 4.0))
