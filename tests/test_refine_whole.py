"""Whole refinements: limits of memory, kills, phases that hold nothing, several classes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import verglas as vg
from verglas import filters
from verglas.io import read_json
from verglas.run.checkpoint import checkpoint_path

_SMALL = """
import sys, verglas as vg
from verglas.refinement.em import peak_memory_GB
folder, limit = sys.argv[1], float(sys.argv[2])
vg.refine(folder + "/particles.star", folder + "/truth.mrc", out=folder + "/small", diameter_A=110.0, memory_GB=limit,
          initial_resolution_A=25.0, iterations=3)
print(peak_memory_GB())
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the peak is that of the parent too")
def test_memory_stays_below_a_small_limit(tmp_path):
    """Too little for all images at once: they are read again, in smaller batches, and the limit holds."""
    model = vg.simulate.phantom(64, 2.5, 100.0)
    vg.simulate.particles(model, 300, 64, 2.5, snr=0.5, out=tmp_path, seed=1)
    script, limit = tmp_path / "small.py", 0.62
    script.write_text(_SMALL)
    done = subprocess.run([sys.executable, str(script), str(tmp_path), str(limit)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    run = read_json(tmp_path / "small" / "run.json")
    assert max(run["memory_plan"].values()) <= limit
    assert float(done.stdout) <= limit


_PROGRAM = """
import sys, verglas as vg
folder, out, resume = sys.argv[1], sys.argv[2], sys.argv[3] == "resume"
vg.refine(folder + "/particles.star", folder + "/truth.mrc", out=out, resume=resume, diameter_A=90.0,
          initial_resolution_A=25.0, threads=1)
"""


@pytest.mark.slow
def test_killed_twenty_times_it_ends_with_the_same_map(tmp_path):
    """SIGKILL at random moments, while files are being written too; resumed each time."""
    folder, rng = tmp_path, np.random.default_rng(0)
    vg.simulate.particles(vg.simulate.phantom(32, 4.0, 90.0), 120, 32, 4.0, snr=1.0, out=folder, seed=1)
    script = tmp_path / "go.py"
    script.write_text(_PROGRAM)

    def start(out: Path, how: str) -> subprocess.Popen:
        command = [sys.executable, str(script), str(folder), str(out), how]
        return subprocess.Popen(command, stderr=subprocess.PIPE, env=os.environ | {"OMP_NUM_THREADS": "1"})

    whole, broken = tmp_path / "whole", tmp_path / "broken"
    begun = time.monotonic()
    assert start(whole, "fresh").wait() == 0
    length = time.monotonic() - begun
    kills = 0
    while kills < 20:
        resume = checkpoint_path(broken).is_file()
        if not resume and broken.exists():  # killed before the first checkpoint: there is nothing to resume
            for path in sorted(broken.rglob("*"), reverse=True):
                path.rmdir() if path.is_dir() else path.unlink()
            broken.rmdir()
        process = start(broken, "resume" if resume else "fresh")
        try:
            process.wait(timeout=float(rng.uniform(0.3, 1.0)) * length)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            kills += 1
            continue
        assert process.returncode == 0, process.stderr.read().decode()
        if (
            kills < 20 and (broken / "particles.star").exists()
        ):  # it got through: the rest of the kills hit the end of it
            (broken / "particles.star").unlink()
    if not (broken / "particles.star").exists():
        process = start(broken, "resume")
        assert process.wait() == 0, process.stderr.read().decode()
    for name in ("map.mrc", "half1.mrc", "half2.mrc"):
        assert np.array_equal(vg.read_map(whole / name).data, vg.read_map(broken / name).data), name
    one, two = (vg.read_particles(f / "particles.star").poses.angles_deg for f in (whole, broken))
    assert np.array_equal(one, two)


@pytest.mark.slow
def test_data_without_signal_beyond_10_A_give_no_resolution_beyond(tmp_path):
    """Overfitting: the phases of every image are random beyond 10 A; the half maps must not agree there."""
    model = vg.simulate.phantom(64, 2.5, 110.0)
    particles = vg.simulate.particles(model, 600, 64, 2.5, snr=0.3, seed=3)
    spectra = vg.fourier.forward(particles.images(), 2)
    rng = np.random.default_rng(0)
    noise = vg.fourier.forward(rng.standard_normal((600, 64, 64)).astype(np.float32), 2)
    outer = vg.fourier.shells((64, 64)) > 64 * 2.5 / 10
    spectra[:, outer] = (np.abs(spectra) * noise / np.abs(noise))[:, outer]
    images = vg.fourier.inverse(spectra, (64, 64))
    spoiled = particles.with_source(vg.ArraySource(images, 2.5))
    truth = vg.simulate.density(model, 64, 2.5)
    found = vg.refine(spoiled, filters.apply(truth, filters.low_pass(30.0)), diameter_A=120.0)
    # Shell 16 is the last with signal; a mask of this size spreads it over two more.
    assert 64 * 2.5 / 18 < found.resolution_A < 13
    beyond = np.arange(len(found.fsc.curve)) > 18
    assert np.abs(found.fsc.curve[beyond]).mean() < 0.1


@pytest.mark.slow
def test_three_classes_are_told_apart():
    """50/30/20 %: populations within 3 points, nine of ten particles in the right class."""
    parts = [vg.simulate.phantom(48, 3.5, 110.0, seed=s) for s in (0, 1, 2)]
    truth = np.repeat([0, 1, 2], [300, 180, 120])
    stacks = [
        vg.simulate.particles(m, int(np.sum(truth == k)), 48, 3.5, snr=0.1, seed=10 + k) for k, m in enumerate(parts)
    ]
    table = pd.concat([p.table for p in stacks], ignore_index=True).drop(columns=["rlnRandomSubset"])
    images = np.concatenate([p.images() for p in stacks])
    order = np.random.default_rng(0).permutation(600)
    particles = vg.Particles(table.iloc[order], vg.ArraySource(images[order], 3.5), optics_table=stacks[0].optics_table)
    references = [vg.simulate.density(m, 48, 3.5) for m in parts]
    found = vg.refine(particles, references, diameter_A=120.0, initial_resolution_A=25.0)
    got = found.particles.table["rlnClassNumber"].to_numpy() - 1
    assert np.mean(got == truth[order]) >= 0.9
    shares = np.bincount(got, minlength=3) / 600
    assert np.abs(shares - [0.5, 0.3, 0.2]).max() < 0.03
    assert len(found.classes) == 3
