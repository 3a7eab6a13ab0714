"""Maps from sums in one go: the bits of weights and inversion apart, whatever the threads; tables of shells."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from verglas import gridding, ops
from verglas.errors import InputError
from verglas.reconstruction import direct


def random_sums(box: int, radius: int) -> ops.GridSums:
    sums = ops.GridSums.zeros(ops.Grid(box, max_radius=radius))
    assert sums.values is not None
    assert sums.weights is not None
    rng = np.random.default_rng(box)
    sums.values[...] = rng.standard_normal(sums.values.shape) + 1j * rng.standard_normal(sums.values.shape)
    sums.weights[...] = np.maximum(rng.standard_normal(sums.weights.shape), 0)  # half of the points know nothing
    return sums


@pytest.mark.parametrize(("box", "radius"), [(24, 11), (31, 9), (33, 16)])
@pytest.mark.parametrize("regularised", [False, True])
def test_one_go_is_weights_and_inversion(box: int, radius: int, regularised: bool) -> None:
    sums = random_sums(box, radius)
    assert sums.weights is not None
    ssnr = np.linspace(5, 0, sums.grid.max_radius + 1) if regularised else None
    apart = direct.invert(sums, direct.density_weights(sums.weights, sums.grid, ssnr=ssnr), threads=1)
    means = direct.shell_means(sums.weights, sums.grid)
    for threads in (1, 3, 40):
        np.testing.assert_array_equal(direct.solve(sums, ssnr=ssnr, threads=threads), apart)
    np.testing.assert_array_equal(direct.solve(sums, ssnr=ssnr, means=means, threads=2), apart)
    assert apart.dtype == np.float32


def test_transforms_do_not_depend_on_threads() -> None:
    volume = np.random.default_rng(1).standard_normal((30, 30, 30)).astype(np.float32)
    grid = ops.Grid(30)
    spectrum = gridding.to_grid(volume, grid, threads=1)
    np.testing.assert_array_equal(gridding.to_grid(volume, grid, threads=3), spectrum)
    back = gridding.from_grid(spectrum, grid, threads=1)
    np.testing.assert_array_equal(gridding.from_grid(spectrum, grid, threads=3), back)


def test_shells_are_rounded_distances() -> None:
    grid = ops.Grid(18)
    k = np.arange(-grid.extent, grid.extent + 1)
    x = np.arange(grid.shape[2]) - grid.halo
    distance = np.sqrt(k[:, None, None] ** 2.0 + k[:, None] ** 2 + x**2) * grid.box / grid.padded
    np.testing.assert_array_equal(direct.grid_shells(grid), np.rint(distance).astype(int))
    np.testing.assert_array_equal(direct.grid_shells(grid, slice(3, 5)), np.rint(distance)[3:5].astype(int))


def test_means_are_those_of_shells() -> None:
    sums = random_sums(20, 8)
    assert sums.weights is not None
    sums.weights[:, :, : sums.grid.halo] = 0  # as folding leaves it: these columns stand for nothing
    shells = direct.grid_shells(sums.grid)
    shells[:, :, : sums.grid.halo] = -1
    wanted = [sums.weights[shells == s].mean() for s in range(9)]
    np.testing.assert_allclose(direct.shell_means(sums.weights, sums.grid), wanted, rtol=1e-12)


def test_sums_without_weight_are_refused() -> None:
    with pytest.raises(InputError, match="no image carries any weight"):
        direct.solve(ops.GridSums.zeros(ops.Grid(12)))


def test_an_error_in_a_thread_is_raised() -> None:
    def fails(block: slice) -> None:
        raise MemoryError("no room")

    with pytest.raises(MemoryError, match="no room"):
        gridding.in_blocks(fails, 10, 3, 2)


def test_many_threads_do_not_hold_the_whole_axis_at_once() -> None:
    lock, busy, most = threading.Lock(), 0, 0

    def work(block: slice) -> None:
        nonlocal busy, most
        with lock:
            busy += 1
            most = max(most, busy)
        time.sleep(0.002)
        with lock:
            busy -= 1

    gridding.in_blocks(work, 32, 2, 64)
    assert 1 < most <= 4
