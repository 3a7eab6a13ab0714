"""verglas demo: what it finds is right, what it writes is whole, and both are the same each time."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

import verglas as vg
from verglas.run.demo import DemoSettings, demo

SMALL = DemoSettings(n=240, box=40, pixel_size_A=3.2, diameter_A=85.0, snr=0.5)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return demo(tmp_path_factory.mktemp("demo") / "new" / "folder", SMALL)


def test_every_file_is_there_and_readable(made):
    names = {"report.html", "overview.png", "map.mrc", "half1.mrc", "half2.mrc", "truth.mrc", "particles.star"}
    assert names <= {path.name for path in made.folder.iterdir()}
    for name in ("map", "half1", "half2", "truth"):
        found = vg.read_map(made.folder / f"{name}.mrc")
        assert (found.box, found.pixel_size_A) == (SMALL.box, pytest.approx(SMALL.pixel_size_A))
    particles = vg.read_particles(made.folder / "particles.star")
    assert len(particles) == SMALL.n
    assert len(particles.poses) == SMALL.n


def test_the_map_is_the_truth_to_the_resolution_that_is_stated(made):
    """Half-map FSC 0.143 and truth FSC 0.5 are the same resolution where the statistics hold."""
    nyquist_A = 2 * SMALL.pixel_size_A
    assert made.resolution_A < 2 * nyquist_A
    assert made.resolution_A == pytest.approx(made.half_map_resolution_A, rel=0.12)
    halves = [vg.read_map(made.folder / f"half{i}.mrc") for i in (1, 2)]
    assert np.array_equal(vg.fsc(*halves).curve, made.between_halves.curve)
    assert vg.fsc(vg.read_map(made.folder / "map.mrc"), vg.read_map(made.folder / "truth.mrc")).curve[1:5].min() > 0.9


def test_the_summary_is_what_was_found(made):
    found = json.loads((made.folder / "demo.json").read_text())
    assert found["resolution_against_truth_A"] == pytest.approx(made.resolution_A, abs=1e-3)
    assert found["resolution_between_halves_A"] == pytest.approx(made.half_map_resolution_A, abs=1e-3)
    assert {"simulate particles", "reconstruct map and half maps"} <= set(found["seconds"])


def test_the_page_says_what_was_found(made):
    page = (made.folder / "report.html").read_text(encoding="utf-8")
    assert page.count("<img ") == 4
    assert f"{made.resolution_A:.2f} Å" in page
    assert f"{made.half_map_resolution_A:.2f} Å" in page
    assert re.search(r"<th scope=\"row\">signal to noise</th><td>0\.5 ", page)
    assert vg.__version__ in page


def test_the_same_seed_gives_the_same_map_on_any_number_of_threads(made, tmp_path):
    again = demo(tmp_path, replace(SMALL, threads=1))
    first, second = (vg.read_map(folder / "map.mrc").data for folder in (made.folder, again.folder))
    assert np.array_equal(first, second)


@pytest.mark.parametrize(("settings", "words"), [({"n": 3}, "20 particles"), ({"box": 8}, "24 pixels")])
def test_settings_that_cannot_be(settings, words):
    with pytest.raises(vg.InputError, match=words):
        DemoSettings(**settings)


@pytest.mark.slow
def test_command_line(tmp_path):
    command = [sys.executable, "-m", "verglas.cli", "demo", "--n", "60", "--box", "80", "--out", str(tmp_path / "d")]
    done = subprocess.run([*command, "--snr", "2", "--json"], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["report"] == str(tmp_path / "d" / "report.html")
    assert (tmp_path / "d" / "report.html").stat().st_size > 100_000
