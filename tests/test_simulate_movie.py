"""Simulated movies: what the truth says is what lies in the frames."""

from __future__ import annotations

import numpy as np
import pytest

import verglas as vg
from verglas import fourier
from verglas.errors import InputError
from verglas.simulate import MotionField, Recording
from verglas.simulate.motion_field import random_polynomial
from verglas.simulate.movies import _Specimen


@pytest.fixture(scope="module")
def model():
    return vg.simulate.phantom(32, 4.0, 80.0, seed=1)


def moved_by(a, b):
    """Shift x, y of b against a: maximum of the phase sum, by Newton steps on the correlation's peak."""
    spectra = [np.fft.rfft2(i - i.mean()) for i in (a, b)]
    cross = spectra[1] * spectra[0].conj()
    fine = (8 * a.shape[0], 8 * a.shape[1])  # Newton steps need a start nearer than half the finest detail
    cc = np.fft.irfft2(fourier.resize(cross, a.shape, fine), fine)
    y, x = np.unravel_index(cc.argmax(), cc.shape)
    at = np.array([x - fine[1] * (2 * x > fine[1]), y - fine[0] * (2 * y > fine[0])]) / 8
    ky, kx = np.fft.fftfreq(a.shape[0])[:, None] * 2 * np.pi, np.fft.rfftfreq(a.shape[1]) * 2 * np.pi
    for _ in range(6):
        turned = cross * np.exp(1j * (kx * at[0] + ky * at[1]))
        gradient = np.array([(-turned.imag * k).sum() for k in (kx, ky)])
        hessian = -np.array([[(turned.real * p * q).sum() for p in (kx, ky)] for q in (kx, ky)])
        at -= np.linalg.solve(hessian, gradient)
    return at


def test_particles_lie_where_the_truth_says(model):
    """Counts at 20,000 e/px are the particles' clean picture moved by each particle's own shift."""
    movie, truth = vg.simulate.movie(
        model,
        shape=(300, 320),
        pixel_size_A=4.0,
        n=6,
        frames=3,
        dose_per_frame_e_A2=1250.0,
        damage=False,
        ice_thickness_A=0.0,
        drift_px_per_frame=(5.3, -2.2),
        dome_px=3.0,
        walk_px=0.5,
        seed=3,
        defocus_u_A=12000,
    )
    assert truth.shifts_px.shape == (3, 6, 2)
    field = np.moveaxis(truth.field.at(*truth.picks.xy_px.T), 1, 0)
    walk = truth.shifts_px - field
    assert not walk[0].any()
    assert 0.2 < np.abs(walk[2]).mean() < 1.2
    for f in (0, 2):
        contrast = movie.frame(f) / 20000.0 - 1
        checked = 0
        for (x, y), (dx, dy) in zip(np.rint(truth.picks.xy_px).astype(int), truth.shifts_px[f], strict=True):
            if not (40 <= x < 280 and 40 <= y < 260):
                continue
            window = np.hanning(64)[:, None] * np.hanning(64)
            nx, ny = int(np.rint(dx)), int(np.rint(dy))
            a = truth.clean[y - 32 : y + 32, x - 32 : x + 32] * window
            b = contrast[y + ny - 32 : y + ny + 32, x + nx - 32 : x + nx + 32] * window
            np.testing.assert_allclose(moved_by(a, b), (dx - nx, dy - ny), atol=0.05)
            checked += 1
        assert checked >= 3


def test_ice_moves_with_the_field():
    # without movement of molecules both frames show the same ice
    settings = dict(
        shape=(512, 512), pixel_size_A=3.0, frames=2, dose_per_frame_e_A2=3000.0, damage=False, ice_motion_A2_per_e=0.0
    )
    movie, truth = vg.simulate.movie(None, **settings, drift_px_per_frame=(2.6, -7.4), shear_px=12.0, seed=1)
    still, _ = vg.simulate.movie(None, **settings, seed=1)
    window = np.hanning(160)[:, None] * np.hanning(160)
    span = np.arange(-80, 80)
    for y, x in ((100, 100), (400, 100), (100, 400), (400, 400)):
        field = truth.field.at(x + span[None, :], y + span[:, None])[..., 1, :]
        expected = (field * window[..., None]).sum(axis=(0, 1)) / window.sum()
        nx, ny = np.rint(expected).astype(int)
        a = (still.frame(1) / 27000 - 1)[y - 80 : y + 80, x - 80 : x + 80] * window
        b = (movie.frame(1) / 27000 - 1)[y - 80 + ny : y + 80 + ny, x - 80 + nx : x + 80 + nx] * window
        np.testing.assert_allclose(moved_by(a, b), expected - (nx, ny), atol=0.05)


