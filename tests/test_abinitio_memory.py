"""A first map says what it will take of memory, and refuses what it may not, before the images are read."""

from __future__ import annotations

import numpy as np
import pytest
from command_line import main

import verglas as vg
from verglas.image import in_memory, plan_resample, resample_particles
from verglas.image.particles import RESAMPLING_BYTES
from verglas.initial_model import AbInitioSettings, find
from verglas.run.abinitio_memory import plan_memory
from verglas.search.grid_search import Where


@pytest.fixture(scope="module")
def particles():
    return vg.simulate.particles(vg.simulate.phantom(32, 5.0, 110.0), 60, 32, 5.0, snr=1.0, seed=1)


def planned_GB(particles, threads=1, **changes):
    settings = AbInitioSettings(diameter_A=125.0, **{"starts": 1, **changes})
    problem = find.problem_of(particles, settings, Where("cpu", threads))
    return plan_memory(problem, settings, particles.box).peak_GB


def test_more_of_everything_takes_more(particles):
    base = planned_GB(particles)
    assert planned_GB(particles, classes=3) > base
    assert planned_GB(particles, final_resolution_A=20.0) < base
    assert planned_GB(particles[:30]) < base
    assert planned_GB(particles, most_particles=30) == planned_GB(particles[:30])


def test_what_would_take_more_is_refused_before_the_images_are_read(particles, tmp_path, capsys, monkeypatch):
    star = tmp_path / "p.star"
    vg.write_particles(star, particles, stack=tmp_path / "p.mrcs")

    def read(*_):
        raise vg.InputError("all images are read now")

    monkeypatch.setattr(find, "in_memory", read)
    given = ["abinitio", str(star), "--out", str(tmp_path / "o"), "--diameter", "125", "--starts", "1"]
    status, _, error = main([*given, "--memory", "0.15"], capsys)
    assert status == 1
    assert "allowed are 0.15; allow more (--memory), learn from fewer (--most-particles)" in error
    status, _, error = main([*given, "--memory", "1"], capsys)
    assert "memory: at most 0.2" in error
    assert "all images are read now" in error
    status, _, error = main([*given, "--memory", "-1"], capsys)
    assert (status, "--memory" in error) == (2, True)
    status, _, error = main([*given, "--memory", "1", "--method", "genetic"], capsys)
    assert (status, "takes no --stack, no --memory" in error) == (2, True)


def test_images_are_read_few_at_a_time_however_small_they_become():
    """3,000 of 128 px were read at once to be brought to 40: 0.43 GB that no plan counted."""

    class Large:
        most = 0

        def __len__(self):
            return 50

        def read(self, rows):
            self.most = max(self.most, len(rows))
            return np.broadcast_to(rows.astype(np.float32)[:, None, None], (len(rows), 512, 512)).copy()

        def boxes(self):
            return np.array([512])

        def pixel_sizes_A(self):
            return np.array([1.0])

    large = Large()
    particles = vg.Particles(vg.Particles.from_images(np.zeros((50, 4, 4), np.float32), 1.0).table, large)
    particles = particles.with_columns(rlnImageSize=512, rlnImagePixelSize=1.0)
    small = in_memory(resample_particles(particles, plan_resample(512, 1.0, None, 16)))
    assert large.most * 4 * 512**2 <= RESAMPLING_BYTES / 3
    assert np.allclose(small.images().mean(axis=(1, 2)), np.arange(50), atol=1e-4)
