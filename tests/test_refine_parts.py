"""The pieces of a refinement: candidates, half sets, the update of maps, the loop on small problems."""

from __future__ import annotations

import weakref
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

import verglas as vg
from verglas import ops
from verglas.assessment import ssnr_from_fsc
from verglas.reconstruction import direct
from verglas.reconstruction.accumulate import direct_grid
from verglas.reconstruction.packed_sums import PackedSums
from verglas.refinement import schedule, start
from verglas.refinement.em import initial_state, iterate, refine_state, reseed_empty_classes
from verglas.refinement.settings import RefineSettings
from verglas.refinement.update import MapUpdate, class_maps, half_fsc, join_halves, resolution_shell, solve
from verglas.run.refine_memory import plan_memory
from verglas.search.candidates import Candidates, angle_between_deg, posterior, select_distinct, select_within
from verglas.search.grid_step import DirectionGrid, GridStep
from verglas.search.half_pass import HalfTask
from verglas.search.problem import survey

BOX, PIXEL_A, DIAMETER_A = 32, 4.0, 90.0


def particle_set(n: int = 80, *, symmetry: str = "C1", snr: float = 0.5, seed: int = 1) -> tuple[vg.Particles, vg.Map]:
    model = vg.simulate.phantom(BOX, PIXEL_A, DIAMETER_A, symmetry)
    particles = vg.simulate.particles(model, n, BOX, PIXEL_A, snr=snr, seed=seed)
    return particles, vg.simulate.density(model, BOX, PIXEL_A)


def problem_of(particles: vg.Particles, **settings):
    chosen = RefineSettings(diameter_A=DIAMETER_A, initial_resolution_A=25.0, **settings)
    found = survey(particles)
    return start.make_problem(particles, found.excluded, chosen, n_classes=chosen.classes), found.power


@pytest.fixture(scope="module")
def small():
    particles, truth = particle_set()
    problem, power = problem_of(particles)
    return problem, power, truth


# -- candidates --------------------------------------------------------------------------------------------------------


def some_candidates(seed: int, n: int = 5, m: int = 40) -> Candidates:
    rng = np.random.default_rng(seed)
    image = np.sort(np.concatenate([np.arange(n), rng.integers(0, n, m)]))
    matrices = Rotation.random(len(image), random_state=seed).as_matrix()
    return Candidates(
        image, matrices, rng.normal(size=(len(image), 2)), rng.integers(0, 2, len(image)), rng.normal(size=len(image))
    )


@given(seed=st.integers(0, 20), group=st.sampled_from(["C4", "D2", "T", "O", "I1"]))
def test_copies_of_one_pose_under_the_group_are_one_candidate(seed, group):
    rng = np.random.default_rng(seed)
    copies = vg.symmetry_matrices(group)
    true = Rotation.random(random_state=seed).as_matrix()
    other = Rotation.from_euler("x", 10, degrees=True).as_matrix() @ true  # nearer than any axes of a group
    matrices = np.stack([true, true @ copies[rng.integers(1, len(copies))], other])
    score = np.array([50.0, 50.0, 47.0])
    found = Candidates(np.zeros(3, int), matrices, np.zeros((3, 2)), np.zeros(3, int), score)
    apart = found[select_distinct(found, 4, 3.0)]
    alone = found[select_distinct(found, 4, 3.0, copies)]
    assert posterior(apart, 1)[0].max() < 0.5  # half for each of two names of one pose
    assert posterior(alone, 1)[0].tolist() == pytest.approx([1 / (1 + np.exp(-3.0)), 1 / (1 + np.exp(3.0))])


