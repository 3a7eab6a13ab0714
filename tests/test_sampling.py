"""How evenly views sample Fourier space, missing cones, and the tilt that is proposed."""

from __future__ import annotations

import json

import numpy as np
import pytest
from command_line import main
from run_folder import write_particles_star

import verglas as vg
from verglas.assessment import fourier_sampling, propose_tilt, propose_views


def cone_views(half_angle_deg: float, n: int = 4000, seed: int = 0) -> np.ndarray:
    """Views evenly within a cone about z."""
    rng = np.random.default_rng(seed)
    z = rng.uniform(np.cos(np.deg2rad(half_angle_deg)), 1, n)
    return np.column_stack([rng.uniform(0, 360, n), np.rad2deg(np.arccos(z)), rng.uniform(0, 360, n)])


def test_even_views_have_a_factor_of_one():
    found = fourier_sampling(vg.geometry.random_orientations(20000, seed=1))
    assert found.compensation_factor == pytest.approx(1.0, abs=0.02)
    assert found.empty == 0


def test_side_views_have_the_published_factor():
    rng = np.random.default_rng(0)
    side = np.column_stack([rng.uniform(0, 360, 20000), np.full(20000, 90.0), np.zeros(20000)])
    # Baldwin and Lyumkis: 0.81 for views evenly about one axis.
    assert fourier_sampling(side).compensation_factor == pytest.approx(0.81, abs=0.03)


@pytest.mark.parametrize("half_angle", [30.0, 60.0])
def test_missing_cone_lies_where_it_was_planted(half_angle):
    found = fourier_sampling(cone_views(half_angle))
    assert abs(found.worst_direction[2]) > np.cos(np.deg2rad(8))
    # Directions that no slice reaches, but for the width of one.
    expected = 1 - np.cos(np.deg2rad(90 - half_angle))
    assert expected - 0.25 < found.empty <= expected


def test_symmetry_fills_the_cone():
    alone = fourier_sampling(cone_views(20.0)).compensation_factor
    assert fourier_sampling(cone_views(20.0), "O").compensation_factor > alone + 0.2


def test_a_tilt_is_proposed_for_one_view_only():
    proposal = propose_tilt(cone_views(30.0))
    assert proposal.proposed_deg is not None
    assert 40 <= proposal.proposed_deg <= 60
    assert proposal.compensation_factor[0] < 0.25
    assert (np.diff(proposal.compensation_factor[4:]) > -0.05).all()
    assert propose_tilt(cone_views(10.0)).proposed_deg is None  # a cone of 20 degrees would stay empty
    assert propose_tilt(vg.geometry.random_orientations(4000, seed=2)).proposed_deg == 0.0


def test_a_tilted_stage_gives_the_sampling_that_was_foreseen():
    """Particles that prefer to lie flat, seen by a beam that is tilted towards any side of them: turned one by one."""
    flat = cone_views(25.0, 3000, seed=3)
    matrices = vg.geometry.euler_to_matrix(flat)
    for tilt_deg in (20.0, 40.0):
        # The stage turns the specimen about y: the particle is turned after it was laid down in any way on the grid.
        stage = vg.geometry.euler_to_matrix(np.array([[0.0, tilt_deg, 0.0]]))[0]
        tilted = vg.geometry.matrix_to_euler(stage @ matrices)
        proposal = propose_tilt(flat)
        foreseen = proposal.compensation_factor[proposal.tilts_deg.tolist().index(tilt_deg)]
        assert fourier_sampling(tilted).compensation_factor == pytest.approx(foreseen, abs=0.03)


