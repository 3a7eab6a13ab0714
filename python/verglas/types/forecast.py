"""How long a job will take: parts with their expected times, and what is left of them while it runs."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

# Of a job's work, what several threads share (refine of 600 particles of 64 px on 1 and 2 threads).
_SHARED = 0.9
# Seconds of agreement with the forecast that the first moments of a job count beside: a first part that took two
# seconds in place of one must not double what is said of the hours to come.
_TRUST_S = 5.0


@dataclass(frozen=True)
class Part:
    """A part of a job, by the phase that it tells.

    Attributes
    ----------
    phase : str
        As told to listeners, up to the first comma: ``"iteration 3"``.
    seconds : tuple of float
        Of one processor core: of its steps, if it tells how many are done, else of all of it.
    """

    phase: str
    seconds: tuple[float, ...]

    @property
    def total_s(self) -> float:
        """Of all steps."""
        return float(sum(self.seconds))

    def until_s(self, fraction: float) -> float:
        """Seconds of a fraction of its steps."""
        ends = np.concatenate([[0.0], np.cumsum(self.seconds)])
        return float(np.interp(fraction * len(self.seconds), np.arange(len(ends)), ends))


@dataclass(frozen=True)
class Forecast:
    """Times of a job before it runs.

    Attributes
    ----------
    parts : tuple of Part
        In order.
    threads : int

    Examples
    --------
    >>> from verglas.types.forecast import Forecast, Part
    >>> forecast = Forecast((Part("iteration 1", (20.0,)), Part("verdict", (10.0,))), threads=1)
    >>> forecast.processor_s
    30.0
    >>> print(forecast)
    time: about 30 s of one core
    """

    parts: tuple[Part, ...]
    threads: int = 1

    @property
    def processor_s(self) -> float:
        """Of all parts, on one core."""
        return sum(part.total_s for part in self.parts)

    @property
    def seconds(self) -> float:
        """By the clock, if the machine does nothing else."""
        return self.processor_s * self._of_core

    @property
    def _of_core(self) -> float:
        return 1 - _SHARED + _SHARED / self.threads

    def __str__(self) -> str:
        core = f"time: about {rough_duration(self.processor_s)} of one core"
        return core if self.threads == 1 else f"{core}, {rough_duration(self.seconds)} on {self.threads} threads"


class Pace:
    """What is left of a forecast, by the phases that a job tells.

    The time that the parts behind took stands against what was forecast for them; those to come are taken to be as
    much quicker or slower.

    Parameters
    ----------
    forecast : Forecast
    clock : callable, optional
        Seconds that never go back.

    Examples
    --------
    >>> from verglas.types.forecast import Forecast, Pace, Part
    >>> now = [0.0]
    >>> forecast = Forecast((Part("iteration 1", (40.0,)), Part("iteration 2", (40.0,)), Part("verdict", (20.0,))))
    >>> pace = Pace(forecast, clock=lambda: now[0])
    >>> pace.left_s()
    100.0
    >>> now[0] = 85.0  # twice as slow
    >>> pace.progress("iteration 1, grid", 10, 10)
    >>> round(pace.left_s())
    120
    """

    def __init__(self, forecast: Forecast, clock: Callable[[], float] = time.monotonic) -> None:
        self.forecast, self._clock = forecast, clock
        self._begun = clock()
        self._first: float | None = None  # where a job that goes on began, of the forecast's seconds
        self._done, self._done_at = 0.0, self._begun

    def progress(self, phase: str, done: int, total: int) -> None:
        """A phase has come so far; one that the forecast does not know changes nothing."""
        number = self._part(phase.split(",")[0])
        if number is None:
            return
        before = sum(part.total_s for part in self.forecast.parts[:number])
        at = before + self.forecast.parts[number].until_s(done / total if total else 1.0)
        if self._first is None:
            # What was done before this process began took none of its time.
            self._first = before if number else 0.0
        if at > self._done:
            self._done, self._done_at = at, self._clock()

    def _part(self, phase: str) -> int | None:
        names = [part.phase for part in self.forecast.parts]
        if phase in names:
            return names.index(phase)
        # More iterations or starts than were forecast: each is the last of its kind.
        kind = _kind(phase)
        alike = [number for number, name in enumerate(names) if kind != phase and _kind(name) == kind]
        return alike[-1] if alike else None

    def left_s(self) -> float:
        """Seconds by the clock until the job ends."""
        scale = self.forecast.seconds / max(self.forecast.processor_s, 1e-9)
        behind = scale * (self._done - (self._first or 0.0))
        ahead = scale * (self.forecast.processor_s - self._done)
        slower = (self._done_at - self._begun + _TRUST_S) / (behind + _TRUST_S) if behind > 0 else 1.0
        return max(0.0, ahead * slower - (self._clock() - self._done_at))


def _kind(phase: str) -> str:
    """A phase without its number."""
    return re.sub(r" \d+( of \d+)?$", "", phase)


def rough_duration(seconds: float) -> str:
    """Seconds, minutes or hours, to two digits.

    Examples
    --------
    >>> from verglas.types.forecast import rough_duration
    >>> rough_duration(7.4), rough_duration(400), rough_duration(30000)
    ('7 s', '7 min', '8.3 h')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
