"""STAR files: what the issue asks of reading, of writing, and of what is wrong with a file."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
from gemmi import cif
from hypothesis import given, settings
from hypothesis import strategies as st
from pandas.testing import assert_frame_equal

import verglas as vg
from verglas.io import read_star, star, write_star

QUICK = settings(deadline=None, max_examples=40)

GOOD = """
# version 30001

data_optics

loop_
_rlnOpticsGroup #1
_rlnImagePixelSize #2
1 1.5

# version 30001

data_particles

loop_
_rlnImageName #1
_rlnOpticsGroup #2
_rlnDefocusU #3
000001@a.mrcs 1 15000.123456
000002@a.mrcs 1 nan
"""


def write(tmp_path, text):
    path = tmp_path / "p.star"
    path.write_text(text)
    return path


def same_tables(a, b):
    assert list(a) == list(b)
    for name in a:
        if isinstance(a[name], pd.DataFrame):
            assert_frame_equal(a[name], b[name], check_dtype=False)
        else:
            assert a[name] == b[name]


def data_files(data_dir):
    return sorted(
        [*(data_dir / "particles").glob("*.star"), *data_dir.glob("*/truth.star"), *data_dir.glob("*/picks.star")]
    )


# ---- reading


def cif_tables(path):
    """The file by gemmi's parser of CIF, an independent reader: every value as the text that stands there."""
    tables = {}
    for block in cif.read(str(path)):
        for item in block:
            columns = item.loop.tags if item.loop else [item.pair[0]]
            values = item.loop.values if item.loop else [item.pair[1]]
            width = len(columns)
            table = tables.setdefault(block.name.strip(), {})
            table.update({tag[1:]: list(values)[i::width] for i, tag in enumerate(columns)})
    return tables


def test_an_independent_reader_of_cif_agrees_on_all_data(data_dir):
    files = data_files(data_dir)
    assert len(files) >= 9
    for path in files:
        ours, other = read_star(path), cif_tables(path)
        assert [name.strip() for name in ours] == list(other)
        for name, table in ours.items():
            assert list(table) == list(other[name.strip()])
            for label, texts in other[name.strip()].items():
                values = list(table[label]) if isinstance(table, pd.DataFrame) else [table[label]]
                assert len(values) == len(texts)
                for value, text in zip(values, texts, strict=True):
                    same = cif.as_string(text) == value if isinstance(value, str) else float(text) == value
                    assert same or value != value, (path, name, label, value, text)


def test_types_of_columns_and_single_values(tmp_path):
    text = GOOD + "\ndata_general\n\n_rlnA 3\n_rlnB 'two words'\n_rlnMyName 007\n_rlnC 1_0\n_rlnD 2.5e3\n"
    tables = read_star(write(tmp_path, text))
    assert tables["general"] == {"rlnA": 3, "rlnB": "two words", "rlnMyName": "007", "rlnC": "1_0", "rlnD": 2500.0}
    assert [t.kind for t in tables["particles"].dtypes[1:]] == ["i", "f"]
    assert np.isnan(tables["particles"]["rlnDefocusU"][1])


@pytest.mark.parametrize(
    ("rows", "values"),
    [
        ("'a b' 1\nc 2\n", ["a b", "c"]),
        ("\"a b\" 1\n'c d' 2\n", ["a b", "c d"]),
        ("'ab' 1 # it's quoted\n'' 2\n", ["ab", ""]),
        ("$a[1] 1\ndata_001.mrc 2\n", ["$a[1]", "data_001.mrc"]),
        ("Zürich.mrc 1\n冰.mrc 2\n", ["Zürich.mrc", "冰.mrc"]),
    ],
)
def test_values_that_other_parsers_trip_over(tmp_path, rows, values):
    table = read_star(write(tmp_path, f"data_t\n\nloop_\n_rlnX\n_rlnY\n{rows}"))["t"]
    assert table["rlnX"].tolist() == values
    assert table["rlnY"].tolist() == [1, 2]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (b"Z\xfcrich.mrc", r"table 't', line 8: .*Z.xfcrich.mrc 2' is not UTF-8; write the file in UTF-8"),
        (b"a\x00b.mrc", r"table 't', line 8: a byte 0x00, which no text of a STAR file holds"),
        (b"a\rb.mrc", r"table 't', line 8: a byte 0x0d"),
    ],
)
def test_bytes_that_are_no_text_are_named_by_line(tmp_path, value, message):
    (tmp_path / "p.star").write_bytes(b"data_t\n\nloop_\n_rlnX\n_rlnY\n\na 1\n" + value + b" 2\n")
    with pytest.raises(vg.FormatError, match=message):
        read_star(tmp_path / "p.star")


