"""Filaments: traced on simulated centre-lines, with crossings, carbon and contaminants; helical columns."""

from __future__ import annotations

import numpy as np
import pytest
from filament_merit import filament_merit

import verglas as vg
from verglas import simulate
from verglas.errors import InputError
from verglas.geometry import euler_to_matrix
from verglas.picking import FilamentSettings, trace_detailed
from verglas.picking.filaments import HELICAL, Filament, segments_of
from verglas.simulate.filaments import distance_to_lines

SCENE = {"shape": (600, 640), "pixel_size_A": 4.0, "defocus_u_A": 18000.0}


def _traced(seed, n, **settings):
    micrograph, truth = simulate.filaments(n=n, seed=seed, **SCENE, **settings)
    return vg.picking.trace_filaments(micrograph, truth.width_A, threads=1), truth


def test_planted_centre_lines_are_found():
    """An unseen seed at SNR 0.05: mean distance below 5 pixels, direction within 5 degrees, crossings followed."""
    picks, truth = _traced(501, 3, snr=0.05)
    merit = filament_merit(picks, truth)
    assert merit["precision"] > 0.95
    assert merit["recall"] > 0.9
    assert merit["distance_px"] < 5
    assert merit["angle_rms_deg"] < 5


@pytest.mark.parametrize(
    "settings", [{}, *(pytest.param(s, marks=pytest.mark.slow) for s in ({"carbon": 0.3}, {"contaminants": 5}))]
)
def test_nothing_is_traced_where_nothing_is(settings):
    picks, _ = _traced(511, 0, **settings)
    assert len(picks) == 0
    assert set(HELICAL) == set(picks.columns)


@pytest.mark.slow
def test_no_segment_lies_on_carbon_or_along_its_edge():
    picks, truth = _traced(521, 3, snr=0.1, carbon=0.35)
    assert len(picks) > 20
    edge = 0.35 * 640
    assert (picks.xy_px[:, 0] > edge - 12).all()
    angle = np.abs((picks.columns["rlnAnglePsiPrior"] + 90) % 180)
    along_edge = (picks.xy_px[:, 0] < edge + 25) & (np.minimum(angle, 180 - angle) < 10)
    distance, direction = distance_to_lines(picks.xy_px[along_edge], truth.lines)
    assert ((distance < 12) & (np.abs(direction - 90) < 25)).all()


def test_segments_have_equal_distances_and_the_angles_of_a_helix_that_lies_there():
    """RELION's prior turns a helix, which lies along z, into the direction of the track (geometry of projections)."""
    slope = np.deg2rad(25)
    along = np.linspace(0, 200, 81)[:, None]
    line = np.array([20.0, 30.0]) + along * np.array([np.cos(slope), np.sin(slope)])
    picks = segments_of(
        [Filament(line, 4.0), Filament(line[::-1] + np.array([0, 60]), 2.0)], 25.0, 1.5, 10.0, (400, 400), "m"
    )
    columns = picks.columns
    assert columns["rlnHelicalTubeID"].tolist() == [1] * 9 + [2] * 9
    np.testing.assert_allclose(columns["rlnHelicalTrackLengthAngst"][:9], 37.5 * np.arange(9), atol=1e-6)
    np.testing.assert_allclose(np.hypot(*np.diff(picks.xy_px[:9], axis=0).T), 25, rtol=1e-6)
    np.testing.assert_allclose(columns["rlnAnglePsiPrior"][:9], -25, atol=1e-6)
    assert set(columns["rlnAngleTiltPrior"]) == {90.0}
    assert set(columns["rlnAnglePsiFlipRatio"]) == {0.5}
    assert columns["rlnAutopickFigureOfMerit"].tolist() == [4.0] * 9 + [2.0] * 9
    for psi, expected in zip(columns["rlnAnglePsiPrior"][[0, 9]], (slope, slope), strict=True):
        axis = euler_to_matrix(np.array([[0.0, 90.0, psi]]))[0][:, 2]  # where the map's z lies in the image
        assert axis[2] == pytest.approx(0, abs=1e-9)
        assert abs(axis[0] * np.sin(expected) - axis[1] * np.cos(expected)) < 1e-6  # modulo 180 degrees


@pytest.mark.slow
def test_the_border_and_the_shortest_filament(tmp_path):
    micrograph, truth = simulate.filaments(n=1, snr=0.2, seed=531, length_A=1400.0, **SCENE)
    picks = vg.picking.trace_filaments(micrograph, 100.0, threads=1)
    assert 0.7 < picks.columns["rlnHelicalTrackLengthAngst"].max() / 1400 < 1.25
    assert len(vg.picking.trace_filaments(micrograph, 100.0, shortest_A=2200.0, threads=1)) == 0
    discs = [[x, y, 60] for x, y in truth.lines[0][::40]]
    assert len(trace_detailed(micrograph, 100.0, FilamentSettings(), left_out=discs, threads=1).picks) == 0
    with pytest.raises(vg.errors.SettingError, match="spacing_A"):
        vg.picking.trace_filaments(micrograph, 100.0, spacing_A=-5.0)
    with pytest.raises(InputError, match="positive width_A"):
        simulate.filaments(width_A=-3.0)


@pytest.mark.slow
def test_threads_and_grey_scale_do_not_change_tracks():
    micrograph, _ = simulate.filaments(n=2, snr=0.1, seed=541, **SCENE)
    first = vg.picking.trace_filaments(micrograph, 100.0, threads=1)
    other = vg.Micrograph(50 - 3 * micrograph.data, 4.0)
    again = vg.picking.trace_filaments(other, 100.0, white=True, threads=2)
    assert len(first) == len(again) > 0
    np.testing.assert_allclose(first.xy_px, again.xy_px, atol=0.05)


def test_command_line(tmp_path, run):
    """Helical columns reach the coordinates that RELION reads, and the options are checked."""
    micrograph, _ = simulate.filaments(n=2, snr=0.1, seed=541, **{**SCENE, "shape": (600, 600)})
    vg.io.write_stack(tmp_path / "m.mrc", micrograph.data[None], 4.0)
    command = ["pick", tmp_path / "m.mrc", "-d", "100", "-o", tmp_path / "o", "--no-pictures", "--filaments"]
    status, output, errors = run(*command, "--spacing", "80")
    assert status == 0, errors
    assert " segments in 1 micrographs" in output
    (found,) = vg.io.read_picks(tmp_path / "o" / "picks.star").values()
    assert set(HELICAL) <= set(found.columns)
    steps = np.hypot(*np.diff(found.xy_px[found.columns["rlnHelicalTubeID"] == 1], axis=0).T)
    np.testing.assert_allclose(steps, 20, rtol=0.02)
    assert run(*command, "--method", "log")[0] == 2
    assert run(*command[:-1], "--spacing", "80")[0] == 2
