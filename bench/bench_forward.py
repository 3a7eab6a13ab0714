"""The forward model's kernels on a GPU: CTFs, slices, insertion, rings, shells, matching, scattering.

    python bench/bench_forward.py --device cuda:0 [--box 256] [--images 1000]
    python bench/bench_forward.py --count

Each row holds the operations and the bytes that were counted, the time, the rates, and beside them a copy and a matrix
product measured on the same device (bench/device.py). Bytes are those that must cross the device's memory once; taps
that neighbours share come from cache. ``--count`` prints what is counted, without a GPU. The CPU's figures of these ops
are those of bench_ctf.py, bench_project.py, bench_shell_dot.py and bench_simulate.py.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from scipy.spatial.transform import Rotation

from verglas import ops

from common import write
from device import Work, measure, milliseconds, open_device

PIXEL_SIZE_A = 1.0
MATCH = (500, 60)  # combinations, maps
ATOMS = 5000


@dataclass(frozen=True)
class Case:
    """Sizes that all rows share."""

    box: int
    n: int

    @property
    def grid(self) -> ops.Grid:
        """Of the map."""
        return ops.Grid(self.box)

    @property
    def polar(self) -> ops.PolarGrid:
        """Rings to 60 Fourier pixels."""
        return ops.PolarGrid(self.box, min(60, (self.box - 1) // 2))

    @property
    def half_pixels(self) -> int:
        """Elements of a half transform."""
        return self.box * (self.box // 2 + 1)

    @property
    def used(self) -> float:
        """Of them, those within the grid's radius."""
        return np.pi / 2 * (self.grid.max_radius + 0.5) ** 2

    @property
    def samples(self) -> int:
        """Of a slice on the rings."""
        return self.polar.n_rings * (self.polar.n_theta // 2)


def counted(c: Case) -> dict[str, Work]:
    """Operations (multiply and add apart) and bytes of each row."""
    taps, points = c.grid.width**3, float(np.prod(c.grid.shape))
    gather = 4 * taps + 2 * c.grid.width**2
    k = int(np.ceil(1.5 * c.polar.radii[-1])) + 5  # frequencies of the padded transform along one axis
    half = c.box // 2 + 1

    def work(gflop: float, gbyte: float) -> Work:
        return Work(1e-9 * gflop, 1e-9 * gbyte)

    return {
        "ctf": work(30 * c.n * c.half_pixels, 4 * c.n * c.half_pixels),
        "project": work(c.n * c.used * gather, 8 * points + 12 * c.n * c.half_pixels),
        "insert, atomics": work(c.n * c.used * 6 * taps, 48 * points + 12 * c.n * c.used),
        "insert, deterministic": work(c.n * c.used * 6 * taps, 48 * points + 36 * c.n * c.used),
        "rotate": work(2 * c.grid.max_radius**3 * gather, 8 * points + 8 * c.box * c.half_pixels),
        "polar": work(c.n * 4 * c.box * k * (c.box + 2 * k) + c.n * c.samples * 150, c.n * 4 * c.box**2),
        "polar_slices": work(c.n * c.samples * gather, 8 * points + 8 * c.n * c.samples),
        "polar_insert, atomics": work(c.n * c.samples * 6 * taps, 48 * points + 12 * c.n * c.samples),
        "polar_insert, deterministic": work(c.n * c.samples * 6 * taps, 48 * points + 12 * c.n * c.samples),
        "shell_dot": work(4 * c.n * c.half_pixels, 16 * c.n * c.half_pixels),
        "match": work(2.0 * MATCH[0] * MATCH[1] * c.box**2, 4.0 * (MATCH[1] + 2) * c.box**2),
        "scatter": work(8.0 * min(c.n, 100) * ATOMS * half**2, 8.0 * min(c.n, 100) * c.half_pixels),
    }


def calls(c: Case, cuda: Any, device: str) -> dict[str, Callable[[], Any]]:
    """Each op on arrays that lie on the device."""
    cupy, grid, rings, rng = cuda.cupy, c.grid, c.polar, np.random.default_rng(0)
    on = {"device": device}
    matrices = cupy.asarray(Rotation.random(c.n, random_state=1).as_matrix())
    params = cupy.asarray(np.tile([15000.0, 14000, 30, 300, 2.7, 0.1, 0, 0, 1], (c.n, 1)))
    pixels = cupy.asarray(rng.standard_normal((min(c.n, 100), c.box, c.box), np.float32))
    pixels = cupy.concatenate([pixels] * -(-c.n // len(pixels)))[: c.n]
    images = cupy.fft.rfft2(pixels).astype(np.complex64)
    ctf = ops.ctf(params, c.box, PIXEL_SIZE_A, **on)
    spectrum = cupy.ones(grid.shape, np.complex64)
    out = cupy.empty((c.n, c.box, c.box // 2 + 1), np.complex64)
    sums = ops.GridSums.zeros(grid, **on)
    samples = ops.polar(pixels, rings, **on)
    weights = cupy.ones(samples.shape, np.float32)
    maps = cupy.asarray(rng.standard_normal((MATCH[1], c.box**2), np.float32))
    mix = cupy.asarray(rng.standard_normal(MATCH, np.float32))
    atoms = np.column_stack([rng.normal(size=(ATOMS, 3)) * c.box / 8, np.ones(ATOMS), np.full(ATOMS, 20.0)])
    model = atoms, np.zeros(ATOMS, int), np.array([[[1.0, 10.0]]])
    poses = cupy.asarray(Rotation.random(min(c.n, 100), random_state=2).as_matrix())
    still = cupy.zeros((len(poses), 2))
    insert = partial(ops.insert, sums, images, matrices, ctf=ctf, **on)
    polar_insert = partial(ops.polar_insert, sums, samples, weights, matrices, rings, **on)
    return {
        "ctf": lambda: ops.ctf(params, c.box, PIXEL_SIZE_A, **on),
        "project": lambda: ops.project(spectrum, grid, matrices, ctf=ctf, out=out, **on),
        "insert, atomics": insert,
        "insert, deterministic": partial(insert, deterministic=True),
        "rotate": lambda: ops.rotate(spectrum, grid, np.eye(3), **on),
        "polar": lambda: ops.polar(pixels, rings, **on),
        "polar_slices": lambda: ops.polar_slices(spectrum, grid, matrices, rings, **on),
        "polar_insert, atomics": polar_insert,
        "polar_insert, deterministic": partial(polar_insert, deterministic=True),
        "shell_dot": lambda: ops.shell_dot(images, out, **on),
        "match": lambda: ops.match(maps, mix, **on),
        "scatter": lambda: ops.scatter(*model, poses, still, c.box, PIXEL_SIZE_A, **on),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--device", help="a GPU, such as cuda:0")
    where.add_argument("--count", action="store_true", help="operations and bytes only; needs no GPU")
    parser.add_argument("--box", type=int, default=256)
    parser.add_argument("--images", type=int, default=1000)
    args = parser.parse_args()
    case = Case(args.box, args.images)
    works = counted(case)
    if args.count:
        for name, work in works.items():
            print(name, "  ".join(f"{key}={value:.4g}" for key, value in work.counted().items()))
        return
    cuda = open_device(args.device)
    machine = measure(cuda)
    with cuda.active():
        made = calls(case, cuda, args.device)
    rows = []
    for name, call in made.items():
        row = {"what": name, "box": case.box, "images": case.n, "device": machine.name}
        rows.append(row | works[name].row(milliseconds(cuda, call), machine))
    write("forward_cuda", rows, peer="a device copy and matrix products (cuBLAS) of the same run")


if __name__ == "__main__":
    main()
