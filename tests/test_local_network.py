"""Local resolution by the network: planted resolutions and B-factors, noise, and what it says beside the FSC."""

from __future__ import annotations

import json

import numpy as np
import pytest
from command_line import main

import verglas as vg
from verglas.assessment.local_network import NAMES
from verglas.learned import packaged_perceptron
from verglas.simulate import mixed_blur, planted_halves

BOX, PIXEL_A = 48, 1.5


def field(seed: int) -> vg.Map:
    return vg.Map(np.random.default_rng(seed).standard_normal((BOX,) * 3, dtype=np.float32), PIXEL_A)


@pytest.fixture(scope="module")
def halves():
    return planted_halves(field(150), (4.0, 9.0), noise=1.5, seed=150)


def test_planted_resolutions(halves):
    found = vg.local_resolution(halves.half1, halves.half2, halves.inside, method="network", listener=None)
    assert found.method == "network"
    assert packaged_perceptron("local_resolution").names == list(NAMES)
    for planted in (4.0, 9.0):
        median = np.median(found.map.data[halves.at(planted, beyond_A=9.0)])
        assert abs(median / planted - 1) < 0.25, (planted, median)


def test_of_noise_nothing_is_resolved():
    found = vg.local_resolution(
        field(151), field(152), np.ones((BOX,) * 3), method="network", window_radius_A=9.0, listener=None
    )
    assert found.unresolved > 0.9


@pytest.mark.slow
def test_the_resolution_falls_with_a_planted_b_factor():
    """The condition on such a network: the same map, blurred more, is resolved less, voxel by voxel."""
    model = vg.simulate.phantom(BOX, PIXEL_A, 0.75 * BOX * PIXEL_A, "C1", 153)
    sharp, ball = vg.simulate.density(model, BOX, PIXEL_A), vg.masks.soft_sphere(BOX, 0.36 * BOX)
    sigma = float(mixed_blur(sharp, (60.0, 60.0), 0.0).half1.data.std())
    medians = []
    for number, b in enumerate((60.0, 150.0, 300.0)):
        signal = mixed_blur(sharp, (b, b), 0.0).half1.data
        noise = sigma * np.random.default_rng(number).standard_normal((2, *signal.shape), dtype=np.float32)
        pair = [sharp.with_data(signal + one) for one in noise]
        found = vg.local_resolution(*pair, ball, method="network", window_radius_A=9.0, listener=None)
        medians.append(found.quantiles_A((0.5,))[0])
    assert medians[0] * 1.1 < medians[1]
    assert medians[1] * 1.1 < medians[2]


@pytest.mark.slow
def test_grey_scale_and_order_of_the_halves_do_not_matter(halves):
    how = {"method": "network", "listener": None}
    first = vg.local_resolution(halves.half1, halves.half2, halves.inside, **how)
    scaled = [one.with_data(30 * one.data) for one in (halves.half2, halves.half1)]
    other = vg.local_resolution(*scaled, halves.inside, **how)
    apart = np.abs(np.log(first.map.data / other.map.data))[halves.inside]
    assert np.quantile(apart, 0.99) < 0.02


def test_the_command_says_where_it_disagrees_with_the_fsc(tmp_path, halves, capsys):
    for number, half in enumerate((halves.half1, halves.half2), 1):
        vg.write_map(tmp_path / f"half{number}.mrc", half)
    vg.write_map(tmp_path / "mask.mrc", halves.half1.with_data(halves.inside.astype(np.float32)))
    names = [str(tmp_path / name) for name in ("half1.mrc", "half2.mrc")]
    out = tmp_path / "out"
    arguments = ["local-resolution", *names, "--mask", str(tmp_path / "mask.mrc"), "--method", "network"]
    status, text, error = main([*arguments, "--out", str(out)], capsys)
    assert status == 0, error
    assert "the windowed FSC says otherwise by more than a quarter" in text
    record = json.loads((out / "local_resolution.json").read_text())["against_fsc"]
    ratio = vg.read_map(out / "local_resolution_over_fsc.mrc").data
    apart = np.abs(np.log(ratio[halves.inside])) > np.log(1.25)
    assert record["share_apart"] == pytest.approx(apart.mean(), abs=0.01)
    assert record["share_coarser"] + record["share_finer"] == pytest.approx(record["share_apart"], abs=1e-3)
