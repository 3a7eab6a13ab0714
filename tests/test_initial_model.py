"""First maps on arrays: the function that writes nothing gives what the job with files gives."""

from __future__ import annotations

import numpy as np
import pytest
from heard import Heard

import verglas as vg
from verglas.initial_model import AbInitioSettings, find_initial_model


@pytest.mark.slow
def test_arrays_and_files_give_the_same_map(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = vg.simulate.phantom(32, 5.0, 110.0, seed=2)
    particles = vg.simulate.particles(model, 80, 32, 5.0, snr=1.0, seed=3)
    choices = {"starts": 1, "iterations": 2, "full_iterations": 1, "final_resolution_A": 20.0}
    heard = Heard()
    found = find_initial_model(particles, AbInitioSettings(diameter_A=125.0, **choices), listener=heard)
    assert list(tmp_path.iterdir()) == []
    assert set(heard.phases) == {"inspecting particles", "centring", "start 1 of 1", "final poses, particles"}
    job = vg.abinitio(particles, diameter_A=125.0, out=tmp_path / "run", **choices)
    np.testing.assert_array_equal(job.map.data, found.map.data)
    np.testing.assert_array_equal(job.particles.poses.angles_deg, found.particles.poses.angles_deg)
