"""Fixed small problems, timed: what this machine does beside the results of another that ship with the package."""

from __future__ import annotations

import platform
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from verglas import _native, fourier, ops
from verglas.errors import InputError
from verglas.geometry import euler_to_matrix, random_orientations
from verglas.run.benchmark_reference import MACHINE, SECONDS
from verglas.run.machine import devices, processor_name
from verglas.types import Map

PARTS = ("processor", "files", "gpu")
# Kernels whose times, of some milliseconds each, stand for those of whole jobs (:mod:`verglas.run.speed`).
SHORT = (
    "scoring, 16 images at 768 directions, 64 angles, 29 shifts",
    "Fourier transform of a 64 px map, forth and back",
)
_PIXEL_A = 2.0
_MB = 1e6


@dataclass(frozen=True)
class Timing:
    """One problem and the time it took.

    Attributes
    ----------
    part : {"processor", "files", "gpu"}
    name : str
        What was done, with the sizes.
    seconds : float
        Least of the repetitions: what else the machine does only adds to it.
    rate : float
        Work per second, in ``unit``.
    unit : str
    reference_seconds : float or None
        Of the machine :data:`.benchmark_reference.MACHINE`; None where that has no result.
    """

    part: str
    name: str
    seconds: float
    rate: float
    unit: str
    reference_seconds: float | None

    @property
    def times_reference(self) -> float | None:
        """How many times quicker than the reference."""
        return None if self.reference_seconds is None else self.reference_seconds / self.seconds


@dataclass(frozen=True)
class _Problem:
    part: str
    name: str
    work: float
    unit: str
    call: Callable[[], object]


def _random(shape: tuple[int, ...]) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.random.default_rng(0).standard_normal(shape, np.float32)


def _kernels(device: str, threads: int | None) -> Iterator[_Problem]:
    """Contrast transfer and slices on any device, insertion on the CPU."""
    part, box, count = "processor" if device == "cpu" else "gpu", 128, 32 if device == "cpu" else 2048
    where = "" if device == "cpu" else f" on {device}"
    params = np.tile([[15000.0, 14000.0, 30.0, 300.0, 2.7, 0.1, 0.0, 20.0, 1.0]], (count, 1))
    yield _Problem(
        part,
        f"contrast transfer, {count} images of {box} px{where}",
        count,
        "images/s",
        lambda: _wait_for(ops.ctf(params, box, _PIXEL_A, threads=threads, device=device)),
    )
    grid, matrices = ops.Grid(box), euler_to_matrix(random_orientations(count, 1))
    volume = (_random(grid.shape) + 1j * _random(grid.shape)[::-1]).astype(np.complex64)
    yield _Problem(
        part,
        f"projection, {count} slices of a {box} px map{where}",
        count,
        "images/s",
        lambda: _wait_for(ops.project(volume, grid, matrices, threads=threads, device=device)),
    )
    if device != "cpu":
        return
    images = fourier.forward(_random((count, box, box)), 2, threads=threads)
    sums = ops.GridSums.zeros(grid)
    yield _Problem(
        part,
        f"insertion, {count} images into a {box} px map",
        count,
        "images/s",
        lambda: ops.insert(sums, images, matrices, threads=threads),
    )


def _wait_for(result: Any) -> object:
    """Results of a device brought home: kernels there run on after the call has returned."""
    return result.get() if hasattr(result, "get") else result


def _transform(threads: int | None) -> _Problem:
    side = 64
    cube = _random((side,) * 3)
    return _Problem(
        "processor",
        f"Fourier transform of a {side} px map, forth and back",
        2,
        "transforms/s",
        lambda: fourier.inverse(fourier.forward(cube, 3, threads=threads), cube.shape, threads=threads),
    )


