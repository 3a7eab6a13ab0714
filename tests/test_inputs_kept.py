"""Nothing that a command is given is written over by it; other slips of the shell end before the work."""

from __future__ import annotations

import importlib
import inspect
import io
import pkgutil
import re
import shutil
import sys
from pathlib import Path

import pytest
from command_line import main

import verglas as vg
import verglas.run
from verglas._native import resolve_threads
from verglas.cli import app as application
from verglas.io.atomic import remove_file, write_text
from verglas.io.inputs import inputs_kept
from verglas.run import kept_inputs
from verglas.run.reconstruct import ProjectJob, project_files


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("given")
    model = vg.simulate.phantom(16, 10.0, 100.0)
    particles = vg.simulate.particles(model, 20, 16, 10.0, snr=1.0, seed=1)
    vg.write_particles(folder / "particles.star", particles, stack=folder / "particles.mrcs", paths="star")
    vg.write_map(folder / "map.mrc", vg.reconstruct(particles))
    return folder


@pytest.fixture
def folder(made, tmp_path):
    return Path(shutil.copytree(made, tmp_path / "given"))


# A command with an input that it would write over: its own words, then what must be said. MAP is map.mrc and so on.
_OVER_ITSELF = {
    "mask": "map.mrc --threshold 0.1 -o link.mrc",
    "resample": "map.mrc map.mrc --new-box 8",
    "flip-hand": "map.mrc -o .",
    "fsc": "half1.mrc half2.mrc --plot half2.mrc",
    "simulate": "--model particles.star -o .",
    "project": "map.mrc --particles particles.star -o particles.mrcs",
    "class2d": "particles.star --classes 2 --diameter 100 -o .",
    "select": "particles.star --classes 1 -o particles.star",
    "merge": "particles.star particles.star -o particles.star",
    "outliers": "particles.star -o particles.star",
    "consensus": "particles.star particles.star -o particles.star",
    "check-bias": "particles.star --reference map.mrc --out map.mrc",
    "align": "particles.star --reference map.mrc -o particles.star",
    "abinitio": "particles.star --diameter 100 -o .",
    "reconstruct": "particles.star -o particles.mrcs",
    "refine": "particles.star --reference map.mrc --diameter 100 -o .",
    "heterogeneity": "particles.star -o particles.mrcs",
    "class3d": "particles.star --map map.mrc --map map_class1.mrc -o .",
    "variability": "particles.star -o .",
    "multibody": "particles.star --map map.mrc --mask mask.mrc --mask mask_body1.mrc -o .",
    "deform": "map.mrc deformed.mrc -o .",
    "subtract": "particles.star --map map.mrc --mask mask.mrc -o particles.star",
    "expand": "particles.star --sym C2 -o ./particles.star",
    "sieve": "particles.star --half1 half1.mrc --half2 half2.mrc --diameter 100 -o .",
    "postprocess": "half1.mrc half2.mrc --mask mask.mrc -o .",
    "directional": "half1.mrc half2.mrc --mask fsc3d.mrc -o .",
    "local-resolution": "half1.mrc half2.mrc --mask mask.mrc -o .",
    "local-sharpen": "map.mrc --half1 half1.mrc --half2 half2.mrc --mask mask.mrc -o .",
    "map-model": "map.mrc model_fitted.cif --resolution 10 -o .",
    "model-statistics": "model_fitted.cif model_fitted.cif -o model_fitted.cif",
    "orientations": None,  # tables only, under names that nobody gives it
    "tilt-pairs": "a.mrc --tilted b.mrc --untilted-picks class_01_tilted.star --tilted-picks picks.star --box 8 -o .",
    "tomogram": "map.mrc --tilt-angles pairs.csv --pixel-size 10 -o .",
    "bugreport": None,  # reads folders
    "convert": "particles.star particles.star",
    "gain": "movie.mrc -o movie.mrc",
    "motion": "micrographs.star -o .",
    "ctf": "micrographs_ctf.star -o .",
    "ctf-refine": "particles.star --fit defocus -o .",
    "polish": "particles.star shiny.star -o .",
    "denoise": "a_denoised.mrc b.mrc -o .",
    "screen": "micrographs.star -o .",
    "pick": "micrographs/a.mrc --diameter 90 --leave-out picks.star -o .",
    "extract": "micrographs/a.mrc --picks particles.star --box 16 -o .",
    "validate": None,  # reads a run, and writes under names of its own
    "deposit": None,  # refuses folders with a run
    "demo": None,  # reads nothing
    "process": None,  # every stage has a folder of its own in the project
}
_NAMES = (
    "half1",
    "half2",
    "mask",
    "mask_body1",
    "map_class1",
    "deformed",
    "fsc3d",
    "merged",
    "movie",
    "a_denoised",
    "b",
)
_LISTS = ["class_01_tilted", "micrographs", "micrographs_ctf", "classes", "shiny", "picks"]


