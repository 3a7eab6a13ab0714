from __future__ import annotations

import importlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial import cKDTree

import verglas as vg
from verglas import fourier, simulate
from verglas.geometry import symmetry_matrices
from verglas.simulate import scattering
from verglas.simulate.noise import stream

from tolerance import SCATTER_L2

phantom_module = importlib.import_module("verglas.simulate.phantom")  # the package's name `phantom` is the function


def profile(map_):
    """Mean Fourier coefficient per integer |k|^2: no binning, so no error of binning."""
    n = map_.box
    spectrum = fourier.forward(map_.data.astype(np.float64), 3)
    k2 = np.rint(fourier.radius((n, n, n)) ** 2).astype(int)
    weight = np.broadcast_to(fourier.half_weights((n, n, n)), k2.shape).ravel()
    count = np.bincount(k2.ravel(), weight)
    values = np.bincount(k2.ravel(), weight * spectrum.real.ravel()) / np.maximum(count, 1)
    keep = count > 0
    return np.sqrt(np.flatnonzero(keep)) / (n * map_.pixel_size_A), values[keep]


@pytest.mark.parametrize("element", ["C", "N", "O", "P", "Fe"])
def test_single_atom_has_the_tabulated_scattering_factor(element):
    m = simulate.density(simulate.Model([[0, 0, 0]], element), box=48, pixel_size_A=0.5)
    k, transform = profile(m)
    got = transform * m.pixel_size_A**3 / scattering.VOLT_PER_LENGTH_A2
    want = scattering.factor(element, k)
    assert np.abs(got / want - 1)[k < 1.0].max() < 0.01


def test_factors_agree_with_the_mott_bethe_formula():
    # Independent table: X-ray factors (Int. Tables C 6.1.1.4) through Mott-Bethe, f_e = (Z - f_x) / (2 pi^2 a0 k^2) ...
    # with k = 1/d: f_e [A] = 0.023934 (Z - f_x) 4 / k^2. Near k = 0 the difference Z - f_x is lost to rounding.
    import gemmi

    for symbol in ("C", "N", "O", "S"):
        element = gemmi.Element(symbol)
        k = np.linspace(0.3, 2.0, 30)
        x_ray = np.array([element.it92.calculate_sf((v / 2) ** 2) for v in k])
        mott_bethe = 0.023933754 * (element.atomic_number - x_ray) * 4 / k**2
        np.testing.assert_allclose(scattering.factor(symbol, k), mott_bethe, rtol=0.03)


def test_potential_is_in_volt():
    # The integral of the potential of one carbon atom is 47.878 V A^2 times its scattering length.
    m = simulate.density(simulate.Model([[0, 0, 0]], "C", b_factors_A2=20), box=32, pixel_size_A=1.0)
    assert m.data.sum(dtype=np.float64) == pytest.approx(47.878 * 2.5088, rel=1e-4)


def test_mass_density_centre_and_additivity():
    a = simulate.Model([[3.2, -1, 4]], "N", weights=2, b_factors_A2=30)
    b = simulate.Model([[-2, 5, 0.5]], "O", b_factors_A2=15)
    both = simulate.Model([[3.2, -1, 4], [-2, 5, 0.5]], ["N", "O"], [2, 1], [30, 15])
    parts = [simulate.density(m, 20, 1.5).data for m in (a, b, both)]
    np.testing.assert_allclose(parts[0] + parts[1], parts[2], atol=1e-5 * parts[2].max())


