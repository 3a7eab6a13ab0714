"""Coordinates and lists of micrographs of other programs."""

from __future__ import annotations

import numpy as np
import pytest

import verglas as vg
from verglas.io import find_micrographs, read_ctf_table, read_micrographs, read_picks, write_micrographs, write_picks
from verglas.io.coordinates import match_names
from verglas.types import Picks


def test_relion_star(tmp_path):
    file = tmp_path / "picks.star"
    file.write_text(
        "data_\n\nloop_\n_rlnMicrographName #1\n_rlnCoordinateX #2\n_rlnCoordinateY #3\n_rlnAutopickFigureOfMerit #4\n"
        "m/a.mrc 10.5 20 0.9\nm/b.mrc 1 2 0.8\nm/a.mrc 30 40 0.1\n"
    )
    found = read_picks(file)
    assert list(found) == ["m/a.mrc", "m/b.mrc"]
    np.testing.assert_array_equal(found["m/a.mrc"].xy_px, [[10.5, 20], [30, 40]])
    np.testing.assert_array_equal(found["m/a.mrc"].columns["rlnAutopickFigureOfMerit"], [0.9, 0.1])


def test_star_of_one_micrograph_is_named_by_its_file(tmp_path):
    file = tmp_path / "mic_007_autopick.star"
    file.write_text("data_\n\nloop_\n_rlnCoordinateX #1\n_rlnCoordinateY #2\n10 20\n")
    assert list(read_picks(file)) == ["mic_007"]


def test_cryosparc(tmp_path):
    rows = np.zeros(
        3,
        [
            ("uid", "<u8"),
            ("location/micrograph_path", "S60"),
            ("location/micrograph_shape", "<u4", (2,)),
            ("location/center_x_frac", "<f4"),
            ("location/center_y_frac", "<f4"),
        ],
    )
    rows["location/micrograph_path"] = [b">J2/imported/012345678901234567890_a.tif"] * 2 + [b">J2/imported/b.tif"]
    rows["location/micrograph_shape"] = (1200, 1240)  # rows, columns
    rows["location/center_x_frac"], rows["location/center_y_frac"] = [0.5, 0.25, 0.1], [0.5, 0.75, 0.2]
    with open(tmp_path / "picked.cs", "wb") as handle:
        np.save(handle, rows)
    found = read_picks(tmp_path / "picked.cs")
    np.testing.assert_allclose(found["J2/imported/012345678901234567890_a.tif"].xy_px, [[620, 600], [310, 900]])
    assert match_names(list(found), ["x/b.tif", "x/a.tif"]).tolist() == [1, 0]


@pytest.mark.parametrize(("width", "centre"), [(64, 132), (65, 132)])
def test_eman_box(tmp_path, width, centre):
    (tmp_path / "mic.box").write_text(f"100\t100\t{width}\t{width}\t-3\n")
    np.testing.assert_array_equal(read_picks(tmp_path / "mic.box")["mic"].xy_px, [[centre, centre]])


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("a.csv", "micrograph,x,y\nm.tif,1,2\n", {"m.tif": [[1, 2]]}),
        ("a.tsv", "# comment\nimage\tscore\ty\tx\nm.tif\t0.5\t2\t1\n", {"m.tif": [[1, 2]]}),
        ("a.csv", "X;Y\n1.5;2\n3;4\n", {"a": [[1.5, 2], [3, 4]]}),
        ("a.txt", "10 20\n30 40\n", {"a": [[10, 20], [30, 40]]}),
        ("a.txt", "m.tif 10 20\nn.tif 30 40\n", {"m.tif": [[10, 20]], "n.tif": [[30, 40]]}),
        ("a.txt", "", {"a": []}),
    ],
)
def test_plain_tables(tmp_path, name, text, expected):
    (tmp_path / name).write_text(text)
    assert {k: p.xy_px.tolist() for k, p in read_picks(tmp_path / name).items()} == expected


TRUTH = [[60, 50], [200, 120], [150, 180], [250, 60]]


