"""Particles of Frealign and cisTEM: angles are RELION's, shifts the opposite, in angstrom."""

from __future__ import annotations

import numpy as np
import pytest

import verglas as vg
from verglas.io import write_stack
from verglas.optics import ignored_aberrations

HEAD = "C           PSI   THETA     PHI       SHX       SHY     MAG  FILM      DF1      DF2  ANGAST     OCC      LogP"
HEAD += "      SIGMA   SCORE  CHANGE\n"
ROWS = "      1   30.00   20.00   10.00      1.50     -2.50   10000     1  15000.0  14000.0   45.00  100.00"
ROWS += "      -500     1.0000   20.00    0.10\n"
ROWS += ROWS.replace("      1 ", "      2 ", 1).replace("30.00", "31.00")


@pytest.fixture
def stack(tmp_path):
    images = np.arange(2, dtype=np.float32)[:, None, None] * np.ones((1, 8, 8), np.float32)
    write_stack(tmp_path / "p.mrc", images, 2.0)
    return tmp_path / "p.mrc"


@pytest.mark.parametrize("head", [HEAD, ""])
def test_a_par_file(tmp_path, stack, head):
    (tmp_path / "p.par").write_text(head + ROWS + "C  Average: 20.0\n")
    p = vg.read_particles(tmp_path / "p.par")
    assert p.poses.angles_deg.tolist() == [[10, 20, 30], [10, 20, 31]]
    assert p.poses.shifts_A.tolist() == [[-1.5, 2.5]] * 2
    assert p.table["rlnDefocusU"].tolist() == [15000, 15000]
    assert p.table["rlnDefocusAngle"].tolist() == [45, 45]
    assert p.images()[:, 0, 0].tolist() == [0, 1]
    with pytest.raises(vg.InputError, match="no column rlnVoltage, rlnSphericalAberration, rlnAmplitudeContrast"):
        p.optics  # noqa: B018


def test_version_8_has_shifts_in_pixels_and_the_head_says_the_microscope(tmp_path, stack):
    head = "C Beam energy (keV): 300.0\nC Spherical aberration (mm): 2.7\nC Amplitude contrast: 0.07\n"
    head += "C Pixel size of images (A): 2.0\nC Input particle images: p.mrc\n"
    row = "      1   30.00   20.00   10.00    1.50   -2.50  10000.   1  15000.0  14000.0   45.00   70.00    0.10\n"
    (tmp_path / "q.par").write_text(head + row)
    p = vg.read_particles(tmp_path / "q.par")
    assert p.poses.shifts_A.tolist() == [[-3, 5]]
    assert p.optics.as_params()[0].tolist() == [15000, 14000, 45, 300, 2.7, 0.07, 0, 0, 1, 0, 0, 0, 0, 0]
    assert p.images().shape == (1, 8, 8)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (HEAD, "no rows"),
        (HEAD + ROWS[:60] + "\n", r"line 2: 7 values for 16 columns|line 2: 8 values for 16 columns"),
        (ROWS.replace("15000.0", "x"), r"line 1: expected a finite number, got 'x'"),
        ("1 2 3\n", "3 columns without a header; a .par file of Frealign has 13, 16 or 17"),
        (ROWS.replace("      2 ", "      0 "), r"row 1 \(from 0\): image number 0; expected 1, 2"),
    ],
)
def test_broken_par_files(tmp_path, text, message):
    (tmp_path / "p.par").write_text(text)
    with pytest.raises(vg.FormatError, match=message):
        vg.read_particles(tmp_path / "p.par")


def test_written_for_frealign_and_back(tmp_path, monkeypatch):
    """To the two decimals of the format; the same projections, by way of poses and CTFs."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    angles = np.column_stack([rng.uniform(0, 360, 5), rng.uniform(0, 180, 5), rng.uniform(0, 360, 5)])
    optics = vg.Optics(rng.uniform(1e4, 2e4, 5), rng.uniform(1e4, 2e4, 5), rng.uniform(0, 180, 5), phase_shift_deg=30)
    images = rng.normal(size=(5, 8, 8)).astype(np.float32)
    poses = vg.Poses(angles, rng.uniform(-9, 9, (5, 2)))
    p = vg.Particles.from_images(images, 2.0, poses=poses, optics=optics)
    vg.write_particles("p.par", p, stack="p.mrc")
    q = vg.read_particles("p.par")
    assert vg.geometry.angular_distance(q.poses.angles_deg, angles).max() < 0.02
    assert np.abs(q.poses.shifts_A - poses.shifts_A).max() <= 0.0051
    assert np.abs(q.table["rlnDefocusU"] - optics.defocus_u_A).max() <= 0.051
    assert q.table["rlnPhaseShift"].tolist() == [30] * 5
    assert np.array_equal(q.images(), images)
    with pytest.raises(vg.InputError, match="images of one stack in their order"):
        vg.write_particles("r.par", q[::-1].with_optics(optics))


def test_a_star_file_of_cistem(tmp_path, stack):
    labels = (
        "PositionInStack AnglePsi AngleTheta AnglePhi XShift YShift Defocus1 Defocus2 DefocusAngle PhaseShift Score "
    )
    labels += "PixelSize MicroscopeVoltagekV MicroscopeCsMM AmplitudeContrast BeamTiltX"
    head = "data_\n\nloop_\n" + "".join(f"_cisTEM{label} #{i}\n" for i, label in enumerate(labels.split(), 1))
    rows = "2 30 20 10 1.5 -2.5 15000 14000 45 0 12.5 2.0 300 2.7 0.07 0.5\n"
    rows += "1 31 21 11 0 0 15000 14000 45 0 3 2.0 300 2.7 0.07 0\n"
    (tmp_path / "p.star").write_text(head + rows)
    p = vg.read_particles(tmp_path / "p.star")
    assert p.poses.angles_deg.tolist() == [[10, 20, 30], [11, 21, 31]]
    assert p.poses.shifts_A.tolist() == [[-1.5, 2.5], [0, 0]]
    assert p.optics.as_params()[0].tolist() == [15000, 14000, 45, 300, 2.7, 0.07, 0, 0, 1, 0, 0, 0, 0, 0]
    assert p.pixel_size_A == 2.0
    assert p.table["cisTEMScore"].tolist() == [12.5, 3]
    assert p.images()[:, 0, 0].tolist() == [1, 0]
    # their sign beside RELION's was never checked: kept, not applied, and said
    assert p.table["cisTEMBeamTiltX"].tolist() == [0.5, 0]
    assert ignored_aberrations(p) == {"beam tilt": ["cisTEMBeamTiltX"]}
    vg.write_particles(tmp_path / "r.star", p)
    assert np.allclose(vg.read_particles(tmp_path / "r.star").optics.as_params(), p.optics.as_params())
    (tmp_path / "b.star").write_text(head.replace("PositionInStack", "Position") + rows)
    with pytest.raises(vg.FormatError, match="labels of cisTEM, but no column cisTEMPositionInStack"):
        vg.read_particles(tmp_path / "b.star")
