"""Inputs that are read well and mean something else than what a job takes them for: refused, or told."""

from __future__ import annotations

import os
import tracemalloc
import warnings

import numpy as np
import pytest
from command_line import main

import verglas as vg
from verglas.assessment.independence import check_pair, proportional
from verglas.errors import FormatError
from verglas.io import read_json
from verglas.io.micrographs import find_micrographs
from verglas.refinement.settings import RefineSettings
from verglas.run.refine_inputs import fit_to_particles
from verglas.run.refine_setup import _beyond_diameter, _off_centre
from verglas.run.report import _WRITERS, rewrite_page
from verglas.run.tenure import tenure

BOX, PIXEL_A = 24, 5.0


@pytest.fixture(scope="module")
def made():
    model = vg.simulate.phantom(BOX, PIXEL_A, 85.0)
    return vg.simulate.particles(model, 30, BOX, PIXEL_A, snr=2.0, seed=1), vg.simulate.density(model, BOX, PIXEL_A)


def test_a_map_of_inverted_contrast_is_refused_by_align_as_by_refine(made):
    particles, truth = made
    with pytest.raises(vg.InputError, match=r"resemble the inverted map .* multiply the images or the map by -1"):
        vg.align(particles, truth.with_data(-truth.data), diameter_A=95, listener=None)
    with pytest.raises(vg.InputError, match="is 2 everywhere"):
        vg.align(particles, truth.with_data(0 * truth.data + 2), diameter_A=95, listener=None)


def test_a_reference_whose_box_cannot_hold_the_particle_is_refused(made):
    """Headers without a pixel size are often written as 1 A: the map would shrink to a dot in the box."""
    particles, truth = made
    with pytest.raises(vg.InputError, match=r"24 px of 1 A are a box of 24 A, too small for a particle of 95 A"):
        vg.refine(particles, vg.Map(truth.data, 1.0), diameter_A=95, listener=None)
    with pytest.raises(vg.InputError, match="is 3 everywhere"):
        fit_to_particles(truth.with_data(0 * truth.data + 3), particles, "the map")
    assert fit_to_particles(vg.Map(truth.data, 4.0), particles, "the map", 95.0)[0].box == BOX


def test_a_reference_that_lies_farther_off_than_shifts_are_searched_is_told_of(made, tmp_path):
    particles, truth = made
    away = truth.with_data(np.roll(truth.data, 4, axis=1))  # 20 A along y
    bare = particles.with_columns(rlnOriginXAngst=0.0, rlnOriginYAngst=0.0)
    how = {"diameter_A": 95.0, "initial_resolution_A": 30.0, "iterations": 1, "listener": None}
    vg.refine(bare, away, out=tmp_path / "run", **how)
    notes = {note["code"]: note for note in read_json(tmp_path / "run" / "run.json")["notes"]}
    assert notes["reference_off_centre"]["state"] == "warn"
    assert notes["reference_off_centre"]["numbers"]["away_A"] == pytest.approx(20, abs=3)
    del how["listener"]
    for settings, map_, given in (
        (RefineSettings(**how | {"shift_range_A": 25.0}), away, bare),
        (RefineSettings(**how), truth, bare),
        (RefineSettings(**how, poses="local"), away, bare),
        (RefineSettings(**how), away, bare.with_columns(rlnOriginXAngst=12.0, rlnOriginYAngst=-10.0)),
    ):
        assert _off_centre(map_, given, settings, "the reference") == []


def test_poses_in_another_unit_are_told_of(made):
    particles, truth = made
    poses = particles.poses
    with pytest.warns(vg.VerglasWarning, match="all 30 particles lie within 2 pi; are they in radians"):
        vg.reconstruct(particles.with_poses(vg.Poses(np.deg2rad(poses.angles_deg), poses.shifts_A)), listener=None)
    far = poses.shifts_A.copy()
    far[7] = 500.0
    with pytest.warns(vg.VerglasWarning, match=r"1 of 30 particles lie beyond the edge .*the first, 7, by"):
        vg.subtract(particles.with_poses(vg.Poses(poses.angles_deg, far)), truth, truth.with_data(0 * truth.data))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        vg.reconstruct(particles, listener=None)
        vg.reconstruct(particles.with_poses(vg.Poses(0 * poses.angles_deg, poses.shifts_A)), listener=None)  # one view


@pytest.mark.parametrize("bad", [0.0, 1.0])
def test_subtract_needs_a_density(made, bad):
    particles, truth = made
    with pytest.raises(vg.InputError, match="subtract: the map is constant"):
        vg.subtract(particles, truth.with_data(0 * truth.data + bad), truth.with_data(0 * truth.data))


