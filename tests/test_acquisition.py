"""What acquisition software writes down, and groups of beam shifts."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from verglas.errors import FormatError, InputError
from verglas.io import find_acquisition, mdoc_acquisitions, read_epu_xml
from verglas.io.acquisition import plain_stem
from verglas.optics import beam_shift_groups
from verglas.types.acquisition import Acquisition


def test_epu_sessions(data_dir):
    path = next((data_dir / "epu" / "emharvest").rglob("FoilHole_*_Data_*.xml"))
    a = read_epu_xml(path)
    assert a.pixel_size_A == pytest.approx(1.0559, abs=1e-4)
    assert (a.voltage_kV, a.frames) == (300.0, 50)
    assert a.total_dose_e_A2 == pytest.approx(39.923, abs=1e-3)
    assert a.per_frame == pytest.approx(0.79846, abs=1e-5)
    assert a.beam_shift == pytest.approx((-0.0944923, -0.0117230), abs=1e-6)
    assert a.group == "shot 19508496"
    # the second session: two shots of the template in each of two holes
    shifts, groups = [], []
    for xml in sorted((data_dir / "epu" / "smartem").rglob("FoilHole_*_Data_*.xml")):
        one = read_epu_xml(xml)
        assert one.voltage_kV == 300.0
        shifts.append(one.beam_shift)
        groups.append(one.group)
    assert groups == ["shot 9017347", "shot 9017354"] * 2
    assert len(set(shifts)) == 4
    with pytest.raises(FormatError, match="expected a MicroscopeImage"):
        read_epu_xml(data_dir / "epu" / "smartem" / "EpuSession.dm")


def test_mdoc_of_frames(data_dir):
    (a,) = mdoc_acquisitions(data_dir / "serialem_mdoc" / "frame_set_single.mdoc")
    assert (a.voltage_kV, a.pixel_size_A, a.frames) == (300.0, 1.2827, 12)
    assert a.total_dose_e_A2 == 7.65892
    assert a.per_frame == 0.63824
    assert a.beam_shift == (2.69654, -0.304661)
    assert a.movie == "s_mmm_00993_33.0_Oct08_07.39.05.tif"
    (a,) = mdoc_acquisitions(data_dir / "serialem_mdoc" / "frame_set_multiple.mdoc")
    assert (a.frames, a.per_frame) == (243, 0.63882)
    series = mdoc_acquisitions(data_dir / "serialem_mdoc" / "tilt_series.mdoc")
    assert len(series) > 10
    assert all(one.movie for one in series)
    assert [one.pre_exposure_e_A2 for one in series[:1]] in ([None], [0.0])


def test_mdoc_of_a_montage_is_none_of_movies(data_dir):
    with pytest.raises(FormatError, match="not one of movies"):
        mdoc_acquisitions(data_dir / "serialem_mdoc" / "montage_section.mdoc")


def test_found_beside_the_movie(tmp_path):
    (tmp_path / "a.tif.mdoc").write_text(
        "Voltage = 200\n[FrameSet = 0]\nPixelSpacing = 0.8\nExposureDose = 30\nNumSubFrames = 40\n"
    )
    a = find_acquisition(tmp_path / "a.tif")
    assert (a.voltage_kV, a.pixel_size_A, a.per_frame) == (200.0, 0.8, 0.75)
    assert a.contradictions(voltage_kV=300.0, pixel_size_A=0.8, dose_per_frame_e_A2=1.0, pre_exposure_e_A2=None) == [
        f"voltage_kV: 200 in {tmp_path / 'a.tif.mdoc'}, 300 given",
        f"dose_per_frame_e_A2: 0.75 in {tmp_path / 'a.tif.mdoc'}, 1 given",
    ]
    assert find_acquisition(tmp_path / "b.tif") is None
    (tmp_path / "c.mdoc").write_text("[FrameSet = 0]\nExposureDose = lots\n")
    with pytest.raises(FormatError, match="ExposureDose = 'lots'"):
        find_acquisition(tmp_path / "c.tif")
    (tmp_path / "d.mdoc").write_text("no key\n")
    with pytest.raises(FormatError, match="line 1: 'no key'; expected key = value"):
        find_acquisition(tmp_path / "d.tif")


def test_xml_in_another_tree(tmp_path, data_dir):
    xml = next((data_dir / "epu" / "emharvest").rglob("FoilHole_*_Data_*.xml"))
    movie = tmp_path / f"{xml.stem}_fractions.tiff"
    assert find_acquisition(movie).group == "shot 19508496"
    assert find_acquisition(movie, [xml.parent]).frames == 50


@pytest.mark.parametrize(
    ("name", "group"),
    [
        ("FoilHole_1_Data_22_33_20230919_154056_EER.eer", "shot 22"),
        ("FoilHole_1_Data_22_33_44_20230919_154056_Fractions.mrc.bz2", "shot 22"),
        ("g3_00012_X+1Y-1-2.tif", "hole +1 -1 shot 2"),
        ("23sep19a_00012gr_00008sq_v01_00004hl_00003ex-a.frames.mrc", "exposure 00003"),
        ("movie_7.tif", None),
    ],
)
def test_names(tmp_path, name, group):
    found = find_acquisition(tmp_path / name)
    assert (found.group if found else None) == group


def test_stems():
    assert plain_stem("a/b_fractions.tiff") == plain_stem("c/b_EER.eer") == plain_stem("b.mrc.bz2") == "b"


def test_what_is_zero_is_not_known():
    a = Acquisition("x", pixel_size_A=0.0, total_dose_e_A2=-1.0, pre_exposure_e_A2=0.0)
    assert (a.pixel_size_A, a.total_dose_e_A2, a.pre_exposure_e_A2) == (None, None, 0.0)
    with pytest.raises(InputError, match="voltage_kV is nan"):
        Acquisition("x", voltage_kV=float("nan"))


@given(st.integers(2, 5), st.integers(1, 5), st.floats(0.005, 0.05), st.integers(0, 100), st.floats(0, 6))
@settings(deadline=None, max_examples=60)
def test_patterns_of_holes_are_found(columns, rows, spread, seed, turn):
    """n x m holes, visited 12 times each, spread far below their distance: as many groups, each pure."""
    rng = np.random.default_rng(seed)
    holes = np.array([(x, y) for y in range(rows) for x in range(columns)], float)
    matrix = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    truth = np.repeat(np.arange(len(holes)), 12)
    shifts = (holes @ matrix.T)[truth] + rng.uniform(-spread, spread, (len(truth), 2))
    order = rng.permutation(len(truth))
    found = beam_shift_groups(shifts[order])
    assert found.max() + 1 == len(holes)
    assert len({*zip(found.tolist(), truth[order].tolist(), strict=True)}) == len(holes)


def test_one_cloud_is_one_group():
    shifts = np.random.default_rng(0).normal(size=(2000, 2))
    assert beam_shift_groups(shifts).max() == 0
    assert beam_shift_groups([[1.0, 2.0]]).tolist() == [0]
    assert beam_shift_groups([[1.0, 2.0]] * 5).tolist() == [0] * 5
    assert beam_shift_groups(shifts, groups=4).max() == 3
    with pytest.raises(InputError, match="6 groups of 1 different"):
        beam_shift_groups([[1.0, 2.0]] * 8, groups=6)
    with pytest.raises(InputError, match="finite"):
        beam_shift_groups([[np.nan, 1.0]])
