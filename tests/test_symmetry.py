from __future__ import annotations

import gzip
import re
import shutil
import subprocess

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import map_coordinates
from scipy.spatial.transform import Rotation

import verglas as vg
from verglas import geometry
from verglas.errors import InputError

from tolerance import EULER_ABS, RELION_SYMMETRY_ABS

GROUPS = ["C1", "C2", "C3", "C7", "C10", "C60", "D1", "D2", "D3", "D7", "D60", "T", "O", "I", "I1", "I2", "I3", "I4"]
ORDERS = {"T": 12, "O": 24, "I": 60}
G = (1 + 5**0.5) / 2

angle = st.floats(-180, 180)
pose = st.tuples(angle, st.floats(0, 180), angle)


def expected_order(name):
    return ORDERS.get(name[0]) or int(name[1:]) * (2 if name[0] == "D" else 1)


def contains(elements, matrix, atol=EULER_ABS):
    return (np.abs(elements - matrix).max(axis=(1, 2)) <= atol).any()


def turn(axis, degrees):
    axis = np.asarray(axis, float)
    return Rotation.from_rotvec(axis / np.linalg.norm(axis) * degrees, degrees=True).as_matrix()


@pytest.mark.parametrize("name", GROUPS)
def test_group_axioms_and_order(name):
    elements = vg.symmetry_matrices(name)
    assert len(elements) == geometry.symmetry_order(name) == expected_order(name)
    assert np.array_equal(elements[0], np.eye(3))
    np.testing.assert_allclose(
        elements @ np.swapaxes(elements, 1, 2), np.tile(np.eye(3), (len(elements), 1, 1)), atol=EULER_ABS
    )
    np.testing.assert_allclose(np.linalg.det(elements), 1, atol=EULER_ABS)
    products = np.einsum("aij,bjk->abik", elements, elements).reshape(-1, 9)
    nearest = np.abs(products[:, None] - elements.reshape(-1, 9)).max(axis=2).min(axis=1)
    assert nearest.max() < EULER_ABS
    apart = np.abs(elements[:, None] - elements[None]).max(axis=(2, 3)) + np.eye(len(elements))
    assert apart.min() > 1e-3


@pytest.mark.parametrize("n", range(1, 61))
def test_orders_up_to_60(n):
    assert len(vg.symmetry_matrices(f"C{n}")) == n
    assert len(vg.symmetry_matrices(f"D{n}")) == 2 * n


# What pins RELION's orientation of each group (relion_refine --print_symmetry_ops): axes and their fold, and some that
# must not be axes, since the mirrored or turned setting of the same group has them.
PINS = {
    "C3": ([((0, 0, 1), 3)], [((1, 0, 0), 2)]),
    "D7": ([((0, 0, 1), 7), ((1, 0, 0), 2)], [((0, 1, 0), 2)]),
    "D3": ([((0, 0, 1), 3), ((1, 0, 0), 2)], [((0, 1, 0), 2)]),
    "T": ([((0, 0, 1), 3), ((0, -(8**0.5), 1), 3), ((0, 2**0.5, 1), 2)], [((0, 8**0.5, 1), 3)]),
    "O": ([((0, 0, 1), 4), ((1, 0, 0), 4), ((0, 1, 0), 4), ((1, 1, 1), 3)], []),
    "I1": ([((0, 0, 1), 2), ((1, 0, 0), 2), ((G, 0, 1), 5)], [((1, 0, G), 5)]),
    "I2": ([((0, 0, 1), 2), ((1, 0, 0), 2), ((1, 0, G), 5)], [((G, 0, 1), 5)]),
    "I3": ([((0, 0, 1), 5), ((2, 0, -1), 5), ((0, 1, 0), 2)], [((2, 0, 1), 5)]),
    "I4": ([((0, 0, 1), 5), ((2, 0, 1), 5), ((0, 1, 0), 2)], [((2, 0, -1), 5)]),
}


@pytest.mark.parametrize("name", PINS)
def test_orientation_is_relions(name):
    elements = vg.symmetry_matrices(name)
    present, absent = PINS[name]
    for axis, fold in present:
        assert contains(elements, turn(axis, 360 / fold))
    for axis, fold in absent:
        assert not contains(elements, turn(axis, 360 / fold), 1e-3)


def test_bare_I_is_I2():
    assert np.array_equal(vg.symmetry_matrices("I"), vg.symmetry_matrices("I2"))


@pytest.mark.skipif(shutil.which("relion_refine") is None, reason="relion_refine is not on PATH")
@pytest.mark.parametrize("name", ["C3", "C10", "D2", "D3", "D7", "T", "O", "I", "I1", "I2", "I3", "I4"])
def test_equals_relion_print_symmetry_ops(name, tmp_path):
    command = ["relion_refine", "--sym", name, "--print_symmetry_ops"]
    printed = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=True).stdout
    blocks = re.split(r"R\(\d+\)=", printed)[1:]
    theirs = np.array([[[float(v) for v in line.split()] for line in b.strip().splitlines()[:3]] for b in blocks])
    ours = vg.symmetry_matrices(name)
    assert theirs.shape == ours.shape
    difference = np.abs(theirs[:, None] - ours).max(axis=(2, 3))
    assert difference.min(axis=1).max() < RELION_SYMMETRY_ABS
    assert difference.min(axis=0).max() < RELION_SYMMETRY_ABS


