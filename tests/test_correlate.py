"""ops.correlate: translation. Rotation by rings is in test_correlate_rings.py."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from verglas import ops, reference
from verglas.errors import InputError

from tolerance import CORRELATE_REL, PEAK_NEWTON_PX, PEAK_PARABOLA_PX

SIZES = [1, 2, 3, 4, 5, 7, 8, 9, 12, 14, 15, 16, 18, 21]  # even, odd, every factor; brute force is O(box^4)


def noise(seed: int, *shape: int, mean: float = 0.0) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal(shape) + mean).astype(np.float32)


def shifted(image: np.ndarray, x: float, y: float, falloff: float | None = None) -> tuple[np.ndarray, np.ndarray]:
    """A band-limited image (no Nyquist row or column), and itself moved by (x, y) pixels, by the shift theorem."""
    box = len(image)
    k = np.fft.fftfreq(box)
    spectrum = np.fft.fft2(image.astype(np.float64))
    if box % 2 == 0:
        spectrum[box // 2] = spectrum[:, box // 2] = 0
    if falloff is not None:
        spectrum *= np.exp(-(k[:, None] ** 2 + k[None, :] ** 2) / (2 * falloff**2))
    ramp = np.exp(-2j * np.pi * (k[None, :] * x + k[:, None] * y))
    still, moved = np.fft.ifft2(spectrum).real, np.fft.ifft2(spectrum * ramp).real
    return still.astype(np.float32), moved.astype(np.float32)


@pytest.mark.parametrize("score", ["ncc", "phase", "product"])
@settings(deadline=None, max_examples=25)
@given(box=st.sampled_from(SIZES), seed=st.integers(0, 2**31), reach=st.integers(0, 12), shells=st.integers(0, 12))
def test_equals_brute_force(score, box, seed, reach, shells):
    """F* G by FFT equals the direct sum over pixels, for every size, limit of the search and weights."""
    f, g = noise(seed, box, box, mean=1.0), noise(seed + 1, box, box, mean=-2.0)
    weights = np.random.default_rng(seed).uniform(0.1, 2, shells).astype(np.float32) if shells else None
    c = reference.correlate.correlation_map(f, g, score, weights)
    got = ops.correlate(f, g, score=score, max_shift_px=reach, weights=weights, fit="none")
    x, y = got.shifts_px[0].astype(int)
    searched = reference.correlate.shifts(box, reach)
    assert x in searched
    assert y in searched
    best = max(c[sy % box, sx % box] for sy in searched for sx in searched)
    scale = 1.0 if score != "product" else np.linalg.norm(f) * np.linalg.norm(g)
    assert abs(got.scores[0] - best) <= CORRELATE_REL * scale
    assert best - c[y % box, x % box] <= 2 * CORRELATE_REL * scale  # the shift is a best one, up to rounding


def test_sum_at_one_position():
    """1*8 + 8*1 + 15*6 + 7*3 + 14*5 + 16*7 + 13*4 + 20*9 + 22*2 = 585 where the small square lies on the big."""
    big = np.array(
        [[17, 24, 1, 8, 15], [23, 5, 7, 14, 16], [4, 6, 13, 20, 22], [10, 12, 19, 21, 3], [11, 18, 25, 2, 9]]
    )
    small = np.zeros((5, 5))
    small[:3, 2:] = [[8, 1, 6], [3, 5, 7], [4, 9, 2]]
    got = ops.correlate(big, small, score="product", max_shift_px=0, fit="none")
    assert got.scores[0] == pytest.approx(585, rel=CORRELATE_REL)


@settings(deadline=None, max_examples=40)
@given(
    box=st.sampled_from([8, 15, 32, 45]),
    seed=st.integers(0, 2**31),
    a=st.floats(1e-3, 1e3),
    b=st.floats(-1e3, 1e3),
    sign=st.sampled_from([-1.0, 1.0]),
)
def test_ncc_of_itself_is_one_and_ignores_grey_scale(box, seed, a, b, sign):
    """NCC(f, f) = 1 at shift 0; NCC(a f + b, g) = sign(a) NCC(f, g)."""
    assume(abs(b) <= 1e4 * a)  # beyond, float32 pixels no longer hold the image, and it counts as flat
    f, g = noise(seed, box, box), noise(seed + 1, box, box)
    itself = ops.correlate(f, f)
    assert itself.scores[0] == pytest.approx(1, abs=CORRELATE_REL)
    np.testing.assert_allclose(itself.shifts_px[0], 0, atol=PEAK_NEWTON_PX)
    # float32 itself loses the image beside a large b: the images compared are the ones that it holds.
    other = np.float32(sign * a) * f + np.float32(b)
    lost = 1e-7 * (abs(b) + a) / a
    at_zero = {"max_shift_px": 0, "fit": "none"}
    want = sign * ops.correlate(f, g, **at_zero).scores[0]
    assert ops.correlate(other, g, **at_zero).scores[0] == pytest.approx(want, abs=CORRELATE_REL + lost)
    assert -1 <= ops.correlate(-f, f, **at_zero).scores[0] == pytest.approx(-1, abs=CORRELATE_REL)


def test_example_shift_8_minus_6():
    """An image moved by (-8, +6) comes back by (8, -6); one moved by (8, -6) by (-8, 6)."""
    f = noise(3, 64, 64)
    for moved in [(-8, 6), (8, -6)]:
        image = np.roll(f, (moved[1], moved[0]), axis=(0, 1))
        for score in ("ncc", "phase", "product"):
            got = ops.correlate(image, f, score=score)
            np.testing.assert_allclose(got.shifts_px[0], (-moved[0], -moved[1]), atol=PEAK_NEWTON_PX)
    # conventions.md: adding the shift to the image (np.roll by it) lays it on the reference
    x, y = np.rint(got.shifts_px[0]).astype(int)
    np.testing.assert_array_equal(np.roll(image, (y, x), axis=(0, 1)), f)


@pytest.mark.parametrize("box", [441, 486, 512])
def test_boxes_to_512(box):
    """3-7-smooth, 2-3-smooth and a power of two: coefficient and place against NumPy's transforms."""
    f = noise(3, box, box)
    image = np.roll(f, (6, -8), axis=(0, 1)) + 2 * noise(4, box, box)
    got = ops.correlate(image, f, fit="none")
    c = np.fft.ifft2(np.fft.fft2(image - image.mean()).conj() * np.fft.fft2(f - f.mean())).real
    c /= box**2 * image.std() * f.std()
    assert got.shifts_px[0].tolist() == [8, -6]
    assert got.scores[0] == pytest.approx(c.max(), abs=CORRELATE_REL)
    assert c[-6, 8] == c.max()


