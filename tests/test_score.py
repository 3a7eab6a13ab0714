"""ops.score: the exhaustive search against float64 references, its invariances, priors and refusals."""

from __future__ import annotations

import itertools

import finufft
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

import verglas as vg
from verglas import fourier, geometry, gridding, ops, reference

from devices import host, on
from tolerance import SCORE_CLOSED_FORM, SCORE_FLOAT32, SCORE_POLAR_SUM, SCORE_POSTERIOR_MASS

PIXEL_A = 2.0


def blob_map(box, seed, blobs=10, spread=0.13):
    """A few Gaussian blobs inside 0.8 of the box, as a masked particle is."""
    rng = np.random.default_rng(seed)
    z, y, x = np.indices((box,) * 3) - box // 2
    centres = np.clip(rng.normal(0, spread * box, (blobs, 3)), -0.3 * box, 0.3 * box)
    return sum(np.exp(-((x - a) ** 2 + (y - b) ** 2 + (z - c) ** 2) / 3.0) for a, b, c in centres).astype(np.float32)


def disc(box, radius):
    y, x = np.indices((box, box)) - box // 2
    return np.hypot(x, y) < radius


def clean_images(volume, angles_deg, shifts_px, params=None):
    """Projections whose origin is ``shifts_px``: the particle sits at minus it."""
    grid = ops.Grid(len(volume))
    c = None if params is None else ops.ctf(params, len(volume), PIXEL_A)
    slices = ops.project(
        gridding.to_grid(volume, grid), grid, vg.euler_to_matrix(angles_deg), shifts_px=-np.asarray(shifts_px), ctf=c
    )
    return fourier.inverse(slices, volume.shape[1:])


def slices_of(volume, directions_deg, grid, psi=0.0):
    grid3 = ops.Grid(len(volume))
    angles = np.column_stack([directions_deg, np.full(len(directions_deg), psi)])
    return ops.polar_slices(gridding.to_grid(volume, grid3), grid3, vg.euler_to_matrix(angles), grid)


def opposite_of(directions_deg):
    return np.column_stack([directions_deg[:, 0] + 180, 180 - directions_deg[:, 1]])


def circle(half):
    return np.concatenate([half, half.conj()], axis=-1).astype(complex)


def optics_params(rng, n, astigmatism=1500):
    u = rng.uniform(8e3, 2e4, n)
    return vg.Optics(u, u + rng.uniform(-astigmatism, astigmatism, n), rng.uniform(0, 180, n)).as_params()


def ctf_on_rings(params, grid):
    kx, ky = (k / (grid.box * PIXEL_A) for k in reference.polar.points(grid.radii, grid.n_theta))
    return np.array([reference.ctf.ctf_at(row, kx, ky) for row in params])


def reference_joint(samples, slices, grid, n_psi, shifts, inv, params=None):
    """L (n, slices, psi, shifts) in float64 from the same samples."""
    c = None if params is None else ctf_on_rings(params, grid)
    cross, power = reference.score.polar_terms(
        circle(samples), circle(slices), grid.weights, grid.radii, grid.limits, n_psi, shifts, grid.box, inv, c
    )
    return cross - power[..., None] / 2


