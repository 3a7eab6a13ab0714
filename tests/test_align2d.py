"""classification.align2d: angle, shift and reference of images together."""

from __future__ import annotations

import numpy as np
import pytest

from verglas import image as image_ops
from verglas import ops
from verglas.classification import Alignment2D, align2d, alignment_scores, in_reference_frame
from verglas.errors import InputError

from tolerance import ALIGN2D_DEG, ALIGN2D_PX


def particle(seed: int, radius: float) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    r, angle = radius * np.sqrt(rng.uniform(0.05, 1, 14)), rng.uniform(0, 2 * np.pi, 14)
    return np.stack([r * np.cos(angle), r * np.sin(angle)], axis=1), rng.uniform(0.5, 1.5, 14)


def draw(points: np.ndarray, weights: np.ndarray, box: int, psi=0.0, shift=(0.0, 0.0), sigma=1.6) -> np.ndarray:
    """The particle as conventions.md places it: turned by Rz(psi), then at minus the shift. No interpolation."""
    c, s = np.cos(np.deg2rad(psi)), np.sin(np.deg2rad(psi))
    at = points @ np.array([[c, s], [-s, c]]).T - shift
    y, x = np.indices((box, box)) - box // 2
    blobs = [
        w * np.exp(-((x - px) ** 2 + (y - py) ** 2) / (2 * sigma**2)) for (px, py), w in zip(at, weights, strict=True)
    ]
    return np.sum(blobs, axis=0).astype(np.float32)


def turn(found: np.ndarray, truth: np.ndarray) -> np.ndarray:
    return np.abs((found - truth + 180) % 360 - 180)


@pytest.fixture(scope="module")
def planted():
    rng = np.random.default_rng(7)
    shape = particle(2, 16)
    psi, shift = rng.uniform(-180, 180, 24), rng.uniform(-5, 5, (24, 2))
    images = np.stack([draw(*shape, 64, p, s) for p, s in zip(psi, shift, strict=True)])
    return images, draw(*shape, 64), psi, shift


def test_planted_pose_is_recovered(planted):
    """Angles and sub-pixel shifts, noise-free."""
    images, reference, psi, shift = planted
    got = align2d(images, reference, radius_px=(1, 20), cycles=8)
    assert turn(got.angles_deg, psi).max() < ALIGN2D_DEG
    assert np.abs(got.shifts_px - shift).max() < ALIGN2D_PX
    assert got.scores.min() > 0.999


def test_planted_pose_in_noise(planted):
    """At SNR 1 over the box: median errors well below the grid the search starts from (2 px)."""
    images, reference, psi, shift = planted
    noise = np.sqrt(images.var()) * np.random.default_rng(0).standard_normal(images.shape)
    got = align2d(images + noise.astype(np.float32), reference, radius_px=(1, 20))
    assert np.median(turn(got.angles_deg, psi)) < 0.5
    assert np.median(np.abs(got.shifts_px - shift)) < 0.15


def test_example_shift_8_minus_6():
    """The example of (-8, 6) through the whole alignment: it is brought back by (8, -6)."""
    shape = particle(5, 12)
    image = draw(*shape, 64, 30.0, (8, -6))
    got = align2d(image, draw(*shape, 64), max_shift_px=8, step_px=2, radius_px=(1, 16), cycles=8)
    np.testing.assert_allclose(got.shifts_px[0], (8, -6), atol=ALIGN2D_PX)
    np.testing.assert_allclose(got.angles_deg[0], 30.0, atol=ALIGN2D_DEG)


def test_translation_and_rotation_depend_on_each_other(planted):
    """The alternating optimum scores at least as high as either order alone, and here mostly higher."""
    images, reference, psi, _ = planted
    refs = reference[None]
    radius = (1.0, 20.0)
    zero = np.zeros(len(images), np.int32)
    reach = {"max_shift_px": 6}

    def scored(angles: np.ndarray, shifts: np.ndarray) -> np.ndarray:
        return alignment_scores(images, refs, Alignment2D(angles, shifts, zero, zero), radius_px=20.0)

    # shift, then angle
    moved_by = ops.correlate(images, refs, **reach).shifts_px
    angles = ops.correlate_rotations(image_ops.shift(images, moved_by), refs, radius_px=radius).angles_deg
    shift_then_angle = scored(angles, moved_by)
    # angle, then shift (found in the turned frame, taken back to the image's)
    angles = ops.correlate_rotations(images, refs, radius_px=radius).angles_deg
    framed = in_reference_frame(images, angles, np.zeros_like(moved_by))
    x, y = ops.correlate(framed, refs, **reach).shifts_px.T
    c, s = np.cos(np.deg2rad(angles)), np.sin(np.deg2rad(angles))
    angle_then_shift = scored(angles, np.stack([c * x + s * y, c * y - s * x], axis=1))

    alternating = align2d(images, refs, radius_px=radius, search="alternating", cycles=6).scores
    either = np.maximum(shift_then_angle, angle_then_shift)
    assert (alternating >= either - 1e-6).all()
    assert np.median(alternating - either) > 0.01
    # and the joint search needs no luck: it is at least as good on average
    joint = align2d(images, refs, radius_px=radius, cycles=6)
    assert joint.scores.mean() >= alternating.mean() - 1e-6
    assert turn(joint.angles_deg, psi).max() < ALIGN2D_DEG


def test_best_reference_and_batches(planted):
    shapes = [particle(seed, 13) for seed in range(4)]
    refs = np.stack([draw(*shape, 48) for shape in shapes])
    truth = np.arange(12) % 4
    rng = np.random.default_rng(1)
    images = np.stack(
        [draw(*shapes[k], 48, *pose) for k, pose in zip(truth, [(p, (2, -3)) for p in range(0, 360, 30)], strict=True)]
    )
    images += (np.sqrt(images.var()) * rng.standard_normal(images.shape)).astype(np.float32)
    options = {"max_shift_px": 4, "radius_px": (1.0, 16.0), "cycles": 2}
    got = align2d(images, refs, threads=1, **options)
    np.testing.assert_array_equal(got.references, truth)
    many = align2d(images, refs, threads=3, **options)
    alone = [align2d(f, refs, **options) for f in images]
    for name in ("angles_deg", "shifts_px", "references", "scores"):
        np.testing.assert_array_equal(getattr(got, name), getattr(many, name))
        np.testing.assert_array_equal(getattr(got, name), np.concatenate([getattr(a, name) for a in alone]))


def test_scores_never_fall_with_cycles(planted):
    images, reference, *_ = planted
    rows = [align2d(images[:6], reference, radius_px=(1, 20), cycles=c).scores for c in range(4)]
    assert (np.diff(rows, axis=0) >= 0).all()


def test_bad_input_is_named(planted):
    images, reference, *_ = planted
    bad = images.copy()
    bad[3, 0, 0] = np.nan
    with pytest.raises(InputError, match="image 3"):
        align2d(bad, reference)
    with pytest.raises(InputError, match="search: expected one of"):
        align2d(images, reference, search="both")
    with pytest.raises(InputError, match="cycles"):
        align2d(images, reference, cycles=-1)
    with pytest.raises(InputError, match="multiple of step"):
        align2d(images, reference, max_shift_px=5, step_px=2)