def test_elements_are_read_only():
    with pytest.raises(ValueError, match="read-only"):
        vg.symmetry_matrices("O")[0] = 0


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("C1O", "did you mean C10, with the digit zero"),
        ("D1O", "did you mean D10"),
        ("C", "expected Cn or Dn"),
        ("C0", "expected Cn or Dn"),
        ("C010", "expected Cn or Dn"),
        ("C361", "n = 1 to 360"),
        ("C-3", "expected Cn or Dn"),
        ("C3.5", "expected Cn or Dn"),
        ("I5", "I1, I2, I3 or I4"),
        ("O1", "T, O, I"),
        ("Oh", "chiral"),
        ("CS", "chiral"),
        ("C4V", "chiral"),
        ("", "expected Cn or Dn"),
        ("C٣", "expected Cn or Dn"),
    ],
)
def test_bad_names_are_explained(name, words):
    with pytest.raises(InputError, match=words) as error:
        vg.symmetry_matrices(name)
    assert "\n" not in str(error.value)


@settings(deadline=None, max_examples=60)
@given(a=pose, name=st.sampled_from(GROUPS), data=st.data())
def test_symmetric_points_project_alike_on_the_right(a, name, data):
    """A and A R_g project a symmetric set of points alike, whatever the element; R_g A does not in general."""
    elements = vg.symmetry_matrices(name)
    g = data.draw(st.integers(0, len(elements) - 1))
    seeds = np.array([[1.0, 0.2, 0.3], [-0.4, 0.9, 0.5]])
    points = np.einsum("gij,sj->gsi", elements, seeds).reshape(-1, 3)
    matrix = vg.euler_to_matrix(a)
    one, other = points @ matrix[:2].T, points @ (matrix @ elements[g])[:2].T
    gaps = np.linalg.norm(one[:, None] - other[None], axis=2)
    assert gaps.min(axis=0).max() < 1e-10
    assert gaps.min(axis=1).max() < 1e-10


def test_elements_on_the_left_are_another_thing():
    elements = vg.symmetry_matrices("C4")
    points = elements @ [1.0, 0.2, 0.3]
    matrix = vg.euler_to_matrix([10, 60, 20])
    one, other = points @ matrix[:2].T, points @ (elements[1] @ matrix)[:2].T
    assert np.linalg.norm(one[:, None] - other[None], axis=2).min(axis=0).max() > 0.1


@settings(deadline=None, max_examples=60)
@given(a=pose, name=st.sampled_from(GROUPS), data=st.data())
def test_angular_distance_is_blind_to_symmetry(a, name, data):
    elements = vg.symmetry_matrices(name)
    g, h = (data.draw(st.integers(0, len(elements) - 1)) for _ in range(2))
    b = np.array(data.draw(pose))
    d = geometry.angular_distance(a, b, name)
    matrices = vg.euler_to_matrix([a, b])
    moved = vg.matrix_to_euler(matrices @ elements[[g, h]])
    np.testing.assert_allclose(geometry.angular_distance(moved[0], moved[1], name), d, atol=1e-5)
    np.testing.assert_allclose(geometry.angular_distance(b, a, name), d, atol=1e-5)
    np.testing.assert_allclose(geometry.angular_distance(a, moved[0], name), 0, atol=1e-9)
    # The brute force: scipy's angle of every A R B^T.
    angles = Rotation.from_matrix(matrices[0] @ elements @ matrices[1].T).magnitude()
    np.testing.assert_allclose(d, np.rad2deg(angles.min()), atol=1e-5)


def test_angular_distance_of_small_turns_is_exact():
    for step in (1e-10, 1e-6, 1e-3, 1.0):
        got = geometry.angular_distance([20, 90, 30], [20, 90, 30 + step])
        np.testing.assert_allclose(got, [step], rtol=1e-3 if step < 1e-9 else 1e-6)


def test_angular_distance_broadcasts_and_survives_many_rows():
    many = np.tile([[10.0, 20.0, 30.0]], (70000, 1))
    got = geometry.angular_distance(many, [10, 20, 40], "D2")
    assert got.shape == (70000,)
    np.testing.assert_allclose(got, 10, atol=1e-9)


