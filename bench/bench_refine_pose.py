"""ops.refine_pose: evaluations per second, and pose errors of simulated particles against the Cramer-Rao bound.

Particles: exact transforms of a phantom (ops.scatter: no grid, no interpolation), CTF at 300 kV, white noise. SNR is
the variance of the CTF-modulated image over the whole box divided by that of the noise. Every search starts half a step
of a 7.5 degree, 2 px grid from the truth. Writes bench/results/refine_pose.json.

``--device cuda:0`` times evaluations of many poses on a GPU beside the floor (bench/device.py), and writes
bench/results/refine_pose_cuda.json; ``--count`` prints only what is counted.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.spatial.transform import Rotation

from verglas import fourier, gridding, ops, reference, simulate
from verglas.simulate import scattering

from common import compare, write
from device import Work, measure, milliseconds, open_device

PIXEL_SIZE_A, DIAMETER_A, SNR = 1.5, 130.0, 0.05
START_DEG, START_PX = 3.75, 1.0


@dataclass(frozen=True)
class Particles:
    """Simulated particles and everything that is known about them."""

    volume: npt.NDArray
    clean: npt.NDArray  # half transforms, CTF applied
    images: npt.NDArray
    ctf: npt.NDArray
    sigma: float  # of the noise, per pixel
    matrices: npt.NDArray
    shifts_px: npt.NDArray


def turned_by(angle_deg: float, n: int, rng: np.random.Generator) -> npt.NDArray:
    """Rotations by a fixed angle about uniform axes."""
    axis = rng.normal(size=(n, 3))
    return Rotation.from_rotvec(np.deg2rad(angle_deg) * axis / np.linalg.norm(axis, axis=1, keepdims=True)).as_matrix()


def simulated(box: int, n: int) -> Particles:
    rng = np.random.default_rng(1)
    model = simulate.phantom(box, PIXEL_SIZE_A, DIAMETER_A, seed=0)
    table = scattering.atom_table(model, PIXEL_SIZE_A)
    volume = fourier.inverse(ops.scatter_volume(*table, box, PIXEL_SIZE_A), (box,) * 3)
    matrices, shifts = Rotation.random(n, random_state=1).as_matrix(), rng.normal(size=(n, 2))
    defocus = rng.uniform(8000, 18000, n)
    params = np.column_stack([defocus, defocus - 300, np.tile([30.0, 300, 2.7, 0.1, 0, 0, 1], (n, 1))])
    ctf = ops.ctf(params, box, PIXEL_SIZE_A)
    clean = ops.scatter(*table, matrices, -shifts * PIXEL_SIZE_A, box, PIXEL_SIZE_A) * ctf
    real = fourier.inverse(clean, (box, box))
    sigma = float(np.sqrt(real.var(axis=(1, 2)).mean() / SNR))
    images = clean + fourier.forward(rng.normal(0, sigma, real.shape).astype(np.float32), 2)
    return Particles(volume, clean, images, ctf, sigma, matrices, shifts)


def bound_median_deg(covariance: npt.NDArray) -> float:
    """Median angle of normal rotation vectors with the Cramer-Rao covariances, over particles and 500 draws."""
    z = np.random.default_rng(2).normal(size=(500, len(covariance), 3))
    w = np.einsum("nij,dnj->dni", np.linalg.cholesky(covariance[:, :3, :3]), z)
    return float(np.median(np.rad2deg(np.linalg.norm(w, axis=-1))))


def flop_per_pixel(grid: ops.Grid) -> int:
    """Multiplications and additions of one pixel's value, gradient and share of the sums (cpp/ops/refine_pose.cpp)."""
    w, degree = grid.width, {4: 9, 6: 11, 8: 13}[grid.width]
    taps = 8 * w**3 + 12 * w**2 + 16 * w
    return taps + 12 * w * degree + 150


