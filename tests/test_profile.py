"""Where time goes: ops and bytes counted, phases of a job, the bars of a page."""

from __future__ import annotations

import json
import re
import time

import numpy as np
import pytest

import verglas as vg
from verglas import fourier, ops
from verglas.report.profile import bars, profile_section, shares
from verglas.run.profile import ProfileRecorder
from verglas.run.tenure import tenure
from verglas.types.profile import counts


def phase(name: str, seconds: float, **of_ops: float) -> dict:
    made = {op: {"seconds": value, "calls": 1} for op, value in of_ops.items()}
    return {"phase": name, "seconds": seconds, "processor_seconds": seconds, "bytes_read": 10**9, "ops": made}


def test_ops_are_counted_once_and_images_by_their_bytes(tmp_path):
    images = np.random.default_rng(0).normal(size=(5, 16, 16)).astype(np.float32)
    vg.io.write_stack(tmp_path / "s.mrcs", images, 2.0)
    before = counts()
    read = vg.io.read_stack(tmp_path / "s.mrcs", [1, 2])
    samples = ops.polar(read, ops.PolarGrid(16, 6))
    fourier.forward(read, 2)
    plan = ops.ScorePlan(ops.PolarGrid(16, 6), 16)
    plan.set_reference(samples)
    found = counts().since(before)
    assert found.bytes_read == 2 * 16 * 16 * 4
    assert found.calls == {"polar": 1, "fft": 1, "score: reference": 1}
    assert all(value > 0 for value in found.seconds.values())
    # A call that fails ends, too: the op after it counts by itself.
    with pytest.raises(ValueError):
        ops.polar(read[0, 0], ops.PolarGrid(16, 6))
    fourier.forward(read, 2)
    assert counts().since(before).calls == {"polar": 2, "fft": 2, "score: reference": 1}


def test_a_job_leaves_its_phases(tmp_path):
    for session in (1, 2):
        with tenure(tmp_path / "run", "test") as hold:
            hold.write(state="running")
            hold.progress("first", 0, 2)
            fourier.forward(np.zeros((2, 8, 8), np.float32), 2)
            hold.progress("first", 2, 2)
            hold.progress("second", 1, 1)
            time.sleep(0.05)
        record = json.loads((tmp_path / "run" / "profile.json").read_text())
        assert len(record["sessions"]) == session
        phases = record["sessions"][-1]["phases"]
        assert [p["phase"] for p in phases] == ["starting", "first", "second", "ending"]
        assert [p["ops"].get("fft", {}).get("calls", 0) for p in phases] == [0, 1, 0, 0]
        assert phases[3]["seconds"] >= 0.05 > phases[3]["processor_seconds"]


def test_an_iteration_has_its_particles_before_the_first_word_and_its_maps_after_the_last(tmp_path):
    image = np.zeros((1, 8, 8), np.float32)
    recorder = ProfileRecorder(tmp_path, "now")
    recorder.progress("inspecting", 0, 1)
    recorder.progress("inspecting", 1, 1)
    for number in (1, 2):
        fourier.forward(image, 2)  # a first batch, which nobody was told to begin
        recorder.progress(f"iteration {number}", 1, 2)
        fourier.forward(image, 2)
        recorder.progress(f"iteration {number}", 2, 2)
        ops.polar(image, ops.PolarGrid(8, 3))  # maps
        recorder.iteration()
    recorder.write(last=True)
    phases = json.loads((tmp_path / "profile.json").read_text())["sessions"][0]["phases"]
    calls = {p["phase"]: {name: op["calls"] for name, op in p["ops"].items()} for p in phases}
    each = {"fft": 2, "polar": 1}
    assert calls == {"starting": {}, "inspecting": {}, "iteration 1": each, "iteration 2": each, "ending": {}}


def test_a_job_that_never_began_leaves_no_profile(tmp_path):
    def job() -> None:
        with tenure(tmp_path / "run", "test") as hold:
            hold.progress("first", 0, 2)
            raise ValueError

    with pytest.raises(ValueError):
        job()
    assert not (tmp_path / "run").exists()


def test_a_damaged_profile_is_begun_anew(tmp_path):
    (tmp_path / "profile.json").write_text("{")
    assert profile_section(tmp_path) is None
    recorder = ProfileRecorder(tmp_path, "now")
    recorder.progress("one", 0, 1)
    recorder.write()
    session = json.loads((tmp_path / "profile.json").read_text())["sessions"][0]
    assert [p["phase"] for p in session["phases"]] == ["starting"]


def test_bars_are_as_long_as_their_seconds(tmp_path):
    """The longest phase is 640 wide; ops and what is left of each phase fill its bar."""
    phases = [phase("iteration 1, grid", 4.0, score=2.0, fft=1.0), phase("<b>", 2.0, fft=6.0)]
    drawn = bars(phases)
    widths = re.findall(r'width="([0-9.]+)" height="16" fill="[^"]+"><title>([^<]+)</title>', drawn)
    assert {title: float(value) for value, title in widths} == {
        "iteration 1, grid: score 2.00 s": 320.0,
        "iteration 1, grid: fft 1.00 s": 160.0,
        "iteration 1, grid: all else 1.00 s": 160.0,
        "&lt;b&gt;: fft 2.00 s": 320.0,
    }
    assert "<b>" not in drawn
    (tmp_path / "profile.json").write_text(json.dumps({"sessions": [{"phases": phases}]}))
    section = profile_section(tmp_path)
    assert "6.0 s with 6.0 s of processor time, 2.00 GB of images read" in section.text
    assert shares(phases[1], ["fft", "score"]) == [2.0, 0.0, 0.0]
