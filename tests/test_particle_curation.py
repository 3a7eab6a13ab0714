"""Particles ranked by how unlike the others they are, and those whose poses two runs agree on."""

from __future__ import annotations

import json

import numpy as np
import pytest
from command_line import main

import verglas as vg
from verglas.errors import InputError
from verglas.geometry import random_orientations
from verglas.map_geometry.hand import mirrored_angles
from verglas.run.consensus import pose_consensus
from verglas.run.outliers import rank_particles


@pytest.fixture(scope="module")
def spoilt():
    """400 particles, 20 of them contaminated: ice crystals, edges of carbon, aggregates."""
    model = vg.simulate.phantom(32, 4.0, 80.0, seed=3)
    images = vg.simulate.particles(model, 400, 32, 4.0, snr=0.2, ctf=False, seed=3, listener=None).images()
    rng, bad = np.random.default_rng(1), np.arange(7, 400, 20)
    sigma, (y, x) = images.std(), np.indices((32, 32)) - 16
    for number, i in enumerate(bad):
        angle = rng.uniform(0, 2 * np.pi)
        along = x * np.cos(angle) + y * np.sin(angle)
        kinds = (6 * (np.hypot(x - 6, y + 4) < 4), 2.5 * (along > 3), 3 * (np.abs(along) < 6))
        images[i] += (sigma * kinds[number % 3]).astype(np.float32)
    return vg.Particles.from_images(images, 4.0), bad


def test_planted_contaminants_rank_among_the_worst(spoilt):
    particles, bad = spoilt
    ranked = rank_particles(particles, diameter_A=90.0)
    worst = np.argsort(-ranked.z)[: round(0.07 * len(particles))]
    assert np.isin(bad, worst).mean() >= 0.8
    assert 0.8 < np.median(ranked.z) < 1.3


def test_scores_do_not_depend_on_batches(spoilt, monkeypatch):
    particles, _ = spoilt
    whole = rank_particles(particles[:60])
    monkeypatch.setattr("verglas.run.outliers._BATCH_PIXELS", 7 * 32 * 32)
    np.testing.assert_allclose(rank_particles(particles[:60]).z, whole.z, rtol=1e-12)


def test_an_image_that_is_no_number_scores_most_and_changes_no_other(spoilt):
    images = spoilt[0].images(np.arange(40))
    without = rank_particles(vg.Particles.from_images(np.delete(images, [5, 9], axis=0), 4.0))
    images[5, 3, 4], images[9] = np.nan, np.inf
    ranked = rank_particles(vg.Particles.from_images(images, 4.0), limit=40.0)
    assert ranked.unreadable == 2
    assert ranked.z[[5, 9]].tolist() == [50.0, 50.0]
    np.testing.assert_allclose(np.delete(ranked.z, [5, 9]), without.z, rtol=1e-12)
    assert len(ranked.kept) == 38
    with pytest.raises(InputError, match="39 of 40 images hold values that are not finite"):
        rank_particles(vg.Particles.from_images(np.where(np.arange(40)[:, None, None] > 0, np.nan, images), 4.0))


def test_the_command_writes_the_column_and_leaves_out(spoilt, tmp_path, capsys):
    particles, _ = spoilt
    vg.write_particles(tmp_path / "p.star", particles)
    file, out = str(tmp_path / "p.star"), str(tmp_path / "out.star")
    status, text, _ = main(["outliers", file, "--diameter", "90", "--limit", "1.8", "--out", out, "--json"], capsys)
    told, kept = json.loads(text), vg.read_particles(out)
    assert status == 0
    assert told["particles_read"] == 400
    assert told["particles_kept"] == len(kept) < 396
    assert kept.table["verglasOutlierZ"].max() <= 1.8
    for wrong, words in ((["--limit", "0.01"], "no particle has a score"), (["--diameter", "900"], "leaves no rim")):
        assert words in main(["outliers", file, *wrong, "--out", out], capsys)[2]


def test_a_frame_is_not_taken_from_few_particles_nor_a_hand_from_rounding(two_runs):
    first, _, _ = two_runs
    with pytest.raises(vg.InputError, match="4 particles are in both sets"):
        pose_consensus(first[:4], first[:4])
    flat = first.with_poses(vg.Poses(np.column_stack([np.zeros((50, 2)), np.arange(50.0)]), np.zeros((50, 2))))
    assert not pose_consensus(flat, flat).other_hand  # both hands fit