def test_a_single_value_in_latin1_is_named(tmp_path):
    (tmp_path / "p.star").write_bytes(b"data_t\n\n_rlnX Z\xfcrich\n")
    with pytest.raises(vg.FormatError, match=r"table 't': .*rich.* is not UTF-8"):
        read_star(tmp_path / "p.star")


def test_names_stay_text(tmp_path):
    text = "data_\n\nloop_\n_rlnImageName\n_rlnMicrographName\n_rlnVoltage\n1@a.mrcs 001 300\n2@a.mrcs 002 300\n"
    table = read_star(write(tmp_path, text))[""]
    assert table["rlnMicrographName"].tolist() == ["001", "002"]
    assert table["rlnVoltage"].tolist() == [300, 300]


def test_a_loop_without_rows(tmp_path):
    tables = read_star(write(tmp_path, "data_picks\n\nloop_\n_rlnA\n_rlnB\n\n# version 30001\n" + GOOD))
    assert list(tables) == ["picks", "optics", "particles"]
    assert tables["picks"].shape == (0, 2)
    assert len(tables["particles"]) == 2


@pytest.mark.parametrize("name", ["particles", "model_class_1", "", "images"])
def test_the_particle_table_is_the_one_with_image_names(tmp_path, name):
    p = vg.read_particles(write(tmp_path, GOOD.replace("data_particles", f"data_{name}")))
    assert len(p) == 2
    assert p.table_name == name
    assert p.pixel_size_A == 1.5


def test_a_row_that_starts_like_a_table(tmp_path):
    table = pd.DataFrame({"rlnMicrographName": ["data_001.mrc", "data_002.mrc"], "rlnVoltage": [300, 200]})
    write_star(tmp_path / "t.star", {"a": table, "b": table})
    same_tables(read_star(tmp_path / "t.star"), {"a": table, "b": table})


def test_windows_line_ends_and_blank_lines(tmp_path):
    path = tmp_path / "p.star"
    path.write_bytes(GOOD.replace("\n", "\r\n").encode() + b"\r\n\r\n")
    assert read_star(path)["particles"]["rlnImageName"].tolist() == ["000001@a.mrcs", "000002@a.mrcs"]


# ---- what is wrong with a file


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "_rlnDefocusU #3",
            "_rlnOpticsGroup #3",
            r"p\.star, table 'particles', line 18: label _rlnOpticsGroup appears twice \(first on line 17\)",
        ),
        ("_rlnDefocusU #3\n", "", r"p\.star, table 'particles', line 18: 3 values for 2 labels; is a label missing"),
        ("000002@a.mrcs 1 nan", "000002@a.mrcs 1 nan 7", r"table 'particles', line 20: 4 values for 3 labels"),
        ("000002@a.mrcs 1 nan", "000002@a.mrcs 1", r"table 'particles', line 20: 2 values for 3 labels; is the row"),
        ("1 1.5", "1 1.5 2", r"table 'optics', line 9: 3 values for 2 labels"),
        ("data_particles", "data_optics", r"line 13: table 'optics' appears twice"),
        ("000002@a.mrcs", "00#2@a.mrcs", r"line 20: 00#2@a\.mrcs: a quote or # inside a value"),
        ("000002@a.mrcs", "2@it's.mrcs", r"line 20: 2@it's\.mrcs: a quote or # inside a value"),
        ("loop_\n_rlnImageName", "garbage\nloop_\n_rlnImageName", r"table 'particles', line 15: expected loop_"),
    ],
)
def test_broken_files_name_table_and_line(tmp_path, old, new, message):
    assert old in GOOD
    path = write(tmp_path, GOOD.replace(old, new))
    with pytest.raises(vg.VerglasError, match=message):
        vg.read_particles(path).optics  # noqa: B018


