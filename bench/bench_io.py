"""Files: opening and writing a STAR file of a million particles, and reading images. Writes bench/results/io.json.

Each opening runs in a process of its own, for its peak memory; the peers are gemmi's parser of CIF, with its
columns made numbers, and the starfile library where it is installed, on the same file. Images are read from the page
cache, so that the figures are those of the code and not of a disk; beside them stand np.fromfile of the whole stack and
a plain copy of the same bytes in memory.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pandas as pd

import verglas as vg
from verglas.io import write_stack, write_star

from common import compare, write

_CHILD = """
import json, sys, time
import pandas as pd
import verglas as vg, verglas.io
from gemmi import cif
if sys.argv[2] == "starfile":
    import starfile
start, cpu = time.perf_counter(), time.process_time()
if sys.argv[2] == "starfile":
    starfile.read(sys.argv[1], always_dict=True)
elif sys.argv[2] == "gemmi.cif":
    for block in cif.read(sys.argv[1]):
        for item in block:
            columns = {}
            for tag in item.loop.tags:
                values = list(block.find_loop(tag))
                try:
                    columns[tag] = pd.to_numeric(pd.Series(values))
                except ValueError:
                    columns[tag] = values
            pd.DataFrame(columns)
else:
    vg.read_particles(sys.argv[1])
seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
with open("/proc/self/status") as status:  # ru_maxrss would count the parent, from before exec
    peak = next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
