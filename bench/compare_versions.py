"""Small jobs with two checkouts of verglas, in turn: same bits or not, and seconds of processor.

``compare_versions.py BEFORE AFTER``: folders with ``python/verglas`` and its compiled modules in it (``dev`` preset).
Both read the same files, which AFTER simulates; each job runs in a process of its own, in turn, by default on one
thread: with ``--threads`` what threads cost that wait for each other counts too, in a file of its own.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from common import RESULTS, commit, machine

# Run with either version: only what has kept its name and meaning is called.
_COMMON = """
import hashlib, json, os, sys
from pathlib import Path
import numpy as np
import verglas as vg
folder, out = Path(sys.argv[1]), Path(sys.argv[2])

def digest(*arrays):
    whole = hashlib.sha256()
    for a in arrays:
        whole.update(np.ascontiguousarray(a).tobytes())
    return whole.hexdigest()[:16]

def poses(p):
    return p.poses.angles_deg, p.poses.shifts_A

def processor_s():
    # of processes begun and waited for too: a version may leave to one of them what the other does itself
    return sum(os.times()[:4])
"""
_SIMULATE = """
for name, group in (("C1", "C1"), ("D2", "D2")):
    model = vg.simulate.phantom(32, 4.0, 90.0, group)
    particles = vg.simulate.particles(model, 100, 32, 4.0, snr=0.5, seed=1)
    vg.write_particles(folder / f"{name}.star", particles, stack=folder / f"{name}.mrcs")
    vg.write_map(folder / f"{name}.mrc", vg.simulate.density(model, 32, 4.0))
model = vg.simulate.phantom(32, 6.0, 120.0, seed=1)
for i in range(2):
    m, _ = vg.simulate.micrograph(model, shape=(480, 480), pixel_size_A=3.0, n=30, snr=0.5, ice=0.4, seed=i)
    vg.io.write_stack(folder / f"m{i}.mrc", m.data[None], 3.0)
"""
_REFINE = """
found = vg.refine(folder / "{name}.star", {reference}, {group!r}, diameter_A=90.0, initial_resolution_A=25.0,
                  iterations={iterations}, threads=1, listener=None{more})
result = {{"map": digest(found.map.data), "half maps": digest(*(h.data for h in found.half_maps)),
          "poses": digest(*poses(found.particles))}}
"""
JOBS = {
    "align": """
found = vg.align(folder / "C1.star", folder / "C1.mrc", diameter_A=90.0, threads=1)
result = {"poses": digest(*poses(found))}
""",
    "class2d": """
found = vg.classify2d(folder / "C1.star", classes=4, diameter_A=100.0, max_resolution_A=14.0, iterations=4, threads=1)
result = {"averages": digest(found.averages), "labels": digest(found.labels), "poses": digest(*poses(found.particles))}
""",
    "abinitio": """
found = vg.abinitio(folder / "C1.star", diameter_A=100.0, final_resolution_A=16.0, iterations=4, full_iterations=1,
                    starts=2, most_starts=2, threads=1)
result = {"map": digest(found.map.data), "poses": digest(*poses(found.particles))}
""",
    "refine C1": _REFINE.format(name="C1", reference='folder / "C1.mrc"', group="C1", iterations=4, more=""),
    "refine D2": _REFINE.format(name="D2", reference='folder / "D2.mrc"', group="D2", iterations=4, more=""),
    "refine local": _REFINE.format(name="C1", reference="None", group="C1", iterations=2, more=', poses="local"'),
    "refine whole": """
model = vg.simulate.phantom(64, 3.0, 130.0, seed=0)
made = vg.simulate.particles(model, 200, 64, 3.0, 0.05, out, seed=1, envelope_b_factor_A2=100.0)
begun = processor_s()
found = vg.refine(out / "particles.star", out / "truth.mrc", diameter_A=165.0, initial_resolution_A=30.0,
                  out=out / "run", listener=None)
result = {"map": digest(found.map.data), "poses": digest(*poses(found.particles))}
""",
    "process": """
done = vg.process(out / "p", micrographs=[f"{folder}/m*.mrc"], diameter_A=120.0, pixel_size_A=3.0, threads=1)
made = vg.read_particles(done.particles)
places = made.table[["rlnCoordinateX", "rlnCoordinateY"]].to_numpy(float)
result = {"images": digest(made.images()), "places": digest(places), "defoci": digest(made.optics.defocus_u_A)}
""",
}


def run(checkout: Path, code: str, *folders: Path, threads: int = 1) -> dict[str, Any]:
    """What a piece of code leaves in ``result``, and its seconds of processor; or the last line of its error."""
    tail = "\nprint(json.dumps({'result': result, 'seconds': processor_s() - begun}))"
    source = f"{_COMMON}\nbegun = processor_s()\nresult = {{}}\n{code}{tail}"
    environment = {**os.environ, "PYTHONPATH": str(checkout / "python"), "OMP_NUM_THREADS": str(threads)}
    done = subprocess.run(
        [sys.executable, "-c", source, *map(str, folders)], capture_output=True, text=True, env=environment
    )
    if done.returncode:
        return {"result": {}, "seconds": float("nan"), "error": done.stderr.strip().splitlines()[-1]}
    return json.loads(done.stdout.strip().splitlines()[-1])


def compare(name: str, checkouts: tuple[Path, Path], files: Path, repeats: int, threads: int) -> dict[str, Any]:
    """One row: which results are the same in every run of both, and median seconds."""
    told: list[list[dict[str, Any]]] = [[], []]
    for _ in range(repeats):
        for which, checkout in enumerate(checkouts):
            with tempfile.TemporaryDirectory() as out:
                told[which].append(run(checkout, JOBS[name], files, Path(out), threads=threads))
    errors = [one["error"] for side in told for one in side if "error" in one]
    hashes = {
        key: [sorted({one["result"].get(key, "") for one in side}) for side in told] for key in told[1][0]["result"]
    }
    before_s, after_s = (round(statistics.median(one["seconds"] for one in side), 2) for side in told)
    return {
        "job": name,
        "same": {key: before == after and len(after) == 1 for key, (before, after) in hashes.items()},
        "before_s": before_s,
        "after_s": after_s,
        **({"error": errors[0]} if errors else {}),
    }


def _done(path: Path, commits: list[str]) -> list[dict[str, Any]]:
    """Rows of other jobs of the same two commits: one may go on with the rest."""
    had = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    same = [had.get("before"), had.get("after")] == commits
    return had["rows"] if same else []


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    parser.add_argument("--jobs", nargs="+", choices=list(JOBS), default=list(JOBS))
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    checkouts = (given.before.resolve(), given.after.resolve())
    commits = [commit(one) or str(one) for one in checkouts]
    path = RESULTS / f"compare_versions{'' if given.threads == 1 else f'_{given.threads}_threads'}.json"
    rows = [row for row in _done(path, commits) if row["job"] not in given.jobs]
    with tempfile.TemporaryDirectory() as folder:
        made = run(checkouts[1], _SIMULATE, Path(folder), Path(folder))
        if "error" in made:
            raise SystemExit(made["error"])
        for name in given.jobs:
            rows.append(compare(name, checkouts, Path(folder), given.repeats, given.threads))
            print(json.dumps(rows[-1]), flush=True)
            # after every job: what was measured stays when the rest is stopped
            record = {"before": commits[0], "after": commits[1], "machine": machine(), "rows": rows}
            path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
