"""verglas ctf-refine beside relion_ctf_refine (RELION 3.1, Debian): the same stack, poses, half maps and mask.

    python bench/compare_relion_optics.py [--particles 1500] [--seed 100]

96 px, 1.1 A/px, SNR 0.3 on a disc of 0.35 N, 1 mrad of beam tilt, defocus errors of 250 A. One fit of each, against the
half maps that the stack as it is gives; processor seconds of the whole commands with one thread, and what they find.
"""

from __future__ import annotations

import argparse
import resource
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from bench_optics import aberrations_of, noise_sd, object_map
from child import VERGLAS

import verglas as vg
from verglas.assessment import solvent_mask

from common import write

BOX, PIXEL_A, TILT_MRAD = 96, 1.1, 1.0


def make_set(folder: Path, n: int, seed: int) -> vg.Particles:
    """Stack, star, half maps and mask; the particles with their true defoci."""
    rng = np.random.default_rng((seed, 9))
    model, truth = object_map(seed, BOX, PIXEL_A)
    made = vg.simulate.particles(model, n, BOX, PIXEL_A, snr=1e6, seed=seed)
    tilt = np.array([[TILT_MRAD, 0.0]])
    planted = aberrations_of(n, tilt, np.zeros((1, 6)), np.eye(2)[None], np.zeros(n, np.int64))
    images = vg.project(truth, made.poses, made.optics, threads=1)
    sd = noise_sd(images, 0.3)
    images = planted.apply(images, np.arange(n), PIXEL_A) + rng.normal(0, sd, images.shape).astype(np.float32)
    error = rng.normal(0, 250, n)
    table = made.table.assign(
        rlnDefocusU=made.table.rlnDefocusU + error,
        rlnDefocusV=made.table.rlnDefocusV + error,
        rlnRandomSubset=np.arange(n) % 2 + 1,
        rlnCoordinateX=rng.uniform(0, 4000, n),
        rlnCoordinateY=rng.uniform(0, 4000, n),
    )
    source = vg.types.ArraySource(images.astype(np.float32), PIXEL_A)
    given = vg.Particles(table, source, optics_table=made.optics_table)
    vg.write_particles(folder / "given.star", given, stack=folder / "given.mrcs")
    return made


def processor_seconds(command: list[str], folder: Path) -> tuple[float, float]:
    """Of a command, user and system; and wall seconds."""
    before, begun = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}: {done.stdout[-500:]} {done.stderr[-1500:]}")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return used, time.perf_counter() - begun


def judged(star: Path, true: vg.Particles) -> dict[str, float]:
    """Errors of the tilt and of the defoci."""
    found = vg.read_particles(star)
    columns = found.optics_table
    tilt = [float(columns[c].iloc[0]) if c in columns else 0.0 for c in ("rlnBeamTiltX", "rlnBeamTiltY")]
    error = found.table.rlnDefocusU.to_numpy() - true.table.rlnDefocusU.to_numpy()
    return {
        "tilt_error_mrad": float(np.hypot(tilt[0] - TILT_MRAD, tilt[1])),
        "defocus_error_sd_A": float(error.std()),
        "defocus_error_median_A": float(np.median(np.abs(error))),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--particles", type=int, default=1500)
    parser.add_argument("--seed", type=int, default=100)
    args = parser.parse_args()
    if shutil.which("relion_ctf_refine") is None:
        raise SystemExit("relion_ctf_refine is not on PATH (Debian: apt-get install relion)")
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        true = make_set(folder, args.particles, args.seed)
        report = vg.reconstruction.reconstruct_report(folder / "given.star", halves=True, threads=1, listener=None)
        first, second = report.half_maps
        for volume, path in ((first, "h_half1_unfil.mrc"), (second, "h_half2_unfil.mrc")):
            vg.write_map(folder / path, volume)
        vg.write_map(folder / "mask.mrc", solvent_mask(first.with_data((first.data + second.data) / 2)))
        post = ["relion_postprocess", "--i", "h_half1_unfil.mrc", "--mask", "mask.mrc", "--angpix", str(PIXEL_A)]
        (folder / "post").mkdir()
        processor_seconds([*post, "--o", "post/post"], folder)
        maps = ["--m1", "h_half1_unfil.mrc", "--m2", "h_half2_unfil.mrc", "--mask", "mask.mrc"]
        fit = ["--fit_defocus", "--fit_beamtilt", "--kmin_defocus", "30", "--j", "1"]
        (folder / "theirs").mkdir()
        theirs = ["relion_ctf_refine", "--i", "given.star", "--f", "post/post.star", *maps, "--o", "theirs/", *fit]
        ours = [*VERGLAS, "ctf-refine", "given.star", "--half-maps", "h_half1_unfil.mrc", "h_half2_unfil.mrc"]
        ours += ["--mask", "mask.mrc", "--rounds", "1", "--threads", "1", "--out", "ours"]
        for who, command, star in (
            ("relion_ctf_refine 3.1.3", theirs, "theirs/particles_ctf_refine.star"),
            ("verglas ctf-refine", ours, "ours/particles.star"),
        ):
            used, wall = processor_seconds(command, folder)
            per_particle = {"processor_ms_per_particle": 1e3 * used / args.particles}
            rows.append(
                {"command": who, "processor_s": used, "wall_s": wall, **per_particle, **judged(folder / star, true)}
            )
    write("compare_relion_optics", rows, particles=args.particles, box=BOX, seed=args.seed)


if __name__ == "__main__":
    main()
