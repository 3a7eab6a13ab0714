from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.spatial import cKDTree

import verglas as vg
from verglas import geometry
from verglas.errors import InputError

ANGLE_ABS = 1e-11  # degrees: float64 rounding of angles up to 360


def lonlat(directions):
    return directions[:, 0], 90 - directions[:, 1]


@pytest.fixture(scope="module")
def healpix():
    return pytest.importorskip("astropy_healpix")


@pytest.mark.parametrize("order", range(6))
def test_all_centres_equal_astropy(healpix, order):
    lon, lat = healpix.HEALPix(2**order, order="nested").healpix_to_lonlat(np.arange(12 * 4**order))
    directions = geometry.healpix_directions(order)
    assert np.abs((directions[:, 0] - lon.deg + 180) % 360 - 180).max() < ANGLE_ABS
    np.testing.assert_allclose(directions[:, 1], 90 - lat.deg, atol=ANGLE_ABS)
    assert (np.abs(directions[:, 0]) <= 180).all()


@settings(deadline=None, max_examples=60)
@given(order=st.integers(0, 29), data=st.data())
def test_any_order_equals_astropy_and_round_trips(healpix, order, data):
    count = geometry.healpix_count(order)
    pixels = np.array(data.draw(st.lists(st.integers(0, count - 1), min_size=1, max_size=20)))
    grid = healpix.HEALPix(2**order, order="nested")
    lon, lat = grid.healpix_to_lonlat(pixels)
    directions = geometry.healpix_directions(order, pixels)
    assert np.abs((directions[:, 0] - lon.deg + 180) % 360 - 180).max() < 1e-6
    # Near the pole the latitude of the other package carries the rounding of an arcsine near 1.
    np.testing.assert_allclose(directions[:, 1], 90 - lat.deg, atol=2e-6)
    assert np.array_equal(geometry.healpix_index(order, directions), pixels)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # astropy-healpix casts its -1 through NaN
        theirs = grid.neighbours(pixels).T
    assert np.array_equal(geometry.healpix_neighbours(order, pixels), theirs)


@settings(deadline=None, max_examples=150)
@given(
    order=st.integers(0, 12),
    rot=st.one_of(st.floats(-720, 720), st.sampled_from([0.0, -1e-300, -1e-13, 45.0, 90.0, 180.0, 360.0, 359.9999])),
    tilt=st.one_of(st.floats(0, 180), st.sampled_from([0.0, 1e-8, 90.0, 180.0, 48.18968510422141])),
)
def test_index_is_the_pixel_that_holds_the_direction(order, rot, tilt):
    """Its centre is within a pixel's longest half diagonal, and finer pixels lie inside coarser ones.

    It leads from (z = 2/3, phi = pi/(4 n)) to (z = 1 - (1 - 1/n)^2/3, phi = 0) with n = 2^order, and tends to
    1.045 spacings.
    """
    index = geometry.healpix_index(order, [[rot, tilt]])
    assert 0 <= index[0] < geometry.healpix_count(order)
    centre = geometry.direction_vectors(geometry.healpix_directions(order, index))[0]
    distance = np.rad2deg(np.arccos(np.clip(centre @ geometry.direction_vectors([[rot, tilt]])[0], -1, 1)))
    assert distance < 1.046 * geometry.healpix_spacing_deg(order) + 1e-5
    if order:
        assert geometry.healpix_index(order - 1, [[rot, tilt]]) == index // 4


def test_index_equals_astropy(healpix):
    directions = geometry.random_orientations(20000, seed=3)[:, :2]
    for order in (0, 1, 5, 12):
        from astropy import units

        lon, lat = lonlat(directions)
        want = healpix.HEALPix(2**order, order="nested").lonlat_to_healpix(lon * units.deg, lat * units.deg)
        assert np.array_equal(geometry.healpix_index(order, directions), want)


@pytest.mark.parametrize("order", range(5))
def test_children_tile_their_parent(order):
    pixels = np.arange(geometry.healpix_count(order))
    children = geometry.healpix_children(pixels)
    assert np.array_equal(children.ravel(), np.arange(geometry.healpix_count(order + 1)))
    centres = geometry.healpix_directions(order + 1, children.ravel())
    assert np.array_equal(geometry.healpix_index(order, centres), np.repeat(pixels, 4))


@pytest.mark.parametrize("order", range(5))
def test_neighbours_are_mutual(order):
    around = geometry.healpix_neighbours(order, np.arange(geometry.healpix_count(order)))
    for pixel, row in enumerate(around):
        for other in row[row >= 0]:
            assert pixel in around[other]
    # At 8 of the sphere's points three faces meet: each of the three pixels there lacks one neighbour.
    assert (around < 0).sum() == 24


