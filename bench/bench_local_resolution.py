"""Local resolution on planted half maps: medians of each method, where the edge between two resolutions lies, and time.

    python bench/bench_local_resolution.py --seeds 10      calibration; goes on where an earlier call stopped
    python bench/bench_local_resolution.py --time 128 256  seconds and memory of every voxel
    python bench/bench_local_resolution.py --small         4 and 8 A beside each other in boxes of 64, 10 seeds
    python bench/bench_local_resolution.py --directions    axis of the coarsest resolution, planted at random
    python bench/bench_local_resolution.py --tomogram      20 and 40 A in slabs
    python bench/bench_local_resolution.py --relion        beside relion_postprocess --locres on the same half maps

Development used seeds 0 to 4; the committed rows begin at seed 6200, those of tomograms at 6100. Seeds seen before:
6000 to 6002 (before monogenic and steerable amplitudes were averaged under the whole window, and halves of tomograms
rose at the faces), 5000 (before bands of long waves had windows of their own), 300 (before ends within bands were
looked for), 100 (before leaks were taken off).
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

import verglas as vg
from verglas.assessment import local_directions, local_resolution_of_tomogram
from verglas.simulate import PlantedHalves, planted_halves

from common import RESULTS, write

BOX, PIXEL_A, FIRST_SEED = 96, 1.5, 6200
SMALL_BOX, DIRECTIONS_BOX = 64, 48
METHODS = ("fsc", "significance", "monogenic", "steerable")
PLANTED = {"halves": (4.0, 8.0), "staircase": (12.0, 6.0, 3.2)}
NOISES = (0.5, 1.0, 2.0, 4.0)


def object_map(kind: str, seed: int, box: int = BOX) -> vg.Map:
    """Noise, or the density of a phantom without or with symmetry."""
    if kind == "field":
        return vg.Map(np.random.default_rng(seed).standard_normal((box,) * 3, dtype=np.float32), PIXEL_A)
    model = vg.simulate.phantom(box, PIXEL_A, 0.8 * box * PIXEL_A, {"phantom": "C1", "dimer": "D2"}[kind], seed)
    return vg.simulate.density(model, box, PIXEL_A)


def edge_A(found: vg.Map, halves: PlantedHalves) -> float:
    """Where along x the mean resolution passes the geometric mean of two planted halves, from the true boundary."""
    centre = found.box // 2
    reach = int(30 / PIXEL_A)
    log = np.where(halves.inside, np.log(found.data), np.nan)
    profile = np.nanmean(log[:, :, centre - reach : centre + reach], axis=(0, 1))
    level = 0.5 * (profile[:3].mean() + profile[-3:].mean())
    crossing = np.flatnonzero(np.diff(np.sign(profile - level)))
    middle = crossing[np.argmin(np.abs(crossing - reach))] + 0.5 - reach if crossing.size else np.inf
    return float(abs(middle) * PIXEL_A)


def rows_of(seed: int, kind: str, noise: float, planted: str, density: vg.Map | None = None) -> Iterator[dict]:
    halves = planted_halves(density or object_map(kind, seed), PLANTED[planted], noise, seed)
    for method in METHODS:
        began = time.process_time()
        found = vg.local_resolution(halves.half1, halves.half2, halves.inside, method=method, listener=None)
        seconds = time.process_time() - began
        window = 2 * found.window_radius_A
        row = {"seed": seed, "object": kind, "noise": noise, "planted": planted, "method": method}
        row |= {"window_A": window, "processor_seconds": seconds}
        for limit in PLANTED[planted]:
            # The slabs of a staircase are 40 A thick: their middles are farther than a window from both neighbours.
            beyond = min(window, 17.0) if planted == "staircase" else window
            for name, distance in (("median", beyond), ("near", 0.0)):
                values = found.map.data[halves.at(limit, distance)]
                row[f"{name}_{limit:g}_A"] = float(np.median(values)) if values.size else None
        if planted == "halves":
            row["edge_A"] = edge_A(found.map, halves)
        yield row


def summary(rows: list[dict]) -> list[dict]:
    """Per planted set, noise and method: medians over seeds, worst relative error, share within 10 and 15 %."""
    lines = []
    for planted, limits in PLANTED.items():
        for noise in NOISES:
            for method in METHODS:
                these = [r for r in rows if (r["planted"], r["noise"], r["method"]) == (planted, noise, method)]
                if not these:
                    continue
                line = {"planted": planted, "noise": noise, "method": method, "maps": len(these)}
                errors = []
                for limit in limits:
                    values = np.array([r[f"median_{limit:g}_A"] for r in these], float)
                    line[f"median_{limit:g}_A"] = float(np.median(values))
                    errors.append(np.abs(values / limit - 1))
                line |= {
                    "within_10": float(np.mean(np.array(errors) < 0.10)),
                    "within_15": float(np.mean(np.array(errors) < 0.15)),
                }
                line["worst"] = float(np.max(errors))
                if planted == "halves":
                    line["edge_median_A"] = float(np.median([r["edge_A"] for r in these]))
                    line["edge_worst_A"] = float(np.max([r["edge_A"] for r in these]))
                    line["window_A"] = float(np.median([r["window_A"] for r in these]))
                lines.append(line)
    return lines


def calibrate(seeds: int, seconds: float, out: Path) -> None:
    """As many seeds as wanted; saved after each, so that the next call goes on."""
    rows = json.loads(out.read_text())["maps"] if out.exists() else []
    done, began = {(r["seed"], r["object"], r["noise"], r["planted"]) for r in rows}, time.monotonic()
    for seed in range(FIRST_SEED, FIRST_SEED + seeds):
        kind = ("field", "phantom", "dimer")[seed % 3]
        for planted in PLANTED:
            for noise in NOISES:
                if (seed, kind, noise, planted) in done:
                    continue
                if time.monotonic() - began > seconds:
                    return
                rows += rows_of(seed, kind, noise, planted)
                write(out.stem, summary(rows), maps=rows)


def small(seeds: int, seconds: float) -> None:
    """Only two halves, at three noises, in boxes of 64 voxels: more phantoms in the same time."""
    out = RESULTS / "local_resolution_small.json"
    rows = json.loads(out.read_text())["maps"] if out.exists() else []
    done, began = {(r["seed"], r["noise"]) for r in rows}, time.monotonic()
    for seed in range(FIRST_SEED, FIRST_SEED + seeds):
        for noise in (1.0, 2.0, 4.0):
            if (seed, noise) in done or time.monotonic() - began > seconds:
                continue
            kind = ("field", "phantom", "dimer")[seed % 3]
            rows += rows_of(seed, kind, noise, "halves", object_map(kind, seed, SMALL_BOX))
            write(out.stem, summary(rows), maps=rows, box=SMALL_BOX)


def directions(seeds: int) -> None:
    """Phantoms blurred by 60 A^2 and by 400 A^2 more along a random axis: angle to the axis found."""
    rows = []
    for seed in range(FIRST_SEED, FIRST_SEED + seeds):
        kind, rng = ("field", "phantom", "dimer")[seed % 3], np.random.default_rng(seed)
        axis = rng.normal(size=3)
        axis /= np.linalg.norm(axis)
        truth = object_map(kind, seed, DIRECTIONS_BOX)
        spectrum = vg.fourier.forward(truth.data, 3)
        z, y, x = (k / (DIRECTIONS_BOX * PIXEL_A) for k in vg.fourier.half_grid(truth.data.shape))
        along2 = (x * axis[0] + y * axis[1] + z * axis[2]) ** 2
        spectrum *= np.exp(-(60 * (x**2 + y**2 + z**2) + 400 * along2) / 4)
        signal = vg.fourier.inverse(spectrum.astype(np.complex64), truth.data.shape)
        noises = rng.standard_normal((2, *signal.shape), dtype=np.float32) * signal.std()
        ball = vg.masks.soft_sphere(DIRECTIONS_BOX, 0.36 * DIRECTIONS_BOX)
        began = time.process_time()
        found = local_directions(*(truth.with_data(signal + n) for n in noises), ball, listener=None)
        local = np.abs(axis @ found.coarsest_axis[:, ball >= 0.5])
        rows.append(
            {
                "seed": seed,
                "object": kind,
                "axis_error_deg": float(np.rad2deg(np.arccos(min(1.0, abs(axis @ found.axis))))),
                "median_voxel_error_deg": float(np.rad2deg(np.arccos(min(1.0, np.median(local))))),
                "anisotropy": found.anisotropy,
                "processor_seconds": time.process_time() - began,
            }
        )
        write("local_resolution_directions", rows, box=DIRECTIONS_BOX)


def tomograms(seeds: int) -> None:
    """20 and 40 A beside each other in slabs of 36 x 96 x 96 voxels of 5 A; ``faces``: within 15 A of one."""
    rows = []
    for seed in range(FIRST_SEED, FIRST_SEED + seeds):
        for noise in (1.0, 2.0, 4.0):
            field = vg.Map(np.random.default_rng(seed).standard_normal((96,) * 3, dtype=np.float32), 5.0)
            planted = planted_halves(field, (20.0, 40.0), noise, seed)
            slab = slice(30, 66)
            halves = [vg.Map(m.data[slab], 5.0) for m in (planted.half1, planted.half2)]
            found = local_resolution_of_tomogram(*halves, listener=None)
            row = {"seed": seed, "noise": noise, "window_A": 2 * found.window_radius_A}
            for limit in (20.0, 40.0):
                at = planted.at(limit, 2 * found.window_radius_A)[slab]
                depth_A = 5.0 * np.minimum(np.arange(36), np.arange(36)[::-1])
                for name, far in (("median", depth_A > found.window_radius_A), ("faces", depth_A < 15)):
                    values = found.map.data[at & far[:, None, None]]
                    row[f"{name}_{limit:g}_A"] = float(np.median(values)) if values.size else None
            rows.append(row)
            write("local_resolution_tomogram", rows)


def timings(boxes: list[int], threads: int | None, methods: list[str]) -> None:
    rows = []
    for box in boxes:
        halves = planted_halves(object_map("field", 0, box), (4.0, 8.0), 2.0, 0)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        for method in methods:
            began, cpu = time.perf_counter(), time.process_time()
            vg.local_resolution(
                halves.half1, halves.half2, halves.inside, method=method, listener=None, threads=threads
            )
            rows.append(
                {
                    "box": box,
                    "method": method,
                    "seconds": time.perf_counter() - began,
                    "processor_seconds": time.process_time() - cpu,
                    "peak_MB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3,
                    "before_MB": before / 1e3,
                }
            )
            write("local_resolution_time", rows, threads=threads)


def beside_relion(box: int = 128) -> None:
    """The same half maps and the same window: values at the points that RELION computes (its sampling is 25 A)."""
    if shutil.which("relion_postprocess") is None:
        raise SystemExit("relion_postprocess is not installed")
    halves = planted_halves(object_map("phantom", FIRST_SEED, box), (4.0, 8.0), 2.0, FIRST_SEED)
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "post").mkdir()  # relion_postprocess puts its histogram there
        for number, half in enumerate((halves.half1, halves.half2), 1):
            vg.write_map(Path(folder, f"half{number}_class001_unfil.mrc"), half)
        vg.write_map(Path(folder, "mask.mrc"), half.with_data(halves.inside.astype(np.float32)))
        command = ["relion_postprocess", "--i", "half1_class001_unfil.mrc", "--i2", "half2_class001_unfil.mrc"]
        command += [
            "--o",
            "post",
            "--mask",
            "mask.mrc",
            "--locres",
            "--locres_sampling",
            "25",
            "--locres_maskrad",
            "12.5",
        ]
        command += ["--locres_edgwidth", "12.5", "--adhoc_bfac", "0", "--angpix", str(PIXEL_A)]
        began = time.perf_counter()
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
        relion_seconds = time.perf_counter() - began
        if done.returncode:
            raise SystemExit(done.stdout[-500:] + done.stderr[-500:])
        theirs = vg.read_map(Path(folder, "post_locres.mrc")).data
    began = time.perf_counter()
    found = vg.local_resolution(halves.half1, halves.half2, halves.inside, window_radius_A=12.5, listener=None)
    seconds = time.perf_counter() - began
    rows = []
    for limit in (4.0, 8.0):
        at = halves.at(limit, 25.0)
        rows.append(
            {
                "planted_A": limit,
                "relion_median_A": float(np.median(theirs[at])),
                "verglas_median_A": float(np.median(found.map.data[at])),
                "median_ratio": float(np.median(found.map.data[at] / theirs[at])),
            }
        )
    write("local_resolution_relion", rows, box=box, relion_seconds=relion_seconds, verglas_seconds=seconds)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=540.0, help="of this call; the next goes on")
    parser.add_argument("--time", type=int, nargs="*")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--methods", nargs="*", default=METHODS, help="that are timed")
    for option in ("--relion", "--small", "--directions", "--tomogram"):
        parser.add_argument(option, action="store_true")
    parser.add_argument("--first-seed", type=int, default=FIRST_SEED)
    given = parser.parse_args()
    FIRST_SEED = given.first_seed
    if given.relion:
        beside_relion()
    elif given.time:
        timings(given.time, given.threads, given.methods)
    elif given.small:
        small(given.seeds, given.seconds)
    elif given.directions:
        directions(given.seeds)
    elif given.tomogram:
        tomograms(given.seeds)
    else:
        calibrate(given.seeds, given.seconds, RESULTS / "local_resolution.json")
