"""ops.score on a device: the precision it needs, the CPU's results, little memory, arrays that lie there already."""

from __future__ import annotations

import numpy as np
import pytest

from verglas import ops

from devices import host, on
from score_problem import PIXEL_A, Problem
from tolerance import SCORE_FLOAT32, SCORE_POSTERIOR_MASS


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
        [0, 2, 2, 5, 6, 8, 9],
        [0, 3, 1, 1, 1, 2, 0, 0, 4],
        np.arange(9) % 2 == 1,
        np.arange(9),
        7 * np.arange(7),
        np.tile(p.shifts, (6, 1)),
    )

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
