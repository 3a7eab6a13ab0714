"""Signal subtraction and its reversal; symmetry expansion and its reversal."""

from __future__ import annotations

import numpy as np
import pytest
from command_line import main

import verglas as vg
from verglas.errors import InputError
from verglas.geometry import angular_distance
from verglas.heterogeneity import collapse_symmetry, recentre_boxes, undo_recentring
from verglas.heterogeneity.recentred import RecentredSource
from verglas.heterogeneity.subtract import SCALE
from verglas.masks import soft_sphere
from verglas.run.subtract import collapse_files, expand_files, revert_files, subtract_files
from verglas.simulate import Model, phantom

BOX, PIXEL_A = 32, 5.0


@pytest.fixture(scope="module")
def parts():
    """Two bodies apart, their maps, and images of both together."""
    one, two = (phantom(BOX, PIXEL_A, 60.0, seed=s) for s in (1, 2))
    moved = [
        Model(m.xyz_A + np.array([x, 0, 0]), m.elements, m.weights, m.b_factors_A2) for m, x in ((one, -32), (two, 32))
    ]
    both = moved[0] + moved[1]
    p = vg.simulate.particles(both, 40, BOX, PIXEL_A, seed=4, listener=None)
    maps = [vg.simulate.density(m, BOX, PIXEL_A) for m in moved]
    return p, maps, moved


def keep_mask():
    sphere = soft_sphere(BOX, 6.5, 1)
    return vg.Map(np.roll(sphere, -6, axis=2).astype(np.float32), PIXEL_A)


def test_what_is_left_is_the_part_that_was_kept(parts):
    p, maps, moved = parts
    whole = vg.Map(maps[0].data + maps[1].data, PIXEL_A)
    kept = vg.Map(whole.data * keep_mask().data, PIXEL_A)
    exact = p.with_source(vg.ArraySource(vg.project(whole, p.poses, p.optics), PIXEL_A))
    left = vg.subtract(exact, whole, keep_mask())
    np.testing.assert_allclose(left.table[SCALE], 1, atol=1e-4)
    np.testing.assert_allclose(left.images(), vg.project(kept, p.poses, p.optics), atol=2e-3)
    # Of atoms drawn exactly, what a map of the same pixels cannot hold remains.
    drawn = vg.subtract(p, whole, keep_mask())
    alone = vg.simulate.Simulation(moved[0], 40, BOX, PIXEL_A, seed=4, poses=p.poses).clean(np.arange(40))
    assert np.square(drawn.images() - alone).mean() < 0.06 * np.square(alone).mean()
    np.testing.assert_allclose(drawn.table[SCALE], 1, atol=0.02)


def test_image_that_is_not_finite_is_named_and_gets_no_scale(parts):
    p, maps, _ = parts
    images = p.images().copy()
    images[5] = np.nan
    whole = vg.Map(maps[0].data + maps[1].data, PIXEL_A)
    with pytest.warns(vg.errors.VerglasWarning, match=r"1 particles \(the first is 5\)"):
        left = vg.subtract(p.with_source(vg.ArraySource(images, PIXEL_A)), whole, keep_mask())
    assert left.table[SCALE][5] == 1
    assert np.isfinite(left.table[SCALE]).all()
    assert np.isnan(left.images(np.array([5]))).all()
    assert np.isfinite(left.images(np.arange(5))).all()


def test_scale_of_each_particle_is_found(parts):
    p, maps, _ = parts
    whole = vg.Map(maps[0].data + maps[1].data, PIXEL_A)
    factors = np.linspace(0.7, 1.4, len(p))
    images = (p.images() * factors[:, None, None]).astype(np.float32)
    left = vg.subtract(p.with_source(vg.ArraySource(images, PIXEL_A)), whole, keep_mask())
    np.testing.assert_allclose(left.table[SCALE], factors, rtol=0.02)


def test_a_subset_is_subtracted_by_its_own_poses(parts):
    p, maps, _ = parts
    left = vg.subtract(p, maps[0], keep_mask())
    rows = [7, 3, 20]
    np.testing.assert_array_equal(left[rows].images(), left.images()[rows])


