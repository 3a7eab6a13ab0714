"""Branch and bound: nothing that holds mass is lost, few poses are scored, windows and refusals."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import verglas as vg
from verglas import fourier, geometry, gridding, ops, reference
from verglas.search import LocalWindow, PoseSearch, SearchSettings, search_cost, search_levels
from verglas.search.bound import lattice_quarter
from verglas.search.cells import Cells, Level, angles_deg, slices_of_pixels, split
from verglas.search.image_batch import ImageBatch
from verglas.search.posterior import Found, best_of_each

from devices import host
from tolerance import SCORE_FLOAT32

PIXEL_A = 2.0


def blob_map(box, seed, symmetry="C1", blobs=8):
    """Gaussian blobs within 0.7 of the box, copied by a point group."""
    rng = np.random.default_rng(seed)
    centres = np.clip(rng.normal(0, 0.14 * box, (blobs, 3)), -0.22 * box, 0.22 * box)
    z, y, x = np.indices((box,) * 3) - box // 2
    out = np.zeros((box,) * 3, np.float32)
    for matrix in geometry.symmetry_matrices(symmetry):
        for a, b, c in centres @ matrix.T:
            out += np.exp(-((x - a) ** 2 + (y - b) ** 2 + (z - c) ** 2) / 3.0).astype(np.float32)
    return out


def images_of(volume, angles, shifts, params, noise, rng):
    box = len(volume)
    grid = ops.Grid(box)
    slices = ops.project(
        gridding.to_grid(volume, grid),
        grid,
        vg.euler_to_matrix(angles),
        shifts_px=-np.asarray(shifts),
        ctf=ops.ctf(params, box, PIXEL_A),
    )
    clean = fourier.inverse(slices, (box, box))
    y, x = np.indices((box, box)) - box // 2
    return ((clean + noise * rng.standard_normal(clean.shape)) * (np.hypot(x, y) < 0.45 * box)).astype(np.float32)


class Problem:
    """Images of a map, a search of two or three levels, and the whole finest grid to compare with."""

    def __init__(
        self, seed, *, box=24, radii=(4, 9), order=0, n=2, noise=0.7, symmetry="C1", empty=False, device="cpu", **more
    ):
        rng = np.random.default_rng(seed)
        self.volume = blob_map(box, seed, symmetry)
        self.levels = search_levels(list(radii), order=order, n_psi=16)
        self.settings = SearchSettings(shift_range_px=1.0, max_cells=10**9, **more)
        self.search = PoseSearch(
            self.volume, self.levels, symmetry=symmetry, diameter_px=0.9 * box, settings=self.settings, device=device
        )
        self.truth = np.column_stack(
            [rng.uniform(-180, 180, n), np.degrees(np.arccos(rng.uniform(-1, 1, n))), rng.uniform(-180, 180, n)]
        )
        u = rng.uniform(8e3, 2e4, n)
        self.params = vg.Optics(u, u + rng.uniform(-400, 400, n), rng.uniform(0, 180, n)).as_params()
        shifts = rng.uniform(-1, 1, (n, 2))
        self.images = images_of(self.volume, self.truth, shifts, self.params, noise, rng)
        if empty:
            self.images[:] = 0
        self.inv = np.full(box, 1 / (noise * box) ** 2)

    def run(self, **more):
        return self.search.run(self.images, self.inv, ctf=self.params, pixel_size_A=PIXEL_A, **more)

    def finest_shifts_px(self):
        """Every shift of the finest level, by splitting the first level's."""
        n = len(self.search.shifts)
        zero = np.zeros(n, np.int64)
        cells = Cells(zero, zero, zero, self.search.shifts)
        for k in range(len(self.levels) - 1):
            cells = split(cells, self.levels[k], lattice_quarter(self.levels, k))
        return np.unique(cells.shift, axis=0) * self.search.unit_px

    def exhaustive(self, exact):
        """Log-likelihood (n, directions, psi, shifts) of the finest grid: float64 if exact, else by ops.score."""
        level, grid = self.levels[-1], self.search.polar[-1]
        pixels = self.search.pixels
        for _ in self.levels[1:]:
            pixels = geometry.healpix_children(pixels).ravel()
        # The same interpolated slices as the search's: of two opposite pixels one is sliced.
        made, opposite = slices_of_pixels(level.order, pixels)
        slices = host(self.search.reference.slices(level.order, made, grid, None))
        full = np.concatenate([slices, slices.conj()], axis=-1)
        full[opposite] = full[opposite][..., -np.arange(grid.n_theta) % grid.n_theta]
        slices = np.ascontiguousarray(full[..., : grid.n_theta // 2])
        samples, shifts = ops.polar(self.images, grid), self.finest_shifts_px()
        inv = np.broadcast_to(self.inv[grid.shells], (len(samples), grid.n_rings)).astype(np.float32)
        if exact:
            kx, ky = (k / (grid.box * PIXEL_A) for k in reference.polar.points(grid.radii, grid.n_theta))
            c = np.array([reference.ctf.ctf_at(row, kx, ky) for row in self.params])
            cross, power = reference.score.polar_terms(
                *(np.concatenate([s, s.conj()], -1) for s in (samples, slices)),
                grid.weights,
                grid.radii,
                grid.limits,
                level.n_psi,
                shifts,
                grid.box,
                inv,
                c,
            )
            return pixels, shifts, cross - power[..., None] / 2
        plan = ops.ScorePlan(grid, level.n_psi, n_power=5, window_nats=1e6, max_candidates=10**8)
        plan.set_reference(slices, log_prior=np.column_stack([np.zeros(len(pixels)), np.full(len(pixels), -np.inf)]))
        found = plan.run(
            samples, shifts, ctf=self.params, pixel_size_A=PIXEL_A, inv_sigma2=inv, log_shift=np.zeros(len(shifts))
        )
        out = np.full((len(samples), len(pixels), level.n_psi, len(shifts)), -np.inf)
        out[found.image, found.slice, found.psi, found.shift] = found.score + np.log(level.n_psi)
        return pixels, shifts, out


def check_nothing_is_lost(p, exact=False):
    """Every pose of mass > epsilon of the whole finest grid is among the poses kept; the best is the same."""
    result = p.run()
    pixels, shifts, likelihood = p.exhaustive(exact)
    posterior = reference.score.posterior(likelihood)
    level = p.levels[-1]
    assert (result.level == len(p.levels) - 1).all()
    for i in range(len(p.images)):
        mine = slice(*result.offsets[i : i + 2])
        kept = {
            (*np.round(a, 4), *np.round(s, 4))
            for a, s in zip(result.pose_angles_deg[mine], result.pose_shifts_px[mine], strict=True)
        }
        heavy = np.argwhere(posterior[i] > p.settings.epsilon)
        angles = angles_deg(level, pixels[heavy[:, 0]], heavy[:, 1])
        for a, s in zip(angles, shifts[heavy[:, 2]], strict=True):
            assert (*np.round(a, 4), *np.round(s, 4)) in kept
        best = np.unravel_index(posterior[i].argmax(), posterior[i].shape)
        at = angles_deg(level, pixels[[best[0]]], np.array([best[1]]))[0]
        same = np.allclose(at, result.angles_deg[i]) and np.allclose(shifts[best[2]], result.shifts_px[i])
        # ties within rounding (symmetric maps, empty images) may fall either way
        rounding = 1e-3 + 2 * SCORE_FLOAT32 * np.abs(likelihood[i]).max()
        tie = abs(result.score[i] - likelihood[i].max() + np.log(likelihood[i].size)) < rounding
        assert same or tie
        evidence = reference.score.log_sum_exp(likelihood[i]) - np.log(likelihood[i].size)
        assert abs(result.log_evidence[i] - evidence) < 2 * p.settings.epsilon + rounding


@settings(deadline=None, max_examples=8)  # 400 among the slow tests
@given(
    seed=st.integers(0, 100_000),
    box=st.integers(20, 27),
    noise=st.sampled_from([0.3, 0.7, 2.0, 10.0]),
    radii=st.sampled_from([(4, 9), (6, 6)]),
)
def test_the_surviving_set_holds_all_mass(seed, box, noise, radii):
    """Same best pose and same posterior as the exhaustive search of the finest grid."""
    check_nothing_is_lost(Problem(seed, box=box, noise=noise, radii=radii))


@pytest.mark.slow_emulated
@settings(deadline=None, max_examples=4)
@given(seed=st.integers(0, 100_000), noise=st.sampled_from([0.3, 1.0, 5.0]))
def test_the_surviving_set_holds_all_mass_of_the_float64_posterior(device, seed, noise):
    check_nothing_is_lost(Problem(seed, box=20, noise=noise, device=device), exact=True)


@settings(deadline=None, max_examples=5)
@given(seed=st.integers(0, 1000), symmetry=st.sampled_from(["C2", "D2", "C4"]))
def test_symmetric_maps(device, seed, symmetry):
    check_nothing_is_lost(Problem(seed, symmetry=symmetry, device=device))


def test_an_empty_image_keeps_most_poses(device):
    p = Problem(3, empty=True, device=device)
    check_nothing_is_lost(p)
    last = p.run().statistics[-1]
    assert last.evaluated > 0.5 * last.exhaustive


@pytest.mark.parametrize("radii", [(1, 1), (1, 2)])
def test_one_ring(device, radii):
    check_nothing_is_lost(Problem(5, box=21, radii=radii, device=device))


def test_a_reference_of_zeros_leaves_the_prior(device):
    """Every pose explains as much as any other: nothing is pruned, the evidence is that of the prior, 0."""
    p = Problem(7, device=device)
    p.search = PoseSearch(0 * p.volume, p.levels, diameter_px=0.9 * 24, settings=p.settings, device=device)
    result = p.run()
    last = result.statistics[-1]
    assert last.evaluated == last.exhaustive
    np.testing.assert_allclose(result.log_evidence, 0, atol=1e-4)
    assert (np.diff(result.offsets) > 0.99 * last.exhaustive / 2).all()


@pytest.mark.parametrize("seed", [0, 1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (2, 3))])
def test_three_levels_lose_no_mass(seed):
    check_nothing_is_lost(Problem(seed, noise=[0.3, 0.7, 2.0, 10.0][seed], radii=(3, 5, 9), n=1))


def test_three_levels_on_every_device(device):
    check_nothing_is_lost(Problem(1, box=20, noise=0.7, radii=(3, 5, 8), n=1, device=device))


@pytest.mark.slow
def test_hundreds_of_random_problems():
    """400 problems of two levels, every twentieth of three; strong and weak signal; two minutes."""
    for seed in range(400):
        radii = (3, 5, 9) if seed % 20 == 0 else [(4, 9), (6, 6)][seed % 2]
        check_nothing_is_lost(
            Problem(seed, noise=[0.3, 0.7, 2.0, 10.0][seed // 2 % 4], box=20 + seed % 7, radii=radii, n=4 - len(radii))
        )


@pytest.mark.slow_emulated
def test_few_poses_are_scored_and_the_pose_is_found(device):
    """Under 5 % of the finest grid, angular error of the order of its step."""
    p = Problem(11, box=32, radii=(6, 9, 13), order=1, n=6, noise=0.35, device=device)
    result = p.run()
    last = result.statistics[-1]
    assert sum(s.evaluated + s.probed for s in result.statistics) < 0.05 * last.exhaustive
    a, b = vg.euler_to_matrix(result.angles_deg), vg.euler_to_matrix(p.truth)
    angle = np.degrees(np.arccos(np.clip((np.einsum("nij,nij->n", a, b) - 1) / 2, -1, 1)))
    assert np.median(angle) < geometry.healpix_spacing_deg(3)


def test_split_gives_every_fine_cell_one_parent():
    level = Level(4, 1, 16, 1.0)
    pixels, psi, shift = np.meshgrid(np.arange(48), np.arange(16), np.arange(3), indexing="ij")
    shift = np.stack([4 * (shift.ravel() - 1), 0 * shift.ravel()], axis=1)
    cells = Cells(np.zeros(pixels.size, np.int64), pixels.ravel(), psi.ravel(), shift)
    children = split(cells, level, 1)
    keys = np.column_stack([children.pixel, children.psi, children.shift])
    assert len(np.unique(keys, axis=0)) == len(keys) == 32 * len(cells)
    assert set(children.pixel) == set(range(192))
    assert set(children.psi) == set(range(32))
    # and the parent is near, at the poles too
    fine = Level(4, 2, 32, 0.5)
    a = np.repeat(vg.euler_to_matrix(angles_deg(level, cells.pixel, cells.psi)), 32, axis=0)
    b = vg.euler_to_matrix(angles_deg(fine, children.pixel, children.psi))
    angle = np.degrees(np.arccos(np.clip((np.einsum("nij,nij->n", a, b) - 1) / 2, -1, 1)))
    assert angle.max() < 0.75 * geometry.healpix_spacing_deg(1)


def test_bounds_hold_for_the_true_pose():
    """What the score of the true pose gains from a cell's centre to the end stays below the bound, at kappa's rate."""
    p = Problem(5, box=32, radii=(5, 8, 12), n=1, order=1, noise=0.5)
    rng = np.random.default_rng(0)
    level, last, trials = p.levels[0], p.levels[-1], 60
    cells = Cells(
        np.arange(trials), rng.integers(0, 192, trials) // 4, rng.integers(0, 16, trials), np.zeros((trials, 2), int)
    )
    fine = cells
    for k in range(2):
        fine = split(fine, p.levels[k], lattice_quarter(p.levels, k))[
            np.arange(trials) * 32 + rng.integers(0, 32, trials)
        ]
    params = np.repeat(p.params, trials, axis=0)
    p.images = images_of(
        p.volume, angles_deg(last, fine.pixel, fine.psi), fine.shift * p.search.unit_px, params, 0.5, rng
    )
    p.params, p.inv = params, np.full(32, 1 / (0.5 * 32) ** 2)
    inverse_noise = np.broadcast_to(p.inv, (trials, 32))
    batch = ImageBatch(np.arange(trials), p.images, params, inverse_noise, np.zeros((trials, 2)), PIXEL_A)
    coarse_score = p.search._score(batch, cells, 0).score
    final_score = p.search._score(batch, fine, 2).score
    bound = p.search._gains(batch)[0]
    assert (final_score - coarse_score <= bound).all()
    assert (final_score > coarse_score).mean() > 0.9  # and the bound is not idle
    assert level.radius == 5


def test_a_broad_posterior_stops_at_its_level(device):
    p = Problem(2, noise=30.0, device=device)
    p.search.settings = SearchSettings(shift_range_px=1.0, max_cells=100)
    result = p.run()
    assert result.level.tolist() == [0, 0]
    assert result.statistics[0].stopped == 2
    assert np.isfinite(result.log_evidence).all()


@pytest.mark.slow_emulated
@pytest.mark.parametrize(("noise", "max_cells"), [(0.4, 960), (2.0, 960), (0.4, 60), (2.0, 60)])
def test_broad_posteriors_can_go_on_with_their_best_cells(device, noise, max_cells):
    """keep_best: every image reaches the last level; where nothing is cut the result is the whole one, of 960 cells."""
    p = Problem(2, n=3, noise=noise, device=device)
    whole = p.run()
    p.search.settings = SearchSettings(shift_range_px=1.0, max_cells=max_cells, keep_best=True)
    cut = p.run()
    assert (cut.level == 1).all()
    assert cut.statistics[0].stopped == 0
    assert cut.statistics[0].survived <= 3 * max_cells
    assert cut.statistics[0].cut == (0 if max_cells == 960 else 3)
    if max_cells == 960:
        for name in ("angles_deg", "shifts_px", "score", "offsets", "pose_angles_deg", "probability"):
            np.testing.assert_array_equal(getattr(cut, name), getattr(whole, name))
    else:
        assert (cut.score <= whole.score).all()
        np.testing.assert_array_equal(cut.angles_deg, whole.angles_deg)  # the best pose lies in one of the best cells
    # and what an image gets does not depend on the others
    p.search.settings = SearchSettings(shift_range_px=1.0, max_cells=max_cells, keep_best=True, batch=1)
    np.testing.assert_array_equal(p.run().pose_angles_deg, cut.pose_angles_deg)


@pytest.mark.slow_emulated
def test_windows_restrict_the_search(device):
    p = Problem(8, box=32, radii=(6, 10), order=2, n=4, noise=0.5, device=device)
    everywhere = p.run()
    near = p.run(window=LocalWindow(everywhere.angles_deg, 20.0))
    np.testing.assert_allclose(near.angles_deg, everywhere.angles_deg)
    np.testing.assert_allclose(near.shifts_px, everywhere.shifts_px)
    assert near.statistics[0].evaluated < 0.2 * everywhere.statistics[0].evaluated
    tilted = everywhere.angles_deg + np.array([0, 60, 0])
    away = p.run(window=LocalWindow(tilted, 20.0))
    a, b = vg.euler_to_matrix(away.angles_deg), vg.euler_to_matrix(tilted)
    angle = np.degrees(np.arccos(np.clip((np.einsum("nij,nij->n", a, b) - 1) / 2, -1, 1)))
    assert angle.max() < 20 * 2 + 2 * geometry.healpix_spacing_deg(2)


def test_centres_and_a_gaussian_prior_of_shifts(device):
    p = Problem(6, noise=0.4, device=device)
    plain = p.run()
    centred = p.run(centres_px=np.tile([[1.0, -1.0]], (2, 1)))
    near = np.abs(plain.shifts_px - [1.0, -1.0]).max(axis=1) < 0.5
    np.testing.assert_allclose(centred.shifts_px[near], plain.shifts_px[near], atol=0.26)
    p.search.settings = SearchSettings(shift_range_px=1.0, shift_sigma_px=0.3, max_cells=10**9)
    tight = p.run()
    assert (np.hypot(*tight.shifts_px.T) <= np.hypot(*plain.shifts_px.T) + 1e-9).all()


def test_threads_and_batches_do_not_change_the_result(device):
    p = Problem(4, n=5, device=device)
    first = p.run()
    p.search.settings = SearchSettings(shift_range_px=1.0, max_cells=10**9, batch=2, slice_memory_MB=0.1)
    p.search.threads = 1
    second = p.run(known_deg=p.truth)
    for name in ("angles_deg", "shifts_px", "score", "offsets", "probability"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))


def test_windowed_images_come_back_in_their_order():
    """Inside, neighbours in direction share batches; what an image gets does not depend on its place."""
    p = Problem(12, n=9)
    p.search.settings = SearchSettings(shift_range_px=1.0, max_cells=10**9, batch=2)
    whole = p.run(window=LocalWindow(p.truth, 25.0))
    for i in range(9):
        alone = p.search.run(
            p.images[i : i + 1],
            p.inv,
            ctf=p.params[i : i + 1],
            pixel_size_A=PIXEL_A,
            window=LocalWindow(p.truth[i : i + 1], 25.0),
        )
        mine = slice(*whole.offsets[i : i + 2])
        np.testing.assert_array_equal(whole.angles_deg[i], alone.angles_deg[0])
        np.testing.assert_array_equal(whole.log_evidence[i], alone.log_evidence[0])
        np.testing.assert_array_equal(whole.probability[mine], alone.probability)
        np.testing.assert_array_equal(whole.pose_shifts_px[mine], alone.pose_shifts_px)


def test_windows_hold_modulo_symmetry():
    """A window may lie outside the asymmetric unit, or across its border; what it finds is the same particle's pose."""
    p = Problem(8, box=32, radii=(6, 10), order=2, n=6, noise=0.4, symmetry="D2")
    everywhere = p.run()
    group = geometry.symmetry_matrices("D2")
    for k in range(4):
        mates = vg.matrix_to_euler(vg.euler_to_matrix(everywhere.angles_deg) @ group[k])
        near = p.run(window=LocalWindow(mates, 12.0))
        assert geometry.angular_distance(near.angles_deg, everywhere.angles_deg, "D2").max() < 0.1
        np.testing.assert_allclose(near.shifts_px, everywhere.shifts_px)
    assert near.statistics[0].evaluated < 0.3 * everywhere.statistics[0].evaluated


def test_a_window_narrower_than_the_grid_holds_the_nearest_direction():
    p = Problem(12, n=9)
    found = p.run(window=LocalWindow(p.truth, 0.5))
    assert geometry.angular_distance(found.angles_deg, p.truth).max() < 2 * geometry.healpix_spacing_deg(0)
    assert found.statistics[0].evaluated < 9 * 3 * 3 * len(p.search.shifts)


def test_the_best_cells_are_those_of_a_sort():
    """best_of_each picks without sorting everything; equal scores go to the first."""
    rng = np.random.default_rng(0)
    image = np.repeat([0, 2, 3], [50, 3, 40])
    score = rng.integers(0, 8, len(image)).astype(float)
    zero = np.zeros(len(image), np.int64)
    found = Found(Cells(image, zero, zero, np.zeros((len(image), 2), np.int64)), score)
    order = np.lexsort((np.arange(len(image)), -score, image))
    rank = np.arange(len(image)) - np.searchsorted(image[order], image[order])
    np.testing.assert_array_equal(best_of_each(found, 4), order[rank < 4])


def test_bad_input_is_named():
    p = Problem(1)
    p.images[1, 3, 3] = np.nan
    with pytest.raises(vg.InputError, match="particle 8"):
        p.run(first_particle=7)
    p.images[1, 3, 3] = 0
    with pytest.raises(vg.InputError, match=r"particle 1: its window"):
        p.run(window=LocalWindow(p.truth * [[1.0], [np.nan]], 10.0))
    with pytest.raises(vg.InputError, match="2 images but 1 rows of known orientation"):
        p.run(known_deg=p.truth[:1])
    with pytest.raises(vg.InputError, match="radii"):
        search_levels([8, 4])
    with pytest.raises(vg.InputError, match="kappa"):
        SearchSettings(kappa=-1)
    with pytest.raises(vg.InputError, match="shells"):
        p.search.run(p.images[:1], np.ones(4))


def test_the_cost_is_stated_before_the_run():
    levels = search_levels([6, 10], order=1, n_psi=32)
    chosen = SearchSettings(shift_range_px=2.0)
    cost = search_cost(32, levels, settings=chosen, n_images=3)
    search = PoseSearch(blob_map(32, 0), levels, settings=chosen)
    assert cost.poses_per_image == [search.poses_per_image(k) for k in range(2)]
    assert cost.memory_bytes["transform"] == search.reference.spectrum.nbytes
    assert "GB" in str(cost)
    assert search_cost(64, levels, settings=chosen).memory_GB > cost.memory_GB


MEASURE = """
import numpy as np, psutil
from verglas.search import PoseSearch, SearchSettings, search_cost, search_levels
from verglas.refinement.em import peak_memory_GB
def peak(): return 1e9 * peak_memory_GB()
box, levels = 240, search_levels([16, 32, 60], order=2)
chosen = SearchSettings(shift_range_px=3, batch=8, slice_memory_MB=24)
rng = np.random.default_rng(0)
small = np.zeros((16,) * 3, np.float32); small[4:9, 5:11, 6:10] = 1
PoseSearch(small, search_levels([3, 5], order=0)).run(small.sum(0)[None], np.ones(9))
volume = np.zeros((box,) * 3, np.float32)
y, x = np.indices((box, box), dtype=np.float32) - box // 2
for z in range(box):  # plane by plane: what makes the test must not be its peak
    inside = x**2 + y**2 + (z - box // 2) ** 2 < (0.35 * box) ** 2
    volume[z] = rng.random((box, box), np.float32) * inside
image = volume.sum(0)
before = psutil.Process().memory_info().rss
images = np.tile(image, (8, 1, 1)) + rng.normal(0, 40, (8, box, box)).astype(np.float32)
cost = search_cost(box, levels, settings=chosen, diameter_px=0.8 * box)
PoseSearch(volume, levels, settings=chosen, diameter_px=0.8 * box).run(images, np.full(box, 1 / (40 * box) ** 2))
print(cost.memory_GB * 1e9 - volume.nbytes, peak() - before, cost)
"""


@pytest.mark.slow
def test_the_memory_stated_is_the_memory_taken():
    done = subprocess.run([sys.executable, "-c", MEASURE], capture_output=True, text=True, check=True)
    stated, taken = (float(v) for v in done.stdout.split()[:2])
    # 25 MB of allocator and thread stacks beside 200 MB of arrays; bench_search.py measures box 384
    assert abs(stated - taken) < 0.1 * taken + 25e6, done.stdout