def speed_rows(p: Particles) -> list[dict]:
    rows, n = [], 40
    box = p.volume.shape[0]
    for radius, width in ((63, 4), (63, 6), (32, 4), (16, 4)):
        grid = ops.Grid(box, max_radius=radius, width=width)
        spectrum = gridding.to_grid(p.volume, grid)
        weight = np.full((n, radius + 1), 1 / (p.sigma * box) ** 2, np.float32)
        args = (p.images[:n], spectrum, grid, p.matrices[:n], p.shifts_px[:n])
        known = {"ctf": p.ctf[:n], "shell_weight": weight, "search": ops.PoseSettings(steps=0)}
        candidates = {f"{t} threads": lambda t=t, a=args, k=known: ops.refine_pose(*a, threads=t, **k) for t in (1, 2)}
        candidates["project"] = lambda s=spectrum, g=grid: ops.project(s, g, p.matrices[:n], threads=1)
        times = compare(candidates, repeats=5)
        shells = fourier.shells((box, box))
        pixels = np.sum(fourier.half_weights((box, box)) * ((shells > 0) & (shells <= radius))) / 2
        for threads in (1, 2):
            ms = times[f"{threads} threads"]["ms"] / n
            rows.append(
                {
                    "what": "score, gradient, Fisher",
                    "box": box,
                    "radius": radius,
                    "taps": width,
                    "threads": threads,
                    "ms_per_pose": ms,
                    "poses_per_s": 1e3 / ms,
                    "ns_per_pixel": 1e6 * ms / pixels * threads,
                    "GFLOP_per_s": flop_per_pixel(grid) * pixels / ms * 1e-6,
                    "ops_project_ms_per_slice_1_thread": times["project"]["ms"] / n,
                }
            )
    return rows


def reference_row() -> dict:
    """The float64 NumPy oracle on a small box, where it can be run at all."""
    box = 24
    volume = np.random.default_rng(0).normal(size=(box,) * 3).astype(np.float32)
    grid = ops.Grid(box)
    x = ops.project(gridding.to_grid(volume, grid), grid, np.eye(3)[None])
    weight = np.ones(grid.max_radius + 1)
    spectrum, one = gridding.to_grid(volume, grid), ops.PoseSettings(steps=0)
    times = compare(
        {
            "kernel": lambda: ops.refine_pose(x, spectrum, grid, np.eye(3)[None], search=one, threads=1),
            "NumPy": lambda: reference.refine_pose.evaluate(volume, x[0], np.eye(3), np.zeros(2), weight),
        }
    )
    return {"what": "one evaluation, box 24", "kernel_ms": times["kernel"]["ms"], "numpy_ms": times["NumPy"]["ms"]}


def accuracy_row(p: Particles, width: int, noisy: bool) -> dict:
    """From half a grid step, with coarse radii first: errors of the found poses."""
    box, n = p.volume.shape[0], len(p.images)
    grid = ops.Grid(box, width=width)
    spectrum = gridding.to_grid(p.volume, grid)
    weight = np.full((n, grid.max_radius + 1), 1 / (p.sigma * box) ** 2, np.float32)
    rng = np.random.default_rng(3)
    off = rng.normal(size=(n, 2))
    start = turned_by(START_DEG, n, rng) @ p.matrices
    shift = p.shifts_px + START_PX * off / np.linalg.norm(off, axis=1, keepdims=True)
    images, known = p.images if noisy else p.clean, {"ctf": p.ctf, "shell_weight": weight}
    radii = ops.pose_radii(grid, START_DEG, START_PX, DIAMETER_A / PIXEL_SIZE_A)
    search = ops.PoseSettings(coarse_radii=radii)
    found: list[ops.PoseResult] = []
    times = compare(
        {"all": lambda: found.append(ops.refine_pose(images, spectrum, grid, start, shift, search=search, **known))},
        repeats=1,
        warmup=0,
    )
    truth = ops.refine_pose(images, spectrum, grid, p.matrices, p.shifts_px, search=ops.PoseSettings(steps=0), **known)
    turned = Rotation.from_matrix(found[0].matrices @ p.matrices.transpose(0, 2, 1)).as_rotvec()
    off = found[0].shifts_px - p.shifts_px
    angles, shifts = np.rad2deg(np.linalg.norm(turned, axis=1)), np.linalg.norm(off, axis=1)
    row = {
        "what": "refined from half a step" if noisy else "refined from half a step, noise-free",
        "box": box,
        "pixel_size_A": PIXEL_SIZE_A,
        "diameter_A": DIAMETER_A,
        "n": n,
        "taps": width,
        "start_deg": START_DEG,
        "start_px": START_PX,
        "radii": str((*radii, grid.max_radius)),
        "converged": float(found[0].converged.mean()),
        "evaluations_median": float(np.median(found[0].evaluations)),
        "poses_per_s": 1e3 * n / times["all"]["ms"],
        "angle_median_deg": float(np.median(angles)),
        "angle_p95_deg": float(np.quantile(angles, 0.95)),
        "angle_max_deg": float(angles.max()),
        "shift_median_px": float(np.median(shifts)),
        "shift_max_px": float(shifts.max()),
    }
    if noisy:
        bound = bound_median_deg(truth.covariance())
        e = np.column_stack([turned, off])
        chi2 = np.einsum("na,nab,nb->n", e, truth.fisher, e)
        row |= {
            "snr_whole_box": SNR,
            "cramer_rao_median_deg": bound,
            "ratio_to_bound": row["angle_median_deg"] / bound,
            "normalised_error2_median": float(np.median(chi2)),
            "chi2_5_median": 4.351,
        }
    return row