class Problem:
    """Noisy images of a small map, everything the search needs; plans are made on ``device``."""

    device = "cpu"

    def __init__(self, seed, box=24, radius=9, n=3, n_shifts=5, spacing=1.0, order=0, noise=1.0):
        rng = np.random.default_rng(seed)
        self.volume = blob_map(box, seed)
        self.grid = ops.PolarGrid(box, radius, diameter_px=0.8 * box, spacing=spacing)
        self.directions = geometry.healpix_directions(order)
        self.slices = slices_of(self.volume, self.directions, self.grid)
        self.params = optics_params(rng, n)
        self.shifts = rng.uniform(-3, 3, (n_shifts, 2)).astype(np.float32)
        angles = np.column_stack([rng.uniform(-180, 180, n), rng.uniform(0, 180, n), rng.uniform(-180, 180, n)])
        clean = clean_images(self.volume, angles, self.shifts[rng.integers(0, n_shifts, n)], self.params)
        images = (clean + noise * rng.standard_normal(clean.shape)) * disc(box, 0.4 * box)
        self.samples = ops.polar(images.astype(np.float32), self.grid)
        # Every image with a noise spectrum of its own, as groups have.
        coloured = rng.uniform(0.5, 2, (n, self.grid.n_rings)) / (noise * box) ** 2
        self.inv = coloured.astype(np.float32)
        self.n_psi = 24

    def run(self, plan=None, rows=slice(None), **more):
        plan = plan or self.plan()
        return plan.run(
            self.samples[rows], self.shifts, ctf=self.params[rows], pixel_size_A=PIXEL_A, inv_sigma2=self.inv[rows],
            **more,
        )  # fmt: skip

    def plan(self, opposite=True, **settings):
        plan = ops.ScorePlan(self.grid, self.n_psi, **{"n_power": 8, "device": self.device, **settings})
        plan.set_reference(self.slices, opposite=opposite)
        return plan

    def joint(self):
        """(n, slices, opposite, psi, shifts) log-likelihood plus uniform log prior, float64."""
        sides = [
            reference_joint(self.samples, s, self.grid, self.n_psi, self.shifts, self.inv, self.params)
            for s in (self.slices, circle(self.slices)[..., -np.arange(self.grid.n_theta) % self.grid.n_theta][
                ..., : self.grid.n_theta // 2])
        ]  # fmt: skip
        joint = np.stack(sides, axis=2)
        return joint - np.log(joint[0].size)


problems = st.builds(
    Problem, seed=st.integers(0, 10_000), box=st.integers(15, 28), radius=st.integers(1, 7), n=st.integers(1, 5),
    n_shifts=st.integers(1, 20), spacing=st.sampled_from([1.0, 0.5]), noise=st.sampled_from([0.5, 2.0, 10.0]),
)  # fmt: skip


@settings(deadline=None, max_examples=25)
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


def nonuniform(volume, k):
    """Transform of a map at any points, by finufft."""
    z, y, x = np.moveaxis(2 * np.pi * k[..., ::-1] / len(volume), -1, 0)
    points = [np.ascontiguousarray(c.ravel()) for c in (z, y, x)]
    return finufft.nufft3d2(*points, volume.astype(complex), isign=-1, eps=1e-10).reshape(k.shape[:-1])


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
        ops.polar(image, grid), shift, ctf=params, pixel_size_A=PIXEL_A,
        inv_sigma2=np.full(grid.n_rings, 1 / sigma2), log_psi=log_psi,
    )  # fmt: skip
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
        ops.polar(image, grid), slices_of(volume, direction, grid), grid, shifts, n_psi, n_power=6, ctf=params,
        pixel_size_A=PIXEL_A, inv_sigma2=np.full(grid.n_rings, 1 / sigma2), log_shift=[0, 0], log_psi=np.zeros(n_psi),
        device=device,
    )  # fmt: skip
    assert (found.best_psi[0], found.best_shift[0]) == (psi_index, 0)
    assert abs(found.best_score[0] / closed - 1) < SCORE_CLOSED_FORM


@settings(deadline=None, max_examples=8)
@given(seed=st.integers(0, 1000), n_shifts=st.sampled_from([1, 3, 16, 29]), noise=st.sampled_from([0.5, 5.0]))
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


