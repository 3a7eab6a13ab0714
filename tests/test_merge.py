"""Sets of particles joined, duplicates taken out, and the other hand of maps and poses."""

from __future__ import annotations

import json

import numpy as np
import pytest
from command_line import main

import verglas as vg
from verglas.optics import Aberrations, plain_images
from verglas.run.merge import merge_particles


@pytest.fixture
def two_sets(tmp_path):
    """Two STAR files in folders of their own whose stacks have one name, of one microscope but for a second voltage."""
    images = np.random.default_rng(0).normal(size=(7, 16, 16)).astype(np.float32)
    sets = []
    for name, rows, kv in (("a", slice(0, 4), 300.0), ("b", slice(4, 7), 200.0)):
        folder = tmp_path / name
        folder.mkdir()
        n = len(images[rows])
        optics = vg.Optics(np.full(n, 15000.0), np.full(n, 15000.0), voltage_kV=kv)
        particles = vg.Particles.from_images(images[rows], 2.0, optics=optics)
        particles = particles.with_columns(
            rlnMicrographName=["m"] * n,
            rlnCoordinateX=100.0 * np.arange(n) + (name == "b"),
            rlnCoordinateY=0.0,
        )
        vg.write_particles(folder / "p.star", particles)
        sets.append(folder / "p.star")
    return sets, images


def test_images_and_order_are_kept_and_files_of_one_name_stay_apart(two_sets, tmp_path):
    sets, images = two_sets
    merged = merge_particles(sets, distance_A=0.5)
    assert merged.read == (4, 3)
    assert merged.duplicates == 3  # 1 of 16 px apart, within a tenth of the box
    apart = [s.with_columns(rlnMicrographName=name) for s, name in zip(map(vg.read_particles, sets), "ab", strict=True)]
    merged = merge_particles(apart)
    assert merged.duplicates == 0
    assert merged.particles.optics.voltage_kV.tolist() == [300.0] * 4 + [200.0] * 3
    vg.write_particles(tmp_path / "all.star", merged.particles)
    assert np.array_equal(vg.read_particles(tmp_path / "all.star").images(), images)


def test_a_set_with_itself_is_the_set(two_sets):
    (first, _), _ = two_sets
    merged = merge_particles([first, first])
    assert (len(merged.particles), merged.duplicates) == (4, 4)
    assert len(merged.particles.optics_table) == 1


def test_a_chain_of_neighbours_loses_every_second(two_sets):
    (first, _), _ = two_sets
    merged = merge_particles([first], distance_A=250.0)  # neighbours are 200 A apart, next neighbours 400
    assert merged.particles.table["rlnCoordinateX"].tolist() == [0.0, 200.0]


def test_columns_that_one_set_lacks_are_named(two_sets, capsys, tmp_path):
    (first, second), _ = two_sets
    extra = vg.read_particles(first).with_columns(rlnFigureOfMerit=1.0)
    vg.write_particles(tmp_path / "a" / "extra.star", extra)
    out = tmp_path / "m.star"
    status, text, _ = main(
        ["merge", str(tmp_path / "a" / "extra.star"), str(second), "--out", str(out), "--json"], capsys
    )
    assert status == 0
    told = json.loads(text)
    assert told["columns_left_out"] == ["rlnFigureOfMerit"]
    assert told["particles"] == len(vg.read_particles(out)) == 4


def test_a_set_without_aberrations_joins_one_with_them(two_sets, tmp_path):
    """The groups of the first get no NaN, which every job would refuse."""
    (first, second), _ = two_sets
    plain, other = (vg.read_particles(path).with_columns(rlnMicrographName=str(path)) for path in (first, second))
    new = {"rlnBeamTiltX": [0.5], "rlnBeamTiltY": [0.0], "rlnOddZernike": ["[0,0,20]"], "rlnEvenZernike": ["[0,1]"]}
    new |= {"rlnMagMat00": [1.01], "rlnMagMat01": [0.0], "rlnMagMat10": [0.0], "rlnMagMat11": [1.0]}
    optics = other.optics_table.assign(**new, rlnCtfDataArePhaseFlipped=1)
    tilted = vg.Particles(other.table, other.source, optics_table=optics)
    vg.write_particles(tmp_path / "m.star", merge_particles([plain, tilted]).particles)
    merged = vg.read_particles(tmp_path / "m.star")
    known = Aberrations.of(merged)
    assert known.beam_tilt_mrad[known.kind, 0].tolist() == [0.0] * 4 + [0.5] * 3
    assert known.matrix[known.kind][:, 0, 0].tolist() == [1.0] * 4 + [1.01] * 3
    np.testing.assert_allclose(merged.optics.as_params()[:4], plain.optics.as_params())
    np.testing.assert_allclose(plain_images(merged).images(slice(0, 4)), plain.images(), atol=1e-5)


def test_refusals(two_sets, tmp_path):
    (first, _), _ = two_sets
    with pytest.raises(vg.InputError, match="one set of particles or more"):
        merge_particles([])
    with pytest.raises(vg.InputError, match="lie in no stack"):
        merge_particles([vg.Particles.from_images(np.ones((2, 8, 8)), 2.0)])
    small = tmp_path / "small.star"
    vg.write_particles(small, vg.Particles.from_images(np.ones((2, 8, 8)), 2.0))
    with pytest.raises(vg.InputError, match="images of 8 and 16 pixels"):
        merge_particles([first, small])


def test_flipped_map_at_flipped_poses_projects_to_the_same_images(tmp_path, capsys):
    truth = vg.simulate.density(vg.simulate.phantom(33, 4.0, 90.0), 33, 4.0)
    poses = vg.Poses(np.random.default_rng(1).uniform(0, 180, (5, 3)), np.random.default_rng(2).normal(0, 3, (5, 2)))
    vg.write_map(tmp_path / "map.mrc", truth)
    particles = vg.Particles.from_images(vg.project(truth, poses), 4.0, poses=poses)
    vg.write_particles(tmp_path / "p.star", particles)
    files = [str(tmp_path / "map.mrc"), str(tmp_path / "p.star")]
    status, _, _ = main(["flip-hand", *files, "--out", str(tmp_path / "other")], capsys)
    assert status == 0
    flipped, moved = vg.read_map(tmp_path / "other" / "map.mrc"), vg.read_particles(tmp_path / "other" / "p.star")
    again = vg.project(flipped, moved.poses)
    assert np.linalg.norm(again - moved.images()) < 1e-3 * np.linalg.norm(again)
    status, _, err = main(["flip-hand", *files, "--out", str(tmp_path)], capsys)
    assert status == 1
    assert "written over itself" in err
