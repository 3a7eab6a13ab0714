"""Classical pickers by features: what each responds to, what teaches them, what is refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

import verglas as vg
from verglas import simulate
from verglas.errors import InputError
from verglas.picking import compare_picks, inside, match_picks, pick_detailed, prepare, teach
from verglas.picking.examples import PickExamples, windows_at
from verglas.picking.features import (
    FEATURE_METHODS,
    gaussian_variance,
    local_variance,
    peak_shape,
    reduced_space,
    share_in_space,
)
from verglas.picking.image import SmallImage
from verglas.picking.invariants import rotational_invariants
from verglas.picking.template import basis_maps, correlate, search_image, template_bank
from verglas.run.extract import Microscope
from verglas.run.pick import PickJob, PickSettings, pick_files

DIAMETER = 130.0


@pytest.fixture(scope="module")
def scene():
    """Fifty particles of a phantom at SNR 0.05, unseen in development."""
    model = simulate.phantom(box=64, pixel_size_A=3.0, diameter_A=DIAMETER, seed=77)
    return simulate.micrograph(model, shape=(640, 700), pixel_size_A=3.0, snr=0.05, n=40, defocus_u_A=18000.0, seed=77)


def _small(data, radius_px):
    return SmallImage(data, data, (1.0, 1.0), data.shape, radius_px, 4.0)


def test_local_variance_of_a_disc_is_as_in_theory_and_largest_at_its_centre():
    """The closed form: with half of the weight on the disc V is a quarter of its contrast squared, and nowhere more."""
    y, x = np.mgrid[:240, :260]
    disc = 1.0 * (np.hypot(x - 130, y - 110) < 24)
    for contrast in (1.0, 3.0):
        variance = gaussian_variance(contrast * disc, 24.0 / np.sqrt(2 * np.log(2)))
        assert variance.max() == pytest.approx(contrast**2 / 4, rel=1e-3)
        assert variance[110, 130] == pytest.approx(contrast**2 / 4, rel=2e-3)
    noise = np.random.default_rng(0).normal(scale=0.1, size=disc.shape)
    score = local_variance(_small((disc + noise).astype(np.float32), 24.0))
    assert np.hypot(*(np.array(np.unravel_index(score.argmax(), score.shape)) - (110, 130))) < 24 / 2


def test_a_matched_filter_detects_at_the_signal_to_noise_of_theory():
    """Peak over deviation is sqrt(2 E / N0), N0 / 2 the power of white noise per pixel (Sigworth 2004)."""
    rng = np.random.default_rng(3)
    particle = rng.normal(size=(1, 25, 25))
    bank = template_bank(particle, 4.0, 12, left_out=0)
    signal = particle[0] - particle[0][bank.mask > 0].mean()
    signal *= bank.mask / np.sqrt((signal**2 * bank.mask).sum())
    energy, sigma, ratios = 400.0, 2.0, []
    for _ in range(40):
        image = rng.normal(scale=sigma, size=(80, 80)).astype(np.float32)
        image[28:53, 28:53] += (np.sqrt(energy) * signal).astype(np.float32)
        response = basis_maps(search_image(image, bank.mask), bank)[0] * bank.mix[0, 0]
        ratios.append(response[40, 40])
    theory = np.sqrt(2 * energy / (2 * sigma**2))
    assert np.mean(ratios) / sigma == pytest.approx(theory, rel=4 / theory / np.sqrt(40))
    assert np.std(ratios) / sigma == pytest.approx(1, abs=4 / np.sqrt(80))


@pytest.mark.slow
@pytest.mark.parametrize("method", FEATURE_METHODS)
def test_each_method_finds_particles_without_being_taught(scene, method):
    micrograph, truth = scene
    result = pick_detailed(micrograph, DIAMETER, method=method, threads=1)
    margin, radius = DIAMETER / 6, DIAMETER / 9
    true = truth.picks.xy_px
    mine = result.picks.xy_px
    merit = compare_picks(
        mine[inside(mine, micrograph.shape, margin)], true[inside(true, micrograph.shape, margin)], radius
    )
    assert result.source == method
    least = {"reduced": (0.65, 0.9), "signature": (0.85, 0.5), "swarm": (0.85, 0.5)}.get(method, (0.8, 0.7))
    assert (merit.precision > least[0], merit.recall > least[1]) == (True, True)
    again = pick_detailed(micrograph, DIAMETER, method=method, threads=2).picks
    np.testing.assert_array_equal(mine, again.xy_px)


def test_fifteen_clicks_teach_the_invariants(scene):
    """Taught on one micrograph, judged on another: precision, recall, and the area under ROC."""
    model = simulate.phantom(box=64, pixel_size_A=3.0, diameter_A=DIAMETER, seed=77)
    micrograph, truth = scene
    examples = teach([(micrograph, truth.picks.xy_px[:15])], DIAMETER, threads=1)
    assert examples.by_hand
    assert len(examples.particles) == 15
    other, its = simulate.micrograph(
        model, shape=(640, 700), pixel_size_A=3.0, snr=0.05, n=40, defocus_u_A=15000.0, seed=78
    )
    result = pick_detailed(other, DIAMETER, method="invariants", examples=examples, threads=1)
    margin, radius = DIAMETER / 6, DIAMETER / 9
    true = its.picks.xy_px[inside(its.picks.xy_px, other.shape, margin)]
    kept = result.candidates[inside(result.candidates.xy_px, other.shape, margin)]
    picked = result.picks[inside(result.picks.xy_px, other.shape, margin)]
    merit = compare_picks(picked.xy_px, true, radius)
    assert merit.precision >= 0.85
    assert merit.recall >= 0.75
    hit = np.zeros(len(kept), bool)
    hit[match_picks(kept.xy_px, true, radius)[0]] = True
    assert roc_auc_score(hit, kept.columns["rlnAutopickFigureOfMerit"]) > 0.9


def test_the_reduced_space_holds_its_own_images_and_little_of_noise(scene):
    """A window made of the space's images has share 1; white noise sqrt(images / pixels)."""
    micrograph, truth = scene
    small = prepare(micrograph, DIAMETER)
    examples = PickExamples(
        windows_at(small, small.from_micrograph(truth.picks.xy_px)), np.zeros((0, 51, 51)), small.radius_px
    )
    space = reduced_space(examples, small)
    flat = space.basis.reshape(len(space.basis), -1)
    np.testing.assert_allclose(flat @ flat.T, np.eye(5), atol=1e-5)
    rng = np.random.default_rng(0)
    side = space.basis.shape[1]
    image = np.zeros((120, 120), np.float32)
    image[40 : 40 + side, 40 : 40 + side] = np.tensordot([3, 1, -1, 0.5, 2], space.basis, 1)
    searched = search_image(image, space.mask)
    at = 40 + side // 2
    assert share_in_space(basis_maps(searched, space), space, searched.deviation)[at, at] == pytest.approx(1, abs=1e-3)
    searched = search_image(rng.normal(size=(200, 200)).astype(np.float32), space.mask)
    share = np.abs(share_in_space(basis_maps(searched, space), space, searched.deviation))
    assert np.sqrt((share**2).mean()) == pytest.approx(np.sqrt(5 / ((space.mask > 0).sum() - 1)), rel=0.1)