def test_A10_3_squared_difference_correlation_and_power_are_one_identity(device):
    """Row A10.3: |X - R|^2 = |X|^2 - 2 X.R + |R|^2, here with the kernel's X.R - |R|^2 / 2, to 1e-5."""
    grid = ops.PolarGrid(32, 12)
    rng = np.random.default_rng(0)
    x = ops.polar(rng.standard_normal((2, 32, 32)).astype(np.float32), grid)
    r = ops.polar(rng.standard_normal((3, 32, 32)).astype(np.float32), grid)
    n_psi, shifts = 16, [[0.0, 0.0]]
    everything = {"log_psi": np.zeros(n_psi), "log_shift": [0.0]}
    plan = ops.ScorePlan(grid, n_psi, n_power=grid.max_m // 2 + 1, window_nats=1e9, device=device)
    plan.set_reference(r, log_prior=np.column_stack([np.zeros(3), np.full(3, -np.inf)]))
    found = plan.run(x, shifts, **everything)
    m = np.fft.fftfreq(grid.n_theta, 1 / grid.n_theta)
    psi = np.deg2rad(ops.psi_angles_deg(n_psi))
    series = np.fft.fft(circle(r)) * (np.abs(m) <= grid.limits[:, None])
    turned = np.fft.ifft(series[:, None] * np.exp(1j * psi[:, None, None] * m))
    w = grid.weights[:, None]
    difference = np.sum(np.abs(circle(x)[:, None, None] - turned) ** 2 * w, axis=(-1, -2))
    images = np.sum(np.abs(circle(x)) ** 2 * w, axis=(-1, -2))
    # the harmonics dropped from the slice carry power; both sides keep the same ones
    kept = np.sum(np.abs(turned) ** 2 * w, axis=(-1, -2))
    whole = np.sum(np.abs(circle(r)) ** 2 * w, axis=(-1, -2))[:, None]
    want = -0.5 * (difference - images[:, None, None]) + 0.5 * (kept - whole)
    got = np.zeros_like(want)
    got[found.image, found.slice, found.psi] = found.score
    np.testing.assert_allclose(got, want, atol=2e-5 * images.max())


def test_A10_4_gaussian_likelihood_equals_scipy_and_never_underflows(device):
    """Row A10.4: the log density against scipy; differences of L are differences of it; far tails stay finite."""
    rng = np.random.default_rng(2)
    x, mean = rng.standard_normal((2, 20, 20))
    want = stats.norm.logpdf(x, mean, np.sqrt(1.7)).sum()
    assert abs(reference.score.gaussian_log_density(x, mean, 1.7) / want - 1) < 1e-6
    box, radius, sigma2 = 20, 9, 1.7
    kx, ky = reference.score.plane(box, radius)
    inside = np.zeros((box, box), bool)
    inside[ky.astype(int) % box, kx.astype(int) % box] = True
    volume = blob_map(box, 1)
    k = np.fft.fftfreq(box, 1 / box)
    matrices = vg.euler_to_matrix([[10, 20, 30], [50, 100, 200]])
    cross, power = reference.score.cartesian_terms(
        x[None], nonuniform(volume, reference.score.plane_of_slices(matrices, box, radius)), [[0, 0]],
        np.full((1, 20), 1 / (sigma2 * box**2)), radius,
    )  # fmt: skip
    likelihood = (cross[..., 0] - power / 2)[0]
    y2, x2 = np.meshgrid(k, k, indexing="ij")
    density = []
    for matrix in matrices:
        # band-limited projection and image in real space
        f = nonuniform(volume, x2[..., None] * matrix[0] + y2[..., None] * matrix[1]) * inside
        projection = np.fft.fftshift(np.fft.ifft2(f).real)
        limited = np.fft.ifft2(np.fft.fft2(x) * inside).real
        density.append(reference.score.gaussian_log_density(limited, projection, sigma2))
    assert abs((density[0] - density[1]) / (likelihood[0] - likelihood[1]) - 1) < 1e-6
    # a particle 10^4 sigma away: L near -1e7, its log-sum-exp finite
    grid = ops.PolarGrid(box, 7)
    found = ops.score(
        ops.polar(1e3 * x[None], grid), ops.polar(1e3 * mean[None], grid), grid, [[0, 0]], 16,
        inv_sigma2=np.full(grid.n_rings, 1.0), device=device,
    )  # fmt: skip
    assert np.isfinite(found.log_evidence).all()
    assert found.log_evidence[0] < -1e6 or found.log_evidence[0] > 1e6


def test_A10_5_marginal_likelihood_converges_with_the_step_and_ignores_the_gauge(device):
    """Row A10.5: quadrature over psi converges; turning every slice in its plane changes nothing."""
    p = Problem(12, n=4, noise=4.0, radius=8)
    p.device = device
    evidence = {}
    for n_psi in (16, 32, 64, 128):
        plan = ops.ScorePlan(p.grid, n_psi, n_power=8, device=device)
        plan.set_reference(p.slices)
        evidence[n_psi] = p.run(plan).log_evidence
    steps = [np.abs(evidence[a] - evidence[128]).max() for a in (16, 32, 64)]
    assert steps[2] < 2e-3
    assert steps[0] >= steps[2]
    plan = ops.ScorePlan(p.grid, 128, n_power=8, device=device)
    plan.set_reference(slices_of(p.volume, p.directions, p.grid, psi=17.3))
    np.testing.assert_allclose(p.run(plan).log_evidence, evidence[128], atol=5e-3)


def test_A10_6_posterior_sums_to_one_and_sharpens_with_signal(device):
    """Row A10.6: probabilities of all poses sum to 1; their entropy falls as the noise falls."""
    entropy = []
    for noise in (20.0, 5.0, 1.0, 0.3):
        p = Problem(4, n=3, noise=noise)
        p.device = device
        found = p.run(p.plan(window_nats=1e5, max_candidates=10**7))
        sums = np.bincount(found.image, found.probability)
        np.testing.assert_allclose(sums, 1, atol=1e-5)
        with np.errstate(divide="ignore", invalid="ignore"):
            terms = np.nan_to_num(-found.probability * np.log(found.probability))
        entropy.append(terms.sum() / 3)
    assert all(a > b for a, b in itertools.pairwise(entropy))


def test_A10_1_projection_matching_finds_the_nearest_projection(device):
    """Row A10.1: best reference of a gallery at SNR 0.1, median angular error below half a step of the gallery."""
    rng = np.random.default_rng(0)
    box, n, order = 48, 200 if device == "cpu" else 60, 2
    volume = blob_map(box, 21, blobs=25)
    grid = ops.PolarGrid(box, 16, diameter_px=0.8 * box)
    directions = geometry.healpix_directions(order)
    angles = np.column_stack([rng.uniform(-180, 180, n), np.degrees(np.arccos(rng.uniform(-1, 1, n))),
                              rng.uniform(-180, 180, n)])  # fmt: skip
    clean = clean_images(volume, angles, np.zeros((n, 2)))
    sigma2 = clean.var() / 0.1
    images = (clean + rng.normal(0, np.sqrt(sigma2), clean.shape)).astype(np.float32) * disc(box, 0.4 * box)
    found = ops.score(
        ops.polar(images, grid), slices_of(volume, directions, grid), grid, [[0, 0]], 48,
        inv_sigma2=np.full(grid.n_rings, 1 / (sigma2 * box**2)), device=device,
    )  # fmt: skip

    def view(d):
        rot, tilt = np.deg2rad(d).T
        return np.stack([np.cos(rot) * np.sin(tilt), np.sin(rot) * np.sin(tilt), np.cos(tilt)], -1)

    cosine = np.sum(view(directions[found.best_slice]) * view(angles[:, :2]), axis=1)
    assert np.median(np.degrees(np.arccos(np.clip(cosine, -1, 1)))) < geometry.healpix_spacing_deg(order) / 2


def test_A5_3_rotational_alignment_of_images_within_half_a_degree(device):
    """Row A5.3: 2D references are slices of their own; the angle at SNR 1 within 0.5 degrees."""
    rng = np.random.default_rng(6)
    box, n_psi = 64, 720
    volume = blob_map(box, 31, blobs=25)
    grid = ops.PolarGrid(box, 28, diameter_px=0.8 * box)
    true = rng.uniform(-180, 180, 12)
    clean = clean_images(volume, np.column_stack([np.zeros(12), np.zeros(12), true]), np.zeros((12, 2)))
    upright = clean_images(volume, [[0, 0, 0]], [[0, 0]])
    noisy = clean + rng.normal(0, clean.std(), clean.shape)
    images = (noisy * disc(box, 0.4 * box)).astype(np.float32)
    for score in ("likelihood", "correlation"):
        plan = ops.ScorePlan(grid, n_psi, score=score, device=device)
        plan.set_reference(ops.polar(upright, grid))
        inv = np.full(grid.n_rings, 1 / (clean.var() * box**2))
        found = plan.run(ops.polar(images, grid), [[0, 0]], inv_sigma2=inv)
        error = (ops.psi_angles_deg(n_psi)[found.best_psi] - true + 180) % 360 - 180
        assert np.abs(error).max() < 0.5


def test_A5_2_the_shift_of_the_textbook_example_is_found(device):
    """Row A5.2: an image displaced by (8, -6) pixels is brought back by (-8, 6), with rotation searched as well."""
    box = 64
    image = clean_images(blob_map(box, 2), [[30, 40, 0]], [[0, 0]])
    moved = np.roll(image, (-6, 8), axis=(1, 2))  # y, x
    grid = ops.PolarGrid(box, 20)
    shifts = np.array([(x, y) for x in range(-9, 10) for y in range(-9, 10)], np.float32)
    log_psi = None
    plan = ops.ScorePlan(grid, 64, device=device)
    turned = clean_images(blob_map(box, 2), [[30, 40, -ops.psi_angles_deg(64)[3]]], [[0, 0]])
    plan.set_reference(ops.polar(turned, grid))
    found = plan.run(ops.polar(moved, grid), shifts, log_psi=log_psi)
    assert shifts[found.best_shift[0]].tolist() == [-8, 6]
    assert found.best_psi[0] == 3


def test_correlation_lies_in_one_and_ignores_scale(device):
    p = Problem(9, n=4, noise=0.3)
    p.device = device
    cross, power = reference.score.polar_terms(
        circle(p.samples), circle(p.slices), p.grid.weights, p.grid.radii, p.grid.limits, p.n_psi, p.shifts, 24, p.inv,
        ctf_on_rings(p.params, p.grid),
    )  # fmt: skip
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
        np.append(0, np.cumsum(counts)), entry // 2, entry % 2 == 1, psi, np.append(0, np.cumsum(n_shifts)),
        p.shifts[np.concatenate(chosen)],
    )  # fmt: skip
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
        for i in range(n) for t in range(tasks.offsets[i], tasks.offsets[i + 1]) for s in chosen[i]
    ]  # fmt: skip
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


