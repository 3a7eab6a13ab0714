"""Thresholds, counts of independent voxels, F statistics, phase residual: values, expectations under noise."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats

import verglas as vg
from verglas import assessment
from verglas.errors import InputError


def noise_curves(n, repeats, mask=None, seed=0):
    rng = np.random.default_rng(seed)
    pairs = (rng.normal(size=(2, n, n, n)).astype(np.float32) for _ in range(repeats))
    return [vg.fsc(a, b, mask, threads=1) for a, b in pairs]


@pytest.mark.parametrize(("z", "rate"), [(2, 0.0228), pytest.param(3, 0.00135, marks=pytest.mark.slow)])
def test_sigma_thresholds_have_their_false_positive_rate(z, rate):
    curves = noise_curves(16, 600)
    values = np.array([c.curve[2:] for c in curves])
    level = assessment.threshold_curve(f"{z}sigma", curves[0].counts)[2:]
    np.testing.assert_allclose(level, z / np.sqrt(curves[0].counts[2:]))
    found = np.mean(values > level)
    assert found == pytest.approx(rate, abs=4 * np.sqrt(rate / values.size))
    assert stats.norm.sf(5) == pytest.approx(2.87e-7, rel=0.01)  # z = 5, which no simulation reaches


def test_fisher_threshold_equals_its_formula_and_is_exact_for_few():
    n = np.array([4, 7, 103])
    level = assessment.threshold_curve("3sigma-fisher", n)
    np.testing.assert_allclose(level, np.tanh(3 / np.sqrt(n - 3.0)))
    assert assessment.threshold_curve("3sigma-fisher", [1, 3]).tolist() == [1, 1]
    # The correlation of few pairs of Gaussian numbers exceeds it in as many cases as a normal deviate exceeds z.
    x, y = np.random.default_rng(0).normal(size=(2, 200_000, 13))
    r = np.sum(x * y, axis=1) / np.sqrt(np.sum(x * x, axis=1) * np.sum(y * y, axis=1))
    rate = np.mean(r > assessment.threshold_curve("2sigma-fisher", [13.0])[0])
    assert rate == pytest.approx(stats.norm.sf(2), rel=0.2)


def test_symmetry_raises_sigma_thresholds_by_the_root_of_its_order():
    a, b = np.random.default_rng(0).normal(size=(2, 16, 16, 16))
    plain, four = vg.fsc(a, b), vg.fsc(a, b, symmetry_order=4)
    assert np.array_equal(plain.curve, four.curve)
    np.testing.assert_allclose(four.threshold("3sigma")[2:], 2 * plain.threshold("3sigma")[2:])
    assert four.counts.tolist() == plain.counts.tolist()


def test_symmetrised_noise_has_the_variance_of_the_independent_voxels():
    rng = np.random.default_rng(3)
    curves = []
    for _ in range(200):
        a, b = rng.normal(size=(2, 17, 17, 17))  # odd: the four-fold axis maps voxels on voxels
        a, b = (sum(np.rot90(x, k, (1, 2)) for k in range(4)) for x in (a, b))
        curves.append(vg.fsc(a, b, symmetry_order=4, threads=1))
    values = np.array([c.curve for c in curves])[:, 3:]
    ratio = values.var(0) * curves[0].n[3:]
    assert ratio.mean() == pytest.approx(1, abs=0.2)  # voxels on the axis are their own copies: some more than n / 4


@pytest.mark.parametrize(
    ("box", "radius", "edge"),
    [*(pytest.param(32, *each, marks=pytest.mark.slow) for each in ((8, 4), (5, 3))), (24, 9, 3)],
)
def test_effective_counts_under_a_mask_match_the_variance_of_noise(box, radius, edge):
    mask = vg.masks.soft_sphere(box, radius, edge)
    curves = noise_curves(box, 150, mask)
    ratio = np.array([c.curve for c in curves]).var(0) * curves[0].n
    assert np.all(curves[0].n < 0.75 * curves[0].counts.clip(2)) or box == 24
    assert ratio[3:].mean() == pytest.approx(1, abs=0.15)
    assert ratio[3:].min() > 0.5
    assert ratio[3:].max() < 1.7


@pytest.mark.slow
def test_effective_counts_in_two_dimensions_and_without_a_mask():
    full = vg.fourier.shell_counts((32, 32))[0]
    assert assessment.effective_counts((32, 32)).tolist() == full.tolist()
    mask = vg.masks.soft_circle(32, 7, 3)
    rng = np.random.default_rng(0)
    values = np.array([vg.fsc(*rng.normal(size=(2, 32, 32)), mask, threads=1).curve for _ in range(600)])
    ratio = values.var(0) * assessment.effective_counts((32, 32), mask)
    assert ratio[3:].mean() == pytest.approx(1, abs=0.15)


def test_half_bit_with_effective_n():
    n = np.array([30.0, 1000.0])
    want = (0.2071 + 1.9102 / np.sqrt(n)) / (1.2071 + 0.9102 / np.sqrt(n))
    np.testing.assert_allclose(assessment.threshold_curve("half-bit", n), want)
    a, b = np.random.default_rng(0).normal(size=(2, 16, 16, 16))
    curve = vg.fsc(a, b, vg.masks.soft_sphere(16, 4, 2))
    np.testing.assert_allclose(curve.threshold("half-bit"), assessment.threshold_curve("half-bit", curve.n))
    assert np.log2(1 + 0.4142) == pytest.approx(0.5, abs=1e-4)


def test_resolutions_at_all_usual_thresholds():
    rng = np.random.default_rng(0)
    signal = vg.filters.apply(vg.Map(rng.normal(size=(48,) * 3), 1.5), vg.filters.b_factor(250.0)).data
    curve = vg.fsc(*(vg.Map(signal + 0.1 * rng.normal(size=signal.shape), 1.5) for _ in range(2)))
    found = curve.resolutions_A()
    assert list(found) == ["0.5", "1/3", "0.143", "half-bit", "5sigma", "3sigma", "2sigma"]
    for name, value in found.items():
        assert value == curve.resolution_A(1 / 3 if name == "1/3" else float(name) if name[0] == "0" else name)
    assert found["0.5"] > found["1/3"] > found["0.143"]
    assert found["5sigma"] > found["3sigma"] > found["2sigma"]


@pytest.mark.parametrize("noise_images", [pytest.param(None, marks=pytest.mark.slow), 6])
def test_f_under_noise_has_its_mean_and_tail(noise_images):
    rng = np.random.default_rng(1)
    values, p = [], []
    for _ in range(400):
        images = rng.normal(size=(6, 24, 24))
        other = None if noise_images is None else rng.normal(size=(noise_images, 24, 24))
        found = assessment.spectral_f(images, other, threads=1)
        values.append(found.f)
        p.append(found.p_value)
    dof = found.signal_dof * (5 if noise_images is None else noise_images)
    np.testing.assert_allclose(found.noise_dof, dof)
    np.testing.assert_allclose(found.mean_of_noise[2:], dof[2:] / (dof[2:] - 2))
    mean = np.mean(values, axis=0)[3:]
    assert (mean / found.mean_of_noise[3:]).mean() == pytest.approx(1, abs=0.01)
    assert np.mean(np.array(p)[:, 3:] < 0.05) == pytest.approx(0.05, abs=0.012)


def test_planted_ssnr_is_recovered():
    rng = np.random.default_rng(2)
    snr, count = 0.3, 10
    found = []
    for _ in range(30):
        signal = rng.normal(size=(32, 32))
        images = np.sqrt(snr) * signal + rng.normal(size=(count, 32, 32))
        found.append(assessment.spectral_f(images, threads=1))
    assert np.mean([f.ssnr[3:] for f in found]) == pytest.approx(snr, rel=0.1)
    assert np.mean([f.ssnr_of_mean[3:] for f in found]) == pytest.approx(count * snr, rel=0.1)
    assert found[0].p_value[5:].max() < 0.05


def test_phase_residual_of_noise_is_180_over_root_3():
    rng = np.random.default_rng(0)
    pairs = [rng.normal(size=(2, 32, 32, 32)) for _ in range(8)]
    mean = np.mean([assessment.differential_phase_residual(*pair).residual_deg[8:] for pair in pairs])
    assert mean == pytest.approx(180 / np.sqrt(3), abs=0.5)
    a = pairs[0][0]
    same = assessment.differential_phase_residual(a, a)
    assert same.residual_deg.max() < 1e-5
    # A shift by one pixel along x turns the phase of kx by 360 kx / N.
    one = np.zeros((16, 16))
    one[8, 8] = 1
    moved = assessment.differential_phase_residual(one, np.roll(one, 1, axis=1))
    kx = np.fft.fftfreq(16, 1 / 16)
    grid = np.rint(np.hypot(kx[:, None], kx[None]))
    want = [np.sqrt(np.mean((np.broadcast_to(kx, (16, 16))[grid == s] * 360 / 16) ** 2)) for s in range(9)]
    np.testing.assert_allclose(moved.residual_deg, want, atol=1e-6)


@pytest.mark.parametrize("mask", [None, "sphere"])
def test_chance_is_below_the_bound_of_the_phase_residual_as_seldom_as_stated(mask):
    """Chebyshev's bound holds, however many voxels a shell has; and its variance is that of noise."""
    rng, window = np.random.default_rng(3), None if mask is None else vg.masks.soft_sphere(20, 6, 3)
    found = [assessment.differential_phase_residual(*rng.normal(size=(2, 20, 20, 20)), window) for _ in range(60)]
    residual = np.array([one.residual_deg for one in found])[:, 2:]
    for false_alarm in (0.5, 0.2, 0.05):
        bound = np.array([one.noise_bound_deg(false_alarm) for one in found])[:, 2:]
        assert np.mean(residual < bound) <= false_alarm
        assert bound[:, 3:].min() > 60  # it does exclude something
    squares, phases = np.deg2rad(residual) ** 2, np.array([one.phases for one in found])[:, 2:]
    ratio = squares.var(axis=0) / (4 * np.pi**4 / 45 / phases.mean(axis=0))
    assert ratio.mean() == pytest.approx(1, abs=0.25)


