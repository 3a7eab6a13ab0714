"""Sums without the corners of the grid: the same bits in about half the memory."""

from __future__ import annotations

import numpy as np
import pytest

from verglas import ops
from verglas.errors import InputError
from verglas.geometry import euler_to_matrix, random_orientations, symmetry_matrices
from verglas.reconstruction.direct import shell_means
from verglas.reconstruction.direct import solve as solve_direct
from verglas.reconstruction.packed_sums import PackedSums, whole_weights
from verglas.reconstruction.sums import Symmetry, finish

BOX = 24


def inserted(seed: int, *, max_radius: int = BOX // 2 - 1, n: int = 40) -> ops.GridSums:
    """Sums of noise in random orientations."""
    rng = np.random.default_rng(seed)
    images = rng.normal(size=(2, n, BOX, BOX // 2 + 1)).astype(np.float32)
    sums = ops.GridSums.zeros(ops.Grid(BOX, max_radius=max_radius, oversampling=2.0))
    ops.insert(sums, (images[0] + 1j * images[1]).astype(np.complex64), euler_to_matrix(random_orientations(n, seed)))
    return sums


def same(a: ops.GridSums, b: ops.GridSums) -> bool:
    return np.array_equal(a.values, b.values) and np.array_equal(a.weights, b.weights)


@pytest.mark.parametrize("max_radius", [11, 5])
def test_packing_loses_nothing_and_halves_the_memory(max_radius):
    sums = inserted(0, max_radius=max_radius)
    packed = PackedSums.of(sums)
    assert same(packed.unpack(), sums)
    whole = sums.values.nbytes + sums.weights.nbytes
    assert packed.values.nbytes + packed.weights.nbytes < (0.75 if max_radius == 5 else 0.65) * whole


def test_at_the_size_of_real_sums_it_is_little_more_than_half():
    grid = ops.Grid(256, max_radius=127, oversampling=2.0)
    assert ops.count_points(grid) < 0.53 * np.prod(grid.shape)


def test_adding_packed_sums_gives_the_bits_of_adding_whole_ones():
    a, b = inserted(1), inserted(2)
    wanted = a + b
    total = PackedSums.of(a)
    assert same((total + PackedSums.of(b)).unpack(), wanted)
    total += b
    assert same(total.unpack(), wanted)
    again = PackedSums.of(a)
    again += PackedSums.of(b)
    assert same(again.unpack(), wanted)


@pytest.mark.parametrize("symmetry", ["C1", "D2"])
def test_maps_of_packed_sums_are_those_of_whole_ones(symmetry):
    group = Symmetry.of(symmetry_matrices(symmetry))
    packed = PackedSums.of(inserted(3))
    finished = finish(packed.unpack(), group)
    packed.fill(finished)
    assert np.array_equal(whole_weights(packed), finished.weights)
    means = shell_means(finished.weights, finished.grid)
    for how in ({}, {"ssnr": np.linspace(9, 0.1, BOX // 2)}, {"means": means, "threads": 3}):
        assert np.array_equal(solve_direct(packed, **how), solve_direct(finished, **how))


def test_nothing_outside_the_ball_is_dropped_in_silence():
    sums = inserted(4)
    sums.weights[0, 0, -1] = np.nan
    with pytest.raises(InputError, match="beyond shell 11"):
        PackedSums.of(sums)
    packed = PackedSums.of(inserted(4))
    with pytest.raises(InputError, match="beyond shell 11"):
        packed += sums


def test_sums_of_other_grids_and_of_one_kind_are_refused():
    packed = PackedSums.of(inserted(5))
    with pytest.raises(InputError, match="different grids"):
        packed += inserted(5, max_radius=7)
    with pytest.raises(InputError, match="of values and of weights"):
        PackedSums.of(ops.GridSums.zeros(ops.Grid(8), weights=False))


@pytest.mark.parametrize("box", [9, 23, 25])
def test_odd_boxes_too(box):
    images = np.random.default_rng(7).normal(size=(2, 20, box, box // 2 + 1)).astype(np.float32)
    turns = euler_to_matrix(random_orientations(20, 8))
    sums = ops.GridSums.zeros(ops.Grid(box, max_radius=(box - 1) // 2, oversampling=2.0))
    ops.insert(sums, (images[0] + 1j * images[1]).astype(np.complex64), turns)
    packed = PackedSums.of(sums)
    finished = finish(packed.unpack(), Symmetry.of(symmetry_matrices("D3")))
    packed.fill(finished)
    for threads in (1, 3):
        assert np.array_equal(solve_direct(packed, threads=threads), solve_direct(finished, threads=1))