def rounded(x, bits):
    """float32 with a significand of so many bits, to nearest."""
    factor = np.float32(2.0 ** (24 - bits) + 1) * x
    return (factor - (factor - x)).astype(np.float32)


def products(a, b, bits, split):
    """a b as tensor cores make it: operands of few bits, or split in two and the three large products summed."""
    high = rounded(a, bits), rounded(b, bits)
    if not split:
        return high[0] @ high[1]
    low = rounded(a - high[0], bits), rounded(b - high[1], bits)
    return low[0] @ high[1] + high[0] @ low[1] + high[0] @ high[1]


def test_tensor_cores_need_split_tf32_for_log_likelihoods():
    """Why cuda/score.cu makes three TF32 products of each: errors of both stages at R = 16."""
    rng = np.random.default_rng(5)
    grid, n_psi = ops.PolarGrid(64, 16, diameter_px=51), 80
    m = np.arange(grid.max_m + 1)
    used = (np.arange(grid.n_rings) >= grid.first_ring[:, None]).astype(np.float32)
    a, b = (
        (rng.standard_normal((n, 2, *used.shape)) * used).astype(np.float32) for n in (24, 32)
    )  # slices and images: re, im
    b += a[:1]  # one slice fits
    psi = np.deg2rad(ops.psi_angles_deg(n_psi))
    basis = np.where(m, 2, 1) * np.stack([np.cos(m * psi[:, None]), np.sin(m * psi[:, None])])

    def scores(multiply, dtype):
        c = np.empty((2, len(m), len(a), len(b)), dtype)
        for k in m:
            (ar, ai), (br, bi) = (np.moveaxis(x[:, :, k], 1, 0).astype(dtype) for x in (a, b))
            c[0, k] = multiply(ar, br.T) + multiply(ai, bi.T)
            c[1, k] = multiply(ar, bi.T) - multiply(ai, br.T)
        table = basis.astype(dtype)
        return sum(multiply(t, x.reshape(len(m), -1)) for t, x in zip(table, c, strict=True))

    exact = scores(np.matmul, np.float64)
    error = {
        name: float(np.abs(scores(lambda x, y, f=form: products(x, y, *f), np.float32) - exact).max())
        for name, form in {"tf32": (11, False), "bf16 split": (8, True), "tf32 split": (11, True)}.items()
    }
    allowed = SCORE_FLOAT32 * float(np.abs(exact).max())
    assert error["tf32 split"] < 0.2 * allowed
    assert error["tf32 split"] < error["bf16 split"] / 3
    assert error["tf32"] > 10 * allowed