def test_ice_changes_as_its_molecules_move():
    """Correlation of two frames of ice at spatial frequency k: exp(-2 pi^2 k^2 s^2), s^2 the square displacement."""
    movie, _ = vg.simulate.movie(
        None,
        shape=(512, 512),
        pixel_size_A=2.0,
        frames=2,
        dose_per_frame_e_A2=2000.0,
        damage=False,
        ice_motion_A2_per_e=5e-4,
        b_factor_A2=0.0,
        ice_thickness_A=2000.0,
        defocus_u_A=8000,
        seed=2,
    )
    a, b = (np.fft.rfft2(movie.frame(f) - 8000.0) for f in (0, 1))
    k = fourier.radius((512, 512)) / 1024
    for low, high in ((0.1, 0.12), (0.16, 0.18)):
        ring = (k > low) & (k < high)
        power = (np.abs(a[ring]) ** 2).sum() - ring.sum() * 512 * 512 * 8000.0  # without the counting noise
        kept = (a[ring] * b[ring].conj()).real.sum() / power
        assert kept == pytest.approx(np.exp(-2 * np.pi**2 * ((low + high) / 2) ** 2), abs=0.03)


def test_damage_follows_the_curve(model):
    scene = vg.simulate.Scene(shape=(128, 128), pixel_size_A=2.0)
    specimen = _Specimen(model, scene, Recording(), np.array([[64.0, 64.0]]), vg.Poses([[0, 0, 0]], [[0, 0]]), None)
    pictures = []
    for exposure in (None, 20.0):
        out = np.zeros((specimen.box, specimen.box), np.float32)
        specimen.centres = np.array([[specimen.box // 2] * 2], float)
        specimen.add_particles(out, np.zeros((1, 2)), exposure)
        pictures.append(np.fft.rfft2(out))
    k = fourier.radius((specimen.box, specimen.box)) / (specimen.box * 2.0)
    kept = (pictures[1] / pictures[0]).real
    strong = (k > 0.02) & (np.abs(pictures[0]) > 1e-3 * np.abs(pictures[0]).max())
    expected = np.exp(-20 / (2 * (0.245 * k[strong] ** -1.665 + 2.81)))  # Grant and Grigorieff (2015), eq. 3
    np.testing.assert_allclose(kept[strong], expected, atol=2e-3)


def test_critical_exposure_by_voltage():
    assert vg.optics.critical_exposure_e_A2(0.25, 300) == pytest.approx(0.245 * 0.25**-1.665 + 2.81)
    assert vg.optics.critical_exposure_e_A2(0.25, 200) == pytest.approx(0.8 * (0.245 * 0.25**-1.665 + 2.81))
    assert vg.optics.critical_exposure_e_A2(0.25, 100) == pytest.approx(0.64 * (0.245 * 0.25**-1.665 + 2.81))
    assert np.isinf(vg.optics.critical_exposure_e_A2(0.0))
    with pytest.raises(InputError, match="1000 kV"):
        vg.optics.critical_exposure_e_A2(0.1, 1000)


def test_counts_gain_and_defects():
    movie, truth = vg.simulate.movie(
        None,
        shape=(200, 240),
        pixel_size_A=1.0,
        frames=40,
        ice_thickness_A=0.0,
        gain_sd=0.1,
        hot_pixels=5,
        dead_pixels=7,
        dead_columns=2,
        seed=4,
    )
    raw = movie.source.data
    assert raw.dtype == np.uint8
    good = ~movie.defect_mask
    total = raw.sum(axis=0, dtype=np.int64)
    # Poisson: the sum over frames has the variance of its mean
    deviation = (total[good] - 40 / truth.gain[good]) / np.sqrt(40 / truth.gain[good])
    assert deviation.std() == pytest.approx(1, abs=0.02)
    assert deviation.mean() == pytest.approx(0, abs=0.02)
    assert truth.gain.std() == pytest.approx(0.11, abs=0.02)
    assert 400 < len(truth.defects) <= 412  # single pixels may fall on dead columns
    at_defects = total[~good]
    assert ((at_defects == 0) | (at_defects > 1000)).all()
    assert (at_defects > 1000).sum() == 5
    corrected = sum(f.astype(np.float64) for f in movie)
    assert corrected[~good].max() < 40 + 7 * np.sqrt(40 * 1.4)
    assert corrected.mean() == pytest.approx(40, rel=0.005)


def test_the_same_whatever_the_threads_and_other_settings_keep_the_particles(model):
    settings = dict(shape=(128, 160), pixel_size_A=4.0, n=3, frames=4, drift_px=(3.0, 1.0), walk_px=0.2, seed=9)
    one, truth = vg.simulate.movie(model, **settings, threads=1)
    two, _ = vg.simulate.movie(model, **settings, threads=2)
    np.testing.assert_array_equal(one.source.data, two.source.data)
    _, still = vg.simulate.movie(model, **{**settings, "drift_px": (0.0, 0.0), "walk_px": 0.0})
    np.testing.assert_array_equal(truth.picks.xy_px, still.picks.xy_px)
    np.testing.assert_array_equal(truth.clean, still.clean)
    assert not still.shifts_px.any()


def test_polynomial_is_relions():
    """d_x = sum c[3s + p - 1] phi_s t^p, written out term by term."""
    terms = np.random.default_rng(0).normal(size=36)
    field = MotionField((50, 80), np.zeros((4, 2)), terms)
    X, Y, t = 13.0, 41.0, 3
    x, y = X / 80 - 0.5, Y / 50 - 0.5
    phi = [1, x, x * x, y, y * y, x * y]
    expected = [
        sum(terms[18 * axis + 3 * s + p - 1] * phi[s] * t**p for s in range(6) for p in (1, 2, 3)) for axis in (0, 1)
    ]
    np.testing.assert_allclose(field.at(X, Y)[t], expected)
    assert not field.at(X, Y)[0].any()
    assert random_polynomial(1, 1.0).shape == (36,)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"snr": 0.2}, "snr has no meaning in a movie"),
        ({"frame": 3}, "unknown setting frame"),
        ({"frames": 0}, "at least one frame"),
        ({"dose_per_frame_e_A2": 0.0}, "positive dose_per_frame_e_A2"),
        ({"gain_sd": 0.9}, "gain_sd"),
        ({"walk_px": -1.0}, "walk_px: expected 0 or more"),
        ({"coefficients": np.zeros(18)}, "18 for x and 18 for y"),
    ],
)
def test_what_is_refused(settings, words):
    with pytest.raises(InputError, match=words):
        vg.simulate.movie(None, **{"shape": (64, 64), **settings})


