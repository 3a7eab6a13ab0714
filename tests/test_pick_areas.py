"""Where nothing is picked: missing pixels, borders, carbon by its edge, its texture and the rings of its set."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

import verglas as vg
from verglas import simulate
from verglas.assessment.micrographs import MicrographQuality, judge_micrographs
from verglas.picking import (
    bad_areas,
    match_picks,
    pick_detailed,
    prepare,
)
from verglas.picking.carbon import ring_contrast, tell_ice_from_carbon
from verglas.picking.fringe import carbon_beyond_fringe

DIAMETER = 130.0


@pytest.fixture(scope="module")
def model():
    return simulate.phantom(box=64, pixel_size_A=3.0, diameter_A=DIAMETER, seed=1)


@pytest.mark.parametrize("seed", [1, 4, 5, 7])
def test_the_rim_of_missing_pixels_is_not_the_ice(seed):
    """Its strip of the weakest texture was taken for ice, and all else for carbon."""
    data = np.random.default_rng(seed).normal(size=(300, 300)).astype(np.float32)
    data[5:100, 5:100] = np.nan
    bad = bad_areas(prepare(vg.Micrograph(data, 4.0), 100.0))
    assert 0.1 < bad.fraction < 0.13  # the missing pixels are a tenth


@pytest.mark.parametrize("mode", ["edge", pytest.param("constant", marks=pytest.mark.slow)])
def test_a_border_that_repeats_one_row_is_no_place_for_particles(model, mode):
    micrograph, _ = simulate.micrograph(
        model, shape=(800, 800), pixel_size_A=3.0, snr=0.05, defocus_u_A=18000.0, n=40, seed=25
    )
    whole = pick_detailed(micrograph, DIAMETER).picks.xy_px
    padded = vg.Micrograph(np.pad(micrograph.data, ((33, 12), (0, 25)), mode=mode), 3.0)
    found = pick_detailed(padded, DIAMETER)
    assert np.abs(np.subtract(found.small.corner, (33, 0))).max() <= 1
    assert np.abs(np.subtract(found.small.shape, 800)).max() <= 2
    pairs, _ = match_picks(found.picks.xy_px, whole + np.array([0, 33]), 5)
    assert len(pairs) >= 0.95 * max(len(whole), len(found.picks))
    assert prepare(micrograph, DIAMETER).shape == (800, 800)


def test_half_empty_ice_is_no_carbon(model):
    scene = {"shape": (900, 480), "pixel_size_A": 3.0, "snr": 0.2, "defocus_u_A": 18000.0}
    crowded, _ = simulate.micrograph(model, n=60, seed=22, **scene)
    empty, _ = simulate.micrograph(None, seed=23, **scene)
    small = prepare(vg.Micrograph(np.concatenate([crowded.data, empty.data], 1), 3.0), DIAMETER)
    split = tell_ice_from_carbon(small.grey, small.radius_px)
    assert not split.clear
    assert bad_areas(small).rough.mean() < 0.01


def test_hot_and_missing_pixels_do_not_drown_the_rings(model):
    """The spectrum of one pixel is white: with it the contrast was a hundredth of what it is."""
    micrograph, _ = simulate.micrograph(model, shape=(600, 600), pixel_size_A=3.0, n=8, snr=0.05, seed=40)
    clean, data = ring_contrast(micrograph.data, 3.0), micrograph.data.copy()
    data[100, 100] = 1e5 * data.std()
    data[400:500, 300:450] = np.nan
    assert 0.15 < clean < 0.2
    assert ring_contrast(data, 3.0) == pytest.approx(clean, rel=0.05)
    assert ring_contrast(np.full_like(data, np.nan), 3.0) == pytest.approx(0, abs=1e-12)


def test_carbon_alone_is_told_by_the_rings_of_its_set(model):
    """Nothing in such a micrograph tells it, for it is all one texture."""
    scene = {"shape": (600, 600), "pixel_size_A": 3.0, "snr": 0.05}

    def quality(seed, **more):
        defocus_A = 9000.0 + 2500 * seed
        data, _ = simulate.micrograph(model, defocus_u_A=defocus_A, seed=40 + seed, **scene, **more)
        return MicrographQuality(f"m{seed}", 20, 0, 5, True, ring_contrast=ring_contrast(data.data, 3.0))

    ice = [quality(seed, n=(8, 20)[seed % 2]) for seed in range(6)]
    carbon = [quality(seed, n=0, carbon=1.0, carbon_power=power) for seed, power in ((6, 3.0), (7, 8.0))]
    told = judge_micrographs([*ice, *carbon])
    assert not any(told[f"m{seed}"] for seed in range(6))
    assert all("times as strong as the set's: carbon alone" in told[name][0] for name in ("m6", "m7"))
    assert not judge_micrographs([ice[0], *carbon])["m6"]  # of so few none is usual


@pytest.mark.parametrize("share", [0.15, 0.45, 0.75])
@pytest.mark.parametrize("step", [0.3, 1.0, 3.0])
def test_an_edge_tells_carbon_whatever_its_share_and_grey_value(share, step):
    y, x = np.mgrid[:450, :450]
    beyond = x - (share * 450 + 0.1 * (y - 225))
    noise = ndimage.gaussian_filter(np.random.default_rng(int(100 * share + step)).normal(size=x.shape), 5)
    grey = noise / noise.std() + step * (beyond < 0)
    grey += 12 * np.exp(-(((beyond + 8) / 6) ** 2) / 2) - 6 * np.exp(-(((beyond - 14) / 6) ** 2) / 2)
    carbon = carbon_beyond_fringe(grey, 11.0)
    assert carbon[beyond < 0].mean() > 0.98
    assert carbon[beyond > 33].mean() < 0.02


def test_pixels_that_outshine_all_others_leave_neither_ice_nor_carbon():
    """All else passes for not recorded: there is nothing to split."""
    grey = np.random.default_rng(0).normal(size=(128, 128))
    grey[60, 60] = 1e5
    split = tell_ice_from_carbon(grey, 10.0)
    assert not split.clear
    assert not split.carbon.any()
