"""classify2d: planted views found, noise told from signal, EM monotone, repeatable."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from planted_classes import planted, share_right

import verglas as vg
from verglas import ops
from verglas.classification import Class2DSettings, class_cores, held_out_evidence, stable_core
from verglas.classification.class2d import Classifier
from verglas.classification.classes import _verdict, crossing, with_stability
from verglas.classification.em2d import Model2D, Sums, signal_power
from verglas.classification.moves import centre_averages, group_classes, image_references
from verglas.classification.working_set import WorkingSet
from verglas.errors import InputError, VerglasWarning
from verglas.report.class2d import page as report_page
from verglas.types.listener import Silence

from tolerance import MAXIMISE_REL

pytestmark = pytest.mark.drawn


@pytest.fixture(scope="module")
def case():
    particles, truth = planted(300, noise=100)
    return particles, truth, vg.classify2d(particles, classes=4, diameter_A=170, max_resolution_A=16)


def test_planted_views_are_found_and_noise_is_set_apart(case):
    _, truth, found = case
    real = truth >= 0
    assert share_right(found.labels[real], truth[real]) >= 0.9
    assert (found.labels[~real] == 4).mean() >= 0.9
    assert found.signal
    assert "Signal" in found.verdict
    sizes = found.table["particles"].to_numpy()
    assert sizes[:4].max() <= 3 * sizes[:4].mean()
    assert sizes.sum() == len(truth)


def test_averages_are_ranked_centred_and_resolved(case):
    _, _, found = case
    assert found.averages.shape == (5, 32, 32)
    resolution = found.table["resolution_A"].to_numpy()[:4].round(1)
    assert (np.diff(resolution) >= 0).all()
    assert resolution[0] < 16
    assert not found.averages[4].any()
    _, moves = centre_averages(found.averages[:4])
    assert np.abs(moves).max() < 0.3


def test_particles_moved_by_their_poses_match_the_averages(case):
    """Pose convention and centring: images brought into the frame of their class correlate with its average."""
    particles, _, found = case
    from verglas.classification import Alignment2D, alignment_scores

    rows = np.flatnonzero(found.labels < 4)[:40]
    poses = found.particles.poses
    images = particles.images(rows)
    shifts = (poses.shifts_A[rows] / found.pixel_size_A).astype(np.float32)
    psi = poses.angles_deg[rows, 2].astype(np.float32)
    pose = Alignment2D(psi, shifts, found.labels[rows].astype(np.int32), np.zeros(len(rows), np.float32))
    right = alignment_scores(images, found.averages[:4], pose, radius_px=12).mean()
    turned = Alignment2D(psi + 90, shifts, pose.references, pose.scores)
    moved = Alignment2D(psi, shifts + 4, pose.references, pose.scores)
    for wrong in (turned, moved):
        assert abs(right) > 1.5 * abs(alignment_scores(images, found.averages[:4], wrong, radius_px=12).mean())


@pytest.mark.slow
def test_pure_noise_ends_in_a_verdict_that_says_so():
    images = np.random.default_rng(1).standard_normal((100, 32, 32)).astype(np.float32)
    particles = vg.Particles.from_images(images, 5.0)
    found = vg.classify2d(particles, classes=4, ctf=False, max_resolution_A=15, diameter_A=120, iterations=10)
    assert not found.signal
    assert "Nothing but noise" in found.verdict
    assert max(line.evidence for line in found.record) < 5
    assert found.record[-1].radius == found.record[-2].radius  # no finer data was let in


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow), pytest.param(2, marks=pytest.mark.slow)])
def test_averages_of_one_half_gain_on_the_other_where_there_is_signal_only(seed):
    """Weak particles of all views in two classes; noise of the same optics."""
    model = vg.simulate.phantom(32, 6.0, 140.0, seed=seed)
    particles = vg.simulate.particles(model, 200, 32, 6.0, snr=0.04, seed=seed)
    noise = np.random.default_rng(seed).standard_normal((200, 32, 32)).astype(np.float32)
    gains = []
    for each in (particles, vg.Particles.from_images(noise, 6.0, optics=particles.optics)):
        settings = Class2DSettings(classes=2, diameter_A=170, max_resolution_A=24, shift_range_A=6)
        gains.append(Classifier(WorkingSet(each, settings), settings).gain())
    assert gains[0] > 30
    assert gains[1] < 3


def test_weak_signal_is_not_called_noise(case):
    """No evidence beyond the search, but a gain on held-out images: weak, not noise."""
    _, _, found = case
    line = dataclasses.replace(found.record[-1], evidence=0.4)
    text, signal = _verdict(line, 40.0, found.table, 4)
    assert signal
    assert text.startswith("Weak signal")
    for gain in (None, 5.0):
        text, signal = _verdict(line, gain, found.table, 4)
        assert not signal
        assert text.startswith("Nothing but noise")


def test_the_verdict_says_which_iteration_it_is_of(case):
    """The evidence falls where the search takes in finer data: the last point of the curve is not the verdict's."""
    _, _, found = case
    line = dataclasses.replace(found.record[3], evidence=8.2, resolution_A=21.4)
    text, signal = _verdict(line, None, found.table, 4)
    assert signal
    assert "by 8 standard errors on data finer than 21 A" in text
    assert f"no alignment had seen then (iteration {line.number})" in text
    page = report_page(found, {}, [], "")
    assert "The largest of all iterations counts" in page


