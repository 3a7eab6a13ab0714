from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from verglas import fourier, ops, reference

from devices import host
from tolerance import SCATTER_L2


def make(n_atoms, box, pixel_size_A, seed, n_types=2):
    rng = np.random.default_rng(seed)
    xyz = rng.uniform(-0.4, 0.4, (n_atoms, 3)) * box * pixel_size_A
    atoms = np.column_stack([xyz, rng.uniform(0.5, 2, n_atoms), rng.uniform(0, 60, n_atoms)])
    return atoms, rng.integers(0, n_types, n_atoms), rng.uniform(0.5, 20, (n_types, 3, 2))


def relative(got, want):
    return np.linalg.norm(got - want) / np.linalg.norm(want)


@settings(deadline=None, max_examples=25)
@given(
    n_atoms=st.integers(1, 300),
    box=st.integers(1, 36),
    pixel_size_A=st.floats(0.5, 4),
    seed=st.integers(0, 999),
    n_types=st.integers(1, 3),
)
def test_images_equal_reference(device, n_atoms, box, pixel_size_A, seed, n_types):
    model = make(n_atoms, box, pixel_size_A, seed, n_types)
    matrices = Rotation.random(2, random_state=seed).as_matrix()
    shifts = np.random.default_rng(seed).normal(size=(2, 2)) * 3
    got = host(ops.scatter(*model, matrices, shifts, box, pixel_size_A, device=device))
    assert got.dtype == np.complex64
    want = reference.scatter.scatter(*model, matrices, shifts, box, pixel_size_A)
    assert relative(got, want) < SCATTER_L2


@settings(deadline=None, max_examples=15)
@given(n_atoms=st.integers(1, 150), box=st.integers(1, 14), seed=st.integers(0, 999))
def test_volume_equals_reference(device, n_atoms, box, seed):
    model = make(n_atoms, box, 1.3, seed)
    assert (
        relative(
            host(ops.scatter_volume(*model, box, 1.3, device=device)),
            reference.scatter.scatter_volume(*model, box, 1.3),
        )
        < SCATTER_L2
    )


@pytest.mark.parametrize("box", [31, 32])
def test_image_at_identity_is_the_sum_of_voxels_along_z(device, box):
    model = make(400, box, 1.5, 0)
    volume = fourier.inverse(host(ops.scatter_volume(*model, box, 1.5, device=device)), (box,) * 3)
    image = fourier.inverse(
        host(ops.scatter(*model, np.eye(3)[None], np.zeros((1, 2)), box, 1.5, device=device)), (box, box)
    )[0]
    assert relative(volume.sum(0), image) < SCATTER_L2


def test_a_shift_moves_the_particle_the_other_way(device):
    model = make(50, 32, 2.0, 1)
    still, moved = host(ops.scatter(*model, np.stack([np.eye(3)] * 2), [[0, 0], [6.0, -4.0]], 32, 2.0, device=device))
    a, b = fourier.inverse(still, (32, 32)), fourier.inverse(moved, (32, 32))
    # Whole pixels: -3 in x, +2 in y; exact but for the Nyquist terms, whose sine an even box cannot hold.
    spectrum_a, spectrum_b = fourier.forward(np.roll(a, (2, -3), (0, 1)), 2), fourier.forward(b, 2)
    inside = fourier.radius((32, 32)) < 16
    assert relative(spectrum_b[inside], spectrum_a[inside]) < SCATTER_L2


def test_threads_and_batches_do_not_change_the_result(device):
    model = make(500, 48, 1.5, 2)
    matrices, shifts = Rotation.random(5, random_state=0).as_matrix(), np.zeros((5, 2))
    one = host(ops.scatter(*model, matrices, shifts, 48, 1.5, threads=1, device=device))
    assert np.array_equal(one, host(ops.scatter(*model, matrices, shifts, 48, 1.5, threads=3, device=device)))
    assert np.array_equal(one[3:4], host(ops.scatter(*model, matrices[3:4], shifts[3:4], 48, 1.5, device=device)))
    volumes = [host(ops.scatter_volume(*model, 24, 3.0, threads=t, device=device)) for t in (1, 3)]
    assert np.array_equal(*volumes)


def test_agrees_with_finufft(device):
    finufft = pytest.importorskip("finufft")
    box, pixel_size_A = 48, 1.5
    atoms, _, _ = make(2000, box, pixel_size_A, 3)
    atoms[:, 4] = 0
    matrix = Rotation.random(random_state=4).as_matrix()
    x, y, _ = np.ascontiguousarray(2 * np.pi / (box * pixel_size_A) * (matrix @ atoms[:, :3].T))
    full = finufft.nufft2d1(y, x, atoms[:, 3].astype(complex), (box, box), isign=-1, eps=1e-12)
    want = np.fft.ifftshift(full)[:, : box // 2 + 1]
    got = host(
        ops.scatter(
            atoms, np.zeros(2000, int), [[[1.0, 0]]], matrix[None], np.zeros((1, 2)), box, pixel_size_A, device=device
        )
    )[0]
    inside = fourier.radius((box, box)) < box / 2  # finufft keeps only -N/2 at Nyquist, ops.scatter the mean of both
    assert relative(got[inside], want[inside]) < SCATTER_L2


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"atoms": np.zeros((2, 4))}, "atoms"),
        ({"types": [0, 1]}, "types"),
        ({"types": [0]}, "types"),
        ({"factors": np.zeros((1, 5))}, "factors"),
        ({"matrices": np.zeros((3, 3))}, "matrices"),
        ({"shifts_A": np.zeros((2, 2))}, "shifts_A"),
        ({"box": 0}, "box"),
        ({"pixel_size_A": np.nan}, "pixel_size_A"),
    ],
)
def test_bad_input_is_named(device, change, words):
    arguments = {
        "atoms": np.zeros((2, 5)),
        "types": [0, 0],
        "factors": np.ones((1, 5, 2)),
        "matrices": np.eye(3)[None],
        "shifts_A": np.zeros((1, 2)),
        "box": 8,
        "pixel_size_A": 1.0,
    } | change
    with pytest.raises(ValueError, match=words):
        host(ops.scatter(**arguments, device=device))
