"""ops.polar and the other polar ops against direct float64 sums and a non-uniform FFT."""

from __future__ import annotations

import finufft
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import verglas as vg
from verglas import gridding, ops, reference

from devices import host, on
from tolerance import POLAR_NUFFT_REL, POLAR_REL, PROJECT_RELATIVE


def relative(got, want):
    return np.linalg.norm(got - want) / max(np.linalg.norm(want), 1e-30)


def relative_to_noise(got, want, box, count):
    """Error relative to what white noise of unit variance gives: |X| = box per sample. A few rings of a small image can
    happen to hold much less, which says nothing about the interpolation."""
    return np.linalg.norm(got - want) / max(np.linalg.norm(want), box * np.sqrt(count))


@st.composite
def grids(draw):
    box = draw(st.integers(9, 40))
    radius = draw(st.integers(1, (box - 1) // 2))
    diameter = draw(st.floats(0.3, 1.0)) * box
    return ops.PolarGrid(box, radius, diameter_px=diameter, spacing=draw(st.sampled_from([1.0, 0.5])))


@settings(deadline=None, max_examples=30)
@given(grid=grids(), seed=st.integers(0, 1000), n=st.integers(1, 3))
def test_samples_and_harmonics_equal_the_direct_sum(device, grid, seed, n):
    images = np.random.default_rng(seed).standard_normal((n, grid.box, grid.box)).astype(np.float32)
    samples = ops.polar(images, grid, device=device)
    got = host(samples)
    want = reference.polar.polar(images, grid.radii, grid.n_theta)
    assert relative_to_noise(got, want[..., : grid.n_theta // 2], grid.box, got.size) < POLAR_REL
    harmonics = grid.unpack(host(ops.polar_harmonics(samples, grid, device=device)))
    direct = reference.polar.polar_harmonics(want, grid.max_m).swapaxes(1, 2) / grid.n_theta
    kept = np.arange(grid.n_rings) >= grid.first_ring[:, None]
    # Parseval: the harmonics of a ring hold the mean power of its samples, half of it in m >= 0.
    assert relative_to_noise(harmonics[:, kept], direct[:, kept], grid.box, n * grid.n_rings / 2) < POLAR_REL


@settings(deadline=None, max_examples=20)
@given(
    grid=grids(),
    seed=st.integers(0, 1000),
    u=st.floats(3000, 30000),
    astigmatism=st.floats(-3000, 3000),
    shifts=st.lists(st.tuples(st.floats(-9, 9), st.floats(-9, 9)), min_size=1, max_size=20),
)
def test_weighted_harmonics_equal_the_direct_sum(device, grid, seed, u, astigmatism, shifts):
    """b = polar transform of C X S(t) / sigma2, weights w_r included, with an astigmatic CTF."""
    rng = np.random.default_rng(seed)
    images = rng.standard_normal((2, grid.box, grid.box)).astype(np.float32)
    inv_sigma2 = rng.uniform(0.5, 2, (2, grid.n_rings)).astype(np.float32)
    params = vg.Optics([u, u + 500], [u + astigmatism, u], [30.0, 70.0]).as_params()
    samples = ops.polar(images, grid, device=device)
    optics = {"ctf": params, "pixel_size_A": 2.0, "inv_sigma2": inv_sigma2}
    got = host(ops.polar_weighted(samples, grid, shifts, **optics, device=device))
    kx, ky = reference.polar.points(grid.radii, grid.n_theta)
    c = np.array([reference.ctf.ctf_at(p, kx / (2.0 * grid.box), ky / (2.0 * grid.box)) for p in params])
    y = reference.polar.transform_2d(images, kx, ky) * c * inv_sigma2[..., None]
    t = np.float32(shifts).astype(float)
    phase = np.exp(-2j * np.pi * (t[:, 0, None, None] * kx + t[:, 1, None, None] * ky) / grid.box)
    want = reference.polar.polar_harmonics(y[:, None] * phase, grid.max_m).swapaxes(2, 3) * grid.weights
    kept = np.arange(grid.n_rings) >= grid.first_ring[:, None]
    assert relative(grid.unpack(got)[..., kept], want[..., kept]) < 3 * POLAR_REL


def test_samples_equal_a_nonuniform_fft(device):
    grid = ops.PolarGrid(65, 30)
    image = np.random.default_rng(1).standard_normal((1, 65, 65)).astype(np.float32)
    kx, ky = reference.polar.points(grid.radii, grid.n_theta)
    x, y = 2 * np.pi * kx.ravel() / 65, 2 * np.pi * ky.ravel() / 65
    want = finufft.nufft2d2(y, x, image[0].astype(complex), isign=-1, eps=1e-9).reshape(kx.shape)
    assert relative(host(ops.polar(image, grid, device=device))[0], want[:, : grid.n_theta // 2]) < POLAR_NUFFT_REL


def test_a_central_point_has_a_constant_transform(device):
    for box in (16, 17):
        image = np.zeros((1, box, box), np.float32)
        image[0, box // 2, box // 2] = 2.0
        got = host(ops.polar(image, ops.PolarGrid(box, 5), device=device))
        np.testing.assert_allclose(got, 2.0, atol=2e-4)


def test_a_rotation_is_a_cyclic_shift_of_the_rings():
    """A rotation by one angular step is a cyclic shift of the unravelled rings."""
    grid = ops.PolarGrid(48, 20)
    step = 2 * np.pi / grid.n_theta
    points = np.array([[9.0, 3.0], [-5.0, 8.0], [2.0, -11.0]])
    k = np.stack(reference.polar.points(grid.radii, grid.n_theta), axis=-1)

    def transform(xy):
        return np.exp(-2j * np.pi * k @ xy.T / grid.box).sum(-1)

    c, s = np.cos(step), np.sin(step)
    turned = transform(points @ np.array([[c, s], [-s, c]]))
    np.testing.assert_allclose(turned[:, 1:], transform(points)[:, :-1], atol=1e-9)
    # and the kernel's harmonics of it are the unturned ones times exp(-i m step)
    half = grid.n_theta // 2
    a, b = (grid.unpack(ops.polar_harmonics(f[None, :, :half], grid)) for f in (transform(points), turned))
    kept = np.arange(grid.n_rings) >= grid.first_ring[:, None]
    want = a * np.exp(-1j * step * np.arange(grid.max_m + 1))[:, None]
    np.testing.assert_allclose(b[0][kept], want[0][kept], atol=1e-5)


@pytest.mark.parametrize("spacing", [1.0, 0.5])
def test_weights_turn_sums_over_rings_into_sums_over_the_plane(device, spacing):
    """The polar sum of |X|^2 of a masked image equals the Cartesian one over 0 < |k| < R + 1/2."""
    rng = np.random.default_rng(3)
    box, radius = 64, 24
    y, x = np.indices((box, box)) - box // 2
    image = (rng.standard_normal((box, box)) * (np.hypot(x, y) < 22)).astype(np.float32)
    grid = ops.PolarGrid(box, radius, diameter_px=46, spacing=spacing)
    power = np.abs(np.fft.fftn(image)) ** 2
    k = np.hypot(*np.meshgrid(np.fft.fftfreq(box, 1 / box), np.fft.fftfreq(box, 1 / box)))
    want = power[(k > 0) & (k < radius + 0.5)].sum()
    power_of_rings = host(ops.polar_power(ops.polar(image[None], grid, device=device), grid, 1, device=device))
    got = power_of_rings[0, :, 0].real @ (grid.weights * grid.n_theta)
    assert abs(got / want - 1) < 0.02


def test_power_harmonics_equal_the_direct_sum(device):
    grid = ops.PolarGrid(24, 9)
    images = np.random.default_rng(4).standard_normal((2, 24, 24)).astype(np.float32)
    got = host(ops.polar_power(ops.polar(images, grid, device=device), grid, 4, device=device))
    full = np.abs(reference.polar.polar(images, grid.radii, grid.n_theta)) ** 2
    want = reference.polar.polar_harmonics(full, 6)[..., ::2] / grid.n_theta
    assert relative(got, want) < POLAR_REL


def test_threads_batch_and_order_do_not_change_a_bit(device):
    grid, on_it = ops.PolarGrid(30, 11), {"device": device}
    images = np.random.default_rng(5).standard_normal((7, 30, 30)).astype(np.float32)
    whole = host(ops.polar(images, grid, **on_it, threads=1))
    assert np.array_equal(whole, host(ops.polar(images, grid, **on_it, threads=3)))
    assert np.array_equal(whole[::-1], host(ops.polar(images[::-1], grid, **on_it)))
    assert np.array_equal(whole[4:5], host(ops.polar(on(device, images[4:5]), grid, **on_it)))
    b = host(ops.polar_weighted(whole, grid, np.arange(40).reshape(20, 2) / 10, **on_it))
    assert np.array_equal(b[2:3, 17:18], host(ops.polar_weighted(whole[2:3], grid, [[3.4, 3.5]], **on_it, threads=2)))


def test_bad_input_is_named(device):
    with pytest.raises(vg.InputError, match="radius"):
        ops.PolarGrid(16, 9)
    with pytest.raises(vg.InputError, match="spacing"):
        ops.PolarGrid(16, 4, spacing=0.7)
    with pytest.raises(vg.InputError, match="n_theta"):
        ops.PolarGrid(16, 4, n_theta=8)
    with pytest.raises(vg.InputError, match="diameter"):
        ops.PolarGrid(16, 4, diameter_px=0)
    grid = ops.PolarGrid(16, 4)
    with pytest.raises(ValueError, match="images"):
        ops.polar(np.zeros((2, 16, 15)), grid, device=device)
    with pytest.raises(ValueError, match="samples"):
        ops.polar_harmonics(np.zeros((2, 16, 15)), grid, device=device)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_pixel_that_is_not_finite_names_its_image(device, bad):
    images = np.zeros((5, 16, 16), np.float32)
    images[3, 15, 2] = bad
    with pytest.raises(vg.InputError, match="image 3"):
        ops.polar(images, ops.PolarGrid(16, 4), device=device)


def ball_map(box, seed=0, radius=0.36):
    """Noise in a soft ball, clear of the corners as a masked particle is."""
    rng = np.random.default_rng(seed)
    z, y, x = np.indices((box,) * 3) - box // 2
    return (rng.standard_normal((box,) * 3) * (np.sqrt(x**2 + y**2 + z**2) < radius * box)).astype(np.float32)


@settings(deadline=None, max_examples=10)
@given(box=st.integers(12, 18), seed=st.integers(0, 100), angles=st.tuples(*3 * [st.floats(-180, 180)]))
def test_slices_equal_the_direct_sum(device, box, seed, angles):
    volume = ball_map(box, seed)
    grid3, grid = ops.Grid(box), ops.PolarGrid(box, (box - 1) // 2 - 1, spacing=0.5)
    matrices = vg.euler_to_matrix([angles, (0, 0, 0)])
    got = host(ops.polar_slices(gridding.to_grid(volume, grid3), grid3, matrices, grid, device=device))
    want = reference.polar.polar_slices(volume, matrices, grid.radii, grid.n_theta)
    assert relative(got, want[..., : grid.n_theta // 2]) < PROJECT_RELATIVE


def test_slices_of_directions_serve_every_psi_and_the_opposite_direction(device):
    """slice(d, psi)(r, theta) = slice(d, 0)(r, theta + psi); that of -d is its mirror image, theta -> -theta."""
    box, (rot, tilt, steps) = 20, (33.0, 71.0, 5)
    volume = ball_map(box, 1)
    grid3, grid = ops.Grid(box), ops.PolarGrid(box, 7)
    psi = 360 / grid.n_theta * steps
    matrices = vg.euler_to_matrix([(rot, tilt, 0), (rot, tilt, psi), (rot + 180, 180 - tilt, 0)])
    half = host(ops.polar_slices(gridding.to_grid(volume, grid3), grid3, matrices, grid, device=device))
    zero, turned, opposite = np.concatenate([half, half.conj()], axis=-1)
    np.testing.assert_allclose(turned, np.roll(zero, -steps, axis=-1), atol=2e-3 * np.abs(zero).max())
    np.testing.assert_allclose(
        opposite, zero[:, -np.arange(grid.n_theta) % grid.n_theta], atol=2e-3 * np.abs(zero).max()
    )


def test_slices_do_not_depend_on_threads_and_refuse_a_short_grid(device):
    volume = ball_map(16)
    grid3 = ops.Grid(16, max_radius=5)
    spectrum = gridding.to_grid(volume, grid3)
    matrices = vg.euler_to_matrix(np.random.default_rng(0).uniform(0, 180, (5, 3)))
    one = ops.polar_slices(spectrum, grid3, matrices, ops.PolarGrid(16, 5), threads=1)
    assert np.array_equal(one, ops.polar_slices(spectrum, grid3, matrices, ops.PolarGrid(16, 5), threads=3))
    with pytest.raises(ValueError, match="max_radius"):
        ops.polar_slices(spectrum, grid3, matrices, ops.PolarGrid(16, 7), device=device)
    with pytest.raises(ValueError, match="box"):
        ops.polar_slices(spectrum, grid3, matrices, ops.PolarGrid(17, 5), device=device)


def test_ctf_power_is_the_power_of_a_unit_slice(device):
    """Harmonics of w C^2 / sigma2 against the direct sum, astigmatic CTF."""
    grid = ops.PolarGrid(24, 9)
    inv = np.random.default_rng(0).uniform(0.5, 2, (2, grid.n_rings)).astype(np.float32)
    params = vg.Optics([9000.0, 14000.0], [8000.0, 14000.0], [25.0, 0.0]).as_params()
    got = host(ops.polar_ctf_power(inv, grid, 4, ctf=params, pixel_size_A=2.0, device=device))
    kx, ky = (k / (2.0 * 24) for k in reference.polar.points(grid.radii, grid.n_theta))
    c2 = np.array([reference.ctf.ctf_at(row, kx, ky) ** 2 for row in params])
    want = reference.polar.polar_harmonics(c2 * (grid.weights * inv)[..., None], 6)[..., ::2]
    assert relative(got, want) < POLAR_REL
