"""Normalisation, shifts, rotations, resampling, correlation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import verglas as vg
from verglas import filters, fourier, image
from verglas.errors import InputError

from tolerance import FOURIER_FLOAT32, FSC_FLOAT32

seeds = st.integers(0, 99999)


def wave(n, kx, ky=0, phase=0.3):
    y, x = np.mgrid[:n, :n] - n // 2
    return np.cos(2 * np.pi * (kx * x + ky * y) / n + phase)


def band_limited(n, seed, cutoff, ndim=2):
    """Smooth random periodic field with nothing above ``cutoff`` cycles per pixel."""
    x = np.random.default_rng(seed).normal(size=(n,) * ndim)
    f = fourier.forward(x, ndim)
    f[fourier.radius((n,) * ndim) > cutoff * n] = 0
    return fourier.inverse(f, (n,) * ndim)


# --- normalisation -------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=30)
@given(n=st.integers(1, 3), box=st.integers(16, 40), seed=seeds, mean=st.floats(-100, 100), sd=st.floats(0.1, 50))
@pytest.mark.parametrize("ramp", [True, False])
def test_background_has_mean_zero_and_deviation_one(n, box, seed, mean, sd, ramp):
    images = np.random.default_rng(seed).normal(mean, sd, (n, box, box)).astype(np.float32)
    radius = 0.4 * box
    done = image.normalise(images, radius, ramp=ramp)
    y, x = np.mgrid[:box, :box] - box // 2
    outside = np.hypot(x, y) > radius
    assert np.abs(done[:, outside].mean(1, dtype=float)).max() < 1e-4
    assert np.abs(done[:, outside].std(1, dtype=float) - 1).max() < 1e-3
    # Bit for bit the same for any batch size, and alone.
    assert np.array_equal(done, image.normalise(images, radius, ramp=ramp, batch=1))
    assert np.array_equal(done[0], image.normalise(images[0], radius, ramp=ramp))


def test_ramp_removes_a_planted_gradient():
    rng = np.random.default_rng(0)
    box, radius = 64, 24
    y, x = np.mgrid[:box, :box] - box // 2
    particle = 3 * (np.hypot(x, y) < 15)
    noise = rng.normal(size=(box, box))
    clean = image.normalise(noise + particle, radius)
    planted = image.normalise(noise + particle + 7 + 0.2 * x - 0.1 * y, radius)
    span = 0.3 * box  # range of the planted plane
    assert np.abs(planted - clean).max() < 0.01 * span
    without = image.normalise(noise + particle + 7 + 0.2 * x - 0.1 * y, radius, ramp=False)
    assert np.polyfit(x[0], without.mean(0), 1)[0] > 0.03
    assert abs(np.polyfit(x[0], planted.mean(0), 1)[0]) < 0.01


def test_normalise_names_the_bad_image():
    images = np.random.default_rng(0).normal(size=(3, 16, 16))
    images[1] = 5
    with pytest.raises(InputError, match="image 1"):
        image.normalise(images)
    images[1, 3, 3] = np.nan
    with pytest.raises(InputError, match=r"image 1 .* not finite"):
        image.normalise(images, batch=1)
    with pytest.raises(InputError, match="background pixels"):
        image.normalise(images, 40)
    with pytest.raises(InputError, match="square"):
        image.normalise(np.zeros((2, 3, 4)))


# --- shifts --------------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=40)
@given(n=st.integers(8, 25), data=st.data(), sx=st.floats(-9, 9), sy=st.floats(-9, 9))
def test_phase_shift_is_exact_for_band_limited_images(n, data, sx, sy):
    kx = data.draw(st.integers(0, (n - 1) // 2))
    ky = data.draw(st.integers(-((n - 1) // 2), (n - 1) // 2))
    y, x = np.mgrid[:n, :n] - n // 2
    want = np.cos(2 * np.pi * (kx * (x - sx) + ky * (y - sy)) / n + 0.3)
    got = image.shift(wave(n, kx, ky)[None], [[sx, sy]])[0]
    np.testing.assert_allclose(got, want, atol=2 * FOURIER_FLOAT32)


@settings(deadline=None, max_examples=25)
@given(shape=st.sampled_from([(8, 9), (6, 7, 8)]), seed=seeds, data=st.data())
@pytest.mark.parametrize("method", ["fourier", "linear"])
def test_whole_shifts_move_pixels(shape, seed, data, method):
    steps = data.draw(st.tuples(*[st.integers(-12, 12)] * len(shape)))
    x = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
    want = np.roll(x, steps[::-1], range(len(shape)))
    np.testing.assert_allclose(image.shift(x, steps, method), want, atol=10 * FOURIER_FLOAT32)


@pytest.mark.parametrize(("kx", "ky"), [(0, 0), (5, 0), (0, 11), (8, 8), (15, -3), (20, 20)])
def test_bilinear_half_shift_attenuates_as_cosines(kx, ky):
    n = 64
    got = image.shift(wave(n, kx, ky), [0.5, 0.5], "linear")
    loss = np.cos(np.pi * kx / n) * np.cos(np.pi * ky / n)
    np.testing.assert_allclose(got, loss * image.shift(wave(n, kx, ky), [0.5, 0.5]), atol=2 * FOURIER_FLOAT32)


# --- transforms ----------------------------------------------------------------------------------------------------

finite = st.floats(-3, 3)


@settings(deadline=None, max_examples=40)
@given(
    angles=st.tuples(st.floats(-360, 360), st.floats(-360, 360)),
    a=st.tuples(finite, finite),
    p=st.tuples(finite, finite),
)
def test_composition_equals_one_after_the_other(angles, a, p):
    first = image.Affine.translation(a) @ image.Affine.rotation(angles[0])
    second = image.Affine.rotation(angles[1])
    np.testing.assert_allclose((second @ first)(p), second(first(p)), atol=1e-12)
    np.testing.assert_allclose((first.inverse() @ first)(p), p, atol=1e-12)
    np.testing.assert_allclose(
        (image.Affine.rotation(angles[0]) @ second).matrix, image.Affine.rotation(sum(angles)).matrix, atol=1e-12
    )


def spectrum_kept(method, angle=45.0, n=64):
    """Amplitude per shell that a rotation there and back keeps of a periodic white field's middle."""
    x = band_limited(n, 1, 0.49).astype(np.float32)
    turned = image.rotate(x, angle, method=method)
    y, z = np.mgrid[:n, :n] - n // 2
    window = fourier.raised_cosine(np.hypot(y, z) - n / 5, n / 8)
    return np.sqrt(fourier.power_spectrum(turned * window, 2) / fourier.power_spectrum(x * window, 2))