@settings(deadline=None, max_examples=60)
@given(
    box=st.sampled_from([20, 32, 35, 48, 49, 64]),
    seed=st.integers(0, 2**31),
    x=st.floats(-6, 6),
    y=st.floats(-6, 6),
    falloff=st.sampled_from([None, 0.25, 0.1]),
)
def test_sub_pixel_peak(box, seed, x, y, falloff):
    """Noise-free sub-pixel error below 0.05 px, whatever the spectrum (asserted: 0.01 px)."""
    still, moved = shifted(noise(seed, box, box), x, y, falloff)
    got = ops.correlate(moved, still)
    np.testing.assert_allclose(got.shifts_px[0], (-x, -y), atol=PEAK_NEWTON_PX)
    assert got.scores[0] == pytest.approx(1, abs=1e-3)
    rough = ops.correlate(moved, still, fit="parabola")
    np.testing.assert_allclose(rough.shifts_px[0], (-x, -y), atol=PEAK_PARABOLA_PX)


@settings(deadline=None, max_examples=30)
@given(box=st.sampled_from([8, 9, 16, 30]), seed=st.integers(0, 2**31), x=st.integers(-9, 9), y=st.integers(-9, 9))
def test_moving_the_image_moves_the_shift(box, seed, x, y):
    f, g = noise(seed, box, box), noise(seed + 1, box, box)
    before = ops.correlate(f, g, fit="none")
    after = ops.correlate(np.roll(f, (y, x), axis=(0, 1)), g, fit="none")
    difference = before.shifts_px[0] - after.shifts_px[0] - (x, y)
    np.testing.assert_array_equal(difference % box, 0)
    assert after.scores[0] == pytest.approx(before.scores[0], abs=CORRELATE_REL)


