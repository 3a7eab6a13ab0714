"""verglas demo: what it finds is right, what it writes is whole, and both are the same each time."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import numpy as np
import pytest
from browser import lay_out

import verglas as vg
from verglas.report.refine import write_refine_page
from verglas.run.demo import DemoSettings, demo
from verglas.run.refine_summary import iteration_sentence
from verglas.types.listener import Silence

from blank_figures import blank

pytestmark = pytest.mark.drawn

SMALL = DemoSettings(n=140, box=32, pixel_size_A=4.0, diameter_A=85.0, snr=0.5)


class Lines(Silence):
    """Keeps what it is told."""

    def __init__(self):
        self.said, self.rows = [], []

    def say(self, line):
        self.said.append(line)

    def progress(self, phase, done, total):
        assert 0 <= done <= total

    def iteration(self, figures):
        self.rows.append(dict(figures))


@pytest.fixture(scope="module")
def watched():
    return Lines()


def white_page(folder, **how):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("verglas.report.style._draw", blank)
        return write_refine_page(folder, **how)


@pytest.fixture(scope="module")
def made(tmp_path_factory, watched, no_verdict_of_module):
    """The refinement's own page and the montage of images are looked at in their own tests: white here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("verglas.run.refine_folder.write_refine_page", white_page)
        patch.setattr("verglas.run.simulate._write_picture", lambda *_, **__: None)
        return demo(tmp_path_factory.mktemp("demo") / "new" / "folder", SMALL, listener=watched)


def test_every_file_is_there_and_readable(made):
    names = {"report.html", "overview.png", "map.mrc", "start.mrc", "truth.mrc", "particles.star", "refine"}
    assert names <= {path.name for path in made.folder.iterdir()}
    for name in ("map", "start", "truth", "refine/half1", "refine/half2"):
        found = vg.read_map(made.folder / f"{name}.mrc")
        assert (found.box, found.pixel_size_A) == (SMALL.box, pytest.approx(SMALL.pixel_size_A))
    particles = vg.read_particles(made.folder / "particles.star")
    assert len(particles) == SMALL.n
    assert len(particles.poses) == SMALL.n


def test_the_start_has_nothing_beyond_its_resolution(made):
    """The low-pass ends a fifth beyond 40 A; what is left there is rounding."""
    spectrum = np.abs(vg.fourier.forward(vg.read_map(made.folder / "start.mrc").data, 3))
    shell_A = SMALL.box * SMALL.pixel_size_A / np.maximum(vg.fourier.shells((SMALL.box,) * 3), 1)
    assert spectrum[shell_A < SMALL.initial_resolution_A / 1.3].max() < 1e-5 * spectrum.max()


def test_the_map_is_the_truth_to_the_resolution_that_is_stated(made):
    """Far beyond what the start had; and half-map FSC 0.143 says what the FSC with the truth at 0.5 says."""
    nyquist_A = 2 * SMALL.pixel_size_A
    assert made.resolution_A < 1.3 * nyquist_A
    assert made.resolution_A == pytest.approx(made.half_map_resolution_A, rel=0.15)
    assert made.resolution_A <= made.with_truth_unmasked.resolution_A(0.5) + 0.05
    halves = [vg.read_map(made.folder / "refine" / f"half{i}.mrc") for i in (1, 2)]
    assert np.array_equal(vg.fsc(*halves).curve, made.refinement.postprocessed.unmasked.curve)


def test_poses_are_those_that_were_simulated(made):
    assert np.median(made.errors.angle_deg) < 4.0
    assert np.median(made.errors.shift_A) < 0.3 * SMALL.pixel_size_A
    assert np.mean(made.errors.angle_deg > 20) < 0.05
    assert made.errors.turn_deg < 5