def test_recentred_boxes_show_the_part_at_its_poses(parts, tmp_path):
    """Projections of the part's own small map at the new poses are the small images; the whole's origins come back."""
    p, maps, _ = parts
    plain = vg.Particles.from_images(vg.project(maps[0], p.poses), PIXEL_A, poses=p.poses)
    centre = np.array([-30.0, 5.0, 0.0])  # six pixels to the left, one up
    small = recentre_boxes(plain, centre, 22)
    cut = np.roll(maps[0].data, (0, -1, 6), axis=(0, 1, 2))[5:27, 5:27, 5:27]
    seen = vg.project(vg.Map(np.ascontiguousarray(cut), PIXEL_A), small.poses)
    assert np.abs(small.poses.shifts_A).max() <= PIXEL_A / 2 + 1e-6
    assert np.square(small.images() - seen).mean() < 2e-3 * np.square(seen).mean()
    np.testing.assert_array_equal(small[[5, 2]].images(), small.images()[[5, 2]])
    # Poses that were refined since: the point stays where it is seen, and the origins of the whole follow the turn.
    back = undo_recentring(small)
    assert back.box == BOX
    np.testing.assert_allclose(back.poses.shifts_A, p.poses.shifts_A, atol=1e-9)
    turned = vg.Poses(small.poses.angles_deg + np.array([0, 0, 90]), small.poses.shifts_A)
    again = recentre_boxes(undo_recentring(small.with_poses(turned)).with_source(plain.source), centre, 22)
    np.testing.assert_allclose(again.images(), small.images(), atol=1e-5)


@pytest.mark.parametrize(
    ("box", "change", "message"),
    [
        (BOX + 2, {}, "expected boxes of 8 to 32 pixels"),
        (16, {"rlnMagMat00": 1.01}, "magnification matrix"),
        (16, {"verglasRecentredX": 1}, "re-centred already"),
    ],
)
def test_boxes_that_cannot_be_recentred(parts, box, change, message):
    with pytest.raises(InputError, match=message):
        recentre_boxes(parts[0].with_columns(**change), np.zeros(3), box)


@pytest.mark.parametrize(
    ("centre", "box", "message"),
    [
        ((1.0, 2.0), 16, "a centre of x, y, z"),
        ((np.nan, 0.0, 0.0), 16, "a centre of x, y, z"),
        ((0.0, 0.0, 0.0), 15.5, "expected boxes of 8 to 32 pixels"),
        ((1e6, 0.0, 0.0), 16, "boxes about .* lie outside their images"),
    ],
)
def test_middles_that_no_image_shows(parts, centre, box, message):
    with pytest.raises(InputError, match=message):
        recentre_boxes(parts[0], centre, box)


