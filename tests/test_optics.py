from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import verglas as vg
from verglas import fourier, geometry, optics, reference
from verglas.errors import InputError

from tolerance import CTF_ABS, CTF_ZERO_ABS

BOX, PIXEL = 64, 1.5


def one(**values):
    return vg.Optics(**({"defocus_u_A": 12000.0, "defocus_v_A": 12000.0} | values))


def half_turns(o, s):
    """Phase of the CTF over pi at |k| = s (no astigmatism), from the formula of conventions.md."""
    lam = reference.ctf.wavelength_A(o.voltage_kV[0])
    chi = np.pi * lam * o.defocus_u_A[0] * s**2 - np.pi / 2 * o.cs_mm[0] * 1e7 * lam**3 * s**4
    return (chi + np.deg2rad(o.phase_shift_deg[0]) + np.arcsin(o.amplitude_contrast[0])) / np.pi


# --- the CTF ---------------------------------------------------------------------------------------------------------
def test_ctf_equals_reference():
    o = vg.Optics([12000, 15000], [11000, 15500], 30.0, b_factor_A2=[0, 40], scale=[1, 0.8], phase_shift_deg=[0, 70])
    want = reference.ctf.ctf(o.as_params(), 32, PIXEL)
    np.testing.assert_allclose(vg.ctf(o, 32, PIXEL), want, atol=CTF_ABS)


def test_printed_forms_agree_up_to_the_overall_sign():
    """sin(-pi lam df s^2 + pi/2 Cs lam^3 s^4 - alpha) and -cos(-2 pi (Cs lam^3 s^4/4 - z lam s^2/2) - acos Q)."""
    o, w, cs, dz = one(cs_mm=2.7, amplitude_contrast=0.1), 0.1, 2.7e7, 12000.0
    lam, s = reference.ctf.wavelength_A(300), fourier.radius((BOX, BOX)) / (BOX * PIXEL)
    first = np.sin(-np.pi * lam * dz * s**2 + np.pi / 2 * cs * lam**3 * s**4 - np.arcsin(w))
    second = -np.cos(-2 * np.pi * (cs * lam**3 * s**4 / 4 - dz * lam * s**2 / 2) - np.arccos(w))
    ours = vg.ctf(o, BOX, PIXEL)[0]
    np.testing.assert_allclose(ours, -first, atol=CTF_ABS)
    np.testing.assert_allclose(ours, -second, atol=CTF_ABS)


def test_wavelengths():
    """0.019687 A at 300 kV and 0.025079 A at 200 kV: the printed digits, one set of constants everywhere."""
    assert np.floor(optics.wavelength_A([300.0, 200.0]) * 1e6).tolist() == [19687, 25079]
    assert float(optics.wavelength_A(300)) == reference.ctf.wavelength_A(300)
    # From first principles: h / sqrt(2 m e V (1 + e V / 2 m c^2)).
    h, m, e, c = 6.62607015e-34, 9.1093837015e-31, 1.602176634e-19, 299792458.0
    for kv in (80, 120, 200, 300):
        exact = h / np.sqrt(2 * m * e * kv * 1e3 * (1 + e * kv * 1e3 / (2 * m * c * c))) * 1e10
        # The agreed constants lie 6e-6 above those of CODATA 2018.
        assert abs(float(optics.wavelength_A(kv)) / exact - 1) < 1e-5


@settings(deadline=None, max_examples=100)
@given(
    defocus=st.one_of(st.floats(-30000, 40000), st.just(0.0)),
    cs=st.sampled_from([0.0, 1e-6, 0.01, 2.0, 2.7]),
    w=st.floats(0, 1),
    phase=st.floats(-180, 180),
    kv=st.sampled_from([80.0, 200.0, 300.0]),
    limit=st.floats(0.05, 0.6),
)
def test_zeros_lie_at_the_analytic_radii(defocus, cs, w, phase, kv, limit):
    """The CTF vanishes at each, and between neighbours it keeps its sign: none is missed."""
    o = one(
        defocus_u_A=defocus, defocus_v_A=defocus, cs_mm=cs, amplitude_contrast=w, phase_shift_deg=phase, voltage_kV=kv
    )
    zeros = optics.ctf_zeros(o, limit)
    assert (np.diff(zeros) > 0).all()
    assert (zeros > 0).all()
    assert (zeros <= limit).all()
    # Where the two roots of one n nearly meet (the vertex of the phase) a root is only known to the root of rounding.
    assert np.abs(np.sin(np.pi * half_turns(o, zeros))).max(initial=0) < 1e-6
    edges = np.concatenate([[0.0], zeros, [limit]])
    for low, high in pairwise(edges):
        inside = np.sin(np.pi * half_turns(o, np.linspace(low, high, 41)[2:-2]))
        assert (inside > -1e-6).all() or (inside < 1e-6).all()


