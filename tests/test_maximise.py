"""ops.maximise and ops.polar_insert: adjoints of the E-step, pose-by-pose sums, bitwise repeatable, one EM step."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import verglas as vg
from verglas import fourier, geometry, gridding, ops, reference
from verglas.assessment import fsc
from verglas.errors import InputError

from devices import host, on
from tolerance import ADJOINT_RELATIVE, MAXIMISE_ORDER_REL, MAXIMISE_REL, POLAR_REL, SCORE_FLOAT32


def opposite_angles(rot_tilt):
    """Directions seen from the other side, as the search counts them."""
    return np.stack([rot_tilt[:, 0] + 180, 180 - rot_tilt[:, 1]], axis=1)


class Case:
    """Random images, optics, noise, directions and candidates on a random grid; sums are made on ``device``."""

    device = "cpu"

    def __init__(self, seed, box=20, radius=8, n=4, directions=5, shifts=6, candidates=30, diameter=0.8, spacing=1.0):
        rng = np.random.default_rng(seed)
        self.rng, self.box, self.n = rng, box, n
        self.grid = ops.PolarGrid(box, radius, diameter_px=diameter * box, spacing=spacing)
        self.volume_grid = ops.Grid(box, radius, width=6)
        y, x = np.indices((box, box)) - box // 2
        mask = np.hypot(x, y) < 0.45 * diameter * box
        self.images = (rng.standard_normal((n, box, box)) * mask).astype(np.float32)
        self.samples = ops.polar(self.images, self.grid)
        self.rot_tilt = np.stack([rng.uniform(-180, 180, directions), rng.uniform(0, 180, directions)], axis=1)
        self.matrices = geometry.euler_to_matrix(np.column_stack([self.rot_tilt, np.zeros(directions)]))
        self.shifts = rng.uniform(-2, 2, (shifts, 2)).astype(np.float32)
        self.centres = rng.uniform(-1, 1, (n, 2)).astype(np.float32)
        u = rng.uniform(5000, 9000, n)
        self.optics = {
            "ctf": vg.Optics(u, u - rng.uniform(0, 400, n), rng.uniform(0, 90, n)).as_params(),
            "pixel_size_A": 3.0,
            "inv_sigma2": rng.uniform(0.5, 2, (n, self.grid.n_rings)).astype(np.float32),
        }
        self.lists = {
            "image": rng.integers(0, n, candidates),
            "slice": rng.integers(0, directions, candidates),
            "psi_deg": rng.uniform(-400, 400, candidates),
            "opposite": rng.random(candidates) < 0.4,
            "shift": rng.integers(0, shifts, candidates),
            "weight": rng.uniform(0, 1, candidates),
        }
        self.posterior = ops.Posterior.from_lists(n, **self.lists)

    def run(self, *, threads=2, reference=None, **changes):
        sums = ops.GridSums.zeros(self.volume_grid)
        common = {**self.optics, "centres_px": self.centres}
        found = ops.maximise(
            sums,
            self.samples,
            self.posterior,
            self.matrices,
            self.grid,
            self.shifts,
            reference=reference,
            threads=threads,
            device=self.device,
            **common,
            **changes,
        )
        return sums, found

    def poses(self):
        """Matrix (in-plane angle included) and shift of every candidate, as conventions.md has them."""
        p = self.posterior
        angles = np.where(p.opposite[:, None], opposite_angles(self.rot_tilt[p.slice]), self.rot_tilt[p.slice])
        matrices = geometry.euler_to_matrix(np.column_stack([angles, p.psi_deg]))
        return matrices, self.shifts[p.shift].astype(float) + self.centres[p.image]

    def problem(self, images=None):
        o = self.optics
        return reference.maximise.Problem(
            self.images if images is None else images,
            self.grid.radii,
            2 * self.grid.n_theta,
            self.grid.spacing,
            o["ctf"],
            o["pixel_size_A"],
            o["inv_sigma2"].astype(float),
        )


cases = st.builds(
    Case,
    seed=st.integers(0, 10_000),
    box=st.integers(13, 26),
    radius=st.integers(2, 6),
    n=st.integers(1, 5),
    directions=st.integers(1, 6),
    candidates=st.integers(1, 40),
    diameter=st.floats(0.4, 1.0),
    spacing=st.sampled_from([1.0, 0.5]),
)


def forward_cross(case, volume):
    """sum of gamma cross(pose), made the way the search makes it: slice -> harmonics -> rotation -> shift."""
    g, p = case.grid, case.posterior
    slices = ops.polar_slices(gridding.to_grid(volume, case.volume_grid), case.volume_grid, case.matrices, g)
    a = g.unpack(ops.polar_harmonics(slices, g)).astype(complex)
    m = np.arange(g.max_m + 1)
    total, scale = 0.0, 0.0
    for e, i in enumerate(p.image):
        shift = case.shifts[p.shift[e]] + case.centres[i]
        optics = {k: v[i : i + 1] if k != "pixel_size_A" else v for k, v in case.optics.items()}
        b = g.unpack(ops.polar_weighted(case.samples[i : i + 1], g, shift[None], **optics))[0, 0].astype(complex)
        slice_a = a[p.slice[e]]
        if p.opposite[e]:
            slice_a = (-1.0) ** m[:, None] * slice_a.conj()
        c = (slice_a.conj() * b).sum(1) * np.exp(-1j * m * np.deg2rad(p.psi_deg[e]))
        total += p.weight[e] * (np.where(m == 0, 1, 2) * c).real.sum()
        scale += p.weight[e] * 2 * np.linalg.norm(slice_a) * np.linalg.norm(b)
    return total, scale


@settings(deadline=None, max_examples=25)
@given(case=cases)
def test_the_m_step_is_the_transpose_of_the_e_step(device, case):
    """Issue: <slice -> harmonics -> rotate -> shift of x, y> = <x, adjoint of y>, opposites and centres included."""
    case.device = device
    volume = case.rng.standard_normal((case.box,) * 3).astype(np.float32)
    want, scale = forward_cross(case, volume)
    sums, _ = case.run()
    ops.fold(sums)
    got = np.sum(volume * gridding.from_grid(sums.values, case.volume_grid).astype(np.float64))
    assert abs(got - want) <= ADJOINT_RELATIVE * scale


@settings(deadline=None, max_examples=15)
@given(case=cases)
def test_polar_insert_is_the_transpose_of_polar_slices(case):
    volume = case.rng.standard_normal((case.box,) * 3).astype(np.float32)
    g = case.grid
    slices = ops.polar_slices(gridding.to_grid(volume, case.volume_grid), case.volume_grid, case.matrices, g)
    y = (case.rng.standard_normal(slices.shape) + 1j * case.rng.standard_normal(slices.shape)).astype(np.complex64)
    sums = ops.GridSums.zeros(case.volume_grid, weights=False)
    ops.polar_insert(sums, y, None, case.matrices, g)
    ops.fold(sums)
    back = gridding.from_grid(sums.values, case.volume_grid).astype(np.float64)
    want = 2 * np.vdot(slices.astype(complex), y).real
    assert abs(np.sum(volume * back) - want) <= ADJOINT_RELATIVE * np.linalg.norm(slices) * np.linalg.norm(y)
    weights = case.rng.uniform(0, 1, slices.shape).astype(np.float32)
    only = ops.GridSums.zeros(case.volume_grid, values=False)
    ops.polar_insert(only, None, weights, case.matrices, g)
    both = ops.GridSums.zeros(case.volume_grid)
    ops.polar_insert(both, weights.astype(np.complex64), weights, case.matrices, g, threads=1)
    assert only.values is None
    np.testing.assert_array_equal(only.weights, both.weights)
    np.testing.assert_allclose(both.values.real, both.weights, atol=1e-12)


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("spacing", [1.0, 0.5])
def test_sums_equal_pose_by_pose_insertion(device, seed, spacing):
    """Numerator and denominator against the float64 Fourier sum over every candidate's own slice."""
    case = Case(seed, box=16, radius=6, spacing=spacing, candidates=8)
    case.device = device
    sums, _ = case.run()
    ops.fold(sums)
    matrices, shifts = case.poses()
    p = case.posterior
    want = reference.maximise.maximise(case.problem(), p.image, matrices, shifts, p.weight)
    for got, direct in zip((sums.values, sums.weights), want, strict=True):
        back = gridding.from_grid(got, case.volume_grid)
        # The window is made for maps that fill three quarters of the box; inside it the two agree.
        z, y, x = np.indices(direct.shape) - case.box // 2
        inside = x**2 + y**2 + z**2 < (0.375 * case.box) ** 2
        error = np.linalg.norm((back - direct)[inside]) / np.linalg.norm(direct[inside])
        assert error < MAXIMISE_REL