def strict(particles, k, **changes):
    settings = Class2DSettings(classes=k, diameter_A=170, max_resolution_A=15, mask_m_step=True, **changes)
    work = WorkingSet(particles, settings)
    made = Classifier(work, settings)
    sigma2, tau2 = made.engine.spectra(work.usable)
    share = -np.log(k + 1.0)
    averages = image_references(made.engine, work.usable[:k], sigma2, tau2)
    model = Model2D(averages, np.full(k, share), share, sigma2, made.range_px / 2, np.tile(tau2, (k, 1)))
    return made, model, made.stage(work.geometry.search_limit)


def test_log_likelihood_plus_log_prior_never_falls():
    """Strict EM: masked images in both steps, fixed signal power and resolution; noise, shares, shifts estimated."""
    particles, _ = planted(150, seed=2)
    made, model, stage = strict(particles, 3)
    grid, engine = made.engine.grid, made.engine
    radius = stage.radius
    coefficients = (grid.weights * grid.n_theta)[:radius]
    objective = []
    for _ in range(9):
        _, sums = engine.run(model, stage, made.work.usable)
        power = (np.abs(ops.polar(model.averages, grid)[:, :radius]) ** 2).mean(axis=2)
        prior = -0.5 * (power / (2.0 * model.tau2[:, :radius]) * coefficients).sum()
        prior += model.log_share.sum() + model.log_null  # Dirichlet: one particle more in every class
        objective.append(sums.log_likelihood + prior)
        model = engine.maximise(model, sums, tau2=model.tau2)
    steps = np.diff(objective)
    assert objective[-1] > objective[0] + 1000
    # Interpolation of the averages between the grids of the two steps, and candidates of the last hundredth.
    assert steps.min() > -1e-6 * abs(objective[-1])


def test_one_class_without_poses_is_the_wiener_average():
    """One class, one pose, no CTF: the M-step is num / (den + 1 / (T tau2)) of the plain mean."""
    rng = np.random.default_rng(0)
    images = rng.standard_normal((30, 32, 32)).astype(np.float32)
    particles = vg.Particles.from_images(images, 4.0)
    settings = Class2DSettings(classes=1, ctf=False, max_resolution_A=16, null_class=False, mask_m_step=True)
    made = Classifier(WorkingSet(particles, settings), settings)
    engine, grid = made.engine, made.engine.grid
    sigma2 = np.full((1, grid.n_rings), 500.0)
    tau2 = np.full((1, grid.n_rings), 40.0)
    x = engine.whole.get(np.arange(30))
    plan = ops.MaximisePlan(grid, 2, n_power=1)
    plan.set_reference(np.zeros((2, *x.shape[1:]), np.complex64))
    half = engine.halves
    plan.add(x, ops.Posterior.from_lists(30, np.arange(30), half, np.zeros(30)), [[0, 0]], inv_sigma2=1 / sigma2)
    num, den = (a.reshape(1, 2, grid.n_rings, -1) for a in plan.slices())
    squared = 30 * sigma2 * grid.weights * grid.n_theta
    mass = np.array([30.0])
    sums = Sums(num.astype(complex), den.astype(float), mass, 0.0, squared, mass, 0.0, np.zeros(1), 0.0)
    model = Model2D(np.zeros((1, 32, 32), np.float32), np.zeros(1), -np.inf, sigma2, 1.0, tau2)
    new = engine.maximise(model, sums, tau2=tau2)
    gain = (30 / 500) / (30 / 500 + 1 / (2 * 40.0))
    expected = ops.images_from_polar(x.mean(axis=0, keepdims=True) * gain, grid)
    assert np.allclose(new.averages, expected, atol=MAXIMISE_REL * np.abs(expected).max())


