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


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
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
    (tmp_path / "c.csv").write_text("micrograph,defocus_u_A,defocus_v_A,defocus_angle_deg\na,2,1,30\n")
    assert read_ctf_table(tmp_path / "c.csv").iloc[0].tolist() == ["a", 2.0, 1.0, 30.0]
    (tmp_path / "c.csv").write_text("micrograph,defocus\na,2\n")
    with pytest.raises(vg.FormatError, match="no defocus"):
        read_ctf_table(tmp_path / "c.csv")
