"""Reference-free and pyramidal alignment; model bias shown and detected."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
from command_line import main

import verglas as vg
from verglas.classification import (
    align_pyramid,
    align_reference_free,
    check_bias,
    einstein_from_noise,
    in_reference_frame,
)
from verglas.errors import InputError


def shape(box=36):
    y, x = np.indices((box, box)) - box // 2
    places = [(5, 0, 1.0), (-4, 4, 0.8), (0, -6, 1.4), (-3, -3, -0.5)]
    return sum(h * np.exp(-((x - px) ** 2 + (y - py) ** 2) / 6.0) for px, py, h in places)


SEARCH = {"max_shift_px": 2, "radius_px": (1.0, 11.0)}


def turned(n, noise=0.3, seed=0):
    """Copies of one shape at known angles and shifts, noisy."""
    r = np.random.default_rng(seed)
    psi, s = r.uniform(-180, 180, n), r.uniform(-1.5, 1.5, (n, 2))
    # The image whose frame is the shape's: turned by -psi and moved by -R s undo each other.
    t = np.deg2rad(psi)
    inverse = -np.stack([np.cos(t) * s[:, 0] - np.sin(t) * s[:, 1], np.sin(t) * s[:, 0] + np.cos(t) * s[:, 1]], axis=1)
    images = in_reference_frame(np.repeat(shape()[None], n, 0), -psi, inverse)
    return (images + noise * r.standard_normal(images.shape)).astype(np.float32), psi, s


def spread_deg(found, psi):
    """Spread of angles about one common turn."""
    error = np.exp(1j * np.deg2rad(found - psi))
    return np.rad2deg(np.abs(np.angle(error / (error.mean() / abs(error.mean())))))


def test_reference_free_alignment_converges_and_depends_on_its_seed_alone():
    images, psi, _ = turned(10)
    first = align_reference_free(images, seed=1, **SEARCH)
    again = align_reference_free(images, seed=1, threads=1, **SEARCH)
    assert np.array_equal(first.angles_deg, again.angles_deg)
    assert np.array_equal(first.average, again.average)
    other = align_reference_free(images, seed=2, cycles=0, **SEARCH)
    assert not np.array_equal(first.angles_deg, other.angles_deg)
    assert first.history[-1] > 0.999
    assert len(first.history) < 10
    assert np.median(spread_deg(first.angles_deg, psi)) < 4


def test_phase_b_mends_what_the_order_of_phase_a_spoilt():
    images, psi, _ = turned(16, noise=0.8, seed=3)
    rough = align_reference_free(images, cycles=0, **SEARCH)
    done = align_reference_free(images, cycles=4, **SEARCH)
    assert spread_deg(done.angles_deg, psi).mean() < spread_deg(rough.angles_deg, psi).mean()


@pytest.mark.slow
def test_the_pyramid_has_no_seed_and_is_as_good():
    images, psi, _ = turned(12)
    found = align_pyramid(images, **SEARCH)
    free = align_reference_free(images, **SEARCH)
    assert np.median(spread_deg(found.angles_deg, psi)) < 4
    contrast = [f.average.std() for f in (found, free)]
    assert contrast[0] > 0.97 * contrast[1]
    assert np.array_equal(found.average, align_pyramid(images, threads=1, **SEARCH).average)


def test_poses_of_the_pyramid_make_its_average():
    images, _, _ = turned(5, noise=0.03)
    found = align_pyramid(images, **SEARCH)
    mean = in_reference_frame(images, found.angles_deg, found.shifts_px).mean(axis=0)
    assert np.allclose(found.average, mean, atol=1e-6)
    assert np.corrcoef(mean.ravel(), images[0].ravel())[0, 1] > 0.95  # its frame is the first image's


def test_alignment_refuses():
    with pytest.raises(InputError, match="square images"):
        align_reference_free(np.zeros((2, 3, 4)))


def test_einstein_comes_from_noise_the_more_the_more_images():
    """The correlation of averaged, aligned noise with the reference grows with N."""
    found = einstein_from_noise(shape(32), [32, 64, 128, 256], max_shift_px=2)
    cc = [found[n][0] for n in (32, 64, 128, 256)]
    assert (np.diff(cc) > 0).all()
    assert cc[-1] > 0.6
    plain = np.random.default_rng(0).standard_normal((256, 32, 32)).mean(axis=0)
    assert abs(np.corrcoef(plain.ravel(), shape(32).ravel())[0, 1]) < 0.2
    same = einstein_from_noise(shape(32), [64], max_shift_px=2, threads=1)
    assert np.array_equal(same[64][1], found[64][1])


@pytest.mark.slow
def test_einstein_up_to_two_thousand_images():
    found = einstein_from_noise(shape(32), max_shift_px=2)
    cc = [found[n][0] for n in sorted(found)]
    assert sorted(found) == [128, 256, 512, 1024, 2048]
    assert (np.diff(cc) > 0).all()
    assert cc[-1] > 0.9


@pytest.fixture(scope="module")
def biased_case(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bias")
    model = vg.simulate.phantom(32, 6.0, 140.0, seed=3)
    density = vg.simulate.density(model, 32, 6.0)
    r = np.random.default_rng(0)
    poses = vg.Poses(
        np.column_stack([np.full(150, 30), np.full(150, 60), r.uniform(-180, 180, 150)]), r.normal(0, 3, (150, 2))
    )
    particles = vg.simulate.particles(model, 150, 32, 6.0, snr=0.1, poses=poses, seed=1)
    noise = vg.Particles.from_images(r.standard_normal((150, 32, 32)).astype(np.float32), 6.0, optics=particles.optics)
    view = vg.project(density, vg.Poses([[30, 60, 0]]))
    return folder, particles, noise, view, density


def test_particles_pass_the_check_and_noise_does_not(biased_case):
    _, particles, noise, view, _ = biased_case
    good = check_bias(particles, view, diameter_A=170)
    assert not good.biased
    assert good.share < 0.4
    assert good.unseen_sigma > 5
    assert good.verdict.startswith("In the data")
    bad = check_bias(noise, view, diameter_A=170)
    assert bad.biased
    assert bad.share > 0.8
    assert bad.unseen_sigma < 4
    assert bad.verdict.startswith("Model bias")
    # Aligned noise agrees with the reference wherever the alignment looked, and nowhere else.
    limit = int(np.searchsorted(bad.frequency_per_A, 1 / bad.alignment_resolution_A)) + 1
    assert (bad.data[:limit] > 0).all()
    assert np.abs(bad.data[limit + 3 :].sum()) < 0.1 * bad.data[:limit].sum()


def test_the_check_does_not_depend_on_threads(biased_case):
    _, particles, _, view, _ = biased_case
    few = particles[np.arange(40)]
    one, two = (check_bias(few, view, diameter_A=170, threads=t) for t in (1, 2))
    assert np.array_equal(one.noise, two.noise)
    assert one.share == two.share


def test_check_bias_refuses(biased_case):
    _, particles, _, view, _ = biased_case
    with pytest.raises(InputError, match="the particles' box"):
        check_bias(particles, view[:, :-2, :-2])
    with pytest.raises(InputError, match="constant"):
        check_bias(particles, np.zeros((32, 32)))


def test_command_line(biased_case, capsys):
    folder, particles, noise, view, density = biased_case
    vg.write_particles(folder / "p.star", particles[np.arange(80)])
    vg.write_map(folder / "map.mrc", density)
    vg.io.write_stack(folder / "view.mrcs", view, 6.0)
    status, out, _ = main(
        [
            "check-bias",
            str(folder / "p.star"),
            "--reference",
            str(folder / "map.mrc"),
            "--diameter",
            "170",
            "--figure",
            str(folder / "b.png"),
            "--out",
            str(folder / "b.json"),
        ],
        capsys,
    )
    assert status == 0
    assert "noise reproduces" in out
    assert (folder / "b.png").read_bytes()[1:4] == b"PNG"
    assert json.loads((folder / "b.json").read_text())["unseen_sigma"] > 3
    vg.write_particles(folder / "n.star", noise)
    words = ["check-bias", str(folder / "n.star"), "--reference", str(folder / "view.mrcs"), "--diameter", "170"]
    status, out, _ = main([*words, "--json", "--figure", str(folder / "b.html")], capsys)
    told = json.loads(out)
    assert told["biased"]
    page = (folder / "b.html").read_text()
    chart = json.loads(re.search(r'<figure class="chart".*?json">(.*?)</script>', page, re.S)[1])
    assert [one["name"] for one in chart["series"]] == ["data", "noise of the same spectrum"]
    assert np.allclose(chart["series"][1]["y"], told["noise"], rtol=1e-3, atol=1e-3 * max(map(abs, told["noise"])))