@pytest.mark.parametrize("seed", [3, 4])
def test_residuals_equal_the_sum_as_it_is_written(device, seed):
    """sum |X|^2 - 2 cross + power per ring against |X S - C A|^2 of every candidate."""
    case = Case(seed, candidates=12)
    case.device = device
    radius = np.linalg.norm(np.indices((case.box,) * 3) - case.box // 2, axis=0)
    volume = (case.rng.standard_normal(radius.shape) * (radius < 0.3 * case.box)).astype(np.float32)
    g = case.volume_grid
    slices = ops.polar_slices(gridding.to_grid(volume, g), g, case.matrices, case.grid)
    _, found = case.run(reference=slices)
    matrices, shifts = case.poses()
    p = case.posterior
    want = reference.maximise.residuals(case.problem(), volume, p.image, matrices, shifts, p.weight)
    np.testing.assert_allclose(found.mass, np.bincount(p.image, p.weight, minlength=case.n), rtol=1e-12)
    scale = found.mass[:, None] * found.image_power + found.power
    assert np.max(np.abs(found.squared - want) / scale) < 10 * POLAR_REL
    _, blocks = case.run(reference=slices, memory_bytes=1)
    np.testing.assert_array_equal(found.cross, blocks.cross)
    np.testing.assert_array_equal(found.power, blocks.power)
    np.testing.assert_allclose(found.mass, blocks.mass, rtol=1e-14)


def test_m_step_and_search_agree_on_the_likelihood(device):
    """The posterior mean of cross - power/2 is what the search scored those poses with, priors taken off."""
    case = Case(21, n=3, directions=7)
    case.device = device
    radius = np.linalg.norm(np.indices((case.box,) * 3) - case.box // 2, axis=0)
    volume = (case.rng.standard_normal(radius.shape) * (radius < 0.3 * case.box)).astype(np.float32)
    slices = ops.polar_slices(gridding.to_grid(volume, case.volume_grid), case.volume_grid, case.matrices, case.grid)
    n_psi, common = 32, {**case.optics, "centres_px": case.centres}
    search = ops.ScorePlan(case.grid, n_psi, n_power=4, epsilon=1e-6, max_candidates=200, device=device)
    search.set_reference(slices, opposite=True)
    scores = search.run(case.samples, case.shifts, **common)
    posterior = ops.Posterior.from_scores(scores, n_psi)
    np.testing.assert_allclose(np.bincount(posterior.image, posterior.weight), 1)
    plan = ops.MaximisePlan(case.grid, 7, n_power=4, device=device)
    plan.set_reference(slices)
    found = plan.add(case.samples, posterior, case.shifts, **common)
    log_likelihood = (case.optics["inv_sigma2"] * (found.cross - found.power / 2)).sum(1)
    priors = -np.log(2 * 7) - np.log(n_psi) - np.log(len(case.shifts))
    want = np.bincount(posterior.image, posterior.weight * (scores.score.astype(float) - priors))
    scale = np.abs(case.optics["inv_sigma2"] * found.cross).sum(1) + found.power.sum(1)
    assert posterior.opposite.any()
    assert np.all(np.abs(log_likelihood - want) < SCORE_FLOAT32 * np.maximum(scale, 1))


def bits(sums):
    return sums.values.tobytes() + sums.weights.tobytes()


@settings(deadline=None, max_examples=15)
@given(case=cases, threads=st.integers(1, 5), cuts=st.lists(st.integers(0, 5), max_size=3), seed=st.integers(0, 99))
def test_sums_are_bitwise_equal_for_any_threads_batches_blocks_and_candidate_order(device, case, threads, cuts, seed):
    """Issue: bitwise equal for any thread count and batch size."""
    case.device = device
    want = bits(case.run(threads=1)[0])
    assert bits(case.run(threads=threads)[0]) == want
    assert bits(case.run(threads=threads, memory_bytes=1)[0]) == want
    plan = ops.MaximisePlan(case.grid, len(case.matrices), device=device)
    edges = sorted({0, case.n, *(c for c in cuts if c < case.n)})
    p = case.posterior
    for begin, end in itertools.pairwise(edges):
        kept = np.flatnonzero((p.image >= begin) & (p.image < end))
        kept = np.random.default_rng(seed).permutation(kept)  # the order within an image is free
        part = ops.Posterior.from_lists(
            end - begin,
            image=p.image[kept] - begin,
            slice=p.slice[kept],
            psi_deg=p.psi_deg[kept],
            opposite=p.opposite[kept],
            shift=p.shift[kept],
            weight=p.weight[kept],
        )
        optics = {k: v if k == "pixel_size_A" else v[begin:end] for k, v in case.optics.items()}
        plan.add(
            case.samples[begin:end], part, case.shifts, centres_px=case.centres[begin:end], threads=threads, **optics
        )
    sums = ops.GridSums.zeros(case.volume_grid)
    plan.insert(sums, case.matrices, threads=threads)
    assert bits(sums) == want


def test_another_particle_order_changes_rounding_only(device):
    """Issue: within 1e-6 for another particle order."""
    case = Case(11, n=40, candidates=600)
    case.device = device
    want, _ = case.run()
    order = case.rng.permutation(case.n)
    where = np.argsort(order)
    case.samples, case.centres = case.samples[order], case.centres[order]
    case.optics = {k: v if k == "pixel_size_A" else v[order] for k, v in case.optics.items()}
    case.posterior = ops.Posterior.from_lists(case.n, **{**case.lists, "image": where[case.lists["image"]]})
    got, _ = case.run()
    for a, b in ((got.values, want.values), (got.weights, want.weights)):
        assert np.max(np.abs(a - b)) <= MAXIMISE_ORDER_REL * np.max(np.abs(b))


def test_several_references_are_separate_sums(device):
    case = Case(5, directions=4)
    case.device = device
    p = case.posterior
    case.matrices = case.matrices[:2]  # slices 0, 1 are reference 0, slices 2, 3 reference 1
    both = [ops.GridSums.zeros(case.volume_grid) for _ in range(2)]
    common = {**case.optics, "centres_px": case.centres}
    ops.maximise(both, case.samples, p, case.matrices, case.grid, case.shifts, device=device, **common)
    for k in range(2):
        mine = p.slice // 2 == k
        alone = ops.Posterior.from_lists(
            case.n,
            image=p.image[mine],
            slice=p.slice[mine] % 2,
            psi_deg=p.psi_deg[mine],
            opposite=p.opposite[mine],
            shift=p.shift[mine],
            weight=p.weight[mine],
        )
        sums = ops.GridSums.zeros(case.volume_grid)
        ops.maximise(sums, case.samples, alone, case.matrices, case.grid, case.shifts, device=device, **common)
        assert bits(sums) == bits(both[k])


def test_class_averages_are_the_weighted_means_of_aligned_images(device):
    """2D: one slice per class; without CTF the average of turned and shifted copies is the image itself."""
    box, rng = 32, np.random.default_rng(6)
    grid = ops.PolarGrid(box, 14, spacing=0.5)
    points, height = rng.uniform(-6, 6, (2, 5, 2)), rng.uniform(0.5, 1.5, (2, 5))

    def draw(k, psi_deg, shift):
        """Blobs turned so that slice(psi)(theta) = slice(theta + psi), then moved away from the centre by -shift."""
        c, s = np.cos(np.deg2rad(psi_deg)), np.sin(np.deg2rad(psi_deg))
        at = points[k] @ np.array([[c, -s], [s, c]]) - shift
        y, x = np.indices((box, box)) - box // 2
        r2 = (x[..., None] - at[:, 0]) ** 2 + (y[..., None] - at[:, 1]) ** 2
        return (height[k] * np.exp(-r2 / (2 * 1.5**2))).sum(-1)

    n = 12
    kind, psi = np.arange(n) % 2, rng.uniform(0, 360, n)
    shifts = rng.uniform(-2, 2, (n, 2)).astype(np.float32)
    images = np.stack([draw(*row) for row in zip(kind, psi, shifts, strict=True)]).astype(np.float32)
    plan = ops.MaximisePlan(grid, 2, device=device)
    posterior = ops.Posterior.from_lists(n, np.arange(n), kind, psi, shift=np.arange(n))
    plan.add(ops.polar(images, grid), posterior, shifts)
    num, den = host(plan.slices())
    np.testing.assert_allclose(den, np.broadcast_to(n / 2 * grid.weights[:, None], den.shape), rtol=1e-4)
    average = ops.images_from_polar(num / den, grid)
    for k in range(2):
        want = draw(k, 0.0, np.zeros(2))
        want -= want.mean()  # the rings do not hold the mean
        assert np.corrcoef(average[k].ravel(), want.ravel())[0, 1] > 0.999


def test_empty_candidate_lists(device):
    case = Case(7)
    case.device = device
    empty = ops.Posterior.from_lists(case.n, [], [], [])
    case.posterior = empty
    sums, found = case.run(reference=np.ones((5, case.grid.n_rings, case.grid.n_theta // 2), np.complex64))
    assert not sums.values.any()
    assert not sums.weights.any()
    assert not found.mass.any()
    assert not found.squared.any()
    groups = ops.GroupSums.zeros(1, case.grid)
    groups.add(found, np.zeros(case.n, int))
    assert np.isnan(groups.sigma2()).all()
    assert np.isnan(groups.scale()).all()
    # a particle without candidates changes nothing
    one = ops.Posterior.from_lists(case.n, [1], [0], [5.0])
    case.posterior = one
    a, _ = case.run()
    case.samples = case.samples.copy()
    case.samples[0] = 0
    assert bits(case.run()[0]) == bits(a)


def test_what_is_not_finite_is_named(device):
    case = Case(8)
    case.device = device
    plan = ops.MaximisePlan(case.grid, 5, device=device)
    bad = case.samples.copy()
    bad[2, 3, 1] = np.nan
    with pytest.raises(InputError, match="particle 102: its image holds values that are not finite"):
        plan.add(bad, case.posterior, case.shifts, first_particle=100, **case.optics)
    ctf = case.optics["ctf"].copy()
    ctf[1, 0] = np.inf
    with pytest.raises(InputError, match="particle 1: its CTF"):
        plan.add(case.samples, case.posterior, case.shifts, ctf=ctf)
    with pytest.raises(InputError, match="image 1, candidate 1: expected a finite angle and a weight >= 0"):
        ops.Posterior.from_lists(2, [0, 1], [0, 0], [0, 0], weight=[1.0, np.nan])
    a = np.zeros((5, case.grid.n_rings, case.grid.n_theta // 2), np.complex64)
    a[4, 0, 0] = np.nan
    with pytest.raises(InputError, match="slice 4 holds values"):
        plan.set_reference(a)
    sums, two = ops.GridSums.zeros(case.volume_grid), case.matrices[:2]
    with pytest.raises(InputError, match="expected slices 0 to 1"):
        ops.maximise(sums, case.samples, case.posterior, two, case.grid, case.shifts)
    with pytest.raises(ValueError, match="matrix 1 is not a rotation"):
        ops.polar_insert(sums, a[:2], a[:2].real.copy(), two * [[[1.0]], [[2.0]]], case.grid)
    with pytest.raises(ValueError, match="shift: expected 0 to 1"):
        plan.add(case.samples, case.posterior, case.shifts[:1])
    with pytest.raises(InputError, match="posterior of 4 images, got that of 2"):
        plan.add(case.samples, ops.Posterior.from_lists(2, [0], [0], [0]), case.shifts)


def blob_map(box, rng, radius=0.27):
    """A map of blobs about a pixel wide, inside radius * box."""
    at = rng.normal(size=(40, 3))
    at *= radius * box * rng.uniform(0.2, 1, (40, 1)) / np.linalg.norm(at, axis=1, keepdims=True)
    grid = np.indices((box,) * 3)[::-1] - box // 2
    r2 = sum((grid[a][..., None] - at[:, a]) ** 2 for a in range(3))
    return np.exp(-r2 / (2 * 0.5**2)).sum(-1).astype(np.float32)


class Simulated:
    """Particles at poses of a grid, with astigmatic CTF, coloured noise per group and a scale per group."""

    def __init__(self, n=2500, box=48, seed=0, step_deg=7.5):
        rng = np.random.default_rng(seed)
        self.n, self.box, self.pixel_size_A = n, box, 3.5
        self.volume = blob_map(box, rng)
        self.rot_tilt = geometry.healpix_directions(geometry.healpix_order(step_deg))
        d = len(self.rot_tilt)
        self.matrices = geometry.euler_to_matrix(np.column_stack([self.rot_tilt, np.zeros(d)]))
        self.direction, self.psi = rng.integers(0, d, n), rng.uniform(0, 360, n)
        self.shift = rng.uniform(-3, 3, (n, 2)).astype(np.float32)
        self.noise_group, self.scale_group = np.arange(n) % 2, np.arange(n) // 2 % 2
        self.scales = np.array([0.8, 1.25])
        u = rng.uniform(3000, 8000, n)  # what the CTF spreads stays in the box: no wrapping
        self.params = vg.Optics(u, u - rng.uniform(0, 500, n), rng.uniform(0, 180, n)).as_params()
        g = ops.Grid(box, width=6)
        angles = np.column_stack([self.rot_tilt[self.direction], self.psi])
        clean = ops.project(
            gridding.to_grid(self.volume, g),
            g,
            geometry.euler_to_matrix(angles),
            shifts_px=-self.shift.astype(float),
            ctf=ops.ctf(self.params, box, self.pixel_size_A),
        )
        clean = fourier.inverse(clean * self.scales[self.scale_group][:, None, None].astype(np.float32), (box, box))
        sigma = 0.8 * clean.std()
        k = np.hypot(np.fft.fftfreq(box)[:, None], np.fft.rfftfreq(box)) * box
        # Gently coloured: between the pixels of the DFT a spectrum leaks (sinc^2 of the box), as it does in any crop.
        self.gain = lambda group, r: (1 + 0.5 * group) * (1 + 0.3 * np.exp(-((r / 12) ** 2)))
        noise = np.fft.rfft2(rng.normal(0, sigma, (n, box, box)))
        noise *= np.where(self.noise_group[:, None, None] == 1, self.gain(1, k), self.gain(0, k))
        self.images = (clean + np.fft.irfft2(noise, (box, box))).astype(np.float32)
        self.sigma2 = lambda group, r: sigma**2 * box**2 * self.gain(group, r) ** 2


@pytest.fixture(scope="module")
def simulated():
    return Simulated()


def test_one_em_step_with_true_poses_gives_map_noise_and_scale(simulated):
    """Issue: map FSC > 0.99 with the truth and with Cartesian insertion, noise within 3 %, scale within 1 %."""
    s = simulated
    grid = ops.PolarGrid(s.box, (s.box - 1) // 2)
    volume_grid = ops.Grid(s.box)
    posterior = ops.Posterior.from_lists(s.n, np.arange(s.n), s.direction, s.psi, shift=np.arange(s.n))
    params = s.params.copy()
    inv = 1 / np.stack([s.sigma2(g, grid.radii) for g in (0, 1)])[s.noise_group]
    slices = ops.polar_slices(gridding.to_grid(s.volume, volume_grid), volume_grid, s.matrices, grid)
    arguments = {"pixel_size_A": s.pixel_size_A, "inv_sigma2": inv.astype(np.float32), "reference": slices}
    samples = ops.polar(s.images, grid)
    sums = ops.GridSums.zeros(volume_grid)
    # First with the scale left out, which finds it; then with it, which gives the noise and the map.
    found = ops.maximise(
        ops.GridSums.zeros(volume_grid), samples, posterior, s.matrices, grid, s.shift, ctf=params, **arguments
    )
    by_scale = ops.GroupSums.zeros(2, grid)
    by_scale.add(found, s.scale_group, inv)
    np.testing.assert_allclose(by_scale.scale(), s.scales, rtol=0.01)
    params[:, 8] = s.scales[s.scale_group]
    found = ops.maximise(sums, samples, posterior, s.matrices, grid, s.shift, ctf=params, **arguments)
    by_noise = ops.GroupSums.zeros(2, grid)
    by_noise.add(found, s.noise_group)
    planted = np.stack([s.sigma2(g, grid.radii) for g in (0, 1)])
    # Rings 1 and 2 hold so few independent coefficients that 1250 particles leave 2 % of noise in the estimate.
    np.testing.assert_allclose(by_noise.sigma2()[:, 2:], planted[:, 2:], rtol=0.03)
    np.testing.assert_allclose(by_noise.shell_sigma2()[:, 1:], by_noise.sigma2())

    ops.fold(sums)
    polar_map = finish(sums, volume_grid)
    cartesian = ops.GridSums.zeros(volume_grid)
    shells = np.column_stack([inv[:, 0], inv]).astype(np.float32)
    images = fourier.forward(s.images, 2)
    angles = np.column_stack([s.rot_tilt[s.direction], s.psi])
    ops.insert(
        cartesian,
        images,
        geometry.euler_to_matrix(angles),
        shifts_px=-s.shift.astype(float),
        shell_weight=shells,
        ctf=ops.ctf(params, s.box, s.pixel_size_A),
    )
    ops.fold(cartesian)
    cartesian_map = finish(cartesian, volume_grid)
    truth, baseline = fsc(polar_map, s.volume).curve, fsc(cartesian_map, s.volume).curve
    # The last shells hold noise; there the polar sums must be as good as the Cartesian ones.
    assert truth[1:22].min() > 0.99
    assert np.all(truth[1 : grid.radius + 1] > baseline[1 : grid.radius + 1] - 0.01)
    assert fsc(polar_map, cartesian_map).curve[1:22].min() > 0.99


def finish(sums, grid):
    """num / max(den, a little), inside a sphere."""
    small = 1e-3 * sums.weights.max()
    spectrum = sums.values / np.maximum(sums.weights, small)
    box = grid.box
    # The numerator is the transform smoothed by the window, which from_grid divides out.
    volume = gridding.from_grid(spectrum, grid)
    radius = np.linalg.norm(np.indices((box,) * 3) - box // 2, axis=0)
    return (volume * (radius < 0.42 * box)).astype(np.float32)


def test_little_memory_changes_no_bit(device, monkeypatch):
    """One image a chunk on a device gives what all together do, residuals included."""
    if device == "cpu":
        pytest.skip("chunks of its own has only the device")
    case = Case(31, n=5, candidates=60)
    case.device = device
    radius = np.linalg.norm(np.indices((case.box,) * 3) - case.box // 2, axis=0)
    volume = (case.rng.standard_normal(radius.shape) * (radius < 0.3 * case.box)).astype(np.float32)
    slices = ops.polar_slices(gridding.to_grid(volume, case.volume_grid), case.volume_grid, case.matrices, case.grid)
    sums, found = case.run(reference=slices)
    monkeypatch.setattr("verglas.ops._cuda_maximise._CHUNK_SHARE", 1e-12)
    again, other = case.run(reference=slices)
    assert bits(sums) == bits(again)
    for name, value in vars(found).items():
        np.testing.assert_array_equal(value, getattr(other, name), err_msg=name)
    case.device = "cpu"
    cpu, there = case.run(reference=slices)
    for a, b in ((sums.values, cpu.values), (sums.weights, cpu.weights)):
        assert np.max(np.abs(a - b)) <= 10 * MAXIMISE_ORDER_REL * np.max(np.abs(b))
    np.testing.assert_allclose(found.squared, there.squared, rtol=1e-5, atol=1e-5 * np.abs(there.squared).max())


def test_arrays_may_lie_on_the_device(device):
    case = Case(37, n=3)
    slices = np.ones((5, case.grid.n_rings, case.grid.n_theta // 2), np.complex64)

    def run(bring):
        plan = ops.MaximisePlan(case.grid, 5, device=device)
        plan.set_reference(bring(slices))
        optics = {k: v if k == "pixel_size_A" else bring(v) for k, v in case.optics.items()}
        found = plan.add(bring(case.samples), case.posterior, case.shifts, centres_px=bring(case.centres), **optics)
        return [*host(plan.slices()), *vars(found).values()]

    for a, b in zip(run(lambda a: a), run(lambda a: on(device, a)), strict=True):
        np.testing.assert_array_equal(a, b)


def test_maps_are_summed_where_their_sums_lie(device):
    """From the plan's device into sums there: the map that sums on the host get."""
    case = Case(41)
    case.device = device
    want, _ = case.run()
    sums = ops.GridSums.zeros(case.volume_grid, device=device)
    ops.maximise(
        sums,
        case.samples,
        case.posterior,
        case.matrices,
        case.grid,
        case.shifts,
        centres_px=case.centres,
        device=device,
        **case.optics,
    )
    for got, expected in ((host(sums.values), want.values), (host(sums.weights), want.weights)):
        np.testing.assert_allclose(got, expected, atol=MAXIMISE_ORDER_REL * np.abs(expected).max())
