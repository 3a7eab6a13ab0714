"""ResLog of a refinement: parts of its particles at the poses of all, in the run folder and on the page."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
from run_folder import make_run_folder

import verglas as vg
from verglas.assessment import postprocess
from verglas.filters import apply, low_pass
from verglas.masks import soft_sphere
from verglas.reconstruction.accumulate import ReconstructSettings
from verglas.report.refine import write_refine_page
from verglas.run import particle_number, refine
from verglas.run.particle_number import line_through, maps_of_parts, resolution_by_number

BOX, PIXEL_A = 48, 2.5


def test_parts_that_the_pixels_limit_are_left_out():
    n = (500, 1000, 2000, 4000)
    inverse = 2 / 120 * np.log(np.array(n) / 50)
    own = tuple(float(d) for d in 1 / np.sqrt(inverse))
    made = line_through(n, own, 3.0)
    assert made.line.b_factor_A2 == pytest.approx(120, rel=1e-6)
    assert made.as_dict()["line"]["b_factor_error_A2"] < 1e-6
    assert made.as_dict()["law"]["decade_A"] < 0
    cut = line_through(n, (*own[:3], 3.0), 3.0)
    assert cut.line.b_factor_A2 == pytest.approx(120, rel=1e-6)
    assert "pixels" in line_through(n, (own[0], 3.0, 3.0, 3.0), 3.0).reason
    assert "does not get better" in line_through(n, own[::-1], 3.0).reason
    infinite = line_through(n, (float("inf"), *own[1:]), 3.0)
    assert infinite.as_dict()["resolutions_A"][0] is None
    assert infinite.line.b_factor_A2 == pytest.approx(120, rel=1e-6)


def test_maps_of_parts_are_those_of_their_particles():
    model = vg.simulate.phantom(16, 6.0, 60.0, seed=4)
    particles = vg.simulate.particles(model, 40, 16, 6.0, 1.0, seed=4, listener=None)
    order = np.random.default_rng(0).permutation(40)
    settings = ReconstructSettings(symmetry="C2")
    for n, made in zip((10, 30), maps_of_parts(particles, [order[:10], order[10:30]], settings), strict=True):
        wanted = vg.reconstruct(particles[np.sort(order[:n])], "C2", listener=None)
        assert np.abs(made.data - wanted.data).max() < 1e-5 * np.abs(wanted.data).max()


@pytest.mark.parametrize(("halves", "number"), [((1, 2) * 2, 1), ((1,) * 30 + (2,), 2)])
def test_half_sets_of_few_particles_are_the_reason(halves, number):
    n = len(halves)
    particles = vg.simulate.particles(vg.simulate.phantom(16, 6.0, 60.0), n, 16, 6.0, 1.0, seed=4, listener=None)
    particles = particles.with_columns(rlnRandomSubset=np.array(halves))
    mask = vg.Map(np.ones((16, 16, 16), np.float32), 6.0)
    made = resolution_by_number(particles, mask, 20.0, symmetry="C1", finest_A=12.0)
    few = halves.count(number)
    assert made.reason == f"half set {number} has {few} particle{'s' * (few > 1)}, too few to be divided into parts"
    assert made.line is None


@pytest.mark.usefixtures("blank_figures")
def test_page_shows_the_line_and_why_there_is_none(tmp_path):
    folder = make_run_folder(tmp_path / "run", iterations=1, n=60)
    made = line_through((500, 1000, 2000, 4000), (8.0, 7.2, 6.7, 6.2), 5.0)
    (folder / "reslog.json").write_text(json.dumps(made.as_dict()))
    text = write_refine_page(folder).read_text()
    assert "Resolution by number of particles" in text
    assert f"B-factor of {made.line.b_factor_A2:.0f} ±" in text
    assert '"title": "ResLog"' in text
    none = line_through((500, 1000), (float("inf"), float("inf")), 5.0)
    (folder / "reslog.json").write_text(json.dumps(none.as_dict()))
    text = write_refine_page(folder).read_text()
    assert "No line goes through them: fewer than two parts" in text
    assert '"title": "ResLog"' not in text


def test_parts_that_cannot_be_assessed_cost_no_refinement(monkeypatch):
    """Its final maps are not written yet: what goes wrong is the reason that there is no line."""

    def fail(*_, **__):
        raise vg.InputError("no shell to compare")

    monkeypatch.setattr(refine, "resolution_by_number", fail)
    settings = SimpleNamespace(ewald=False, symmetry="C1", seed=0)
    problem = SimpleNamespace(
        settings=settings, threads=1, device="cpu", last_radius=7, resolution_of_A=lambda radius: 100.0 / radius
    )
    whole = SimpleNamespace(mask=None, resolution_A=8.0)
    made = refine._by_number(problem, range(refine.FEWEST), [whole], lambda done, parts: None)
    assert made.as_dict() == {
        "particles": [],
        "resolutions_A": [],
        "line": None,
        "law": None,
        "reason": "parts of the particles could not be assessed (no shell to compare)",
    }


@pytest.mark.slow
def test_a_blur_of_the_images_is_found_as_b_factor():
    """Envelopes of 150 A^2 more make the line's B larger by as much, within a third: four parts, one draw each."""
    mask = vg.Map(np.asarray(soft_sphere((BOX,) * 3, 20, 4.0), np.float32), PIXEL_A)
    model = vg.simulate.phantom(BOX, PIXEL_A, 90.0, seed=3)
    b_factors = []
    for envelope in (150.0, 300.0):
        settings = {"seed": 1, "envelope_b_factor_A2": envelope, "shift_sd_A": 3.0, "listener": None}
        particles = vg.simulate.particles(model, 4000, BOX, PIXEL_A, 0.05, **settings)
        particles = particles.with_columns(rlnRandomSubset=np.arange(len(particles)) % 2 + 1)
        halves = vg.reconstruct(particles, halves=True, listener=None)[1]
        of_all_A = postprocess(*halves, mask, listener=None).resolution_A
        made = resolution_by_number(particles, mask, of_all_A, symmetry="C1", finest_A=2 * PIXEL_A)
        assert made.particles == (500, 1000, 2000, 4000)
        assert np.all(np.diff(made.resolutions_A) < 0)
        b_factors.append(made.line.b_factor_A2)
    assert b_factors[1] - b_factors[0] == pytest.approx(150, abs=50)