def _contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def crowded(folder, monkeypatch):
    """Inputs under all names that jobs give to their results."""
    monkeypatch.chdir(folder)
    (folder / "link.mrc").symlink_to("map.mrc")
    for name in _NAMES:
        shutil.copy(folder / "map.mrc", folder / f"{name}.mrc")
    (folder / "micrographs").mkdir()
    shutil.copy(folder / "map.mrc", folder / "micrographs/a.mrc")
    for name in _LISTS:
        text = f"data_{name}\nloop_\n_rlnMicrographName\nmicrographs/a.mrc\n"
        (folder / f"{name}.star").write_text(text, encoding="utf-8")
    (folder / "model_fitted.cif").write_text("data_model\n", encoding="utf-8")
    (folder / "pairs.csv").write_text("untilted,tilted,tilt_deg\n", encoding="utf-8")
    return folder


def test_every_command_with_an_output_is_tried_below():
    application._program([])
    outputs = {"out", "target", "plot", "figure"}
    named = {
        str(one.name or inspect.unwrap(one.callback).__name__).replace("_", "-")
        for one in application.app.registered_commands
        if outputs & set(inspect.signature(inspect.unwrap(one.callback)).parameters)
    }
    assert named == set(_OVER_ITSELF)


@pytest.mark.parametrize("command", [name for name, words in _OVER_ITSELF.items() if words is not None])
def test_no_command_writes_over_what_it_is_given_or_what_that_names(crowded, command, capsys):
    before = _contents(crowded)
    status, _, error = main([command, *_OVER_ITSELF[command].split()], capsys)
    assert status == 1, error
    assert _contents(crowded) == before
    # Before the work, and in words that say which file, and what to do about it.
    assert re.search(r"(given|read), and .* writes .*(would be lost); name another|would be written over itself", error)


def test_a_file_that_no_list_knows_is_refused_when_it_would_be_written(folder, capsys, monkeypatch):
    monkeypatch.chdir(folder)
    monkeypatch.setattr(kept_inputs, "_IN_FOLDER", {})
    monkeypatch.setattr(kept_inputs, "_targets_beside", lambda *_: {})
    before = _contents(folder)
    for words, why in (
        ("project map.mrc --particles particles.star -o particles.mrcs", "reads this file"),
        ("project map.mrc --particles particles.star -o other.mrcs", None),
        ("reconstruct particles.star -o map.mrc", None),
        ("reconstruct particles.star -o particles.mrcs", "reads this file"),
        ("resample map.mrc map.mrc --new-box 8", "was given this file"),
    ):
        status, _, error = main(words.split(), capsys)
        assert (status, why is None or why in error) == (int(why is not None), True), error
    after = _contents(folder)
    assert all(after[path] == content for path, content in before.items() if path.name != "map.mrc")


def test_from_python_jobs_keep_what_they_are_given(folder, monkeypatch):
    monkeypatch.chdir(folder)
    before = _contents(folder)
    particles = vg.read_particles("particles.star")
    particles.images()  # its stack was read before any job began
    for out in (".", folder):
        with pytest.raises(vg.InputError, match=r"refine: .*particles.star is given, and refine writes a .*\(out=\)"):
            vg.refine(particles, "map.mrc", diameter_A=100.0, out=out, listener=None)
    # The images are named by the particles, whether or not the job reads them.
    poses = folder / "poses.star"
    (folder / "particles.star").rename(poses)
    with pytest.raises(vg.InputError, match=r"project: .*particles.mrcs is read, and project writes it: .*\(out=\)"):
        project_files(ProjectJob(folder / "map.mrc", folder / "particles.mrcs", poses), listener=None)
    poses.rename(folder / "particles.star")
    assert _contents(folder) == before