def test_devices_agree(device):
    """The same search on the CPU and elsewhere: scores, candidates, evidence."""
    p = Problem(17, box=32, radius=12, n=5, n_shifts=7, order=1, noise=3.0)
    want = p.run(p.plan())
    p.device = device
    got = p.run(p.plan())
    scale = max(1.0, float(np.abs(want.best_score).max()))
    np.testing.assert_allclose(got.log_evidence, want.log_evidence, atol=SCORE_FLOAT32 * scale)
    np.testing.assert_allclose(got.best_score, want.best_score, atol=SCORE_FLOAT32 * scale)
    np.testing.assert_allclose(got.kept, want.kept, atol=SCORE_POSTERIOR_MASS)

    def masses(found):
        rows = zip(found.image, found.slice, found.opposite, found.psi, found.shift, strict=True)
        return dict(zip(rows, found.probability, strict=True))

    mine, theirs = masses(got), masses(want)
    assert max(abs(mine.get(k, 0) - theirs.get(k, 0)) for k in mine | theirs) < SCORE_POSTERIOR_MASS


def test_long_lists_are_cut_on_the_device_before_they_are_made(device):
    """A flat posterior and a small cap: the histogram of scores bounds the list, and the best ones stay."""
    p = Problem(5, n=2, n_shifts=9, noise=20.0)
    p.device = device
    full = p.run(p.plan(epsilon=1e-6, max_candidates=10**6))
    capped = p.run(p.plan(epsilon=1e-6, max_candidates=40))
    assert (np.diff(full.offsets) > 2 * 40 + 1024).all()
    for i in range(2):
        ends = slice(full.offsets[i], full.offsets[i] + 40), slice(*capped.offsets[i : i + 2])
        for name in ("score", "slice", "opposite", "psi", "shift"):
            assert np.array_equal(getattr(full, name)[ends[0]], getattr(capped, name)[ends[1]]), name


