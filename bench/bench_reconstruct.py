"""Reconstruction: exactness on the exact data, and how time and memory grow with the box.

    python bench/bench_reconstruct.py [--boxes 64 128 256]

Every row runs in a process of its own, so that its peak memory is its own.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import time

import numpy as np

import verglas as vg
from verglas import fourier
from verglas.masks import soft_sphere
from verglas.reconstruction import Method, reconstruct_report
from verglas.run.reconstruct import memory_plan_GB

from common import ROOT, write

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
        result = reconstruct_report(particles, method=Method(method))  # type: ignore[arg-type]
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
    reconstruct_report(particles, method=Method(method, ctf=False))  # type: ignore[arg-type]
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    plan = 1e3 * memory_plan_GB(box, (box - 1) // 2, method, halves=False)
    return {"method": method, "box": box, "images": n, "seconds": seconds, "peak_MB": peak - before, "plan_MB": plan}


def _in_child(queue: multiprocessing.Queue, box: int, method: str) -> None:
    queue.put(json.dumps(growth_row(box, method)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--boxes", type=int, nargs="+", default=[64, 128, 256])
    args = parser.parse_args()
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