def test_results_of_nobody_knows_what_are_not_written_over(folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    (folder / "new").mkdir()
    (folder / "new/map.mrc").write_bytes(b"somebody's")
    for words in ("refine particles.star --reference map.mrc --diameter 100", "postprocess half1.mrc half2.mrc"):
        status, _, error = main([*words.split(), "--out", "new"], capsys)
        assert status == 1
        assert "new/map.mrc is there, and no earlier run" in error
    assert (folder / "new/map.mrc").read_bytes() == b"somebody's"
    (folder / "new/stage.json").write_text("{}")  # of a project, which may have taken the record of a killed run away
    with kept_inputs.keep_inputs("refine", {"out": folder / "new"}):
        pass


def test_what_a_job_wrote_or_an_earlier_run_left_is_its_own(folder):
    (folder / "old").mkdir()
    shutil.copy(folder / "map.mrc", folder / "old/map.mrc")
    shutil.copy(folder / "map.mrc", folder / "old/mask.mrc")
    with inputs_kept([folder / "map.mrc", folder / "old/mask.mrc"], own=folder / "old"):
        vg.write_map(folder / "new.mrc", vg.read_map(folder / "map.mrc"))
        for name in ("new.mrc", "old/map.mrc"):
            vg.write_map(folder / name, vg.read_map(folder / name))
        for name in ("map.mrc", "old/mask.mrc"):
            with pytest.raises(vg.InputError, match="was given this file"):
                vg.write_map(folder / name, vg.read_map(folder / "new.mrc"))
            with pytest.raises(vg.InputError, match="was given this file"):
                remove_file(folder / name)
        with inputs_kept([]):  # a job within a job
            other = vg.read_map(folder / "new.mrc")
        vg.write_map(folder / "new.mrc", other)
    vg.write_map(folder / "map.mrc", other)


@pytest.mark.parametrize(
    ("command", "record"), [("postprocess", "postprocess.json"), ("ctf-refine", "ctf_refine.json")]
)
def test_an_earlier_result_of_a_job_is_its_own_whatever_its_record_is_called(command, record, folder):
    """Read in its own folder (a picture of the map before, to go on from) it may be made again."""
    old = folder / "old"
    old.mkdir()
    shutil.copy(folder / "map.mrc", old / "half1.mrc")
    (old / record).write_text("{}")
    with kept_inputs.keep_inputs(command, {"out": old, "half1": folder / "map.mrc"}):
        vg.write_map(old / "half1.mrc", vg.read_map(old / "half1.mrc"))


def test_jobs_of_two_threads_end_in_any_order(folder):
    first, second = inputs_kept([folder / "map.mrc"]), inputs_kept([folder / "particles.star"])
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    with pytest.raises(vg.InputError, match="was given this file"):
        write_text(folder / "particles.star", "another")
    second.__exit__(None, None, None)
    # nothing is left of either: what is read from now on may be written over
    vg.write_map(folder / "map.mrc", vg.read_map(folder / "map.mrc"))


# They read nothing that is a user's, or are parts of jobs that are asked for it.
_NO_JOBS = {
    "bugreport.bugreport",
    "demo.demo",
    "refine_folder.refine_folder",
    "simulate.describe",
    "tilt_merge.write_merged",
}


def test_every_job_that_writes_is_one_that_keeps_its_inputs():
    missing = []
    for module in pkgutil.iter_modules(verglas.run.__path__):
        loaded = importlib.import_module(f"verglas.run.{module.name}")
        for name, job in inspect.getmembers(loaded, inspect.isfunction):
            if job.__module__ != loaded.__name__ or name.startswith("_"):
                continue
            parameters = inspect.signature(job).parameters
            described = any("Job" in str(one.annotation) for one in parameters.values()) and "listener" in parameters
            if ("out" in parameters or described) and not hasattr(job, "keeps_inputs_of"):
                missing.append(f"{module.name}.{name}")
    assert set(missing) == _NO_JOBS


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
