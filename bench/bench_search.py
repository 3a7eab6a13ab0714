"""Branch and bound: share of the finest grid that is scored, poses against the exhaustive search, memory as stated.

``python bench/bench_search.py [--memory]`` writes bench/results/search.json. 200 simulated particles of 128 px at SNR
0.05 (power ratio over the whole box), searched to R = 32 at 3.7 degrees and half a pixel, by branch and bound and
exhaustively on that same finest grid; windows of 7.5 degrees over three levels; ``vg.align`` at three steps, on faint
particles of a phantom (96 px, SNR 0.02). With --memory also box 384 to R = 150 at 0.9 degrees (a minute, 1.3 GB), in a
process of its own: the memory stated by ``search_cost`` beside the peak that was taken.

``--device cuda:0`` runs the two searches on a GPU, images there from the start, and writes
bench/results/search_cuda.json: the rates of the copy and the products of the same device stand beside them
(bench/device.py), but no floor, since what is scored depends on the data.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from typing import Any

import numpy as np

from common import write
from device import measure, open_device

BOX, PIXEL_A, SNR = 128, 1.5, 0.05


def blob_map(box: int, blobs: int, width_px: float, seed: int = 0) -> np.ndarray:
    """Gaussian blobs, plane by plane."""
    rng = np.random.default_rng(seed)
    centres = np.clip(rng.normal(0, 0.13 * box, (blobs, 3)), -0.28 * box, 0.28 * box)
    y, x = np.indices((box, box), dtype=np.float32) - box // 2
    out = np.zeros((box,) * 3, np.float32)
    for a, b, c in centres:
        plane = np.exp(-((x - a) ** 2 + (y - b) ** 2) / (2 * width_px**2))
        weight = np.exp(-((np.arange(box) - box // 2 - c) ** 2) / (2 * width_px**2)).astype(np.float32)
        for z in np.flatnonzero(weight > 1e-5):
            out[z] += weight[z] * plane
    return out


def particles(volume: np.ndarray, n: int, seed: int = 1) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """Masked images, CTF parameters, true angles and the noise variance of a pixel."""
    import verglas as vg
    from verglas import fourier, gridding, ops

    rng = np.random.default_rng(seed)
    angles = np.column_stack(
        [rng.uniform(-180, 180, n), np.degrees(np.arccos(rng.uniform(-1, 1, n))), rng.uniform(-180, 180, n)]
    )
    u = rng.uniform(8e3, 2e4, n)
    params = vg.Optics(u, u + rng.uniform(-300, 300, n), rng.uniform(0, 180, n)).as_params()
    grid = ops.Grid(BOX)
    slices = ops.project(
        gridding.to_grid(volume, grid),
        grid,
        vg.euler_to_matrix(angles),
        shifts_px=rng.uniform(-2, 2, (n, 2)),
        ctf=ops.ctf(params, BOX, PIXEL_A),
    )
    clean = fourier.inverse(slices, (BOX, BOX))
    variance = float(clean.var() / SNR)
    noisy = clean + rng.normal(0, variance**0.5, clean.shape)
    y, x = np.indices((BOX, BOX)) - BOX // 2
    return (noisy * (np.hypot(x, y) < 0.4 * BOX)).astype(np.float32), params, angles, variance


def against_exhaustive(n: int, device: str = "cpu") -> dict[str, Any]:
    """Both searches of the same particles on the same finest grid."""
    import verglas as vg
    from verglas import geometry, ops
    from verglas.search import PoseSearch, SearchSettings, search_levels
    from verglas.search.bound import lattice_quarter
    from verglas.search.cells import Cells, angles_deg, slices_of_pixels, split

    volume = blob_map(BOX, 120, 2.0)
    images, params, angles, variance = particles(volume, n)
    levels = search_levels([16, 32], order=3)
    chosen = SearchSettings(shift_range_px=3.0)
    inv = np.full(BOX, 1 / (variance * BOX**2))
    search = PoseSearch(volume, levels, diameter_px=0.8 * BOX, settings=chosen, device=device)
    start = time.perf_counter()
    found = search.run(images, inv, ctf=params, pixel_size_A=PIXEL_A)
    bounded_s = time.perf_counter() - start

    level, grid = levels[-1], search.polar[-1]
    zero = np.zeros(len(search.shifts), np.int64)
    fine = split(Cells(zero, zero, zero, search.shifts), levels[0], lattice_quarter(levels, 0))
    shifts = np.unique(fine.shift, axis=0) * search.unit_px
    pixels = np.arange(geometry.healpix_count(level.order))
    made, _ = slices_of_pixels(level.order, pixels)
    slices = np.unique(made)
    plan = ops.ScorePlan(grid, level.n_psi, n_power=chosen.n_power, epsilon=chosen.epsilon, device=device)
    plan.set_reference(search.reference.slices(level.order, slices, grid, None), opposite=True)
    samples = ops.polar(images, grid, device=device)
    start = time.perf_counter()
    best = plan.run(samples, shifts, ctf=params, pixel_size_A=PIXEL_A, inv_sigma2=inv[grid.shells].astype(np.float32))
    exhaustive_s = time.perf_counter() - start
    at = angles_deg(level, slices[best.best_slice], best.best_psi.astype(np.int64))
    turned = best.best_opposite
    at[turned, 0], at[turned, 1] = at[turned, 0] + 180, 180 - at[turned, 1]
    a, b, truth = (vg.euler_to_matrix(v) for v in (found.angles_deg, at, angles))

    def degrees(p: np.ndarray, q: np.ndarray) -> np.ndarray:
        return np.degrees(np.arccos(np.clip((np.einsum("nij,nij->n", p, q) - 1) / 2, -1, 1)))

    same = (degrees(a, b) < 0.01) & np.isclose(found.shifts_px, shifts[best.best_shift]).all(axis=1)
    last = found.statistics[-1]
    scored = sum(s.evaluated + s.probed for s in found.statistics)
    return {
        "case": "128 px, SNR 0.05, R = 32",
        "particles": n,
        "finest_poses_per_particle": last.exhaustive // n,
        "scored_share_of_finest": scored / last.exhaustive,
        "scored_share_after_first_level": (scored - found.statistics[0].evaluated) / last.exhaustive,
        "stopped_early": int((found.level < len(levels) - 1).sum()),
        "same_best_pose": float(same.mean()),
        "evidence_difference_max": float(np.abs(found.log_evidence - best.log_evidence)[found.level == 1].max()),
        "ms_per_particle": 1e3 * bounded_s / n,
        "exhaustive_ms_per_particle": 1e3 * exhaustive_s / n,
        "median_angular_error_deg": float(np.median(degrees(a, truth))),
        "exhaustive_median_angular_error_deg": float(np.median(degrees(b, truth))),
    }


def in_windows(n: int, device: str = "cpu") -> dict[str, Any]:
    """A local search: orientations known to 2 degrees, windows of 7.5 degrees, R = 16 to 48."""
    import verglas as vg
    from verglas.search import LocalWindow, PoseSearch, SearchSettings, search_levels

    volume = blob_map(BOX, 120, 2.0)
    images, params, angles, variance = particles(volume, n)
    levels = search_levels([16, 32, 48], order=4)
    near = angles + np.random.default_rng(5).normal(0, 2, angles.shape)
    settings = SearchSettings(shift_range_px=3.0)
    search = PoseSearch(volume, levels, diameter_px=0.8 * BOX, settings=settings, device=device)
    started = time.perf_counter()
    found = search.run(
        images, np.full(BOX, 1 / (variance * BOX**2)), ctf=params, pixel_size_A=PIXEL_A, window=LocalWindow(near, 7.5)
    )
    seconds = time.perf_counter() - started
    return {
        "case": "windows of 7.5 degrees, R = 48",
        "particles": n,
        "ms_per_particle": 1e3 * seconds / n,
        "median_angular_error_deg": float(np.median(vg.geometry.angular_distance(found.angles_deg, angles))),
        "scored_share_of_finest": sum(s.evaluated + s.probed for s in found.statistics)
        / found.statistics[-1].exhaustive,
    }


def by_step(n: int) -> list[dict[str, Any]]:
    """``vg.align`` at the default step and two finer ones: faint particles that a coarse search mistakes for others."""
    import verglas as vg

    model = vg.simulate.phantom(96, 2.0, 110.0, seed=3)
    many = vg.simulate.particles(model, n, 96, 2.0, snr=0.02, seed=4)
    volume = vg.simulate.density(model, 96, 2.0)
    rows = []
    for step_deg, exhaustive in ((7.5, False), (3.75, False), (1.875, False), (3.75, True)):
        started = time.perf_counter()
        found = vg.align(many, volume, diameter_A=120.0, step_deg=step_deg, exhaustive=exhaustive)
        seconds = time.perf_counter() - started
        error = vg.geometry.angular_distance(found.poses.angles_deg, many.poses.angles_deg)
        rows.append(
            {
                "case": f"vg.align, step {step_deg:g}" + (", exhaustive" if exhaustive else ""),
                "particles": n,
                "ms_per_particle": 1e3 * seconds / n,
                "median_angular_error_deg": float(np.median(error)),
                "within_5_deg": float(np.mean(error < 5)),
            }
        )
    return rows


def memory() -> dict[str, Any]:
    """Box 384 to R = 150: stated and taken memory of this process, the map included in both."""
    import psutil

    from verglas.search import PoseSearch, SearchSettings, search_cost, search_levels

    box, levels = 384, search_levels([16, 32, 64, 150], order=3)
    chosen = SearchSettings(shift_range_px=3.0, batch=16, slice_memory_MB=256)
    volume = blob_map(box, 60, 3.0)
    sigma = 4 * float(volume.sum(0).std())
    y, x = np.indices((box, box), dtype=np.float32) - box // 2
    noise = np.random.default_rng(0).standard_normal((16, box, box), np.float32)
    images = (volume.sum(0) + sigma * noise) * (np.hypot(x, y) < 0.4 * box)
    del noise
    before = psutil.Process().memory_info().rss - volume.nbytes
    cost = search_cost(box, levels, settings=chosen, diameter_px=0.8 * box)
    start = time.perf_counter()
    search = PoseSearch(volume, levels, settings=chosen, diameter_px=0.8 * box)
    made = time.perf_counter()
    result = search.run(images, np.full(box, 1 / (sigma * box) ** 2))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before
    last = result.statistics[-1]
    return {
        "case": "384 px, R = 150, 0.9 degrees",
        "particles": 16,
        "stated_GB": cost.memory_GB,
        "taken_GB": peak / 1e9,
        "preparation_s": made - start,
        "ms_per_particle": 1e3 * (time.perf_counter() - made) / 16,
        "finest_poses_per_particle": last.exhaustive // 16,
        "scored_share_of_finest": sum(s.evaluated + s.probed for s in result.statistics) / last.exhaustive,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--memory", action="store_true", help="box 384 as well")
    parser.add_argument("--particles", type=int, default=200)
    parser.add_argument("--measure", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--device", help="a GPU, such as cuda:0")
    args = parser.parse_args()
    if args.device:
        machine = measure(open_device(args.device))
        rows = [against_exhaustive(args.particles, args.device), in_windows(2 * args.particles, args.device)]
        write("search_cuda", [row | vars(machine) for row in rows])
        return
    if args.measure:
        print(json.dumps(memory()))
        return
    rows = [against_exhaustive(args.particles), in_windows(2 * args.particles), *by_step(args.particles)]
    if args.memory:
        done = subprocess.run([sys.executable, __file__, "--measure"], check=True, text=True, stdout=subprocess.PIPE)
        rows.append(json.loads(done.stdout.splitlines()[-1]))
    write("search", rows)


if __name__ == "__main__":
    main()