@pytest.mark.parametrize("box", [40, 45])
@pytest.mark.parametrize("score", ["ncc", "phase", "product"])
def test_newton_climbs_the_exact_map(box, score):
    """The value at the refined peak is the trigonometric polynomial of the map there, Nyquist terms included."""
    f, g = noise(5, box, box), noise(6, box, box)
    weights = np.linspace(1, 0.2, 30)
    got = ops.correlate(f, g, score=score, weights=weights)
    coarse = ops.correlate(f, g, score=score, weights=weights, fit="none")
    assert got.scores[0] > coarse.scores[0]
    c = np.fft.fft2(reference.correlate.correlation_map(f, g, score, weights)) / box**2
    k = np.fft.fftfreq(box, 1 / box)

    def wave(s: float) -> np.ndarray:  # the Nyquist term of a real signal is a cosine
        e = np.exp(2j * np.pi * k * s / box)
        return np.where(2 * np.abs(k) == box, e.real, e)

    def value(x: float, y: float) -> float:
        return float((c * wave(y)[:, None] * wave(x)[None, :]).sum().real)

    x, y = got.shifts_px[0].astype(float)
    scale = 1.0 if score != "product" else np.linalg.norm(f) * np.linalg.norm(g)
    assert abs(value(x, y) - got.scores[0]) < 3 * CORRELATE_REL * scale
    around = max(value(x + dx, y + dy) for dx, dy in [(0.02, 0), (-0.02, 0), (0, 0.02), (0, -0.02)])
    assert value(x, y) > around


def test_pairings_agree():
    images, refs = noise(0, 7, 24, 24), noise(1, 7, 24, 24)
    every = ops.correlate(images, refs, pairing="all")
    assert every.scores.shape == (7, 7)
    assert every.shifts_px.shape == (7, 7, 2)
    best, own = ops.correlate(images, refs), ops.correlate(images, refs, pairing="paired")
    rows = np.arange(7)
    np.testing.assert_array_equal(best.references, every.scores.argmax(axis=1))
    np.testing.assert_array_equal(best.scores, every.scores.max(axis=1))
    np.testing.assert_array_equal(best.shifts_px, every.shifts_px[rows, best.references])
    np.testing.assert_array_equal(own.scores, every.scores[rows, rows])
    np.testing.assert_array_equal(own.references, rows)


def test_best_reference_is_found_in_noise():
    refs = np.stack([shifted(noise(seed, 48, 48), 0, 0, 0.15)[0] for seed in range(6)])
    refs /= refs.std(axis=(1, 2), keepdims=True)
    truth = np.arange(30) % 6
    images = np.roll(refs[truth], (2, -3), axis=(1, 2)) + noise(9, 30, 48, 48)  # SNR 1
    got = ops.correlate(images, refs, max_shift_px=6)
    np.testing.assert_array_equal(got.references, truth)
    assert np.abs(got.shifts_px - (3, -2)).max() < 0.5


@pytest.mark.parametrize("box", [24, 27])
def test_threads_and_batches_do_not_change_the_result(box):
    images, refs = noise(0, 13, box, box), noise(1, 3, box, box)
    for score in ("ncc", "phase", "product"):
        one = ops.correlate(images, refs, score=score, threads=1)
        three = ops.correlate(images, refs, score=score, threads=3)
        alone = [ops.correlate(image, refs, score=score) for image in images]
        for name in ("shifts_px", "scores", "references"):
            np.testing.assert_array_equal(getattr(one, name), getattr(three, name))
            np.testing.assert_array_equal(getattr(one, name), np.concatenate([getattr(a, name) for a in alone]))


