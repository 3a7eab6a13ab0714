"""Fourier shell correlation: formula, noise statistics, thresholds, resolution."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import verglas as vg
from verglas import assessment, fourier
from verglas.errors import InputError

from tolerance import FSC_FLOAT32, FSC_FLOAT64


def direct_fsc(a, b):
    """The definition on the full transform, element by element."""
    fa, fb = np.fft.fftn(a), np.fft.fftn(b)
    axes = [np.fft.fftfreq(n, 1 / n) for n in a.shape]
    shell = np.rint(np.sqrt(sum(g**2 for g in np.meshgrid(*axes, indexing="ij"))))
    curve, counts = [], []
    for s in range(a.shape[0] // 2 + 1):
        x, y = fa[shell == s], fb[shell == s]
        curve.append(np.sum(x * y.conj()).real / np.sqrt(np.sum(abs(x) ** 2) * np.sum(abs(y) ** 2)))
        counts.append(x.size)
    return np.array(curve), np.array(counts)


@settings(deadline=None, max_examples=25)
@given(n=st.integers(2, 15), ndim=st.sampled_from([2, 3]), seed=st.integers(0, 9999), mix=st.floats(0, 2))
def test_equals_definition(n, ndim, seed, mix):
    rng = np.random.default_rng(seed)
    a, noise = rng.normal(size=(2,) + (n,) * ndim)
    b = mix * a + noise
    got = vg.fsc(a, b, pixel_size_A=1.3)
    want, counts = direct_fsc(a, b)
    np.testing.assert_allclose(got.curve, want, atol=FSC_FLOAT64)
    assert got.counts.tolist() == counts.tolist()
    np.testing.assert_allclose(got.frequency_per_A, np.arange(n // 2 + 1) / (n * 1.3))


@pytest.mark.parametrize("n", [4, 5, 8, 9])
def test_independent_counts_by_listing_friedel_pairs(n):
    axis = np.fft.fftfreq(n, 1 / n).astype(int)
    grid = np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)
    pairs = {}
    for k in grid.tolist():
        mate = sorted([tuple(v % n for v in k), tuple(-v % n for v in k)])
        shell = round(float(np.sqrt(sum(v * v for v in k))))
        pairs.setdefault(shell, set()).add(tuple(mate))
    _, independent = fourier.shell_counts((n, n, n))
    assert independent.tolist() == [len(pairs[s]) for s in range(n // 2 + 1)]


@settings(deadline=None, max_examples=15)
@given(n=st.integers(4, 24), seed=st.integers(0, 9999), dtype=st.sampled_from([np.float32, np.float64]))
def test_one_for_the_same_map_and_invariant_to_isotropic_filter(n, seed, dtype):
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(2, n, n, n)).astype(dtype)
    tolerance = FSC_FLOAT64 if dtype == np.float64 else FSC_FLOAT32
    np.testing.assert_allclose(vg.fsc(a, a).curve, 1, atol=tolerance)
    np.testing.assert_allclose(vg.fsc(a, -3 * a).curve, -1, atol=tolerance)
    # A filter that depends on the shell alone and never vanishes, another one for each map. A filtered map stored in
    # float32 holds a shell damped by 100 against the others only to 1e-5 itself: a milder filter there.
    shell = fourier.shells(a.shape)
    low, high = (0.1, 10) if dtype == np.float64 else (0.5, 2)
    gain_a, gain_b = rng.uniform(low, high, (2, shell.max() + 1))
    filtered_a = fourier.inverse(fourier.forward(a, 3) * gain_a[shell].astype(dtype), a.shape)
    filtered_b = fourier.inverse(fourier.forward(b, 3) * gain_b[shell].astype(dtype), a.shape)
    np.testing.assert_allclose(vg.fsc(filtered_a, filtered_b).curve, vg.fsc(a, b).curve, atol=tolerance)


def test_noise_has_mean_zero_and_variance_one_over_n():
    rng = np.random.default_rng(1)
    curves = [vg.fsc(*rng.normal(size=(2, 16, 16, 16)), threads=1) for _ in range(400)]
    counts = curves[0].counts[2:]
    values = np.array([c.curve[2:] for c in curves])
    sd = 1 / np.sqrt(counts)
    assert np.all(np.abs(values.mean(0)) < 4 * sd / np.sqrt(len(curves)))
    np.testing.assert_allclose(values.var(0) * counts, 1, atol=4 * np.sqrt(2 / len(curves)))


@pytest.mark.parametrize(
    ("snr", "expected"), [(1 / 6, 0.143), (0.5, 0.333), (1.0, 0.500), (4.0, 0.800)], ids=["1/6", "1/2", "1", "4"]
)
def test_expectation_of_fsc_is_snr_over_one_plus_snr(snr, expected):
    rng = np.random.default_rng(round(1000 * snr))
    curves = []
    for _ in range(20):
        signal, noise_a, noise_b = rng.normal(size=(3, 32, 32, 32)).astype(np.float32)
        curves.append(vg.fsc(np.sqrt(snr) * signal + noise_a, np.sqrt(snr) * signal + noise_b, threads=1).curve[4:])
    mean = np.mean(curves, axis=0)
    np.testing.assert_allclose(mean, snr / (1 + snr), atol=0.03)
    assert mean.mean() == pytest.approx(expected, abs=0.005)
    assert assessment.ssnr_from_fsc(mean.mean()) == pytest.approx(snr, rel=0.03)


@settings(deadline=None, max_examples=50)
@given(snr=st.floats(0, 1e6))
def test_relations_of_half_and_full_maps(snr):
    half = snr / (1 + snr)
    assert assessment.ssnr_from_fsc(half) == pytest.approx(snr, rel=1e-6, abs=1e-12)
    assert assessment.ssnr_from_fsc(half, full=True) == pytest.approx(2 * snr, rel=1e-6, abs=1e-12)
    # Two full maps have twice the SNR each: their FSC is 2 SNR / (1 + 2 SNR).
    assert assessment.full_map_fsc(half) == pytest.approx(2 * snr / (1 + 2 * snr), rel=1e-9)


def test_infinite_and_negative_are_safe():
    assert assessment.ssnr_from_fsc([1.0, -0.5, 0.0]).tolist() == [np.inf, 0, 0]
    assert assessment.full_map_fsc([-1.0, 1.0]).tolist() == [0, 1]


def test_thresholds_and_c_ref():
    assert assessment.c_ref(1 / 7) == pytest.approx(0.5, abs=1e-15)
    assert assessment.c_ref([0.0, 1.0]).tolist() == [0, 1]
    # 0.5 between half maps is an SNR of 1; 1/3 is what two full maps would show as 0.5.
    assert assessment.ssnr_from_fsc(0.5) == 1
    assert assessment.full_map_fsc(1 / 3) == pytest.approx(0.5, abs=1e-15)


def test_threshold_curves():
    n = np.array([1, 100, 10**12])
    half_bit = assessment.threshold_curve("half-bit", n)
    assert half_bit[0] == pytest.approx(1.0, abs=1e-4)
    # Many voxels: the SNR of half a bit, log2(1 + 2 * SNR_half) = 0.5, seen by half maps.
    snr_half = (2**0.5 - 1) / 2
    assert half_bit[2] == pytest.approx(snr_half / (1 + snr_half), abs=1e-4)
    assert assessment.threshold_curve("3sigma", n).tolist() == pytest.approx([3, 0.3, 3e-6])
    assert assessment.threshold_curve(0.143, n).tolist() == [0.143] * 3


def make(curve, apix=2.0):
    curve = np.asarray(curve, float)
    n = 2 * (len(curve) - 1)
    counts = np.full(len(curve), 100)
    return assessment.FSC(np.arange(len(curve)) / (n * apix), curve, counts, counts // 2, apix)


def test_resolution_is_the_first_crossing_interpolated():
    f = make([1, 1, 0.9, 0.1, 0.05, 0.6, 0.0])
    frequency = (2 + (0.9 - 0.143) / 0.8) / 24
    assert f.resolution_A() == pytest.approx(1 / frequency)
    assert f.resolution_A(0.5) == pytest.approx(24 / 2.5)
    assert f.resolution_A(np.full(7, 0.5)) == pytest.approx(24 / 2.5)
    assert f.resolution_A("3sigma") == pytest.approx(24 / (2 + 0.6 / 0.8))
    assert f.crosses()


def test_resolution_without_a_crossing_is_the_last_shell_and_without_signal_infinite():
    good = make(np.ones(7))
    assert not good.crosses()
    assert good.resolution_A() == pytest.approx(4.0)
    bad = make([1, 0, 0, 0.9, 0.9, 0.9, 0.9])
    assert bad.resolution_A() == np.inf


def test_shells_too_small_for_a_sigma_threshold_decide_nothing():
    counts = np.array([1, 18, 62, 98, 210, 350, 450])
    frequency = np.arange(7) / 24
    good = assessment.FSC(frequency, np.array([1, 0.99, 0.99, 0.98, 0.9, 0.5, 0.0]), counts, counts // 2, 2.0)
    level = good.threshold("5sigma")
    assert level[1] > 1  # 5 / sqrt(18)
    step = (0.5 - level[5]) / (0.5 - level[5] + level[6])
    assert good.resolution_A("5sigma") == pytest.approx(24 / (5 + step))
    none = assessment.FSC(frequency, np.array([1, 0.99, 0.1, 0.1, 0.9, 0.9, 0.9]), counts, counts // 2, 2.0)
    assert none.resolution_A("5sigma") == np.inf


def test_a_threshold_that_no_shell_can_be_tested_at_gives_nan_not_infinity():
    x = np.random.default_rng(0).normal(size=(16, 16, 16))
    tiny = assessment.fsc(x, x, pixel_size_A=2.0, symmetry_order=24)
    assert (tiny.threshold("5sigma")[1:] > 0.9).all()
    assert not tiny.is_testable("5sigma")
    assert np.isnan(tiny.resolution_A("5sigma"))  # inf would say that there is no signal
    for kind in ("half-bit", "3sigma", 0.143):
        assert tiny.is_testable(kind)
        assert tiny.resolution_A(kind) == 4.0
    noise = assessment.fsc(x, np.random.default_rng(1).normal(size=x.shape), pixel_size_A=2.0, symmetry_order=24)
    assert noise.resolution_A("3sigma") == np.inf


def test_empty_shell_gives_zero_not_nan():
    rng = np.random.default_rng(0)
    a = rng.normal(size=(24, 24, 24)).astype(np.float32)
    zero = np.zeros_like(a)
    constant = np.full_like(a, 0.3)
    for other in (zero, constant):
        curve = vg.fsc(a, other).curve
        assert np.all(curve[1:] == 0)
    assert np.all(vg.fsc(zero, zero).curve == 0)
    assert np.all(vg.fsc(constant, constant).curve == [1] + [0] * 12)


def test_mask_is_applied_to_both_and_maps_bring_their_pixel_size():
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 16, 16, 16)).astype(np.float32)
    mask = vg.masks.soft_sphere(16, 4, 2)
    got = vg.fsc(vg.Map(a, 1.5), vg.Map(b, 1.5), mask=vg.Map(mask, 1.5))
    np.testing.assert_allclose(got.curve, vg.fsc(a * mask, b * mask).curve, atol=FSC_FLOAT32)
    assert got.pixel_size_A == 1.5
    assert got.frequency_per_A[-1] == pytest.approx(1 / 3)


def test_threads_do_not_change_the_result():
    a, b = np.random.default_rng(0).normal(size=(2, 20, 20, 20)).astype(np.float32)
    assert np.array_equal(vg.fsc(a, b, threads=1).curve, vg.fsc(a, b, threads=3).curve)


cube = np.ones((8, 8, 8), np.float32)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: vg.fsc(cube, np.ones((9, 9, 9))), r"\(8, 8, 8\) and \(9, 9, 9\)"),
        (lambda: vg.fsc(np.ones((8, 8, 9)), cube), "first map has shape"),
        (lambda: vg.fsc(vg.Map(cube, 1.05), vg.Map(cube, 1.06)), "1.05 and 1.06 A differ"),
        (lambda: vg.fsc(cube, cube, mask=np.ones((8, 8))), "mask has shape"),
        (lambda: vg.fsc(cube * np.nan, cube), "512 values that are not finite"),
        (lambda: vg.fsc(cube, cube, pixel_size_A=0), "positive pixel size"),
        (lambda: vg.fsc(cube, cube).resolution_A("high"), "half-bit"),
    ],
)
def test_bad_input_is_named(call, words):
    with pytest.raises(InputError, match=words):
        call()


def test_exact_data_give_the_stated_fsc(data_dir):
    """As its description says: mean 0.996, lowest 0.980 over shells 1..31; sphere of 0.425 N with a 6 px edge."""
    truth, other = (vg.read_map(data_dir / "exact" / name) for name in ("truth.mrc", "relion_reconstruct_ctf.mrc"))
    curve = vg.fsc(truth, other, vg.masks.soft_sphere(64, 0.425 * 64, 6)).curve[1:32]
    assert curve.mean() == pytest.approx(0.996, abs=5e-4)
    assert curve.min() == pytest.approx(0.980, abs=5e-4)


def test_the_interval_of_a_resolution_holds_it():
    """In at least nine of ten pairs, of correlations as few voxels make them: each bound is of one side's crossing."""
    shells, n = np.arange(33), np.full(33, 400)
    expected = 1 / (1 + np.exp((shells - 18) / 3))
    truth = assessment.FSC(shells / 128, expected, n, n, 2.0).resolution_A()
    rng, held, widths = np.random.default_rng(0), 0, []
    for _ in range(200):
        curve = expected + (1 - expected**2) / np.sqrt(n) * rng.normal(size=33)
        finest, coarsest = assessment.FSC(shells / 128, np.clip(curve, -1, 1), n, n, 2.0).resolution_interval_A()
        held += finest <= truth <= coarsest
        widths.append(coarsest / finest)
    assert held >= 180
    assert np.median(widths) < 1.35