print(json.dumps({"s": seconds, "cpu_s": cpu, "peak_GB": peak * 1024e-9}))
"""


def particle_table(n: int, per_micrograph: int = 200) -> pd.DataFrame:
    """Columns of a RELION 5 refinement, 26 of them."""
    rng = np.random.default_rng(0)
    micrograph = np.arange(n) // per_micrograph
    names = np.array([f"FoilHole_{m:08d}_Data_fractions.mrc" for m in range(micrograph[-1] + 1)], dtype=object)
    numbers = [
        "CoordinateX",
        "CoordinateY",
        "AutopickFigureOfMerit",
        "AnglePsi",
        "CtfMaxResolution",
        "CtfFigureOfMerit",
        "DefocusU",
        "DefocusV",
        "DefocusAngle",
        "CtfBfactor",
        "CtfScalefactor",
        "PhaseShift",
        "AngleRot",
        "AngleTilt",
        "OriginXAngst",
        "OriginYAngst",
        "NormCorrection",
        "LogLikeliContribution",
        "MaxValueProbDistribution",
    ]
    table = {f"rln{name}": np.round(rng.uniform(1, 20000, n), 6) for name in numbers}
    image = [f"{i % per_micrograph + 1:06d}@Extract/job012/Movies/{names[m]}s" for i, m in enumerate(micrograph)]
    table["rlnImageName"] = np.array(image, dtype=object)
    table["rlnMicrographName"] = np.array(["MotionCorr/job003/Movies/" + x for x in names], dtype=object)[micrograph]
    for name, value in (("OpticsGroup", 1), ("ClassNumber", 1), ("NrOfSignificantSamples", 100)):
        table[f"rln{name}"] = np.full(n, value)
    table["rlnGroupNumber"] = micrograph + 1
    table["rlnRandomSubset"] = np.arange(n) % 2 + 1
    return pd.DataFrame(table)


def bench_star(folder: Path, n: int, library: bool) -> list[dict[str, object]]:
    optics = pd.DataFrame(
        {
            "rlnOpticsGroup": [1],
            "rlnOpticsGroupName": ["opticsGroup1"],
            "rlnVoltage": [300.0],
            "rlnSphericalAberration": [2.7],
            "rlnAmplitudeContrast": [0.1],
            "rlnImagePixelSize": [1.06],
            "rlnImageSize": [256],
            "rlnImageDimensionality": [2],
        }
    )
    table = particle_table(n)
    path = folder / "particles.star"
    took = compare({"write": lambda: write_star(path, {"optics": optics, "particles": table})}, 1, warmup=0)
    size = path.stat().st_size
    common = {"rows": n, "columns": table.shape[1], "file_MB": size * 1e-6}
    rows = [{"what": "write_star", **common, "s": took["write"]["ms"] / 1e3}]
    peers = ("gemmi.cif", *(("starfile",) if find_spec("starfile") else ()))
    for who in ("verglas", *(peers if library else ())):
        done = subprocess.run(
            [sys.executable, "-c", _CHILD, str(path), who], capture_output=True, text=True, check=True
        )
        figures = json.loads(done.stdout.splitlines()[-1])
        rows.append({"what": f"open, {who}", **common, **figures, "MB_per_s": size * 1e-6 / figures["s"]})
    p = vg.read_particles(path)
    half = np.arange(0, n, 2)
    parts = compare({"p.optics": lambda: p.optics, "p.poses": lambda: p.poses, "p[half]": lambda: p[half]}, 3)
    rows += [{"what": name, **common, "s": t["ms"] / 1e3} for name, t in parts.items()]
    return rows


def bench_images(folder: Path, box: int, n: int) -> list[dict[str, object]]:
    rng = np.random.default_rng(0)
    stacks = 8
    per = n // stacks
    for s in range(stacks):
        write_stack(folder / f"s{s}.mrcs", rng.normal(size=(per, box, box)).astype(np.float32), 1.0)
    write_stack(folder / "h.mrcs", rng.normal(size=(n, box, box)).astype(np.float32), 1.0, dtype="float16")
    names = [f"{i + 1}@s{s}.mrcs" for s in range(stacks) for i in range(per)]
    optics = pd.DataFrame({"rlnOpticsGroup": [1], "rlnImagePixelSize": [1.0]})
    write_star(folder / "i.star", {"optics": optics, "particles": pd.DataFrame({"rlnImageName": names})})
    write_star(
        folder / "h.star",
        {"optics": optics, "particles": pd.DataFrame({"rlnImageName": [f"{i + 1}@h.mrcs" for i in range(n)]})},
    )
    p, h = vg.read_particles(folder / "i.star"), vg.read_particles(folder / "h.star")
    shuffled = rng.permutation(n)
    some = np.sort(rng.choice(n, n // 10, replace=False))
    source = p.images()
    target = np.empty_like(source)

    def raw() -> None:
        for s in range(stacks):
            np.fromfile(folder / f"s{s}.mrcs", dtype="<f4", offset=1024)

    def batches(order: np.ndarray) -> None:
        for start in range(0, n, 100):
            p.images(order[start : start + 100])

    whole, few = n * box * box * 4, len(some) * box * box * 4
    candidates = {
        "in order": (lambda: p.images(), whole),
        "shuffled": (lambda: p.images(shuffled), whole),
        "in order, batches of 100": (lambda: batches(np.arange(n)), whole),
        "shuffled, batches of 100": (lambda: batches(shuffled), whole),
        "every tenth, at random": (lambda: p.images(some), few),
        "one by one": (lambda: [p.images([i]) for i in range(n)], whole),
        "float16 stack, in order": (lambda: h.images(), whole),
        "np.fromfile, whole stacks": (raw, whole),
        "np.copyto in memory": (lambda: np.copyto(target, source), whole),
    }
    times = compare({name: call for name, (call, _) in candidates.items()}, 3)
    return [
        {"what": f"images {name}", "box": box, "n": n, **times[name], "GB_per_s": size / times[name]["ms"] * 1e-6}
        for name, (_, size) in candidates.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000, help="rows of the STAR file")
    parser.add_argument("--star-only", action="store_true", help="of a STAR file only, into bench/results/io_star.json")
    parser.add_argument("--no-library", action="store_true", help="leave out the peers, which need memory")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = bench_star(folder, arguments.rows, not arguments.no_library)
        if arguments.star_only:
            write("io_star", rows, peer="gemmi.cif, starfile")
            return
        for box, n in ((128, 4000), (256, 1600)):
            rows += bench_images(folder, box, n)
    write("io", rows, peer="gemmi.cif, starfile, np.fromfile, np.copyto")


if __name__ == "__main__":
    main()