def test_the_same_seed_gives_the_same_classes_whatever_threads_and_memory():
    particles, _ = planted(120, snr=0.2, seed=5)
    first, second = (
        vg.classify2d(particles, classes=3, diameter_A=170, max_resolution_A=16, iterations=3, seed=4, **changes)
        for changes in ({"threads": 1}, {"threads": 2, "memory_GB": 1e-6})
    )
    assert np.array_equal(first.labels, second.labels)
    assert np.array_equal(first.particles.poses.angles_deg, second.particles.poses.angles_deg)
    assert np.array_equal(first.averages, second.averages)
    assert [line.log_likelihood for line in first.record] == [line.log_likelihood for line in second.record]


def test_signal_power_is_one_spectrum_for_large_and_small_classes():
    """Half sets of one class agree, those of a small one happen not to: neither is filtered to nothing."""
    rng = np.random.default_rng(0)
    signal = 3 * (rng.standard_normal((1, 1, 5, 400)) + 1j * rng.standard_normal((1, 1, 5, 400)))
    weight = np.array([[[50.0] * 5] * 2, [[2.0] * 5] * 2, [[0.0] * 5] * 2])
    noise = rng.standard_normal((3, 2, 5, 400)) + 1j * rng.standard_normal((3, 2, 5, 400))
    halves = signal + noise / np.sqrt(2 * np.maximum(weight, 1e-3))[..., None]
    halves[2] = 0
    power = signal_power(halves, weight)
    assert np.allclose(power[0], power[1])
    assert power[0] == pytest.approx((np.abs(signal[0, 0]) ** 2).mean(axis=1), rel=0.3)
    halves[1, 1] *= -1
    against = signal_power(halves, weight)
    assert (against[1] > 0.8 * power[1]).all()


def test_balance_lowers_the_prior_of_large_classes_within_bounds_and_leaves_the_empty_class():
    particles, _ = planted(20)
    settings = Class2DSettings(classes=4, diameter_A=170, max_resolution_A=16, balance=2.0)
    made = Classifier(WorkingSet(particles, settings), settings)
    sigma2 = np.ones((1, made.engine.grid.n_rings))
    blank = np.zeros((4, 32, 32), np.float32)
    before = Model2D(blank, np.full(4, np.log(0.2)), np.log(0.2), sigma2, 1.0, np.ones((4, sigma2.shape[1])))
    after = dataclasses.replace(before, log_share=np.log([0.7, 0.05, 0.03, 0.02]))
    mass = np.array([160.0, 20.0, 12.0, 8.0])
    sums = Sums(np.zeros(1), np.zeros(1), mass, 0.0, sigma2, np.ones(1), 0.0, np.zeros(4), 0.0)
    for _ in range(2):
        got = made.balance_shares(before, after, sums)
        assert got.log_share[0] < got.log_share[1] < got.log_share[2]
        assert np.exp(got.log_share).sum() == pytest.approx(0.8)
        assert got.log_null == before.log_null
        before = got
    for _ in range(10):
        before = made.balance_shares(before, after, sums)
    assert np.ptp(before.log_share) == pytest.approx(4.0)
    plain = Classifier(made.work, dataclasses.replace(settings, balance=0.0))
    assert plain.balance_shares(before, after, sums) is after


@pytest.mark.slow
def test_views_that_cannot_be_told_apart_are_shared_out():
    """Nearly round particles in too many classes: the surest average does not draw them all in."""
    rng = np.random.default_rng(5)
    far = np.hypot(*(np.indices((32, 32)) - 16))
    disc = np.exp(-0.5 * ((far - 7) / 2.5) ** 2)
    images = (0.35 * disc + rng.standard_normal((120, 32, 32))).astype(np.float32)
    particles = vg.Particles.from_images(images, 6.0)
    found = vg.classify2d(
        particles,
        classes=6,
        ctf=False,
        diameter_A=150,
        max_resolution_A=24,
        null_class=False,
        shift_range_A=6,
        iterations=8,
    )
    sizes = found.table["particles"].to_numpy()
    assert sizes.max() <= 3 * sizes.mean()
    assert sizes.min() > 0