@given(seed=st.integers(0, 50), count=st.integers(1, 6), apart=st.floats(5, 170))
def test_distinct_keeps_the_best_and_nothing_near_it(seed, count, apart):
    all_of_them = some_candidates(seed)
    kept = all_of_them[select_distinct(all_of_them, count, apart)]
    for image in range(5):
        mine, given_ = kept[kept.image == image], all_of_them[all_of_them.image == image]
        assert 1 <= len(mine) <= count
        assert mine.score[0] == given_.score.max()
        assert np.all(np.diff(mine.score) <= 0)
        for i in range(len(mine)):
            for j in range(i):
                far = angle_between_deg(mine.matrices[[i]], mine.matrices[[j]])[0] >= apart
                assert far or mine.class_number[i] != mine.class_number[j]
        if len(mine) < count:  # whatever was left out is near one that was kept
            for c in range(len(given_)):
                near = angle_between_deg(mine.matrices, np.repeat(given_.matrices[[c]], len(mine), 0)) < apart
                assert np.any(near & (mine.class_number == given_.class_number[c])) or np.any(
                    np.isclose(mine.score, given_.score[c])
                )


@given(seed=st.integers(0, 50), count=st.integers(1, 6), nats=st.floats(0, 3))
def test_within(seed, count, nats):
    c = some_candidates(seed)
    kept = select_within(c, count, nats)
    for image in range(5):
        scores = np.sort(c.score[c.image == image])[::-1]
        want = scores[:count][scores[:count] >= scores[0] - nats]
        assert np.allclose(np.sort(c.score[kept][c.image[kept] == image])[::-1], want)


def test_posterior_sums_to_one():
    c = some_candidates(3)
    weight, evidence = posterior(c, 5)
    assert np.allclose(np.bincount(c.image, weight), 1)
    for image in range(5):
        assert evidence[image] == pytest.approx(np.log(np.exp(c.score[c.image == image]).sum()))


def test_never_underflows():
    c = replace_score(some_candidates(3), -1e5)
    weight, evidence = posterior(c, 5)
    assert np.isfinite(evidence).all()
    assert np.allclose(np.bincount(c.image, weight), 1)


def replace_score(c: Candidates, by: float) -> Candidates:
    return Candidates(c.image, c.matrices, c.origin_px, c.class_number, c.score + by)


# -- directions, half sets, memory -------------------------------------------------------------------------------------


@pytest.mark.parametrize("symmetry", ["C1", "D2", "O"])
def test_direction_priors_sum_to_one(symmetry):
    grid = DirectionGrid(2, symmetry)
    assert np.exp(grid.log_prior).sum() == pytest.approx(1)
    assert len(grid.matrices) == len(grid)