def test_spectrum_loss_per_shell_linear_cubic_fourier(record_property):
    kept = {m: spectrum_kept(m) for m in ("linear", "cubic", "fourier")}
    for method, curve in kept.items():
        record_property(method, curve.round(3).tolist())
    high = slice(20, 26)  # 0.31 to 0.4 cycles per pixel
    linear, cubic, exact = (kept[m][high].mean() for m in ("linear", "cubic", "fourier"))
    assert linear < 0.75 < cubic < 0.97
    assert exact == pytest.approx(1, abs=0.1)
    # Loss grows with resolution for the linear kernel, and every kernel keeps the lowest frequencies.
    assert kept["linear"][4:8].mean() > 0.95 > 0.8 > linear


def test_one_interpolation_of_composed_transforms_beats_two():
    n = 64
    x = band_limited(n, 2, 0.35)
    y, z = np.mgrid[:n, :n] - n // 2
    middle = np.hypot(y, z) < n / 4
    turn = image.Affine.rotation(30)
    twice = image.warp(image.warp(x, turn, "linear", mode="grid-wrap"), turn.inverse(), "linear", mode="grid-wrap")
    once = image.warp(x, turn.inverse() @ turn, "linear", mode="grid-wrap")
    assert np.abs(once - x)[middle].max() < 1e-5
    assert np.abs(twice - x)[middle].max() > 0.2 * np.abs(x).max()


@settings(deadline=None, max_examples=20)
@given(angle=st.floats(-180, 180), sx=finite, sy=finite, n=st.sampled_from([40, 41]))
def test_rotation_follows_the_convention_and_is_about_pixel_half_n(angle, sx, sy, n):
    """A blob at (x, y) goes to R(angle)(x, y) + shift, +x turning towards +y."""
    y, x = np.mgrid[:n, :n] - n // 2

    def blob(at):
        return np.exp(-((x - at[0]) ** 2 + (y - at[1]) ** 2) / (2 * 2.0**2))

    target = np.add(image.Affine.rotation(angle)([7.0, 3.0]), [sx, sy])
    got = image.rotate(blob([7.0, 3.0]), angle, (sx, sy), method="fourier")
    np.testing.assert_allclose(got, blob(target), atol=1e-4)


