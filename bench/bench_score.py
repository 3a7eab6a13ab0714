"""Exhaustive scoring: poses per second on one core, beside the design's prototype, NumPy's sgemm, AVX2 and two cores.

``python bench/bench_score.py [--quick]`` writes bench/results/score.json. The prototype is compiled with its own flags
into a temporary folder when its source is there (--prototype, default ../shared/design/prototype/search.cpp). Only real
shifts count as poses: 29 of them. Our time holds everything from polar samples to candidates (CTF and noise weighting,
shifts, angular transforms, both passes); the prototype is handed its weighted, shifted harmonics and is timed on the
search alone. Instruction sets are compared in subprocesses (VERGLAS_ISA), taken in turn, where both are installed.

``--device cuda:0`` times the same search on a GPU instead, 100,000 images of each case in batches that stay on the
device, beside the floor (bench/device.py), and writes bench/results/score_cuda.json; ``--count`` prints only what is
counted.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from common import ROOT, compare, timed, write
from device import Work, measure, milliseconds, open_device

BOX, FILL, N_SHIFTS, N_POWER = 128, 0.8, 29, 3
GPU_IMAGES, GPU_BATCH = 100_000, 4096
CASES = {"R12": (12, 768, 64), "R16": (16, 768, 80), "R24": (24, 3072, 120), "R32": (32, 3072, 160)}
PROTOTYPE = ROOT.parent / "shared" / "design" / "prototype" / "search.cpp"


@dataclass
class Case:
    """One problem: slices of random maps' statistics, images = slice + noise, so that posteriors are sharp."""

    radius: int
    n_directions: int
    n_psi: int
    n_images: int
    device: str = "cpu"

    def __post_init__(self) -> None:
        from verglas import ops

        rng = np.random.default_rng(0)
        self.grid = ops.PolarGrid(BOX, self.radius, diameter_px=FILL * BOX)
        shape = (self.grid.n_rings, self.grid.n_theta // 2)

        def noise(n: int) -> np.ndarray:
            return (rng.standard_normal((n, *shape)) + 1j * rng.standard_normal((n, *shape))).astype(np.complex64)

        self.slices = noise(self.n_directions // 2)
        self.images = 2 * noise(self.n_images) + self.slices[rng.integers(0, len(self.slices), self.n_images)]
        self.inv_sigma2 = np.full((self.n_images, self.grid.n_rings), 0.25, np.float32)
        shifts = [(x, y) for x in range(-3, 4) for y in range(-3, 4) if x * x + y * y <= 9]
        self.shifts = np.array(shifts, np.float32)
        assert len(self.shifts) == N_SHIFTS
        self.plan = ops.ScorePlan(self.grid, self.n_psi, n_power=N_POWER, device=self.device)
        self.plan.set_reference(self.slices, opposite=True)

    @property
    def poses(self) -> int:
        """Poses per image, real shifts only."""
        return self.n_directions * self.n_psi * N_SHIFTS

    def gflop(self) -> float:
        """Multiply-adds of both stages per image, as 2 operations; additions of the last butterflies not counted."""
        m = np.arange(self.grid.max_m + 1) % 8
        real = np.isin(m, (0, 4)).sum()
        stage1 = 4 * self.grid.size / 2  # a slice serves two directions
        stage2 = (self.n_psi // 8 + 1) // 2 * (2 * real + 4 * (len(m) - real))
        return 2e-9 * (stage1 + stage2) * self.n_directions * N_SHIFTS

    def ours(self, threads: int) -> Any:
        """The search that is timed."""
        return self.plan.run(self.images, self.shifts, inv_sigma2=self.inv_sigma2, threads=threads)


def build_prototype(source: Path, folder: str) -> ctypes.CDLL:
    library = Path(folder) / "prototype.so"
    flags = ["-O3", "-march=native", "-ffast-math", "-fopenmp", "-shared", "-fPIC"]
    subprocess.run([os.environ.get("CXX", "g++"), *flags, "-o", str(library), str(source)], check=True)
    return ctypes.CDLL(str(library))


def aligned(values: np.ndarray) -> np.ndarray:
    """A copy that starts at a multiple of 64 bytes, which the prototype's vectors ask for."""
    room = np.empty(values.nbytes + 64, np.uint8)
    start = -room.ctypes.data % 64
    out = room[start : start + values.nbytes].view(values.dtype).reshape(values.shape)
    out[...] = values
    return out


def prototype_call(library: ctypes.CDLL, case: Case) -> tuple[Callable[[int], Any], np.ndarray]:
    """The prototype on the same problem; returns the call and its array of best directions."""
    from verglas import ops

    g, n = case.grid, case.n_images
    harmonics = ops.polar_harmonics(case.slices, g)
    odd = np.repeat(np.arange(g.max_m + 1) % 2, np.diff(g.offset))
    both = np.stack([harmonics, np.where(odd, -1, 1) * harmonics.conj()], axis=1).reshape(-1, g.size)
    slices = np.ascontiguousarray(both, np.complex64)
    lanes = np.concatenate([case.shifts, np.repeat(case.shifts[-1:], 3, axis=0)])
    b = ops.polar_weighted(case.images, g, lanes, inv_sigma2=case.inv_sigma2)
    b = b.reshape(n, 2, 16, g.size).transpose(0, 1, 3, 2)
    images = aligned(np.stack([b.real, b.imag], axis=3).astype(np.float32))
    power = ops.polar_power(case.slices, g, 3)
    power = np.ascontiguousarray(np.stack([power, power.conj()], axis=1).reshape(-1, g.n_rings, 3))
    ctf = np.zeros((n, g.n_rings, 3), np.complex64)
    ctf[..., 0] = g.weights * g.n_theta * case.inv_sigma2
    most = 1000
    where, weight, count, total = (
        np.zeros((3, n, most), np.int32),
        np.zeros((n, most), np.float32),
        np.zeros(n, np.int32),
        np.zeros(n),
    )
    prior, first = np.zeros(N_SHIFTS, np.float32), g.first_ring.astype(np.int32)
    arrays = (slices, power, images, ctf, prior, first, where, weight, count, total)

    def pointer(a: np.ndarray) -> ctypes.c_void_p:
        return a.ctypes.data_as(ctypes.c_void_p)

    def call(threads: int) -> Any:
        library.search(
            g.n_rings,
            g.max_m,
            case.n_psi,
            pointer(first),
            case.n_directions,
            pointer(slices),
            pointer(power),
            n,
            N_SHIFTS,
            2,
            pointer(images),
            pointer(ctf),
            pointer(prior),
            ctypes.c_float(9.0),
            most,
            pointer(where[0]),
            pointer(where[1]),
            pointer(where[2]),
            pointer(weight),
            pointer(count),
            pointer(total),
            threads,
        )
        return arrays

    return call, where[0]


def sgemm_gflops() -> float:
    a = np.random.default_rng(0).standard_normal((1024, 1024)).astype(np.float32)
    with threadpool_limits(1):
        return 2 * 1024**3 / timed(lambda: a @ a, 5)["ms"] * 1e-6


def row_of(name: str, library: ctypes.CDLL | None, n_images: int, repeats: int) -> dict[str, Any]:
    case = Case(*CASES[name], n_images)
    candidates: dict[str, Callable[[], Any]] = {"ours": lambda: case.ours(1), "ours_2": lambda: case.ours(2)}
    if library:
        prototype, best = prototype_call(library, case)
        candidates["prototype"] = lambda: prototype(1)
    times = compare(candidates, repeats)
    ms = {k: t["ms"] / n_images for k, t in times.items()}
    row = {
        "case": name,
        "R": case.radius,
        "directions": case.n_directions,
        "n_psi": case.n_psi,
        "shifts": N_SHIFTS,
        "harmonics": case.grid.size,
        "images": n_images,
        "ms_per_image": ms["ours"],
        "Gposes_per_s": case.poses / ms["ours"] * 1e-6,
        "GFLOP_per_s": case.gflop() / ms["ours"] * 1e3,
        "two_threads_speedup": ms["ours"] / ms["ours_2"],
        "sgemm_one_thread_GFLOP_per_s": sgemm_gflops(),
    }
    if library:
        found = case.ours(1)
        mine = 2 * found.best_slice + found.best_opposite
        row |= {
            "prototype_ms_per_image": ms["prototype"],
            "faster_than_prototype": ms["prototype"] / ms["ours"],
            "same_best_direction": float(np.mean(best[:, 0] == mine)),
        }
    return row


def worker(name: str, n_images: int, repeats: int) -> None:
    case = Case(*CASES[name], n_images)
    print(json.dumps({"ms": timed(lambda: case.ours(1), repeats)["ms"] / n_images}))


def instruction_sets(name: str, n_images: int, repeats: int) -> list[dict[str, Any]]:
    """Rounds of one subprocess per instruction set, in turn."""
    from verglas._native import usable_levels

    levels = [level for level in ("v3", "v4") if level in usable_levels()]
    times: dict[str, list[float]] = {level: [] for level in levels}
    for _ in range(repeats):
        for level in levels:
            done = subprocess.run(
                [sys.executable, __file__, "--worker", name, "--images", str(n_images)],
                check=True,
                text=True,
                capture_output=True,
                env={**os.environ, "VERGLAS_ISA": level},
            )
            times[level].append(json.loads(done.stdout.splitlines()[-1])["ms"])
    rows: list[dict[str, Any]] = [
        {"case": name, "isa": level, "ms_per_image": statistics.median(t)} for level, t in times.items() if t
    ]
    if len(rows) == 2:
        rows[0]["share_of_v4_speed"] = rows[1]["ms_per_image"] / rows[0]["ms_per_image"]
    return rows


def work_of(grid: Any, n_directions: int, n_psi: int, n_images: int) -> Work:
    """Pass 1 of cuda/score.cu for so many images: what every search pays; passes 2 and 3 depend on the data.

    Needed: 2 size multiply-adds of stage 1 per direction, image and shift, n_psi / 4 times 2 (max_m + 1) of stage 2.
    Asked of the tensor cores: the same in whole tiles of 16 x 16 x 8, the power term's rows, stage 1 again for every
    two (side, 16 angles), times 3 for the split. Bytes: samples once, harmonics of shifted images written and read.
    """
    m = np.arange(grid.max_m + 1)
    rings = grid.n_rings - grid.first_ring
    rows = rings + np.where((m % 2 == 0) & (m < 2 * N_POWER), grid.n_rings, 0)
    fragments = int(np.sum(-(-rows // 8)))
    columns, slices = n_images * N_SHIFTS, n_directions / 2
    needed = 2 * (4 * grid.size * slices + n_psi / 4 * 2 * (grid.max_m + 1) * n_directions) * columns
    row_tiles = -(-(n_psi // 4) // 16)
    product, tiles = 2 * 16 * 16 * 8, columns / 16 * -(-slices // 16)
    chunks = grid.max_m // 16 + 1
    stage_1 = row_tiles * fragments * 4  # two sides and one row tile of angles a pass
    stage_2 = row_tiles * 2 * chunks * 4 * 16
    samples = 8 * grid.n_rings * grid.n_theta / 2
    tile_bytes = 2 * 4 * 2 * 8 * fragments  # of a column, written and read
    return Work(
        1e-9 * needed,
        1e-9 * (n_images * 2 * samples + columns * tile_bytes),
        1e-9 * tiles * product * 3 * (stage_1 + stage_2),
    )


def device_rows(device: str | None, names: list[str]) -> list[dict[str, Any]]:
    """One row per case; without a device what can be counted."""
    from verglas import ops

    rows = []
    cuda = open_device(device) if device else None
    machine = measure(cuda) if cuda else None
    for name in names:
        radius, n_directions, n_psi = CASES[name]
        grid = ops.PolarGrid(BOX, radius, diameter_px=FILL * BOX)
        work = work_of(grid, n_directions, n_psi, GPU_IMAGES)
        row = {
            "case": name,
            "R": radius,
            "directions": n_directions,
            "n_psi": n_psi,
            "shifts": N_SHIFTS,
            "images": GPU_IMAGES,
            "poses": float(GPU_IMAGES * n_directions * n_psi * N_SHIFTS),
        }
        if cuda is None or machine is None:
            rows.append(row | work.counted())
            continue
        case = Case(radius, n_directions, n_psi, GPU_BATCH, device)
        with cuda.active():
            case.images, case.inv_sigma2 = (cuda.cupy.asarray(a) for a in (case.images, case.inv_sigma2))
        batches = GPU_IMAGES / GPU_BATCH
        ms = batches * milliseconds(cuda, lambda c=case: c.ours(1), 3)
        rows.append(row | {"device": machine.name, "Gposes_per_s": row["poses"] / ms * 1e-6} | work.row(ms, machine))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="R = 16 only, 3 rounds")
    parser.add_argument("--prototype", type=Path, default=PROTOTYPE)
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--worker", metavar="CASE", help=argparse.SUPPRESS)
    parser.add_argument("--device", help="a GPU, such as cuda:0")
    parser.add_argument("--count", action="store_true", help="print what the search on a GPU costs, run nothing")
    args = parser.parse_args()
    if args.count or args.device:
        rows = device_rows(args.device, ["R16"] if args.quick else list(CASES))
        if args.count:
            print(json.dumps(rows, indent=1))
        else:
            write("score_cuda", rows)
        return
    if args.worker:
        worker(args.worker, args.images, 3)
        return
    repeats = 3 if args.quick else 7
    with tempfile.TemporaryDirectory() as folder:
        library = build_prototype(args.prototype, folder) if args.prototype.is_file() else None
        names = ["R16"] if args.quick else list(CASES)
        rows = [row_of(name, library, args.images, repeats) for name in names]
    rows += instruction_sets("R16", args.images, repeats)
    write("score", rows, prototype="present" if library else "absent")


if __name__ == "__main__":
    main()
