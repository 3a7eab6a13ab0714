"""Point group of a map from its own turned copies."""

import numpy as np
import pytest

import verglas as vg
from verglas.geometry import symmetry_matrices
from verglas.initial_model.symmetry import align_to_axes
from verglas.map_geometry.map_alignment import turned_map
from verglas.map_geometry.symmetry_search import (
    choose_symmetry,
    elements_of,
    mass_centre,
    moved_map,
    symmetry_centre,
    symmetry_scores,
    without_sphere,
)
from verglas.masks import soft_sphere

BOX, PIXEL_A = 40, 4.0
RELIABLE = np.full(13, 0.8)
FEW = ("C2", "C3", "C4", "C5", "D2", "D4", "D5", "T", "O", "I")


def noisy(symmetry, *, noise=1.0, shift_px=(0.0, 0.0, 0.0), seed=0):
    """A phantom, turned and displaced, with noise as strong as itself over the box."""
    volume = vg.simulate.density(vg.simulate.phantom(BOX, PIXEL_A, 120.0, symmetry, seed=2), BOX, PIXEL_A).data
    volume = moved_map(turned_map(volume, vg.euler_to_matrix([[33.0, 71.0, -12.0]])[0]), np.array(shift_px))
    volume = (
        volume + np.random.default_rng(seed).standard_normal(volume.shape).astype(np.float32) * volume.std() * noise
    )
    return volume * soft_sphere(BOX, 16.5, 2.0).astype(np.float32)


@pytest.mark.slow
@pytest.mark.parametrize("symmetry", ["C1", "C2", "C4", "D2", "T", "O", "I2"])
def test_the_group_of_a_noisy_map_is_found_and_its_axes_put_to_convention(symmetry):
    volume = noisy(symmetry)
    _, found, upright = align_to_axes(volume, RELIABLE, FEW)
    if symmetry == "C1":
        assert found is None
        return
    assert found.symmetry == symmetry
    correlations = [
        np.corrcoef(turned_map(upright, g)[1:, 1:, 1:].ravel(), upright[1:, 1:, 1:].ravel())[0, 1]
        for g in symmetry_matrices(symmetry)[:8]
    ]
    wrong = np.corrcoef(turned_map(upright, vg.euler_to_matrix([[20.0, 30.0, 40.0]])[0]).ravel(), upright.ravel())[0, 1]
    assert min(correlations) > wrong + 0.1


def test_noise_alone_has_no_symmetry():
    volume = np.random.default_rng(1).standard_normal((BOX,) * 3).astype(np.float32)
    scores = symmetry_scores(volume * soft_sphere(BOX, 16.5, 2.0).astype(np.float32), RELIABLE, ("C2", "C3", "D2", "O"))
    assert choose_symmetry(scores) is None
    assert all(s.score < 0.35 for s in scores)


def test_axes_off_the_centre_are_found():
    volume = noisy("D4", noise=0.3, shift_px=(1.3, -0.6, 0.8))
    assert np.abs(mass_centre(volume) - (1.3, -0.6, 0.8)).max() < 0.7
    near = moved_map(volume, -np.rint(mass_centre(volume)))
    found = choose_symmetry(symmetry_scores(near, RELIABLE, ("D4",)))
    left = np.array([1.3, -0.6, 0.8]) - np.rint(mass_centre(volume))
    assert np.abs(symmetry_centre(near, found) - left).max() < 0.2


def test_without_sphere_brings_every_shell_to_its_amplitude():
    ball = soft_sphere(BOX, 10.0, 3.0).astype(np.float32)
    rng = np.random.default_rng(0)
    lumps = ball * rng.standard_normal(ball.shape).astype(np.float32)
    flat = vg.fourier.forward(without_sphere(lumps, np.ones(8)), 3)
    shells, weight = vg.fourier.shells(ball.shape), vg.fourier.half_weights(ball.shape)
    weight = np.broadcast_to(weight, shells.shape)
    power = [np.average(np.abs(flat[shells == s]) ** 2, weights=weight[shells == s]) for s in range(1, 9)]
    assert np.allclose(power[:7], 1.0, atol=0.02)
    assert power[7] < 1e-6


def test_elements_are_one_of_every_pair_of_inverses():
    elements = elements_of("O")
    assert len(elements) == 16
    angles = np.rad2deg(np.arccos(np.clip((np.trace(elements, axis1=1, axis2=2) - 1) / 2, -1, 1))).round()
    assert sorted(angles.tolist()) == [90.0] * 3 + [120.0] * 4 + [180.0] * 9


def test_a_map_of_nothing_is_refused():
    with pytest.raises(vg.InputError, match="no shell that can be relied on"):
        symmetry_scores(np.zeros((16,) * 3, np.float32), np.zeros(6))