def test_volume_warp_with_a_rotation_matrix():
    n = 24
    z, y, x = np.mgrid[:n, :n, :n] - n // 2

    def blob(at):
        return np.exp(-((x - at[0]) ** 2 + (y - at[1]) ** 2 + (z - at[2]) ** 2) / (2 * 1.8**2))

    turn = vg.euler_to_matrix([[20.0, 50.0, -70.0]])[0]
    got = image.warp(blob([3.0, -4.0, 2.0]), image.Affine.linear(turn), "fourier")
    np.testing.assert_allclose(got, blob(turn @ [3.0, -4.0, 2.0]), atol=1e-3)


@settings(deadline=None, max_examples=30)
@given(coefficients=st.lists(st.floats(-1, 1), min_size=6, max_size=6), seed=seeds)
@pytest.mark.parametrize(("method", "degree"), [("nearest", 0), ("linear", 1), ("cubic", 3), ("quintic", 5)])
def test_kernels_reproduce_polynomials_of_their_degree(method, degree, coefficients, seed):
    n = 81
    u = (np.arange(n) - n // 2) / n
    polynomial = np.polynomial.Polynomial(coefficients[: degree + 1])
    values = polynomial(u)[:, None] * polynomial(u)[None, :]
    points = np.random.default_rng(seed).uniform(-8, 8, (20, 2))
    want = polynomial(points[:, 0] / n) * polynomial(points[:, 1] / n)
    np.testing.assert_allclose(image.interpolate(values, points, method), want, atol=1e-9)


def test_kernels_pass_through_the_samples_and_do_not_exceed_their_degree():
    n = 41
    u = np.arange(n) - n // 2
    rng = np.random.default_rng(0)
    values = rng.normal(size=(n, n))
    nodes = np.array([[0, 0], [3, -4], [-7, 2]])
    for method in ("nearest", "linear", "cubic", "quintic"):
        np.testing.assert_allclose(
            image.interpolate(values, nodes, method), values[nodes[:, 1] + 20, nodes[:, 0] + 20], atol=1e-9
        )
    square = np.broadcast_to(u.astype(float) ** 2, (n, n))
    assert image.interpolate(square, [[0.5, 0.0]], "linear")[0] == pytest.approx(0.5)  # not 0.25: degree 2 is too much


# --- resampling ----------------------------------------------------------------------------------------------------


def test_naive_sampling_aliases_and_fourier_cropping_does_not():
    """40 cycles on 128 pixels, every second pixel: seen at 64 - 40 = 24 cycles; cropped: gone."""
    x = wave(128, 40)
    naive = np.abs(fourier.forward(x[::2, ::2], 2))[0] / 64**2
    assert naive[24] == pytest.approx(0.5, abs=1e-9)
    proper = np.abs(fourier.forward(image.fourier_resample(x, (64, 64)), 2)) / 64**2
    assert proper.max() < 1e-6


@settings(deadline=None, max_examples=40)
@given(n=st.integers(8, 40), data=st.data())
def test_fourier_crop_is_flat_and_nothing_folds_back(n, data):
    m = data.draw(st.integers(4, n))
    k = data.draw(st.integers(0, (n - 1) // 2))
    got = image.fourier_resample(wave(n, k), (m, m))
    if 2 * k < m:  # the passband
        want = np.broadcast_to(np.cos(2 * np.pi * k * (np.arange(m) - m // 2) / m + 0.3), (m, m))
    elif 2 * k > m:
        want = np.zeros((m, m))
    else:
        return  # on the Nyquist frequency itself only the cosine part can be held
    np.testing.assert_allclose(got, want, atol=1e-6)


@pytest.mark.parametrize("factor", [2, 3, 4])
def test_binning_shows_the_sinc_and_folds_back(factor):
    n = 48 * factor
    for k in (1, 5, 11, 23):
        binned = np.abs(fourier.forward(image.bin_pixels(wave(n, k), factor), 2))[0] / 48**2 * 2
        f = k / n
        assert binned[k] == pytest.approx(abs(np.sin(np.pi * factor * f) / (factor * np.sin(np.pi * f))), abs=1e-9)
    above = np.abs(fourier.forward(image.bin_pixels(wave(n, 30), factor), 2))[0] / 48**2 * 2
    assert above[18] > 0.3  # 30 cycles are above 24: back at 48 - 30


def test_bin_pixels_are_block_means_in_any_dimension():
    x = np.random.default_rng(0).normal(size=(5, 7, 9)).astype(np.float32)
    got = image.bin_pixels(x, 2, 3)
    assert got.shape == (2, 3, 4)
    assert got.dtype == np.float32
    assert got[1, 2, 3] == pytest.approx(x[2:4, 4:6, 6:8].mean(), abs=1e-6)


def test_sampling_is_checked():
    """T' = k T holds resolutions R > 2 T' only."""
    assert image.plan_resample(100, 1.5, new_box=50).pixel_size_A == 3.0
    image.check_sampling(3.0, 6.1)
    with pytest.raises(InputError, match="coarser than 6 A"):
        image.check_sampling(3.0, 6.0)


@settings(deadline=None, max_examples=80)
@given(
    box=st.integers(16, 300),
    old=st.integers(50, 400),
    new=st.integers(50, 800),
    new_box=st.one_of(st.none(), st.integers(4, 300)),
)
def test_plan_realises_the_pixel_size_and_says_so(box, old, new, new_box):
    plan = image.plan_resample(box, old / 100, new / 100, new_box)
    assert plan.pixel_size_A == pytest.approx(old / 100 * plan.work_box / plan.new_work_box)
    assert box <= plan.work_box <= 1.5 * box + 1
    # Half a pixel of rounding on the smallest field is the worst that can be left.
    assert abs(plan.pixel_size_A / plan.asked_A - 1) <= 0.5 / max(1, plan.new_work_box - 0.5) + 1e-12
    if new_box is None:  # the even number nearest to the field of view
        assert plan.new_box % 2 == 0
        assert plan.new_box == 2 or abs(plan.new_box - box * old / new) <= 1 + 1e-9
    else:
        assert plan.new_box == new_box
    # Whole-number multiples of the denominator within reach are found.
    if plan.exact:
        assert plan.work_box * old == pytest.approx(plan.new_work_box * new, rel=2e-6)
    elif new // np.gcd(old, new) <= box // 2:
        pytest.fail("an exact box was within reach")


@settings(deadline=None, max_examples=15)
@given(
    n=st.sampled_from([40, 41, 48]),
    new=st.sampled_from([0.8, 1.0, 1.25, 1.7, 2.0]),
    new_box=st.sampled_from([None, 20, 33, 64]),
)
def test_resample_keeps_grey_values_and_the_origin(n, new, new_box):
    """A Gaussian about the origin, sampled on the new grid with the realised pixel size."""
    at = np.array([3.0, -2.0])

    def blob(box, apix):
        y, x = (np.mgrid[:box, :box] - box // 2) * apix
        return np.exp(-((x - at[0]) ** 2 + (y - at[1]) ** 2) / (2 * 3.0**2))

    plan = image.plan_resample(n, 1.0, new, new_box)
    got = image.resample(blob(n, 1.0), plan)
    assert got.shape == (plan.new_box,) * 2
    np.testing.assert_allclose(got, blob(plan.new_box, plan.pixel_size_A), atol=2e-4)


def test_resample_map_keeps_the_molecule_in_place():
    n, apix = 24, 1.5
    x = np.zeros((n,) * 3, np.float32)
    m = vg.Map(filters.apply(vg.Map(x + 1, apix), filters.low_pass(5.0)).data, apix, (10.0, 20.0, 30.0))
    plan = image.plan_resample(n, apix, 2.0, 31)
    got = image.resample(m, plan)
    assert got.box == 31
    assert got.pixel_size_A == pytest.approx(2.0)
    before = np.array(m.origin_A) + n // 2 * apix
    after = np.array(got.origin_A) + 31 // 2 * got.pixel_size_A
    np.testing.assert_allclose(after, before)
    np.testing.assert_allclose(got.data, 1, atol=1e-5)


@settings(deadline=None, max_examples=40)
@given(old=st.tuples(st.integers(1, 9), st.integers(1, 9)), new=st.tuples(st.integers(1, 12), st.integers(1, 12)))
def test_crop_or_pad_keeps_the_origin(old, new):
    x = np.zeros(old)
    x[old[0] // 2, old[1] // 2] = 1
    got = image.crop_or_pad(x, new)
    assert got[new[0] // 2, new[1] // 2] == 1
    assert got.sum() == 1
    assert np.array_equal(image.crop_or_pad(image.crop_or_pad(x, tuple(n + 5 for n in old)), old), x)


def test_border_fill_is_the_mean_of_the_outermost_pixels():
    x = np.random.default_rng(0).normal(size=(2, 6, 7))
    got = image.crop_or_pad(x, (10, 9), "border")
    frame = np.ones((6, 7), bool)
    frame[1:-1, 1:-1] = False
    np.testing.assert_allclose(got[:, 0, 0], x[:, frame].mean(1))


# --- correlation ---------------------------------------------------------------------------------------------------


@settings(deadline=None, max_examples=60)
@given(seed=seeds, a=st.floats(0.01, 100), b=st.floats(-100, 100))
def test_correlation_coefficient(seed, a, b):
    rng = np.random.default_rng(seed)
    f, g = rng.normal(size=(2, 9, 8))
    c = image.correlation_coefficient(f, g)
    assert c == pytest.approx(np.sum((f - f.mean()) * (g - g.mean())) / (f.size * f.std() * g.std()), abs=1e-12)
    assert c == pytest.approx(np.corrcoef(f.ravel(), g.ravel())[0, 1], abs=1e-12)
    assert image.correlation_coefficient(f, f) == pytest.approx(1, abs=1e-12)
    assert image.correlation_coefficient(a * f + b, g) == pytest.approx(c, abs=1e-9)
    assert image.correlation_coefficient(-a * f + b, g) == pytest.approx(-c, abs=1e-9)
    inside = rng.random((9, 8)) > 0.4
    inside[0, :3] = True
    want = np.corrcoef(f[inside], g[inside])[0, 1]
    assert image.correlation_coefficient(f, g, inside) == pytest.approx(want, abs=1e-12)


@pytest.mark.parametrize(("n", "ndim"), [(12, 3), (13, 3), (16, 2), (17, 2)])
def test_fsc_is_the_ncc_of_band_passed_maps(n, ndim):
    rng = np.random.default_rng(n)
    a, b = rng.normal(size=(2,) + (n,) * ndim)
    b += 0.7 * a
    curve = vg.fsc(a, b).curve
    shell = fourier.shells(a.shape)
    for s in range(n // 2 + 1):
        one, two = (fourier.inverse(fourier.forward(x, ndim) * (shell == s), a.shape) for x in (a, b))
        assert image.ncc(one, two) == pytest.approx(curve[s], abs=FSC_FLOAT32)
        if s:  # without the mean, both coefficients are one
            assert image.correlation_coefficient(one, two) == pytest.approx(curve[s], abs=FSC_FLOAT32)


def test_correlation_of_constants_and_nan():
    x = np.random.default_rng(0).normal(size=10)
    assert image.correlation_coefficient(np.ones(10), x) == 0
    assert image.ncc(np.zeros(10), x) == 0
    assert np.isnan(image.ncc(x, x * np.nan))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: image.ncc(np.ones(3), np.ones(4)), "must be the same"),
        (lambda: image.ncc(np.ones(3), np.ones(3), np.zeros(3)), "empty"),
        (lambda: image.shift(np.ones((2, 4, 4)), [[1, 2]]), "do not go with"),
        (lambda: image.shift(np.ones((4, 4)), [1, 2], "cubic"), "expected 'fourier' or 'linear'"),
        (lambda: image.warp(np.ones((4, 4, 4)), image.Affine.rotation(3)), "axes"),
        (lambda: image.rotate(np.ones((4, 4)), 3, method="sinc"), "expected one of"),
        (lambda: image.Affine([[1, 0]], [0, 0]), "Affine"),
        (lambda: image.interpolate(np.ones((4, 4)), [[1, 2, 3]]), "2 coordinates"),
        (lambda: image.plan_resample(32, 1.0), "new pixel size, the new box"),
        (lambda: image.plan_resample(32, 1.0, -2.0), "positive new pixel size"),
        (lambda: image.resample(np.ones((8, 9)), image.plan_resample(8, 1.0, 2.0)), "as planned"),
        (lambda: image.bin_pixels(np.ones((4, 4)), 5), "cannot bin"),
        (lambda: image.crop_or_pad(np.ones(4), (2, 2)), "does not go with"),
    ],
)
def test_bad_input_is_named(call, words):
    with pytest.raises(InputError, match=words):
        call()
