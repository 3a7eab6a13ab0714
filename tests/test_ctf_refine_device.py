"""CTF refinement on a GPU: the CPU's fits. Where there is no GPU the kernels run on the host."""

from __future__ import annotations

import numpy as np
import pytest

import verglas as vg
from verglas.errors import DeviceError
from verglas.optics import Aberrations, with_aberrations

from devices import open_device

BOX, PIXEL_A = 32, 2.0
FITS = ("beam_tilt", "fourth_order", "magnification", "defocus", "b_factor")


@pytest.fixture(params=["emulated", "cuda:0"])
def gpu(request, monkeypatch) -> str:
    """A GPU, or the kernels on the host; both are named cuda:0."""
    return open_device(request.param, monkeypatch)


@pytest.fixture(scope="module")
def planted():
    """Map and particles of two micrographs with a beam tilt, wrong defoci and some magnification."""
    rng, n = np.random.default_rng(3), 60
    model = vg.simulate.phantom(BOX, PIXEL_A, 36.0)
    truth = vg.simulate.density(model, BOX, PIXEL_A)
    made = vg.simulate.particles(model, n, BOX, PIXEL_A, snr=1e6, seed=2, listener=None)
    matrix = np.array([[[1.01, 0.0], [0.0, 0.99]]])
    coma = np.array([2.7e7 * 0.0197**2])
    kinds = Aberrations(np.zeros(n, int), np.array([[6.0, -4.0]]), np.zeros((1, 0)), matrix, coma)
    images = kinds.apply(vg.project(truth, made.poses, made.optics), np.arange(n), PIXEL_A)
    images += 0.3 * images.std() * rng.normal(size=images.shape).astype(np.float32)
    columns = {c: made.table[c] + rng.normal(0, 200, n) for c in ("rlnDefocusU",)}
    columns |= {"rlnDefocusV": columns["rlnDefocusU"], "rlnRandomSubset": 1 + np.arange(n) % 2}
    columns |= {"rlnMicrographName": [f"m{i // 30}.mrc" for i in range(n)]}
    source = vg.types.ArraySource(images, PIXEL_A)
    particles = made.with_source(source).with_columns(**columns)
    assert with_aberrations(particles, kinds) is not None
    return truth, particles


def test_fits_on_a_gpu_are_those_of_the_host(gpu, planted):
    truth, particles = planted
    host, device = (
        vg.refine_ctf(
            particles, half_maps=(truth, truth), fit=FITS, rounds=1, threads=1, device=name, listener=None
        ).rounds[0]
        for name in ("cpu", gpu)
    )
    assert host.kept
    assert host.kept == device.kept
    for (name, one), (_, other) in zip(host.fits(), device.fits(), strict=True):
        change, error = ("change_A", "standard_error_A") if name == "defocus" else ("change", "standard_error")
        apart = np.abs(getattr(one, change) - getattr(other, change)) / getattr(one, error)
        assert apart.max() < 0.02, name
        assert np.allclose(getattr(one, error), getattr(other, error), rtol=1e-3), name
        assert abs(one.gain_nats - other.gain_nats) < 0.02 * one.gain_error_nats + 1e-3 * abs(one.gain_nats), name


def test_several_gpus_are_one_too_many(planted, monkeypatch):
    open_device("emulated", monkeypatch)
    truth, particles = planted
    with pytest.raises(DeviceError, match="ctf-refine: works on one device"):
        vg.refine_ctf(particles, half_maps=(truth, truth), device="cuda:0,cuda:1", listener=None)
