"""Ab initio: starts, consensus, verdict, files; alignment of maps; the hand."""

import json
from pathlib import Path

import numpy as np
import pytest
from abinitio_runs import agreement_A, drawn_problem
from command_line import main
from pages_again import check_page_again

import verglas as vg
from verglas.errors import SettingError
from verglas.initial_model.batch_step import thin_posterior
from verglas.initial_model.centre import centre_particles
from verglas.initial_model.consensus import judge
from verglas.initial_model.course import Course, working_box
from verglas.initial_model.settings import AbInitioSettings
from verglas.initial_model.starts import Start
from verglas.map_geometry.hand import flip_hand, mirrored_angles
from verglas.map_geometry.map_alignment import align_maps, turned_map
from verglas.map_geometry.sphere import spherical_average
from verglas.map_geometry.symmetry_search import mass_centre
from verglas.ops import Posterior
from verglas.run.abinitio import abinitio_files
from verglas.run.refine import refine_files
from verglas.search.state import HalfModel, PoseTable

BOX, PIXEL_A, DIAMETER_A = 32, 5.0, 110.0
CHOICES = {"diameter_A": 125.0, "final_resolution_A": 16.0, "iterations": 9, "full_iterations": 1, "threads": 1}
THOROUGH = {"iterations": 14, "full_iterations": 2}  # of slow tests


@pytest.fixture(scope="module")
def data():
    model = vg.simulate.phantom(BOX, PIXEL_A, DIAMETER_A)
    particles = vg.simulate.particles(model, 150, BOX, PIXEL_A, snr=1.0, seed=1)
    return particles, vg.simulate.density(model, BOX, PIXEL_A)