def test_little_memory_changes_no_bit(device, monkeypatch):
    """One image a batch and one list a round on a device give what all together do."""
    if device == "cpu":
        pytest.skip("batches of its own has only the device")
    p = Problem(23, n=6, n_shifts=7, noise=5.0)
    p.device = device
    tasks = ops.CellTasks(
        [0, 2, 2, 5, 6, 8, 9], [0, 3, 1, 1, 1, 2, 0, 0, 4], np.arange(9) % 2 == 1, np.arange(9), 7 * np.arange(7),
        np.tile(p.shifts, (6, 1)),
    )  # fmt: skip

    def everything():
        found = p.run(p.plan())
        return *vars(found).values(), host(ops.score_cells(p.samples, p.slices, p.grid, p.n_psi, tasks, device=device))

    want = everything()
    for name in ("_cuda_score._TILE_SHARE", "_cuda_score._LIST_SHARE", "_cuda_cells._TILE_SHARE"):
        monkeypatch.setattr(f"verglas.ops.{name}", 1e-12)
    for a, b in zip(want, everything(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_arrays_may_lie_on_the_device(device):
    """What a refinement keeps there goes in as it is: images, noise, CTF and slices."""
    p = Problem(29, n=4)
    p.device = device
    want = p.run(p.plan())
    tasks = ops.CellTasks([0, 1, 2, 3, 4], [0, 3, 5, 1], [False] * 4, [1, 2, 3, 4], [0, 1, 2, 3, 4], p.shifts[:4])
    known = {"ctf": on(device, p.params), "pixel_size_A": PIXEL_A, "inv_sigma2": on(device, p.inv)}
    plan = ops.ScorePlan(p.grid, p.n_psi, n_power=8, device=device)
    samples, slices = on(device, p.samples), on(device, p.slices)
    plan.set_reference(slices, opposite=True)
    for name, value in vars(plan.run(samples, p.shifts, **known)).items():
        np.testing.assert_array_equal(value, getattr(want, name), err_msg=name)
    there = host(ops.score_cells(samples, slices, p.grid, p.n_psi, tasks, device=device, **known))
    known = {"ctf": p.params, "pixel_size_A": PIXEL_A, "inv_sigma2": p.inv}
    here = host(ops.score_cells(p.samples, p.slices, p.grid, p.n_psi, tasks, device=device, **known))
    np.testing.assert_array_equal(there, here)
