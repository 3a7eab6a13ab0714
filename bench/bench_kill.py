"""SIGKILL at random moments, and whether the same command, given again, ends in the same bits.

Each trial runs a job of ``verglas`` in a process of its own, kills it at a moment drawn uniformly from the time that an
undisturbed run takes, gives the command again (``refine`` with ``--resume`` if there is a checkpoint), kills that too
with probability one half, and compares the results, byte by byte, with those of the undisturbed run. The same command
goes on where it stopped.

    python bench/bench_kill.py --refine 100 --class2d 30 --abinitio 30 --process 30 --minutes 9
"""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import verglas as vg

from common import collect

_CHECKPOINT = "checkpoint/state.npz"
_MOST_STARTS = 20  # of one job, before it counts as one that never ends


@dataclass(frozen=True)
class Job:
    """A command, and the files that must come out the same."""

    words: tuple[str, ...]
    results: tuple[str, ...]


def jobs(inputs: Path, threads: int) -> dict[str, Job]:
    """The four commands on small simulated data."""
    model = vg.simulate.phantom(32, 4.0, 90.0, seed=3)
    star, reference = inputs / "p.star", inputs / "ref.mrc"
    vg.write_particles(star, vg.simulate.particles(model, 200, 32, 4.0, snr=0.5, seed=3))
    vg.write_map(reference, vg.simulate.density(model, 32, 4.0))
    (inputs / "mics").mkdir()
    for seed in range(4):
        made, _ = vg.simulate.micrograph(
            model, shape=(480, 480), pixel_size_A=4.0, n=20, snr=0.5, defocus_u_A=15000 + 1000 * seed, seed=seed
        )
        vg.io.write_stack(inputs / f"mics/m{seed}.mrc", made.data[None], 4.0)
    common = ("--threads", str(threads), "--seed", "1")
    shape = ("--diameter", "100", *common)
    return {
        "refine": Job(
            ("refine", str(star), "--reference", str(reference), "--iterations", "8", *shape),
            ("map.mrc", "half1.mrc", "half2.mrc", "particles.star"),
        ),
        "class2d": Job(
            ("class2d", str(star), "--classes", "4", "--iterations", "8", *shape), ("averages.mrcs", "particles.star")
        ),
        "abinitio": Job(
            ("abinitio", str(star), "--starts", "2", "--most-starts", "2", "--iterations", "8", *shape),
            ("map.mrc", "particles.star"),
        ),
        "process": Job(
            ("process", str(inputs / "mics"), "--pixel-size", "4", "--diameter", "90", *common),
            ("particles.star", "ctf/micrographs_ctf.star"),
        ),
    }


def start(job: Job, out: Path) -> subprocess.Popen[bytes]:
    """The command as a person would give it: the same again, or for refine with ``--resume``."""
    resume = ["--resume"] if job.words[0] == "refine" and (out / _CHECKPOINT).is_file() else []
    words = [sys.executable, "-m", "verglas", *job.words, "--out", str(out), *resume]
    return subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def fingerprints(job: Job, out: Path) -> dict[str, str]:
    """Of the results; names of the folder that stand in tables are taken out."""
    found = {}
    for name in job.results:
        content = (out / name).read_bytes()
        if name.endswith(".mrc") or name.endswith(".mrcs"):
            content = content[1024:]  # the header holds a date
        found[name] = hashlib.sha1(content.replace(str(out).encode(), b"")).hexdigest()
    return found


def trial(job: Job, out: Path, seconds: float, rng: np.random.Generator) -> tuple[list[float], str, str]:
    """Moments of the kills, and what the last run said if it failed."""
    kills: list[float] = []
    for _ in range(_MOST_STARTS):
        moment = float(rng.uniform(0, seconds)) if not kills or rng.random() < 0.5 else None
        process = start(job, out)
        try:
            error = process.communicate(timeout=moment)[1]
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            kills.append(round(float(moment or 0), 2))
            continue
        if process.returncode == 0:
            return kills, "", "finished"
        return kills, error.decode()[-300:], "failed"
    return kills, "", "never ended"


def undisturbed(name: str, job: Job, folder: Path) -> tuple[dict[str, str], float]:
    """What the job gives when nobody kills it, and the seconds it takes."""
    begun = time.perf_counter()
    process = start(job, folder)
    error = process.communicate()[1]
    if process.returncode:
        raise SystemExit(f"{name}: the undisturbed run failed: {error.decode()[-500:]}")
    return fingerprints(job, folder), time.perf_counter() - begun


def one_trial(name: str, job: Job, folder: Path, number: int, seed: int) -> dict[str, Any]:
    """One trial of a command; the undisturbed run is made once in a folder."""
    (folder / name).mkdir(exist_ok=True)
    known = folder / name / "undisturbed.json"
    if not known.is_file():
        known.write_text(json.dumps(undisturbed(name, job, folder / name / "whole")))
    wanted, seconds = json.loads(known.read_text())
    out = folder / name / f"trial{number}"
    kills, error, end = trial(job, out, seconds, np.random.default_rng([seed, number]))
    same = end == "finished" and fingerprints(job, out) == wanted
    shutil.rmtree(out, ignore_errors=True)
    row = {"kills_s": kills, "seconds_undisturbed": round(seconds, 2), "end": end, "same_bits": same}
    return row | ({"error": error} if error else {})


def summary(done: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Counts per command."""
    rows = []
    for name in dict.fromkeys(key.split()[0] for key in done):
        those = [one for key, one in done.items() if key.split()[0] == name]
        rows.append(
            {
                "job": name,
                "trials": len(those),
                "kills": sum(len(one["kills_s"]) for one in those),
                "finished": sum(one["end"] == "finished" for one in those),
                "same_bits": sum(one["same_bits"] for one in those),
                "seconds_undisturbed": float(np.median([one["seconds_undisturbed"] for one in those])),
            }
        )
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what is asked for and is not in bench/results/kill.json yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("refine", "class2d", "abinitio", "process"):
        parser.add_argument(f"--{name}", type=int, default=0, help="trials")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=600.0, help="no new trial after so long; goes on next time")
    asked = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as root:
        inputs = Path(root) / "inputs"
        inputs.mkdir()
        counts = {name: getattr(asked, name) for name in ("refine", "class2d", "abinitio", "process")}
        trials: dict[str, Callable[[], Any]] = {}
        made = jobs(inputs, asked.threads)
        for number in range(max(counts.values())):  # in turns, so that a short time has something of each
            for name in (name for name, count in counts.items() if number < count):
                trials[f"{name} {asked.seed} {number}"] = partial(
                    one_trial, name, made[name], Path(root), number, asked.seed
                )
        collect("kill", trials, summary, asked.minutes)


if __name__ == "__main__":
    main()