def test_the_peak_of_a_particle_has_the_shape_of_the_autocorrelation(scene):
    """Of a noiseless particle the shape is 1; of a longer object with as high a correlation it is less."""
    y, x = np.mgrid[:150, :260]
    disc = lambda u, v: np.hypot(x - u, y - v) < 11
    ball, ridge = disc(70, 75), (np.abs(y - 75) < 11) & (np.abs(x - 190) < 50)
    data = (ball | ridge).astype(np.float32)
    small = _small(data, 11.0)
    half = 13
    average = np.zeros((2 * half + 1, 2 * half + 1), np.float32)
    average[:] = data[75 - half : 76 + half, 70 - half : 71 + half]
    score, _ = correlate(data, template_bank(average[None], 4.0, 12.7))
    shape = peak_shape(score, average, small)
    assert score[75, 70] == pytest.approx(1, abs=1e-3)
    assert shape[75, 70] > 0.9
    assert shape[75, 190] < shape[75, 70] - 0.2


def test_invariants_do_not_see_how_a_window_lies():
    windows = np.random.default_rng(1).normal(size=(4, 51, 51)).astype(np.float32)
    first = rotational_invariants(windows, 11.0)
    for turned in (np.rot90(windows, axes=(1, 2)), windows[:, ::-1, ::-1]):
        np.testing.assert_allclose(rotational_invariants(turned, 11.0), first, rtol=2e-3, atol=2e-3)
    assert first.shape == (4, 71)
    assert np.abs(rotational_invariants(windows[:, ::-1], 11.0) - first).max() > 0.1  # a mirror image is another


def test_what_cannot_teach_is_refused(scene):
    micrograph = replace(scene[0], data=scene[0].data[:280, :280])
    with pytest.raises(InputError, match="4 examples; expected at least 5 particles"):
        teach([(micrograph, np.full((4, 2), 140.0))], DIAMETER)
    windows = np.random.default_rng(0).normal(size=(15, 51, 51)).astype(np.float32)
    examples = PickExamples(windows, windows, 11.0, True)
    with pytest.raises(InputError, match=r"examples teach the methods reduced, .*; got the method 'log'"):
        pick_detailed(micrograph, DIAMETER, method="log", examples=examples)
    with pytest.raises(InputError, match="made for another diameter or pixel size"):
        pick_detailed(replace(micrograph, pixel_size_A=8.0), DIAMETER, method="invariants", examples=examples)
    with pytest.raises(InputError, match="constant"):
        PickExamples(np.zeros((3, 51, 51), np.float32), np.zeros((3, 51, 51), np.float32), 11.0).average()


def test_files_and_examples(scene, tmp_path, run):
    """The command takes clicks of one micrograph for all; of none of them it refuses."""
    micrograph, truth = scene
    for name in ("a", "b"):
        vg.io.write_stack(tmp_path / f"{name}.mrc", micrograph.data[None, :480, :480], 3.0)
    true = truth.picks.xy_px[inside(truth.picks.xy_px, (480, 480), 22)]
    clicks, chosen = tmp_path / "clicks.csv", true[:15]
    clicks.write_text("micrograph,x,y\n" + "".join(f"a.mrc,{x},{y}\n" for x, y in chosen))
    command = ["pick", tmp_path / "*.mrc", "-d", "130", "-o", tmp_path / "o", "--no-pictures", "--examples", clicks]
    status, _, errors = run(*command)
    assert status == 0, errors
    found = vg.io.read_picks(tmp_path / "o" / "picks.star")
    assert [len(p) for p in found.values()] == [len(found[str(tmp_path / "a.mrc")])] * 2
    assert 0.7 * len(true) <= len(found[str(tmp_path / "b.mrc")]) <= 1.6 * len(true)
    clicks.write_text("micrograph,x,y\nz.mrc,5,6\n")
    job = PickJob(
        [str(tmp_path / "a.mrc")], 130.0, tmp_path / "p", PickSettings("invariants"), Microscope(3.0), examples=clicks
    )
    with pytest.raises(InputError, match=r"none of its 1 micrographs \(z\.mrc, \.\.\.\) is among those given"):
        pick_files(job)