@pytest.mark.parametrize("side", [32, 33])
@pytest.mark.parametrize("box", [15, 16])
def test_odd_and_even_boxes_are_cut_about_the_same_middle(side, box):
    p = vg.simulate.particles(phantom(side, PIXEL_A, 80.0), 5, side, PIXEL_A, seed=1, listener=None)
    small = recentre_boxes(p, (12.0, -7.0, 9.0), box)
    moved = small.table[["verglasRecentredX", "verglasRecentredY"]].to_numpy(int)
    for made, image, (x, y) in zip(small.images(), p.images(), moved, strict=True):
        rows, columns = (slice(side // 2 + m - box // 2, side // 2 + m - box // 2 + box) for m in (y, x))
        np.testing.assert_array_equal(made, image[rows, columns])
    assert small.pixel_size_A == PIXEL_A
    np.testing.assert_allclose(undo_recentring(small).poses.shifts_A, p.poses.shifts_A, atol=1e-9)


def test_particles_whose_box_lies_outside_their_image_are_set_aside(tmp_path, parts, capsys):
    p, maps, _ = parts
    shifts_A = p.poses.shifts_A.copy()
    shifts_A[[3, 7]] = 1e4
    files = [str(tmp_path / name) for name in ("p.star", "map.mrc", "mask.mrc", "left.star")]
    vg.io.write_particles(files[0], p.with_poses(vg.Poses(p.poses.angles_deg, shifts_A)), stack=tmp_path / "p.mrcs")
    vg.io.write_map(files[1], vg.Map(maps[0].data + maps[1].data, PIXEL_A))
    vg.io.write_map(files[2], keep_mask())
    cut = ["subtract", files[0], "--map", files[1], "--mask", files[2], "-o", files[3], "--box", "20"]
    status, out, error = main(cut, capsys)
    assert status == 0
    assert "2 particles set aside (particle 3: its box of 20 pixels lies outside its image; particle 7" in error
    assert "38 particles" in out
    left = vg.read_particles(files[3])
    kept = np.delete(np.arange(40), [3, 7])
    np.testing.assert_allclose(left.poses.angles_deg, p.poses.angles_deg[kept], atol=1e-4)
    np.testing.assert_allclose(undo_recentring(left).poses.shifts_A, p.poses.shifts_A[kept], atol=1e-3)
    revert_files(tmp_path / "left.star", tmp_path / "back.star")
    np.testing.assert_allclose(vg.read_particles(tmp_path / "back.star").images(), p.images()[kept], atol=1e-5)


def test_boxes_beyond_an_image_hold_the_mean_of_its_border():
    image = np.arange(64, dtype=np.float32).reshape(1, 8, 8)
    read = RecentredSource(vg.ArraySource(image, 1.0), np.array([[2, 0]]), 8).read(np.array([0]))[0]
    np.testing.assert_array_equal(read[:, :6], image[0, :, 2:])
    np.testing.assert_allclose(read[:, 6:], 31.5)


def test_subtract_cuts_boxes_and_reverts_them(tmp_path, parts, capsys):
    p, maps, _ = parts
    vg.write_particles(tmp_path / "p.star", p)
    vg.write_map(tmp_path / "map.mrc", vg.Map(maps[0].data + maps[1].data, PIXEL_A))
    vg.write_map(tmp_path / "mask.mrc", keep_mask())
    how = [str(tmp_path / name) for name in ("p.star", "map.mrc", "mask.mrc", "left.star", "back.star")]
    cut = ["subtract", how[0], "--map", how[1], "--mask", how[2], "-o", how[3], "--box", "20"]
    assert main(cut, capsys)[0] == 0
    left = vg.read_particles(how[3])
    assert left.box == left.images().shape[1] == 20
    assert left.optics_table is not None
    assert (left.optics_table["rlnImageSize"] == 20).all()
    assert main(["subtract", how[3], "--revert", "-o", how[4]], capsys)[0] == 0
    back, before = vg.read_particles(how[4]), vg.read_particles(how[0])
    np.testing.assert_array_equal(back.images(), p.images())
    np.testing.assert_allclose(back.poses.shifts_A, before.poses.shifts_A, atol=1e-4)
    assert not [name for name in back.table if name.startswith("verglas")]


def test_files_and_reversal(tmp_path, parts):
    p, maps, _ = parts
    vg.write_particles(tmp_path / "p.star", p)
    vg.write_map(tmp_path / "map.mrc", vg.Map(maps[0].data + maps[1].data, PIXEL_A))
    vg.write_map(tmp_path / "mask.mrc", keep_mask())
    (tmp_path / "sub").mkdir()
    out = tmp_path / "sub" / "left.star"
    made = subtract_files(tmp_path / "p.star", out, tmp_path / "map.mrc", tmp_path / "mask.mrc", listener=None)
    assert made["particles"] == len(p)
    left = vg.read_particles(out)
    assert left.images().std() < p.images().std()
    assert revert_files(out, tmp_path / "back.star") == len(p)
    back = vg.read_particles(tmp_path / "back.star")
    np.testing.assert_array_equal(back.images(), p.images())
    before = vg.read_particles(tmp_path / "p.star")
    for name in before.table.columns:
        if name != "rlnImageName":
            assert (back.table[name] == before.table[name]).all(), name
    with pytest.raises(InputError, match="not made by verglas subtract"):
        revert_files(tmp_path / "p.star", tmp_path / "no.star")


def test_refused(parts):
    p, maps, _ = parts
    with pytest.raises(InputError, match="resample it first"):
        vg.subtract(p, vg.Map(np.ones((8, 8, 8)), PIXEL_A), keep_mask())
    bare = p.with_columns(rlnAngleRot=None, rlnAngleTilt=None, rlnAnglePsi=None)
    with pytest.raises(InputError, match="needs poses"):
        vg.subtract(bare, maps[0], keep_mask())


@pytest.mark.parametrize(("symmetry", "order"), [("C3", 3), ("D2", 4), ("O", 24), ("I1", 60)])
def test_expansion_gives_the_equivalent_poses(symmetry, order):
    rng = np.random.default_rng(5)
    poses = vg.Poses(rng.uniform(0, 180, (6, 3)), rng.normal(size=(6, 2)))
    p = vg.Particles.from_images(rng.normal(size=(6, 8, 8)).astype(np.float32), 1.0, poses=poses)
    p = p.with_columns(rlnRandomSubset=[1, 2, 1, 2, 1, 2])
    made = vg.expand_symmetry(p, symmetry)
    assert len(made) == 6 * order
    parent = np.repeat(np.arange(6), order)
    assert angular_distance(made.poses.angles_deg, poses.angles_deg[parent], symmetry).max() < 1e-4
    apart = angular_distance(made.poses.angles_deg[1:order], np.repeat(poses.angles_deg[:1], order - 1, axis=0), "C1")
    assert apart.min() > 30
    np.testing.assert_array_equal(made.images(), p.images()[parent])
    np.testing.assert_array_equal(made.half_sets, p.half_sets[parent])
    back = collapse_symmetry(made)
    np.testing.assert_array_equal(back.poses.angles_deg, poses.angles_deg)


def test_collapse_keeps_the_copy_that_fits_best():
    p = vg.Particles.from_images(np.random.default_rng(0).normal(size=(3, 8, 8)), 1.0, poses=vg.Poses(np.zeros((3, 3))))
    made = vg.expand_symmetry(p, "C4")
    score = np.zeros(12)
    score[[2, 7, 8]] = 1.0
    kept = collapse_symmetry(made.with_columns(rlnLogLikeliContribution=score))
    assert kept.table["verglasSymmetryCopy"].tolist() == [3, 4, 1]
    with pytest.raises(InputError, match="expanded already"):
        vg.expand_symmetry(made, "C4")
    with pytest.raises(InputError, match="not expanded"):
        collapse_symmetry(p)


def test_expansion_of_files_writes_no_images(tmp_path, parts):
    p, _, _ = parts
    vg.write_particles(tmp_path / "p.star", p)
    assert expand_files(tmp_path / "p.star", tmp_path / "e.star", "D2") == (40, 160)
    assert not (tmp_path / "e.mrcs").exists()
    made = vg.read_particles(tmp_path / "e.star")
    np.testing.assert_array_equal(made.images([0, 3]), p.images([0, 0]))
    assert collapse_files(tmp_path / "e.star", tmp_path / "c.star") == (160, 40)


def test_expand_says_that_half_sets_were_split_anew():
    p = vg.Particles.from_images(np.ones((6, 8, 8), np.float32), 1.0, poses=vg.Poses(np.zeros((6, 3))))
    with pytest.warns(vg.errors.VerglasWarning, match="all 6 particles are in half set 1"):
        made = vg.expand_symmetry(p.with_columns(rlnRandomSubset=1), "C2")
    half = made.table["rlnRandomSubset"].to_numpy().reshape(6, 2)
    np.testing.assert_array_equal(half[:, 0], half[:, 1])
    assert sorted(half[:, 0]) == [1, 1, 1, 2, 2, 2]
