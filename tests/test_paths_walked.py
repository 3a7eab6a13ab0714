"""Paths and pixel sizes walked by command: what RELION reads from the project's folder, what is read from elsewhere."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import verglas as vg
from verglas.io import read_star, write_star
from verglas.io.stack import StackSource

SET = "Extract/job012/particles.star"
SIZES = ["--diameter", "60"]

# All commands that read images of particles, each as far as its first image.
READERS: dict[str, list[str]] = {
    "reconstruct": [SET, "--out", "m.mrc"],
    "align": [SET, "--reference", "map.mrc", *SIZES, "--out", "a.star"],
    "refine": [SET, "--reference", "map.mrc", *SIZES, "--out", "r"],
    "class2d": [SET, "--classes", "2", *SIZES, "--out", "c"],
    "class3d": [SET, "--map", "map.mrc", "--classes", "2", *SIZES, "--out", "k"],
    "abinitio": [SET, *SIZES, "--out", "i"],
    "heterogeneity": [SET, *SIZES],
    "variability": [SET, *SIZES, "--out", "v"],
    "sieve": [SET, *SIZES, "--out", "s"],
    "subtract": [SET, "--map", "map.mrc", "--mask", "mask.mrc", "--out", "t.star"],
    "multibody": [SET, "--map", "map.mrc", "--mask", "mask.mrc", "--mask", "mask.mrc", "--out", "b"],
    "ctf-refine": [SET, *SIZES, "--out", "f"],
    "check-bias": [SET, "--reference", "map.mrc", *SIZES, "--out", "x"],
    "convert": [SET, "q.star", "--restack", "q.mrcs"],
}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A project: sixty particles extracted in a job's folder, named from the project's; a map, a mask."""
    root = tmp_path_factory.mktemp("walk") / "project"
    (root / SET).parent.mkdir(parents=True)
    model = vg.simulate.phantom(16, 6.0, 60.0)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        particles = vg.simulate.particles(model, 60, 16, 6.0, 0.5, seed=1)
        vg.write_particles(SET, particles, stack="Extract/job012/a.mrcs")
        volume = vg.simulate.density(model, 16, 6.0)
        vg.write_map("map.mrc", volume)
        vg.write_map("mask.mrc", vg.Map((volume.data > 0.2 * volume.data.max()).astype(np.float32), 6.0))
    return root


@pytest.fixture
def project(made, tmp_path, monkeypatch):
    root = tmp_path / "project"
    shutil.copytree(made, root)
    monkeypatch.chdir(root)
    return root


class Reached(vg.InputError):
    """The first image was read."""


@pytest.fixture
def until_the_first_image(monkeypatch):
    """Reading of images ends the command, once stacks were found and their headers checked."""

    def read(self, rows):
        for stack in np.unique(self.stack_of[rows]):
            self.header(int(stack))
        raise Reached("the first image was reached")

    monkeypatch.setattr(StackSource, "read", read)


@pytest.mark.parametrize("command", READERS)
def test_every_reader_of_images_finds_them_and_checks_them(command, project, tmp_path, run, until_the_first_image):
    """Moved stacks: the message names --stack-root, which helps, wherever it stands. Other pixel sizes: refused."""
    arguments = READERS[command]
    (project / "Extract/job012/a.mrcs").rename(tmp_path / "a.mrcs")
    status, _, error = run(command, *arguments)
    assert status == 1
    assert "a.mrcs not found" in error
    assert "--stack-root" in error
    status, _, error = run(command, *arguments, "--stack-root", tmp_path)
    assert (status, "the first image was reached" in error) == (1, True), error
    star = read_star(SET)
    write_star(SET, {**star, "optics": star["optics"].assign(rlnImagePixelSize=6.24)})
    for name in ("map.mrc", "mask.mrc"):  # of the wrong size as well: it is the particles that are refused
        vg.write_map(name, vg.Map(vg.read_map(name).data, 6.24))
    status, _, error = run(command, *arguments, "--stack-root", tmp_path)
    assert status == 1
    assert "pixel size 6.24 A, but" in error
    assert "--any-pixel-size" in error


# The commands that read particles for their rows alone.
ROWS: dict[str, list[str]] = {
    "expand": [SET, "--symmetry", "D2", "--out", "e.star"],
    "orientations": [SET, "--out", "w"],
    "merge": [SET, "--out", "all.star"],
    "select": [SET, "--classes", "1", "--out", "sel.star"],
    "flip-hand": [SET, "--out", "flipped"],
    "check-conventions": [SET],
    "project": ["map.mrc", "--particles", SET, "--out", "pr.mrcs"],
}


@pytest.mark.parametrize(
    ("table", "label", "value", "words"),
    [
        ("particles", "rlnOriginXAngst", np.nan, "rlnOriginXAngst, row 7 (from 0): expected a finite number, got nan"),
        ("particles", "rlnAngleTilt", np.nan, "rlnAngleTilt, row 7 (from 0): expected a finite number, got nan"),
        ("optics", "rlnImagePixelSize", 1e29, "rlnImagePixelSize: expected 0.01 to 1000 A, got 1e+29"),
        ("optics", "rlnVoltage", -1.0, "rlnVoltage: expected 10 to 3000 kV, got -1"),
        ("optics", "rlnImageSize", 0, "rlnImageSize: expected at least 1 pixel, got 0"),
    ],
)
def test_impossible_values_are_refused_by_every_command(table, label, value, words, project, run):
    """Also by those that make no use of them: they would hand them on. They are refused in one place: a few will do."""
    star = read_star(SET)
    values = star[table][label].to_numpy(np.float64).copy()
    values[7 if table == "particles" else slice(None)] = value
    write_star(SET, {**star, table: star[table].assign(**{label: values})})
    every = {**READERS, **ROWS}
    for command, arguments in (every if label == "rlnOriginXAngst" else {"merge": every["merge"]}).items():
        status, _, error = run(command, *arguments)
        assert (status, words in error) == (1, True), (command, error)


