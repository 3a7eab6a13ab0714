"""Magnification from the ring of a polycrystalline film (A3.11), and what it does to images and CTFs."""

from __future__ import annotations

import numpy as np
import pytest
from volumes import relative

import verglas as vg
from verglas import fourier
from verglas.errors import InputError
from verglas.optics import Aberrations
from verglas.optics.fit import fit_ring_magnification

PIXEL_A = 0.9


def stretched(angle_deg: float, percent: float, scale: float = 1.0) -> np.ndarray:
    """A symmetric matrix of so many percent from smallest to largest, its determinant scale^2."""
    c, s = np.cos(np.deg2rad(angle_deg)), np.sin(np.deg2rad(angle_deg))
    turn, ratio = np.array([[c, -s], [s, c]]), np.sqrt(1 + percent / 100)
    return scale * turn @ np.diag([ratio, 1 / ratio]) @ turn.T


@pytest.fixture(scope="module")
def film():
    """2 % along 25 degrees, and a pixel size that is 1.5 % off."""
    return vg.simulate.polycrystal((768, 768), PIXEL_A, stretched(25, 2.0, 1.015), snr=0.3, seed=11)


@pytest.fixture(scope="module")
def found(film):
    return fit_ring_magnification(film)


def test_a_planted_distortion_of_two_percent_comes_back(found):
    assert np.abs(found.matrix - stretched(25, 2.0)).max() < 1e-3
    assert found.percent == pytest.approx(2.0, abs=0.1)
    assert found.angle_deg == pytest.approx(25, abs=3)
    assert found.pixel_size_A == pytest.approx(PIXEL_A / 1.015, rel=1e-3)
    assert np.linalg.det(found.matrix) == pytest.approx(1, abs=1e-12)
    assert found.matrix[0, 1] == found.matrix[1, 0]
    assert 1e-5 < found.error < 1e-3
    assert found.sigma > 10


def test_a_round_ring_says_that_there_is_no_distortion():
    plain = fit_ring_magnification(vg.simulate.polycrystal((768, 768), PIXEL_A, snr=0.3, seed=12))
    assert np.abs(plain.matrix - np.eye(2)).max() < 1e-3
    assert plain.pixel_size_A == pytest.approx(PIXEL_A, rel=1e-3)


def test_an_image_turned_over_gives_the_matrix_turned_over(film, found):
    over = fit_ring_magnification(vg.Micrograph(film.data[::-1], PIXEL_A))
    mirror = np.diag([1.0, -1.0])
    assert np.abs(over.matrix - mirror @ found.matrix @ mirror).max() < 3e-4


def test_several_images_count_together(film, found):
    both = fit_ring_magnification(
        [film, vg.simulate.polycrystal((768, 768), PIXEL_A, stretched(25, 2.0, 1.015), seed=13)]
    )
    assert np.abs(both.matrix - stretched(25, 2.0)).max() < 1e-3


def test_image_and_ctf_of_particles_are_corrected_with_it(found):
    """Particles seen through the planted matrix: with the one found they are CTF times projection again."""
    n, box, pixel_A = 6, 48, 2.0
    model = vg.simulate.phantom(box, pixel_A, 50.0, seed=2)
    truth = vg.simulate.density(model, box, pixel_A)
    made = vg.simulate.particles(model, n, box, pixel_A, seed=3, defocus_A=(3000, 6000), listener=None)
    clean = vg.project(truth, made.poses, made.optics)
    none = np.zeros((1, 2)), np.zeros((1, 6))
    planted = Aberrations(np.zeros(n, np.int64), *none, stretched(25, 2.0)[None], np.zeros(1))
    images = planted.apply(clean.copy(), np.arange(n), pixel_A)
    particles = found.onto(made.with_source(vg.types.ArraySource(images, pixel_A)))
    assert particles.optics_table.rlnMagMat00[0] == found.matrix[0, 0]
    back = Aberrations.of(particles).remove(images.copy(), np.arange(n), pixel_A)
    fine = (fourier.shells((box, box)) > 8) & (fourier.shells((box, box)) < 20)
    left, were = (relative(fourier.forward(i, 2)[:, fine], fourier.forward(clean, 2)[:, fine]) for i in (back, images))
    assert left < 0.1 * were
    # jobs do the same: the map of distorted images is that of undistorted ones
    assert relative(vg.project(truth, particles.poses, particles.optics), clean) < 1e-6


def test_noise_and_what_cannot_be_used_are_refused(film):
    noise = np.random.default_rng(0).normal(size=(512, 512))
    with pytest.raises(InputError, match="no ring to be relied on"):
        fit_ring_magnification(vg.Micrograph(noise, PIXEL_A))
    with pytest.raises(InputError, match=r"too near Nyquist of pixels of 1.1 A; expected less than 1\.04"):
        fit_ring_magnification(vg.Micrograph(noise, 1.1))
    with pytest.raises(InputError, match="one known pixel size"):
        fit_ring_magnification([film, vg.Micrograph(noise, 0.8)])
    with pytest.raises(InputError, match="one known pixel size"):
        fit_ring_magnification(vg.Micrograph(noise))
    with pytest.raises(InputError, match="different sizes"):
        fit_ring_magnification([film, vg.Micrograph(noise, PIXEL_A)])
    with pytest.raises(InputError, match="no micrograph"):
        fit_ring_magnification([])
    with pytest.raises(InputError, match=r"cannot be seen with pixels of 1\.2 A"):
        vg.simulate.polycrystal((64, 64), 1.2)
    with pytest.raises(InputError, match="expected 2 x 2 near the identity"):
        vg.simulate.polycrystal((64, 64), 0.8, np.eye(3))


def test_a_ring_in_a_few_directions_is_none(film):
    """Half of the ring leaves the shape open."""
    spectrum = np.fft.rfft2(film.data)
    angle = np.arctan2(np.fft.fftfreq(768)[:, None], np.fft.rfftfreq(768))
    noise = np.fft.rfft2(np.random.default_rng(1).normal(0, film.data.std(), film.shape))
    partial = np.fft.irfft2(np.where(np.abs(angle) < np.pi / 5, spectrum, noise))
    with pytest.raises(InputError, match="of 12 directions"):
        fit_ring_magnification(vg.Micrograph(partial, PIXEL_A))


@pytest.mark.parametrize(
    "wrong", [{"largest": -0.01}, {"largest": np.nan}, {"spacing_A": -2.355}, {"spacing_A": np.nan}]
)
def test_ranges_that_say_nothing_are_refused(film, wrong):
    with pytest.raises(InputError, match="expected a positive spacing_A, and a largest error of 0 to 1"):
        fit_ring_magnification(film, **wrong)