@pytest.mark.slow
def test_mini_batches_find_the_views_too():
    particles, truth = planted(240, snr=0.2, seed=6)
    found = vg.classify2d(particles, classes=4, diameter_A=170, max_resolution_A=16, mini_batch=100)
    assert share_right(found.labels, truth) >= 0.9
    assert [line.particles for line in found.record][-2:] == [240, 240]
    assert 100 in {line.particles for line in found.record}


class Lines(Silence):
    """A listener that keeps what is said."""

    def __init__(self, lines):
        self.lines = lines

    def say(self, line):
        self.lines.append(line)


def test_an_empty_class_starts_anew_from_the_one_that_mixes_views():
    """Two views in one class and a class without particles: refilling separates them, and says so."""
    particles, truth = planted(160, snr=0.3, seed=8)
    keep = truth < 2
    lines = []
    settings = Class2DSettings(classes=2, diameter_A=170, max_resolution_A=16, null_class=False)
    made = Classifier(WorkingSet(particles[keep], settings), settings, listener=Lines(lines))
    state = made.start()
    blank = state.model.averages.copy()
    blank[1] = 0
    share = np.array([0.0, -200.0])
    state.model = Model2D(blank, share, -np.inf, state.model.sigma2, state.model.shift_sigma_px, state.model.tau2)
    state.sums = None
    made.iterate(state, made.work.usable)
    assert made.refill(state)
    assert "starts anew" in lines[-1]
    for _ in range(4):
        made.iterate(state, made.work.usable)
    assert share_right(state.assignments.label, truth[keep]) >= 0.9


@pytest.mark.slow
def test_splitting_makes_levels_without_giant_or_empty_classes():
    """Equal planted classes; largest over smallest below 10; levels of 2, 4 and 8."""
    particles, truth = planted(240, snr=0.3, seed=9)
    found = vg.classify2d(particles, classes=8, diameter_A=170, max_resolution_A=18, start="split", null_class=False)
    sizes = found.table["particles"].to_numpy()
    assert sizes.min() > 0
    assert sizes.max() / sizes.min() < 10
    assert [len(np.unique(level)) for level in found.levels] == [2, 4, 8]
    core = stable_core(found.levels, tolerance=0)
    table = np.zeros((8, 4))
    np.add.at(table, (found.labels, truth), 1)
    assert table.max(axis=1).sum() / len(truth) >= 0.9
    assert core.mean() > 0.5


def test_held_out_evidence_is_standard_normal_for_noise_however_soft_the_posterior():
    rng = np.random.default_rng(3)
    z = []
    for _ in range(40):
        shape = (3, 2, 6, 20)
        num = (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)) * np.sqrt(5.0)
        den = np.full(shape, 10.0)
        num[1:] = num[:1]  # three classes that share every image: no more evidence than one
        sums = Sums(num, den, np.ones(3), 0.0, np.ones((1, 6)), np.ones(1), 0.0, np.zeros(3), 0.0)
        z.append(held_out_evidence(sums, 2)[1])
    assert abs(np.mean(z)) < 0.7
    signal = num + 20
    strong = Sums(signal, den, np.ones(3), 0.0, np.ones((1, 6)), np.ones(1), 0.0, np.zeros(3), 0.0)
    assert held_out_evidence(strong, 2)[1] > 5
    assert held_out_evidence(strong, 6)[1] == 0


def test_crossing_and_grouping():
    assert crossing(np.array([0.1, 0.5]), np.array([1.0, 2.0])) == 0
    assert crossing(np.array([0.9, 0.5]), np.array([1.0, 2.0])) == 2
    x = np.array([0.0, 1.0, 10.0, 10.5, 30.0])
    groups = group_classes((x - x[:, None]) ** 2, np.ones(5), 3)
    assert [g.tolist() for g in groups] == [[0, 1], [2, 3], [4]]


