"""Tilt pairs: the geometry of two images, and which picks belong together."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tilted_fields import tilted_field

import verglas as vg
from verglas.tilting import TiltGeometry, fit_geometry, match_particles

angles = st.floats(-85, 85)


@given(angles, st.floats(-180, 180), st.floats(-180, 180), st.integers(0, 10**6))
@settings(max_examples=25)
def test_positions_are_those_of_points_turned_by_the_stage(tilt, axis, tilted_axis, seed):
    """The map of coordinates is the turn D seen along z, for points in the plane of the specimen."""
    g = TiltGeometry(tilt, axis, tilted_axis, [3.0, -2.0])
    x = np.random.default_rng(seed).uniform(-500, 500, (5, 2))
    turned = (np.column_stack([x, np.zeros(5)]) @ g.rotation.T)[:, :2] + [3.0, -2.0]
    np.testing.assert_allclose(g.map_px(x), turned, atol=1e-9)
    np.testing.assert_allclose(g.map_back_px(g.map_px(x)), x, atol=1e-6)
    # the axis itself is where it is named, and keeps its length
    for angle, other in ((axis, tilted_axis),):
        a, b = np.radians([angle, other])
        np.testing.assert_allclose(g.matrix @ [-np.sin(a), np.cos(a)], [-np.sin(b), np.cos(b)], atol=1e-12)


@given(angles, angles, angles, st.tuples(*[st.floats(-180, 180)] * 3))
@settings(max_examples=25)
def test_an_axis_named_the_other_way_round_is_the_opposite_tilt(tilt, axis, tilted_axis, pose):
    g = TiltGeometry(tilt, axis, tilted_axis)
    other = TiltGeometry(-tilt, axis + 180, tilted_axis + 180)
    np.testing.assert_allclose(g.rotation, other.rotation, atol=1e-12)
    near = g.near_axis(axis + 170.0)
    np.testing.assert_allclose(near.matrix, g.matrix, atol=1e-12)
    np.testing.assert_allclose(near.rotation, TiltGeometry(-tilt, axis, tilted_axis).rotation, atol=1e-12)
    matrices = [vg.euler_to_matrix(a)[0] for a in (g.tilted_angles_deg([pose]), [pose])]
    np.testing.assert_allclose(matrices[0], g.rotation @ matrices[1], atol=1e-12)


def test_the_stretch_of_the_textbook():
    """With both axes along y the tilted image is the untilted one, narrower by 1 / cos(tilt) across the axis."""
    np.testing.assert_allclose(np.linalg.inv(TiltGeometry(60.0, 0.0, 0.0).matrix), np.diag([2.0, 1.0]), atol=1e-12)


def test_fitted_tilt_and_axes_are_within_their_errors():
    """Of many fits with known noise the errors over the standard errors have a mean square of 1."""
    z = []
    for seed in range(40):
        f = tilted_field(500 + seed, 40, missing=0, extra=0)
        order = np.argsort(f.tilted_ids)
        g = fit_geometry(f.untilted_px, f.tilted_px[order], axis_deg=f.geometry.axis_untilted_deg)
        turn = (g.axis_tilted_deg - f.geometry.axis_tilted_deg + 180) % 360 - 180
        axis = g.axis_untilted_deg - f.geometry.axis_untilted_deg
        z.append(
            [
                (g.tilt_deg - f.geometry.tilt_deg) / g.tilt_error_deg,
                axis / g.axis_untilted_error_deg,
                turn / g.axis_tilted_error_deg,
            ]
        )
    rms = np.sqrt(np.mean(np.square(z), axis=0))
    assert (rms > 0.7).all()  # 40 draws: 1 +- 0.11, each, at one standard deviation
    assert (rms < 1.35).all()


def test_a_wrong_pair_does_not_move_the_fit_and_magnification_is_found():
    f = tilted_field(7, 40, missing=0, extra=0, error_px=1.0)
    second = f.tilted_px[np.argsort(f.tilted_ids)]
    second[3] += 300
    g = fit_geometry(f.untilted_px, second, axis_deg=f.geometry.axis_untilted_deg)
    assert abs(g.tilt_deg - f.geometry.tilt_deg) < 0.3
    scaled = fit_geometry(f.untilted_px, 1.05 * second, fit_magnification=True)
    assert scaled.magnification == pytest.approx(1.05, abs=4 * scaled.magnification_error)
    assert scaled.magnification_error < 0.005
    with pytest.warns(vg.VerglasWarning, match=r"differ by a factor of 1\.05"):
        vg.tilt_pairs("a", "b", f.untilted_px, 1.05 * second)


@pytest.mark.parametrize("seed", range(1000, 1003))
def test_pairs_are_found_with_a_fifth_missing_and_a_fifth_wrong(seed):
    """Asked: 95 % of the pairs right, tilt within 1 degree, axes within 2."""
    f = tilted_field(seed, 80)
    t = vg.tilt_pairs("u", "t", f.untilted_px, f.tilted_px, axis_deg=f.geometry.axis_untilted_deg)
    assert f.right(t) >= 0.95 * len(t)
    assert f.right(t) >= 0.95 * f.in_both
    assert abs(t.tilt_deg - f.geometry.tilt_deg) < 1
    assert abs(t.axis_untilted_deg - f.geometry.axis_untilted_deg) < 1
    assert abs(t.axis_tilted_deg - f.geometry.axis_tilted_deg) < 1
    assert t.log_chance < -20


def test_the_order_of_picks_does_not_matter():
    f = tilted_field(11, 40)
    t = vg.tilt_pairs("u", "t", f.untilted_px, f.tilted_px)
    order = np.random.default_rng(0).permutation(len(f.untilted_px))
    again = vg.tilt_pairs("u", "t", f.untilted_px[order], f.tilted_px)
    assert set(zip(t.pairs.untilted, t.pairs.tilted, strict=True)) == set(
        zip(order[again.pairs.untilted], again.pairs.tilted, strict=True)
    )


def test_an_untilted_pair_is_matched_too():
    f = tilted_field(5, 60, tilt_deg=0.0)
    t = vg.tilt_pairs("u", "t", f.untilted_px, f.tilted_px)
    assert f.right(t) >= 0.95 * f.in_both
    assert t.tilt_deg < 10
    assert t.geometry.tilt_error_deg > 0.05 or t.tilt_deg < 3 * t.geometry.tilt_error_deg + 3


def test_fields_that_do_not_belong_together_are_refused():
    refused = 0
    for seed in range(3):
        one, other = tilted_field(20 + seed, 40), tilted_field(70 + seed, 40)
        try:
            vg.tilt_pairs("a.mrc", "b.mrc", one.untilted_px, other.tilted_px)
        except vg.InputError as error:
            refused += 1
            assert "a.mrc and b.mrc" in str(error)  # noqa: PT017
            assert "do not match" in str(error)  # noqa: PT017
    assert refused == 3


def test_refusals():
    line = np.column_stack([np.arange(10.0), np.arange(10.0)])
    with pytest.raises(vg.InputError, match="on a line"):
        match_particles(line, line)
    with pytest.raises(vg.InputError, match="3 tilted picks; a match needs 4"):
        match_particles(np.eye(2)[[0, 1, 0, 1]], np.zeros((3, 2)))
    with pytest.raises(vg.InputError, match=r"particle 1 \(from 0\) has no finite position"):
        match_particles([[0, 0], [np.nan, 1], [2, 2], [3, 5]], np.zeros((4, 2)))
    with pytest.raises(vg.InputError, match="expected shape"):
        match_particles([1, 2, 3], np.zeros((4, 2)))
    x = np.random.default_rng(0).uniform(0, 100, (20, 2))
    with pytest.raises(vg.InputError, match="mirror image"):
        fit_geometry(x, x * [-1, 1])
    with pytest.raises(vg.InputError, match="3 pairs"):
        fit_geometry(x[:3], x[:3])
    with pytest.raises(vg.InputError, match="on a line"):
        fit_geometry(line, line)
    with pytest.raises(vg.InputError, match="90 degrees"):
        TiltGeometry(90.0, 0, 0).map_back_px([[1, 1]])
    with pytest.raises(vg.InputError, match="expected finite angles"):
        TiltGeometry(np.nan, 0, 0)


def test_the_pair_made_by_spider(data_dir):
    """48 degrees and an axis along y by the program that made it; picks shuffled."""
    pairs = pd.read_csv(data_dir / "rct_spider" / "pairs.tsv", sep="\t")
    order = np.random.default_rng(3).permutation(len(pairs))
    first = pairs[["x_untilted", "y_untilted"]].to_numpy()
    second = pairs[["x_tilted", "y_tilted"]].to_numpy()[order]
    t = vg.tilt_pairs("untilted.mrc", "tilted.mrc", vg.Picks(first), vg.Picks(second))
    assert (order[t.pairs.tilted] == t.pairs.untilted).sum() > 0.95 * 76
    assert abs(t.tilt_deg - 48) < 1
    assert abs(t.axis_untilted_deg) < 1
    assert abs(t.axis_tilted_deg) < 1
