"""Tilt series to a map: the command, its files, what it refuses, and what left-out tilts choose."""

from __future__ import annotations

import json

import mrcfile
import numpy as np
import pytest

import verglas as vg
from verglas import ops
from verglas.reconstruction.tomogram import TomogramSettings, reconstruct_tilts

TILTS = np.arange(-60, 61, 6.0)


@pytest.fixture(scope="module")
def ball():
    z, y, x = np.indices((24, 20, 24)) - np.array([12, 10, 12])[:, None, None, None]
    return ((x / 6.0) ** 2 + (y / 5.0) ** 2 + (z / 4.0) ** 2 < 1).astype(np.float32)


@pytest.fixture(scope="module")
def series(ball):
    clean = ops.radon(ball, TILTS)
    return clean + 0.5 * np.random.default_rng(1).normal(size=clean.shape).astype(np.float32)


@pytest.mark.parametrize("method", ["wbp", "sirt", "cg", pytest.param("tv", marks=pytest.mark.slow)])
def test_every_method_finds_the_ball(series, ball, method):
    # Total variation is chosen among weights, each with every left-out tilt: few iterations show what many do.
    settings = TomogramSettings(method, iterations=15) if method == "tv" else TomogramSettings(method)
    found = reconstruct_tilts(series, TILTS, settings, check_tilts=3)
    assert np.corrcoef(found.volume.ravel(), ball.ravel())[0, 1] > (0.6 if method == "wbp" else 0.75)
    assert len(found.left_out) == 3
    assert (found.prior_weight is not None) == (method == "tv")


@pytest.mark.slow
def test_left_out_tilts_choose_the_weight(series):
    found = reconstruct_tilts(series, TILTS, TomogramSettings("tv", iterations=20), check_tilts=2)
    best = max(found.tried, key=lambda one: one[1])
    assert found.prior_weight == best[0]
    assert len(found.tried) == 3


def test_left_out_tilts_are_turned_as_the_images_are(ball):
    """With the axis along x, or in between, they are predicted as well as along y."""
    from verglas.reconstruction.operators import tilt_series

    for axis in (30.0, 90.0):
        A = tilt_series(np.zeros((11, 24, 24)), TILTS[::2], axis, threads=1)
        volume = np.pad(ball, ((0, 0), (2, 2), (0, 0)))
        images = (A @ volume.ravel()).reshape(A.data_shape)
        how = TomogramSettings("cg", iterations=6, tilt_axis_deg=axis)
        made = reconstruct_tilts(images, TILTS[::2], how, check_tilts=2, threads=1)
        assert min(c for _, c in made.left_out) > 0.95


def test_noise_is_not_predicted():
    noise = np.random.default_rng(2).normal(size=(21, 16, 16))
    found = reconstruct_tilts(noise, TILTS, TomogramSettings("sirt"), check_tilts=5)
    assert abs(np.mean([c for _, c in found.left_out])) < 0.1


def test_the_command(run, series, tmp_path):
    mrcfile.write(tmp_path / "t.st", series, voxel_size=8.0)
    (tmp_path / "t.rawtlt").write_text("\n".join(f"{t:.2f}" for t in TILTS))
    files = [tmp_path / "t.st", "--tilt-angles", tmp_path / "t.rawtlt", "--pixel-size", 8, "--out", tmp_path / "o"]
    status, out, _ = run("tomogram", *files, "--method", "sirt", "--iterations", 10, "--json")
    assert status == 0
    told = json.loads(out)
    assert told["tilts"] == 21
    assert vg.read_map(tmp_path / "o" / "map.mrc").data.shape == (24, 20, 24)
    assert "Tilts left out" in (tmp_path / "o" / "report.html").read_text(encoding="utf-8")


def test_refusals(series, tmp_path):
    with pytest.raises(vg.InputError, match="3 images or more"):
        reconstruct_tilts(series[:2], TILTS[:2])
    with pytest.raises(vg.InputError, match="leave out 1 or more"):
        reconstruct_tilts(series, TILTS, TomogramSettings("icon"), check_tilts=0)
    with pytest.raises(vg.InputError, match="says nothing to method sirt"):
        TomogramSettings("sirt", prior_weight=1.0)
    with pytest.warns(vg.VerglasWarning, match="now called prior_weight"):
        assert TomogramSettings("tv", tv_weight=2.0).prior_weight == 2.0
    empty = series.copy()
    empty[6] = 3.0
    with pytest.raises(vg.InputError, match="image 7 is the same everywhere"):
        reconstruct_tilts(empty, TILTS)
    bad = series.copy()
    bad[4, 0, 0] = np.nan
    with pytest.raises(vg.InputError, match="image 5 has values that are not finite"):
        reconstruct_tilts(bad, TILTS)
    with pytest.raises(vg.InputError, match="tilt axis is along y"):
        TomogramSettings("wbp", tilt_axis_deg=30.0)
    from verglas.run.tomogram import read_tilt_angles

    (tmp_path / "a.tlt").write_text("-60\nabc\n")
    with pytest.raises(vg.FormatError, match="line 2: expected an angle in degrees, got 'abc'"):
        read_tilt_angles(tmp_path / "a.tlt")
