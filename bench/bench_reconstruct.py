"""Reconstruction: exactness on the exact data, and how time and memory grow with the box.

    python bench/bench_reconstruct.py [--boxes 64 128 256]

Every row runs in a process of its own, so that its peak memory is its own.

    python bench/bench_reconstruct.py --device cuda:0 [--images 100000 --boxes 256]

inserts so many images on a GPU instead, kernels alone (images that lie there) and as the whole job (read from memory,
sent, transformed, inserted, solved), beside the floor of bench/device.py, and writes
bench/results/reconstruct_cuda.json; ``--count`` prints only what is counted.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import time

import numpy as np

import verglas as vg
from verglas import fourier, ops
from verglas.masks import soft_sphere
from verglas.reconstruction import reconstruct_report
from verglas.reconstruction.accumulate import direct_grid
from verglas.run.reconstruct import memory_plan_GB

from common import ROOT, write
from device import Work, measure, milliseconds, open_device

METHODS = ("least-squares", "direct", "gridding")


def grey_scale(got: np.ndarray, want: np.ndarray) -> float:
    """Slope of a map against the true one over shells 2 .. 31: below, the CTF hides the mean."""
    a, b = fourier.forward(got, 3), fourier.forward(want, 3)
    shells = fourier.shells(want.shape)
    used = (shells >= 2) & (shells <= 31)
    return float(np.sum((a * np.conj(b)).real[used]) / np.sum(np.abs(b[used]) ** 2))


def exact_rows() -> list[dict[str, object]]:
    folder = ROOT.parent / "shared" / "data" / "exact"
    if not folder.is_dir():
        return []
    particles, truth = vg.read_particles(folder / "truth.star"), vg.read_map(folder / "truth.mrc")
    mask = soft_sphere(truth.box, 0.425 * truth.box, 6.0)
    rows: list[dict[str, object]] = []
    for method in METHODS:
        started = time.perf_counter()
        result = reconstruct_report(particles, method=method)
        seconds = time.perf_counter() - started
        curve = vg.fsc(result.map, truth, mask=mask).curve[1:32]
        row = {"method": method, "fsc_mean": round(float(curve.mean()), 5), "fsc_min": float(curve.min())}
        scale = grey_scale(result.map.data * mask, truth.data * mask)
        rows.append(row | {"scale": scale, "seconds": seconds, "residual": result.residual})
    relion = vg.Map(vg.read_map(folder / "relion_reconstruct_ctf.mrc").data, truth.pixel_size_A)
    curve = vg.fsc(relion, truth, mask=mask).curve[1:32]
    rows.append(
        {"method": "RELION 5 (its map)", "fsc_mean": round(float(curve.mean()), 5), "fsc_min": float(curve.min())}
    )
    return rows


def growth_row(box: int, method: str) -> dict[str, object]:
    rng = np.random.default_rng(0)
    n = 64
    images = rng.normal(size=(n, box, box)).astype(np.float32)
    poses = vg.Poses(rng.uniform(0, 180, size=(n, 3)))
    particles = vg.Particles.from_images(images, 1.0, poses=poses)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    started = time.perf_counter()
    reconstruct_report(particles, method=method, ctf=False)
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    plan = 1e3 * memory_plan_GB(box, (box - 1) // 2, method, halves=False)
    return {"method": method, "box": box, "images": n, "seconds": seconds, "peak_MB": peak - before, "plan_MB": plan}


def insertion_work(box: int, n: int, batch: int) -> Work:
    """Insertion of n images to the last shell, in batches.

    Needed: width^3 grid points a pixel of the half plane inside the last shell, each a product with the window, added
    to a complex value and a weight (7 operations). Bytes: image and CTF once, values and weights read and written once
    a batch.
    """
    grid = direct_grid(box, (box - 1) // 2)
    pixels = np.pi * grid.max_radius**2 / 2
    points = float(np.prod(grid.shape))
    return Work(1e-9 * n * pixels * grid.width**3 * 7, 1e-9 * (n * box * (box // 2 + 1) * 12 + n / batch * points * 48))


def device_rows(device: str | None, box: int, n: int) -> list[dict[str, object]]:
    """Kernels alone, with atomics and repeatable, and the whole job; without a device what can be counted."""
    batch = max(1, (1 << 23) // box**2)
    work = insertion_work(box, n, batch)
    row: dict[str, object] = {"box": box, "images": n}
    if device is None:
        return [row | work.counted()]
    cuda, rng = open_device(device), np.random.default_rng(0)
    machine = measure(cuda)
    rows = []
    images = rng.normal(size=(batch, box, box)).astype(np.float32)
    angles = rng.uniform(0, 180, size=(n, 3))
    params = np.tile([15000, 14500, 30, 300, 2.7, 0.1, 0, 0, 1.0], (batch, 1))
    with cuda.active():
        spectra = fourier.forward(cuda.cupy.asarray(images), 2)
        ctf = ops.ctf(params, box, 1.0, device=device)
        sums = ops.GridSums.zeros(direct_grid(box, (box - 1) // 2), device=device)
    for deterministic in (True, False):

        def kernels(deterministic: bool = deterministic) -> None:
            matrices = vg.euler_to_matrix(angles[:batch])
            ops.insert(sums, spectra, matrices, ctf=ctf, device=device, deterministic=deterministic)

        ms = n / batch * milliseconds(cuda, kernels, 3)
        what = "kernel, repeatable sums" if deterministic else "kernel, atomics"
        rows.append(row | {"what": what, "device": machine.name} | work.row(ms, machine))
    source = vg.ArraySource(images, 1.0, rows=np.arange(n) % batch)
    optics = vg.Optics(defocus_u_A=np.full(n, 15000.0), defocus_v_A=np.full(n, 14500.0))
    particles = vg.Particles.from_images(
        np.broadcast_to(np.zeros((1, box, box), np.float32), (n, box, box)), 1.0, poses=vg.Poses(angles), optics=optics
    ).with_source(source)
    started = time.perf_counter()
    reconstruct_report(particles, device=device)
    seconds = time.perf_counter() - started
    return [*rows, row | {"what": "whole job", "device": machine.name, "seconds": seconds, "ms": 1e3 * seconds}]


def _in_child(queue: multiprocessing.Queue, box: int, method: str) -> None:
    queue.put(json.dumps(growth_row(box, method)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--boxes", type=int, nargs="+", default=[64, 128, 256])
    parser.add_argument("--device", help="a GPU, such as cuda:0")
    parser.add_argument("--images", type=int, default=100_000, help="to insert on a GPU")
    parser.add_argument("--count", action="store_true", help="print what insertion on a GPU costs, run nothing")
    args = parser.parse_args()
    if args.count or args.device:
        device = None if args.count else args.device
        found = [row for box in args.boxes for row in device_rows(device, box, args.images)]
        if args.count:
            print(json.dumps(found, indent=1))
        else:
            write("reconstruct_cuda", found)
        return
    write("reconstruct", exact_rows())
    rows = []
    context = multiprocessing.get_context("spawn")
    for method in ("least-squares", "direct"):
        for box in args.boxes:
            queue = context.Queue()
            child = context.Process(target=_in_child, args=(queue, box, method))
            child.start()
            rows.append(json.loads(queue.get()))
            child.join()
    write("reconstruct_growth", rows)


if __name__ == "__main__":
    main()
