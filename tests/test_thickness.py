"""The CTF through the thickness of a specimen (3DCTF): layers are two slices, and maps are made from both."""

from __future__ import annotations

import numpy as np
import pytest
from volumes import blob, relative

import verglas as vg
from verglas.errors import InputError
from verglas.reconstruction import reconstruct_3d_ctf

BOX, PIXEL_A = 24, 0.35
pytestmark = pytest.mark.filterwarnings("ignore:.*very near focus")
OPTICS = vg.Optics([24.0], [20.0], [30.0], voltage_kV=10.0, cs_mm=0.0, amplitude_contrast=0.1)


def test_layers_with_their_own_ctf_are_the_formula_of_two_slices():
    thick = vg.Map(blob(BOX, 1), PIXEL_A)
    layers, slices = vg.simulate.project_layers(thick, OPTICS), vg.simulate.project_3d_ctf(thick, OPTICS)
    # Nyquist's line holds a cosine only, so no phase of its own can stand there
    bands = [np.fft.rfft2(image)[np.abs(np.fft.fftfreq(BOX)) < 0.5, : BOX // 2] for image in (layers, slices)]
    assert relative(bands[1], bands[0]) < 1e-5
    # without the j of the formula the real part, which holds none of it, is left
    assert relative(1j * bands[1], bands[0]) > 1


def test_envelope_and_scale_are_in_both():
    thick = vg.Map(blob(BOX, 2), PIXEL_A)
    optics = vg.Optics([24.0], [20.0], voltage_kV=10.0, cs_mm=0.0, b_factor_A2=[3.0], scale=[0.7])
    layers, slices = vg.simulate.project_layers(thick, optics), vg.simulate.project_3d_ctf(thick, optics)
    assert relative(np.fft.rfft2(slices)[1:10, 1:10], np.fft.rfft2(layers)[1:10, 1:10]) < 1e-5


def test_maps_from_layered_images_are_better_than_flat_ones():
    """Images by layers of the turned particle, whose beam is along +z; flat slices lose what is far from focus."""
    n, rng = 50, np.random.default_rng(5)
    x = np.arange(BOX) - BOX // 2
    spots = rng.uniform(-6, 6, (25, 3))
    angles = np.column_stack(
        [rng.uniform(0, 360, n), np.degrees(np.arccos(rng.uniform(-1, 1, n))), rng.uniform(0, 360, n)]
    )
    poses = vg.Poses(angles)
    defocus = rng.uniform(9, 17, n)
    optics = vg.Optics(defocus, defocus, voltage_kV=np.full(n, 10.0), cs_mm=np.zeros(n))

    def at(places: np.ndarray) -> np.ndarray:
        bells = [np.exp(-((x - places[:, axis, None]) ** 2) / (2 * 0.8**2)) for axis in range(3)]
        return np.einsum("mz,my,mx->zyx", bells[2], bells[1], bells[0], optimize=True).astype(np.float32)

    fine_A = 0.2  # 20 px, of which flat slices end at 2.6 px
    truth = vg.Map(at(spots), fine_A)
    turned = [at(spots @ matrix.T) for matrix in vg.euler_to_matrix(poses.angles_deg)]
    images = np.stack([vg.simulate.project_layers(vg.Map(v, fine_A), optics[i]) for i, v in enumerate(turned)])
    particles = vg.Particles.from_images(images, fine_A, poses=poses, optics=optics)
    flat = vg.reconstruct(particles, listener=None)
    made = {
        along: reconstruct_3d_ctf(particles, beam_along_z=along, diameter_A=4.0, listener=None)
        for along in (True, False)
    }
    curves = {name: np.asarray(vg.fsc(volume, truth).curve)[10:12].mean() for name, volume in made.items()}
    assert curves[True] > 0.9
    assert curves[True] > vg.fsc(flat, truth).curve[10:12].mean() + 0.1
    assert curves[False] < curves[True] - 0.3


def test_what_cannot_be_is_refused():
    both = vg.Optics([20.0, 20.0], [20.0, 20.0], voltage_kV=10.0)
    with pytest.raises(InputError, match="project_3d_ctf: expected the optics of one image, got 2"):
        vg.simulate.project_3d_ctf(vg.Map(blob(BOX, 1), PIXEL_A), both)