def test_zeros_on_the_image_grid():
    """Along kx the sampled CTF changes sign exactly between the pixels that enclose an analytic zero."""
    o = one(cs_mm=2.7)
    row = vg.ctf(o, 512, 1.0)[0, 0]
    zeros = optics.ctf_zeros(o, 0.5)
    changes = np.flatnonzero(np.sign(row[:-1]) != np.sign(row[1:]))
    pixels = np.floor(zeros * 512).astype(int)
    odd = [p for p in np.unique(pixels) if (pixels == p).sum() % 2]
    assert changes.tolist() == odd
    assert np.abs(np.sin(np.pi * half_turns(o, zeros))).max() < CTF_ZERO_ABS


@pytest.mark.parametrize("cs", [0.0, 1e-9, 0.001, 0.01])
def test_small_and_zero_Cs(cs):
    """Cs-corrected microscopes: every function takes Cs = 0, and the limit is continuous."""
    zero, small = one(cs_mm=0.0), one(cs_mm=cs)
    assert np.isfinite(vg.ctf(small, BOX, PIXEL)).all()
    # The phase the Cs adds bounds the change.
    added = np.pi / 2 * cs * 1e7 * reference.ctf.wavelength_A(300) ** 3 * (np.sqrt(2) / (2 * PIXEL)) ** 4
    assert np.abs(vg.ctf(small, BOX, PIXEL) - vg.ctf(zero, BOX, PIXEL)).max() <= added + CTF_ABS
    near = optics.ctf_zeros(small, 0.3)
    np.testing.assert_allclose(near, optics.ctf_zeros(zero, 0.3)[: len(near)], rtol=added)


def test_pixel_size_comes_from_the_optics():
    o = vg.Optics([10000.0, 12000.0], [10000.0, 12000.0], pixel_size_A=1.5)
    assert np.array_equal(vg.ctf(o, 16), vg.ctf(o, 16, 1.5))
    with pytest.raises(InputError, match=r"found 1.5, 2"):
        vg.ctf(vg.Optics([1e4, 1e4], [1e4, 1e4], pixel_size_A=[1.5, 2.0]), 16)
    with pytest.raises(InputError, match="none is known"):
        vg.ctf(one(), 16)


# --- correction ------------------------------------------------------------------------------------------------------
def images(n=6, box=BOX, seed=0):
    rng = np.random.default_rng(seed)
    spectra = fourier.forward(rng.normal(size=(n, box, box)).astype(np.float32), 2)
    defocus = rng.uniform(8000, 20000, n)
    return spectra, vg.ctf(vg.Optics(defocus, defocus * 0.98, 30.0), box, PIXEL)


@pytest.mark.parametrize("box", [31, 32])
def test_phase_flip_is_exact_and_its_own_inverse(box):
    spectra, ctfs = images(box=box)
    flipped = optics.phase_flip(spectra, ctfs)
    assert flipped.dtype == np.complex64
    assert np.array_equal(flipped, np.where(ctfs < 0, -1, 1).astype(np.float32) * spectra)
    assert np.array_equal(optics.phase_flip(flipped, ctfs, flipped=True, undo=True), spectra)
    # What is flipped has a CTF of one sign.
    assert (np.real(optics.phase_flip(ctfs.astype(np.complex64), ctfs)) >= 0).all()


def test_flipping_twice_is_guarded():
    spectra, ctfs = images(1)
    with pytest.raises(InputError, match="phase-flipped already"):
        optics.phase_flip(spectra, ctfs, flipped=True)
    with pytest.raises(InputError, match="not phase-flipped"):
        optics.phase_flip(spectra, ctfs, undo=True)


def test_phase_flip_keeps_what_lies_on_a_zero():
    assert optics.phase_flip(np.array([[3.0 + 1j]]), np.array([[0.0]])).tolist() == [[3.0 + 1j]]


@settings(deadline=None, max_examples=30)
@given(k=st.floats(1e-6, 1e3))
def test_wiener_equals_its_formula(k):
    spectra, ctfs = images(2, box=16)
    want = ctfs.astype(np.float64) * spectra / (ctfs.astype(np.float64) ** 2 + k)
    got = optics.wiener(spectra, ctfs, k)
    assert got.dtype == np.complex64
    np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


