"""The window on a large project: 10,000 micrographs, 1e6 particles, 60 jobs; seconds to each page, and 200 readers.

``python bench/bench_serve.py --particles`` asks for the page of a million particles alone (bench/results/
serve_particles.json). ``python bench/bench_serve.py [FOLDER]`` makes the project (half a minute), asks the
application in this process, and writes bench/results/serve.json. Numbers are of the server; a browser adds its drawing.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from urllib.parse import urlencode

import numpy as np
import pandas as pd

import verglas as vg
from verglas.io.columns import bins_path, keep_columns
from verglas.io.star_columns import columns_path

from common import machine

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
from window_client import Answer, Client, refine_run

N_MICROGRAPHS, N_PARTICLES, N_JOBS, N_READERS = 10_000, 1_000_000, 60, 200
# Columns that say nothing of a particle's structure, and those that are no numbers.
NOT_OFFERED = {"rlnOpticsGroup", "rlnCoordinateX", "rlnCoordinateY", "rlnImageName"}


def make_project(root: Path) -> None:
    """A project with one record a micrograph and stage, and runs beside it."""
    rng = np.random.default_rng(0)
    project = root / "proj"
    names = [f"/data/session/micrograph_{k:05d}.mrc" for k in range(N_MICROGRAPHS)]
    run = {"command": "process", "state": "finished", "run_state": "finished"}
    for stage in ("ctf", "pick"):
        records = project / stage / "records"
        records.mkdir(parents=True)
        for k in range(N_MICROGRAPHS):
            (records / f"micrograph_{k:05d}-abcdef.json").write_text('{"digest": "x"}')
        stage_record = {"stage": stage, "state": "finished", "settings": {}, "inputs": {}, "seconds": 1.0}
        vg.io.write_json(project / stage / "stage.json", stage_record)
    vg.io.write_json(project / "run.json", run)
    vg.io.write_json(project / "project.json", {"request": {}})
    defocus = rng.uniform(8e3, 25e3, N_MICROGRAPHS)
    rings = rng.uniform(3, 9, N_MICROGRAPHS)
    ctf = {"micrograph": names, "defocus_u_A": defocus, "defocus_v_A": defocus, "resolution_A": rings}
    pd.DataFrame(ctf).to_csv(project / "ctf" / "ctf.csv", index=False)
    picks = {"micrograph": names, "picks": rng.integers(20, 200, len(names))}
    pd.DataFrame(picks).to_csv(project / "pick" / "picks.csv", index=False)
    for k in range(N_JOBS):
        refine_run(root / f"run{k}", k % 7)
    angles = rng.uniform(0, 180, (N_PARTICLES, 3)).round(2)
    table = pd.DataFrame(angles, columns=["rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"])
    vg.io.write_star(root / "run0" / "particles.star", {"particles": table})


async def readers(client: Client, target: str) -> list[float]:
    """Seconds of each of many readers who ask at once."""

    async def one() -> float:
        start = time.perf_counter()
        answer = await client.request(target)
        assert answer.status == 200
        return time.perf_counter() - start

    return list(await asyncio.gather(*(one() for _ in range(N_READERS))))


def particles_alone() -> None:
    """A million particles with two coordinates: the page, its first look at the file, and a line drawn round some."""
    rng = np.random.default_rng(0)
    columns = {f"verglasCoordinate{k}": rng.normal(size=N_PARTICLES).round(4) for k in (1, 2)}
    columns |= {"rlnDefocusU": rng.uniform(8e3, 25e3, N_PARTICLES).round(0), "rlnOpticsGroup": 1}
    names = ("AngleRot", "AngleTilt", "AnglePsi", "OriginXAngst", "OriginYAngst", "DefocusV", "DefocusAngle")
    names += ("MaxValueProbDistribution", "NormCorrection", "CoordinateX", "CoordinateY")
    columns |= {f"rln{name}": rng.uniform(0, 180, N_PARTICLES).round(3) for name in names}
    columns["rlnImageName"] = [f"{k}@stack.mrcs" for k in range(1, N_PARTICLES + 1)]
    corners = [[0.5, -1.0], [2.5, -1.0], [2.5, 1.0], [1.5, 1.6], [0.5, 1.0]]
    steps = [{"action": "keep", "x": "verglasCoordinate1", "y": "verglasCoordinate2", "corners": corners}]
    query = urlencode({"steps": json.dumps(steps), "sort": "rlnDefocusU"})
    with tempfile.TemporaryDirectory() as folder:
        run = refine_run(Path(folder) / "run")
        optics = pd.DataFrame({"rlnOpticsGroup": [1], "rlnImagePixelSize": [2.0], "rlnImageSize": [64]})
        vg.io.write_star(run / "particles.star", {"optics": optics, "particles": pd.DataFrame(columns)})
        client = Client(Path(folder))
        page = f"/jobs/{next(iter(client.window.folders.jobs()))}/particles"
        seconds, size = {}, {}

        def ask(name: str, target: str) -> Answer:
            start = time.perf_counter()
            answer = client.ask(target)
            seconds[name], size[name] = round(time.perf_counter() - start, 3), len(answer.body)
            assert answer.status == 200
            return answer

        os.environ["XDG_CACHE_HOME"] = folder  # nothing of an earlier run
        # A file of another package, or of an earlier version: nothing is kept of it, and pages do not wait.
        ask("page, nothing kept", page)
        begun = time.perf_counter()
        told = ask("sample of the numbers, nothing kept", f"{page}.json").json
        assert told["reading"]
        offered = {one["name"] for one in told["columns"]}
        assert told["total"] == N_PARTICLES
        assert offered == set(columns) - NOT_OFFERED
        waits = []
        while "reading" in client.ask(f"{page}.json").json:
            start = time.perf_counter()
            assert client.ask(page).status == 200
            waits.append(time.perf_counter() - start)
            time.sleep(0.2)
        seconds["numbers there after"] = round(time.perf_counter() - begun, 3)
        seconds["page while they are read, median"] = round(float(np.median(waits)), 3)
        seconds["page while they are read, longest"] = round(max(waits), 3)
        # As a job of ours leaves it, to a server that has just been started.
        keep_columns(run / "particles.star")
        client = Client(Path(folder))
        ask("page", page)
        ask("columns, first look", f"{page}.json")
        ask("columns again", f"{page}.json")
        ask("points", f"{page}/points.json?x=verglasCoordinate1&y=verglasCoordinate2")
        ask("a line round some", f"{page}/chosen.json?{query}")
        star = run / "particles.star"
        n_bytes = {path.name: path.stat().st_size for path in (star, columns_path(star), bins_path(star))}
    result = {"machine": machine(), "particles": N_PARTICLES, "columns": len(columns)}
    result |= {"seconds": seconds, "bytes": size, "file_bytes": n_bytes}
    path = Path(__file__).resolve().parent / "results" / "serve_particles.json"
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))


def main() -> None:
    """Make, ask, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", help="where the project is made and removed; temporary by default")
    parser.add_argument("--particles", action="store_true", help="one job of a million particles alone")
    chosen = parser.parse_args()
    if chosen.particles:
        particles_alone()
        return
    with tempfile.TemporaryDirectory(dir=chosen.folder) as folder:
        root = Path(folder)
        make_project(root)
        start = time.perf_counter()
        client = Client(root)
        jobs = {job.name: key for key, job in client.window.folders.jobs().items()}
        first_look = time.perf_counter() - start
        pages = {
            "all jobs": "/",
            "refinement": f"/jobs/{jobs['run0']}",
            "project": f"/jobs/{jobs['proj']}",
            "micrographs": f"/jobs/{jobs['proj']}/micrographs",
            "micrographs, numbers": f"/jobs/{jobs['proj']}/micrographs.json",
            "two runs": f"/compare?a={jobs['run0']}&b={jobs['run1']}",
            "disk use": "/sizes",
        }
        seconds, size = {}, {}
        for name, target in pages.items():
            times = []
            for _ in range(3):
                start = time.perf_counter()
                answer = client.ask(target)
                times.append(time.perf_counter() - start)
                assert answer.status == 200
            seconds[name], size[name] = round(float(np.median(times)), 4), len(answer.body)
        many = asyncio.run(readers(client, "/"))
    result = {
        "machine": machine(),
        "micrographs": N_MICROGRAPHS,
        "particles": N_PARTICLES,
        "jobs": len(jobs),
        "first_look_seconds": round(first_look, 4),
        "seconds": seconds,
        "bytes": size,
        "readers": N_READERS,
        "readers_seconds": {"median": round(float(np.median(many)), 3), "last": round(max(many), 3)},
    }
    path = Path(__file__).resolve().parent / "results" / "serve.json"
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
