"""Reconstruction, alignment and refinement on GPUs: the CPU's answers, from one device or several, in little memory.

Where there is no GPU the kernels run on the host (tests/devices.py) with an array library as strict as CuPy.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace

import numpy as np
import pytest

import verglas as vg
from verglas import _array_module, _devices, fourier, gridding, ops
from verglas.errors import DeviceMemoryError
from verglas.reconstruction import direct
from verglas.reconstruction.known_poses import reconstruct_report
from verglas.reconstruction.packed_sums import PackedSums
from verglas.refinement import schedule, start
from verglas.refinement.em import initial_state, iterate
from verglas.refinement.settings import RefineSettings
from verglas.run.refine import refine
from verglas.run.refine_memory import plan_memory
from verglas.search import AlignSettings
from verglas.search.half_pass import HalfTask
from verglas.search.problem import image_batches, survey
from verglas.types.listener import Silence
from verglas.types.verdict import Finding

import emulated_cupy
import tolerance
from devices import open_device

pytestmark = pytest.mark.usefixtures("blank_figures_of_module", "no_verdict_of_module")

# A symmetric particle and low resolution: few directions and rings, or the kernels would take minutes on the host.
BOX, PIXEL_A, DIAMETER_A, GROUP = 24, 5.0, 90.0, "O"
CHOICES = {
    "diameter_A": DIAMETER_A,
    "initial_resolution_A": 28.0,
    "max_resolution_A": 15.0,
    "shift_range_A": 5.0,
}


@pytest.fixture(params=["emulated", "cuda:0"])
def gpu(request, monkeypatch) -> str:
    """A GPU, or the kernels on the host; both are named cuda:0."""
    return open_device(request.param, monkeypatch)


@pytest.fixture
def two_gpus(monkeypatch) -> tuple[str, str]:
    open_device("emulated", monkeypatch)
    return "cuda:0", "cuda:1"


@pytest.fixture(scope="module")
def data() -> tuple[vg.Particles, vg.Map]:
    model = vg.simulate.phantom(BOX, PIXEL_A, DIAMETER_A, GROUP)
    particles = vg.simulate.particles(model, 60, BOX, PIXEL_A, snr=1.0, seed=1)
    return particles, vg.simulate.density(model, BOX, PIXEL_A)


@pytest.fixture(scope="module")
def begun(data):
    """A problem on the CPU, its first state, and the state and step of a second, continuous iteration."""
    particles, truth = data
    settings = RefineSettings(GROUP, **CHOICES)
    found = survey(particles)
    problem = start.make_problem(particles, found.excluded, settings, threads=1)
    state, _ = initial_state(problem, found.power, [truth])
    first = schedule.first_step(problem)
    after, _ = iterate(problem, state, first)
    then = schedule.make_step(problem, "global", first.radius + 1, first.order, first.shift_range_px)
    then = replace(then, candidates=2)
    return problem, {"grid": (state, first), "global": (after, then), "local": (after, replace(then, phase="local"))}


def relative(found: np.ndarray, wanted: np.ndarray) -> float:
    return float(np.linalg.norm(found - wanted) / np.linalg.norm(wanted))


# -- arrays, names, images on their way ----------------------------------------------


def test_transforms_are_those_of_the_host(gpu):
    rng = np.random.default_rng(0)
    images, volume = rng.normal(size=(3, BOX, BOX)).astype("f4"), rng.normal(size=(BOX,) * 3).astype("f4")
    grid = ops.Grid(BOX, oversampling=2.0)
    with _devices.work_on(gpu):
        there = _devices.to_device(images, gpu)
        spectra = fourier.forward(there, 2)
        assert _array_module.on_device(spectra)
        np.testing.assert_array_equal(fourier.inverse(spectra, (BOX, BOX)).get().shape, images.shape)
        scale = np.abs(fourier.forward(images, 2)).max()
        assert np.abs(spectra.get() - fourier.forward(images, 2)).max() < tolerance.FOURIER_FLOAT32 * scale
        assert np.abs(fourier.inverse(spectra, (BOX, BOX)).get() - images).max() < tolerance.FOURIER_FLOAT32 * 10
        gridded = gridding.to_grid(_devices.to_device(volume, gpu), grid)
        wanted = gridding.to_grid(volume, grid)
        assert relative(gridded.get(), wanted) < tolerance.FOURIER_FLOAT32
        back = gridding.from_grid(gridded.astype(np.complex128), grid)
        assert relative(back.get(), gridding.from_grid(wanted.astype(complex), grid)) < tolerance.FOURIER_FLOAT32


@pytest.mark.parametrize("ssnr", [None, np.linspace(5, 0.1, BOX // 2)])
def test_a_map_from_sums_is_that_of_the_host(gpu, ssnr):
    rng = np.random.default_rng(1)
    grid = ops.Grid(BOX, oversampling=2.0)
    values = rng.normal(size=grid.shape) + 1j * rng.normal(size=grid.shape)
    weights = rng.uniform(0, 2, grid.shape) * (rng.uniform(size=grid.shape) > 0.2)
    sums = ops.GridSums(grid, values, weights)
    wanted = direct.invert(sums, direct.density_weights(weights, grid, ssnr=ssnr))
    with _devices.work_on(gpu):
        there = ops.GridSums(grid, _devices.to_device(values, gpu), _devices.to_device(weights, gpu))
        found = direct.invert(there, direct.density_weights(there.weights, grid, ssnr=ssnr))
        assert relative(found.get(), wanted) < tolerance.FOURIER_FLOAT32
        with pytest.raises(vg.InputError, match="iterated weights are made on the host"):
            direct.density_weights(there.weights, grid, iterations=2)


def test_images_arrive_in_order_and_whole(gpu):
    rng = np.random.default_rng(2)
    images = rng.normal(size=(23, 6, 6)).astype("f4")
    pieces = [np.arange(i, min(i + 4, 23)) for i in range(0, 23, 4)]
    seen = []
    with _devices.work_on(gpu):
        for piece, there in _devices.upload_pieces(images.__getitem__, pieces, gpu, (4, 6, 6)):
            there *= 2  # a batch is the caller's to change
            seen.append((piece, there.get()))
    np.testing.assert_array_equal(np.concatenate([p for p, _ in seen]), np.arange(23))
    np.testing.assert_array_equal(np.concatenate([x for _, x in seen]), 2 * images)


def test_an_image_that_cannot_be_read_is_an_error_at_once(gpu):
    def read(piece):
        if piece == 2:
            raise vg.InputError("image 2 cannot be read")
        return np.zeros((1, 4, 4), "f4")

    with _devices.work_on(gpu), pytest.raises(vg.InputError, match="image 2"):
        list(_devices.upload_pieces(read, [0, 1, 2, 3], gpu, (1, 4, 4)))


def test_batches_are_moved_and_masked_as_on_the_host(gpu, begun):
    problem, steps = begun
    state, _ = steps["grid"]
    poses = state.poses.copy()
    poses.origin_px[:] = np.random.default_rng(3).uniform(-6, 6, poses.origin_px.shape)
    poses.norm[:] = np.linspace(0.8, 1.2, len(problem))
    there = replace(problem, devices=(gpu,), batch=17)
    here = list(image_batches(replace(problem, batch=17), problem.rows_of_half(1), state.halves[0], poses))
    with _devices.work_on(gpu):
        for wanted, batch in zip(
            here, image_batches(there, problem.rows_of_half(1), state.halves[0], poses), strict=True
        ):
            np.testing.assert_array_equal(batch.rows, wanted.rows)
            np.testing.assert_array_equal(batch.images.get(), wanted.images)
            np.testing.assert_array_equal(
                batch.centre_images(problem.image_mask).get(), wanted.centre_images(problem.image_mask)
            )
            np.testing.assert_array_equal(
                batch.apply_mask(problem.image_mask).get(), wanted.apply_mask(problem.image_mask)
            )


# -- one pass ----------------------------------------------


def one_pass(problem, state, step, devices, batch=0, notes=None):
    """Poses, finished sums on the host, totals of half 1."""
    poses = state.poses.copy()
    where = replace(problem, devices=devices, batch=batch or problem.batch)
    task = HalfTask(where, state.halves[0], problem.sphere, step, 1, [] if notes is None else notes)
    found = task.run(poses, lambda n: None)
    grids = [g.unpack() if isinstance(g, PackedSums) else _array_module.all_to_host(g) for g in found.grids]
    return poses, grids, found.totals


@pytest.mark.parametrize("phase", ["grid", "global", "local"])
def test_a_pass_gives_the_posteriors_and_sums_of_the_host(gpu, begun, phase):
    problem, steps = begun
    state, step = steps[phase]
    poses, sums, totals = one_pass(problem, state, step, ("cpu",))
    there, device_sums, device_totals = one_pass(problem, state, step, (gpu,), batch=13)
    rows = problem.rows_of_half(1)
    np.testing.assert_allclose(
        there.log_evidence[rows], poses.log_evidence[rows], atol=tolerance.DEVICE_EVIDENCE_NATS, rtol=0
    )
    np.testing.assert_allclose(
        there.max_probability[rows], poses.max_probability[rows], atol=tolerance.DEVICE_PROBABILITY
    )
    angle = vg.geometry.angular_distance(there.angles_deg[rows], poses.angles_deg[rows], GROUP)
    assert angle.max() < tolerance.DEVICE_ANGLE_DEG
    assert relative(device_sums[0].weights, sums[0].weights) < tolerance.DEVICE_SUMS
    assert relative(device_sums[0].values, sums[0].values) < tolerance.DEVICE_SUMS
    for name in ("squared", "cross", "power"):
        assert relative(getattr(device_totals, name), getattr(totals, name)) < tolerance.DEVICE_SUMS


@pytest.mark.slow
@pytest.mark.parametrize("phase", ["grid", "global"])
def test_two_devices_give_what_one_gives_and_always_the_same(two_gpus, begun, phase):
    problem, steps = begun
    state, step = steps[phase]
    one, sums, totals = one_pass(problem, state, step, two_gpus[:1], batch=9)
    two, both, both_totals = one_pass(problem, state, step, two_gpus, batch=9)
    again, twice, _ = one_pass(problem, state, step, two_gpus, batch=9)
    for name, value in vars(two).items():  # an image's own result does not depend on the device that has it
        np.testing.assert_array_equal(value, getattr(one, name), err_msg=name)
        np.testing.assert_array_equal(value, getattr(again, name), err_msg=name)
    assert relative(both[0].values, sums[0].values) < tolerance.DEVICE_ORDER
    np.testing.assert_array_equal(both[0].values, twice[0].values)
    np.testing.assert_array_equal(both[0].weights, twice[0].weights)
    np.testing.assert_allclose(both_totals.squared, totals.squared, rtol=tolerance.DEVICE_ORDER)
    np.testing.assert_array_equal(both_totals.ratio, totals.ratio)


# -- memory ----------------------------------------------


def refuse_batches(monkeypatch, least: int) -> list[int]:
    """From now on the allocator has no room for ``least`` images or more; gives the sizes it refused."""
    refused: list[int] = []
    account = emulated_cupy._account

    def full(array: np.ndarray, device: int) -> None:
        if array.ndim == 3 and array.shape[1:] == (BOX, BOX) and least <= len(array) != BOX:
            refused.append(len(array))
            raise emulated_cupy.OutOfMemoryError(f"Out of memory allocating {array.nbytes:,} bytes")
        account(array, device)

    monkeypatch.setattr(emulated_cupy, "_account", full)
    return refused


@pytest.mark.parametrize("phase", ["grid", pytest.param("global", marks=pytest.mark.slow)])
def test_out_of_memory_halves_the_batch_once_and_says_so(two_gpus, begun, monkeypatch, phase):
    problem, steps = begun
    state, step = steps[phase]
    wanted, sums, _ = one_pass(problem, state, step, two_gpus[:1], batch=20)
    refused = refuse_batches(monkeypatch, 20)
    notes: list[Finding] = []
    found, device_sums, _ = one_pass(problem, state, step, two_gpus[:1], batch=20, notes=notes)
    assert len(refused) == 1
    assert len(notes) == 1
    assert (
        "cuda:0 ran out of memory with 20 images at a time; this pass starts again there with 10" in notes[0].sentence
    )
    np.testing.assert_array_equal(found.log_evidence, wanted.log_evidence)
    np.testing.assert_array_equal(device_sums[0].weights, sums[0].weights)


def test_out_of_memory_twice_is_an_error_that_says_what_to_do(two_gpus, begun, monkeypatch):
    problem, steps = begun
    state, step = steps["global"]
    refused = refuse_batches(monkeypatch, 10)
    with pytest.raises(DeviceMemoryError, match=r"cuda:0: out of memory: .*--memory.*smaller box"):
        one_pass(problem, state, step, two_gpus[:1], batch=20)
    assert refused == [20, 10]


def test_the_batch_follows_the_free_memory(two_gpus, begun):
    problem, _ = begun
    there = replace(problem, devices=two_gpus)
    plenty = plan_memory(there, 100.0, cached=True)
    assert [d.device for d in plenty.devices] == list(two_gpus)
    assert plenty.batch == 15  # a device's share of a half set
    weighed = replace(there, settings=replace(there.settings, score_mask="local"))
    more_GB = plan_memory(weighed, 100.0, cached=True).peak_GB - plenty.peak_GB
    assert more_GB == pytest.approx(2 * 4 * there.box**3 / 1e9)  # two weights of places lie on the host
    least = max(d.peak_GB for d in plan_memory(replace(there), 100.0, cached=True).devices)
    with emulated_cupy.memory_limit(int(0.9 * least * 1e9 / 0.85) + emulated_cupy._used[1], device=1):
        tight = plan_memory(there, 100.0, cached=True)
    assert 8 <= tight.batch < plenty.batch
    assert "cuda:1: at most" in str(tight)
    with (
        emulated_cupy.memory_limit(1_000_000 + emulated_cupy._used[1], device=1),
        pytest.raises(vg.InputError, match=r"need .* GB on cuda:1, 0\.00 can be had; .*--device cpu"),
    ):
        plan_memory(there, 100.0, cached=True)


# -- whole jobs ----------------------------------------------


# Of conjugate gradients as many steps on both: where they stop by themselves, rounding decides between two steps.
@pytest.mark.parametrize(
    ("method", "steps"),
    [("direct", None), pytest.param("least-squares", 8, marks=pytest.mark.slow), ("gridding", None)],
)
def test_reconstruct(gpu, data, method, steps):
    particles, _ = data
    how = {"symmetry": "C2", "halves": True, "method": method, "iterations": steps}
    wanted = reconstruct_report(particles, threads=1, **how)
    found = reconstruct_report(particles, device=gpu, **how)
    assert relative(found.map.data, wanted.map.data) < tolerance.DEVICE_MAP
    for mine, theirs in zip(found.half_maps, wanted.half_maps, strict=True):
        assert relative(mine.data, theirs.data) < tolerance.DEVICE_MAP


def test_reconstruct_on_two_devices_sets_aside_and_repeats(two_gpus, data):
    particles, _ = data
    images = particles.images(slice(0, 60)).copy()
    images[40] = np.nan
    bad = vg.Particles.from_images(images, PIXEL_A, poses=particles.poses, optics=particles.optics)
    progress: list[int] = []

    class Counter(Silence):
        def progress(self, phase, done, total):
            progress.append(done)

    found, again = (reconstruct_report(bad, device="cuda", listener=Counter()) for _ in range(2))
    assert found.excluded.keys() == {40}
    np.testing.assert_array_equal(found.map.data, again.map.data)
    assert relative(found.map.data, reconstruct_report(bad).map.data) < tolerance.DEVICE_MAP
    assert progress[-1] == 59


def test_reconstruct_with_little_memory(two_gpus, data, monkeypatch):
    particles, _ = data
    wanted = reconstruct_report(particles, device="cuda:0")
    refused = refuse_batches(monkeypatch, 60)
    with pytest.warns(vg.VerglasWarning, match="cuda:0 ran out of memory; it starts again with 30 images at a time"):
        found = reconstruct_report(particles, device="cuda:0")
    assert refused == [60]
    np.testing.assert_array_equal(found.map.data, wanted.map.data)


@pytest.mark.parametrize("step_deg", [15.0, pytest.param(3.75, marks=pytest.mark.slow)])
def test_align(gpu, data, step_deg):
    particles, truth = data
    some = particles[np.arange(12)]
    how = {"symmetry": GROUP, "max_resolution_A": 15.0, "step_deg": step_deg, "shift_range_A": 5.0}
    wanted = vg.align(some, truth, settings=AlignSettings(**how), threads=1)
    found = vg.align(some, truth, settings=AlignSettings(**how), device=gpu)
    angle = vg.geometry.angular_distance(found.poses.angles_deg, wanted.poses.angles_deg, GROUP)
    assert angle.max() < tolerance.DEVICE_ANGLE_DEG
    np.testing.assert_allclose(
        found.table["rlnLogLikeliContribution"],
        wanted.table["rlnLogLikeliContribution"],
        atol=tolerance.DEVICE_EVIDENCE_NATS,
    )


@pytest.mark.slow
def test_refine(gpu, data, tmp_path):
    particles, truth = data[0][np.arange(30)], data[1]
    wanted = refine(particles, truth, GROUP, **CHOICES, iterations=2)
    found = refine(particles, truth, GROUP, **CHOICES, iterations=2, device=gpu, out=tmp_path / "run")
    assert list(found.iterations["phase"]) == list(wanted.iterations["phase"])
    assert relative(found.map.data, wanted.map.data) < tolerance.DEVICE_MAP
    np.testing.assert_allclose(
        found.particles.table["rlnLogLikeliContribution"],
        wanted.particles.table["rlnLogLikeliContribution"],
        atol=tolerance.DEVICE_EVIDENCE_NATS,
    )
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["device"] == gpu
    assert set(record["device_memory_plan"][gpu]) == {"grid", "poses", "reconstruction"}


def test_refine_without_a_device_says_why(capsys, tmp_path, data, monkeypatch):
    from verglas import _native
    from verglas.cli import main

    if "cuda:0" in vg.devices():
        pytest.skip("there is a GPU")
    monkeypatch.setattr(_native, "cuda_built", lambda: False)
    vg.write_particles(tmp_path / "p.star", data[0], stack=tmp_path / "p.mrcs")
    monkeypatch.setattr(
        sys,
        "argv",
        ["verglas", "refine", str(tmp_path / "p.star"), "--out", str(tmp_path / "run"), "--device", "cuda:0"],
    )
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 1
    said = capsys.readouterr().err
    assert "built without CUDA" in said
    assert "Traceback" not in said
    assert not (tmp_path / "run").exists()
