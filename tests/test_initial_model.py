"""First maps on arrays: the function that writes nothing gives what the job with files gives."""

from __future__ import annotations

import numpy as np
import pytest

import verglas as vg
from verglas.initial_model import AbInitioSettings, Observer, find_initial_model


class Recorder(Observer):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.stages: set[str] = set()
        self.starts: list[int] = []

    def progress(self, stage, done, total):
        self.stages.add(stage)

    def finished(self, start):
        self.starts.append(start.number)


@pytest.mark.slow
def test_arrays_and_files_give_the_same_map(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = vg.simulate.phantom(32, 5.0, 110.0, seed=2)
    particles = vg.simulate.particles(model, 80, 32, 5.0, snr=1.0, seed=3)
    choices = {"starts": 1, "iterations": 2, "full_iterations": 1, "final_resolution_A": 20.0}
    recorder = Recorder()
    found = find_initial_model(particles, AbInitioSettings(diameter_A=125.0, **choices), observer=recorder)
    assert list(tmp_path.iterdir()) == []
    assert recorder.stages == {"inspecting particles", "centring", "start 1 of 1", "final poses, particles"}
    assert recorder.starts == [0]
    job = vg.abinitio(particles, diameter_A=125.0, out=tmp_path / "run", **choices)
    np.testing.assert_array_equal(job.map.data, found.map.data)
    np.testing.assert_array_equal(job.particles.poses.angles_deg, found.particles.poses.angles_deg)