@pytest.mark.parametrize("name", GROUPS)
def test_asymmetric_unit_has_its_area_and_covers_every_orbit(name):
    """Monte Carlo: 1/order of the sphere lies in the unit, and of each orbit of a general direction exactly one."""
    rng = np.random.default_rng(7)
    elements = vg.symmetry_matrices(name)
    v = rng.normal(size=(2000, 3))
    v /= np.linalg.norm(v, axis=1, keepdims=True)
    orbits = np.einsum("gij,nj->gni", elements, v).reshape(-1, 3)
    directions = np.rad2deg(
        np.column_stack([np.arctan2(orbits[:, 1], orbits[:, 0]), np.arccos(np.clip(orbits[:, 2], -1, 1))])
    )
    inside = geometry.asymmetric_unit(directions, name).reshape(len(elements), -1)
    assert (inside.sum(axis=0) == 1).all()


@pytest.mark.parametrize(
    ("name", "directions"),
    [
        ("C4", [(0, 70), (90, 70), (180, 70), (-90, 70)]),
        ("D3", [(25, 90), (95, 90), (145, 90), (-25, 90), (-95, 90), (-145, 90)]),
        (
            "O",
            [
                (45, 90),
                (-45, 90),
                (135, 90),
                (-135, 90),
                (0, 45),
                (90, 45),
                (180, 45),
                (-90, 45),
                (0, 135),
                (90, 135),
                (180, 135),
                (-90, 135),
            ],
        ),
    ],
)
def test_of_equivalent_border_directions_one_is_in(name, directions):
    assert geometry.asymmetric_unit(directions, name).sum() == 1


def test_poles_and_axes_are_in():
    assert geometry.asymmetric_unit([[0, 0]], "C5").all()
    assert geometry.asymmetric_unit([[0, 180]], "C5").all()
    assert geometry.asymmetric_unit(np.zeros((0, 2)), "O").shape == (0,)


def test_documented_units_of_C_and_D():
    rng = np.random.default_rng(3)
    directions = np.column_stack([rng.uniform(0, 360, 3000), rng.uniform(0, 180, 3000)])
    wedge = (directions[:, 0] >= 0) & (directions[:, 0] < 72)
    assert np.array_equal(geometry.asymmetric_unit(directions, "C5"), wedge)
    assert np.array_equal(geometry.asymmetric_unit(directions, "D5"), wedge & (directions[:, 1] <= 90))


@settings(deadline=None, max_examples=60)
@given(a=pose, name=st.sampled_from(GROUPS))
def test_to_asymmetric_unit_is_equivalent_and_idempotent(a, name):
    moved = geometry.to_asymmetric_unit([a], name)
    np.testing.assert_allclose(geometry.angular_distance(a, moved, name), 0, atol=1e-6)
    again = geometry.to_asymmetric_unit(moved, name)
    np.testing.assert_allclose(vg.euler_to_matrix(again), vg.euler_to_matrix(moved), atol=1e-9)


def test_group_O_is_that_of_apoferritins_assembly(data_dir):
    """7A4M's 24 assembly operators (4-folds on x, y, z) are the elements of O, and no others."""
    import gemmi

    text = gzip.decompress((data_dir / "models" / "7a4m.cif.gz").read_bytes()).decode()
    block = gemmi.cif.read_string(text).sole_block()
    columns = [f"matrix[{i}][{j}]" for i in (1, 2, 3) for j in (1, 2, 3)]
    table = block.find("_pdbx_struct_oper_list.", columns)
    operators = np.array([[float(v) for v in row] for row in table]).reshape(-1, 3, 3)
    elements = vg.symmetry_matrices("O")
    assert len(operators) == len(elements)
    assert all(contains(elements, operator, 1e-6) for operator in operators)
    assert all(contains(operators, element, 1e-6) for element in elements)


def test_group_D7_leaves_the_map_of_groel_alone(data_dir):
    """V(R_g r) = V(r) on EMD-1997 (GroEL): its 7-fold is parallel to z through voxel (x, y) = (50, 49), and a 2-fold
    crosses it at z = 50.2 at 15.7 degrees from x, so the group is that of D7 turned by 15.7 degrees about z."""
    mrcfile = pytest.importorskip("mrcfile")
    volume = mrcfile.read(data_dir / "models" / "emd_1997.map.gz").astype(np.float64)
    centre = np.array([50.0, 49.0, 50.2])[:, None]
    points = np.stack(np.meshgrid(*[np.arange(-44.0, 45.0, 2)] * 3, indexing="ij")).reshape(3, -1)
    points = points[:, np.linalg.norm(points, axis=0) < 44]

    def at(matrix):
        return map_coordinates(volume, (matrix @ points + centre)[::-1], order=1)

    turned, here = turn((0, 0, 1), 15.7), at(np.eye(3))
    elements = vg.symmetry_matrices("D7")
    kept = [np.corrcoef(here, at(turned @ element @ turned.T))[0, 1] for element in elements]
    assert min(kept) > 0.9, kept
    # Without the turn the 2-folds are elsewhere; another n does not fit either.
    two_folds = [np.corrcoef(here, at(element))[0, 1] for element in elements if element[2, 2] < 0]
    assert max(two_folds) < 0.8, two_folds
    assert np.corrcoef(here, at(vg.symmetry_matrices("C6")[1]))[0, 1] < 0.5