def test_a_project_is_read_from_elsewhere(project, tmp_path, run, monkeypatch):
    """The folders above the STAR file are tried until the stack is there."""
    monkeypatch.chdir(tmp_path)
    assert run("convert", project / SET, "q.star", "--restack", "q.mrcs")[0] == 0
    np.testing.assert_array_equal(vg.read_particles("q.star").images(), vg.read_particles(project / SET).images())


@pytest.fixture
def micrographs(tmp_path, monkeypatch):
    """A project with one micrograph in a folder, in which the user works."""
    root = tmp_path / "project"
    (root / "mics").mkdir(parents=True)
    monkeypatch.chdir(root)
    model = vg.simulate.phantom(48, 3.0, 100.0)
    m, _ = vg.simulate.micrograph(model, shape=(400, 400), pixel_size_A=3.0, n=9, snr=0.3, seed=2)
    vg.io.write_micrograph("mics/a.mrc", m)
    return root


GIVEN = ["--voltage", "300", "--cs", "2.7", "--amplitude-contrast", "0.1"]


def test_every_stage_hands_over_what_relion_resolves_from_the_project_s_folder(micrographs, run, blank_figures):
    """Names of ctf, pick and extract, read as RELION reads them: from the folder in which it is started."""
    assert run("ctf", "mics/*.mrc", *GIVEN, "--out", "ctf")[0] == 0
    table = read_star("ctf/micrographs_ctf.star")["micrographs"]
    assert table["rlnMicrographName"].tolist() == ["mics/a.mrc"]
    assert run("pick", "ctf/micrographs_ctf.star", "--diameter", "100", "--out", "pick")[0] in (0, 1)  # a verdict
    listed = read_star("pick/picks.star")["coordinate_files"]
    assert listed["rlnMicrographName"].tolist() == ["mics/a.mrc"]
    [coordinates] = listed["rlnMicrographCoordinates"]
    xy = next(iter(read_star(micrographs / coordinates).values()))
    assert len(xy) >= 5
    cut = ["--picks", "pick/picks.star", "--box", "40", "--diameter", "100", "--out", "cut"]
    assert run("extract", "ctf/micrographs_ctf.star", *cut)[0] in (0, 1)
    particles = read_star("cut/particles.star")["particles"]
    number, _, stack = particles["rlnImageName"].iloc[0].partition("@")
    assert (int(number), stack) == (1, "cut/stacks/a.mrcs")
    for name in (stack, *particles["rlnMicrographName"].unique()):
        assert (micrographs / name).is_file(), name
    write_star("classes.star", {**read_star("cut/particles.star"), "particles": particles.assign(rlnClassNumber=1)})
    assert run("select", "classes.star", "--classes", "1", "--out", "kept.star")[0] == 0
    kept = read_star("kept.star")["particles"]
    pd.testing.assert_frame_equal(
        kept[["rlnImageName", "rlnMicrographName"]], particles[["rlnImageName", "rlnMicrographName"]]
    )


def test_a_list_of_another_pixel_size_is_refused_by_every_stage_of_micrographs(micrographs, run, blank_figures):
    """Header 3 A, list 3.12 A; asked for by a person it is used, with a warning."""
    Path("list.star").write_text(
        "data_optics\n\nloop_\n_rlnOpticsGroup\n_rlnMicrographPixelSize\n1 3.12\n\n"
        "data_micrographs\n\nloop_\n_rlnMicrographName\n_rlnOpticsGroup\nmics/a.mrc 1\n"
    )
    labels = "".join(f"_rln{label}\n" for label in ("MicrographName", "CoordinateX", "CoordinateY"))
    Path("picks.star").write_text(f"data_\n\nloop_\n{labels}mics/a.mrc 99 99\n")
    stages = {
        "ctf": [*GIVEN, "--out", "o1"],
        "pick": ["--diameter", "100", "--out", "o2"],
        "extract": ["--picks", "picks.star", "--box", "32", "--out", "o3"],
    }
    for command, more in stages.items():
        status, _, error = run(command, "list.star", *more)
        assert status == 1, command
        assert "3.12 A, but" in error, (command, error)
        assert "--any-pixel-size" in error, (command, error)
    assert run("extract", "list.star", *stages["extract"], "--any-pixel-size")[0] in (0, 1)
    assert vg.read_particles("o3/particles.star").pixel_size_A == pytest.approx(3.12)
    shutil.rmtree("o3")
    assert run("extract", "list.star", *stages["extract"], "--pixel-size", "3.06")[0] in (0, 1)
    assert vg.read_particles("o3/particles.star").pixel_size_A == pytest.approx(3.06)
