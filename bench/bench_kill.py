"""SIGKILL at random moments, and whether the same command, given again, ends in the same bits.

Each trial runs a job of ``verglas`` in a process of its own, kills it at a moment drawn uniformly from the processor
time that an undisturbed run takes, gives the command again (``refine`` with ``--resume`` if there is a checkpoint),
kills that too with a probability of 0.9, and so on; results are compared, byte by byte, with those of the undisturbed
run. What the job said it was at when it was killed is kept with every kill. Counts are of kills; the same command goes
on where it stopped, and needs the undisturbed runs only once if it is given a folder for them.

    python bench/bench_kill.py --refine 100 --class2d 30 --abinitio 30 --process 30 --minutes 9
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import signal
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

# Loaded here, so that the processes forked from this one have them.
import verglas.pipeline
import verglas.run.abinitio
import verglas.run.class2d
import verglas.run.refine
from verglas.cli import main as main_of_verglas

from common import collect

_CHECKPOINT = "checkpoint/state.npz"
_MOST_STARTS = 40  # of one job, before it counts as one that never ends
_NAMES = ("refine", "class2d", "abinitio", "process")
_PARTICLES, _BOX, _PIXEL_A = 100, 24, 5.0
_AGAIN = 0.9  # probability that a job given again is killed again


@dataclass(frozen=True)
class Job:
    """A command, and the files that must come out the same."""

    words: tuple[str, ...]
    results: tuple[str, ...]
    good: tuple[int, ...] = (0,)  # exit status; 1 is a verdict, as of too few particles


def jobs(inputs: Path, threads: int) -> dict[str, Job]:
    """The four commands on small simulated data."""
    star, reference = inputs / "p.star", inputs / "ref.mrc"
    if not star.is_file():
        # In a process of its own: one that has run kernels must not be forked.
        process = os.fork()
        if not process:
            _simulate(star, reference, inputs / "mics")
            os._exit(0)
        os.waitpid(process, 0)
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
            ("abinitio", str(star), "--starts", "2", "--most-starts", "2", "--iterations", "6", *shape),
            ("map.mrc", "particles.star"),
        ),
        "process": Job(
            ("process", str(inputs / "mics"), "--pixel-size", "4", "--diameter", "90", *common),
            ("particles.star", "ctf/micrographs_ctf.star"),
        ),
    }


def _simulate(star: Path, reference: Path, micrographs: Path) -> None:
    model = vg.simulate.phantom(_BOX, _PIXEL_A, 90.0, seed=3)
    micrographs.mkdir(exist_ok=True)
    for seed in range(3):
        made, _ = vg.simulate.micrograph(
            model, shape=(384, 384), pixel_size_A=4.0, n=20, snr=0.5, defocus_u_A=15000 + 1000 * seed, seed=seed
        )
        vg.io.write_stack(micrographs / f"m{seed}.mrc", made.data[None], 4.0)
    vg.write_map(reference, vg.simulate.density(model, _BOX, _PIXEL_A))
    vg.write_particles(star, vg.simulate.particles(model, _PARTICLES, _BOX, _PIXEL_A, snr=0.5, seed=3))


def start(job: Job, out: Path) -> int:
    """The command as a person would give it: the same again, or for refine with ``--resume``; its process.

    Forked from this one, which has the libraries loaded: a trial is about the job, not about how Python starts.
    """
    resume = ["--resume"] if job.words[0] == "refine" and (out / _CHECKPOINT).is_file() else []
    sys.stdout.flush()
    sys.stderr.flush()
    process = os.fork()
    if process:
        return process
    status = 1
    try:
        with open(out.with_suffix(".log"), "w", encoding="utf-8") as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
            main_of_verglas([*job.words, "--out", str(out), *resume])
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else int(end.code is not None)
    finally:
        os._exit(status)


def wait(process: int, until_s: float | None = None) -> tuple[int | None, float]:
    """Exit status, or None if its processor time came to ``until_s`` first; and that time."""
    while True:
        used = processor_s(process)
        ended, status, usage = os.wait4(process, 0 if until_s is None else os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status), usage.ru_utime + usage.ru_stime
        if until_s is not None and used >= until_s:
            return None, used
        time.sleep(0.01)


def processor_s(process: int) -> float:
    """Seconds of processor time that a process has used."""
    fields = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def fingerprints(job: Job, out: Path) -> dict[str, str]:
    """Of the results; names of the folder that stand in tables are taken out."""
    found = {}
    for name in job.results:
        content = (out / name).read_bytes()
        if name.endswith(".mrc") or name.endswith(".mrcs"):
            content = content[1024:]  # the header holds a date
        found[name] = hashlib.sha1(content.replace(str(out).encode(), b"")).hexdigest()
    return found


def where_it_was(out: Path) -> str:
    """What ``run.json`` says that the job was at."""
    record = out / "run.json"
    progress = json.loads(record.read_text()).get("progress", {}) if record.is_file() else {}
    return str(progress.get("phase", "before the folder was there"))


def trial(job: Job, out: Path, seconds: float, rng: np.random.Generator) -> tuple[list[tuple[float, str]], str, str]:
    """Moments of the kills with what the job was at, what the last run said if it failed, and how it ended."""
    kills: list[tuple[float, str]] = []
    for _ in range(_MOST_STARTS):
        moment = float(rng.uniform(0, seconds)) if not kills or rng.random() < _AGAIN else None
        process = start(job, out)
        status, _ = wait(process, moment)
        if status is None:
            os.kill(process, signal.SIGKILL)
            os.waitpid(process, 0)
            kills.append((round(float(moment or 0), 2), where_it_was(out)))
            continue
        error = "" if status in job.good else out.with_suffix(".log").read_text(errors="replace")[-300:]
        return kills, error, "failed" if error else "finished"
    return kills, "", "never ended"


def undisturbed(name: str, job: Job, folder: Path) -> tuple[dict[str, str], float]:
    """What the job gives when nobody kills it, and the seconds of processor time it takes."""
    status, seconds = wait(start(job, folder))
    if status not in job.good:
        raise SystemExit(f"{name}: the undisturbed run failed: {folder.with_suffix('.log').read_text()[-500:]}")
    return fingerprints(job, folder), seconds


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
    out.with_suffix(".log").unlink(missing_ok=True)
    row = {"kills": kills, "processor_seconds_undisturbed": round(seconds, 2), "end": end, "same_bits": same}
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
                "kills": sum(len(one["kills"]) for one in those),
                "phases": len({phase for one in those for _, phase in one["kills"]}),
                "finished": sum(one["end"] == "finished" for one in those),
                "same_bits": sum(one["same_bits"] for one in those),
                "processor_seconds_undisturbed": float(
                    np.median([one["processor_seconds_undisturbed"] for one in those])
                ),
            }
        )
    return rows


def main(arguments: Sequence[str] | None = None) -> None:
    """Run what is asked for and is not in bench/results/kill.json yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in _NAMES:
        parser.add_argument(f"--{name}", type=int, default=0, help="kills")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=600.0, help="no new trial after so long; goes on next time")
    parser.add_argument("--folder", type=Path, help="for inputs and undisturbed runs, of one version of the program")
    asked = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as scratch:
        root = asked.folder or Path(scratch)
        (root / "inputs").mkdir(parents=True, exist_ok=True)
        made = jobs(root / "inputs", asked.threads)
        wanted = {name: getattr(asked, name) for name in _NAMES}
        trials: dict[str, Callable[[], Any]] = {}
        for number in range(max(wanted.values())):  # in turns, so that a short time has something of each
            for name in (name for name, count in wanted.items() if number < count):
                trials[f"{name} {asked.seed} {number}"] = partial(one_trial, name, made[name], root, number, asked.seed)
        collect("kill", trials, summary, asked.minutes, enough=lambda key, done: _killed_enough(key, done, wanted))


def _killed_enough(key: str, done: Mapping[str, Any], wanted: Mapping[str, int]) -> bool:
    """Whether the command of a trial has been killed as often as was asked."""
    name = key.split()[0]
    return sum(len(one["kills"]) for other, one in done.items() if other.split()[0] == name) >= wanted[name]


if __name__ == "__main__":
    main()
