"""How well the time of refine, class2d and abinitio is foreseen: forecast and processor time, on sizes not fitted on.

Each case simulates particles (one more seed, another size), asks for the forecast, runs the job on one thread, keeps
the processor time of every phase beside what the forecast counted for it. ``--fit`` fits the seconds per unit of
:data:`verglas.run.forecast.UNITS` on the cases marked so; the others are the test. Saved after every case.

    python bench/bench_time.py --fit
    python bench/bench_time.py --test
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from scipy.optimize import least_squares

import verglas as vg
from verglas.classification import Class2DSettings
from verglas.run import forecast as counting
from verglas.run.speed import machine_speed
from verglas.types.forecast import Forecast
from verglas.types.listener import Silence

from common import RESULTS, collect, write

_DIAMETER_A = 110.0
_ORIGINAL = counting._forecast
# Weight of a factor e in a unit beside one in a total: what kernels alone were measured to take moves least.
_STAY = np.array([1.0, 0.1, 0.1, 0.1, 0.1, 0.3, 0.1, 0.1])


@dataclass(frozen=True)
class Case:
    """A job on simulated particles."""

    job: str
    n: int
    box: int
    pixel_size_A: float
    snr: float
    seed: int
    changes: Mapping[str, Any] = field(default_factory=dict)

    def name(self) -> str:
        """Of its trial."""
        changes = "".join(f" {name}={value}" for name, value in self.changes.items())
        return f"{self.job} {self.n} {self.box} {self.pixel_size_A:g} {self.snr:g} {self.seed}{changes}"


_FITTED = [
    Case("refine", 150, 32, 4.0, 0.3, 4),
    Case("class2d", 300, 32, 4.0, 0.1, 1, {"classes": 4}),
    Case("abinitio", 200, 32, 4.0, 0.3, 1, {"starts": 2, "most_starts": 2, "iterations": 10}),
    Case("refine", 300, 64, 3.0, 0.1, 1),
    Case("class2d", 800, 64, 3.0, 0.1, 1, {"classes": 8}),
    Case("class2d", 500, 48, 4.0, 0.1, 2, {"classes": 10}),
    Case("refine", 1000, 48, 4.0, 0.1, 1),
    Case("abinitio", 250, 40, 3.5, 0.2, 11, {"starts": 2, "most_starts": 2, "iterations": 12}),
    Case("refine", 800, 128, 1.5, 0.05, 21),
]
_TESTED = [
    Case("refine", 500, 56, 3.5, 0.1, 11),
    Case("class2d", 600, 44, 4.0, 0.1, 13, {"classes": 7}),
    Case("class2d", 400, 80, 2.5, 0.1, 12, {"classes": 6}),
    Case("refine", 250, 72, 3.0, 0.15, 12),
    Case("abinitio", 350, 64, 3.0, 0.2, 12, {"starts": 1, "iterations": 14}),
    Case("refine", 400, 160, 1.2, 0.05, 31),
    Case("refine", 2000, 96, 2.0, 0.05, 32),
    Case("class2d", 1000, 96, 2.0, 0.1, 33, {"classes": 10}),
    Case("abinitio", 600, 96, 2.0, 0.1, 34),
]


class _Clock(Silence):
    """Processor time by the phase that was told before it."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._phase, self._at = "start", time.process_time()

    def _turn(self, phase: str) -> None:
        now = time.process_time()
        self.seconds[self._phase] = self.seconds.get(self._phase, 0.0) + now - self._at
        self._phase, self._at = phase, now

    def progress(self, phase: str, done: int, total: int) -> None:
        """A phase."""
        self._turn(phase.split(",")[0])

    def iteration(self, figures: Mapping[str, Any]) -> None:
        """What follows belongs to the next one."""
        self._turn(f"iteration {int(figures.get('iteration', figures.get('number', 0))) + 1}")

    def end(self) -> dict[str, float]:
        """Seconds of every phase."""
        self._turn("")
        return {phase: round(seconds, 3) for phase, seconds in self.seconds.items()}


class _Counted(Exception):
    """Enough: the forecast has been asked for."""


def measure(case: Case, *, only_count: bool = False) -> dict[str, Any]:
    """Run a case: what was counted, and what it took."""
    particles = vg.simulate.particles(_model(case), case.n, case.box, case.pixel_size_A, snr=case.snr, seed=case.seed)
    made: list[tuple[Forecast, list[tuple[str, list[Any], float]], float]] = []
    _overhear(made, only_count)
    clock, diameter = _Clock(), 1.1 * _DIAMETER_A
    how = {"diameter_A": diameter, "threads": 1, "listener": clock, **case.changes}
    with suppress(_Counted):
        _run(case, particles, how)
    _, counts, begun = made[-1]
    took = time.process_time() - begun
    return {
        "job": case.job,
        "took_s": round(took, 2),
        "phases_s": clock.end(),
        "other_s": round(sum(extra for _, _, extra in counts), 3),
        "counts": [[phase, np.sum(one, axis=0).tolist()] for phase, one, _ in counts],
        "speed": machine_speed(),
    }