def uneven_views(n: int = 2000, seed: int = 0) -> np.ndarray:
    """Four fifths within 20 degrees of z, the others anywhere."""
    angles = vg.geometry.random_orientations(n, seed=seed)
    angles[: 4 * n // 5, 1] = np.random.default_rng(seed).uniform(0, 20, 4 * n // 5)
    return angles


@pytest.mark.parametrize("symmetry", ["C1", "D2"])
def test_common_views_are_left_out_and_rare_ones_kept(symmetry):
    angles = uneven_views()
    found = propose_views(angles, symmetry)
    assert found.keep[1600:].mean() > 0.9
    assert found.keep[:1600].mean() < 0.7
    assert 0.95 <= found.share_of_signal < 0.97
    whole, kept = (fourier_sampling(a, symmetry).compensation_factor for a in (angles, angles[found.keep]))
    assert kept == pytest.approx(found.compensation_factor_kept)
    assert kept > 1.3 * whole
    np.testing.assert_array_equal(found.keep, propose_views(angles, symmetry).keep)
    fewer = propose_views(angles, symmetry, most_loss=0.2)
    assert fewer.keep.sum() < found.keep.sum()
    assert fewer.share_of_signal >= 0.8


def test_views_to_collect_even_the_sampling_out():
    angles = uneven_views()
    found = propose_views(angles)
    x, y, z = np.repeat(found.collect, found.collect_particles, axis=0).T
    added = np.column_stack([np.rad2deg(np.arctan2(y, x)), np.rad2deg(np.arccos(z)), np.zeros(len(x))])
    whole = fourier_sampling(np.concatenate([angles, added])).compensation_factor
    assert whole == pytest.approx(found.compensation_factor_collected, abs=0.02)
    assert whole > 0.79
    assert np.average(np.abs(found.collect[:, 2]), weights=found.collect_particles) < 0.5  # side views


def test_of_even_views_all_are_kept_and_none_collected():
    found = propose_views(vg.geometry.random_orientations(3000, seed=4))
    assert found.keep.all()
    assert len(found.collect) == len(found.collect_particles) == 0
    with pytest.raises(vg.InputError, match="between 0 and 1"):
        propose_views([[0.0, 0.0, 0.0]], most_loss=1.0)


def test_command_writes_the_particles_to_keep(tmp_path, capsys):
    angles = uneven_views(500, seed=1)
    images = np.random.default_rng(0).normal(size=(500, 8, 8)).astype(np.float32)
    particles = vg.Particles.from_images(images, 4.0).with_poses(vg.Poses(angles, np.zeros((500, 2))))
    vg.write_particles(tmp_path / "particles.star", particles, stack=tmp_path / "particles.mrcs")
    out = tmp_path / "out"
    status, said, _ = main(["orientations", str(tmp_path / "particles.star"), "--out", str(out)], capsys)
    assert status == 0
    assert "of the commonest views hold" in said
    kept, record = vg.read_particles(out / "kept.star"), json.loads((out / "orientations.json").read_text())
    expected = propose_views(angles).keep
    assert len(kept) == record["keep"] == expected.sum()
    np.testing.assert_array_equal(kept.images(), images[expected])
    assert (out / "collect.csv").read_text().startswith("rot_deg,tilt_deg")
    assert "Views to keep and to collect" in (out / "report.html").read_text()


@pytest.mark.parametrize("angles", [np.zeros((0, 3)), np.zeros((5, 2)), [[0.0, np.nan, 0.0]]])
@pytest.mark.parametrize("judge", [fourier_sampling, propose_tilt, propose_views])
def test_what_are_no_views_is_refused(judge, angles):
    with pytest.raises(vg.InputError, match=r"no views|expected finite angles"):
        judge(angles)


def test_command_writes_numbers_and_a_page(tmp_path, capsys):
    write_particles_star(tmp_path, 300, 1)
    out = tmp_path / "out"
    status, printed, _ = main(["orientations", str(tmp_path / "particles.star"), "--out", str(out), "--json"], capsys)
    record = json.loads(printed)
    assert status == 0
    assert 0.3 < record["sampling_compensation_factor"] <= 1
    assert record["finding"]["code"] in ("sampling", "uneven-sampling")
    assert (out / "report.html").is_file()
