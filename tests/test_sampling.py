"""How evenly views sample Fourier space, missing cones, and the tilt that is proposed."""

from __future__ import annotations

import json

import numpy as np
import pytest
from command_line import main
from run_folder import write_particles_star

import verglas as vg
from verglas.assessment import fourier_sampling, propose_tilt


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


@pytest.mark.parametrize("angles", [np.zeros((0, 3)), np.zeros((5, 2)), [[0.0, np.nan, 0.0]]])
@pytest.mark.parametrize("judge", [fourier_sampling, propose_tilt])
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
