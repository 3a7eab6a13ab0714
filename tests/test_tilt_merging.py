"""Classes of tilt pairs in one map, and defocus across tilted micrographs."""

from __future__ import annotations

import numpy as np
import pytest

import verglas as vg
from verglas.map_geometry.map_alignment import align_maps
from verglas.map_geometry.symmetry_search import moved_map
from verglas.masks import soft_sphere
from verglas.run.tilt_defocus import choose_sign, heights_A, with_defocus_moved
from verglas.tilting import TiltGeometry, conical_tilt, merge_classes
from verglas.tilting.conical import ConicalSettings
from verglas.tilting.merging import _offset

BOX, PIXEL_A = 32, 5.0
STAGE = TiltGeometry(55.0, 10.0, -20.0)


def density(seed, shape="globule"):
    model = vg.simulate.phantom(BOX, PIXEL_A, 110.0, "C1", seed, shape)
    return vg.simulate.density(model, BOX, PIXEL_A, b_factor_A2=400.0)


def class_of(truth, view, n, seed, snr=1.0):
    """Untilted and tilted images of one class, seen along ``view`` (3, 3), picks a pixel off."""
    rng = np.random.default_rng(seed)
    psi = rng.uniform(0, 360, n)
    poses = vg.euler_to_matrix(np.column_stack([0 * psi, 0 * psi, psi])) @ view
    sets = []
    for turn in (np.eye(3), STAGE.rotation):
        given = vg.Poses(vg.matrix_to_euler(turn @ poses), rng.normal(0, PIXEL_A, (n, 2)))
        clean = vg.project(truth, given, threads=1)
        sets.append((clean + rng.normal(0, clean.std() / np.sqrt(snr), clean.shape)).astype(np.float32))
    return sets


def agreement(truth, made):
    """Mean FSC to shell 10 in the best frame and place."""
    data = made.data * soft_sphere(BOX, 13, 2.0)
    for _ in range(2):
        aligned = align_maps(truth, vg.Map(data, PIXEL_A), threads=1)
        data = moved_map(data, aligned.matrix.T @ _offset(truth.data, aligned.map.data))
    return float(vg.fsc(truth, align_maps(truth, vg.Map(data, PIXEL_A), threads=1).map).curve[1:11].mean())


@pytest.mark.slow
def test_two_classes_of_other_views_make_one_map_better_than_either():
    """Views 75 degrees apart: no cone is left, and the map agrees with the truth better; noise stays out."""
    truth = density(1, "cone")
    views = [np.eye(3), vg.euler_to_matrix([[40.0, 75.0, 0.0]])[0]]
    sets = [class_of(truth, view, n, seed) for view, n, seed in zip(views, (40, 35), (1, 2), strict=True)]
    noise = np.random.default_rng(5).normal(size=(2, 20, BOX, BOX)).astype(np.float32)
    sets.append([noise[0], noise[1]])
    settings = ConicalSettings(iterations=2)
    classes = [
        conical_tilt(*(vg.Particles.from_images(side, PIXEL_A) for side in pair), STAGE, settings, threads=1)
        for pair in sets
    ]
    tilted = vg.Particles.from_images(np.concatenate([pair[1] for pair in sets]), PIXEL_A)
    rows = [np.arange(40), np.arange(40, 75), np.arange(75, 95)]
    merged = merge_classes(classes, tilted, rows, settings, threads=1)
    assert merged.joined.tolist() == [True, True, False]
    assert merged.missing_share < 0.01
    between = np.degrees(np.arccos(abs(merged.rotations[1][2, 2])))
    assert abs(between - 75) < 10
    alone = [agreement(truth, one.map) for one in classes[:2]]
    assert agreement(truth, merged.map) > max(alone) + 0.02
    with pytest.raises(vg.InputError, match="two classes or more"):
        merge_classes(classes[:1], tilted, rows[:1])


def test_heights_are_those_of_points_turned_by_the_stage():
    rng = np.random.default_rng(0)
    flat = np.column_stack([rng.uniform(-500, 500, (30, 2)), np.zeros(30)])
    geometry = TiltGeometry(48.0, 20.0, -35.0, [700.0, 300.0])
    turned = flat @ geometry.rotation.T
    places = geometry.map_px(flat[:, :2])
    np.testing.assert_allclose(places, turned[:, :2] + [700.0, 300.0], atol=1e-9)
    z = heights_A(places, np.tile([700.0, 300.0], (30, 1)), [geometry] * 30, 2.0)
    np.testing.assert_allclose(z, 2.0 * turned[:, 2], atol=1e-9)
    assert not heights_A(places, places, [TiltGeometry(90.0, 0.0, 0.0)] * 30, 2.0).any()


@pytest.mark.slow
@pytest.mark.parametrize("sign", [1, -1, 0])
def test_the_sign_of_the_gradient_is_asked_of_the_half_sets(sign):
    """Tilted images whose defocus follows their place, by 1,500 A either way: the planted sign, or none, is found."""
    truth, n, rng = density(4, "arch"), 60, np.random.default_rng(3)
    psi = np.linspace(0, 360, n, endpoint=False)
    poses = np.column_stack([0 * psi, 0 * psi, psi])
    z = rng.uniform(-4000, 4000, n)
    optics = vg.Optics(np.full(n, 14000.0), np.full(n, 14000.0), pixel_size_A=PIXEL_A)
    untilted = vg.Particles.from_images(vg.project(truth, vg.Poses(poses), optics, threads=1), PIXEL_A, optics=optics)
    views = vg.Poses(STAGE.tilted_angles_deg(poses))
    blank = vg.Particles.from_images(np.zeros((n, BOX, BOX), np.float32), PIXEL_A, optics=optics, poses=views)
    clean = vg.project(truth, views, with_defocus_moved(blank, sign * z).optics, threads=1)
    noisy = clean + rng.normal(0, clean.std(), clean.shape)
    tilted = vg.Particles.from_images(noisy.astype(np.float32), PIXEL_A, optics=optics)
    settings = ConicalSettings(ctf=True, iterations=1)
    made = conical_tilt(untilted.with_poses(vg.Poses(poses)), tilted, STAGE, settings, threads=1)
    found, agreement_of = choose_sign([made], [z], settings, threads=1)
    assert found == sign, agreement_of