def test_the_summary_is_what_was_found(made):
    found = json.loads((made.folder / "demo.json").read_text())
    assert found == json.loads(json.dumps(made.summary()))
    assert found["resolution_against_truth_A"] == pytest.approx(made.resolution_A, abs=1e-3)
    assert found["resolution_between_halves_A"] == pytest.approx(made.half_map_resolution_A, abs=1e-3)
    assert found["median_angular_error_deg"] == pytest.approx(np.median(made.errors.angle_deg), abs=1e-3)
    assert {"simulate particles", "refine", "compare with the truth"} <= set(found["seconds"])


def test_progress_is_told(made, watched):
    assert [row["iteration"] for row in watched.rows] == list(range(1, len(made.refinement.iterations) + 1))
    assert any(line.startswith("simulate particles:") for line in watched.said)
    # the first iteration has no angles to compare its own with
    assert not [line for line in (*watched.said, *map(iteration_sentence, watched.rows)) if "nan" in line.split()]


def test_the_page_says_what_was_found(made):
    page = (made.folder / "report.html").read_text(encoding="utf-8")
    assert page.count("<img ") == 10  # nine particles, and slices of the maps
    assert page.count('data-name="') == 3  # maps that turn
    assert page.count('class="chart"') >= 3  # the curves and two histograms of errors
    assert f"{made.resolution_A:.2f} Å" in page
    assert f"{made.half_map_resolution_A:.2f} Å" in page
    assert f"{np.median(made.errors.angle_deg):.2f}°" in page
    assert re.search(r"<th scope=\"row\">signal to noise</th><td>0\.5 ", page)
    assert "low-passed to 40 Å" in page
    assert vg.__version__ in page
    link = re.search(r'<a href="([^"#]+)">', page)[1]  # contents link within the page
    assert (made.folder / link).read_text(encoding="utf-8").startswith("<!doctype html>")


def test_the_page_in_a_browser(made, tmp_path):
    """Chromium opens it: every figure is decoded and fits, nothing sticks out, the console stays empty."""
    pictures, overflow, console = lay_out(made.folder / "report.html", tmp_path)
    *particles, slices = pictures
    side = 128 // SMALL.box * SMALL.box
    assert [(width, height) for width, height, _ in particles] == [(side, side)] * 9
    assert all(60 < shown <= 1000 for *_, shown in particles)
    assert slices[0] > 300
    assert slices[1] > 150
    assert 0 < slices[2] <= 1000
    assert overflow <= 0
    assert console == []


@pytest.mark.slow
def test_the_same_seed_gives_the_same_map_on_any_number_of_threads(made, tmp_path):
    again = demo(tmp_path, SMALL, threads=1)
    first, second = (vg.read_map(folder / "map.mrc").data for folder in (made.folder, again.folder))
    assert np.array_equal(first, second)


def test_a_folder_of_someone_else_is_left_alone(tmp_path):
    (tmp_path / "refine").mkdir()
    (tmp_path / "refine" / "map.mrc").write_bytes(b"precious")
    with pytest.raises(vg.InputError, match="no finished demonstration made it"):
        demo(tmp_path, SMALL)
    assert (tmp_path / "refine" / "map.mrc").read_bytes() == b"precious"


@pytest.mark.parametrize(
    ("settings", "words"), [({"n": 3}, "n: expected at least 20"), ({"box": 8}, "box: expected at least 24")]
)
def test_settings_that_cannot_be(settings, words):
    with pytest.raises(vg.InputError, match=words):
        DemoSettings(**settings)


@pytest.mark.slow
def test_command_line_twice_into_one_folder(tmp_path):
    command = [sys.executable, "-m", "verglas.cli", "demo", "--n", "60", "--box", "80", "--out", str(tmp_path / "d")]
    for _ in range(2):
        done = subprocess.run([*command, "--snr", "2", "--json"], capture_output=True, text=True, check=True)
        assert json.loads(done.stdout)["report"] == str(tmp_path / "d" / "report.html")
        assert (tmp_path / "d" / "report.html").stat().st_size > 100_000
        assert "iteration  1" in done.stderr