def test_a_bad_row_deep_in_a_large_table_is_named(tmp_path):
    rows = [f"{i:06d}@a.mrcs 1 {i}.5" for i in range(1, 30_001)]
    rows[25_000] += " 9"
    head = GOOD[: GOOD.index("000001@")]
    path = write(tmp_path, head + "\n".join(rows) + "\n")
    line = head.count("\n") + 25_001
    with pytest.raises(vg.FormatError, match=f"line {line}: 4 values for 3 labels"):
        read_star(path)


def test_missing_image_name_says_what_there_is(tmp_path):
    path = write(tmp_path, GOOD.replace("rlnImageName", "rlnImage"))
    with pytest.raises(vg.FormatError, match=r"no table has the column rlnImageName.*'particles' has rlnImage,"):
        vg.read_particles(path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty file"),
        ("hello\n", "no line that starts with data_"),
        ("data_x\n\n", "table has no labels"),
        ("data_x\n\n_rlnA 1 2\n", "_rlnA: expected one value, got 2"),
    ],
)
def test_no_star_file(tmp_path, text, message):
    with pytest.raises(vg.FormatError, match=message):
        read_star(write(tmp_path, text))


def test_no_file():
    with pytest.raises(vg.FormatError, match=r"nowhere\.star: no such file"):
        vg.read_particles("nowhere.star")


def test_missing_optics_table_is_a_warning_where_nothing_needs_it(tmp_path):
    path = write(tmp_path, GOOD[GOOD.index("data_particles") :])
    with pytest.warns(vg.VerglasWarning, match=r"p\.star: table 'particles' has optics groups but there is no optics"):
        assert len(vg.read_particles(path)) == 2


# ---- round trips


def test_round_trip_of_all_data(data_dir, tmp_path):
    """Columns, tables, their order and every value survive reading and writing, several optics groups included."""
    for path in data_files(data_dir):
        tables = read_star(path)
        write_star(tmp_path / "out.star", tables)
        same_tables(tables, read_star(tmp_path / "out.star"))


def test_particles_round_trip_of_all_data(data_dir, tmp_path):
    for path in sorted((data_dir / "particles").glob("*.star")):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", vg.VerglasWarning)
            p = vg.read_particles(path)
            vg.write_particles(tmp_path / "out.star", p)
            q = vg.read_particles(tmp_path / "out.star")
        n = p.table.shape[1]
        assert list(q.table)[:n] == list(p.table)
        kept = [label for label in p.table if label != "rlnImageName"]
        assert_frame_equal(p.table[kept], q.table[kept], check_dtype=False)
        assert [t.partition("@")[0] for t in p.table["rlnImageName"]] == [
            t.partition("@")[0] for t in q.table["rlnImageName"]
        ]
        if p.optics_table is not None:
            assert_frame_equal(p.optics_table, q.optics_table, check_dtype=False)
            assert list(q.tables) == list(p.tables)
        if p.poses is not None:
            assert np.allclose(p.poses.shifts_A, q.poses.shifts_A, atol=1e-9)


def test_unknown_tables_and_columns_survive_in_order(tmp_path):
    text = GOOD.replace("data_optics", "data_general\n\n_rlnNote hello\n\ndata_optics", 1)
    text = text.replace("_rlnOpticsGroup #2\n_rlnDefocusU #3", "_fooBar #2\n_rlnDefocusU #3") + (
        "\ndata_after\n\nloop_\n_x\n_y\n1 a\n2 b\n"
    )
    p = vg.read_particles(write(tmp_path, text))
    vg.write_particles(tmp_path / "q.star", p[::-1])
    tables = read_star(tmp_path / "q.star")
    assert list(tables) == ["general", "optics", "particles", "after"]
    assert tables["general"] == {"rlnNote": "hello"}
    assert list(tables["particles"]) == ["rlnImageName", "fooBar", "rlnDefocusU"]
    assert tables["particles"]["rlnImageName"].tolist() == ["000002@a.mrcs", "000001@a.mrcs"]
    assert tables["after"]["y"].tolist() == ["a", "b"]