@pytest.fixture
def two_runs():
    """The same particles in two frames of D2, a fifth of them oriented at random in the second."""
    group = vg.symmetry_matrices("D2")
    rng = np.random.default_rng(4)
    matrices = vg.euler_to_matrix(random_orientations(50, seed=1))
    wrong = np.arange(0, 50, 5)
    other = matrices @ group[rng.integers(0, 4, 50)]
    other[wrong] = vg.euler_to_matrix(random_orientations(10, seed=8))
    images = np.zeros((50, 16, 16), np.float32)
    sets = [
        vg.Particles.from_images(images, 2.0, poses=vg.Poses(vg.matrix_to_euler(m), np.zeros((50, 2))))
        for m in (matrices, other)
    ]
    return *sets, wrong


def test_angles_are_modulo_symmetry_and_the_rest_is_kept(two_runs):
    first, second, wrong = two_runs
    compared = pose_consensus(first, second, "D2", within_deg=5.0)
    right = np.setdiff1d(np.arange(50), wrong)
    assert compared.angle_deg[right].max() < 1e-3
    assert compared.agree[right].all()
    assert compared.agree[wrong].sum() <= 1  # by chance
    assert (pose_consensus(first, second, "C1").agree[right]).mean() < 0.9  # without the symmetry most differ


def test_frame_and_hand_of_the_second_map_do_not_matter(two_runs):
    first, _, wrong = two_runs
    turn = vg.euler_to_matrix([[30.0, 60.0, 10.0]])[0]
    angles = vg.matrix_to_euler(vg.euler_to_matrix(mirrored_angles(first.poses.angles_deg)) @ turn)
    angles[wrong] = random_orientations(10, seed=8)
    compared = pose_consensus(first, first.with_poses(vg.Poses(angles, np.zeros((50, 2)))), within_deg=5.0)
    assert compared.other_hand
    assert compared.agree.sum() >= 40
    assert not compared.agree[wrong].all()


@pytest.mark.parametrize("hand", [False, True])
@pytest.mark.parametrize(
    ("group", "turn", "share"),
    [("C4", (0, 180, 0), 0.9), ("D2", (90, 0, 0), 0.9), ("D3", (60, 0, 0), 0.4), ("C1", (100, 130, 20), 0.2)],
)
def test_frames_that_no_operation_of_the_group_joins_and_runs_that_mostly_differ(group, turn, share, hand):
    """A map upside down, or a quarter turn off, has its axes in the same places: nothing agreed, in silence."""
    count, rng = 200, np.random.default_rng(3)
    here = random_orientations(count, seed=3)
    elements = vg.symmetry_matrices(group)
    there = vg.matrix_to_euler(vg.euler_to_matrix(here) @ elements[rng.integers(0, len(elements), count)])
    wrong = rng.random(count) > share
    there[wrong] = random_orientations(int(wrong.sum()), seed=8)
    there = vg.euler_to_matrix(mirrored_angles(there) if hand else there) @ vg.euler_to_matrix([turn])[0]
    images = np.zeros((count, 8, 8), np.float32)
    sets = [vg.Particles.from_images(images, 2.0, poses=vg.Poses(a)) for a in (here, vg.matrix_to_euler(there))]
    compared = pose_consensus(*sets, group, within_deg=5.0)
    assert compared.other_hand == hand
    assert compared.agree[~wrong].all()
    assert compared.agree[wrong].mean() < 0.05


def test_sets_are_joined_by_their_images(two_runs, tmp_path, capsys):
    first, second, _ = two_runs
    vg.write_particles(tmp_path / "a.star", first)
    whole = vg.read_particles(tmp_path / "a.star")
    order = np.random.default_rng(0).permutation(50)[:45]
    vg.write_particles(tmp_path / "b.star", whole.with_poses(second.poses)[order])
    files = [str(tmp_path / "a.star"), str(tmp_path / "b.star")]
    out = str(tmp_path / "c.star")
    arguments = ["consensus", *files, "--symmetry", "D2", "--within", "5", "--out", out]
    status, text, _ = main([*arguments, "--json"], capsys)
    told, kept = json.loads(text), vg.read_particles(out)
    assert status == 0
    assert (told["particles_in_both"], told["particles_in_one"]) == (45, 5)
    assert told["agree"] == len(kept)
    assert kept.table["verglasAngleChange"].max() <= 5.0
    assert "left out: 5" in main(arguments, capsys)[1]
    assert main(["consensus", *files, "--within", "-1", "--out", out], capsys)[0] == 2
