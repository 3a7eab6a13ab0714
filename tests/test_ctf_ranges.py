"""Ranges and units of CTF parameters, wherever they come in; rows without a CTF."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest

import verglas as vg
from verglas.io import read_ctf_table
from verglas.run.extract import Microscope
from verglas.types.ctf_ranges import check_ctf, check_ctf_columns


def particles(n=30, **columns):
    optics = vg.Optics(np.linspace(14000, 16000, n), np.linspace(14000, 16000, n))
    images = np.random.default_rng(0).normal(size=(n, 16, 16)).astype(np.float32)
    return vg.Particles.from_images(images, 2.0, optics=optics).with_columns(**columns)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"rlnDefocusU": 1.5, "rlnDefocusV": 1.5}, r"rlnDefocusU: the median is 1.5, .*in micrometres\? multiply by 1"),
        ({"rlnDefocusV": 1.5e-6}, r"rlnDefocusV: the median is 1.5e-06, .*in metres\? multiply by 1e\+10"),
        ({"rlnCtfBfactor": -507}, r"rlnCtfBfactor: expected -50 to 100000 A\^2, got -507 in row 0 .* change the sign"),
        ({"rlnCtfScalefactor": -1}, r"rlnCtfScalefactor: expected 0 to .*, got -1 .*turns the contrast over"),
        ({"rlnDefocusU": 1e20}, r"rlnDefocusU: expected -1e\+07 to 1e\+07 A, got 1e\+20"),
    ],
)
def test_values_no_microscope_has_are_refused_by_column(columns, message):
    with pytest.raises(vg.InputError, match=message):
        particles(**columns).optics  # noqa: B018


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"rlnDefocusU": -15000.0}, r"rlnDefocusU: the median is -15000 A; negative is overfocus"),
        ({"rlnDefocusU": 1500.0}, r"rlnDefocusU: the median is 1500 A.*in nanometres, multiply by 10"),
        ({"rlnDefocusU": 250_000.0}, r"rlnDefocusU: the median is 250000 A, more than 10 micrometres"),
        ({"rlnCtfBfactor": -20.0}, r"rlnCtfBfactor: 30 values are negative, down to -20 A\^2"),
    ],
)
def test_unlikely_values_are_warned_of(columns, message):
    with pytest.warns(vg.VerglasWarning, match=message):
        particles(**columns).optics  # noqa: B018


@pytest.mark.parametrize(
    "columns",
    [
        {},
        {"rlnDefocusU": 0.0, "rlnDefocusV": 0.0},  # no CTF
        {"rlnDefocusU": 300.0, "rlnDefocusV": 200.0, "rlnPhaseShift": 90.0},  # a phase plate
        {"rlnCtfBfactor": 80.0, "rlnCtfScalefactor": 0.9},
    ],
)
def test_what_microscopes_have_passes_without_a_word(columns):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(particles(**columns).optics) == 30


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("voltage_kV", 300_000.0, r"voltage_kV \(--voltage\): expected 10 to 3000 kV, got 300000: in volts\?"),
        ("voltage_kV", -1.0, "expected 10 to 3000 kV, got -1"),
        ("cs_mm", 2700.0, r"cs_mm \(--cs\): expected 0 to 100 mm, got 2700: in micrometres or angstrom\?"),
        ("cs_mm", 2.7e7, "in micrometres or angstrom"),
        ("cs_mm", -2.7, "expected 0 to 100 mm, got -2.7"),
        ("amplitude_contrast", 10.0, r"expected 0 to 1, got 10: in percent\?"),
        (
            "pixel_size_A",
            0.0002,
            r"pixel_size_A \(--pixel-size\): expected 0.01 to 1000 A, got 0.0002: in nm, micromet",
        ),
        ("pixel_size_A", 1e29, r"expected 0.01 to 1000 A, got 1e\+29"),
    ],
)
def test_options_are_checked_before_the_work(tmp_path, name, value, message):
    with pytest.raises(vg.InputError, match=message):
        Microscope(**{name: value})
    micrograph = vg.Micrograph(np.zeros((64, 64), np.float32), 2.0, "a")
    with pytest.raises(vg.InputError, match=message):
        vg.extract(micrograph, vg.types.Picks([[30, 30]], "a"), 16, **{name: value})


def test_cs_in_metres_is_warned_of():
    with pytest.warns(vg.VerglasWarning, match=r"rlnSphericalAberration: 0.0027 mm; if it is in metres, write 2.7"):
        check_ctf({"cs_mm": 0.0027}, "a.star")


def test_tables_of_micrographs_are_checked(tmp_path):
    (tmp_path / "ctf.tsv").write_text("micrograph\tdefocus_A\na.mrc\t1.5\nb.mrc\t1.6\n")
    with pytest.raises(vg.InputError, match=r"ctf\.tsv: rlnDefocusU: the median is 1.55.*in micrometres"):
        read_ctf_table(tmp_path / "ctf.tsv")
    text = "data_\n\nloop_\n_rlnMicrographName\n_rlnVoltage\na.mrc 300000\n"
    (tmp_path / "m.star").write_text(text)
    with pytest.raises(vg.InputError, match=r"m\.star: rlnVoltage: expected 10 to 3000 kV, got 300000: in volts"):
        vg.io.read_micrographs(tmp_path / "m.star")
    check_ctf_columns(pd.DataFrame({"rlnVoltage": [300.0, np.nan], "other": ["a", "b"]}), "m")


def test_the_cases_with_other_units(data_dir):
    """Small files of the kinds met; each says what is wrong, or warns."""
    folder = data_dir.parent / "cases" / "ctf-units"
    for name in ("cs_A", "cs_um", "cs_neg", "ac_pct", "v300000", "df_um", "df_m"):
        with pytest.raises(vg.InputError, match="expected"):
            vg.read_particles(folder / f"{name}.star").optics  # noqa: B018
    for name in ("df_nm", "df_neg", "cs_m"):
        with pytest.warns(vg.VerglasWarning, match=r"median is|in metres"):
            vg.read_particles(folder / f"{name}.star").optics  # noqa: B018


# ---- rows without a CTF


def noisy(n=60, bad=(3, 17)):
    """Particles of a phantom with poses; two rows have no defocus, one a scale of zero."""
    model = vg.simulate.phantom(24, 5.0, 90.0)
    made = vg.simulate.particles(model, n, 24, 5.0, snr=1.0, seed=1)
    defocus = made.table["rlnDefocusU"].to_numpy(float).copy()
    defocus[list(bad)] = np.nan
    scale = np.ones(n)
    scale[5] = 0
    return model, made, made.with_columns(rlnDefocusU=defocus, rlnCtfScalefactor=scale)


@pytest.mark.slow
def test_rows_without_a_defocus_are_set_aside_and_counted_by_every_job():
    model, whole, holes = noisy()
    kept = np.setdiff1d(np.arange(60), [3, 5, 17])
    reference = vg.simulate.density(model, 24, 5.0)
    with pytest.warns(vg.VerglasWarning, match="3 particles set aside"):
        made = vg.reconstruct(holes)
    assert np.array_equal(made.data, vg.reconstruct(whole[kept]).data)
    with pytest.warns(vg.VerglasWarning, match="align: 3 particles set aside .*particle 3: its CTF parameters are not"):
        aligned = vg.align(holes, reference)
    assert len(aligned) == 57
    with pytest.warns(vg.VerglasWarning, match="classify2d: 3 particles set aside"):
        classes = vg.classify2d(holes, classes=2, diameter_A=100, iterations=2)
    assert len(classes.particles) == 57
    refined = vg.refine(holes, reference, diameter_A=100, iterations=1)
    assert refined.excluded[3] == "its CTF parameters are not finite"
    assert sorted(refined.excluded) == [3, 5, 17]
    assert refined.excluded[5] == "its CTF scale factor is zero: it has no weight"


def test_text_in_place_of_a_number_is_still_an_error():
    with pytest.raises(vg.InputError, match=r"column rlnDefocusU, row 1 \(from 0\): expected a finite number, got 'x'"):
        particles(3, rlnDefocusU=np.array(["15000", "x", "15000"], object)).optics  # noqa: B018


def test_a_column_is_warned_of_once_for_all_copies_of_the_particles():
    given = particles(rlnCtfBfactor=-5.0)
    poses = vg.Poses(np.zeros((30, 3)), np.zeros((30, 2)))
    copies = (given[:7], given.with_poses(poses))
    with pytest.warns(vg.VerglasWarning, match="30 values are negative, down to -5 A"):
        assert len(given.optics) == 30
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(copies[0].optics) == 7
        assert len(given[3:].with_columns(rlnDefocusU=2e4).optics) == 27
        assert len(copies[1].optics) == 30
    with pytest.warns(vg.VerglasWarning, match="30 values are negative, down to -7 A"):
        assert len(copies[1].with_columns(rlnCtfBfactor=-7.0).optics) == 30