def test_band_limit_is_a_filter():
    """Weights that end at a shell are the same as correlating low-passed images."""
    images, refs = noise(0, 4, 60, 60), noise(1, 1, 60, 60)
    k = np.fft.fftfreq(60, 1 / 60)
    keep = np.rint(np.hypot(k[:, None], k[None, :])) <= 11
    low = lambda x: np.fft.ifft2(np.fft.fft2(x) * keep).real.astype(np.float32)
    got, want = ops.correlate(images, refs, weights=np.ones(12)), ops.correlate(low(images), low(refs))
    np.testing.assert_allclose(got.scores, want.scores, atol=CORRELATE_REL)
    np.testing.assert_allclose(got.shifts_px, want.shifts_px, atol=PEAK_NEWTON_PX)


@pytest.mark.parametrize("scale", [1e-15, 1e15])
def test_grey_scales_far_from_one(scale):
    f, g = noise(0, 32, 32), noise(1, 32, 32)
    want, got = ops.correlate(f, g), ops.correlate(np.float32(scale) * f, g)
    np.testing.assert_allclose(got.scores, want.scores, rtol=CORRELATE_REL)
    np.testing.assert_allclose(got.shifts_px, want.shifts_px, atol=PEAK_NEWTON_PX)


def test_flat_images_score_nothing():
    flat, f = np.full((16, 16), 7.25, np.float32), noise(0, 16, 16, mean=1.0)
    for score in ("ncc", "phase"):
        for pair in ((flat, f), (f, flat), (flat, flat)):
            got = ops.correlate(*pair, score=score)
            assert got.scores[0] == 0
            assert not got.shifts_px.any()
    assert ops.correlate(flat, f, score="product").scores[0] == pytest.approx(7.25 * f.sum(), rel=1e-5)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e30])
@pytest.mark.parametrize("pairing", ["best", "all", "paired"])
def test_bad_pixels_are_named(value, pairing):
    good, bad = noise(0, 9, 12, 12), noise(0, 9, 12, 12)
    bad[[5, 7], 3, 4] = value
    with pytest.raises(InputError, match=r"^images: .*image 5 \(counted from 0\) has NaN"):
        ops.correlate(bad, good, pairing=pairing, threads=2)
    with pytest.raises(InputError, match=r"^references: .*reference 5 \(counted from 0\) has NaN"):
        ops.correlate(good, bad, pairing=pairing, threads=2)


@pytest.mark.parametrize(
    ("images", "references", "options", "words"),
    [
        (np.zeros((2, 11, 11)), np.zeros((11, 11)), {}, "2-3-5-7-smooth.*got 11 px; the next good size is 12 px"),
        (np.zeros((2, 12, 10)), np.zeros((12, 12)), {}, "images: expected shape"),
        (np.zeros((2, 12, 12)), np.zeros((10, 10)), {}, r"references: expected shape \(n, 12, 12\)"),
        (np.zeros((2, 12, 12)), np.zeros((3, 12, 12)), {"pairing": "paired"}, "expected 2, one per image"),
        (np.zeros((2, 12, 12)), np.zeros((0, 12, 12)), {}, "expected at least one"),
        (np.zeros((2, 12, 12)), np.zeros((12, 12)), {"weights": [1, -1]}, "weights: .*non-negative"),
        (np.zeros((2, 12, 12)), np.zeros((12, 12)), {"weights": [1, np.nan]}, "weights: .*finite"),
        (np.zeros((2, 12, 12)), np.zeros((12, 12)), {"score": "ccc"}, "score: expected one of 'product', 'ncc'"),
        (np.zeros((2, 12, 12)), np.zeros((12, 12)), {"fit": "cubic"}, "fit: expected one of"),
        (np.zeros((2, 12, 12)), np.zeros((12, 12)), {"pairing": "some"}, "pairing: expected one of"),
        (np.zeros((2, 12, 12)), np.zeros((12, 12)), {"max_shift_px": -1}, "max_shift: expected at least 0"),
    ],
)
def test_bad_input_is_named(images, references, options, words):
    with pytest.raises(InputError, match=words):
        ops.correlate(images, references, **options)


def test_no_images_no_results():
    got = ops.correlate(np.zeros((0, 12, 12)), np.zeros((12, 12)))
    assert got.scores.shape == (0,)
    assert got.shifts_px.shape == (0, 2)