def test_area_is_equal():
    """Uniform directions fall into all pixels alike (chi-square)."""
    counts = np.bincount(geometry.healpix_index(2, geometry.random_orientations(100000, seed=5)[:, :2]), minlength=192)
    assert stats.chisquare(counts).pvalue > 1e-3


@pytest.mark.parametrize(("step", "order"), [(60, 0), (58.63, 1), (30, 1), (15, 2), (7.5, 3), (3.75, 4), (1.8, 6)])
def test_order_has_at_most_the_step(step, order):
    assert geometry.healpix_order(step) == order
    assert geometry.healpix_spacing_deg(order) <= step


SYMMETRIES = ["C1", "C2", "C3", "C5", "C7", "C12", "D2", "D3", "D7", "T", "O", "I1", "I2", "I3", "I4"]


@pytest.mark.parametrize("name", SYMMETRIES)
@pytest.mark.parametrize("step", [30, 15, 7.5, 3.75])
def test_grid_covers_the_sphere_modulo_symmetry(name, step):
    """No direction is farther from the grid (all its equivalents) than 1.2 times the full grid's largest gap."""
    directions, psi = vg.orientation_grid(step, name)
    elements = vg.symmetry_matrices(name)
    probe = geometry.direction_vectors(geometry.random_orientations(20000, seed=11)[:, :2])
    full = cKDTree(geometry.direction_vectors(geometry.healpix_directions(geometry.healpix_order(step))))
    equivalents = np.einsum("gij,nj->gni", elements, geometry.direction_vectors(directions)).reshape(-1, 3)
    largest = full.query(probe)[0].max()
    assert cKDTree(equivalents).query(probe)[0].max() < 1.2 * largest
    # Not wastefully: the area's share, and a rim that grows as the root of it.
    share = geometry.healpix_count(geometry.healpix_order(step)) / len(elements)
    assert len(directions) <= share + 1.5 * np.sqrt(share) + 2
    assert np.diff(psi).max() <= step + 1e-9
    assert 360 - psi[-1] <= step + 1e-9


def test_grid_of_C1_is_whole():
    directions, psi = vg.orientation_grid(15)
    assert np.array_equal(directions, geometry.healpix_directions(2))
    np.testing.assert_allclose(psi, np.arange(24) * 15.0)


def test_random_orientations_are_uniform():
    """Moments of a uniform SO(3): every element of A has mean 0 and variance 1/3; directions have no preference."""
    matrices = vg.euler_to_matrix(geometry.random_orientations(40000, seed=2))
    assert np.abs(matrices.mean(axis=0)).max() < 5 * np.sqrt(1 / 3 / 40000)
    np.testing.assert_allclose(matrices.var(axis=0), 1 / 3, atol=0.01)
    # The angle of a uniform rotation has the density (1 - cos t)/pi.
    angle = np.arccos(np.clip((np.trace(matrices, axis1=1, axis2=2) - 1) / 2, -1, 1))
    assert stats.kstest(angle, lambda t: (t - np.sin(t)) / np.pi).pvalue > 1e-3


def test_random_orientations_depend_on_seed_and_row_only():
    assert np.array_equal(geometry.random_orientations(9, 1)[:4], geometry.random_orientations(4, 1))
    assert not np.array_equal(geometry.random_orientations(4, 1), geometry.random_orientations(4, 2))
    assert geometry.random_orientations(0, 1).shape == (0, 3)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: vg.orientation_grid(0), "positive angle"),
        (lambda: vg.orientation_grid(float("nan")), "positive angle"),
        (lambda: vg.orientation_grid(0.001), "at least 0.029"),
        (lambda: vg.orientation_grid(10, "C1O"), "C10"),
        (lambda: geometry.healpix_order(1e-9), "order"),
        (lambda: geometry.healpix_count(30), "0 to 29"),
        (lambda: geometry.healpix_directions(1, [48]), "0 to 47 at order 1, got 48"),
        (lambda: geometry.healpix_directions(1, [1.5]), "whole numbers"),
        (lambda: geometry.healpix_index(1, [[0, 181]]), "0 to 180"),
        (lambda: geometry.healpix_index(1, [[0, 1, 2]]), r"\(n, 2\)"),
        (lambda: geometry.random_orientations(-1, 0), "0 or more"),
    ],
)
def test_bad_input_is_named(call, words):
    with pytest.raises(InputError, match=words):
        call()
