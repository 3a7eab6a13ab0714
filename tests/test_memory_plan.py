"""What a refinement says it will take of memory, beside what it takes, in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import verglas as vg
from verglas import ops
from verglas.io import read_json
from verglas.refinement.settings import RefineSettings
from verglas.run import refine_setup
from verglas.run.class2d import MEMORY_GB, Class2DJob, Class2DSettings, class2d_files
from verglas.run.class2d_memory import plan_memory
from verglas.types.images import ArraySource
from verglas.types.listener import Silence

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the peak is that of the parent too")

_REFINE = """
import sys, verglas as vg
import matplotlib.pyplot, verglas.run.refine
from verglas.refinement.em import peak_memory_GB
loaded = peak_memory_GB()
folder, limit, iterations = sys.argv[1], float(sys.argv[2]), int(sys.argv[3])
vg.refine(folder + "/particles.star", folder + "/truth.mrc", out=folder + "/run", diameter_A=110.0, threads=1,
          iterations=iterations, memory_GB=limit or None, listener=None)
print(loaded, peak_memory_GB())
"""
# The same libraries take 0.18 to 0.21 GB, by how they were built and installed; the plan was measured with the latter.
_LIBRARIES_GB = 0.213


def measure(folder: Path, box: int, n: int, *, limit_GB: float = 0.0, iterations: int = 1) -> tuple[float, float]:
    """Stated and measured peak, GB; the measured one as with the libraries that the plan's constant stands for."""
    model = vg.simulate.phantom(box, 192 / box, 110.0)
    vg.simulate.particles(model, n, box, 192 / box, snr=0.05, out=folder, seed=1)
    script = folder / "refine.py"
    script.write_text(_REFINE)
    command = [sys.executable, str(script), str(folder), str(limit_GB), str(iterations)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    loaded, peak = map(float, done.stdout.split())
    return max(read_json(folder / "run" / "run.json")["memory_plan"].values()), peak + _LIBRARIES_GB - loaded


@pytest.mark.slow
def test_a_broad_posterior_of_a_small_box_takes_what_was_stated(tmp_path):
    stated, peak = measure(tmp_path, 32, 70)
    assert 0.75 * stated <= peak <= 1.02 * stated  # the page of a single iteration is small, and drawn at the end only


_ABINITIO = """
import sys, verglas as vg
import verglas.run.abinitio
from verglas.refinement.em import peak_memory_GB
folder, resolution_A = sys.argv[1], float(sys.argv[2])
loaded = peak_memory_GB()
vg.abinitio(folder + "/particles.star", out=folder + "/run", diameter_A=110.0, threads=1, starts=1, iterations=4,
            full_iterations=1, final_resolution_A=resolution_A, listener=None)
print(loaded, peak_memory_GB())
"""
# As _LIBRARIES_GB: what they took where the plan of first maps was measured (0.14 GB elsewhere).
_FIRST_MAP_LIBRARIES_GB = 0.172


@pytest.mark.slow
@pytest.mark.parametrize(("box", "particles", "resolution_A"), [(96, 200, 14.0), (128, 80, 20.0)])
def test_a_first_map_takes_what_was_stated(tmp_path, box, particles, resolution_A):
    """Images that are noise: posteriors are broad, and lists of candidates as long as the plan must fear."""
    model = vg.simulate.phantom(box, 192 / box, 110.0)
    vg.simulate.particles(model, particles, box, 192 / box, snr=1e-4, out=tmp_path, seed=1)
    command = [sys.executable, "-c", _ABINITIO, str(tmp_path), str(resolution_A)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    stated = max(read_json(tmp_path / "run" / "run.json")["memory_plan"].values())
    loaded, peak = map(float, done.stdout.split())
    assert 0.85 * stated <= peak + _FIRST_MAP_LIBRARIES_GB - loaded <= 1.05 * stated


_CLASS2D = """
import sys, verglas as vg
import matplotlib.pyplot, verglas.run.class2d
from pathlib import Path
from verglas.refinement.em import peak_memory_GB
from verglas.run.class2d import Class2DJob, Class2DSettings, class2d_files
folder, resolution_A, limit = Path(sys.argv[1]), float(sys.argv[2]), float(sys.argv[3])
loaded = peak_memory_GB()
settings = Class2DSettings(classes=6, diameter_A=110.0, iterations=3, max_resolution_A=resolution_A)
job = Class2DJob(folder / "particles.star", folder / "run", settings, threads=1, memory_GB=limit or None)
class2d_files(job, listener=None)
print(loaded, peak_memory_GB())
"""
# As _LIBRARIES_GB: what they took where the plan of classes was measured.
_CLASSES_LIBRARIES_GB = 0.17


@pytest.mark.slow
@pytest.mark.parametrize(("box", "resolution_A", "limit_GB"), [(64, 10.0, 0.0), (128, 8.0, 0.0), (64, 10.0, 0.3)])
def test_classes_take_what_was_stated(tmp_path, box, resolution_A, limit_GB):
    """Images that are noise: lists of candidates as long as the plan must fear."""
    model = vg.simulate.phantom(box, 192 / box, 110.0)
    vg.simulate.particles(model, 300, box, 192 / box, snr=1e-4, out=tmp_path, seed=1)
    command = [sys.executable, "-c", _CLASS2D, str(tmp_path), str(resolution_A), str(limit_GB)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    stated = max(read_json(tmp_path / "run" / "run.json")["memory_plan"].values())
    loaded, peak = map(float, done.stdout.split())
    taken = peak + _CLASSES_LIBRARIES_GB - loaded
    assert 0.85 * stated <= taken <= 1.05 * stated
    assert taken <= (limit_GB or 4.0)


def test_classes_that_no_memory_would_do_for_are_refused_at_once(tmp_path):
    model = vg.simulate.phantom(32, 5.0, 110.0)
    vg.simulate.particles(model, 40, 32, 5.0, snr=1.0, out=tmp_path, seed=1)
    job = Class2DJob(tmp_path / "particles.star", tmp_path / "run", Class2DSettings(classes=2), memory_GB=0.1)
    with pytest.raises(vg.InputError, match=r"class2d: 2 classes of .* px, .* need 0\.\d+ GB, allowed are 0\.10"):
        class2d_files(job, listener=None)


def test_many_threads_are_refused_under_a_limit_that_was_given_alone():
    """A thread's shifted images take 0.16 GB at 6 A: 64 threads more than the default, which nobody asked for."""
    particles = vg.Particles.from_images(np.ones((4, 256, 256), np.float32), 1.0)
    settings = Class2DSettings(classes=2, max_resolution_A=6.0, diameter_A=180.0)
    plan = plan_memory(particles, settings, None, 64)
    assert plan.peak_GB == plan.limit_GB > MEMORY_GB
    with pytest.raises(vg.InputError, match=r"allowed are 4\.00; .* threads \(of 64\)"):
        plan_memory(particles, settings, MEMORY_GB, 64)
    assert plan_memory(particles, settings, None, 1).limit_GB == MEMORY_GB


@pytest.mark.slow
def test_a_small_limit_is_kept(tmp_path):
    stated, peak = measure(tmp_path, 48, 60, limit_GB=0.35)
    assert stated <= 0.35
    assert peak <= 0.35


@pytest.mark.slow
@pytest.mark.parametrize(("box", "particles"), [(64, 150), (96, 120), (128, 100)])
def test_stated_and_measured_peak_agree(tmp_path, box, particles):
    stated, peak = measure(tmp_path, box, particles, iterations=2)
    # 0.95 to 0.975 of it from a checkout, 0.89 from a wheel, whose libraries grow less after they are loaded.
    assert 0.85 * stated <= peak <= 1.05 * stated


_INSERT = """
import numpy as np
from verglas import ops
from verglas.refinement.em import peak_memory_GB
grid, n = ops.Grid(64, oversampling=2.0), 1000
sums, images = ops.GridSums.zeros(grid), np.ones((n, 64, 33), np.complex64)
sums.values[:], sums.weights[:] = 0, 0
turns = np.random.default_rng(0).normal(size=(n, 3, 3))
matrices = np.linalg.qr(turns)[0]
matrices *= np.linalg.det(matrices)[:, None, None]
ops.insert(sums, images[:1], matrices[:1], threads=1)
before = peak_memory_GB()
ops.insert(sums, images, matrices, threads=1)
print(1e9 * (peak_memory_GB() - before) / grid.insertion_bytes(n))
"""


@pytest.mark.slow
def test_insertion_takes_the_room_that_plans_count():
    done = subprocess.run([sys.executable, "-c", _INSERT], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert 0.9 <= float(done.stdout) <= 1.1


def test_the_room_of_insertion_is_bounded():
    small, large = ops.Grid(64, oversampling=2.0), ops.Grid(256, oversampling=2.0)
    assert small.insertion_bytes(1) < 0.2e6
    assert 90e6 < small.insertion_bytes(10**6) <= 96 << 20
    share = 24 * float(np.prod(large.shape)) / 8
    assert 0.99 * share < large.insertion_bytes(10**6) <= share


def test_images_without_room_beside_the_sums_are_read_again(tmp_path, monkeypatch):
    model = vg.simulate.phantom(24, 5.0, 90.0)
    vg.simulate.particles(model, 40, 24, 5.0, snr=1.0, out=tmp_path, seed=1)
    plan, settings = refine_setup.plan_memory, RefineSettings(diameter_A=100.0)
    around = refine_setup.Around(None, 4.0, Silence(), ("cpu",), 1)

    def begin(particles):
        return refine_setup.start_run(particles, [tmp_path / "truth.mrc"], None, settings, around)

    def without_room_for_images(problem, limit_GB, *, cached):
        if cached:
            raise vg.InputError("no room")
        return plan(problem, limit_GB, cached=cached)

    particles = vg.read_particles(tmp_path / "particles.star")
    kept = begin(particles)
    monkeypatch.setattr(refine_setup, "plan_memory", without_room_for_images)
    read = begin(particles)
    assert kept.plan.cached
    assert isinstance(kept.problem.particles.source, ArraySource)
    assert not read.plan.cached
    assert not isinstance(read.problem.particles.source, ArraySource)
    assert np.array_equal(read.problem.particles.half_sets, kept.problem.half)
    assert np.array_equal(read.problem.particles.images(), kept.problem.particles.images())
    # Images that a caller holds are in memory whatever a plan says.
    with pytest.raises(vg.InputError, match="no room"):
        begin(particles.with_source(ArraySource(particles.images(), particles.pixel_size_A)))