def _search(threads: int | None) -> _Problem:
    """Every pose of 16 images, as the first passes of classification and refinement score them."""
    images, directions, n_psi, radius, box = 16, 768, 64, 12, 128
    grid = ops.PolarGrid(box, radius, diameter_px=0.8 * box)
    shape = (grid.n_rings, grid.n_theta // 2)
    slices = (_random((directions // 2, *shape)) + 1j * _random((directions // 2, *shape))[::-1]).astype(np.complex64)
    data = (slices[:images] + 2 * slices[images : 2 * images]).astype(np.complex64)
    shifts = np.array([(x, y) for x in range(-3, 4) for y in range(-3, 4) if x * x + y * y <= 9], np.float32)
    plan = ops.ScorePlan(grid, n_psi)
    plan.set_reference(slices, opposite=True)
    noise = np.full((images, grid.n_rings), 0.25, np.float32)
    return _Problem(
        "processor",
        f"scoring, {images} images at {directions} directions, {n_psi} angles, {len(shifts)} shifts",
        1e-6 * images * directions * n_psi * len(shifts),
        "million poses/s",
        lambda: plan.run(data, shifts, inv_sigma2=noise, threads=threads),
    )


def problem_named(name: str) -> Callable[[], object]:
    """One of the short problems on one thread of the CPU, to be called."""
    return next(p.call for p in (_transform(1), _search(1)) if p.name == name)


def _files(folder: Path) -> Iterator[_Problem]:
    """A table of 5,000 rows, a stack and a map, written and read; pages may still be in memory when they are read."""
    from verglas import io

    rows = 5_000
    numbers = np.random.default_rng(0).normal(size=(rows, 6))
    names = ("DefocusU", "DefocusV", "AngleRot", "AngleTilt", "AnglePsi", "NormCorrection")
    table = pd.DataFrame({f"rln{name}": numbers[:, i] for i, name in enumerate(names)})
    star, stack, volume = folder / "table.star", folder / "stack.mrcs", folder / "map.mrc"
    images, cube = _random((200, 128, 128)), Map(_random((96,) * 3), _PIXEL_A)
    pairs: tuple[tuple[str, float, str, Callable[[], object]], ...] = (
        (f"STAR file of {rows} rows, written", rows, "rows/s", lambda: io.write_star(star, {"particles": table})),
        (f"STAR file of {rows} rows, read", rows, "rows/s", lambda: io.read_star(star)),
        (
            "stack of 200 images of 128 px, written",
            images.nbytes / _MB,
            "MB/s",
            lambda: io.write_stack(stack, images, 2),
        ),
        ("stack of 200 images of 128 px, read", images.nbytes / _MB, "MB/s", lambda: np.array(io.read_stack(stack))),
        ("map of 96 px, written", cube.data.nbytes / _MB, "MB/s", lambda: io.write_map(volume, cube)),
        ("map of 96 px, read", cube.data.nbytes / _MB, "MB/s", lambda: io.read_map(volume).data.sum()),
    )
    for name, work, unit, call in pairs:
        yield _Problem("files", name, work, unit, call)


def _time(problem: _Problem, repeats: int) -> Timing:
    problem.call()  # pages, plans and caches
    times = []
    for _ in range(repeats):
        begun = time.perf_counter()
        problem.call()
        times.append(time.perf_counter() - begun)
    seconds = min(times)
    return Timing(problem.part, problem.name, seconds, problem.work / seconds, problem.unit, SECONDS.get(problem.name))


def benchmark(
    parts: tuple[str, ...] = PARTS, *, repeats: int = 20, threads: int | None = 1
) -> tuple[dict[str, object], list[Timing]]:
    """Time fixed problems on the processor, on files of a scratch folder, and on every GPU.

    Parameters
    ----------
    parts : tuple of {"processor", "files", "gpu"}
        What to time; "gpu" is nothing on a machine without one.
    repeats : int
        Timed runs of each, after one that is not.
    threads : int, optional
        Threads; one by default, as the reference; None for all.

    Returns
    -------
    machine : dict
        Processor, threads and instruction set of the times.
    timings : list of Timing

    Raises
    ------
    InputError
        An unknown part, or no repetition.

    Examples
    --------
    >>> from verglas.run.benchmark import benchmark
    >>> machine, timings = benchmark(("files",), repeats=1)
    >>> timings[0].name, timings[0].unit, timings[0].seconds > 0
    ('STAR file of 5000 rows, written', 'rows/s', True)
    """
    unknown = sorted(set(parts) - set(PARTS))
    if unknown:
        raise InputError(f"benchmark: unknown part {', '.join(unknown)}; known are {', '.join(PARTS)}")
    if repeats < 1:
        raise InputError(f"benchmark: repeats: expected at least 1, got {repeats}")
    timings: list[Timing] = []
    if "processor" in parts:
        timings += [
            _time(problem, repeats) for problem in (*_kernels("cpu", threads), _transform(threads), _search(threads))
        ]
    if "files" in parts:
        with tempfile.TemporaryDirectory(prefix="verglas-benchmark-") as folder:
            timings += [_time(problem, repeats) for problem in _files(Path(folder))]
    if "gpu" in parts:
        for device in devices()[1:]:
            timings += [_time(problem, repeats) for problem in _kernels(device, threads)]
    return this_machine(threads), timings


def this_machine(threads: int | None = None) -> dict[str, object]:
    """Processor, threads and instruction set."""
    return {
        "processor": processor_name(),
        "threads": _native.resolve_threads(threads),
        "isa": _native.core.isa,
        "platform": platform.platform(),
    }


def report(machine: dict[str, object], timings: list[Timing]) -> str:
    """A table to read, with the reference beside."""
    lines = [f"this machine: {_sentence(machine)}", f"reference:    {_sentence(MACHINE)}", ""]
    width = max((len(one.name) for one in timings), default=0)
    lines.append(f"{'':{width}}  {'ms':>9}  {'rate':>22}  {'reference ms':>12}  {'times as quick':>14}")
    for one in timings:
        reference = "-" if one.reference_seconds is None else f"{1e3 * one.reference_seconds:.1f}"
        times = "-" if one.times_reference is None else f"{one.times_reference:.2f}"
        rate = f"{one.rate:.3g} {one.unit}" if one.rate < 1e4 else f"{one.rate:.0f} {one.unit}"
        lines.append(f"{one.name:{width}}  {1e3 * one.seconds:9.1f}  {rate:>22}  {reference:>12}  {times:>14}")
    return "\n".join(lines)


def _sentence(machine: dict[str, object]) -> str:
    note = f"; {machine['note']}" if "note" in machine else ""
    return f"{machine['processor']}, {machine['threads']} thread(s), kernels {machine['isa']}{note}"
