"""ops.correlate_rotations: in-plane angle by polar rings, and the joint search over shifts."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from verglas import ops, reference
from verglas.errors import InputError

from tolerance import RING_ANGLE_DEG, RINGS_REL


def noise(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def particle(seed: int, radius: float) -> tuple[np.ndarray, np.ndarray]:
    """Blobs inside a radius: positions (x, y) from the centre, and weights. No two alike, no symmetry."""
    rng = np.random.default_rng(seed)
    r, angle = radius * np.sqrt(rng.uniform(0.05, 1, 14)), rng.uniform(0, 2 * np.pi, 14)
    return np.stack([r * np.cos(angle), r * np.sin(angle)], axis=1), rng.uniform(0.5, 1.5, 14)


def draw(points: np.ndarray, weights: np.ndarray, box: int, psi=0.0, shift=(0.0, 0.0), sigma=1.6) -> np.ndarray:
    """The particle as conventions.md places it: turned by Rz(psi), then at minus the shift. No interpolation."""
    c, s = np.cos(np.deg2rad(psi)), np.sin(np.deg2rad(psi))
    at = points @ np.array([[c, s], [-s, c]]).T - shift
    y, x = np.indices((box, box)) - box // 2
    image = sum(
        w * np.exp(-((x - px) ** 2 + (y - py) ** 2) / (2 * sigma**2)) for (px, py), w in zip(at, weights, strict=True)
    )
    return image.astype(np.float32)


def turn(found: np.ndarray, truth: np.ndarray) -> np.ndarray:
    return np.abs((found - truth + 180) % 360 - 180)


@pytest.mark.parametrize("box", [24, 25])
@pytest.mark.parametrize("shift", [(0, 0), (-2, 1)])
def test_equals_brute_force(box, shift):
    """The ring correlation, term by term, at every angle: the kernel finds its highest peak and its value."""
    f, g = noise(1, box, box), noise(2, box, box)
    moved = np.roll(f, (shift[1], shift[0]), axis=(0, 1))
    got = ops.correlate_rotations(moved, g, radius_px=(2, 8))
    psi = np.arange(-180, 180, 0.25)
    curve = reference.correlate.rotation_scores(f, g, psi, np.arange(2, 9), shift)
    assert turn(got.angles_deg[0], psi[curve.argmax()]) < 1.0
    at_found = reference.correlate.rotation_scores(f, g, got.angles_deg, np.arange(2, 9), shift)
    assert got.scores[0] == pytest.approx(at_found[0], abs=RINGS_REL)
    assert got.scores[0] == pytest.approx(curve.max(), abs=RINGS_REL)


def test_rotation_is_a_cyclic_shift_of_the_rings():
    """The ring of an image turned by one step of the ring is the ring, moved by one."""
    points, weights = particle(3, 9)
    still = reference.correlate.ring(draw(points, weights, 32, sigma=2.5), 8.0)
    turned = reference.correlate.ring(draw(points, weights, 32, psi=360 / len(still), sigma=2.5), 8.0)
    np.testing.assert_allclose(turned, np.roll(still, -1), atol=5e-3 * np.abs(still).max())


@settings(deadline=None, max_examples=25)
@given(
    box=st.sampled_from([44, 48, 57, 64]),
    seed=st.integers(0, 2**31),
    psi=st.floats(-179, 179),
    x=st.integers(-2, 2),
    y=st.integers(-2, 2),
)
def test_joint_search_finds_shift_and_angle(box, seed, psi, x, y):
    """Shifts (0, +-1, +-2) make exactly 25 rotational searches; the planted one wins, with its angle."""
    points, weights = particle(seed, 13)
    got = ops.correlate_rotations(
        draw(points, weights, box, psi, (x, y)), draw(points, weights, box), max_shift_px=2, radius_px=(1, 17)
    )
    assert got.searches == 25
    np.testing.assert_array_equal(got.shifts_px[0], (x, y))
    assert turn(got.angles_deg[0], psi) < RING_ANGLE_DEG
    assert got.scores[0] > 0.999


@pytest.mark.parametrize(("reach", "step"), [(0, 1), (1, 1), (3, 1), (4, 2), (6, 3)])
def test_number_of_searches_and_best_of_grid(reach, step):
    """(2n + 1)^2 searches, and none of them alone beats what was returned."""
    f, g = noise(0, 40, 40), noise(1, 40, 40)
    got = ops.correlate_rotations(f, g, max_shift_px=reach, step_px=step, radius_px=(1, 10))
    grid = range(-reach, reach + 1, step)
    assert got.searches == len(grid) ** 2
    alone = {
        (x, y): ops.correlate_rotations(np.roll(f, (y, x), axis=(0, 1)), g, radius_px=(1, 10)).scores[0]
        for x in grid
        for y in grid
    }
    best = max(alone, key=alone.__getitem__)
    np.testing.assert_array_equal(got.shifts_px[0], best)
    assert got.scores[0] == pytest.approx(alone[best], abs=RINGS_REL)


def test_angle_at_snr_1():
    """Median error within 0.5 degrees at SNR 1 (variance of the image over the box / variance of the noise)."""
    rng = np.random.default_rng(4)
    points, weights = particle(4, 22)
    psi = rng.uniform(-180, 180, 64)
    clean = np.stack([draw(points, weights, 64, p) for p in psi])
    images = clean + np.sqrt(clean.var()) * rng.standard_normal(clean.shape)
    got = ops.correlate_rotations(images, draw(points, weights, 64), radius_px=(1, 26))
    error = turn(got.angles_deg, psi)
    assert np.median(error) < 0.25
    assert np.quantile(error, 0.95) < 0.5


def test_best_reference_and_all_pairs_agree():
    shapes = [particle(seed, 14) for seed in range(5)]
    refs = np.stack([draw(*shape, 48) for shape in shapes])
    truth = np.arange(20) % 5
    psi = np.linspace(-170, 170, 20)
    images = np.stack([draw(*shapes[k], 48, p, (1, -2)) for k, p in zip(truth, psi, strict=True)])
    images = images + refs.std() * noise(5, *images.shape)
    every = ops.correlate_rotations(images, refs, max_shift_px=2, radius_px=(1, 17), pairing="all")
    best = ops.correlate_rotations(images, refs, max_shift_px=2, radius_px=(1, 17))
    np.testing.assert_array_equal(best.references, truth)
    np.testing.assert_array_equal(best.references, every.scores.argmax(axis=1))
    rows = np.arange(20)
    for name in ("scores", "angles_deg", "shifts_px"):
        np.testing.assert_array_equal(getattr(best, name), getattr(every, name)[rows, truth])


def test_threads_batches_and_grey_scale_do_not_change_the_result():
    images, refs = noise(0, 35, 36, 36), noise(1, 2, 36, 36)
    options = {"max_shift_px": 2, "step_px": 2, "radius_px": (1.0, 12.0)}
    one = ops.correlate_rotations(images, refs, threads=1, **options)
    three = ops.correlate_rotations(images, refs, threads=3, **options)
    alone = [ops.correlate_rotations(image, refs, **options) for image in images]
    for name in ("scores", "angles_deg", "shifts_px", "references"):
        np.testing.assert_array_equal(getattr(one, name), getattr(three, name))
        np.testing.assert_array_equal(getattr(one, name), np.concatenate([getattr(a, name) for a in alone]))
    other = ops.correlate_rotations(4 * images + 16, 0.25 * refs - 3, **options)
    np.testing.assert_allclose(other.scores, one.scores, atol=RINGS_REL)
    np.testing.assert_allclose(other.angles_deg, one.angles_deg, atol=RING_ANGLE_DEG)


def test_itself_scores_one_and_flat_images_nothing():
    f = noise(0, 32, 32)
    assert ops.correlate_rotations(f, f).scores[0] == pytest.approx(1, abs=RINGS_REL)
    assert ops.correlate_rotations(f, f).angles_deg[0] == pytest.approx(0, abs=RING_ANGLE_DEG)
    flat = ops.correlate_rotations(np.full((32, 32), 3.5, np.float32), f, max_shift_px=1)
    assert (flat.scores[0], flat.angles_deg[0], *flat.shifts_px[0]) == (0, 0, 0, 0)
    outside = np.zeros((32, 32), np.float32)  # something, but nothing within the rings
    outside[0, 0] = 1
    assert ops.correlate_rotations(outside, f, radius_px=(1, 8)).scores[0] == 0


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_bad_pixels_are_named(value):
    good, bad = noise(0, 20, 24, 24), noise(0, 20, 24, 24)
    bad[[17, 18], 3, 4] = value
    with pytest.raises(InputError, match=r"image 17 \(counted from 0\) has NaN"):
        ops.correlate_rotations(bad, good, threads=2)
    with pytest.raises(InputError, match=r"reference 17 \(counted from 0\) has NaN"):
        ops.correlate_rotations(good, bad, threads=2)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"radius_px": (1, 12)}, "radius: expected 1 <= first <= last <= 9 px"),
        ({"radius_px": (0, 5)}, "radius"),
        ({"radius_px": (6, 5)}, "radius"),
        ({"max_shift_px": 3, "step_px": 2}, "multiple of step"),
        ({"step_px": 0}, "step"),
        ({"max_shift_px": -1}, "max_shift"),
        ({"pairing": "paired"}, "pairing: expected one of 'best', 'all'"),
    ],
)
def test_bad_input_is_named(options, words):
    with pytest.raises(InputError, match=words):
        ops.correlate_rotations(noise(0, 2, 24, 24), noise(1, 24, 24), **options)