@pytest.fixture(scope="module")
def halves(tmp_path_factory, made):
    folder = tmp_path_factory.mktemp("halves")
    rng = np.random.default_rng(0)
    data = [made[1].data + 0.05 * rng.normal(size=(BOX,) * 3) for _ in range(2)]
    for name, values, pixel in (
        ("h1", data[0], PIXEL_A),
        ("h2", data[1], PIXEL_A),
        ("constant", 0 * data[0] + 1, PIXEL_A),
        ("inverted", -data[1], PIXEL_A),
        ("mask", vg.masks.soft_sphere(BOX, 8.0, 3.0), PIXEL_A),
        ("mask_other", vg.masks.soft_sphere(BOX, 8.0, 3.0), 1.03 * PIXEL_A),
        ("mask_unknown", vg.masks.soft_sphere(BOX, 8.0, 3.0), 1.0),
    ):
        vg.write_map(folder / f"{name}.mrc", vg.Map(values.astype(np.float32), pixel))
    return folder


@pytest.mark.parametrize("command", ["fsc", "postprocess", "directional", "local-resolution"])
def test_half_maps_that_are_none_are_named(halves, tmp_path, capsys, command):
    out = [] if command == "fsc" else ["--out", str(tmp_path / "o")]
    for name, words in (("constant", "constant"), ("inverted", "the contrast of one is inverted")):
        status, _, said = main([command, str(halves / "h1.mrc"), str(halves / f"{name}.mrc"), *out], capsys)
        assert status == (0 if command == "fsc" and name == "inverted" else 1)  # fsc also compares other maps
        assert words in said
        assert f"{name}.mrc" in said


def test_maps_are_compared_without_copies_of_the_whole():
    """Four copies in double precision of a map of 512 voxels are 4 GB."""
    x, y = np.random.default_rng(0).normal(size=(2, 96, 96, 96)).astype(np.float32)
    tracemalloc.start()
    try:
        check_pair(x, y, "x", "y")
        assert proportional(x, x)
        assert not proportional(x, y)
        assert tracemalloc.get_traced_memory()[1] < 4 * x.nbytes
    finally:
        tracemalloc.stop()
    assert proportional(x, np.float32(3) * x + 1000)
    assert not proportional(x, 0 * x)


def test_a_mask_of_another_pixel_size_is_refused_unless_it_is_said(halves, capsys):
    files = ["fsc", str(halves / "h1.mrc"), str(halves / "h2.mrc"), "--mask"]
    status, _, said = main([*files, str(halves / "mask_other.mrc")], capsys)
    assert status == 1
    assert "mask_other.mrc has 5.15 A in its header, 3.0 % apart" in said
    for more in ([str(halves / "mask_other.mrc"), "--any-pixel-size"], [str(halves / "mask_unknown.mrc")]):
        assert main([*files, *more], capsys)[0] == 0
    # A calibrated pixel size goes before the headers of the maps, which the mask has, too.
    assert main([*files, str(halves / "mask.mrc"), "--pixel-size", "4.8"], capsys)[0] == 0
    status, _, said = main([*files, str(halves / "mask_other.mrc"), "--pixel-size", "4.8"], capsys)
    assert status == 1
    assert "7.3 % apart" in said


def test_a_micrograph_and_a_link_to_it_are_one(tmp_path):
    vg.io.write_stack(tmp_path / "a.mrc", np.zeros((1, 8, 8), np.float32), 1.0)
    os.symlink("a.mrc", tmp_path / "b.mrc")
    with pytest.raises(vg.InputError, match=r"a\.mrc and .*b\.mrc are one and the same file"):
        find_micrographs([tmp_path])


def test_a_micrograph_with_a_damaged_pixel_has_no_ctf():
    image = np.random.default_rng(0).normal(size=(256, 256)).astype(np.float32)
    image[3, 4] = 1e30
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(vg.InputError, match=r"m\.mrc: a pixel of 1e\+30"):
            vg.estimate_ctf(vg.Micrograph(image, 2.0, "m.mrc"))


@pytest.mark.parametrize(
    "command",
    [
        ["orientations", "p.star", "--out"],
        ["simulate", "--box", "32", "--pixel-size", "5", "--n", "2", "--out"],
        ["flip-hand", "p.star", "--out"],
        ["postprocess", "a.mrc", "b.mrc", "--out"],
        ["local-resolution", "a.mrc", "b.mrc", "--out"],
        ["directional", "a.mrc", "b.mrc", "--out"],
    ],
)
def test_a_file_where_results_are_to_lie_is_named_before_the_work(tmp_path, capsys, command):
    """``File exists`` came after the work, and said nothing of what was wrong."""
    (tmp_path / "file").write_text("kept")
    for where, words in (("file", "it is a file"), ("file/run", f"{tmp_path / 'file'} is a file")):
        status, _, said = main([*command, str(tmp_path / where)], capsys)
        assert status == 1
        assert f"cannot write {tmp_path / where}: {words}, expected the name of a folder" in said
    os.symlink(tmp_path / "nowhere", tmp_path / "link")
    assert "a link that leads nowhere" in main([*command, str(tmp_path / "link")], capsys)[2]
    assert (tmp_path / "file").read_text() == "kept"