def test_halves_are_balanced_within_micrographs_and_follow_the_seed():
    particles, _ = particle_set(60)
    particles = particles.with_columns(rlnMicrographName=np.repeat(["a", "b", "c"], 20), rlnRandomSubset=None)
    halves = [problem_of(particles, seed=seed)[0].half for seed in (0, 0, 1)]
    assert np.array_equal(halves[0], halves[1])
    assert not np.array_equal(halves[0], halves[2])
    assert all(np.sum(halves[0][i : i + 20] == 1) == 10 for i in (0, 20, 40))
    given_ = particles.with_columns(rlnRandomSubset=1 + np.arange(60) // 30)
    assert np.array_equal(problem_of(given_)[0].half, 1 + np.arange(60) // 30)


def test_memory_plan_counts_the_images_of_credible_radii(small):
    problem = small[0]
    few, many = (
        plan_memory(replace(problem, batch=n), 100.0, cached=False).phases_GB["credible radii"] for n in (8, 512)
    )
    more_images = min(64, len(problem) // 2) - 8  # no more than 64 at a time, nor than a half set has
    each = 60 * problem.box**2 + 70 * 4096  # bytes of a pixel, as in every phase, and of a pose in a list
    assert many - few == pytest.approx(more_images * each / 1e9)


def test_memory_plan_adapts_the_batch_and_refuses_what_cannot_be(small):
    problem = small[0]
    plenty = plan_memory(problem, 100.0, cached=False)
    assert plenty.batch == problem.batch
    tight = plan_memory(
        problem,
        0.5 * (plan_memory(replace(problem, batch=8), 100, cached=False).peak_GB + plenty.peak_GB),
        cached=False,
    )
    assert tight.batch < plenty.batch
    assert tight.peak_GB <= tight.limit_GB
    with pytest.raises(vg.InputError, match="allow more"):
        plan_memory(problem, 0.01, cached=False)


# -- the update --------------------------------------------------------------------------------------------------------


def filled_sums(problem, seed: int, radius: int):
    """Sums of images at random poses: the weights are nearly isotropic."""
    rng = np.random.default_rng(seed)
    sums = ops.GridSums.zeros(direct_grid(BOX, radius))
    images = vg.fourier.forward(rng.normal(size=(400, BOX, BOX)).astype(np.float32), 2)
    ops.insert(sums, images, Rotation.random(400, random_state=seed).as_matrix())
    return sums


def expected_gain(sums, shell: int, ssnr: float) -> float:
    """Of noise of power 1 / w at the points of a shell, w / (w + c) with c = <w> / SSNR: below SSNR / (1 + SSNR)."""
    grid = sums.grid
    mine = direct.grid_shells(grid, slice(0, grid.shape[0]))[:, :, grid.halo :] == shell
    weights = np.asarray(sums.weights, np.float64)[:, :, grid.halo :][mine]
    weights = weights[weights > 0]
    return float((1 / (weights + weights.mean() / ssnr)).sum() / (1 / weights).sum())


def test_update_is_the_wiener_filter_of_each_shell(small):
    """num / (den + 1 / tau^2) with tau^2 <den> = SSNR: by shells the gain that the spread of weights leaves."""
    problem, radius = small[0], 12
    sums = filled_sums(problem, 0, radius)
    ops.fold(sums)
    ssnr = np.linspace(8, 0.5, radius + 1)
    plain, filtered = solve(problem, sums, None, radius), solve(problem, sums, ssnr, radius)
    spectra = [vg.fourier.forward(v, 3) for v in (plain, filtered)]
    shells = vg.fourier.shells((BOX,) * 3)
    for s in range(2, radius - 1):
        a, b = (x[shells == s] for x in spectra)
        factor = np.vdot(a, b).real / np.vdot(a, a).real
        # Shells 2 to 4 hold a few hundred points of the grid, between which the voxels interpolate.
        assert factor == pytest.approx(expected_gain(sums, s, ssnr[s]), abs=0.04 if s < 5 else 0.02)


def test_max_cc_has_the_same_constant_everywhere(small):
    problem, radius = small[0], 12
    problem = replace(problem, settings=replace(problem.settings, mode="max-cc", wiener_k=0.25))
    sums = filled_sums(problem, 0, radius)
    ops.fold(sums)
    plain, filtered = (solve(problem, sums, v, radius) for v in (None, np.ones(radius + 1)))
    a, b = (vg.fourier.forward(v, 3) for v in (plain, filtered))
    inside = vg.fourier.shells((BOX,) * 3) < radius - 1
    assert np.vdot(a[inside], b[inside]).real / np.vdot(a[inside], a[inside]).real == pytest.approx(0.8, abs=0.03)


def test_regularisation_follows_the_fsc_and_T(small):
    problem, radius = small[0], 12
    made = [
        class_maps(
            problem,
            [filled_sums(problem, 1, radius), filled_sums(problem, 1, radius)],
            MapUpdate(radius, T=t, joint=True),
        )
        for t in (1.0, 4.0)
    ]
    assert made[0].joint is not None
    # identical halves: FSC 1, no filter
    assert np.allclose(made[0].unmasked[1:radius], 1)
    raw, filtered = (vg.fourier.forward(v * problem.sphere, 3) for v in (made[0].raw[0], made[0].halves[0]))
    inside = vg.fourier.shells((BOX,) * 3) < radius - 2
    assert np.linalg.norm((raw - filtered)[inside]) < 0.02 * np.linalg.norm(raw[inside])
    noise = class_maps(
        problem,
        [filled_sums(problem, 1, radius), filled_sums(problem, 2, radius)],
        MapUpdate(radius, T=1.0, joint=False),
    )
    assert np.abs(noise.unmasked[4:radius]).max() < 0.3
    assert noise.halves[0].std() < 0.5 * noise.raw[0].std()
    assert float(ssnr_from_fsc(0.5)) == 1


@pytest.mark.parametrize("empty", [(0,), (0, 1)])
def test_class_without_particles_in_a_half_has_no_map_and_stops_nothing(small, empty):
    problem, radius = small[0], 12
    sums = [filled_sums(problem, 1, radius), filled_sums(problem, 2, radius)]
    for half in empty:
        sums[half] = ops.GridSums.zeros(direct_grid(BOX, radius))
    made = class_maps(problem, sums, MapUpdate(radius, T=1.0, joint=True))
    assert not made.raw[0].any()
    np.testing.assert_array_equal(made.masked, 0)  # and no NaN
    assert np.isfinite(made.halves).all()
    assert made.joint is not None
    assert np.isfinite(made.joint).all()


def test_joined_halves_share_only_the_low_frequencies(small):
    problem = small[0]
    halves = np.random.default_rng(0).normal(size=(2, BOX, BOX, BOX)).astype(np.float32)
    after = join_halves(problem, halves)
    before, spectra = (np.stack([vg.fourier.forward(v, 3) for v in x]) for x in (halves, after))
    shells = vg.fourier.shells((BOX,) * 3)
    join = problem.shell_of(problem.settings.join_resolution_A)
    low, high = shells <= join - 2, shells >= join + 2
    assert np.abs(spectra[0][low] - spectra[1][low]).max() < 1e-3 * np.abs(before[:, low]).max()
    assert np.abs(spectra[:, high] - before[:, high]).max() < 1e-3 * np.abs(before[:, high]).max()


# -- iterations --------------------------------------------------------------------------------------------------------


def test_likelihood_never_falls_at_fixed_resolution_and_noise(small):
    """EM with a flat prior: the log-likelihood of the half set rises, up to the interpolation error."""
    problem, power, truth = small
    state, _ = initial_state(problem, power, [truth])
    step = replace(schedule.first_step(problem), insert_radius=schedule.first_step(problem).radius)
    model, poses, rows = state.halves[0], state.poses, problem.rows_of_half(1)
    found = []
    for _ in range(5):
        sums = GridStep(problem, model, problem.sphere, step).run(1, poses, lambda n: None).grids
        found.append(poses.log_evidence[rows].sum())
        ops.fold(sums[0])
        model.volumes = solve(problem, sums[0], np.full(step.insert_radius + 1, 1e3), step.insert_radius)[None]
        poses.origin_px[:] = 0  # the grid stays where it is
    assert np.all(np.diff(found) > -1e-3 * abs(found[-1]))
    assert found[-1] > found[0]


def test_maps_of_an_iteration_are_gone_while_the_next_makes_its_sums(small):
    problem, power, truth = small
    problem = replace(problem, settings=replace(problem.settings, iterations=2))
    state, _ = initial_state(problem, power, [truth])
    made, held = [], []

    def after(state, iteration, following):
        made.append(weakref.ref(iteration.maps[0].raw))

    def progress(phase, done, total):
        held.extend(raw() is not None for raw in made)

    refine_state(problem, state, schedule.first_step(problem), progress=progress, after=after)
    assert len(made) >= 2
    assert held
    assert not any(held)


def test_sums_of_a_half_set_are_packed_and_those_of_its_whole_grid(small):
    problem, power, truth = small
    state, _ = initial_state(problem, power, [truth])
    step = schedule.first_step(problem)
    whole = GridStep(problem, state.halves[0], problem.sphere, step).run(1, state.poses.copy(), lambda n: None).grids
    task = HalfTask(problem, state.halves[0], problem.sphere, step, 1)
    (sums,) = task.run(state.poses.copy(), lambda n: None).grids
    assert isinstance(sums, PackedSums)
    assert np.array_equal(sums.unpack().values, whole[0].values)
    assert np.array_equal(sums.unpack().weights, whole[0].weights)


@pytest.mark.parametrize("phase", ["grid", "global", "local"])
def test_results_depend_on_neither_threads_nor_batches(small, phase):
    problem, power, truth = small
    state, _ = initial_state(problem, power, [truth])
    step = schedule.make_step(problem, "grid", 5, 3, 2.0)
    state, _ = iterate(problem, state, step)
    step = replace(schedule.make_step(problem, phase, 8, 3, 2.0))
    made = []
    for threads, batch in ((1, 80), (2, 80), (2, 11)):
        chosen = replace(problem, threads=threads, batch=batch)
        made.append(iterate(chosen, state, step))
    for new, iteration in made[1:]:
        assert np.array_equal(iteration.maps[0].raw, made[0][1].maps[0].raw)
        assert np.array_equal(new.poses.angles_deg, made[0][0].poses.angles_deg)
        assert np.array_equal(new.halves[0].sigma2, made[0][0].halves[0].sigma2)


@pytest.mark.parametrize("phase", ["grid", "global"])
def test_a_half_never_sees_the_other(small, phase):
    problem, power, truth = small
    state, _ = initial_state(problem, power, [truth])
    images = problem.particles.images()
    images[problem.half == 2] = np.random.default_rng(0).normal(size=(np.sum(problem.half == 2), BOX, BOX))
    other = replace(problem, particles=problem.particles.with_source(vg.ArraySource(images, PIXEL_A)))
    step = schedule.make_step(problem, phase, 6, 3, 2.0)
    (one, first), (two, second) = (iterate(p, state, step) for p in (problem, other))
    assert np.array_equal(first.maps[0].raw[0], second.maps[0].raw[0])
    assert not np.array_equal(first.maps[0].raw[1], second.maps[0].raw[1])
    assert np.array_equal(one.halves[0].sigma2, two.halves[0].sigma2)
    mine = problem.half == 1
    assert np.array_equal(one.poses.angles_deg[mine], two.poses.angles_deg[mine])


def test_an_empty_class_starts_again_in_both_halves_alike(small):
    particles, truth = particle_set()
    problem, power = problem_of(particles, classes=2)
    state, _ = initial_state(problem, power, [truth])
    for half in state.halves:
        half.class_weight = np.array([0.999, 0.001])
    notes = reseed_empty_classes(problem, state)
    assert [note.code for note in notes] == ["empty_class"]
    assert "class 2 was empty" in notes[0].sentence
    assert notes[0].numbers == {"class": 2, "from_class": 1}
    for half in state.halves:
        assert half.class_weight[1] == pytest.approx(0.4995)
    changes = [half.volumes[1] - half.volumes[0] for half in state.halves]
    assert np.allclose(changes[0], changes[1], atol=1e-6 * np.abs(changes[0]).max())
    assert np.abs(changes[0]).max() > 0


def test_noise_spectra_of_white_noise_come_back(small):
    """White noise of variance v has E|X|^2 = v N^2 in every shell."""
    problem, power, truth = small
    state, _ = initial_state(problem, power, [truth])
    for phase in ("grid", "global", "local"):
        state, _ = iterate(problem, state, schedule.make_step(problem, phase, 8, 3, 2.0))
    corner = np.stack([problem.particles.images()[:, :3, :3], problem.particles.images()[:, -3:, -3:]])
    expected = corner.var() * BOX**2
    assert np.all(np.abs(state.halves[0].sigma2[0, 9:] / expected - 1) < 0.2)


def test_a_mask_that_cannot_be_vouched_for_gives_no_resolution(small):
    """A hard mask along the density makes noise agree: the curve is then no more than that of the sphere."""
    problem, _, truth = small
    signal = vg.filters.apply(truth, vg.filters.b_factor(1500.0)).data
    rng = np.random.default_rng(0)
    halves = np.stack([signal + 0.5 * signal.std() * rng.normal(size=signal.shape) for _ in range(2)])
    halves = halves.astype(np.float32)
    sphere = half_fsc(problem, halves, None)[1]
    tight = (signal > np.quantile(signal, 0.98)).astype(np.float32)
    wide = vg.masks.soft_edge(signal > np.quantile(signal, 0.7), 4.0)
    last = problem.last_radius
    assert (half_fsc(problem, halves, tight)[1] <= sphere + 1e-12).all()
    assert resolution_shell(half_fsc(problem, halves, wide)[1], last) > resolution_shell(sphere, last)
