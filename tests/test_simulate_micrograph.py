"""Simulated micrographs: what the truth says is what lies in the picture."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.distance import pdist

import verglas as vg
from verglas import fourier

SIDE = 40


@pytest.fixture(scope="module")
def model():
    return vg.simulate.phantom(32, 4.0, 80.0, seed=1)


@pytest.fixture(scope="module")
def made(model):
    return vg.simulate.micrograph(
        model,
        shape=(300, 340),
        pixel_size_A=4.0,
        n=20,
        snr=0.2,
        defocus_u_A=22000,
        defocus_v_A=21000,
        defocus_angle_deg=35,
        b_factor_A2=0,
        seed=2,
    )


def squares(image, truth, side):
    low = np.floor(truth.picks.xy_px + 0.5).astype(int) - side // 2
    return [
        image[y : y + side, x : x + side]
        for x, y in low
        if min(x, y) >= 0 and x + side <= image.shape[1] and y + side <= image.shape[0]
    ]


def test_snr_is_what_it_says(made, model):
    m, truth = made
    side = round(1.5 * 2 * model.radius_A / 4.0)
    signal = np.mean([s.var() for s in squares(truth.clean, truth, side)])
    noise = (m.data - truth.clean).var()
    assert signal / noise == pytest.approx(truth.snr.value, rel=0.02)
    assert (m.data - truth.clean).mean() == pytest.approx(100, abs=0.2)


def test_particles_lie_where_the_truth_says(made, model):
    """Each particle of the noise-free picture is the projection of the map at its pose, place and CTF."""
    _, truth = made
    volume = vg.simulate.density(model, SIDE, 4.0)
    whole = np.floor(truth.picks.xy_px + 0.5)
    poses = vg.Poses(truth.poses.angles_deg, (whole - truth.picks.xy_px) * 4.0)
    expected = vg.project(volume, poses, truth.optics)
    low = whole.astype(int) - SIDE // 2
    checked = 0
    for (x, y), image in zip(low, expected, strict=True):
        if min(x, y) < 0 or x + SIDE > 340 or y + SIDE > 300:
            continue
        found = -truth.clean[y : y + SIDE, x : x + SIDE]
        middle = np.hypot(*np.mgrid[-SIDE // 2 : SIDE // 2, -SIDE // 2 : SIDE // 2]) < 10  # neighbours' fringes outside
        assert np.corrcoef(found[middle], image[middle])[0, 1] > 0.97
        checked += 1
    assert checked > 8


def test_nothing_overlaps_and_threads_do_not_matter(model):
    scene = vg.simulate.Scene(shape=(400, 400), pixel_size_A=4.0, n=15, contaminants=3, carbon=0.2)
    m, truth = vg.simulate.micrograph(model, scene, seed=5, threads=1)
    again, _ = vg.simulate.micrograph(model, scene, seed=5, threads=2)
    np.testing.assert_array_equal(m.data, again.data)
    assert pdist(truth.picks.xy_px).min() >= 1.15 * 20
    for x, y, radius in truth.contaminants:
        assert np.hypot(*(truth.picks.xy_px - (x, y)).T).min() > radius
        if 0 <= x < 400 and 0 <= y < 400:
            assert m.data[int(y), int(x)] < 90
    assert truth.picks.xy_px[:, 0].min() >= 80
    assert truth.carbon[:, :80].all()
    assert not truth.carbon[:, 80:].any()


def power(data, pixel_A):
    """Mean spectrum of the quarters of a square picture, on the half transform."""
    half = len(data) // 2
    window = np.hanning(half)[:, None] * np.hanning(half)
    tiles = [data[y : y + half, x : x + half] for y in (0, half // 2, half) for x in (0, half // 2, half)]
    return np.mean([np.abs(np.fft.rfft2((t - t.mean()) * window)) ** 2 for t in tiles], axis=0)


@pytest.mark.parametrize("tilt", [0.0, 40.0])
def test_thon_rings_follow_the_ctf_of_the_place(tilt):
    m, truth = vg.simulate.micrograph(
        shape=(512, 512),
        pixel_size_A=2.0,
        defocus_u_A=12000,
        ice=3.0,
        b_factor_A2=0,
        tilt_deg=tilt,
        tilt_axis_deg=0.0,
        seed=3,
    )
    # axis along x: underfocus grows along +y, by tan 40 of the distance
    for part, y in ((m.data[:170], 84.5), (m.data[-170:], 426.5)):
        spectrum = power(part[:, :170], 2.0) + power(part[:, 170:340], 2.0) + power(part[:, -170:], 2.0)
        optics = truth.scene.optics([255.5, y])
        assert optics.defocus_u_A[0] == pytest.approx(12000 + np.tan(np.deg2rad(tilt)) * 2 * (y - 255.5))
        k = fourier.radius((85, 85)) / 170
        band = (k > 0.04) & (k < 0.2)
        ctf = vg.ctf(optics, 85, 2.0)[0] ** 2
        assert np.corrcoef(spectrum[band], ctf[band])[0, 1] > 0.6
        if tilt:
            wrong = vg.ctf(truth.scene.optics([255.5, 511 - y]), 85, 2.0)[0] ** 2
            assert np.corrcoef(spectrum[band], wrong[band])[0, 1] < 0.3


def test_bad_settings(model):
    with pytest.raises(vg.InputError, match="of 500 particles of 20 px fit"):
        vg.simulate.micrograph(model, shape=(128, 128), pixel_size_A=4.0, n=500)
    with pytest.raises(vg.InputError, match="unknown setting dose"):
        vg.simulate.micrograph(model, dose=3)
    with pytest.raises(vg.InputError, match="tilt_deg: expected 0 to 80"):
        vg.simulate.Scene(tilt_deg=85)