def _run(case: Case, particles: vg.Particles, how: dict[str, Any]) -> None:
    if case.job == "refine":
        vg.refine(particles, vg.simulate.density(_model(case), case.box, case.pixel_size_A), **how)
    elif case.job == "abinitio":
        vg.abinitio(particles, **how)
    else:
        settings = Class2DSettings(diameter_A=how["diameter_A"], **case.changes)
        counting.class2d_forecast(case.n, case.box, case.pixel_size_A, settings, 1)
        vg.classify2d(particles, settings, threads=1, listener=how["listener"])


def _model(case: Case) -> Any:
    return vg.simulate.phantom(case.box, case.pixel_size_A, _DIAMETER_A, seed=case.seed)


def _overhear(made: list[Any], only_count: bool) -> None:
    """Have every forecast kept with its counts, as the jobs ask for it; or end there."""

    def kept(phases: Any, threads: int | None) -> Forecast:
        forecast = _ORIGINAL(phases, threads)
        counted = [(phase.name, list(phase.counts), phase.extra_s) for phase in phases]
        made.append((forecast, counted, time.process_time()))
        if only_count:
            raise _Counted
        return forecast

    counting._forecast = kept


def fit(trials: Mapping[str, Any]) -> list[float]:
    """Seconds per unit at the speed of the reference: totals right in the logarithm, near what they were before."""
    names = {case.name() for case in _FITTED}
    used = [one for name, one in trials.items() if name in names]
    counts = np.array([np.sum([one for _, one in trial["counts"]], axis=0) for trial in used])
    other = np.array([trial["other_s"] for trial in used])
    took = np.array([trial["took_s"] * trial["speed"] for trial in used])
    before = np.log(counting.SECONDS)

    def residuals(log_seconds: Any) -> Any:
        return np.concatenate([np.log((counts @ np.exp(log_seconds) + other) / took), _STAY * (log_seconds - before)])

    return [float(f"{x:.3g}") for x in np.exp(least_squares(residuals, before).x)]


def forecast_s(trial: Mapping[str, Any]) -> float:
    """Of a trial's counts, by the seconds per unit as they are now."""
    counts = np.sum([one for _, one in trial["counts"]], axis=0)
    return float((counts @ counting.SECONDS + trial["other_s"]) / trial["speed"])


def summary(done: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A row per case."""
    fitted = {case.name() for case in _FITTED}
    return [
        {
            "case": name,
            "used": "fit" if name in fitted else "test",
            "forecast_s": round(forecast_s(one), 2),
            "took_s": one["took_s"],
            "forecast_over_took": round(forecast_s(one) / one["took_s"], 3),
        }
        for name, one in done.items()
    ]


def recount() -> None:
    """Counts of the cases kept, by the counting as it is now; what they took stays."""
    path, cases = RESULTS / "time.json", {case.name(): case for case in [*_FITTED, *_TESTED]}
    kept = json.loads(path.read_text(encoding="utf-8"))["trials"]
    done = {}
    for name in kept:
        if name in cases:
            now = measure(cases[name], only_count=True)
            done[name] = kept[name] | {key: now[key] for key in ("counts", "other_s")}
    write("time", summary(done), trials=done)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what is not in bench/results/time.json yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fit", action="store_true", help="the cases to fit on, and what they give")
    parser.add_argument("--test", action="store_true", help="the cases to test with")
    parser.add_argument("--recount", action="store_true", help="count kept cases anew, after a change of the counting")
    parser.add_argument("--minutes", type=float, default=60.0, help="no new case after so long; goes on next time")
    asked = parser.parse_args(arguments)
    cases = (_FITTED if asked.fit else []) + (_TESTED if asked.test else [])
    if asked.recount:
        recount()
    every: dict[str, Callable[[], Any]] = {c.name(): partial(measure, c) for c in [*_FITTED, *_TESTED]}
    wanted = {case.name() for case in cases}
    path = collect("time", every, summary, asked.minutes, enough=lambda key, _: key not in wanted)
    if asked.fit:
        print("SECONDS =", fit(json.loads(path.read_text(encoding="utf-8"))["trials"]))


if __name__ == "__main__":
    main()