@pytest.mark.slow
@pytest.mark.usefixtures("blank_figures")
def test_a_refinement_writes_it(tmp_path, monkeypatch):
    monkeypatch.setattr(refine, "FEWEST", 200)
    monkeypatch.setattr(particle_number, "PARTS", (2,))
    model = vg.simulate.phantom(24, 8.0, 125.0, seed=2)
    particles = vg.simulate.particles(model, 200, 24, 8.0, 0.5, tmp_path / "set", seed=2, listener=None)
    start = apply(vg.simulate.density(model, 24, 8.0), low_pass(40.0))
    settings = {"diameter_A": 150.0, "initial_resolution_A": 40.0, "iterations": 1, "shift_range_A": 8.0}
    vg.refine(particles, start, out=tmp_path / "run", listener=None, **settings)
    made = json.loads((tmp_path / "run" / "reslog.json").read_text())
    assert made["particles"] == [100, 200]
    assert "Resolution by number of particles" in (tmp_path / "run" / "report.html").read_text()
    (session,) = json.loads((tmp_path / "run" / "profile.json").read_text())["sessions"]
    read = {phase["phase"]: phase["bytes_read"] for phase in session["phases"]}
    assert sum(read.values()) > 0
    assert read["parts of the particles"] == 0  # they are in memory
    monkeypatch.setattr(refine, "FEWEST", 201)
    vg.refine(particles, start, out=tmp_path / "few", listener=None, **settings)
    assert not (tmp_path / "few" / "reslog.json").exists()