@pytest.fixture(scope="module")
def found(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("abinitio") / "run"
    return vg.abinitio(data[0], starts=2, most_starts=2, out=folder, **CHOICES), folder


def test_a_random_start_finds_the_structure(data, found):
    assert agreement_A(data[1], found[0].map) < 18
    assert found[0].verdict.gain > 10
    scores = [s.score for s in found[0].starts]
    assert scores == sorted(scores, reverse=True)
    assert found[0].merged == found[0].verdict.agreeing
    assert np.linalg.norm(mass_centre(found[0].map.data)) < 1.0
    assert found[0].centre_off_A < PIXEL_A


def test_the_folder_holds_map_poses_summary_and_page(data, found, capsys):
    result, folder = found
    assert {p.name for p in folder.iterdir()} >= {"map.mrc", "particles.star", "abinitio.json", "report.html"}
    volume = vg.read_map(folder / "map.mrc")
    assert volume.pixel_size_A == pytest.approx(PIXEL_A)
    record = json.loads((folder / "abinitio.json").read_text())
    assert record["hand"] == "undetermined"
    assert record["starts"] == result.verdict.starts >= 2
    assert record["settings"]["final_resolution_A"] == 16.0
    page = (folder / "report.html").read_text()
    assert result.verdict.sentence.split(";")[0] in page
    assert page.count("data:image/png;base64") >= 1  # the map; curves are charts
    assert page.count('class="chart"') >= 2
    assert "FSC with the best start" in page
    check_page_again(folder, capsys)
    written = vg.read_particles(folder / "particles.star")
    again = vg.reconstruct(written)
    assert align_maps(volume, again, max_radius=6).correlation > 0.9


@pytest.mark.slow
def test_the_result_does_not_depend_on_threads(data):
    few = {**CHOICES, "iterations": 2}
    one, two = (vg.abinitio(data[0][:80], starts=1, **{**few, "threads": t}) for t in (1, 2))
    assert np.array_equal(one.map.data, two.map.data)
    assert one.verdict.kind == "unconfirmed" or one.verdict.kind == "noise"


@pytest.mark.slow
def test_pure_noise_ends_with_a_verdict_that_says_so(data):
    rng = np.random.default_rng(0)
    noise = data[0].with_source(vg.ArraySource(rng.standard_normal((150, BOX, BOX)).astype(np.float32), PIXEL_A))
    result = vg.abinitio(noise, starts=1, **{**CHOICES, **THOROUGH})
    assert result.verdict.kind == "noise"
    assert "No structure" in result.verdict.sentence


def start_of(number, evidence):
    volume = np.zeros((1, 8, 8, 8), np.float32)
    model = HalfModel(volume, np.ones((1, 4)), np.ones(1), np.ones(1))
    return Start(number, model, PoseTable.unknown(4), np.asarray(evidence, float), np.zeros((1, 5)))


def test_verdicts():
    """What an overfitted map explains worse than nothing is noise, whatever a blob does."""
    good, blob = start_of(0, [10, 12, 11, 9]), np.array([-3.0, 1, 0, 2])
    assert judge(good, blob, [], 12.0).kind == "unconfirmed"
    assert judge(start_of(0, [-5, -4, -6, -5]), np.array([-9.0, -9, -9, -9]), [], 12.0).kind == "noise"
    assert judge(start_of(0, [0.1, 0.2, 0.15, 0.1]), np.zeros(4), [], 12.0).kind == "noise"


def test_mirrored_map_and_poses_give_the_same_images(data):
    particles, truth = data
    angles = particles.poses.angles_deg[:4]
    images = vg.project(truth, vg.Poses(angles))
    mirrored = vg.project(vg.Map(flip_hand(truth.data), PIXEL_A), vg.Poses(mirrored_angles(angles)))
    assert np.abs(images - mirrored).max() < 0.01 * np.abs(images).max()
    assert np.array_equal(flip_hand(flip_hand(truth.data))[:, :, 1:], truth.data[:, :, 1:])


def test_alignment_finds_a_rotation_and_tells_the_hands_apart(data):
    truth = data[1]
    matrix = vg.euler_to_matrix([[37.0, 71.0, -12.0]])[0]
    turned = vg.Map(turned_map(truth.data, matrix), PIXEL_A)
    aligned = align_maps(truth, turned, max_radius=8)
    assert aligned.correlation > 0.99
    assert np.allclose(aligned.matrix @ matrix, np.eye(3), atol=0.02)
    other = align_maps(truth, vg.Map(flip_hand(turned.data), PIXEL_A), max_radius=8)
    assert other.correlation < aligned.correlation - 0.02
    with pytest.raises(vg.InputError, match="one box"):
        align_maps(truth, vg.Map(np.zeros((16,) * 3, np.float32), PIXEL_A))


def test_spherical_average_keeps_shells_and_nothing_else(data):
    volume = data[1].data
    average = spherical_average(volume)
    assert np.allclose(spherical_average(average), average, atol=1e-4 * average.max())
    assert average.sum() == pytest.approx(volume.sum(), rel=1e-4)


def test_thinned_posteriors_are_few_and_unbiased():
    rng = np.random.default_rng(0)
    weight = rng.random(1000) ** 8
    weight /= weight.sum()
    rows = np.arange(2000)
    mean, most = np.zeros(1000), 0
    for row in rows:
        one = Posterior(np.array([0, 1000]), np.arange(1000), np.zeros(1000), np.zeros(1000), np.zeros(1000), weight)
        few = thin_posterior(one, np.array([row]), 64)
        assert few.weight.sum() == pytest.approx(1)
        most = max(most, len(few.weight))
        mean[few.slice] += few.weight / len(rows)
    assert most <= 64
    assert np.abs(mean - weight).max() < 1e-3
    assert np.abs(mean - weight).max() < 0.1 * weight.max()


def test_thinning_leaves_short_lists_and_empty_images_alone():
    p = Posterior.from_lists(3, image=[0, 0, 2], slice=[1, 2, 3], psi_deg=[0, 0, 0], weight=[0.7, 0.3, 1.0])
    assert thin_posterior(p, np.arange(3), 2) is p
    q = thin_posterior(p, np.arange(3), 1)
    assert np.diff(q.offsets).tolist() == [1, 0, 1]
    assert q.weight.tolist() == [1.0, 1.0]


def test_particles_are_centred_against_a_round_map():
    model = vg.simulate.phantom(BOX, PIXEL_A, 95.0, "O")
    particles = vg.simulate.particles(model, 150, BOX, PIXEL_A, snr=0.3, shift_sd_A=9.0, seed=3)
    settings = AbInitioSettings(diameter_A=125.0, final_resolution_A=16.0, shift_range_A=12.0)
    problem, sigma2 = drawn_problem(particles, settings)
    found = centre_particles(problem, settings, sigma2).first_origin_px * PIXEL_A
    error = found - particles.poses.shifts_A
    assert particles.poses.shifts_A.std() > 7
    assert np.median(np.hypot(*error.T)) < 0.8 * PIXEL_A


@pytest.mark.slow
def test_symmetry_is_found_and_the_map_put_on_its_axes(tmp_path, capsys):
    model = vg.simulate.phantom(BOX, PIXEL_A, DIAMETER_A, "D2")
    particles = vg.simulate.particles(model, 300, BOX, PIXEL_A, snr=1.0, seed=1)
    result = vg.abinitio(particles, "auto", starts=1, out=tmp_path / "run", **{**CHOICES, **THOROUGH})
    assert result.symmetry.symmetry == result.summary()["symmetry"] == "D2"
    assert result.symmetry.gain > -2 * result.symmetry.gain_error
    turned = result.map.data[1:, :0:-1, :0:-1]  # half a turn about z
    assert np.corrcoef(turned.ravel(), result.map.data[1:, 1:, 1:].ravel())[0, 1] > 0.99
    again = vg.reconstruct(vg.read_particles(tmp_path / "run" / "particles.star"), "D2")
    assert align_maps(result.map, again, max_radius=6).correlation > 0.9
    page = (tmp_path / "run" / "report.html").read_text()
    assert result.symmetry.sentence.split(":")[0] in page
    assert "worst element" in page
    check_page_again(tmp_path / "run", capsys)


def test_course_grows(data):
    settings = AbInitioSettings(diameter_A=125.0, final_resolution_A=16.0, iterations=20, full_iterations=2)
    from verglas.search.problem import Problem

    course = Course(Problem.of(data[0], {}, job="abinitio", diameter_A=125.0), settings, 180)
    batches = [course.batch(i) for i in range(20)]
    radii = [course.radius(i, 99) for i in range(20)]
    assert batches == sorted(batches)
    assert (batches[0], batches[-1]) == (100, 180)
    assert radii == sorted(radii)
    assert (radii[0], radii[-1]) == (4, 10)
    assert course.radius(19, 3.0) == 5  # no evidence, no resolution
    assert working_box(256, 1.0, 12.0) == 54


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"zzz": 3, "iteration": 2}, r"unknown settings iteration \(iterations\?\), zzz; known are classes"),
        ({"starts": 0}, "starts: expected at least 1, got 0"),
        ({"initial_resolution_A": 10.0}, "coarser than the final"),
        ({"held_out": 0.9}, "held_out: expected more than 0 and at most 0.5, got 0.9"),
        ({"symmetry": "auto", "classes": 2}, "for one class"),
        ({"diameter_A": 500.0}, "does not fit a box"),
    ],
)
def test_what_cannot_be_is_said_in_one_sentence(data, change, message):
    with pytest.raises(vg.VerglasError, match=message) as caught:
        vg.abinitio(data[0], **{**CHOICES, **change})
    assert "\n" not in str(caught.value)