def test_files_of_other_pickers(data_dir, tmp_path):
    """The same four particles as crYOLO, EMAN (twice) and RELION 4 write them; what cannot be told is refused."""
    folder = data_dir.parent / "cases" / "coords-guessed"
    found = read_picks(folder / "mic1.cbox")["mic1"]
    assert found.xy_px.tolist() == TRUTH
    assert found.columns["rlnAutopickFigureOfMerit"].tolist() == [0.8] * 4
    assert read_picks(folder / "mic1_info.json")["mic1"].xy_px.tolist() == TRUTH
    with pytest.warns(vg.VerglasWarning, match="taken for EMAN boxes, corner x, corner y, width, height"):
        assert read_picks(folder / "mic1_box.txt")["mic1_box"].xy_px.tolist() == TRUTH
    with pytest.raises(vg.FormatError, match=r"5 columns without a header .*IMOD model: object, contour, x, y, z"):
        read_picks(folder / "mic1_imod.txt")
    with pytest.raises(vg.FormatError, match=r"mic1_ixy\.txt, line 1: 3 columns without a header .*\(index, x, y\?\)"):
        read_picks(folder / "mic1_ixy.txt")
    listed = read_picks(data_dir.parent / "cases" / "relion4-autopick-list" / "autopick.star")
    assert {name: p.xy_px.tolist() for name, p in listed.items()} == {"mic1.mrc": TRUTH}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("m.pos", "# XMIPP_STAR_1 *\ndata_particles\nloop_\n _xcoor\n _ycoor\n10 20\n"),
        ("m.csv", "index,axis-0,axis-1\n0,20,10\n"),
        ("m.spi", " ;spi/spi\n    1 2   11.   21.\n"),
        ("m.txt", "Coordinate_X Coordinate_Y score\n10 20 0.5\n"),
    ],
)
def test_positions_of_xmipp_napari_and_spider(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    assert read_picks(tmp_path / name)["m"].xy_px.tolist() == [[10, 20]]


MERIT, BOX = "rlnAutopickFigureOfMerit", ("verglasBoxWidth", "verglasBoxHeight")
_CBOX = (
    "data_global\n\n_cbox_format_version 1.0\n\ndata_cryolo\n\nloop_\n_CoordinateX #1\n_CoordinateY #2\n"
    "_CoordinateZ #3\n_Width #4\n_Height #5\n_Confidence #6\n_filamentid #7\n"
    "44.5 34 <NA> 32 31 0.8 {}\n100 50 <NA> 32 31 0.25 {}\n"
)


@pytest.mark.parametrize(
    ("name", "text", "xy", "columns"),
    [
        (
            "m.cbox",
            _CBOX.format("<NA>", "<NA>"),
            [[60.5, 49], [116, 65]],
            {MERIT: [0.8, 0.25], BOX[0]: [32, 32], BOX[1]: [31, 31]},
        ),
        ("m.cbox", _CBOX.format(0.0, 1.0), [[60.5, 49], [116, 65]], {"rlnHelicalTubeID": [1, 2]}),
        (
            "m.txt",
            "image_name\tx_coord\ty_coord\tscore\nm\t3\t4\t-1.5\nm\t5\t6\t2\n",
            [[3, 4], [5, 6]],
            {MERIT: [-1.5, 2]},
        ),
        (
            "m_info.json",
            '{"boxes": [[3, 4, "auto_ref", 0.5], [5, 6, "auto_ref", 2]]}',
            [[3, 4], [5, 6]],
            {MERIT: [0.5, 2]},
        ),
        ("m.box", "10 20 64 48 -3\n", [[42, 44]], {BOX[0]: [64], BOX[1]: [48]}),
        (
            "m.box",
            "#micrograph: m.mrc\n#segment length: 20\n#helix: (1, 2),(3, 4)\n0 0 20 20\n9 0 20 20\n"
            "#helix: (5, 6),(7, 8)\n50 60 20 20\n",
            [[10, 10], [19, 10], [60, 70]],
            {"rlnHelicalTubeID": [1, 1, 2]},
        ),
    ],
)
def test_scores_boxes_and_filaments_of_other_pickers_are_kept(tmp_path, name, text, xy, columns):
    (tmp_path / name).write_text(text)
    found = read_picks(tmp_path / name)["m"]
    assert found.xy_px.tolist() == xy
    for label, values in columns.items():
        assert found.columns[label].tolist() == values
    if "<NA>\n" in text or "auto_ref" in text:
        assert "rlnHelicalTubeID" not in found.columns


def test_boxes_by_hand_have_no_score(tmp_path):
    (tmp_path / "m.json").write_text('{"boxes": [[3, 4, "auto_ref", 0.5], [5, 6, "manual"]]}')
    assert not read_picks(tmp_path / "m.json")["m"].columns


def test_scores_and_filaments_of_cryosparc(tmp_path):
    """NCC as figure of merit; filaments numbered from 1 in each micrograph."""
    fields = [
        ("location/micrograph_path", "S20"),
        ("location/micrograph_shape", "<u4", (2,)),
        ("filament/filament_uid", "<u8"),
    ]
    fields += [(name, "<f4") for name in ("location/center_x_frac", "location/center_y_frac", "pick_stats/ncc_score")]
    rows = np.zeros(4, fields)
    rows["location/micrograph_path"] = [b"a.mrc", b"b.mrc", b"a.mrc", b"a.mrc"]
    rows["location/micrograph_shape"] = (100, 200)
    rows["filament/filament_uid"] = [9_000_000_000_000_000_001, 7, 9_000_000_000_000_000_002, 9_000_000_000_000_000_001]
    rows["location/center_x_frac"] = rows["location/center_y_frac"] = rows["pick_stats/ncc_score"] = [
        0.5,
        0.25,
        0.75,
        0.125,
    ]
    with open(tmp_path / "picks.cs", "wb") as handle:
        np.save(handle, rows)
    found = read_picks(tmp_path / "picks.cs")
    assert found["a.mrc"].xy_px.tolist() == [[100, 50], [150, 75], [25, 12.5]]
    assert found["a.mrc"].columns[MERIT].tolist() == [0.5, 0.75, 0.125]
    assert found["a.mrc"].columns["rlnHelicalTubeID"].tolist() == [1, 2, 1]
    assert found["b.mrc"].columns["rlnHelicalTubeID"].tolist() == [1]


def test_lists_of_coordinate_files(tmp_path, monkeypatch):
    """Names lead from the project's folder, wherever one stands; a file that is not there, and a loop, are named."""
    job = tmp_path / "AutoPick" / "job006"
    job.mkdir(parents=True)
    head = "data_coordinate_files\n\nloop_\n_rlnMicrographName\n_rlnMicrographCoordinates\n"
    (job / "autopick.star").write_text(head + "M/a.mrc AutoPick/job006/a.star\nM/b.mrc AutoPick/job006/b.star\n")
    (job / "a.star").write_text("data_\n\nloop_\n_rlnCoordinateX\n_rlnCoordinateY\n1 2\n3 4\n")
    (job / "b.star").write_text("data_\n\nloop_\n_rlnCoordinateX\n_rlnCoordinateY\n")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert {n: p.xy_px.tolist() for n, p in read_picks(job / "autopick.star").items()} == {"M/a.mrc": [[1, 2], [3, 4]]}
    (job / "b.star").unlink()
    with pytest.raises(vg.FormatError, match=r"coordinates of M/b\.mrc: AutoPick/job006/b\.star not found"):
        read_picks(job / "autopick.star")
    (job / "b.star").write_text(head + "M/a.mrc AutoPick/job006/autopick.star\n")
    with pytest.raises(vg.FormatError, match="is a list of files again"):
        read_picks(job / "autopick.star")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.txt", "1 2\n3 4 5\n", r"a\.txt, line 2: 3 values, expected 2"),
        ("a.txt", "1 2 3 4\n5 6 7 8\n", r"4 columns without a header"),
        ("a.txt", "m.tif 1 2 3\n", r"4 columns without a header"),
        ("a.csv", "index,axis-0,axis-1,axis-2\n0,1,2,3\n", "points in a stack or a volume"),
        ("a.json", '{"boxes": [[1]]}', r"box 0 \(from 0\): expected \[x, y"),
        ("a.json", '{"boxes"', "not JSON"),
        ("a.box", "1 2 0 0\n", "a box of 0 x 0 px"),
        ("a.box", "1 2 9 9 -1\n", r"line 1: the flag -1 marks an end of a helix"),
        ("a.csv", "x,y,score\n1,2\n", r"line 2: 2 values, expected a score in column 3"),
        ("a.cbox", "data_x\n\nloop_\n_CoordinateX\n1\n", "no table data_cryolo"),
        ("a.spi", " ;spi/spi\n    1 3   11.   21. 7.\n", "a SPIDER document with 3 columns"),
        ("a.csv", "x,y\n1,two\n", r"a\.csv, line 2: expected a finite number, got 'two'"),
        ("a.csv", "x,y\n1\n", r"a\.csv, line 2: 1 values, expected at least 2"),
        ("a.txt", "hello world\n", r"a\.txt, line 1: expected a header with x and y"),
        ("a.box", "1 2 3\n", r"a\.box, line 1: expected x, y, width and height"),
        ("a.star", "data_\n\nloop_\n_rlnFoo #1\n1\n", "no table has the columns rlnCoordinateX"),
        ("a.csv", "x,y\n1,nan\n", r"line 2: expected a finite number"),
    ],
)
def test_bad_files_are_named_with_the_line(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    with pytest.raises(vg.FormatError, match=message):
        read_picks(tmp_path / name)


def test_written_picks_are_read_back(tmp_path):
    picks = {
        "a.tif": Picks([[1.25, 2]], "a.tif", {"rlnAutopickFigureOfMerit": [0.5]}),
        "b.tif": Picks([[3, 4]], "b.tif"),
    }
    write_picks(tmp_path / "p.star", picks)
    found = read_picks(tmp_path / "p.star")
    assert {k: p.xy_px.tolist() for k, p in found.items()} == {"a.tif": [[1.25, 2.0]], "b.tif": [[3.0, 4.0]]}
    assert np.isnan(found["b.tif"].columns["rlnAutopickFigureOfMerit"]).all()


def test_picks_are_checked():
    with pytest.raises(vg.InputError, match=r"particle 1 \(from 0\) are not finite"):
        Picks([[1, 2], [np.nan, 0]], "a")
    with pytest.raises(vg.InputError, match="column s has 1 values for 2"):
        Picks([[1, 2], [3, 4]], "a", {"s": [1]})


def test_a_name_that_means_several_micrographs():
    assert match_names(["one/a.tif"], ["one/a.tif", "two/a.tif"]).tolist() == [0]
    with pytest.raises(vg.InputError, match=r"means several micrographs: one/a\.tif, two/a\.tif"):
        match_names(["a.mrc"], ["one/a.tif", "two/a.tif"])


def test_micrograph_lists(tmp_path):
    for name in ("b.tif", "a.tif", "notes.txt"):
        (tmp_path / name).write_text("x")
    expected = [str(tmp_path / "a.tif"), str(tmp_path / "b.tif")]
    assert find_micrographs(tmp_path)["path"].tolist() == expected
    assert find_micrographs(str(tmp_path / "*.tif"))["path"].tolist() == expected
    with pytest.raises(vg.InputError, match="named twice"):
        find_micrographs([tmp_path, tmp_path / "a.tif"])
    with pytest.raises(vg.InputError, match="no micrographs found"):
        find_micrographs(str(tmp_path / "*.mrc"))


def test_micrograph_star_round_trip(tmp_path):
    (tmp_path / "a.tif").write_text("x")
    table = find_micrographs(tmp_path / "a.tif").assign(
        rlnMicrographName="a.tif",
        rlnMicrographPixelSize=1.5,
        rlnVoltage=300.0,
        rlnSphericalAberration=0.01,
        rlnAmplitudeContrast=0.07,
        rlnDefocusU=20000.0,
        rlnDefocusV=19000.0,
        rlnDefocusAngle=30.0,
    )
    write_micrographs(tmp_path / "m.star", table)
    found = read_micrographs(tmp_path / "m.star")
    assert found.iloc[0].to_dict().items() >= table.iloc[0].to_dict().items() - {("path", found["path"][0])}
    assert found["rlnOpticsGroupName"].tolist() == ["opticsGroup1"]


def test_ctf_tables(tmp_path, data_dir):
    quick = read_ctf_table(data_dir / "apoferritin" / "ctf_quickfit.tsv")
    assert len(quick) == 14
    assert quick["rlnDefocusU"][0] == quick["rlnDefocusV"][0] == 19750
    (tmp_path / "c.csv").write_text("micrograph,defocus_u_A,defocus_v_A,defocus_angle_deg\na,20000,19000,30\n")
    assert read_ctf_table(tmp_path / "c.csv").iloc[0].tolist() == ["a", 20000.0, 19000.0, 30.0]
    (tmp_path / "c.csv").write_text("micrograph,defocus\na,2\n")
    with pytest.raises(vg.FormatError, match="no defocus"):
        read_ctf_table(tmp_path / "c.csv")


def test_names_that_do_not_tell_micrographs_apart_are_refused_before_the_work(tmp_path):
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.tif").write_text("x")
        (tmp_path / folder / "m.star").write_text("data_\n\nloop_\n_rlnMicrographName\na.tif\n")
    with pytest.raises(vg.InputError, match=r"name a\.tif stands for 2 files \(.*one/a\.tif, .*two/a\.tif\)"):
        find_micrographs([tmp_path / "one" / "m.star", tmp_path / "two" / "m.star"])
    assert len(find_micrographs([tmp_path / "one", tmp_path / "two"])) == 2  # their paths tell them apart
    for name in ("it's.tif", "a#b.tif"):
        (tmp_path / "two" / name).write_text("x")
        with pytest.raises(vg.InputError, match=r"cannot be written to a STAR file .*rename the file"):
            find_micrographs(tmp_path / "two")
        (tmp_path / "two" / name).unlink()


def test_particles_of_micrographs_with_one_name_in_several_folders_stay_apart(tmp_path):
    """Also where a third micrograph has the name that a number would make."""
    values = {"x/a.mrc": 1.0, "y/a.mrc": 2.0, "z/a_2.mrc": 3.0, "z/a.mrc": 4.0}
    for name, value in values.items():
        data = np.random.default_rng(0).normal(size=(1, 40, 40)).astype(np.float32)
        data[0, 20, 20] += 100 * value
        (tmp_path / name).parent.mkdir(exist_ok=True)
        vg.write_map(tmp_path / name, vg.Map(data, 2.0))
    paths = [str(tmp_path / name) for name in values]
    picks = {path: Picks([[20, 20]], path) for path in paths}
    made = vg.extract(paths, picks, 16, out=tmp_path / "out", invert=False, ramp=False)
    peaks = made.images()[:, 8, 8]
    assert made.table["rlnMicrographName"].tolist() == paths
    assert np.all(np.diff(peaks) > 50)
    assert len(set(made.table["rlnImageName"])) == 4


def test_a_result_of_ctffind_is_called_what_it_is(tmp_path):
    text = "# Output from CTFFind version 4.1.14\n# Input file: m1.mrc\n1.0 15000.0 14500.0 30.0 0.0 0.15 5.2\n"
    (tmp_path / "m1.txt").write_text(text)
    with pytest.raises(vg.FormatError, match=r"a result of CTFFIND, .*defocus_u_A.*\(there in radians\)"):
        vg.io.read_ctf_table(tmp_path / "m1.txt")