def test_relion_30_is_written_with_an_optics_table(data_dir, tmp_path):
    """Two voltages become two optics groups; origins in pixels become angstrom; images are the same."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", vg.VerglasWarning)
        p = vg.read_particles(data_dir / "particles" / "sample_particles_relion30.star")
        vg.write_particles(tmp_path / "new.star", p)
        q = vg.read_particles(tmp_path / "new.star")
        assert q.optics_table["rlnVoltage"].tolist() == [300, 200]
        assert q.optics_table["rlnImageSize"].tolist() == [200, 200]
        assert np.allclose(q.optics.as_params(), p.optics.as_params())
        assert q.pixel_size_A == pytest.approx(p.pixel_size_A, rel=1e-11)
        assert "rlnOriginXAngst" in q.table
        assert np.array_equal(p.images([16, 3]), q.images([16, 3]))


def test_other_readers_read_what_is_written(tmp_path):
    p = vg.Particles.from_images(np.zeros((3, 8, 8)), 1.25, poses=vg.Poses(np.eye(3) * 30))
    vg.write_particles(tmp_path / "p.star", p)
    tables = cif_tables(tmp_path / "p.star")
    assert list(tables) == ["optics", "particles"]
    assert tables["optics"]["rlnImagePixelSize"] == ["1.25"]
    assert (tmp_path / "p.star").read_text().count("# version 30001\n") == 2


def test_images_in_memory_are_written_and_found_from_anywhere(tmp_path, monkeypatch):
    images = np.random.default_rng(0).normal(size=(5, 8, 8)).astype(np.float32)
    p = vg.Particles.from_images(images, 1.25)
    (tmp_path / "run").mkdir()
    vg.write_particles(tmp_path / "run" / "p.star", p[[4, 2]])
    monkeypatch.chdir(tmp_path)
    q = vg.read_particles("run/p.star")
    assert np.array_equal(q.images(), images[[4, 2]])
    # written elsewhere, the names follow
    vg.write_particles("q.star", q)
    (tmp_path / "sub").mkdir()
    monkeypatch.chdir(tmp_path / "sub")
    assert np.array_equal(vg.read_particles("../q.star").images(), images[[4, 2]])


def test_restack(tmp_path):
    images = np.arange(5, dtype=np.float32)[:, None, None] * np.ones((1, 4, 4), np.float32)
    vg.write_particles(tmp_path / "p.star", vg.Particles.from_images(images, 2.0))
    p = vg.read_particles(tmp_path / "p.star")[[3, 1]]
    vg.write_particles(tmp_path / "r.star", p, stack=tmp_path / "r.mrcs")
    q = vg.read_particles(tmp_path / "r.star")
    assert q.images()[:, 0, 0].tolist() == [3, 1]
    assert q.table["rlnImageName"].tolist() == ["000001@r.mrcs", "000002@r.mrcs"]


_words = st.text("abcXYZ019._-/@[], ", max_size=12).filter(lambda s: s not in ("nan", "NaN", "<NA>") and s[:1] != "_")
_floats = st.floats(allow_nan=False, allow_infinity=False, width=32)


@QUICK
@given(st.lists(st.tuples(_words, _floats, st.integers(-(2**53), 2**53)), min_size=1, max_size=8))
def test_any_table_round_trips(tmp_path_factory, rows):
    """Every value, to the last digit of a float32."""
    path = tmp_path_factory.mktemp("star") / "t.star"
    table = pd.DataFrame(rows, columns=["rlnSomeName", "rlnValue", "rlnCount"])
    write_star(path, {"t": table})
    got = read_star(path)["t"]
    assert got["rlnSomeName"].tolist() == table["rlnSomeName"].tolist()
    assert got["rlnCount"].tolist() == table["rlnCount"].tolist()
    assert np.array_equal(got["rlnValue"].to_numpy(np.float32), table["rlnValue"].to_numpy(np.float32))


def test_the_text_that_is_written(tmp_path):
    table = pd.DataFrame({"rlnSomeName": ["a b", "", "c"], "rlnValue": [0.1, np.nan, 1 / 3], "rlnCount": [1, 2, 3]})
    write_star(tmp_path / "t.star", {"g": {"rlnA": 3, "rlnB": "two words", "rlnC": ""}, "t": table})
    assert (tmp_path / "t.star").read_text() == (
        '\n# version 30001\n\ndata_g\n\n_rlnA\t\t\t3\n_rlnB\t\t\t"two words"\n_rlnC\t\t\t""\n\n\n'
        "\n# version 30001\n\ndata_t\n\nloop_\n_rlnSomeName #1\n_rlnValue #2\n_rlnCount #3\n"
        '"a b"\t0.1\t1\n""\tnan\t2\nc\t0.333333333333\t3\n\n\n'
    )


@pytest.mark.parametrize("value", ["it's", 'a"b', "a#b", "a\nb", "a\tb", "_x.mrc"])
def test_text_that_readers_misunderstand_is_refused(tmp_path, value):
    table = pd.DataFrame({"rlnMicrographName": ["fine", value]})
    with pytest.raises(vg.InputError, match=r"table 't', column rlnMicrographName: '?.*would be misread"):
        write_star(tmp_path / "t.star", {"t": table})
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "p.star"
    write_star(path, {"t": pd.DataFrame({"a": [1]})})
    before = path.read_text()

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(star, "write_loop", fail)
    with pytest.raises(OSError, match="disk full"):
        write_star(path, {"t": pd.DataFrame({"a": [2]})})
    assert path.read_text() == before
    assert [p.name for p in tmp_path.iterdir()] == ["p.star"]


def test_where_not_to_write(tmp_path):
    p = vg.Particles.from_images(np.zeros((1, 4, 4)), 1.0)
    with pytest.raises(vg.InputError, match=r"expected the suffix \.star, \.cs or \.par"):
        vg.write_particles(tmp_path / "p.txt", p)
    with pytest.raises(vg.InputError, match=r"folder .*nowhere does not exist"):
        vg.write_particles(tmp_path / "nowhere" / "p.star", p)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("p.star.gz", b"\x1f\x8b\x08", "but compressed by gzip: unpack it first"),
        ("p.star", "data_particles\n\nloop_\n".encode("utf-16"), "but text in UTF-16, as PowerShell's > writes it"),
        ("p.star", b"data_p\r\rloop_\r_rlnImageName\r1@a\r", "but text with the line ends of old Macintoshes"),
        ("p.star", b"<!DOCTYPE html><p>404", "but a web page: has the download failed?"),
        ("set.lst", b"#LSX\n# This file is in fast LST format.", r"but a list of EMAN2 \(.lst\)"),
        ("p.hdf", b"\x89HDF\r\n\x1a\n" + bytes(99), "but an HDF5 file, as of EMAN2"),
        ("p.sqlite", b"SQLite format 3\0", "but an SQLite database, as of Scipion"),
        ("J1.csg", b"created: 2024\ngroup:\n", "but a group file of cryoSPARC: give the .cs file"),
        ("poses.pkl", b"\x80\x04\x95", "but a Python pickle, as cryoDRGN keeps"),
        ("p.mrcs", bytes(208) + b"MAP " + bytes(900), "but an MRC file, images or a map"),
        ("o.star", b"data_optimiser_general\n_rlnExperimentalDataStarFile run_data.star\n", "RELION's optimiser file"),
        ("m.star", b"data_model_classes\nloop_\n_rlnReferenceImage #1\na.mrc\n", "RELION's model file"),
        ("p.xmd", b"# XMIPP_STAR_1 *\ndata_noname\nloop_\n _image\n _angleRot\n 1@a.stk 10\n", "metadata of Xmipp"),
    ],
)
def test_files_of_other_programs_are_called_what_they_are(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(vg.FormatError, match=message):
        vg.read_particles(tmp_path / name)