def test_too_few_particles_and_bad_ones(data):
    with pytest.raises(vg.InputError, match=r"20 of 20 particles can be used; it takes 50"):
        vg.abinitio(data[0][:20], **CHOICES)
    images = data[0].images()[:60]
    images[3, 5, 5] = np.nan
    broken = data[0][:60].with_source(vg.ArraySource(images, PIXEL_A))
    result = vg.abinitio(broken, starts=1, **{**CHOICES, "iterations": 1})
    assert set(result.excluded) == {3}
    assert len(result.particles) == 59


@pytest.mark.slow
def test_more_particles_than_are_drawn_get_poses_too(data):
    result = vg.abinitio(data[0], starts=1, most_particles=80, **{**CHOICES, "iterations": 2})
    assert len(result.particles) == 150
    assert np.isfinite(result.particles.table["rlnLogLikeliContribution"]).all()


@pytest.mark.parametrize("name", ["abinitio", "class2d", "refine"])
def test_a_wrong_setting_is_found_before_anything_is_read(name, tmp_path, capsys):
    status, _, err = main([name, "no-such.star", "--out", str(tmp_path), "--diameter", "-3"], capsys)
    assert status == 2
    assert "--diameter: expected more than 0, got -3" in err


@pytest.mark.parametrize("job", [abinitio_files, refine_files])
def test_from_python_too_all_wrong_settings_are_told_before_the_file_is_read(job, tmp_path):
    """The file does not exist: that would be told first if it were read first."""
    with pytest.raises(SettingError, match=r"diameter_A: expected more than 0, got -3.*seed: expected at least 0"):
        job(Path("no-such.star"), settings={"diameter_A": -3.0, "seed": -1}, out=tmp_path / "run")
    with pytest.raises(SettingError, match=r"unknown setting diamter_A \(diameter_A\?\)"):
        job(Path("no-such.star"), settings={"diamter_A": 3.0}, out=tmp_path / "run")
    with pytest.raises(vg.InputError, match=r"no-such\.star"):
        job(Path("no-such.star"), settings={"diameter_A": 3.0}, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.parametrize(("symmetry", "starts", "seeds"), [("C1", 3, 5), ("D2", 1, 10)])
def test_success_over_seeds(symmetry, starts, seeds):
    """1,000 particles, SNR 0.1: within 15 A of the truth at FSC 0.5 for all data sets but one.

    Of single starts in C1 seven of ten succeed; the best of three, as the command makes by default, is told apart by
    its held-out evidence.
    """
    model = vg.simulate.phantom(128, 1.5, 130.0, symmetry, seed=3)
    truth = vg.image.resample(vg.simulate.density(model, 128, 1.5), vg.image.plan_resample(128, 1.5, None, 48))
    good = 0
    for seed in range(seeds):
        particles = vg.simulate.particles(model, 1000, 128, 1.5, snr=0.1, seed=seed)
        volume = vg.abinitio(particles, symmetry, 145.0, starts=starts, seed=seed).map
        small = vg.image.resample(volume, vg.image.plan_resample(128, 1.5, None, 48))
        hands = [vg.Map(v, truth.pixel_size_A) for v in (small.data, flip_hand(small.data))]
        best = max((align_maps(truth, m, max_radius=12) for m in hands), key=lambda a: a.correlation)
        good += vg.fsc(truth, best.map).resolution_A(0.5) < 15
    assert good >= seeds - 1


def test_the_former_word_for_the_hand_works_and_says_the_new_one(data):
    with (
        pytest.warns(vg.VerglasWarning, match="abinitio: mirror is now called flip_hand"),
        pytest.raises(vg.InputError, match="it takes 50"),
    ):
        vg.abinitio(data[0][:20], mirror=True, **CHOICES)
