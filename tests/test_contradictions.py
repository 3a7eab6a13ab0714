"""What the tables of particles say twice and not alike is told of, once, when they are read."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest

import verglas as vg
from verglas.errors import VerglasWarning


@pytest.fixture(scope="module")
def made():
    return vg.simulate.particles(vg.simulate.phantom(16, 10.0, 100.0), 30, 16, 10.0, snr=1.0, seed=1)


def read_again(folder, particles):
    vg.write_particles(folder / "p.star", particles, stack=folder / "p.mrcs")
    return vg.read_particles(folder / "p.star")


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"rlnVoltage": 200.0}, r"rlnVoltage of the optics table is 300 .* of the particle table 200 \(30 of 30"),
        ({"rlnSphericalAberration": 0.01}, r"rlnSphericalAberration of the optics table is 2\.7 "),
        ({"rlnAmplitudeContrast": 0.07}, r"rlnAmplitudeContrast of the optics table is 0\.1 "),
        ({"rlnImagePixelSize": 5.0}, r"rlnImagePixelSize of the optics table is 10 .* particle table 5 "),
        (
            {"rlnDetectorPixelSize": 5.0, "rlnMagnification": 10000.0},
            r"by rlnDetectorPixelSize and rlnMagnification 5 ",
        ),
        ({"rlnOriginX": 9.0}, r"rlnOriginXAngst is .* px, and rlnOriginX 9 \(30 of 30"),
    ],
)
def test_two_columns_that_disagree_are_told_of(made, tmp_path, columns, message):
    with pytest.warns(VerglasWarning, match=message + ".*the first is used"):
        read_again(tmp_path, made.with_columns(**columns))


def test_columns_that_agree_pass_without_a_word(made, tmp_path):
    shifts = made.poses.shifts_A / 10.0
    alike = {
        "rlnVoltage": 300.0,
        "rlnImagePixelSize": 10.0,
        "rlnDetectorPixelSize": 5.0,
        "rlnMagnification": 5100.0,  # nominal: 2 % off
        "rlnOriginX": np.round(shifts[:, 0], 1),
        "rlnOriginY": np.round(shifts[:, 1], 1),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_again(tmp_path, made.with_columns(**alike)).pixel_size_A == 10.0


def test_one_group_of_two_microscopes_is_refused_and_a_group_written_twice_is_not(made, tmp_path):
    groups = made.optics_table
    joined = pd.concat([groups, groups.assign(rlnVoltage=200.0)], ignore_index=True)
    given = {"source": made.source, "where": "joined.star"}
    with pytest.raises(vg.InputError, match=r"group 1 stands there 2 times .*\(rlnVoltage: 300, 200\).*verglas merge"):
        read_again(tmp_path, vg.Particles(made.table, optics_table=joined, **given))
    same = pd.concat([groups, groups], ignore_index=True)
    again = read_again(tmp_path, vg.Particles(made.table, optics_table=same, **given))
    assert (again.optics.voltage_kV == 300).all()


def test_phase_shifts_in_radians_are_warned_of(made):
    for phase, told in ((np.pi / 2, True), (0.0, False), (90.0, False)):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            assert len(made.with_columns(rlnPhaseShift=phase).optics) == 30
        assert (
            any("rlnPhaseShift: the median is 1.5708 degrees; if it is in radians" in str(w.message) for w in caught)
            == told
        )


@pytest.mark.parametrize("job", ["refine", "abinitio", "align", "classify2d", "class3d"])
def test_a_diameter_in_nanometres_is_not_called_noise(made, job):
    start = vg.simulate.density(vg.simulate.phantom(16, 10.0, 100.0), 16, 10.0)
    run = {
        "refine": lambda **how: vg.refine(made, start, **how),
        "abinitio": lambda **how: vg.abinitio(made, **how),
        "align": lambda **how: vg.align(made, start, **how),
        "classify2d": lambda **how: vg.classify2d(made, classes=2, **how),
        "class3d": lambda **how: vg.classify3d(made, start, classes=1, resolution_A=40.0, **how),
    }[job]
    with pytest.raises(
        vg.InputError, match=rf"{job}: a particle of 10 A has .* pixels .* is its diameter in nanometres"
    ):
        run(diameter_A=10.0, listener=None)
