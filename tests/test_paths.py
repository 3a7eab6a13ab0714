"""Names in files: read by RELION from the project's folder, found by us from wherever the file lies."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import verglas as vg
from verglas.io import read_header, read_micrographs, read_picks, read_star, write_picks, write_stack, write_star
from verglas.io.rules import project_folder, use_file_rules, written_name
from verglas.types import Picks


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder of a project, in which the user works: one stack, its STAR file in a job's folder."""
    root = tmp_path / "project"
    (root / "Extract" / "job012").mkdir(parents=True)
    monkeypatch.chdir(root)
    images = np.arange(4, dtype=np.float32)[:, None, None] * np.ones((1, 8, 8), np.float32)
    (root / "mics").mkdir()
    (root / "mics" / "a.mrc").write_bytes(b"x")
    write_stack("Extract/job012/a.mrcs", images, 2.0)
    optics = {"rlnOpticsGroup": 1, "rlnImagePixelSize": 2.0}
    rows = pd.DataFrame(
        {
            "rlnImageName": [f"{i}@Extract/job012/a.mrcs" for i in range(1, 5)],
            "rlnMicrographName": "mics/a.mrc",
            "rlnOpticsGroup": 1,
        }
    )
    write_star("Extract/job012/particles.star", {"optics": optics, "particles": rows})
    return root


def stacks(path):
    return sorted({text.partition("@")[2] for text in read_star(path)["particles"]["rlnImageName"]})


def test_stacks_are_found_from_the_folders_above_the_file(project, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = vg.read_particles(project / "Extract" / "job012" / "particles.star")
    assert found.images()[:, 0, 0].tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("style", "stack", "micrograph"),
    [
        ("relion", "Extract/job012/a.mrcs", "mics/a.mrc"),
        ("star", "../Extract/job012/a.mrcs", "../mics/a.mrc"),
        ("absolute", "{root}/Extract/job012/a.mrcs", "{root}/mics/a.mrc"),
    ],
)
def test_the_rule_of_all_writers(project, style, stack, micrograph):
    (project / "sub").mkdir()
    p = vg.read_particles("Extract/job012/particles.star")[[3, 1]]
    vg.write_particles("sub/q.star", p, paths=style)
    assert stacks("sub/q.star") == [stack.format(root=project)]
    # both names of a row start from one folder
    assert read_star("sub/q.star")["particles"]["rlnMicrographName"].tolist() == [micrograph.format(root=project)] * 2
    with use_file_rules(paths=style):
        vg.write_particles("sub/r.star", p)
        vg.write_particles("sub/n.star", p, stack="sub/n.mrcs")
    assert (project / "sub" / "q.star").read_text() == (project / "sub" / "r.star").read_text()
    for name in ("q", "r", "n"):
        assert vg.read_particles(f"sub/{name}.star").images()[:, 0, 0].tolist() == [3, 1]


def test_names_outside_of_the_project(project, tmp_path, monkeypatch):
    """RELION, started in the project, finds absolute names; a folder elsewhere stays one that can be moved."""
    p = vg.read_particles("Extract/job012/particles.star")
    (tmp_path / "other").mkdir()
    vg.write_particles(tmp_path / "other" / "q.star", p)
    assert stacks(tmp_path / "other" / "q.star") == [f"{project}/Extract/job012/a.mrcs"]
    vg.write_particles(tmp_path / "other" / "n.star", p, stack=tmp_path / "other" / "n.mrcs")
    assert stacks(tmp_path / "other" / "n.star") == ["n.mrcs"]
    (tmp_path / "other").rename(tmp_path / "moved")
    assert vg.read_particles(tmp_path / "moved" / "n.star").images()[:, 0, 0].tolist() == [0, 1, 2, 3]
    # below the folder that holds RELION's pipeline, that is the project
    (project / "default_pipeline.star").write_text("data_\n")
    monkeypatch.chdir(project / "Extract")
    assert project_folder() == project
    vg.write_particles("s.star", p)
    assert stacks("s.star") == ["Extract/job012/a.mrcs"]


def test_links_to_storage_are_not_followed(project, tmp_path):
    (project / "Extract" / "job012").rename(tmp_path / "storage")
    (project / "Extract" / "job012").symlink_to(tmp_path / "storage")
    p = vg.read_particles("Extract/job012/particles.star")
    vg.write_particles("q.star", p)
    assert stacks("q.star") == ["Extract/job012/a.mrcs"]


def test_stacks_that_were_moved_are_found_by_their_root(project, tmp_path):
    (project / "Extract").rename(tmp_path / "elsewhere")
    star = tmp_path / "elsewhere" / "job012" / "particles.star"
    with pytest.raises(vg.FormatError, match=r"a\.mrcs not found; .*stack_root= the folder .*or path_map="):
        vg.read_particles(star).images()
    assert vg.read_particles(star, stack_root=tmp_path / "elsewhere").images()[:, 0, 0].tolist() == [0, 1, 2, 3]
    with use_file_rules(stack_roots=(tmp_path / "elsewhere",)):
        assert len(vg.read_particles(star).images()) == 4
    with pytest.raises(vg.InputError, match=r"stack_root= .*nowhere: no such folder"):
        vg.read_particles(star, stack_root=tmp_path / "nowhere")


