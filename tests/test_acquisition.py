"""What acquisition software writes down, and groups of beam shifts."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from verglas.errors import FormatError, InputError, VerglasWarning
from verglas.io import find_acquisition, mdoc_acquisitions, read_epu_xml
from verglas.io.acquisition import AcquisitionTree, plain_stem
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
    series = "".join(f"[ZValue = {k}]\nTiltAngle = {k}\nSubFramePath = X:\\other_{k}.tif\n" for k in range(3))
    (tmp_path / "e.mdoc").write_text(series)
    with pytest.warns(VerglasWarning, match=r"names 3 movies \(.*other_0.tif, ...\), and e.tif is none of them"):
        assert find_acquisition(tmp_path / "e.tif") is None
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
    # the folder of the session, or of all sessions; files of squares, holes and the atlas are none of movies
    for folder in (data_dir / "epu" / "emharvest", data_dir / "epu"):
        assert find_acquisition(movie, [folder]).pixel_size_A == pytest.approx(1.0559, abs=1e-4)
    with pytest.raises(InputError, match=r"no such folder; expected one with EPU's XML"):
        find_acquisition(movie, [tmp_path / "none"])


def test_a_tree_is_asked_again_and_may_not_contradict_itself(tmp_path, data_dir, monkeypatch):
    xml = next((data_dir / "epu" / "emharvest").rglob("FoilHole_*_Data_*.xml"))
    tree = AcquisitionTree(tmp_path)
    movie = f"movies/{xml.stem}_EER.eer"
    assert tree.find(movie) is None
    later = tmp_path / "Images-Disc1" / "GridSquare_1" / "Data"
    later.mkdir(parents=True)
    (later / xml.name).write_bytes(xml.read_bytes())
    assert tree.find(movie) is None  # it was looked through just now
    monkeypatch.setattr("verglas.io.acquisition._RESCAN_S", 0.0)
    assert tree.find(movie) == later / xml.name
    (tmp_path / "s.tif.mdoc").write_text("[FrameSet = 0]\n")
    assert tree.find("movies/s.tif") == tmp_path / "s.tif.mdoc"
    (tmp_path / "copy.d").mkdir()
    (tmp_path / "copy.d" / "s.mdoc").write_text("[FrameSet = 0]\n")
    twice = AcquisitionTree(tmp_path)
    assert twice.find("s.tif") is not None  # copies of one file
    (tmp_path / "copy.d" / "s.mdoc").write_text("[FrameSet = 0]\nVoltage = 200\n")
    with pytest.raises(InputError, match="say different things of it"):
        twice.find("s.tif")


@pytest.mark.parametrize(
    ("name", "group"),
    [
        # names of images that are to be found in public sessions and programs
        ("06jul12a_00015gr_00028sq_00004hl_00002en.mrc", "exposure 00002"),
        ("06nov29b_b_00031gr_00041sq_v01_00019hl_00003en.mrc", "exposure 00003"),
        ("10sep19a_a_00006gr_00022sq_v01_00002hl_v01_00003en.mrc", "exposure 00003"),
        ("18jun07c_em6b_00002gr_00010sq_v01_00002hl_v01_00005en.frames.mrc", "exposure 00005"),
        ("17dec27a_aldolase_00003gr_00032sq_v02_00002hln_00002esn-a-DW.mrc", "exposure 00002"),
        ("20dec04c_Grey1_00028gr_00012sq_v02_00003hln_00007enn2-a-DW.mrc", "exposure 00007"),
        ("22apr01a_b_00011gr_00003sq_v01_00003hl_00014ex-b-DW.mrc", "exposure 00014"),
        ("17aug09a_grid_00081gr_00028sq_00002hl_00002ed.frames.mrc", "exposure 00002"),
        ("16aug10a_00001en.frames.mrc", None),  # taken by hand: the number is no place
        ("07jan05b_00012gr_00001sq_v01_00002sq_00_00003en_00.mrc", None),  # straight from a square
        ("20230919_00001gr.tif", None),
        ("FoilHole_26502880_Data_26503611_26503612_20190726_1321_Fractions.mrc", "shot 26503611"),  # EPU 1 and 2
    ],
)
def test_places_in_names(name, group):
    acquisition = find_acquisition(name)
    assert (None if acquisition is None else acquisition.group) == group


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
