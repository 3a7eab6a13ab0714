"""A global search at 7.5 degrees beside relion_refine (RELION 3.1, Debian) on the same particles.

    python bench/compare_relion_search.py [--n 200] [--many 3000]

RELION: the second iteration (the first aligns by correlation) of a refinement without oversampling, HEALPix order 3,
offsets of 5 px in steps of 2, data to 12 A, two threads; its time is that between the files of iterations 1 and 2.
verglas: the search of ``vg.align`` on the same particles, with the same data limit and step and two threads, reading,
grey scale and noise spectra included; once with poses left on the grid as RELION's are, once finished. RELION's time
grows with the particles, so n of them are searched and the time per particle is compared; verglas is also timed on
``--many``. Angular error is against the truth.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np

import verglas as vg
from verglas.filters import apply, low_pass
from verglas.geometry import angular_distance

from common import write

BOX, APIX, RESOLUTION_A, DIAMETER_A = 128, 1.5, 12.0, 165.0


def relion(folder: Path) -> float:
    """Seconds of the second iteration."""
    (folder / "out").mkdir()
    command = (
        "relion_refine --o out/run --i particles.star --ref init.mrc --firstiter_cc --ini_high 12 --iter 2 --K 1 --ctf "
        f"--particle_diameter {DIAMETER_A:g} --zero_mask --oversampling 0 --healpix_order 3 --offset_range 5 "
        "--offset_step 2 --sym C1 --norm --scale --pad 2 --j 2 --dont_combine_weights_via_disc"
    )
    subprocess.run(command.split(), cwd=folder, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    first, second = (os.path.getmtime(folder / "out" / f"run_it00{i}_model.star") for i in (1, 2))
    return second - first


def error_deg(found: vg.Particles, truth: vg.Particles) -> float:
    return float(np.median(angular_distance(found.poses.angles_deg, truth.poses.angles_deg)))


def row(what: str, seconds: float, n: int, error: float) -> dict[str, object]:
    return {
        "what": what,
        "particles": n,
        "seconds": seconds,
        "ms_per_particle": 1e3 * seconds / n,
        "median_error_deg": error,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=200)
    parser.add_argument("--many", type=int, default=3000)
    parser.add_argument("--snr", type=float, default=0.05)
    args = parser.parse_args()
    if shutil.which("relion_refine") is None:
        raise SystemExit("relion_refine is not on PATH (Debian: apt-get install relion)")
    rows = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = vg.simulate.phantom(BOX, APIX, 0.8 * DIAMETER_A, seed=0)
        many = vg.simulate.particles(model, args.many, BOX, APIX, snr=args.snr, seed=1)
        few = many[: args.n]
        vg.write_particles(folder / "particles.star", few, stack=folder / "particles.mrcs")
        reference = apply(vg.simulate.density(model, BOX, APIX), low_pass(RESOLUTION_A))
        vg.write_map(folder / "init.mrc", reference)
        seconds = relion(folder)
        theirs = vg.read_particles(folder / "out" / "run_it002_data.star", stack=folder / "particles.mrcs")
        order = theirs.table["rlnImageName"].str.slice(0, 6).astype(int).to_numpy() - 1
        per_particle = seconds / args.n
        rows.append(row("relion_refine 3.1.3, iteration 2", seconds, args.n, error_deg(theirs, few[order])))
        for label, particles, refine in (
            ("verglas search, poses on the grid", few, False),
            ("verglas search, poses on the grid", many, False),
            ("verglas search and exact maximum to 12 A", many, True),
        ):
            started = time.perf_counter()
            found = vg.align(
                particles,
                reference,
                diameter_A=DIAMETER_A,
                max_resolution_A=RESOLUTION_A,
                search_resolution_A=RESOLUTION_A,
                shift_range_A=7.5,
                refine=refine,
                threads=2,
            )
            seconds = time.perf_counter() - started
            timed = row(label, seconds, len(particles), error_deg(found, particles))
            rows.append(timed | {"ratio": per_particle * len(particles) / seconds})
    write("compare_relion_search", rows, box=BOX, snr=args.snr, resolution_A=RESOLUTION_A)


if __name__ == "__main__":
    main()