def test_a_folder_where_a_file_is_to_lie_is_named(tmp_path):
    (tmp_path / "dir.star").mkdir()
    with pytest.raises(vg.InputError, match=r"cannot write .*dir\.star: it is a folder, expected the name of a file"):
        vg.io.write_text(tmp_path / "dir.star", "text")


def test_a_job_does_not_write_over_the_results_of_another_command(tmp_path):
    with tenure(tmp_path, "class2d") as hold:
        hold.write(state="running")
    (tmp_path / "particles.star").write_text("classes")
    words = "holds the results of verglas class2d, which abinitio would write over"
    with pytest.raises(vg.InputError, match=words), tenure(tmp_path, "abinitio"):
        pass
    with tenure(tmp_path, "class2d") as hold:  # the same command again begins again, or goes on
        hold.write(state="running")
    assert read_json(tmp_path / "run.json")["command"] == "class2d"
    (tmp_path / "run.json").write_text("{")
    with tenure(tmp_path, "abinitio"):
        pass


def test_a_micrograph_whose_picks_all_lie_beyond_its_edge_ends_no_extraction(tmp_path):
    """It ended that of all others in a foreign exception; and coordinates may be fractions of the image."""
    rng = np.random.default_rng(0)
    for name in ("a", "b"):
        vg.io.write_stack(tmp_path / f"{name}.mrc", rng.normal(size=(1, 64, 64)).astype(np.float32), 5.0)
    files = [tmp_path / "a.mrc", tmp_path / "b.mrc"]
    picks = {"a.mrc": np.array([[-100.0, -100.0], [900.0, 3.0]]), "b.mrc": np.array([[32.0, 32.0]])}
    vg.io.write_picks(tmp_path / "p.star", {n: vg.Picks(xy, n) for n, xy in picks.items()}, one_file=True)
    with pytest.warns(vg.VerglasWarning, match="2 of 3 particles were set aside"):
        assert len(vg.extract(files, tmp_path / "p.star", 24, diameter_A=60, listener=None)) == 1
    picks = {n: rng.uniform(0, 1, (3, 2)) for n in picks}
    vg.io.write_picks(tmp_path / "f.star", {n: vg.Picks(xy, n) for n, xy in picks.items()}, one_file=True)
    with pytest.raises(vg.InputError, match=r"no particle could be cut .* fractions of the image"):
        vg.extract(files, tmp_path / "f.star", 24, diameter_A=60, listener=None)


def test_a_record_that_was_edited_is_told_of_by_report(tmp_path, monkeypatch):
    (tmp_path / "run.json").write_text('{"command": "refine", "pixel_size_A": "many"}')
    monkeypatch.setitem(_WRITERS, "refine", lambda folder: float(read_json(folder / "run.json")["pixel_size_A"]))
    with pytest.raises(FormatError, match="its files do not hold what the page is made of"):
        rewrite_page(tmp_path)


def test_a_set_without_particles_is_called_so(tmp_path):
    """Each job found another reason: several boxes, too few clusters, no names."""
    made = vg.simulate.particles(vg.simulate.phantom(32, 4.0, 80.0), 3, 32, 4.0, listener=None)
    volume = vg.simulate.density(vg.simulate.phantom(32, 4.0, 80.0), 32, 4.0)
    vg.write_particles(tmp_path / "p.star", made)
    none = vg.read_particles(tmp_path / "p.star")[[]]
    jobs = (
        lambda: vg.reconstruct(none, listener=None),
        lambda: vg.refine(none, volume, diameter_A=90, listener=None),
        lambda: vg.classify2d(none, diameter_A=90, listener=None),
        lambda: vg.variability(none, diameter_A=90, listener=None),
        lambda: vg.subtract(none, volume, volume),
        lambda: vg.refine_ctf(none, listener=None),
        lambda: none.box,
    )
    for job in jobs:
        with pytest.raises(vg.InputError, match="there are no particles in it"):
            job()


@pytest.mark.parametrize(("diameter_A", "said"), [(110.0, False), (55.0, True), (33.0, True)])
def test_a_radius_or_pixels_given_as_the_diameter_are_told(diameter_A, said):
    """Of a reference that reaches beyond it; a particle is masked there, and its map was worse without a word."""
    for group, seed in (("C1", 1), ("D2", 3), ("O", 4)):
        density = vg.simulate.density(vg.simulate.phantom(48, 3.0, 105.0, group, seed), 48, 3.0)
        notes = _beyond_diameter(density, RefineSettings(diameter_A=diameter_A), "the reference")
        assert bool(notes) == said
        if said:
            assert 85 < notes[0].numbers["reach_A"] < 120
            assert "is the diameter a radius, or in pixels?" in notes[0].sentence
    assert _beyond_diameter(density, RefineSettings(), "the reference") == []
