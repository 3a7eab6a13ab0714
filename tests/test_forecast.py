"""Forecasts of time: how they grow, what is left while a job runs, and that jobs tell them."""

from __future__ import annotations

import json

import numpy as np
import pytest

import verglas as vg
from verglas.classification import Class2DSettings
from verglas.geometry import unit_pixels
from verglas.refinement import schedule
from verglas.refinement.settings import RefineSettings
from verglas.refinement.start import make_problem
from verglas.run import speed
from verglas.run.forecast import UNITS, class2d_forecast, planned_refine_forecast, refine_counts, refine_forecast
from verglas.run.status import status
from verglas.run.tenure import tenure
from verglas.types.forecast import Forecast, Pace, Part


class _Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(speed, "_measure", lambda: 2.0)


def test_the_speed_of_a_machine_is_measured_once(tmp_path, monkeypatch):
    assert speed.machine_speed() == 2.0
    monkeypatch.setattr(speed, "_measure", lambda: pytest.fail("measured again"))
    assert speed.machine_speed() == 2.0
    (tmp_path / "cache" / "verglas" / "speed.json").write_text("{damaged")
    monkeypatch.setattr(speed, "_measure", lambda: 3.0)
    assert speed.machine_speed() == 3.0  # a damaged file is measured over
    monkeypatch.setattr(speed, "_native", type("other", (), {"core": type("core", (), {"isa": "other"})}))
    monkeypatch.setattr(speed, "_measure", lambda: 5.0)
    assert speed.machine_speed() == 5.0  # another build is another machine


@pytest.mark.parametrize(
    "content", ["null", "3", "[1, 2]", '{"KEY": 0}', '{"KEY": NaN}', '{"KEY": "2"}', '{"KEY": 1e999}']
)
def test_a_speed_that_is_none_is_measured_again(content, monkeypatch):
    speed.machine_speed()
    path = speed.cache_folder() / "speed.json"
    (key,) = json.loads(path.read_text())
    path.write_text(content.replace("KEY", key))
    monkeypatch.setattr(speed, "_measure", lambda: 3.0)
    assert speed.machine_speed() == 3.0
    assert json.loads(path.read_text()) == {key: 3.0}


def test_a_user_without_a_home_and_a_cache_that_is_a_file_are_forecast(tmp_path, monkeypatch):
    def homeless() -> None:
        raise RuntimeError("Could not determine home directory.")

    (tmp_path / "cache").write_text("no folder")
    assert speed.machine_speed() == 2.0
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(speed.Path, "home", homeless)
    assert speed.machine_speed() == 2.0


def test_more_of_everything_takes_longer_and_a_quicker_machine_less(monkeypatch):
    def seconds(n: int = 1000, box: int = 64, classes: int = 10, **how: int) -> float:
        return class2d_forecast(n, box, 2.0, Class2DSettings(classes=classes), 1, **how).processor_s

    usual = seconds()
    assert seconds(n=2000) > 1.2 * usual
    assert seconds(box=128) > 1.2 * usual
    assert seconds(classes=20) > usual
    assert seconds(repeats=1) == pytest.approx(2 * usual)
    monkeypatch.setattr(speed, "_measure", lambda: 4.0)
    speed.cache_folder().joinpath("speed.json").unlink()
    assert seconds() == pytest.approx(usual / 2)


def test_threads_share_most_of_the_work():
    one, four = (Forecast((Part("iteration 1", (100.0,)),), threads) for threads in (1, 4))
    assert one.seconds == 100
    assert 25 < four.seconds < 50
    assert "on 4 threads" in str(four)


def test_what_is_left_follows_what_was_seen():
    clock = _Clock()
    parts = (Part("iteration 1", (100.0,)), Part("iteration 2", (100.0,)), Part("verdict", (50.0,)))
    pace = Pace(Forecast(parts), clock)
    assert pace.left_s() == 250
    clock.now = 300.0
    pace.progress("iteration 1, grid", 1, 1)
    assert pace.left_s() == pytest.approx(150 * 3, rel=0.05)
    clock.now = 350.0
    assert pace.left_s() == pytest.approx(400, rel=0.05)
    pace.progress("something else", 1, 1)
    assert pace.left_s() == pytest.approx(400, rel=0.05)
    pace.progress("iteration 3, local", 1, 1)  # one more than was foreseen: the last of its kind
    assert pace.left_s() == pytest.approx(50 * 355 / 205, rel=0.02)