def test_correlated_walks_go_together_where_particles_are_near():
    from verglas.simulate.motion_field import Recording

    places = np.array([[0.0, 0.0], [10.0, 0.0], [5000.0, 0.0]])
    walks = Recording(frames=400, walk_px=0.5, walk_correlation_px=200.0).walks(3, 1, places)
    steps = np.moveaxis(np.diff(walks, axis=0), 1, 0).reshape(3, -1)
    correlation = np.corrcoef(steps)
    assert abs(correlation[0, 1] - np.exp(-0.05)) < 0.05
    assert abs(correlation[0, 2]) < 0.15
    assert np.allclose(steps.std(axis=1), 0.5, rtol=0.1)
    alone = Recording(frames=400, walk_px=0.5, walk_correlation_px=200.0).walks(2, 1, places[:2])
    assert np.allclose(alone, walks[:, :2])


def test_movies_of_one_detector_have_its_gain_and_defects():
    settings = {"shape": (64, 72), "frames": 2, "gain_sd": 0.1, "hot_pixels": 5, "detector_seed": 7}
    (first, one), (second, two) = (vg.simulate.movie(None, **settings, seed=seed) for seed in (1, 2))
    assert np.array_equal(one.gain, two.gain)
    assert np.array_equal(one.defects, two.defects)
    assert not np.array_equal(first.source.data, second.source.data)
    assert not np.array_equal(vg.simulate.movie(None, **{**settings, "detector_seed": None}, seed=1)[1].gain, one.gain)
