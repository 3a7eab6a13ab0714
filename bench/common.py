"""What every benchmark shares: where it ran, how it timed, and the JSON it leaves in bench/results.

A benchmark is a script ``bench/bench_<op>.py`` (or ``bench/compare_<peer>.py``) that ends with
``write("<name>", rows)``; a row is a flat dict of sizes and figures. Times come from :func:`compare`, which takes the
candidates in turn, so that a machine that slows down slows all of them.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = Path(__file__).resolve().parent / "results"


def _memory_bytes() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None


def commit(folder: Path = ROOT) -> str | None:
    """Of a checkout, as git names it."""
    try:
        done = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=folder, capture_output=True, text=True)
    except OSError:
        return None
    return done.stdout.strip() or None


def machine() -> dict[str, Any]:
    """Processor, cores, memory, instruction set in use, versions, load: what a figure means nothing without."""
    import verglas as vg
    from verglas.run.machine import processor_name

    info = vg.info()
    return {
        "processor": processor_name(),
        "cores": info["threads"],
        "memory_GB": round((_memory_bytes() or 0) / 1e9, 1),
        "load_1min": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "isa": info["isa"],
        "devices": info["devices"],
        "compiler": info["compiler"],
        "python": info["python"],
        "platform": info["platform"],
        "verglas": info["version"],
        "commit": commit(),
        "packages": {name: v for name, v in info["packages"].items() if v is not None},
        "date_utc": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }


def compare(
    candidates: Mapping[str, Callable[[], Any]], repeats: int = 5, *, warmup: int = 1
) -> dict[str, dict[str, float]]:
    """Time candidates side by side: a round runs each once, in turn; rounds repeat.

    Parameters
    ----------
    candidates : mapping of name -> callable
        Called without arguments; the return value is dropped.
    repeats : int
        Timed rounds.
    warmup : int
        Untimed rounds before them (first-touch pages, plans, caches).

    Returns
    -------
    dict of name -> {"ms", "ms_min", "ms_max"}
        Median, least and greatest wall time of the rounds.
    """
    if repeats < 1:
        raise ValueError(f"repeats: expected at least 1, got {repeats}")
    times: dict[str, list[float]] = {name: [] for name in candidates}
    for round_number in range(warmup + repeats):
        for name, call in candidates.items():
            start = time.perf_counter()
            call()
            elapsed_ms = 1e3 * (time.perf_counter() - start)
            if round_number >= warmup:
                times[name].append(elapsed_ms)
    return {name: {"ms": statistics.median(t), "ms_min": min(t), "ms_max": max(t)} for name, t in times.items()}


def timed(call: Callable[[], Any], repeats: int = 5, *, warmup: int = 1) -> dict[str, float]:
    """:func:`compare` of one candidate."""
    return compare({"only": call}, repeats, warmup=warmup)["only"]


def _rounded(value: Any) -> Any:
    return float(f"{value:.5g}") if isinstance(value, float) else value


def write(name: str, rows: Sequence[Mapping[str, Any]], *, quiet: bool = False, **notes: Any) -> Path:
    """Write ``bench/results/<name>.json`` and print the rows as they stand in it.

    Parameters
    ----------
    name : str
        File name without ending; the benchmark's own name.
    rows : sequence of mapping
        Flat, JSON-ready rows (sizes, threads, ms, GFLOP/s or GB/s, the peer's figure). Floats keep 5 digits.
    quiet : bool
        Do not print them.
    **notes
        Further top-level entries, e.g. ``peer="relion_project 5.0"``.

    Returns
    -------
    pathlib.Path
        The file written.
    """
    if not rows:
        raise ValueError(f"bench {name}: no rows to write")
    flat = [{key: _rounded(value) for key, value in row.items()} for row in rows]
    RESULTS.mkdir(parents=True, exist_ok=True)
    path = RESULTS / f"{name}.json"
    text = json.dumps({"name": name, "machine": machine(), **notes, "rows": flat}, indent=1)
    temporary = path.with_suffix(".json.part")
    temporary.write_text(text + "\n", encoding="utf-8")
    temporary.replace(path)
    if quiet:
        return path
    for row in flat:
        print("  ".join(f"{key}={value}" for key, value in row.items()))
    print(f"wrote {path}")
    return path


def collect(
    name: str,
    trials: Mapping[str, Callable[[], Any]],
    summary: Callable[[Mapping[str, Any]], Sequence[Mapping[str, Any]]],
    minutes: float,
    *,
    enough: Callable[[str, Mapping[str, Any]], bool] | None = None,
    **notes: Any,
) -> Path:
    """Run the trials that ``bench/results/<name>.json`` does not hold yet, saved one by one, until the time is over.

    Trials that the file holds and this call does not name stay in it; those that hold no more are taken out by hand.

    Parameters
    ----------
    name : str
        As for :func:`write`.
    trials : mapping of key -> callable
        Each returns what can stand in JSON. The key says all that the trial depends on.
    summary : callable
        From all results by key to the rows of the file.
    minutes : float
        No new trial is begun after so long; the same command goes on.
    enough : callable, optional
        Whether a trial, by its key, is not needed any more beside all results so far.
    **notes
        As for :func:`write`.
    """
    path = RESULTS / f"{name}.json"
    held = json.loads(path.read_text(encoding="utf-8")).get("trials", {}) if path.is_file() else {}
    # What an earlier call made with more seeds stays: it is a measurement, whoever asks for less now.
    done = {key: held[key] for key in trials if key in held} | {k: v for k, v in held.items() if k not in trials}
    begun = time.monotonic()
    for key, call in trials.items():
        if key in done or (enough is not None and enough(key, done)):
            continue
        if time.monotonic() - begun > 60 * minutes:
            break
        done[key] = call()
        print(key, done[key], flush=True)
        write(name, summary(done), quiet=True, trials=done, **notes)
    return write(name, summary(done), trials=done, trials_wanted=len(trials), **notes)


def experiment_summary(experiments: Iterable[str], done: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Median and worst of every figure of each experiment; how often of what is true or not.

    Keys of ``done`` begin with the experiment's name and a space.
    """
    rows = []
    for name in experiments:
        results = [value for key, value in done.items() if key.split()[0] == name]
        row: dict[str, Any] = {"experiment": name, "seeds": len(results)}
        for figure in results[0] if results else ():
            values = [one[figure] for one in results if isinstance(one[figure], float | int)]
            if values and isinstance(values[0], bool):
                row[f"{figure}_of_seeds"] = sum(values)
            elif values:
                row |= {f"{figure}_median": float(statistics.median(values)), f"{figure}_worst": float(max(values))}
        rows.append(row)
    return rows


def run_cases(
    doc: str | None,
    cases: Mapping[str, Callable[[int], dict[str, Any]]],
    result: Path,
    *,
    seeds: int,
    first_seed: int,
    minutes: float,
    **notes: Any,
) -> None:
    """The command line of a benchmark of cases by seed: runs what the file does not hold, saved one by one.

    Every number of a case is summed up by its median, least and largest value.
    """
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", default=list(cases), choices=[*cases, []])
    parser.add_argument("--seeds", type=int, default=seeds)
    parser.add_argument("--first-seed", type=int, default=first_seed)
    parser.add_argument("--minutes", type=float, default=minutes)
    parser.add_argument("--out", type=Path, default=result)
    asked = parser.parse_args()
    trials = json.loads(asked.out.read_text())["trials"] if asked.out.is_file() else []
    done = {(t["case"], t["seed"]) for t in trials}
    end = time.monotonic() + 60 * asked.minutes
    for seed in range(asked.first_seed, asked.first_seed + asked.seeds):
        for case in asked.cases:
            if (case, seed) in done or time.monotonic() > end:
                continue
            begun = time.perf_counter()
            row = {"case": case, "seed": seed} | cases[case](seed)
            trials.append(row | {"seconds": round(time.perf_counter() - begun, 1)})
            record = notes | {"summary": _spread_of_cases(cases, trials), "trials": trials}
            asked.out.write_text(json.dumps(record, indent=1) + "\n")
            print(trials[-1], flush=True)


def _spread_of_cases(cases: Iterable[str], trials: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for case in cases:
        rows = [t for t in trials if t["case"] == case]
        if not rows:
            continue
        values = {
            n: [float(r[n]) for r in rows] for n, v in rows[0].items() if isinstance(v, int | float) and n != "seed"
        }
        made[case] = {"seeds": len(rows)} | {
            n: {"median": float(statistics.median(v)), "least": min(v), "largest": max(v)} for n, v in values.items()
        }
    return made
