"""Nothing that a command is given is written over by it; other slips of the shell end before the work."""

from __future__ import annotations

import io
import sys

import pytest
from command_line import main

import verglas as vg
from verglas._native import resolve_threads
from verglas.cli import app as application
from verglas.io.atomic import inputs_kept, write_text


@pytest.fixture
def folder(tmp_path):
    model = vg.simulate.phantom(16, 10.0, 100.0)
    particles = vg.simulate.particles(model, 20, 16, 10.0, snr=1.0, seed=1)
    vg.write_particles(tmp_path / "particles.star", particles, stack=tmp_path / "particles.mrcs")
    vg.write_map(tmp_path / "map.mrc", vg.reconstruct(particles))
    return tmp_path


@pytest.mark.parametrize(
    "words",
    [
        "reconstruct particles.star -o particles.star",
        "resample map.mrc map.mrc --box 8",
        "expand particles.star --sym C2 -o ./particles.star",
        "mask map.mrc --threshold 0.1 -o link.mrc",
    ],
)
def test_a_file_that_is_given_is_not_written_over(folder, words, capsys, monkeypatch):
    monkeypatch.chdir(folder)
    (folder / "link.mrc").symlink_to("map.mrc")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    status, _, error = main(words.split(), capsys)
    assert (status, "the job was given this file, which would be lost" in error) == (1, True)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.parametrize("job", ["refine particles.star --reference map.mrc", "class2d particles.star --classes 2"])
def test_a_job_says_before_its_work_that_its_results_have_the_names_of_its_inputs(folder, job, capsys, monkeypatch):
    monkeypatch.chdir(folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    status, _, error = main([*job.split(), "--diameter", "100", "--out", "."], capsys)
    assert (status, "particles.star is given, and" in error, "another folder (--out)" in error) == (1, True, True)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_another_file_and_a_result_of_the_time_before_are_written(folder, capsys, monkeypatch):
    monkeypatch.chdir(folder)
    for _ in range(2):
        assert main(["convert", "particles.star", "p.cs"], capsys)[0] == 0
    with inputs_kept([folder / "map.mrc"]):
        write_text(folder / "other.txt", "text")
    write_text(folder / "map.mrc", "no longer an input")


@pytest.mark.parametrize("argument", [["--out", ""], ["--out="], [""]])
def test_a_variable_of_the_shell_that_is_not_set(argument, capsys):
    status, _, error = main(["refine", "particles.star", *argument], capsys)
    assert (status, "is a variable of the shell not set?" in error) == (2, True)


def test_more_threads_than_can_be_started_are_refused():
    with pytest.raises(vg.InputError, match="threads: expected 1 to 4096"):
        resolve_threads(100_000)


def test_a_terminal_without_a_sign_gets_a_question_mark(monkeypatch):
    out = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", out)
    with pytest.raises(SystemExit) as end:
        application.main(["refine", "--help"])
    out.flush()
    assert end.value.code == 0
    assert b"--reference" in out.buffer.getvalue()


def test_what_is_no_file_is_called_what_it_is(tmp_path):
    (tmp_path / "link.star").symlink_to("nowhere.star")
    for path, words in (
        (tmp_path, "is a folder, expected a file"),
        (tmp_path / "link.star", "no such file, but a link that leads nowhere"),
        ("/dev/null", "a device or pipe, expected a file that can be read more than once"),
    ):
        for read in (vg.read_particles, vg.read_map):
            with pytest.raises(vg.FormatError, match=words):
                read(path)


def test_where_no_particle_can_be_used_the_reason_is_said():
    particles = vg.simulate.particles(vg.simulate.phantom(16, 10.0, 100.0), 20, 16, 10.0, snr=1.0, seed=1)
    with pytest.raises(vg.InputError, match=r"none of the 20 particles can be used; the first: .*scale"):
        vg.reconstruct(particles.with_columns(rlnCtfScalefactor=0.0))
