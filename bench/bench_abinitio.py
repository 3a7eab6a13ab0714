"""Ab initio: success over seeds, time, two structures; orientations from common lines.

``python bench/bench_abinitio.py [--particles 3000] [--seeds 10] [--starts 3] [--symmetry C1 D2] [--only success]``
writes bench/results/abinitio.json. Particles of 128 px at 1.5 A, SNR 0.1 (power ratio over the whole box); success is a
map within 15 A of the truth at FSC 0.5 after alignment, of either hand. Common lines: SNR 1/4, no CTF, no shifts.
"""

from __future__ import annotations

import argparse
import time
from typing import Any

from common import write

BOX, PIXEL_A, DIAMETER_A, SMALL = 128, 1.5, 130.0, 48


def agreement_A(truth: Any, volume: Any) -> float:
    """FSC 0.5 of a map with the truth, of the better hand, on a coarse grid."""
    import verglas as vg
    from verglas.refinement.map_alignment import align_maps, flip_hand

    plan = vg.image.plan_resample(BOX, PIXEL_A, None, SMALL)
    target, small = vg.image.resample(truth, plan), vg.image.resample(volume, plan)
    hands = [vg.Map(v, plan.pixel_size_A) for v in (small.data, flip_hand(small.data))]
    best = max((align_maps(target, m, max_radius=12) for m in hands), key=lambda a: a.correlation)
    return float(vg.fsc(target, best.map).resolution_A(0.5))


def success(symmetry: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    """One row per seed."""
    import verglas as vg

    model = vg.simulate.phantom(BOX, PIXEL_A, DIAMETER_A, symmetry, seed=3)
    truth, rows = vg.simulate.density(model, BOX, PIXEL_A), []
    for seed in range(options.seeds):
        particles = vg.simulate.particles(model, options.particles, BOX, PIXEL_A, snr=0.1, seed=seed)
        begun, cpu = time.perf_counter(), time.process_time()
        found = vg.abinitio(particles, symmetry, 145.0, starts=options.starts, seed=seed)
        row = {
            "what": "success", "symmetry": symmetry, "particles": options.particles, "seed": seed,
            "starts": options.starts, "seconds": round(time.perf_counter() - begun, 1),
            "processor_seconds": round(time.process_time() - cpu, 1), "verdict": found.verdict.kind,
            "agreeing": found.verdict.agreeing, "fsc05_A": round(agreement_A(truth, found.map), 2),
        }  # fmt: skip
        print(row, flush=True)
        rows.append(row)
    return rows


def two_structures(options: argparse.Namespace) -> dict[str, Any]:
    """Share of particles in the right class, K = 2."""
    import verglas as vg

    models = [vg.simulate.phantom(BOX, PIXEL_A, DIAMETER_A, seed=s) for s in (3, 4)]
    particles = vg.simulate.particles(models, options.particles, BOX, PIXEL_A, snr=0.1, seed=1)
    found = vg.abinitio(particles, diameter_A=145.0, classes=2, starts=options.starts)
    true, got = (p.table["rlnClassNumber"].to_numpy() for p in (particles, found.particles))
    right = float((true == got).mean())
    return {"what": "two structures", "particles": options.particles, "right": round(max(right, 1 - right), 3)}


def common_lines(n: int) -> dict[str, Any]:
    """Mean error of orientations."""
    import verglas as vg
    from verglas.refinement.common_lines import find_common_lines, orientation_error_deg, synchronise

    model = vg.simulate.phantom(BOX, PIXEL_A, DIAMETER_A, seed=3)
    p = vg.simulate.particles(model, n, BOX, PIXEL_A, snr=0.25, ctf=False, shift_sd_A=0.0, seed=1)
    images, begun = p.images(), time.perf_counter()
    found = synchronise(find_common_lines(images, 18, diameter_px=92, n_theta=180))
    error = orientation_error_deg(found.angles_deg, p.poses.angles_deg)
    return {
        "what": "common lines", "images": n, "mean_error_deg": round(float(error.mean()), 2),
        "gap": round(found.gap, 3),
        "seconds": round(time.perf_counter() - begun, 1),
    }  # fmt: skip


def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--particles", type=int, default=3000)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--starts", type=int, default=3)
    parser.add_argument("--symmetry", nargs="+", default=["C1", "D2"])
    parser.add_argument("--only", choices=("success", "two", "lines"))
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    if options.only in (None, "lines"):
        rows += [common_lines(n) for n in (60, 150, 500)]
    if options.only in (None, "two"):
        rows.append(two_structures(options))
    if options.only in (None, "success"):
        for symmetry in options.symmetry:
            rows += success(symmetry, options)
    write("abinitio", rows)


if __name__ == "__main__":
    main()
