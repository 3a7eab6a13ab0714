"""Common lines: sinograms, three images, synchronisation of many."""

import numpy as np
import pytest

import verglas as vg
from verglas.refinement.common_lines import (
    find_common_lines,
    orientation_error_deg,
    sinogram,
    synchronise,
    three_orientations,
)

DIAMETER_A = 130.0


@pytest.fixture(scope="module")
def model():
    return vg.simulate.phantom(64, 3.0, DIAMETER_A, seed=3)


def images_of(model, n, box=64, pixel_A=3.0, **settings):
    return vg.simulate.particles(model, n, box, pixel_A, ctf=False, shift_sd_A=0.0, **settings)


def test_sinogram_is_the_radon_transform(model):
    """A7.7: along the axes line integrals are plain sums; a quarter turn of the image turns the sinogram."""
    image = images_of(model, 1, seed=5).images()
    rows = sinogram(image, 240)[0]
    for row, axis in ((rows[0], 0), (rows[60], 1)):
        plain = image[0].sum(axis=axis)
        assert np.abs(row - plain).max() < 0.01 * plain.max()  # without the Nyquist component
    with pytest.raises(vg.InputError, match="n_theta"):
        sinogram(image, 20)


def test_three_exact_projections_fix_their_orientation(model):
    """A7.7: better than 2 degrees."""
    p = images_of(model, 3, seed=5)
    lines = find_common_lines(p.images(), 20, diameter_px=48, n_theta=360)
    assert orientation_error_deg(three_orientations(lines.angle), p.poses.angles_deg).max() < 2
    wrong = lines.angle.copy()
    wrong[0, 1], wrong[0, 2], wrong[1, 0], wrong[1, 2], wrong[2, 0], wrong[2, 1] = 0, 0.1, 0, 0.1, 0, 1.5
    with pytest.raises(vg.InputError, match="one of the lines is wrong"):
        three_orientations(wrong)


def test_clean_images_are_oriented_exactly_and_with_confidence(model):
    p = images_of(model, 40, seed=1)
    found = synchronise(find_common_lines(p.images(), 12, diameter_px=48, n_theta=120))
    assert orientation_error_deg(found.angles_deg, p.poses.angles_deg).mean() < 1
    assert np.allclose(found.eigenvalues[:3], 1, atol=0.02)
    assert found.gap > 0.3


def test_noisy_images_are_oriented_because_all_pairs_vote():
    """A7.9 at SNR 1/4; fewer than half of the lines are right. bench_abinitio.py has the figure of 500."""
    model = vg.simulate.phantom(128, 1.5, DIAMETER_A, seed=3)
    p = images_of(model, 150, 128, 1.5, snr=0.25, seed=1)
    found = synchronise(find_common_lines(p.images(), 18, diameter_px=92, n_theta=120))
    assert orientation_error_deg(found.angles_deg, p.poses.angles_deg).mean() < 5
    assert found.gap > 0.25


def test_pure_noise_has_no_gap():
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((60, 64, 64)).astype(np.float32)
    found = synchronise(find_common_lines(noise, 12, diameter_px=48, n_theta=120))
    assert found.gap < 0.15
    assert found.consistency_deg > 30


def test_wrong_input():
    with pytest.raises(vg.InputError, match="two or more"):
        find_common_lines(np.zeros((1, 16, 16), np.float32), 4)
    rng = np.random.default_rng(0)
    lines = find_common_lines(rng.standard_normal((3, 32, 32)).astype(np.float32), 6)
    with pytest.raises(vg.InputError, match="4 or more"):
        synchronise(lines)