def test_the_phase_residual_of_signal_passes_the_bound_of_chance_and_noise_ends_it():
    rng = np.random.default_rng(4)
    signal = vg.filters.apply(vg.Map(rng.normal(size=(48,) * 3), 1.5), vg.filters.low_pass(6.0, 0.01)).data
    found = assessment.differential_phase_residual(
        *(vg.Map(signal + signal.std() * rng.normal(size=signal.shape), 1.5) for _ in range(2))
    )
    assert found.resolution_A(found.noise_bound_deg()) == pytest.approx(6.0, rel=0.1)
    half = assessment.differential_phase_residual(*rng.normal(size=(2, 16, 16, 16)), symmetry_order=2)
    whole = assessment.differential_phase_residual(*rng.normal(size=(2, 16, 16, 16)))
    assert (half.phases[4:] < 0.7 * whole.phases[4:]).all()
    with pytest.raises(vg.InputError, match="between 0 and 1"):
        whole.noise_bound_deg(0)


def test_resolution_at_45_and_85_degrees():
    rng = np.random.default_rng(0)
    signal = vg.filters.apply(vg.Map(rng.normal(size=(48,) * 3), 1.5), vg.filters.b_factor(250.0)).data
    maps = [vg.Map(signal + 0.1 * rng.normal(size=signal.shape), 1.5) for _ in range(2)]
    found = assessment.differential_phase_residual(*maps)
    assert found.resolution_A(45) > found.resolution_A(85)
    assert found.resolution_A(45) == pytest.approx(found.fsc.resolution_A(0.5), rel=0.25)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: assessment.effective_counts((8, 8, 8), np.zeros((8, 8, 8))), "zero everywhere"),
        (lambda: assessment.effective_counts((8, 8, 8), np.ones((9, 9, 9))), r"shape \(9, 9, 9\)"),
        (lambda: assessment.effective_counts((8, 8, 8), symmetry_order=0), ">= 1, got 0"),
        (lambda: assessment.spectral_f(np.ones((1, 8, 8))), "two or more images"),
        (lambda: assessment.spectral_f(np.ones((2, 8, 8)), np.ones((2, 9, 9))), "those of noise"),
        (lambda: assessment.threshold_curve("3sigma-exact", [9]), "3sigma-fisher"),
    ],
)
def test_bad_input_is_named(call, words):
    with pytest.raises(InputError, match=words):
        call()