@settings(deadline=None, max_examples=12)
@given(
    symmetry=st.sampled_from(["C1", "C2", "C3", "C7", "D2", "D5", "T", "O", "I1", "I2"]),
    seed=st.integers(0, 2**31),
    diameter_A=st.floats(60, 180),
)
def test_phantom_has_its_symmetry_size_and_no_overlap(symmetry, seed, diameter_A):
    operators = symmetry_matrices(symmetry)
    diameter_A = max(diameter_A, 30.1 * len(operators) ** (1 / 3))
    m = simulate.phantom(160, 1.5, diameter_A, symmetry, seed)
    assert len(m) % len(operators) == 0
    np.testing.assert_allclose(m.centre_A, 0, atol=1e-6 * diameter_A)
    assert 2 * m.radius_A == pytest.approx(diameter_A)
    tree = cKDTree(m.xyz_A)
    for operator in operators[:: max(1, len(operators) // 6)]:
        assert tree.query(m.xyz_A @ operator.T)[0].max() < 1e-6 * diameter_A
    copies = m.xyz_A.reshape(len(operators), -1, 3)
    if len(operators) > 1:
        assert cKDTree(copies[1:].reshape(-1, 3)).query(copies[0])[0].min() > 4.99


def test_domains_have_the_density_of_protein():
    # A domain far larger than a helix: residues of 110 Da inside a ball well within it, 0.81 Da/A^3.
    domain = phantom_module._Domain(np.array([5.0, -3, 2]), 60.0, np.eye(3), np.ones(3))
    axis_points, atoms, _ = phantom_module._helices(domain, stream(0, 0))
    inside = np.linalg.norm(axis_points - domain.centre_A, axis=1) < 50
    assert inside.sum() * 110 / (4 / 3 * np.pi * 50**3) == pytest.approx(0.81, rel=0.02)
    assert np.linalg.norm(atoms - axis_points[:, None], axis=2).max() < 7.5


def test_phantom_fills_its_sphere_as_proteins_do():
    for seed in range(5):
        dalton = len(simulate.phantom(64, 2, 100, seed=seed)) / 2 * 110
        assert 0.2 < dalton / 0.81 / (np.pi / 6 * 100**3) < 0.4


def principal_extents_A(model):
    """Standard deviations along the principal axes, falling, and the radii from the z axis and the centre."""
    x = model.xyz_A
    return np.sqrt(np.linalg.eigvalsh(np.cov(x.T))[::-1]), np.hypot(x[:, 0], x[:, 1]), np.linalg.norm(x, axis=1)


def test_shapes_are_what_they_are_called():
    def made(shape, symmetry):
        return principal_extents_A(simulate.phantom(64, 3.0, 140.0, symmetry, seed=2, shape=shape))

    rod, disc = made("rod", "D2")[0], made("disc", "D3")[0]
    assert rod[0] > 1.8 * rod[1]
    assert disc[1] > 2 * disc[2]
    assert made("ring", "C4")[1].min() > 15  # open in the middle
    assert made("shell", "O")[2].min() > 25  # hollow
    assert simulate.phantom(64, 3.0, 140.0, "C3", shape="cone").name.startswith("cone C3")
    with pytest.raises(vg.InputError, match=r"shape of globule, rod.*'ball'"):
        simulate.phantom(64, 3.0, 140.0, shape="ball")


def test_C1_phantom_is_clearly_asymmetric():
    m = simulate.phantom(48, 3.0, 100)
    volume = simulate.density(m, 48, 3.0, b_factor_A2=400).data
    for matrix in (*symmetry_matrices("D2")[1:], *symmetry_matrices("C3")[1:], np.diag([1, 1, -1])):
        turned = simulate.density(m.move(matrix), 48, 3.0, b_factor_A2=400).data
        assert np.corrcoef(volume.ravel(), turned.ravel())[0, 1] < 0.8


def test_phantom_is_reproducible():
    a, b, c = (simulate.phantom(64, 2, 90, seed=s) for s in (5, 5, 6))
    assert np.array_equal(a.xyz_A, b.xyz_A)
    assert len(a) != len(c) or not np.allclose(a.xyz_A, c.xyz_A)


def test_density_map_obeys_the_symmetry():
    m = simulate.density(simulate.phantom(40, 3.0, 80, "C4", seed=1), 41, 3.0)
    turned = np.rot90(m.data, axes=(1, 2))  # an odd box turns onto itself
    assert np.linalg.norm(turned - m.data) / np.linalg.norm(m.data) < 2 * SCATTER_L2


def test_errors_name_what_is_wrong():
    with pytest.raises(vg.InputError, match="at least 30"):
        simulate.phantom(64, 2, 20)
    with pytest.raises(vg.InputError, match=r"at least 117 A for I1 \(60 copies\)"):
        simulate.phantom(64, 2, 100, "I1")
    with pytest.raises(vg.InputError, match=r"box of at least \d+ px"):
        simulate.phantom(32, 2, 100)
    with pytest.raises(vg.InputError, match="at least 42 px"):
        simulate.density(simulate.Model([[20.6, 0, 0]], "C"), 32, 1.0)
    with pytest.raises(vg.InputError, match="'Qq'"):
        scattering.factors(["Qq"])
    with pytest.raises(vg.InputError, match="atom 1"):
        simulate.Model([[0, 0, 0], [np.nan, 0, 0]], "C")
    with pytest.raises(vg.InputError, match="weights"):
        simulate.Model([[0, 0, 0]], "C", weights=[1, 2])


def test_a_sum_of_models_scatters_like_both():
    protein, ligand = (
        simulate.phantom(32, 4.0, 80.0),
        simulate.Model([[5.0, -8.0, 3.0]], "Zn", weights=40.0, b_factors_A2=50.0),
    )
    both = protein + ligand
    apart = simulate.density(protein, 32, 4.0).data + simulate.density(ligand, 32, 4.0).data
    assert len(both) == len(protein) + 1
    assert np.allclose(simulate.density(both, 32, 4.0).data, apart, atol=1e-4 * apart.max())