def work_of(grid: ops.Grid, n: int) -> Work:
    """One evaluation of n poses: operations of each pixel; image and CTF read once, and the map once."""
    shells = fourier.shells((grid.box, grid.box))
    pixels = np.sum(fourier.half_weights((grid.box, grid.box)) * ((shells > 0) & (shells <= grid.max_radius))) / 2
    return Work(1e-9 * n * pixels * flop_per_pixel(grid), 1e-9 * (12 * n * pixels + 8 * float(np.prod(grid.shape))))


def device_rows(device: str | None, n: int = 4000, box: int = 128) -> list[dict]:
    """Evaluations, and climbs of at most 10 steps, of poses of images that lie on the device."""
    rows: list[dict] = []
    cuda = open_device(device) if device else None
    machine = measure(cuda) if cuda else None
    for radius, width in ((63, 4), (63, 6), (32, 4), (16, 4)):
        grid = ops.Grid(box, max_radius=radius, width=width)
        work = work_of(grid, n)
        row = {"what": "score, gradient, Fisher", "box": box, "radius": radius, "taps": width, "poses": n}
        if cuda is None or machine is None or device is None:
            rows.append(row | work.counted())
            continue
        rng = np.random.default_rng(0)
        volume = rng.standard_normal((box,) * 3).astype(np.float32)
        matrices = Rotation.random(n, random_state=1).as_matrix()
        with cuda.active():
            spectrum = cuda.cupy.asarray(gridding.to_grid(volume, grid))
            images = ops.project(spectrum, grid, matrices, device=device)
            weight = cuda.cupy.full((n, radius + 1), 1e-6, np.float32)
        for steps in (0, 10):
            search = ops.PoseSettings(steps=steps)
            start = turned_by(0.5 if steps else 0.0, n, rng) @ matrices

            def call(s: object = search, a: npt.NDArray = start) -> ops.PoseResult:
                return ops.refine_pose(images, spectrum, grid, a, shell_weight=weight, search=s, device=device)  # noqa: B023

            evaluations = float(call().evaluations.mean())
            each = Work(work.gflop * evaluations, work.gbyte * evaluations)
            ms = milliseconds(cuda, call)
            rows.append(
                row
                | {"device": machine.name, "steps": steps, "evaluations": evaluations, "poses_per_s": 1e3 * n / ms}
                | each.row(ms, machine)
            )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", help="a GPU, such as cuda:0")
    parser.add_argument("--count", action="store_true", help="print what it costs on a GPU, run nothing")
    args = parser.parse_args()
    if args.count:
        print(json.dumps(device_rows(None), indent=1))
        return
    if args.device:
        write("refine_pose_cuda", device_rows(args.device))
        return
    p = simulated(128, 300)
    rows = [*speed_rows(p), reference_row()]
    rows += [accuracy_row(p, width, noisy) for noisy in (False, True) for width in (4, 6)]
    write("refine_pose", rows, peer="ops.project (one thread), reference.refine_pose (NumPy float64)")


if __name__ == "__main__":
    main()