def tilted_within(degrees, n=6000):
    angles = vg.geometry.random_orientations(8 * n, 0)
    tilt = np.minimum(angles[:, 1], 180 - angles[:, 1])
    return angles[tilt < degrees][:n]


def test_efficiency_is_one_for_even_views_and_falls_with_the_cone():
    cones = [assessment.orientation_efficiency(tilted_within(d)).efficiency for d in (91, 75, 60, 45, 30)]
    assert cones[0] == pytest.approx(1, abs=0.02)
    assert all(a > b + 0.05 for a, b in itertools.pairwise(cones))
    assert cones[-1] < 0.5
    side = vg.geometry.random_orientations(6000, 0)
    side[:, 1] = 90
    found = assessment.orientation_efficiency(side)
    assert found.efficiency == pytest.approx(0.8, abs=0.05)  # what the paper says of side views
    assert found.best < 1 < found.worst


def test_efficiency_does_not_depend_on_the_frame_and_counts_symmetry():
    angles = tilted_within(40, 3000)
    turn = vg.euler_to_matrix([[33.0, 57.0, 12.0]])[0]
    other = vg.matrix_to_euler(vg.euler_to_matrix(angles) @ turn)
    one, two = (assessment.orientation_efficiency(a).efficiency for a in (angles, other))
    assert one == pytest.approx(two, abs=0.02)
    assert assessment.orientation_efficiency(angles, "O").efficiency > one + 0.3
    with pytest.raises(InputError, match="no views"):
        assessment.orientation_efficiency(np.zeros((0, 3)))