def test_a_job_that_goes_on_does_not_count_what_was_done_before_it():
    clock = _Clock()
    pace = Pace(Forecast((Part("iteration 1", (1000.0,)), Part("iteration 2", (100.0,)), Part("end", (100.0,)))), clock)
    clock.now = 200.0
    pace.progress("iteration 2, local", 1, 1)  # the first took no time of this process
    assert pace.left_s() == pytest.approx(200, rel=0.05)


def test_steps_of_a_part_may_differ():
    clock = _Clock()
    pace = Pace(Forecast((Part("start 1 of 1", (10.0, 30.0)),)), clock)
    clock.now = 10.0
    pace.progress("start 1 of 1", 1, 2)
    assert pace.left_s() == pytest.approx(30)


def test_run_json_and_status_say_what_is_left(tmp_path):
    forecast = Forecast((Part("iteration 1", (3600.0,)), Part("iteration 2", (3600.0,))))
    with tenure(tmp_path / "run", "refine") as hold:
        hold.write(state="running")
        assert json.loads((tmp_path / "run/run.json").read_text())["eta_seconds"] is None
        hold.expect(forecast)
        record = json.loads((tmp_path / "run/run.json").read_text())
        assert record["eta_seconds"] == pytest.approx(7200, abs=5)
        assert record["forecast"] == {"processor_seconds": 7200.0, "seconds": 7200.0}
        now = status(tmp_path / "run")
        assert now.eta_seconds == pytest.approx(7200, abs=5)
        assert now.sentence.endswith("about 2.0 h left")
        hold.replace({"command": "refine", "state": "running", "run_state": "running"})
        assert json.loads((tmp_path / "run/run.json").read_text())["eta_seconds"] > 7000
    assert status(tmp_path / "run").eta_seconds is None


@pytest.fixture
def in_hand():
    """Sixty particles and their settings, as a problem."""
    settings = RefineSettings(diameter_A=90.0, symmetry="C2")
    images = np.random.default_rng(0).normal(size=(60, 32, 32)).astype(np.float32)
    particles = vg.Particles.from_images(images, pixel_size_A=4.0).with_poses(vg.Poses(np.zeros((60, 3))))
    particles = particles.with_optics(vg.Optics([15000.0] * 60, [15000.0] * 60))
    return make_problem(particles, {}, settings, n_classes=1)


def test_round_maps_of_the_verdict_are_scored_from_few_directions(in_hand):
    verdicts = [dict(refine_counts(one, schedule.first_step(one)))["verdict"] for one in (in_hand, in_hand.under("I"))]
    scored, listed = (np.array([row[UNITS.index(name)] for row in verdicts]) for name in ("scored", "listed"))
    directions = len(unit_pixels(3, "C2")) / len(unit_pixels(3, "I"))
    # Under I the map takes as many as the round one.
    assert scored[0] / (scored[1] / 2) == pytest.approx(directions + 1, rel=0.01)
    np.testing.assert_array_equal(listed, 2 * len(in_hand))  # the best of each particle alone


def test_planned_particles_are_forecast_as_those_in_hand(in_hand):
    """The plan knows box, pixel size and diameter only; the same refinement of particles that exist takes as long."""
    settings, problem = in_hand.settings, in_hand
    first = refine_forecast(problem, schedule.first_step(problem))
    planned = planned_refine_forecast(60, 32, 4.0, settings)
    assert planned.parts == first.parts
    many = planned_refine_forecast(6_000_000, 32, 4.0, settings)
    assert many.processor_s > 1000 * planned.processor_s / 2


def test_finer_pixels_do_not_lengthen_the_search_over_the_grid():
    """The schedule leaves the grid at the shell its first spacing serves, however far the data reach beyond."""
    settings = RefineSettings(diameter_A=165.0, initial_resolution_A=30.0)
    coarse, fine = (planned_refine_forecast(3000, 192 * k // 3, 3.0 / k, settings) for k in (1, 2))
    # Iteration 2 at 3.0 and 1.5 A: one grid, to shells of the same resolution but where 6 A itself is the limit.
    searched = [sum(one.parts[1].seconds) for one in (coarse, fine)]
    assert searched[1] < 2 * searched[0]
