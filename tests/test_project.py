"""ops.project and ops.insert: against the exact transform, as adjoints of each other, and on the exact data set."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation
from volumes import blob, relative

from verglas import fourier, gridding, ops, reference
from verglas.geometry import symmetry_matrices

from devices import host, on
from tolerance import ADJOINT_RELATIVE, INSERT_DEVICE_RELATIVE, PROJECT_FINE_RELATIVE, PROJECT_RELATIVE


def random_matrices(n: int, seed: int) -> np.ndarray:
    return Rotation.random(n, random_state=seed).as_matrix()


def half_dot(a: np.ndarray, b: np.ndarray, box: int) -> float:
    """Inner product over the full plane of two half transforms."""
    weights = fourier.half_weights((box, box))
    return float(np.sum((a * np.conj(b)).real.astype(np.float64) * weights))


@pytest.mark.parametrize("box", [16, 17, 24])
@pytest.mark.parametrize(
    ("kwargs", "tolerance"),
    [
        ({}, PROJECT_RELATIVE),
        ({"width": 6, "oversampling": 1.25}, PROJECT_FINE_RELATIVE),
        ({"width": 6, "oversampling": 1.25, "window": "semicircle"}, PROJECT_FINE_RELATIVE),
        ({"width": 8, "oversampling": 1.5}, PROJECT_FINE_RELATIVE),
    ],
)
def test_slices_equal_the_exact_transform(device, box, kwargs, tolerance):
    volume, matrices = blob(box, 1), random_matrices(6, 2)
    shifts = np.random.default_rng(3).normal(size=(6, 2)) * 2
    grid = ops.Grid(box, **kwargs)
    got = host(ops.project(gridding.to_grid(volume, grid), grid, matrices, shifts_px=shifts, device=device))
    want = reference.project.project(volume, matrices, grid.max_radius, shifts)
    assert relative(got, want) < tolerance


CURVED = np.array([0.02, -0.02, 0.005, 0.0])  # per Fourier pixel: up to a pixel and a half off the plane at shell 8


def test_curved_slices_equal_the_exact_transform(device):
    volume, matrices = blob(17, 1), random_matrices(4, 2)
    grid = ops.Grid(17, width=8)
    spectrum = gridding.to_grid(volume, grid)
    got = host(ops.project(spectrum, grid, matrices, curvature=CURVED, device=device))
    want = reference.project.project(volume, matrices, grid.max_radius, curvature=CURVED)
    assert relative(got, want) < PROJECT_FINE_RELATIVE
    flat = host(ops.project(spectrum, grid, matrices, device=device))
    assert np.array_equal(got[3], flat[3])
    assert relative(got[0], flat[0]) > 0.1
    with pytest.raises(ValueError, match="curvature: slice 2 leaves the grid"):
        ops.project(spectrum, grid, matrices, curvature=[0.0, 0.0, 0.3, np.nan], device=device)


@pytest.mark.parametrize("deterministic", [False, True])
def test_curved_insertion_equals_the_exact_adjoint(device, deterministic):
    """A slice with both curvatures: only together are they the Friedel mates of each other on the column kx = 0."""
    box, rng = 16, np.random.default_rng(5)
    grid = ops.Grid(box, width=6, oversampling=1.5)
    matrices, shifts = random_matrices(4, 6), rng.normal(size=(4, 2))
    images = fourier.forward(rng.normal(size=(4, box, box)).astype(np.float32), 2)
    sums = ops.GridSums.zeros(grid, weights=False, device=device)
    want = np.zeros((box,) * 3)
    for sign in (1, -1):
        given = {"shifts_px": shifts, "curvature": sign * CURVED}
        ops.insert(sums, images, matrices, **given, device=device, deterministic=deterministic)
        want += reference.project.insert(images, matrices, grid.max_radius, **given)
    ops.fold(sums)
    x = np.arange(box) - box // 2
    ball = x[:, None, None] ** 2 + x[:, None] ** 2 + x**2 <= (0.375 * box) ** 2
    assert relative(gridding.from_grid(host(sums.values), grid)[ball], want[ball]) < PROJECT_FINE_RELATIVE


def test_identity_slice_is_the_projection_along_z(device):
    volume = blob(20, 4)
    grid = ops.Grid(20, width=6, oversampling=1.5)
    slices = host(ops.project(gridding.to_grid(volume, grid), grid, np.eye(3)[None], device=device))
    want = fourier.forward(volume.sum(0), 2) * (fourier.shells((20, 20)) <= grid.max_radius)
    assert relative(slices[0], want) < PROJECT_FINE_RELATIVE


@settings(deadline=None, max_examples=15)
@given(
    box=st.integers(4, 21),
    seed=st.integers(0, 1000),
    kwargs=st.sampled_from(
        [{}, {"width": 6, "oversampling": 1.25}, {"width": 2, "oversampling": 2.0, "window": "linear"}, {"width": 8}]
    ),
    with_ctf=st.booleans(),
    deterministic=st.booleans(),
)
def test_insert_is_the_adjoint_of_project(device, box, seed, kwargs, with_ctf, deterministic):
    rng = np.random.default_rng(seed)
    grid = ops.Grid(box, **kwargs)
    radius = int(rng.integers(0, grid.max_radius + 1))
    matrices, shifts = random_matrices(3, seed), rng.normal(size=(3, 2)) * 3
    volume = rng.normal(size=(box,) * 3).astype(np.float32)
    images = fourier.forward(rng.normal(size=(3, box, box)).astype(np.float32), 2)
    ctf = rng.normal(size=images.shape).astype(np.float32) if with_ctf else None
    if ctf is not None and box > 1:  # a real image's factor is even: equal on both mates of the column kx = 0
        ctf[:, 1:, 0] = (ctf[:, 1:, 0] + ctf[:, :0:-1, 0]) / 2
    common = {"max_radius": radius, "shifts_px": shifts, "ctf": ctf}
    slices = host(ops.project(gridding.to_grid(volume, grid), grid, matrices, **common, device=device))
    sums = ops.GridSums.zeros(grid, weights=False, device=device)
    ops.insert(sums, images, matrices, **common, device=device, deterministic=deterministic)
    ops.fold(sums)
    back = gridding.from_grid(host(sums.values), grid)
    scale = np.linalg.norm(slices) * np.linalg.norm(images)
    assert abs(half_dot(slices, images, box) - np.sum(volume * back.astype(np.float64))) <= ADJOINT_RELATIVE * scale


def test_insert_equals_the_exact_adjoint(device):
    box, rng = 16, np.random.default_rng(5)
    grid = ops.Grid(box, width=6, oversampling=1.5)
    matrices, shifts = random_matrices(4, 6), rng.normal(size=(4, 2))
    images = fourier.forward(rng.normal(size=(4, box, box)).astype(np.float32), 2)
    sums = ops.GridSums.zeros(grid, weights=False, device=device)
    ops.insert(sums, images, matrices, shifts_px=shifts, device=device)
    ops.fold(sums)
    want = reference.project.insert(images, matrices, grid.max_radius, shifts)
    x = np.arange(box) - box // 2
    ball = x[:, None, None] ** 2 + x[:, None] ** 2 + x**2 <= (0.375 * box) ** 2
    assert relative(gridding.from_grid(host(sums.values), grid)[ball], want[ball]) < PROJECT_FINE_RELATIVE


def make_sums(grid, images, matrices, batches=1, device="cpu", **kwargs):
    """Sums of both kinds, brought back to the host."""
    sums = ops.GridSums.zeros(grid, device=device)
    for part in np.array_split(np.arange(len(images)), batches):
        selected = {k: v[part] if isinstance(v, np.ndarray) else v for k, v in kwargs.items()}
        ops.insert(sums, np.ascontiguousarray(images[part]), matrices[part], **selected, device=device)
    return sums


def weighted_images(box: int, n: int, seed: int):
    """A grid, and what insert can be given for images on it."""
    grid, rng = ops.Grid(box), np.random.default_rng(seed)
    images = fourier.forward(rng.normal(size=(n, box, box)).astype(np.float32), 2)
    ctf = rng.normal(size=images.shape).astype(np.float32)
    weight = rng.uniform(0.5, 2, size=(n, grid.max_radius + 1)).astype(np.float32)
    return grid, images, random_matrices(n, seed + 1), {"ctf": ctf, "shell_weight": weight}


def test_sums_are_bitwise_equal_for_any_threads_and_batches(device):
    grid, images, matrices, given = weighted_images(20, 23, 7)
    given["curvature"] = np.linspace(-0.02, 0.02, 23)
    common = {**given, "device": device, "deterministic": True}
    first = host(make_sums(grid, images, matrices, **common, threads=1))
    for threads, batches in [(2, 1), (5, 1), (1, 4), (3, 23)] if device == "cpu" else [(1, 1), (1, 4)]:
        other = host(make_sums(grid, images, matrices, batches, **common, threads=threads))
        assert np.array_equal(first.values, other.values)
        assert np.array_equal(first.weights, other.weights)


def test_more_images_than_are_taken_at_a_time_are_inserted_one_after_the_other():
    # The CPU's entries have room for 5,000 images of this box; the pieces of one call are none of the halves' pieces.
    grid, images, matrices, _ = weighted_images(32, 16, 2)
    few = np.arange(5200) % 16
    whole, halves = (make_sums(grid, images[few], matrices[few], batches) for batches in (1, 2))
    assert np.array_equal(whole.values, halves.values)
    assert np.array_equal(whole.weights, halves.weights)
    once = make_sums(grid, images, matrices)
    assert relative(whole.values, 325 * once.values) < 1e-12


@pytest.mark.parametrize("deterministic", [False, True])
def test_sums_of_a_device_are_those_of_the_cpu(device, deterministic):
    grid, images, matrices, given = weighted_images(21, 9, 3)
    given["shifts_px"] = np.random.default_rng(1).normal(size=(9, 2))
    want = make_sums(grid, images, matrices, **given)
    got = host(make_sums(grid, images, matrices, **given, device=device, deterministic=deterministic))
    assert relative(got.values, want.values) < INSERT_DEVICE_RELATIVE
    assert relative(got.weights, want.weights) < INSERT_DEVICE_RELATIVE


def test_arrays_of_the_device_are_taken_as_they_are(device):
    grid, images, matrices, given = weighted_images(12, 3, 5)
    spectrum = gridding.to_grid(blob(12, 1), grid)
    there = {name: on(device, a) for name, a in given.items()}
    sums = ops.GridSums.zeros(grid, device=device)
    ops.insert(sums, on(device, images), on(device, matrices), **there, device=device, deterministic=True)
    want = make_sums(grid, images, matrices, **given, device=device, deterministic=True)
    assert np.array_equal(host(sums.values), host(want.values))
    out = on(device, np.zeros((3, 12, 7), np.complex64))
    slices = ops.project(on(device, spectrum), grid, on(device, matrices), ctf=there["ctf"], out=out, device=device)
    assert slices is out
    assert np.array_equal(host(out), host(ops.project(spectrum, grid, matrices, ctf=given["ctf"], device=device)))
    with pytest.raises(ValueError, match=r"spectrum: expected .* complex64"):
        ops.project(on(device, spectrum.astype(np.complex128)), grid, matrices, device=device)


def test_a_matrix_of_the_device_that_is_no_rotation_shows(device):
    if device == "cpu":
        pytest.skip("the CPU's matrices are checked before")
    grid, images, matrices, _ = weighted_images(12, 3, 5)
    matrices[1] *= 1.5
    slices = host(ops.project(gridding.to_grid(blob(12, 1), grid), grid, on(device, matrices), device=device))
    assert np.isfinite(slices).all(axis=(1, 2)).tolist() == [True, False, True]
    for deterministic in (False, True):
        sums = ops.GridSums.zeros(grid, device=device)
        ops.insert(sums, images, on(device, matrices), device=device, deterministic=deterministic)
        assert np.isnan(host(sums.values)).sum() == np.isnan(host(sums.weights)).sum() == 1


def test_weights_are_the_values_of_unit_images(device):
    grid = ops.Grid(18)
    matrices = random_matrices(5, 9)
    ones = np.ones((5, 18, 10), np.complex64)
    sums = make_sums(grid, ones, matrices, device=device, deterministic=True)
    ops.fold(sums)
    np.testing.assert_allclose(host(sums.values).real, host(sums.weights), atol=1e-6)
    only = ops.GridSums.zeros(grid, values=False, device=device)
    ops.insert(only, None, matrices, device=device, deterministic=True)
    ops.fold(only)
    np.testing.assert_array_equal(host(only.weights), host(sums.weights))


def test_projection_does_not_depend_on_threads():
    grid = ops.Grid(16)
    spectrum = gridding.to_grid(blob(16, 1), grid)
    matrices = random_matrices(9, 2)
    one = ops.project(spectrum, grid, matrices, threads=1)
    assert np.array_equal(one, ops.project(spectrum, grid, matrices, threads=4))


def test_symmetrise_equals_insertion_of_every_copy(device):
    grid = ops.Grid(15)
    rng = np.random.default_rng(3)
    matrices = random_matrices(4, 3)
    images = fourier.forward(rng.normal(size=(4, 15, 15)).astype(np.float32), 2)
    fourfold = np.array([[0, -1, 0], [1, 0, 0], [0, 0, 1.0]])
    group = [np.linalg.matrix_power(fourfold, i) for i in range(4)]
    sums = make_sums(grid, images, matrices, device=device)
    ops.fold(sums)
    got = host(ops.symmetrise(sums, group))
    want = ops.GridSums.zeros(grid)
    for h in group:
        ops.insert(want, images, matrices @ h)
    ops.fold(want)
    np.testing.assert_allclose(got.values, want.values, atol=1e-4 * np.abs(want.values).max())
    np.testing.assert_allclose(got.weights, want.weights, atol=1e-5 * want.weights.max())


def test_sums_add_in_place_and_refuse_what_does_not_fit():
    grid = ops.Grid(8)
    images = fourier.forward(np.random.default_rng(0).normal(size=(2, 8, 8)).astype(np.float32), 2)
    one, two = (make_sums(grid, images[i : i + 1], random_matrices(1, i)) for i in range(2))
    both = one + two
    one += two
    assert np.array_equal(one.values, both.values)
    assert np.array_equal(one.weights, both.weights)
    with pytest.raises(ValueError, match="different grids"):
        one += ops.GridSums.zeros(ops.Grid(10))
    with pytest.raises(ValueError, match="lacks values or weights"):
        one += ops.GridSums.zeros(grid, values=False)


@pytest.mark.parametrize("symmetry", ["D2", "C4", "D4", "O"])
def test_symmetrise_sums_every_point_over_its_orbit(symmetry):
    """Against the definition, point by point; a group with its axes along z has mates on the plane x = 0 too."""
    grid = ops.Grid(12)
    sums = make_sums(
        grid,
        fourier.forward(np.random.default_rng(4).normal(size=(3, 12, 12)).astype(np.float32), 2),
        random_matrices(3, 5),
    )
    ops.fold(sums)
    group = np.rint(symmetry_matrices(symmetry)).astype(int)
    e, halo = grid.extent, grid.halo
    z, y, x = np.meshgrid(np.arange(-e, e + 1), np.arange(-e, e + 1), np.arange(e + 1), indexing="ij")
    want = np.zeros(z.shape, complex)
    for h in group:
        px, py, pz = (h @ np.stack([x, y, z]).reshape(3, -1)).reshape(3, *z.shape)
        sign = np.where(px < 0, -1, 1)
        value = sums.values[sign * pz + e, sign * py + e, sign * px + halo]
        want += np.where(px < 0, value.conj(), value)
    got = ops.symmetrise(sums, group)
    np.testing.assert_allclose(got.values[..., halo : halo + e + 1], want, atol=1e-12 * np.abs(want).max())
    assert not got.values[..., :halo].any()
    one = ops.symmetrise(sums, group, threads=1)
    assert np.array_equal(one.values, ops.symmetrise(sums, group, threads=3).values)


def test_window_transform_is_that_of_the_taps():
    """The polynomial taps, summed at a shift, have the transform that the maps are divided by."""
    for kwargs in ({}, {"width": 6, "oversampling": 1.25}, {"width": 2, "oversampling": 2.0, "window": "linear"}):
        grid = ops.Grid(32, **kwargs)
        want = ops.grid.window_value(np.array([0.0, 0.3, 0.5]), grid.width, grid.window, grid.oversampling)
        assert np.all(np.diff(want) < 0)
        centre = grid.window_transform()[16]
        u = np.linspace(-grid.width / 2, grid.width / 2, 20001)
        values = ops.grid.window_value(u, grid.width, grid.window, grid.oversampling)
        assert centre == pytest.approx(np.trapezoid(values, u), rel=1e-6)


def test_bad_input_is_named(device):
    on_it = {"device": device}
    grid = ops.Grid(16)
    spectrum = gridding.to_grid(blob(16, 1), grid)
    with pytest.raises(ValueError, match="spectrum"):
        ops.project(spectrum[:-1], grid, np.eye(3)[None], **on_it)
    with pytest.raises(ValueError, match="matrices"):
        ops.project(spectrum, grid, np.eye(3), **on_it)
    for wrong in (np.nan, 2.0):  # either would reach outside the grid
        with pytest.raises(ValueError, match="matrix 1 is not a rotation"):
            ops.project(spectrum, grid, np.stack([np.eye(3), wrong * np.eye(3)]), **on_it)
    with pytest.raises(ValueError, match="not a rotation"):
        ops.insert(
            ops.GridSums.zeros(grid, device=device), np.zeros((1, 16, 9), np.complex64), 3 * np.eye(3)[None], **on_it
        )
    with pytest.raises(ValueError, match="max_radius"):
        ops.project(spectrum, grid, np.eye(3)[None], max_radius=8, **on_it)
    with pytest.raises(ValueError, match="shifts_px"):
        ops.project(spectrum, grid, np.eye(3)[None], shifts_px=np.zeros((2, 2)), **on_it)
    with pytest.raises(ValueError, match="images"):
        ops.insert(ops.GridSums.zeros(grid, device=device), np.zeros((1, 16, 9)), np.eye(3)[None], **on_it)
    with pytest.raises(ValueError, match="signed permutations"):
        ops.symmetrise(ops.GridSums.zeros(grid, device=device), random_matrices(1, 0))
    with pytest.raises(ValueError, match="not a closed group"):
        ops.symmetrise(ops.GridSums.zeros(grid, device=device), symmetry_matrices("C4")[:2])


@pytest.mark.parametrize(
    ("kwargs", "words"),
    [
        ({"box": 1}, "box"),
        ({"box": 16, "max_radius": 8}, "max_radius"),
        ({"box": 16, "width": 3}, "taps"),
        ({"box": 16, "oversampling": 1.0}, "oversampling"),
        ({"box": 16, "width": 2}, "linear"),
    ],
)
def test_bad_grids_are_named(kwargs, words):
    with pytest.raises(ValueError, match=words):
        ops.Grid(**kwargs)
