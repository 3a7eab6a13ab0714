"""The verdict of a refinement: noise is told from structure, missing views are seen; directional FSC."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

import verglas as vg
from verglas.assessment.directional import directional_fsc
from verglas.assessment.judge import judge_directions, judge_gain, judge_unexplained
from verglas.cli import main
from verglas.errors import InputError
from verglas.initial_model.batch_step import EVIDENCE_ALONE, LIMITS, BatchStep
from verglas.io import read_json
from verglas.map_geometry.sphere import spherical_average
from verglas.refinement.em import initial_state
from verglas.refinement.settings import RefineSettings
from verglas.refinement.start import make_problem
from verglas.run.held_out import HeldOut
from verglas.search.problem import survey
from verglas.search.state import PoseTable
from verglas.types.verdict import Finding, Verdict

pytestmark = pytest.mark.usefixtures("blank_figures_of_module")

BOX, PIXEL_A, DIAMETER_A = 48, 3.0, 100.0


@pytest.fixture(scope="module")
def model():
    return vg.simulate.phantom(BOX, PIXEL_A, DIAMETER_A)


def views(n, within_deg, seed):
    """Views within a cone about z, any in-plane angle."""
    rng = np.random.default_rng(seed)
    tilt = np.rad2deg(np.arccos(1 - (1 - np.cos(np.deg2rad(within_deg))) * rng.random(n)))
    return vg.Poses(np.column_stack([360 * rng.random(n), tilt, 360 * rng.random(n)]))


def halves(model, within_deg, seed):
    made = vg.simulate.particles(model, 400, BOX, PIXEL_A, snr=0.1, seed=seed, poses=views(400, within_deg, seed))
    return vg.reconstruct(made, halves=True)[1]


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    ("within_deg", "code"), [(20, "restricted-views"), (60, "restricted-views"), (180, "directions")]
)
def test_missing_views_are_seen_and_even_ones_are_not(model, seed, within_deg, code):
    mask = vg.masks.soft_sphere(BOX, 17.0, 5.0)
    found = vg.directional_fsc(*halves(model, within_deg, seed), mask)
    finding = judge_directions(found)
    assert finding.code == code
    if within_deg == 60:  # the missing cone lies about z
        assert abs(found.worst[0][2]) > 0.9
    if within_deg == 180:
        assert found.sphericity > 0.95


@pytest.mark.parametrize("noise", [1.0, 5.0])
def test_maps_alike_in_all_directions_raise_no_alarm_however_noisy(model, noise):
    truth = vg.simulate.density(model, BOX, PIXEL_A, b_factor_A2=80.0)
    for seed in range(3):
        rng = np.random.default_rng(seed)
        pair = [
            truth.with_data((truth.data + noise * truth.data.std() * x).astype(np.float32))
            for x in rng.normal(size=(2, *truth.data.shape))
        ]
        assert judge_directions(directional_fsc(*pair, vg.masks.soft_sphere(BOX, 17.0, 5.0))).state == "go on"


def test_a_planted_axis_is_found():
    """Half maps that agree to 6 A but, within 25 degrees of x, to 24 A only."""
    n, pixel_A = 48, 3.0
    rng = np.random.default_rng(0)
    signal, *noise = rng.normal(size=(3, n, n, n))
    k = np.fft.fftfreq(n)
    z, y, x = np.meshgrid(k, k, k, indexing="ij")
    s = np.sqrt(x**2 + y**2 + z**2)
    lost = (np.abs(x) > np.cos(np.deg2rad(25)) * s) & (s > pixel_A / 24)
    kept = np.fft.ifftn(np.fft.fftn(signal) * ~lost).real
    found = directional_fsc(*(vg.Map((3 * kept + v).astype(np.float32), pixel_A) for v in noise))
    direction, coarse = found.worst
    assert abs(direction[0]) > np.cos(np.deg2rad(10))
    assert 20 < coarse < 30
    assert found.best[1] < 6.5
    assert found.area_ratio < 0.5
    assert found.sphericity < 0.95


def test_bad_input_is_named():
    one = vg.Map(np.ones((8, 8, 8), np.float32), 1.0)
    with pytest.raises(InputError, match="half-angle of 5 to 60"):
        directional_fsc(one, one, cone_deg=80.0)


def run(command):
    with pytest.raises(SystemExit) as ended:
        main(command)
    assert not ended.value.code


def test_command(model, tmp_path, capsys):
    for number, one in enumerate(halves(model, 20, 0), 1):
        vg.write_map(tmp_path / f"half{number}.mrc", one)
    files = [str(tmp_path / f"half{number}.mrc") for number in (1, 2)]
    run(["directional", *files])
    assert "Views are missing" in capsys.readouterr().out
    run(["directional", *files, "--json"])
    told = json.loads(capsys.readouterr().out)
    assert told["verdict"]["findings"][0]["code"] == "restricted-views"
    assert len(told["resolution_A"]) == len(told["directions"]) == 500


def test_gain_of_nothing_is_noise():
    rng = np.random.default_rng(0)
    assert judge_gain(rng.normal(size=400)).code == "noise"
    assert judge_gain(rng.normal(size=400) + 0.5).code == "signal"
    assert judge_gain(rng.normal(size=400) - 0.5).state == "stop"
    nothing, faint = rng.normal(size=400) - 0.1, 0.2 * rng.normal(size=400)
    weak = judge_gain(nothing, faint + 0.1)
    assert (weak.code, weak.state) == ("weak-signal", "warn")
    assert weak.numbers["faint_gain_nats"] == pytest.approx(0.1, abs=0.04)
    assert judge_gain(nothing, faint).code == "noise"


def evidence_of(rng, good, d):
    """Log likelihood ratios of particles and of junk under a map that d / 2 nats tell apart from nothing."""
    return rng.normal(np.where(good, d / 2, -d / 2), np.sqrt(d))


def test_the_share_of_junk_is_found_and_the_least_is_rarely_too_large():
    rng, found, least = np.random.default_rng(3), [], []
    for _ in range(20):
        good = rng.random(200) < 0.3
        [told] = judge_unexplained(evidence_of(rng, good, 10.0), np.full(200, -1.0))
        found.append(told.numbers["share_unexplained"] - 0.7)
        least.append(told.numbers["least_share_unexplained"] > 0.7)
    assert abs(np.mean(found)) < 0.03
    assert np.std(found) < 0.06
    assert np.sum(least) <= 3  # 2.5 % of 20 is expected: four or more in one trial of 700


@pytest.mark.parametrize("d", [0.1, 1.0, 10.0])
def test_particles_that_are_all_good_raise_no_alarm_however_little_tells_them_apart(d):
    rng = np.random.default_rng(4)
    for _ in range(5):
        assert not judge_unexplained(evidence_of(rng, np.ones(300, bool), d), np.zeros(300))


def test_particles_that_a_blob_explains_are_no_particles_of_the_map():
    rng = np.random.default_rng(5)
    good = np.arange(300) < 100
    blob = np.full(300, 6.0)
    [told] = judge_unexplained(blob + evidence_of(rng, good, 10.0), blob)
    assert told.state == "warn"
    assert told.numbers["share_unexplained"] == pytest.approx(2 / 3, abs=0.06)


def test_a_verdict_is_its_worst_finding_and_comes_back_from_a_file():
    made = Verdict.of([Finding("a", "go on", "A."), Finding("b", "warn", "B.", {"x": 1})])
    assert made.state == "warn"
    assert made.reasons == ("B.",)
    assert Verdict.from_dict(json.loads(json.dumps(made.as_dict()))) == made
    with pytest.raises(KeyError):
        made["c"]


SMALL_BOX, SMALL_PIXEL_A = 24, 6.0


def small_set(kind, seed, n=160):
    model = vg.simulate.phantom(SMALL_BOX, SMALL_PIXEL_A, 100.0, seed=seed)
    reference = vg.simulate.density(model, SMALL_BOX, SMALL_PIXEL_A)
    made = vg.simulate.particles(model, n, SMALL_BOX, SMALL_PIXEL_A, snr=0.3, seed=seed)
    if kind == "signal":
        return made, reference
    images = np.random.default_rng(seed).normal(size=(n, SMALL_BOX, SMALL_BOX))
    if kind == "coloured":
        images = ndimage.gaussian_filter(images, (0, 1.0, 1.0))
    images = (images / images.std()).astype(np.float32)
    return vg.Particles.from_images(images, SMALL_PIXEL_A, poses=made.poses, optics=made.optics), reference


@pytest.fixture(scope="module")
def begun():
    """A small set, and its problem and state as of a refinement to shell 8."""
    particles, reference = small_set("signal", 5, 48)
    settings = RefineSettings(diameter_A=120.0, initial_resolution_A=25.0, join_resolution_A=80.0)
    found = survey(particles)
    problem = make_problem(particles, found.excluded, settings)
    state, _ = initial_state(problem, found.power, [reference])
    state.resolution_shell = 8.0
    return problem, state, reference


def test_a_sixtieth_of_the_directions_stands_for_all_of_a_round_map(begun):
    problem, state, reference = begun
    ball = spherical_average(reference.data * problem.sphere)[None]
    held_out = HeldOut.of(problem, state, half=1)
    everywhere, part = held_out.evidence(ball), held_out.evidence(ball, round_maps=True)
    assert np.ptp(everywhere) > 1.0  # nats: something is told
    np.testing.assert_allclose(part, everywhere, atol=0.05)
    other = held_out.evidence(reference.data[None]) - held_out.evidence(reference.data[None], round_maps=True)
    assert np.abs(other).max() > 0.5  # of a map that is not round it would be wrong


def test_evidence_and_best_poses_need_no_list_of_candidates(begun):
    problem, state, reference = begun
    held_out, tables, evidence = HeldOut.of(problem, state, half=1), [], []
    model = replace(held_out.model, volumes=reference.data[None])
    for limits in (LIMITS, EVIDENCE_ALONE):
        tables.append(PoseTable.unknown(len(problem)))
        step = BatchStep(problem, model, held_out.step, held_out.step.insert_radius, limits)
        evidence.append(step.evaluate(held_out.rows, tables[-1]))
    np.testing.assert_array_equal(*evidence)
    for name, values in vars(tables[0]).items():
        np.testing.assert_array_equal(values, getattr(tables[1], name), name)


def test_given_poses_beyond_the_range_of_shifts_are_not_judged_from_the_centre(begun):
    problem, state, _ = begun
    far = np.arange(len(problem)) % 12 == 0
    state = replace(state, poses=state.poses.copy())
    state.poses.origin_px[:] = np.where(far, problem.settings.shift_range_A / problem.pixel_size_A + 2, 0)[:, None]
    given = replace(problem, settings=replace(problem.settings, poses="local"))
    assert far[HeldOut.of(problem, state, half=1).rows].any()
    assert not far[HeldOut.of(given, state, half=1).rows].any()
    state.poses.origin_px[:] = 99.0  # all of them: what can be judged is judged
    assert len(HeldOut.of(given, state, half=1).rows) == len(problem.rows_of_half(2))


def test_noise_without_any_part_that_stands_out_is_judged_all_the_same(monkeypatch):
    """Aligned noise may leave nothing to draw a mask around: the job went through to its end, and failed there."""

    def nothing(*args, **more):
        raise InputError("solvent_mask: nothing stands out")

    monkeypatch.setattr("verglas.assessment.solvent.solvent_mask", nothing)
    particles, reference = small_set("white", 1)
    run = vg.refine(particles[:40], reference, diameter_A=120, initial_resolution_A=40, iterations=2, listener=None)
    assert np.isfinite(run.map.data).all()
    assert run.verdict.state == "stop"


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "code"), [("signal", "signal"), ("white", "noise"), ("coloured", "noise")])
def test_noise_refined_is_called_noise(kind, code, tmp_path, capsys):
    particles, reference = small_set(kind, 1)
    vg.write_particles(tmp_path / "p.star", particles)
    vg.write_map(tmp_path / "ref.mrc", reference)
    command = ["refine", tmp_path / "p.star", "--ref", tmp_path / "ref.mrc", "--out", tmp_path / "run"]
    ended = 0
    try:
        main([str(c) for c in [*command, "--diameter", 120, "--initial-resolution", 40]])
    except SystemExit as exit_:
        ended = exit_.code
    assert (ended or 0) == (code == "noise")
    assert f"({code}):" in capsys.readouterr().out
    verdict = Verdict.from_dict(read_json(tmp_path / "run" / "run.json")["verdict"])
    assert verdict.findings[0].code == code
    page = (tmp_path / "run" / "report.html").read_text()
    assert f"Verdict: {verdict.state}" in page
