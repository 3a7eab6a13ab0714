from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import map_coordinates, spline_filter
from scipy.spatial.transform import Rotation

import verglas as vg
from verglas import geometry
from verglas.errors import InputError

from tolerance import EULER_ABS

angle = st.one_of(st.floats(-360, 360), st.sampled_from([0.0, 90.0, 180.0, -180.0, 1e-13, 1e-9, 1e-6, 180 - 1e-9]))
poses = st.lists(st.tuples(angle, angle, angle), min_size=1, max_size=6).map(np.array)


@settings(deadline=None, max_examples=150)
@given(angles=poses)
def test_matrix_is_the_transpose_of_scipys_intrinsic_zyz(angles):
    got = vg.euler_to_matrix(angles)
    want = np.swapaxes(Rotation.from_euler("ZYZ", angles, degrees=True).as_matrix(), 1, 2)
    np.testing.assert_allclose(got, want, atol=EULER_ABS)


@settings(deadline=None, max_examples=150)
@given(angles=poses)
def test_round_trip(angles):
    """Through angles and back the matrix is the same, next to the poles too; angles in range come back themselves."""
    matrices = vg.euler_to_matrix(angles)
    again = vg.matrix_to_euler(matrices)
    np.testing.assert_allclose(vg.euler_to_matrix(again), matrices, atol=EULER_ABS)
    assert (again[:, 1] >= 0).all()
    assert (again[:, 1] <= 180).all()
    assert (np.abs(again) <= 180).all()


def test_angles_round_trip():
    rng = np.random.default_rng(1)
    angles = np.column_stack([rng.uniform(-179, 179, 500), rng.uniform(1, 179, 500), rng.uniform(-179, 179, 500)])
    np.testing.assert_allclose(vg.matrix_to_euler(vg.euler_to_matrix(angles)), angles, atol=100 * EULER_ABS)


@settings(deadline=None, max_examples=100)
@given(angles=poses)
def test_zxz_and_zyz_give_one_matrix(angles):
    zxz = geometry.zyz_to_zxz(angles)
    want = np.swapaxes(Rotation.from_euler("ZXZ", zxz, degrees=True).as_matrix(), 1, 2)
    np.testing.assert_allclose(vg.euler_to_matrix(angles), want, atol=EULER_ABS)
    np.testing.assert_allclose(geometry.zxz_to_zyz(zxz), angles, atol=EULER_ABS)


@settings(deadline=None, max_examples=100)
@given(angles=poses, length=st.floats(0.1, 10), sign=st.sampled_from([-1, 1]))
def test_quaternions_round_trip(angles, length, sign):
    q = geometry.euler_to_quaternion(angles)
    np.testing.assert_allclose(np.linalg.norm(q, axis=1), 1, atol=EULER_ABS)
    assert (q[:, 3] >= 0).all()
    back = geometry.quaternion_to_euler(sign * length * q)
    np.testing.assert_allclose(vg.euler_to_matrix(back), vg.euler_to_matrix(angles), atol=EULER_ABS)
    # The quaternion is that of the map r -> A r.
    r = np.array([0.3, -1.2, 2.0])
    np.testing.assert_allclose(Rotation.from_quat(q).apply(r), vg.euler_to_matrix(angles) @ r, atol=10 * EULER_ABS)


def test_an_atom_projects_to_the_first_two_rows():
    """Written out by hand: tilt 90 views along +x (rot 0); the image's y axis is the volume's, its x axis is -z."""
    a = vg.euler_to_matrix([0, 90, 0])
    np.testing.assert_allclose((a @ [0, 0, 1])[:2], [-1, 0], atol=EULER_ABS)
    np.testing.assert_allclose((a @ [0, 1, 0])[:2], [0, 1], atol=EULER_ABS)
    np.testing.assert_allclose(geometry.direction_vectors([[0, 90]]), [a[2]], atol=EULER_ABS)


@settings(deadline=None, max_examples=50)
@given(angles=poses)
def test_viewing_axis_is_the_third_row(angles):
    np.testing.assert_allclose(
        geometry.direction_vectors(angles[:, :2]), vg.euler_to_matrix(angles)[:, 2], atol=EULER_ABS
    )


def test_convention_on_exact_images(data_dir):
    """Images of ../shared/data/exact are the map turned by A, shifted by minus the origin, times the CTF."""
    mrcfile = pytest.importorskip("mrcfile")
    table = vg.io.read_star(data_dir / "exact" / "truth.star")["particles"][:12]
    truth = mrcfile.read(data_dir / "exact" / "truth.mrc").astype(np.float64)
    images = mrcfile.read(data_dir / "exact" / "particles.mrcs")
    n, pixel_size_A, coefficients = len(truth), 2.5, spline_filter(truth)
    grid = (np.indices(truth.shape).reshape(3, -1)[::-1] - n // 2).astype(float)  # x, y, z
    ky, kx = np.fft.fftfreq(n)[:, None], np.fft.rfftfreq(n)[None]

    def correlation(row, matrix):
        # The map in the image frame is V(A^T r); its sum along z is the projection.
        places = (matrix.T @ grid)[::-1] + n // 2
        turned = map_coordinates(coefficients, places, order=3, prefilter=False).reshape(truth.shape)
        spectrum = np.fft.rfft2(turned.sum(axis=0))
        at = -row[["rlnOriginXAngst", "rlnOriginYAngst"]].to_numpy(float) / pixel_size_A
        optics = vg.Optics(row["rlnDefocusU"], row["rlnDefocusV"], row["rlnDefocusAngle"], 300.0, 2.7, 0.1)
        spectrum *= vg.ops.ctf(optics.as_params(), n, pixel_size_A)[0]
        made = np.fft.irfft2(spectrum * np.exp(-2j * np.pi * (kx * at[0] + ky * at[1])), s=(n, n))
        image = images[int(row["rlnImageName"].split("@")[0]) - 1]
        return np.corrcoef(made.ravel(), image.ravel())[0, 1]

    matrices = vg.euler_to_matrix(table[["rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"]].to_numpy())
    right = np.array([correlation(row, a) for (_, row), a in zip(table.iterrows(), matrices, strict=True)])
    wrong = np.array([correlation(row, a.T) for (_, row), a in zip(table.iterrows(), matrices, strict=True)])
    assert right.min() > 0.99, right
    assert (right > wrong).all(), wrong
    assert np.median(wrong) < 0.6, wrong


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: vg.euler_to_matrix([[1, 2]]), r"expected shape \(n, 3\)"),
        (lambda: vg.euler_to_matrix([[1, 2, 3], [1, np.nan, 3]]), "row 1"),
        (lambda: vg.matrix_to_euler(np.eye(4)), r"expected shape \(n, 3, 3\)"),
        (lambda: vg.matrix_to_euler([np.eye(3), -np.eye(3)]), "matrix 1 is not a proper rotation"),
        (lambda: vg.matrix_to_euler(2 * np.eye(3)), "matrix 0 is not a proper rotation"),
        (lambda: geometry.quaternion_to_euler([[0, 0, 0, 0]]), "length zero"),
        (lambda: geometry.quaternion_to_euler([[0, 0, 1]]), r"\(n, 4\)"),
        (lambda: geometry.direction_vectors([[1, 2, 3]]), r"\(n, 2\)"),
    ],
)
def test_bad_input_is_named(call, words):
    with pytest.raises(InputError, match=words):
        call()
