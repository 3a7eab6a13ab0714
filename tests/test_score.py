"""ops.score: the exhaustive search against float64 references, its invariances, priors and refusals."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import verglas as vg
from verglas import gridding, ops, reference

from devices import host
from score_problem import (
    PIXEL_A,
    Problem,
    blob_map,
    circle,
    clean_images,
    ctf_on_rings,
    disc,
    nonuniform,
    optics_params,
    problems,
    slices_of,
)
from tolerance import SCORE_CLOSED_FORM, SCORE_FLOAT32, SCORE_POLAR_SUM, SCORE_POSTERIOR_MASS


@settings(deadline=None, max_examples=12)
@given(p=problems)
def test_search_equals_the_float64_polar_sum(device, p):
    """Every score, the best pose, the posterior mass of the candidates and the evidence, astigmatic CTF included."""
    p.device = device
    joint = p.joint()
    n_power = p.grid.max_m // 2 + 1
    everything = p.run(p.plan(window_nats=1e6, max_candidates=10**7, n_power=n_power))
    assert len(everything.score) == joint.size
    want = joint[everything.image, everything.slice, everything.opposite * 1, everything.psi, everything.shift]
    scale = max(1.0, float(np.abs(joint - joint.mean()).max()))
    np.testing.assert_allclose(everything.score, want, atol=SCORE_FLOAT32 * scale)
    found = p.run(p.plan(epsilon=1e-3, n_power=n_power))
    flat = joint.reshape(len(joint), -1)
    np.testing.assert_allclose(
        found.log_evidence, reference.score.log_sum_exp(flat, 1), atol=1e-3 + SCORE_FLOAT32 * scale
    )
    best = joint[np.arange(len(joint)), found.best_slice, found.best_opposite * 1, found.best_psi, found.best_shift]
    np.testing.assert_allclose(best, flat.max(axis=1), atol=2 * SCORE_FLOAT32 * scale)
    posterior = reference.score.posterior(joint)
    for i in range(len(joint)):
        mine = slice(*found.offsets[i : i + 2])
        held = posterior[i, found.slice[mine], found.opposite[mine] * 1, found.psi[mine], found.shift[mine]]
        assert held.sum() > 1 - 1e-3 - SCORE_POSTERIOR_MASS
        assert abs(found.probability[mine].sum() - held.sum()) < SCORE_POSTERIOR_MASS
        assert np.abs(found.probability[mine] - held).max() < SCORE_POSTERIOR_MASS


def test_the_reference_transform_equals_finufft():
    volume = blob_map(12, 0)
    k = np.random.default_rng(0).uniform(-5, 5, (7, 30, 3))
    np.testing.assert_allclose(reference.polar.transform_3d(volume, k), nonuniform(volume, k), atol=1e-7)


def cartesian_problem(box, radius, spacing=1.0, seed=0, poses=60):
    """Particles of SNR 0.05 in masked images, 60 poses near and far from the truth: as in the engine's design."""
    rng = np.random.default_rng(seed)
    volume = blob_map(box, seed, blobs=30)
    grid = ops.PolarGrid(box, radius, diameter_px=0.8 * box, spacing=spacing)
    truth = np.array([[40.0, 65.0, 120.0]])
    shift = np.array([[1.5, -2.0]])
    params = optics_params(rng, 1, 600)
    clean = clean_images(volume, truth, shift, params)
    sigma2 = clean.var() / 0.05
    image = (clean + rng.normal(0, np.sqrt(sigma2), clean.shape)) * disc(box, 0.4 * box)
    near = truth + rng.normal(0, 6, (poses // 2, 3))
    far = np.column_stack([rng.uniform(0, 360, (poses // 2)), rng.uniform(0, 180, poses // 2), rng.uniform(0, 360, 30)])
    return volume, grid, np.vstack([near, far]), shift, params, image.astype(np.float32), sigma2 * box**2


@pytest.mark.slow_emulated
@pytest.mark.parametrize(("radius", "spacing"), [(12, 1.0), (24, 1.0), (24, 0.5)])
def test_search_equals_the_cartesian_sum_to_the_polar_accuracy(device, radius, spacing):
    """rms error of L against the exact lattice sum below the stated share of the spread (standard deviation) of L."""
    box, n_psi = 64, 8
    volume, grid, angles, shift, params, image, sigma2 = cartesian_problem(box, radius, spacing)
    inv = np.full((1, box), 1 / sigma2)
    matrices = vg.euler_to_matrix(angles)
    exact = nonuniform(volume, reference.score.plane_of_slices(matrices, box, radius))
    cross, power = reference.score.cartesian_terms(image, exact, shift, inv, radius, params, PIXEL_A)
    want = (cross[..., 0] - power / 2)[0]
    # psi of each pose goes into its slice; the search's own first angle is taken off
    first = ops.psi_angles_deg(n_psi)[0]
    grid3 = ops.Grid(box)
    slices = ops.polar_slices(gridding.to_grid(volume, grid3), grid3, vg.euler_to_matrix(angles - [0, 0, first]), grid)
    plan = ops.ScorePlan(grid, n_psi, n_power=6, window_nats=1e6, device=device)
    plan.set_reference(slices, log_prior=np.column_stack([np.zeros(len(angles)), np.full(len(angles), -np.inf)]))
    log_psi = np.where(np.arange(n_psi) == 0, 0, -np.inf)
    found = plan.run(
        ops.polar(image, grid),
        shift,
        ctf=params,
        pixel_size_A=PIXEL_A,
        inv_sigma2=np.full(grid.n_rings, 1 / sigma2),
        log_psi=log_psi,
    )
    got = np.full(len(angles), np.nan)
    first_angle = found.psi == 0
    got[found.slice[first_angle]] = found.score[first_angle]
    error = got - want
    assert np.sqrt(np.mean(error**2)) < SCORE_POLAR_SUM * want.std()


@pytest.mark.parametrize(("box", "radius"), [(48, 18), (49, 18), (64, 12)])
def test_clean_data_at_the_true_pose_give_the_closed_form(device, box, radius):
    """Absolute scale: L of clean data at the true pose is half the signal's power over the noise, the largest L."""
    volume = blob_map(box, 5)
    grid = ops.PolarGrid(box, radius)
    direction, psi_index, shift = np.array([[25.0, 80.0]]), 11, np.array([[2.0, -1.5]], np.float32)
    n_psi = 48
    params = vg.Optics([12000.0], [11500.0], [20.0]).as_params()
    angles = np.column_stack([direction, ops.psi_angles_deg(n_psi)[[psi_index]]])
    image = clean_images(volume, angles, shift, params)
    sigma2 = 50.0
    kx, ky = reference.score.plane(box, radius)
    closed = np.sum(np.abs(reference.polar.transform_2d(image, kx, ky)) ** 2) / sigma2 / 2
    shifts = np.vstack([shift, [[0, 0]]])
    found = ops.score(
        ops.polar(image, grid),
        slices_of(volume, direction, grid),
        grid,
        shifts,
        n_psi,
        n_power=6,
        ctf=params,
        pixel_size_A=PIXEL_A,
        inv_sigma2=np.full(grid.n_rings, 1 / sigma2),
        log_shift=[0, 0],
        log_psi=np.zeros(n_psi),
        device=device,
    )
    assert (found.best_psi[0], found.best_shift[0]) == (psi_index, 0)
    assert abs(found.best_score[0] / closed - 1) < SCORE_CLOSED_FORM


@pytest.mark.slow_emulated
@settings(deadline=None, max_examples=2)
@example(seed=1, n_shifts=1, noise=0.5)
@example(seed=2, n_shifts=29, noise=5.0)
@given(seed=st.integers(0, 1000), n_shifts=st.sampled_from([3, 16]), noise=st.sampled_from([0.5, 5.0]))
def test_threads_batch_and_order_do_not_change_a_bit(device, seed, n_shifts, noise):
    p = Problem(seed, n=19, n_shifts=n_shifts, radius=6, noise=noise)
    p.device = device
    plan = p.plan()
    whole = p.run(plan, threads=1)

    def same(got, rows):
        for k, i in enumerate(rows):
            a, b = slice(*got.offsets[k : k + 2]), slice(*whole.offsets[i : i + 2])
            assert got.log_evidence[k] == whole.log_evidence[i]
            for name in ("score", "slice", "opposite", "psi", "shift"):
                assert np.array_equal(getattr(got, name)[a], getattr(whole, name)[b])

    same(p.run(plan, threads=3), range(19))
    same(p.run(plan, rows=slice(None, None, -1)), range(18, -1, -1))
    same(p.run(plan, rows=slice(4, 7)), range(4, 7))
    same(p.run(plan, rows=slice(18, 19), threads=2), [18])


def test_priors_weigh_and_exclude(device):
    p = Problem(3, n=4, noise=3.0)
    p.device = device
    rng = np.random.default_rng(0)
    n_slices = len(p.slices)
    log_prior = rng.normal(0, 2, (n_slices, 2))
    log_prior[3] = -np.inf
    log_prior[4, 1] = -np.inf
    log_shift, log_psi = rng.normal(0, 2, len(p.shifts)), rng.normal(0, 2, p.n_psi)
    log_psi[5:9] = -np.inf
    plan = ops.ScorePlan(p.grid, p.n_psi, n_power=8, window_nats=1e4, device=device)
    plan.set_reference(p.slices, log_prior=log_prior)
    found = p.run(plan, log_shift=log_shift, log_psi=log_psi)
    joint = p.joint() + np.log(p.joint()[0].size)
    joint = joint + log_prior[:, :, None, None] + log_psi[:, None] + log_shift
    want = joint[found.image, found.slice, found.opposite * 1, found.psi, found.shift]
    np.testing.assert_allclose(found.score, want, atol=2e-3)
    assert len(found.score) == np.isfinite(joint).sum()
    np.testing.assert_allclose(found.log_evidence, reference.score.log_sum_exp(joint.reshape(4, -1), 1), atol=2e-3)


def test_cell_volumes_enter_the_log_sum_exp(device):
    """A direction cut into three cells of a sixth, a third and a half of its volume is the direction whole."""
    p = Problem(14, n=4, noise=2.0)
    p.device = device
    volume = np.log([1 / 6, 1 / 3, 1 / 2])
    whole, cut = (ops.ScorePlan(p.grid, p.n_psi, n_power=8, epsilon=1e-6, device=device) for _ in range(2))
    flat = np.full((len(p.slices), 2), -np.log(2 * len(p.slices)))
    whole.set_reference(p.slices, log_prior=flat)
    cells = np.concatenate([flat[:3], *(flat[[3]] + v for v in volume), flat[4:]])
    cut.set_reference(np.concatenate([p.slices[:3], p.slices[[3, 3, 3]], p.slices[4:]]), log_prior=cells)
    a, b = p.run(whole), p.run(cut)
    np.testing.assert_allclose(a.log_evidence, b.log_evidence, atol=2e-5)
    for i in range(4):
        mass = [
            f.probability[(f.image == i) & (f.slice >= first) & (f.slice <= last)].sum()
            for f, first, last in ((a, 3, 3), (b, 3, 5))
        ]
        assert abs(mass[0] - mass[1]) < 1e-4
    # and twice the volume is log 2 more evidence where there is nothing else
    whole.set_reference(p.slices[:1], log_prior=[[np.log(2), -np.inf]])
    cut.set_reference(p.slices[:1], log_prior=[[0, -np.inf]])
    np.testing.assert_allclose(p.run(whole).log_evidence - p.run(cut).log_evidence, np.log(2), atol=2e-5)


def test_several_references_share_one_search_and_class_priors_enter(device):
    """References k end to end: the class posterior is the sum over its slices."""
    p = Problem(8, n=3, noise=1.0)
    p.device = device
    other = slices_of(blob_map(24, 99), p.directions, p.grid)
    classes = np.log([0.2, 0.8])
    plan = ops.ScorePlan(p.grid, p.n_psi, n_power=8, device=device)
    log_prior = np.repeat(classes - np.log(2 * len(p.slices)), len(p.slices))
    plan.set_reference(np.concatenate([other, p.slices]), log_prior=np.column_stack([log_prior, log_prior]))
    found = p.run(plan)
    assert (found.best_slice >= len(p.slices)).all()  # images come from the second map
    own = found.probability[found.slice >= len(p.slices)].sum() / len(p.samples)
    assert 0.5 < own <= 1 + 1e-6
    alone = p.run(p.plan())
    assert (found.log_evidence >= alone.log_evidence + classes[1] - 1e-3).all()


def test_correlation_lies_in_one_and_ignores_scale(device):
    p = Problem(9, n=4, noise=0.3)
    p.device = device
    cross, power = reference.score.polar_terms(
        circle(p.samples),
        circle(p.slices),
        p.grid.weights,
        p.grid.radii,
        p.grid.limits,
        p.n_psi,
        p.shifts,
        24,
        p.inv,
        ctf_on_rings(p.params, p.grid),
    )
    norm = np.sum(np.abs(circle(p.samples)) ** 2 * p.grid.weights[:, None] * p.inv[..., None], axis=(1, 2))
    want = cross / np.sqrt(power[..., None] * norm[:, None, None, None])
    found = p.run(p.plan(opposite=False, score="correlation", n_power=p.grid.max_m // 2 + 1))
    np.testing.assert_allclose(found.best_score, want.reshape(4, -1).max(axis=1), atol=2e-4)
    at = np.argmax(want.reshape(4, -1), axis=1)
    assert np.array_equal(
        np.ravel_multi_index((found.best_slice, found.best_psi, found.best_shift), want.shape[1:]), at
    )
    plan = ops.ScorePlan(p.grid, p.n_psi, score="correlation", n_power=p.grid.max_m // 2 + 1, device=device)
    plan.set_reference(7 * p.slices)
    np.testing.assert_allclose(p.run(plan).best_score, found.best_score, rtol=1e-5)
    assert np.isnan(found.log_evidence).all()


def test_one_ring_an_empty_image_and_a_reference_of_zeros(device):
    """Flat posteriors: every pose is a candidate, the evidence is the prior's sum."""
    grid = ops.PolarGrid(17, 1)
    zeros = np.zeros((2, grid.n_rings, grid.n_theta // 2), np.complex64)
    noise = ops.polar(np.random.default_rng(0).standard_normal((2, 17, 17)).astype(np.float32), grid)
    for images, slices in ((noise, zeros), (zeros, zeros)):
        found = ops.score(images, slices, grid, [[0, 0], [1, 0], [0, 1]], 16, epsilon=1e-6, device=device)
        np.testing.assert_allclose(found.log_evidence, 0, atol=1e-5)
        assert np.diff(found.offsets).tolist() == [2 * 16 * 3] * 2
    plan = ops.ScorePlan(grid, 16, score="correlation", device=device)
    plan.set_reference(zeros)
    assert plan.run(noise, [[0, 0]]).best_score.tolist() == [0, 0]


def test_the_number_of_candidates_can_be_capped_and_says_what_it_holds(device):
    p = Problem(5, n=2, noise=20.0)
    p.device = device
    full, capped = p.run(p.plan(epsilon=1e-6)), p.run(p.plan(epsilon=1e-6, max_candidates=50))
    assert np.diff(capped.offsets).tolist() == [50, 50]
    for i in range(2):
        best = full.score[full.offsets[i] :][:50]
        assert np.array_equal(best, capped.score[capped.offsets[i] :][:50])
    assert (capped.kept < full.kept).all()
    np.testing.assert_array_equal(capped.log_evidence, full.log_evidence)


@pytest.mark.parametrize("limit", [1, 700, 1500, 100_000])
def test_lists_cut_on_the_way_hold_the_first_of_the_whole_list(limit):
    """Lists are cut as they grow, and equal scores, here four of each and some at the cut, go by position."""
    p = Problem(5, n=3, noise=20.0)
    p.slices = np.tile(p.slices, (4, 1, 1))
    full, capped = (p.run(p.plan(window_nats=30.0, max_candidates=most)) for most in (10**7, limit))
    assert np.diff(full.offsets).min() > 5000
    for i in range(3):
        whole, cut = slice(*full.offsets[i : i + 2]), slice(*capped.offsets[i : i + 2])
        rows = np.stack([-full.score, 2 * full.slice + full.opposite, full.psi, full.shift])[:, whole]
        assert np.array_equal(np.lexsort(rows[::-1]), np.arange(rows.shape[1]))
        for name in ("score", "slice", "opposite", "psi", "shift"):
            assert np.array_equal(getattr(full, name)[whole][:limit], getattr(capped, name)[cut])
    assert np.array_equal(full.log_evidence, capped.log_evidence)


def test_centres_move_the_search(device):
    p = Problem(7, n=3)
    p.device = device
    centres = np.array([[1.5, 0], [-2, 1], [0, 0]], np.float32)
    plan = p.plan()
    together = p.run(plan, centres_px=centres)
    for i in range(3):
        shifts, p.shifts = p.shifts, p.shifts + centres[i]
        alone = p.run(plan, rows=slice(i, i + 1))
        p.shifts = shifts
        assert alone.log_evidence[0] == pytest.approx(together.log_evidence[i], abs=1e-4)


def test_bad_input_is_named(device):
    p = Problem(1, n=5)
    p.device = device
    plan = p.plan()
    p.samples[3, 0, 0] = np.nan
    with pytest.raises(vg.InputError, match=r"particle 13.*image"):
        p.run(plan, first_particle=10)
    p.samples[3, 0, 0] = 0
    p.params[2, 0] = np.inf
    with pytest.raises(vg.InputError, match=r"particle 2.*CTF"):
        p.run(plan)
    p.params[2, 0] = 1e4
    with pytest.raises(vg.InputError, match="particle 0: no pose"):
        p.run(plan, log_shift=np.full(len(p.shifts), -np.inf))
    with pytest.raises(ValueError, match=r"inv_sigma2|broadcast"):
        plan.run(p.samples, p.shifts, inv_sigma2=np.ones((5, 2)))
    with pytest.raises(ValueError, match="n_psi"):
        ops.ScorePlan(p.grid, 20, device=device)
    with pytest.raises(ValueError, match="epsilon"):
        ops.ScorePlan(p.grid, 16, epsilon=0, device=device)
    with pytest.raises(vg.InputError, match="likelihood"):
        ops.ScorePlan(p.grid, 16, score="cc", device=device)
    with pytest.raises(ValueError, match="no reference"):
        ops.ScorePlan(p.grid, 16, device=device).run(p.samples, p.shifts)
    with pytest.raises(vg.InputError, match="slice 1 "):
        plan.set_reference(np.where(np.arange(12)[:, None, None] == 1, np.nan, p.slices))


@settings(deadline=None, max_examples=15)
@given(p=problems, seed=st.integers(0, 100))
def test_chosen_cells_have_the_scores_of_the_exhaustive_search(device, p, seed):
    rng = np.random.default_rng(seed)
    n = len(p.samples)
    joint = p.joint() + np.log(p.joint()[0].size)
    counts, n_shifts = rng.integers(0, 30, n), rng.integers(1, len(p.shifts) + 1, n)
    total = counts.sum()
    entry = np.sort(rng.integers(0, 2 * len(p.slices), total))
    psi = rng.integers(0, p.n_psi, total).astype(np.int32)
    chosen = [rng.choice(len(p.shifts), k, replace=False) for k in n_shifts]
    tasks = ops.CellTasks(
        np.append(0, np.cumsum(counts)),
        entry // 2,
        entry % 2 == 1,
        psi,
        np.append(0, np.cumsum(n_shifts)),
        p.shifts[np.concatenate(chosen)],
    )
    more = {
        "ctf": p.params,
        "pixel_size_A": PIXEL_A,
        "inv_sigma2": p.inv,
        "n_power": p.grid.max_m // 2 + 1,
        "device": device,
    }
    got = host(ops.score_cells(p.samples, p.slices, p.grid, p.n_psi, tasks, **more))
    want = [
        joint[i, entry[t] // 2, entry[t] % 2, psi[t], s]
        for i in range(n)
        for t in range(tasks.offsets[i], tasks.offsets[i + 1])
        for s in chosen[i]
    ]
    scale = max(1.0, float(np.abs(joint).max()))
    np.testing.assert_allclose(got, want, atol=SCORE_FLOAT32 * scale)
    again = ops.score_cells(p.samples, p.slices, p.grid, p.n_psi, tasks, threads=1, **more)
    assert np.array_equal(got, host(again))


def test_cells_out_of_range_are_refused(device):
    p = Problem(1, n=1)
    for slice_index, psi in ((99, 0), (0, 24), (-1, 0)):
        tasks = ops.CellTasks([0, 1], [slice_index], [False], [psi], [0, 1], [[0, 0]])
        with pytest.raises(ValueError, match="expected 0 to"):
            ops.score_cells(p.samples, p.slices, p.grid, 24, tasks, device=device)
    bad = p.samples.copy()
    bad[0, 2, 3] = np.nan
    with pytest.raises(vg.InputError, match="image 0"):
        ops.score_cells(
            bad, p.slices, p.grid, 24, ops.CellTasks([0, 1], [0], [False], [0], [0, 1], [[0, 0]]), device=device
        )
