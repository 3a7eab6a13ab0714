"""Particles: lazy, columnar, sliceable; read from STAR and CS with their images (issue: Files)."""

from __future__ import annotations

import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import verglas as vg
from verglas.io import write_stack, write_star
from verglas.types import ImageSource

QUICK = settings(deadline=None, max_examples=25)


def quiet_read(path, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", vg.VerglasWarning)
        p = vg.read_particles(path, **options)
        return p, p.images() if p.source is not None else None


@pytest.fixture
def two_stacks(tmp_path):
    """Eight particles in two stacks, in an order that jumps between and inside them; image i is filled with i."""
    for name, values in (("a", range(5)), ("b", range(5, 8))):
        write_stack(tmp_path / f"{name}.mrcs", np.array([np.full((4, 4), v, np.float32) for v in values]), 1.5)
    order = [7, 0, 3, 5, 1, 6, 4, 2]
    names = [f"{v + 1}@a.mrcs" if v < 5 else f"{v - 4}@b.mrcs" for v in order]
    optics = pd.DataFrame({"rlnOpticsGroup": [1], "rlnImagePixelSize": [1.5], "rlnImageSize": [4]})
    table = pd.DataFrame({"rlnImageName": names, "rlnOpticsGroup": 1, "rlnMine": order})
    write_star(tmp_path / "p.star", {"optics": optics, "particles": table})
    return tmp_path / "p.star"


# ---- images


def test_images_come_in_the_order_asked(two_stacks):
    p = vg.read_particles(two_stacks)
    for asked in ([0, 5, 2], [2, 2, 2, 0], [-1], range(7, -1, -1)):
        got = p.images(list(asked))
        assert got.dtype == np.float32
        assert got.shape == (len(asked), 4, 4)
        assert got[:, 0, 0].tolist() == p.table["rlnMine"].to_numpy()[list(asked)].tolist()
    assert p.images(p.table["rlnMine"] > 4).mean(axis=(1, 2)).tolist() == [7, 5, 6]
    assert p.images([]).shape[0] == 0


@QUICK
@given(st.lists(st.integers(0, 7), min_size=1, max_size=12), st.integers(0, 3))
def test_slices_of_slices_keep_images_and_rows_together(rows, keep):
    data = np.arange(8, dtype=np.float32)[:, None, None] * np.ones((1, 4, 4), np.float32)
    p = vg.Particles.from_images(data, 2.0).with_columns(mine=np.arange(8))
    q = p[rows][keep:]
    assert q.images()[:, 0, 0].tolist() == q.table["mine"].tolist() == rows[keep:]


def test_reading_is_lazy(two_stacks):
    p = vg.read_particles(two_stacks)
    two_stacks.with_name("b.mrcs").unlink()
    in_a = p[p.table["rlnMine"] < 5]
    assert in_a.images().shape == (5, 4, 4)
    with pytest.raises(vg.FormatError, match=r"p\.star, particle 0 .*stack b\.mrcs not found; looked for .*path_map="):
        p.images([0])


def test_paths_beside_the_file_then_working_directory(two_stacks, tmp_path, monkeypatch):
    (tmp_path / "sub").mkdir()
    moved = tmp_path / "sub" / "p.star"
    two_stacks.rename(moved)
    monkeypatch.chdir(tmp_path)
    assert vg.read_particles("sub/p.star").images([0])[0, 0, 0] == 7
    # a stack beside the STAR file wins over one in the working directory
    write_stack(tmp_path / "sub" / "b.mrcs", np.full((3, 4, 4), 99.0), 1.5)
    assert vg.read_particles("sub/p.star").images([0])[0, 0, 0] == 99


def test_stack_and_path_map(two_stacks, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    for name in "ab":
        (tmp_path / f"{name}.mrcs").rename(tmp_path / "elsewhere" / f"{name}.mrcs")
    expected = vg.read_particles(two_stacks).table["rlnMine"].tolist()
    by_folder = vg.read_particles(two_stacks, stack=tmp_path / "elsewhere")
    by_prefix = vg.read_particles(two_stacks, path_map={"a.": "elsewhere/a.", "b": "elsewhere/b", "": "nowhere"})
    assert by_folder.images()[:, 0, 0].tolist() == by_prefix.images()[:, 0, 0].tolist() == expected
    with pytest.raises(vg.InputError, match="no such file or folder"):
        vg.read_particles(two_stacks, stack=tmp_path / "nowhere")


def test_one_stack_in_place_of_several_is_read_in_the_order_of_the_rows(two_stacks, tmp_path):
    p = vg.read_particles(two_stacks)
    n, expected = len(p), p.table["rlnMine"].tolist()
    write_stack(tmp_path / "all.mrcs", p.images(), 1.5)
    for name in ("a.mrcs", "b.mrcs"):  # neither holds all of them
        with pytest.raises(vg.InputError, match=rf"names 2 stacks .* expected as many images as particles, {n}"):
            vg.read_particles(two_stacks, stack=tmp_path / name)
    with pytest.warns(vg.VerglasWarning, match=r"all\.mrcs are taken in the order of the rows"):
        joined = vg.read_particles(two_stacks, stack=tmp_path / "all.mrcs")
    assert joined.images()[:, 0, 0].tolist() == expected
    (tmp_path / "sub").mkdir()
    vg.write_particles(tmp_path / "sub" / "q.star", joined[2:])
    assert vg.read_particles(tmp_path / "sub" / "q.star").images()[:, 0, 0].tolist() == expected[2:]


def test_numbers_that_run_through_the_one_stack_are_kept(two_stacks, tmp_path):
    p = vg.read_particles(two_stacks)
    n = len(p)
    write_stack(tmp_path / "all.mrcs", p.images()[::-1], 1.5)
    names = [f"{n - i:06d}@{'ab'[i % 2]}.mrcs" for i in range(n)]
    vg.io.write_star(tmp_path / "r.star", {"optics": p.optics_table, "particles": p.table.assign(rlnImageName=names)})
    turned = quiet_read(tmp_path / "r.star", stack=tmp_path / "all.mrcs")[0]
    assert turned.images()[:, 0, 0].tolist() == p.table["rlnMine"].tolist()


def test_pickles_and_stays_lazy(two_stacks):
    p = vg.read_particles(two_stacks)
    p.images([0])
    q = pickle.loads(pickle.dumps(p[[3, 1]]))
    assert q.images()[:, 0, 0].tolist() == [5, 0]
    pd.testing.assert_frame_equal(q.table, p[[3, 1]].table)
    assert isinstance(q.source, ImageSource)


# ---- errors that name file, table, line or column


def test_index_beyond_the_stack_names_particle_and_size(two_stacks):
    text = two_stacks.read_text().replace("3@b.mrcs", "4@b.mrcs")
    two_stacks.write_text(text)
    with pytest.raises(vg.FormatError, match=r"p\.star, particle 0 .*image 4 of .*b\.mrcs asked for, .* has 3 images"):
        vg.read_particles(two_stacks).images()
    # named by its row of the file, also from a subset
    with pytest.raises(vg.FormatError, match="particle 0"):
        vg.read_particles(two_stacks)[[5, 0]].images()


@pytest.mark.parametrize("bad", ["0@b.mrcs", "x@b.mrcs", "3@"])
def test_image_name_that_is_none(two_stacks, bad):
    two_stacks.write_text(two_stacks.read_text().replace("3@b.mrcs", bad))
    with pytest.raises(vg.FormatError, match=r"rlnImageName of row 0"):
        vg.read_particles(two_stacks)


def test_box_differs_between_metadata_and_stack(two_stacks):
    two_stacks.write_text(two_stacks.read_text().replace("1\t1.5\t4", "1\t1.5\t6"))
    p = vg.read_particles(two_stacks)
    with pytest.raises(vg.FormatError, match=r"rlnImageSize is 6, but the images of .*b\.mrcs have 4 pixels"):
        p.images([0])


def test_pixel_size_differs_between_metadata_and_stack(two_stacks):
    text = two_stacks.read_text()
    two_stacks.write_text(text.replace("1\t1.5\t4", "1\t3\t4"))
    with pytest.raises(vg.FormatError, match=r"pixel size 3 A, but .*b\.mrcs has 1\.5 A in its header"):
        vg.read_particles(two_stacks).images([0])
    two_stacks.write_text(text.replace("1\t1.5\t4", "1\t1.51\t4"))
    with pytest.warns(vg.VerglasWarning, match=r"1\.5 A in the header but 1\.51 A in .*recalibration"):
        assert vg.read_particles(two_stacks).images([0]).shape == (1, 4, 4)


def test_several_pixel_sizes_in_one_set(data_dir):
    p = vg.read_particles(data_dir / "particles" / "relion31.6opticsgroups.star")
    assert set(np.unique(p.optics.pixel_size_A)) == {1.24, 1.25}
    assert p.box == 196
    with pytest.raises(vg.InputError, match=r"several pixel sizes: 1\.24, 1\.25"):
        _ = p.pixel_size_A
    one = p[p.optics.pixel_size_A == 1.24]
    assert one.pixel_size_A == 1.24


def test_optics_needed_and_absent(data_dir):
    with pytest.warns(vg.VerglasWarning, match="no optics table"):
        p = vg.read_particles(data_dir / "particles" / "rln_proj_65.star")
    assert p.images([4]).shape == (1, 65, 65)  # nothing here needs optics
    with pytest.raises(vg.InputError, match=r"rln_proj_65\.star: .*no optics table and no column rlnDefocusU, "):
        _ = p.optics
    with pytest.raises(vg.InputError, match="pixel size is unknown"):
        _ = p.pixel_size_A


def test_particles_are_frozen():
    p = vg.Particles.from_images(np.zeros((2, 4, 4)), 1.0)
    with pytest.raises(AttributeError, match="frozen"):
        p.table = None


@pytest.mark.parametrize(
    ("index", "message"),
    [([True], "mask of shape"), ([5], "beyond 2"), ([0.5], "expected a mask, integers or a slice")],
)
def test_wrong_index(index, message):
    with pytest.raises(vg.InputError, match=message):
        vg.Particles.from_images(np.zeros((2, 4, 4)), 1.0)[index]


# ---- metadata


def test_all_particle_files_are_read(data_dir):
    """Every STAR and CS file of the data, with images where they are there."""
    folder = data_dir / "particles"
    expected = {
        "empiar_10076_7.star": (7, 320, 1.309998),
        "empiar_10076_7.cs": (7, 320, 1.309998),
        "relion31.star": (5, 256, 2.806),
        "sample_particles_relion30.star": (17, 200, 1.338),
        "sample_particles_relion31.star": (17, 200, 1.4),
    }
    for name, (n, box, pixel) in expected.items():
        p, images = quiet_read(folder / name)
        assert images.shape == (n, box, box)
        assert np.isfinite(images).all()
        assert (len(p), p.box) == (n, box)
        assert p.pixel_size_A == pytest.approx(pixel, rel=1e-6)
        assert len(p.optics) == n
    p, images = quiet_read(folder / "trpv1_small_stack.star", stack=folder / "trpv1_small_stack.mrcs")
    assert images.shape == (10, 48, 48)
    assert p.optics.voltage_kV.tolist() == [300.0] * 10  # its only optics group is number 7
    assert len(vg.read_particles(folder / "relion5.star")) == 17
    assert len(vg.read_particles(folder / "cryosparc_P12_J24_001_particles.cs")) == 2019


def test_images_equal_a_plain_read(data_dir):
    p = vg.read_particles(data_dir / "exact" / "truth.star")
    raw = np.fromfile(data_dir / "exact" / "particles.mrcs", "<f4", offset=1024).reshape(-1, 64, 64)
    order = np.random.default_rng(0).permutation(200)
    assert np.array_equal(p.images(order), raw[order])


def test_relion_30_origins_are_pixels(data_dir):
    p, _ = quiet_read(data_dir / "particles" / "sample_particles_relion30.star")
    assert p.poses.shifts_A[0] == pytest.approx(np.array([0.1996, 0.1996]) * 5e4 / 37369.207031)
    assert p.optics.voltage_kV.tolist() == [300.0] * 8 + [200.0] * 9


def test_optics_of_each_particle_with_its_group(data_dir):
    p = vg.read_particles(data_dir / "particles" / "relion31.6opticsgroups.star")
    group = p.table["rlnOpticsGroup"].to_numpy() - 1
    assert np.array_equal(p.optics.group, group)
    assert np.array_equal(p.optics.cs_mm, p.optics_table["rlnSphericalAberration"].to_numpy()[group])


def test_ctf_columns_are_honoured():
    p = vg.Particles.from_images(np.zeros((2, 4, 4)), 1.0, optics=vg.Optics([1e4, 2e4], [1e4, 2e4]))
    p = p.with_columns(rlnCtfBfactor=[10, 20], rlnCtfScalefactor=[0.5, 2], rlnPhaseShift=[90.0, 0.0])
    assert p.optics.b_factor_A2.tolist() == [10, 20]
    assert p.optics.scale.tolist() == [0.5, 2]
    assert p.optics.phase_shift_deg.tolist() == [90, 0]


def test_unknown_optics_group_is_named():
    p = vg.Particles.from_images(np.zeros((2, 4, 4)), 1.0).with_columns(rlnOpticsGroup=[1, 3])
    with pytest.raises(vg.InputError, match="particle 1 belongs to optics group 3, which the optics table"):
        _ = p.pixel_size_A


def test_a_value_that_is_no_number_is_named():
    p = vg.Particles.from_images(np.zeros((2, 4, 4)), 1.0, poses=vg.Poses(np.zeros((2, 3))))
    with pytest.raises(vg.InputError, match=r"rlnAngleTilt, row 1 .*expected a finite number, got nan"):
        _ = p.with_columns(rlnAngleTilt=[0, np.nan]).poses
    with pytest.raises(vg.InputError, match=r"rlnAngleTilt, row 0 .*got 'x'"):
        _ = p.with_columns(rlnAngleTilt=np.array(["x", "1"], object)).poses


def test_half_sets():
    p = vg.Particles.from_images(np.zeros((2, 4, 4)), 1.0)
    assert p.half_sets is None
    assert p.with_columns(rlnRandomSubset=[2, 1]).half_sets.tolist() == [2, 1]
    with pytest.warns(vg.VerglasWarning, match="rlnRandomSubset of particle 0 is 0, not 1 or 2"):
        assert p.with_columns(rlnRandomSubset=[0, 1]).half_sets is None


def test_with_poses_round_trip_and_drops_pixel_origins():
    poses = vg.Poses([[10, 20, 30], [40, 50, 60]], [[1, 2], [3, 4]])
    p = vg.Particles.from_images(np.zeros((2, 4, 4)), 2.0).with_columns(rlnOriginX=[9, 9], rlnOriginY=[9, 9])
    q = p.with_poses(poses)
    assert np.array_equal(q.poses.angles_deg, poses.angles_deg)
    assert np.array_equal(q.poses.shifts_A, poses.shifts_A)
    assert "rlnOriginX" not in q.table
    assert "rlnOriginX" in p.table  # the old object is as it was
    assert p.poses is None


def test_with_optics_round_trip():
    optics = vg.Optics([1e4, 2e4, 3e4], [9e3, 2e4, 3e4], voltage_kV=[300, 200, 300], group=[4, 7, 4], pixel_size_A=1.1)
    got = vg.Particles.from_images(np.zeros((3, 4, 4)), 1.1, optics=optics).optics
    assert got.group.tolist() == [0, 1, 0]
    assert np.array_equal(got.as_params(), optics.as_params())
    with pytest.raises(vg.InputError, match="rlnVoltage differs between particles of one optics group"):
        vg.Particles.from_images(np.zeros((3, 4, 4)), 1.1, optics=vg.Optics(1e4, 1e4, voltage_kV=[300, 200, 300]))


def test_no_particles_at_all(two_stacks, tmp_path):
    """An empty selection is written and read like any other."""
    none = vg.read_particles(two_stacks)[[]]
    assert none.images().shape[0] == 0
    for name in ("none.star", "none.cs"):
        vg.write_particles(tmp_path / name, none)
        assert len(vg.read_particles(tmp_path / name)) == 0


def test_images_in_memory_have_the_pixel_size_that_was_given(tmp_path):
    other = vg.simulate.particles(vg.simulate.phantom(32, 4.0, 90.0), 3, 32, 4.0, seed=0).optics
    made = vg.Particles.from_images(np.zeros((3, 8, 8), np.float32), 2.5, optics=other)
    assert made.pixel_size_A == 2.5
    vg.write_particles(tmp_path / "p.star", made)
    assert vg.read_particles(tmp_path / "p.star").pixel_size_A == 2.5
