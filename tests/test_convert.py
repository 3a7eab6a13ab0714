"""``verglas convert``: the command and the job behind it (issue: Files)."""

from __future__ import annotations

import json

import numpy as np
import pytest

import verglas as vg
from verglas.run.convert import ConvertOptions, convert


@pytest.fixture
def cs_file(data_dir):
    return data_dir / "particles" / "cryosparc_P12_J24_001_particles.cs"


def test_cs_to_star_to_cs(run, tmp_path, cs_file):
    status, out, err = run("convert", cs_file, tmp_path / "p.star", "--json")
    assert status == 0
    assert err.count("\n") == 1
    assert err.startswith("verglas: warning: ")
    assert "the images are stored dark" in err
    done = json.loads(out)
    raw = np.load(cs_file)
    assert done["particles"] == 2019
    assert done["half_sets"] == [int((raw["alignments3D/split"] == k).sum()) for k in (0, 1)]
    status, out, _ = run("convert", tmp_path / "p.star", tmp_path / "q.cs")
    assert status == 0
    assert out.endswith("q.cs: 2019 particles\n")
    assert np.array_equal(np.load(tmp_path / "q.cs")["uid"], raw["uid"])


def test_map_types_and_compressions(run, tmp_path):
    m = vg.Map(np.arange(8).reshape(2, 2, 2), 1.5)
    vg.write_map(tmp_path / "a.mrc", m)
    assert run("convert", tmp_path / "a.mrc", tmp_path / "b.map.gz", "--dtype", "int8")[0] == 0
    assert np.array_equal(vg.read_map(tmp_path / "b.map.gz").data, m.data)
    convert(tmp_path / "b.map.gz", tmp_path / "c.mrc", ConvertOptions(dtype="float16"))
    assert vg.read_map(tmp_path / "c.mrc").pixel_size_A == 1.5


def test_restack_and_prefixes(run, tmp_path):
    images = np.arange(3, dtype=np.float32)[:, None, None] * np.ones((1, 4, 4), np.float32)
    vg.write_particles(tmp_path / "p.star", vg.Particles.from_images(images, 2.0))
    (tmp_path / "moved").mkdir()
    (tmp_path / "p.mrcs").rename(tmp_path / "moved" / "p.mrcs")
    status, _, _ = run(
        "convert",
        tmp_path / "p.star",
        tmp_path / "q.cs",
        "--restack",
        tmp_path / "q.mrcs",
        "--map-prefix",
        f"p={tmp_path}/moved/p",
    )
    assert status == 0
    assert np.array_equal(vg.read_particles(tmp_path / "q.cs").images(), images)


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["a.doc", "b.star"], 2, "cannot tell the format"),
        (["a.star", "b.mrc"], 2, "cannot convert"),
        (["a.star", "b.cs", "--map-prefix", "x"], 2, "expected OLD=NEW"),
        (["a.mrc"], 2, "Missing argument"),
        (["a.mrc", "b.mrc", "--pixel-size", "-1"], 2, "expected more than 0"),
        (["nowhere.star", "b.cs"], 1, "nowhere.star: no such file"),
        (["nowhere.mrc", "b.map"], 1, "no such file"),
    ],
)
def test_exit_status_and_one_line(run, tmp_path, monkeypatch, arguments, status, message):
    monkeypatch.chdir(tmp_path)
    got, _, err = run("convert", *arguments)
    assert got == status
    assert message in " ".join(err.replace("│", " ").split())
    assert "Traceback" not in err


def test_onto_itself_is_refused(tmp_path):
    vg.write_map(tmp_path / "a.mrc", vg.Map(np.zeros((2, 2, 2)), 1.0))
    with pytest.raises(vg.InputError, match="the same file"):
        convert(tmp_path / "a.mrc", tmp_path / "a.mrc")


def test_help_has_units_and_examples(run):
    status, out, _ = run("convert", "--help")
    assert status == 0
    assert "angstrom" in out
    assert "verglas convert" in out


def test_warnings_are_one_line(run, tmp_path, data_dir):
    _, _, err = run("convert", data_dir / "particles" / "rln_proj_65.star", tmp_path / "p.star")
    assert all(line.startswith("verglas: warning: ") for line in err.splitlines())
    assert "no optics table" in err


def test_coordinates_of_other_pickers_become_star_files(run, tmp_path, cs_file):
    """A folder of boxes, a table of topaz and picks of cryoSPARC; scores and boxes stay, other targets are refused."""
    (tmp_path / "boxes").mkdir()
    for name in ("a", "b"):
        (tmp_path / "boxes" / f"{name}.box").write_text("10 20 64 64\n30 40 64 64\n")
    status, out, _ = run("convert", tmp_path / "boxes", tmp_path / "picks.star", "--json")
    assert status == 0
    assert json.loads(out)["micrographs"] == 2
    found = vg.io.read_picks(tmp_path / "picks.star")
    assert found["b"].xy_px.tolist() == [[42, 52], [62, 72]]
    assert found["a"].columns["verglasBoxWidth"].tolist() == [64, 64]
    # RELION's list of files is coordinates again, and so is a table of topaz
    assert run("convert", tmp_path / "picks.star", tmp_path / "one.star", "--one-file")[0] == 0
    assert vg.io.read_picks(tmp_path / "one.star")["a"].xy_px.tolist() == [[42, 52], [62, 72]]
    (tmp_path / "topaz.txt").write_text("image_name\tx_coord\ty_coord\tscore\na\t3\t4\t-1.5\n")
    status, out, _ = run("convert", tmp_path / "topaz.txt", tmp_path / "t.star", "--one-file")
    assert out.endswith("t.star: 1 picks of 1 micrographs\n")
    assert vg.io.read_picks(tmp_path / "t.star")["a"].columns["rlnAutopickFigureOfMerit"].tolist() == [-1.5]
    status, _, err = run("convert", tmp_path / "topaz.txt", tmp_path / "t.cs")
    assert status == 2
    assert "coordinates are written as .star" in " ".join(err.split())
    (tmp_path / "boxes" / "c.cbox").write_text("")
    status, _, err = run("convert", tmp_path / "boxes", tmp_path / "again.star")
    assert status == 1
    assert "holds files of .box and .cbox" in err
