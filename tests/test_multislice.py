"""Thick specimens: layers, slices on Ewald's sphere and the wave through slabs are one image where each holds."""

from __future__ import annotations

import numpy as np
import pytest
from volumes import blob, relative

import verglas as vg
from verglas import fourier
from verglas.errors import InputError

BOX, PIXEL_A = 24, 0.35
pytestmark = pytest.mark.filterwarnings("ignore:.*very near focus")
OPTICS = vg.Optics([24.0], [20.0], [30.0], voltage_kV=10.0, cs_mm=0.0, amplitude_contrast=0.1)
STRAIGHT = vg.Poses([[0.0, 0.0, 0.0]])


def in_disc(image: np.ndarray) -> np.ndarray:
    """The half transform up to the last whole shell, without the mean."""
    spectrum = fourier.forward(image[None].astype(np.float32), 2)[0]
    shells = fourier.shells((BOX, BOX))
    return spectrum[(shells > 0) & (shells <= (BOX - 1) // 2)]


@pytest.fixture(scope="module")
def thick():
    return vg.Map(blob(BOX, 1), PIXEL_A)


def test_layers_are_slices_on_the_sphere_of_the_positive_sign(thick):
    layers = in_disc(vg.simulate.project_layers(thick, OPTICS))
    curved = {
        s: in_disc(vg.project(thick, STRAIGHT, OPTICS, ewald=True, ewald_sign=s)[0]) for s in ("positive", "negative")
    }
    assert relative(curved["positive"], layers) < 5e-3
    assert relative(curved["negative"], layers) > 0.5
    assert relative(in_disc(vg.project(thick, STRAIGHT, OPTICS)[0]), layers) > 0.2


def test_the_wave_through_weak_slabs_is_that_of_the_sphere(thick):
    """Quadratic terms fall with the strength of the phases: what differs goes down with it."""
    want = in_disc(vg.simulate.project_layers(thick, OPTICS))
    differs = []
    for strength in (1e-2, 1e-3):
        phase = vg.Map(strength * thick.data, PIXEL_A)
        image = vg.simulate.image_of_wave(vg.simulate.exit_wave(phase, 10.0), OPTICS, PIXEL_A)
        differs.append(relative(in_disc(image / strength), want))
    assert differs[1] < 5e-3
    assert differs[0] == pytest.approx(10 * differs[1], rel=0.3)


def test_a_thin_specimen_is_its_projection():
    """One slab in the plane of the defocus: dynamic scattering cannot tell, and neither can the sphere."""
    data = np.zeros((BOX,) * 3, np.float32)
    data[BOX // 2] = blob(BOX, 1)[BOX // 2]
    thin = vg.Map(data, PIXEL_A)
    flat = in_disc(vg.project(thin, STRAIGHT, OPTICS)[0])
    image = vg.simulate.image_of_wave(vg.simulate.exit_wave(vg.Map(1e-4 * data, PIXEL_A), 10.0), OPTICS, PIXEL_A)
    assert relative(in_disc(image / 1e-4), flat) < 5e-3
    assert relative(in_disc(vg.simulate.project_layers(thin, OPTICS)), flat) < 5e-3


def test_no_electron_is_lost_and_slabs_converge(thick):
    phase = vg.Map(0.2 * thick.data, PIXEL_A)
    wave = vg.simulate.exit_wave(phase, 10.0)
    assert np.mean(np.abs(wave) ** 2) == pytest.approx(1, abs=1e-9)
    two, four = (vg.simulate.exit_wave(phase, 10.0, slab_px=n) for n in (2, 4))
    assert relative(two, wave) < 0.6 * relative(four, wave)


def test_what_cannot_be_is_refused(thick):
    both = vg.Optics([20.0, 20.0], [20.0, 20.0], voltage_kV=10.0)
    with pytest.raises(InputError, match="project_layers: expected the optics of one image, got 2"):
        vg.simulate.project_layers(thick, both)
    with pytest.raises(InputError, match="slab_px: expected 1 or more, got 0"):
        vg.simulate.exit_wave(thick, 10.0, slab_px=0)
    with pytest.raises(InputError, match="expected a square wave"):
        vg.simulate.image_of_wave(np.ones((4, 5), complex), OPTICS, PIXEL_A)