def test_k_to_zero_is_deconvolution_away_from_zeros():
    truth, ctfs = images()
    got = optics.wiener(truth * ctfs, ctfs, 0.0)
    away = np.abs(ctfs) > 0.05
    np.testing.assert_allclose(got[away], truth[away], rtol=1e-4)
    np.testing.assert_allclose(optics.wiener(truth * ctfs, ctfs, 1e-9)[away], truth[away], rtol=1e-4)
    assert np.isfinite(optics.wiener(truth, np.zeros_like(ctfs), 0.0)).all()


def test_k_per_shell_and_on_the_grid_are_one():
    spectra, ctfs = images(3)
    curve = np.linspace(0.1, 3, BOX // 2 + 1)
    grid = curve[np.minimum(fourier.shells((BOX, BOX)), BOX // 2)]
    assert np.array_equal(optics.wiener(spectra, ctfs, curve), optics.wiener(spectra, ctfs, grid))
    assert np.array_equal(optics.wiener_sum(spectra, ctfs, curve), optics.wiener_sum(spectra, ctfs, grid))


def test_sum_equals_its_formula():
    spectra, ctfs = images(5)
    c = ctfs.astype(np.float64)
    want = (c * spectra).sum(axis=0) / (0.7 + (c**2).sum(axis=0))
    np.testing.assert_allclose(optics.wiener_sum(spectra, ctfs, 0.7), want, rtol=1e-4, atol=1e-4)
    # One image: the single-image filter.
    np.testing.assert_allclose(
        optics.wiener_sum(spectra[:1], ctfs[:1], 0.7), optics.wiener(spectra, ctfs, 0.7)[0], rtol=1e-6
    )


def test_true_ssnr_beats_every_constant_k():
    """Signal falling by 10^4 over the shells, white noise: no constant k has a lower mean square error."""
    rng = np.random.default_rng(4)
    n = 12
    shells = fourier.shells((BOX, BOX))
    amplitude = np.exp(-((shells / BOX * 2) ** 2) * 4.6)
    truth = fourier.forward(rng.normal(size=(BOX, BOX)), 2) * amplitude
    defocus = rng.uniform(10000, 15000, n)
    ctfs = vg.ctf(vg.Optics(defocus, defocus), BOX, PIXEL).astype(np.float64)
    sigma = 2.0
    observed = ctfs * truth + sigma * fourier.forward(rng.normal(size=(n, BOX, BOX)), 2)
    weights = fourier.half_weights((BOX, BOX))

    def error(k):
        return (weights * np.abs(optics.wiener_sum(observed, ctfs, k) - truth) ** 2).sum()

    best = error(sigma**2 / amplitude**2)
    constants = [error(k) for k in np.logspace(-4, 8, 49)]
    assert best < 0.98 * min(constants)


def test_defocus_range_of_half_a_micrometre_fills_the_zeros():
    """1 to 1.5 um: beyond the first zero of the CTF the sum of C^2 vanishes nowhere; at one defocus it does."""
    defocus = np.linspace(10000, 15000, 20)
    power = (vg.ctf(vg.Optics(defocus, defocus), 256, 1.0)[:, 0].astype(np.float64) ** 2).mean(axis=0)
    alone = vg.ctf(one(), 256, 1.0)[0, 0].astype(np.float64) ** 2
    # CTF(0) = w: the first shells are weak for every defocus, so look from the first maximum on.
    first = int(np.argmax(power > 0.5))
    assert first < 20
    assert power[first:].min() > 0.1
    assert alone[first:].min() < 0.01


# --- sampling, accuracy, SNR, cost ------------------------------------------------------------------------------------
def test_nyquist_rule():
    assert float(optics.nyquist(3.0)) == 1 / 6
    assert float(optics.best_resolution_A(3.0)) == 6.0
    assert float(optics.largest_pixel_size_A(4.0)) == 2.0
    assert float(optics.largest_pixel_size_A(6.0, pixels_per_detail=3)) == 2.0


def test_specimen_pixel_size():
    """15 um on the detector at 50 000 x is 3.0 A, so 6.0 A is the best one gets."""
    assert optics.specimen_pixel_size_A(15, 50_000) == 3.0
    assert float(optics.best_resolution_A(optics.specimen_pixel_size_A(15, 50_000))) == 6.0


def test_defocus_accuracy():
    assert abs(float(optics.defocus_accuracy_A(3.0, 300)) - 114.3) < 0.05
    # By its meaning: that error turns the phase by pi/4 at that resolution.
    error = float(optics.defocus_accuracy_A(3.0, 300))
    turns = half_turns(one(defocus_u_A=1e4 + error, cs_mm=2.7), 1 / 3) - half_turns(
        one(defocus_u_A=1e4, cs_mm=2.7), 1 / 3
    )
    np.testing.assert_allclose(turns, 0.25, rtol=1e-9)


def test_three_noise_stages_measured():
    """Structural noise, an attenuating gain with shot noise, an amplifying one with read-out noise; correlation of two
    independent recordings measures the SNR: CCC / (1 - CCC)."""
    rng = np.random.default_rng(12)
    signal = 1.5 * rng.normal(size=2_000_000)
    noise, gains = np.array([0.8, 0.9, 1.4]), np.array([1.0, 0.6, 3.0])

    def record():
        x = signal
        for g, n in zip(gains, noise, strict=True):
            x = g * x + np.sqrt(n) * rng.normal(size=x.size)
        return x

    stages = optics.stage_snrs(1.5**2, noise, gains)
    total = optics.compose_snr(stages)
    ccc = np.corrcoef(record(), record())[0, 1]
    assert abs(ccc / (1 - ccc) / total - 1) < 0.03
    np.testing.assert_allclose(1 + 1 / total, np.prod(1 + 1 / stages), rtol=1e-12)
    assert total < stages.min()


@settings(deadline=None, max_examples=100)
@given(snrs=st.lists(st.floats(1e-3, 1e6), min_size=1, max_size=6))
def test_composition_properties(snrs):
    total = optics.compose_snr(snrs)
    np.testing.assert_allclose(1 / total, np.prod(1 + 1 / np.array(snrs)) - 1, rtol=1e-6, atol=1e-12)
    assert total <= min(snrs) * (1 + 1e-9)
    np.testing.assert_allclose(optics.compose_snr([*snrs, np.inf]), total, rtol=1e-12)
    np.testing.assert_allclose(optics.compose_snr([optics.compose_snr(snrs[:1]), *snrs[1:]]), total, rtol=1e-9)


def test_operation_count():
    got = geometry.search_operation_count(n_images=100_000, box=128, shifts=7)
    assert f"{got:.2e}" == "6.53e+17"
    np.testing.assert_allclose(got, np.pi**3 / 8 * 49 * 128**5 * 1e5 + np.pi * 128**4 + 1e5 * 128**2, rtol=1e-12)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: vg.ctf(one(), 0, 1.0), "box"),
        (lambda: vg.ctf(one(), 8.5, 1.0), "whole number of pixels"),
        (lambda: vg.ctf(one(), 8, -1.0), "pixel_size_A: expected a positive number of angstrom, got -1"),
        (lambda: optics.ctf_zeros(vg.Optics([1e4, 1e4], [1e4, 1e4]), 0.3), "one image, got 2"),
        (lambda: optics.ctf_zeros(one(), 0), "max_frequency_per_A"),
        (lambda: optics.wavelength_A(-300), "voltage_kV"),
        (lambda: optics.wiener(np.ones((4, 3)), np.ones((4, 4)), 1), "not on one grid"),
        (lambda: optics.wiener(np.ones((4, 3)), np.ones((4, 3)), -1), "got -1"),
        (lambda: optics.wiener(np.ones((4, 3)), np.ones((4, 3)), np.nan), "got nan"),
        (lambda: optics.wiener_sum(np.ones((4, 3)), np.ones((4, 3)), 1), r"\(n, box"),
        (lambda: optics.phase_flip(np.ones((4, 3)), np.full((4, 3), np.nan)), "NaN"),
        (lambda: optics.nyquist(0), "pixel_size_A"),
        (lambda: optics.largest_pixel_size_A(4, pixels_per_detail=1.5), "at least 2"),
        (lambda: optics.specimen_pixel_size_A(15, 0), "magnification"),
        (lambda: optics.compose_snr([]), "one or more"),
        (lambda: optics.compose_snr([1, 0]), "positive power ratios"),
        (lambda: optics.stage_snrs(1, [1, -1]), "noise_powers"),
        (lambda: geometry.search_operation_count(0, 128, 7), "n_images"),
    ],
)
def test_bad_input_is_named(call, words):
    with pytest.raises(InputError, match=words):
        call()