def test_the_options_may_stand_anywhere_and_messages_name_them(project, tmp_path, run):
    (project / "Extract").rename(tmp_path / "elsewhere")
    star = tmp_path / "elsewhere" / "job012" / "particles.star"
    restacked = ["convert", star, "q.star", "--restack", "q.mrcs"]
    status, _, error = run(*restacked)
    assert status == 1
    assert "--stack-root the folder that the names start from, or verglas convert --map-prefix" in error
    assert run(*restacked, "--stack-root", tmp_path / "elsewhere", "--paths=absolute")[0] == 0
    assert stacks("q.star") == [f"{project}/q.mrcs"]
    assert run("--paths", "star", "convert", "q.star", "r.star")[0] == 0
    assert stacks("r.star") == ["q.mrcs"]
    status, _, error = run(*restacked, "--paths", "relative")
    assert status == 2
    assert "expected relion, star, absolute, got relative" in error


def test_all_maps_of_a_command_are_written_in_half_the_space_where_that_is_asked_for(tmp_path, run, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = np.random.default_rng(0).normal(size=(8, 8, 8)).astype(np.float32)
    vg.write_map("m.mrc", vg.Map(data, 2.0))
    assert run("mask", "m.mrc", "--out", "whole.mrc", "--diameter", "12")[0] == 0
    assert run("mask", "m.mrc", "--out", "half.mrc", "--diameter", "12", "--map-dtype", "float16")[0] == 0
    assert [read_header(f"{name}.mrc").mode for name in ("whole", "half")] == [2, 12]
    assert np.allclose(vg.read_map("half.mrc").data, vg.read_map("whole.mrc").data, atol=1e-3)
    status, _, error = run("--map-dtype", "int8", "mask", "m.mrc", "--out", "a.mrc")
    assert (status, "expected float32, float16, got int8" in error) == (2, True)
    with use_file_rules(map_dtype="float16"), pytest.warns(vg.errors.VerglasWarning, match="written as float32"):
        vg.write_map("large.mrc", vg.Map(1e6 * data, 2.0))
    assert read_header("large.mrc").mode == 2
    with pytest.raises(vg.InputError, match="map_dtype: expected float32, float16"), use_file_rules(map_dtype="int8"):
        pass


def test_another_pixel_size_in_the_header_is_refused_without_a_flag(project, run):
    text = (project / "Extract/job012/particles.star").read_text()
    (project / "p.star").write_text(text.replace("\t2\n", "\t2.08\n").replace("\t\t\t2.0\n", "\t\t\t2.08\n"))
    assert vg.read_particles("p.star").pixel_size_A == 2.08
    with pytest.raises(
        vg.FormatError, match=r"2\.08 A, but .* has 2 A in its header, 3\.8 % apart; .*any_pixel_size=T"
    ):
        vg.read_particles("p.star").images()
    with pytest.warns(vg.VerglasWarning, match=r"2 A in the header; 2\.08 A of .* is used as asked"):
        vg.read_particles("p.star", any_pixel_size=True).images()
    status, _, error = run("convert", "p.star", "q.star", "--restack", "q.mrcs")
    assert status == 1
    assert "(--any-pixel-size)" in error
    assert run("convert", "p.star", "q.star", "--restack", "q.mrcs", "--any-pixel-size")[0] == 0


def test_picks_are_a_list_of_files_as_relion_4_reads_it(project):
    (project / "pick").mkdir()
    picks = {
        "mics/a.mrc": Picks([[1, 2]], "mics/a.mrc", {"rlnAutopickFigureOfMerit": [0.5]}),
        "other/a.mrc": Picks([[3, 4], [5, 6]], "other/a.mrc"),
        "mics/none.mrc": Picks(np.zeros((0, 2)), "mics/none.mrc"),
    }
    written = write_picks("pick/picks.star", picks)
    listed = read_star("pick/picks.star")["coordinate_files"]
    assert listed["rlnMicrographName"].tolist() == list(picks)
    # RELION, started in the project, reads each
    for name, file in zip(listed["rlnMicrographName"], listed["rlnMicrographCoordinates"], strict=True):
        table = next(iter(read_star(project / file).values()))
        assert table[["rlnCoordinateX", "rlnCoordinateY"]].to_numpy().tolist() == picks[name].xy_px.tolist()
    assert len(written) == 4
    found = {name: p.xy_px.tolist() for name, p in read_picks("pick/picks.star").items()}
    assert found == {name: p.xy_px.tolist() for name, p in picks.items() if len(p)}
    write_picks("pick/old.star", picks, one_file=True)
    assert read_star("pick/old.star")[""]["rlnMicrographName"].tolist() == ["mics/a.mrc", "other/a.mrc", "other/a.mrc"]


def test_extraction_from_the_project_s_folder_is_read_from_there(project):
    data = np.random.default_rng(0).normal(size=(1, 40, 40)).astype(np.float32)
    vg.write_map("mics/a.mrc", vg.Map(data, 2.0))
    vg.extract("mics/a.mrc", Picks([[20, 20]], "mics/a.mrc"), 16, out="cut")
    assert stacks("cut/particles.star") == ["cut/stacks/a.mrcs"]
    assert read_star("cut/particles.star")["particles"]["rlnMicrographName"].tolist() == ["mics/a.mrc"]
    (project / "m.star").write_text("data_\n\nloop_\n_rlnMicrographName\nmics/a.mrc\n")
    assert read_micrographs(project / "m.star")["path"].tolist() == [str(project / "mics/a.mrc")]


def test_an_unknown_style():
    with pytest.raises(vg.InputError, match="paths: expected relion, star, absolute, got 'x'"):
        written_name("a", Path("b"), "x")
