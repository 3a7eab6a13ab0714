"""Workers of a cluster: processor time beside one process, the same bits, and workers that are killed.

``shares`` times the passes of one iteration of each phase, in this process and on 1, 2 and 4 local workers; a worker's
start is not in it. ``kills`` makes iterations of a small set again and again while a worker is killed with SIGKILL
after every few blocks, until so many have been, and compares all with the quiet ones. ``split`` adds up the phases of
``profile.json`` of a whole refinement in one process.

    python bench/bench_cluster.py shares --particles 1000 --box 64
    python bench/bench_cluster.py kills --kills 30
    python bench/bench_cluster.py split --particles 300 --box 64
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil

import verglas as vg
from verglas.cluster import ClusterRequest, Passes, open_cluster
from verglas.cluster.passes import spool_folder
from verglas.refinement import schedule, start
from verglas.refinement.em import initial_state, iterate
from verglas.refinement.settings import RefineSettings
from verglas.search.problem import survey
from verglas.types.listener import Silence

from common import RESULTS, write

_DIAMETER_A, _FIELD_A = 110.0, 192.0


def simulate(particles: int, box: int, seed: int) -> tuple[vg.Particles, vg.Map]:
    pixel_A = _FIELD_A / box
    model = vg.simulate.phantom(box, pixel_A, _DIAMETER_A, seed=seed)
    made = vg.simulate.particles(model, particles, box, pixel_A, snr=0.1, seed=seed)
    return made, vg.simulate.density(model, box, pixel_A)


def begin(
    particles: vg.Particles, truth: vg.Map, block: int, symmetry: str = "C1", diameter_A: float = _DIAMETER_A
) -> tuple[Any, Any, list[Any]]:
    settings = RefineSettings(symmetry, diameter_A=diameter_A, initial_resolution_A=25.0, block_particles=block)
    found = survey(particles)
    problem = start.make_problem(particles, found.excluded, settings, threads=1)
    state, _ = initial_state(problem, found.power, [truth])
    first = schedule.first_step(problem)
    radius = round(problem.last_radius * 0.7)
    phases = [schedule.make_step(problem, name, radius, first.order, 3.0) for name in ("global", "local")]
    return problem, state, [first, *phases]


def processor_s(pid: int) -> float:
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


def arrays_of(state: Any, made: Any) -> tuple[Any, ...]:
    """What an iteration made, to be compared bit by bit."""
    return made.maps[0].raw, state.poses.angles_deg, state.halves[0].sigma2


def same_bits(one: tuple[Any, ...], other: tuple[Any, ...]) -> bool:
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def timed_passes(problem: Any, state: Any, steps: list[Any], runner: Any, pids: list[int]) -> list[dict[str, Any]]:
    """Wall and processor seconds of an iteration of each phase, and what it made."""
    rows = []
    for step in steps:
        here = time.process_time()
        before, begun = [processor_s(pid) for pid in pids], time.perf_counter()
        state, made = iterate(problem, state, step, None, runner) if runner else iterate(problem, state, step)
        seconds = time.perf_counter() - begun
        there = sum(processor_s(pid) for pid in pids) - sum(before)
        rows.append(
            {
                "phase": step.phase,
                "wall_s": seconds,
                "processor_s": time.process_time() - here + there,
                "coordinator_s": time.process_time() - here,
                "made": arrays_of(state, made),
            }
        )
    return rows


def compare(rows: list[dict[str, Any]], quiet: list[dict[str, Any]], workers: int) -> list[dict[str, Any]]:
    out = []
    for row, reference in zip(rows, quiet, strict=True):
        same = same_bits(row["made"], reference["made"])
        numbers = {k: v for k, v in row.items() if k != "made"}
        share = reference["processor_s"] / row["processor_s"]
        out.append({"workers": workers, **numbers, "efficiency": share, "same_bits": same})
    return out


def shares(chosen: argparse.Namespace) -> None:
    particles, truth = simulate(chosen.particles, chosen.box, chosen.seed)
    problem, state, steps = begin(particles, truth, chosen.block)
    quiet = timed_passes(problem, state, steps, None, [])
    whole, _, _ = begin(particles, truth, 10**6)
    unblocked = timed_passes(whole, state, steps, None, [])
    rows = compare(unblocked, quiet, 0) + compare(quiet, quiet, 0)
    for row in rows[: len(steps)]:
        row["one_block"] = True
    for workers in chosen.workers:
        with (
            tempfile.TemporaryDirectory() as folder,
            open_cluster(ClusterRequest("local", workers), Silence(), job="bench", threads=1) as pool,
            spool_folder(Path(folder)) as spool,
        ):
            pids = list(pool.client.run(os.getpid).values())
            passes = Passes(pool, particles, spool, Silence())
            timed_passes(problem, state, steps[:1], passes, pids)  # workers load the package and read their blocks
            rows += compare(timed_passes(problem, state, steps, passes, pids), quiet, workers)
        notes = {"particles": chosen.particles, "box": chosen.box, "block": chosen.block, "seed": chosen.seed}
        write(f"cluster_shares_{chosen.box}", rows, **notes)


class Killer:
    """Kills a worker after every few blocks; a progress of iterations."""

    def __init__(self, every: int, seed: int) -> None:
        self.every, self.calls, self.last, self.killed = every, 0, 0, 0
        self.rng = np.random.default_rng(seed)

    def __call__(self, phase: str, done: int, total: int) -> None:
        """Count a block; a sign of life, which says no more than before, is none."""
        if done <= self.last:
            self.last = done
            return
        self.last = done
        self.calls += 1
        if self.calls % self.every:
            return
        workers = [p for p in psutil.Process().children(recursive=True) if "spawn_main" in " ".join(p.cmdline())]
        if workers:
            os.kill(workers[self.rng.integers(len(workers))].pid, signal.SIGKILL)
            self.killed += 1


def kills(chosen: argparse.Namespace) -> None:
    """Iterations of all phases while workers are killed; what an earlier call has left is continued."""
    box, pixel_A = 24, 5.0
    model = vg.simulate.phantom(box, pixel_A, 90.0, "O", seed=chosen.seed)
    particles = vg.simulate.particles(model, 96, box, pixel_A, snr=1.0, seed=chosen.seed)
    problem, state, steps = begin(particles, vg.simulate.density(model, box, pixel_A), 8, "O", 90.0)
    quiet = timed_passes(problem, state, steps, None, [])
    path = RESULTS / "cluster_kills.json"
    rows: list[dict[str, Any]] = json.loads(path.read_text())["rows"] if path.is_file() else []
    begun = time.perf_counter()
    with (
        tempfile.TemporaryDirectory() as folder,
        open_cluster(ClusterRequest("local", chosen.workers), Silence(), job="bench", threads=1) as pool,
        spool_folder(Path(folder)) as spool,
    ):
        passes = Passes(pool, particles, spool, Silence())
        while sum(row["kills"] for row in rows) < chosen.kills and time.perf_counter() - begun < chosen.seconds:
            now = state
            for step, expected in zip(steps, quiet, strict=True):
                killer = Killer(chosen.every, chosen.seed + len(rows))
                now, made = iterate(problem, now, step, killer, passes)
                same = same_bits(arrays_of(now, made), expected["made"])
                rows.append({"phase": step.phase, "workers": chosen.workers, "kills": killer.killed, "same_bits": same})
                print(rows[-1], flush=True)
                total = sum(row["kills"] for row in rows)
                write("cluster_kills", rows, quiet=True, kills=total, seed=chosen.seed, every=chosen.every)


def split(chosen: argparse.Namespace) -> None:
    """Processor seconds of each phase of a refinement, as its run folder tells them."""
    particles, truth = simulate(chosen.particles, chosen.box, chosen.seed)
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        vg.refine(particles, truth, out=run, threads=1, diameter_A=_DIAMETER_A, iterations=5, listener=None)
        phases = json.loads((run / "profile.json").read_text())["sessions"][-1]["phases"]
    rows = [{k: phase[k] for k in ("phase", "processor_seconds", "seconds")} for phase in phases]
    total = sum(row["processor_seconds"] for row in rows)
    write(
        f"cluster_split_{chosen.box}", rows, particles=chosen.particles, seed=chosen.seed, processor_s=round(total, 2)
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    one = commands.add_parser("shares")
    one.add_argument("--particles", type=int, default=1000)
    one.add_argument("--box", type=int, default=64)
    one.add_argument("--block", type=int, default=125)
    one.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4])
    one.add_argument("--seed", type=int, default=2100)
    one.set_defaults(run=shares)
    two = commands.add_parser("kills")
    two.add_argument("--kills", type=int, default=30)
    two.add_argument("--workers", type=int, default=2)
    two.add_argument("--every", type=int, default=4)
    two.add_argument("--seconds", type=float, default=240.0)
    two.add_argument("--seed", type=int, default=2101)
    two.set_defaults(run=kills)
    three = commands.add_parser("split")
    three.add_argument("--particles", type=int, default=300)
    three.add_argument("--box", type=int, default=64)
    three.add_argument("--seed", type=int, default=2102)
    three.set_defaults(run=split)
    chosen = parser.parse_args()
    chosen.run(chosen)


if __name__ == "__main__":
    main()