def test_stability_is_the_overlap_with_repeats(case):
    _, _, found = case
    same = with_stability(found, [found])
    used = same.table["particles"] > 0
    assert np.allclose(same.table["stability"][used], 1)
    # A repeat in which some of class 1 went to class 2: Jaccard indices by hand, the mean of both repeats.
    number = found.particles.table["rlnClassNumber"].to_numpy(int).copy()
    n_1, n_2 = (number == 1).sum(), (number == 2).sum()
    gone = np.flatnonzero(number == 1)[: n_1 // 4]
    number[gone] = 2
    other = dataclasses.replace(found, particles=found.particles.with_columns(rlnClassNumber=number))
    stability = with_stability(found, [found, other]).table["stability"].to_numpy()
    kept, grown = (n_1 - len(gone)) / n_1, n_2 / (n_2 + len(gone))
    assert stability[:3] == pytest.approx([(1 + kept) / 2, (1 + grown) / 2, 1])


def test_bad_particles_are_named_and_set_aside():
    particles, _ = planted(60, snr=1.0)
    images = particles.images()
    images[3] = np.nan
    images[7] = 2.5
    spoiled = vg.Particles.from_images(images, 6.0, optics=particles.optics)
    with pytest.warns(VerglasWarning, match=r"2 particles set aside \(particle 3: not finite.*particle 7: constant"):
        found = vg.classify2d(spoiled, classes=2, diameter_A=170, max_resolution_A=20, iterations=2)
    assert len(found.particles) == 58
    assert sorted(found.set_aside) == [3, 7]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"classes": 0}, "classes: expected at least 1, got 0"),
        ({"diameter_A": 500.0}, "diameter of at most the box"),
        ({"max_resolution_A": -1.0}, "max_resolution_A: expected more than 0"),
        ({"balance": -1.0}, "balance: expected at least 0"),
        ({"start": "luck"}, "start: expected seeds, random or split, got 'luck'"),
        ({"luck": 1, "step": 2}, r"unknown settings luck, step \(step_deg\?\); known are balance"),
        ({"classes": 40}, "ask for at most half"),
    ],
)
def test_wrong_settings_are_refused(changes, message):
    particles = vg.Particles.from_images(np.random.default_rng(0).standard_normal((10, 16, 16)), 4.0)
    with pytest.raises(InputError, match=message):
        vg.classify2d(particles, **{"classes": 2, "ctf": False, **changes})


def test_the_former_word_for_the_number_of_classes_works_and_says_the_new_one():
    with pytest.warns(VerglasWarning, match="Class2DSettings: n_classes is now called classes"):
        assert Class2DSettings(n_classes=7).classes == 7
    with pytest.warns(VerglasWarning, match="n_classes is now called classes"):
        assert dataclasses.replace(Class2DSettings(), n_classes=7) == Class2DSettings(classes=7)
    particles = vg.Particles.from_images(np.random.default_rng(0).standard_normal((10, 16, 16)), 4.0)
    for by_name, by_place in (({"n_classes": 40}, ()), ({}, (40,)), ({}, (np.int64(40),))):
        with (
            pytest.warns(VerglasWarning, match="classify2d: n_classes is now called classes"),
            pytest.raises(InputError, match="40 classes asked of 10 particles"),
        ):
            vg.classify2d(particles, *by_place, ctf=False, **by_name)


def test_members_of_other_views_are_not_in_the_core(case, monkeypatch):
    """After classification a tenth of the images of each class change places with those of another class."""
    particles, truth, found = case
    images = found.particles.images()
    moved = np.arange(0, len(images), 10)
    images[moved] = images[np.roll(moved, 7)]
    swapped = truth[moved] != truth[np.roll(moved, 7)]
    table = found.particles.table
    changed = vg.Particles.from_images(images, 6.0, optics=found.particles.optics, poses=found.particles.poses)
    changed = changed.with_columns(rlnClassNumber=table["rlnClassNumber"].to_numpy())
    result = dataclasses.replace(found, particles=changed)
    core = class_cores(result, threshold=2.0, diameter_A=170.0, threads=1).table["verglasCore"].to_numpy(int)
    real = found.labels < 4
    wrong = np.isin(np.arange(len(images)), moved[swapped]) & real
    right = real & ~np.isin(np.arange(len(images)), moved)
    assert len(particles) == len(images)
    assert core[right].mean() > 0.8
    assert core[wrong].mean() < 0.75 * core[right].mean()  # purity rises
    assert not core[~real].any()
    monkeypatch.setattr("verglas.classification.cores._BATCH_PIXELS", 7 * particles.box**2)
    again = class_cores(result, threshold=2.0, diameter_A=170.0, threads=1).table["verglasCore"].to_numpy(int)
    assert np.array_equal(again, core)  # however few are read at once
