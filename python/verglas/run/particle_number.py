"""ResLog of a refinement: the resolution that parts of its particles give, at the poses that all of them have found."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from verglas.assessment import PostprocessSettings, ResLog, postprocess, reslog
from verglas.errors import InputError
from verglas.reconstruction import reconstruct_report
from verglas.types import Map, Particles

FEWEST = 1000  # particles of a set whose eighth still makes two half maps that say something
MOST = 200_000  # particles of the largest part: the line goes on beyond by itself
PARTS = (8, 4, 2, 1)
_AT_LIMIT = 1.02  # a resolution this near to where the data end is that of the data, not of the particles


@dataclass(frozen=True)
class ResolutionByNumber:
    """Resolutions of parts of a set of particles.

    Attributes
    ----------
    particles : tuple of int
    resolutions_A : tuple of float
        Corrected FSC at 0.143; infinite where the half maps of a part do not agree.
    line : ResLog or None
        Through those that the pixels of the data do not limit.
    reason : str
        Why there is no line.
    """

    particles: tuple[int, ...]
    resolutions_A: tuple[float, ...]
    line: ResLog | None
    reason: str = ""

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        line = self.line
        known = None if line is None else {name: getattr(line, name) for name in ("b_factor_A2", "slope", "intercept")}
        error = None if line is None or not np.isfinite(line.b_factor_error_A2) else line.b_factor_error_A2
        return {
            "particles": list(self.particles),
            "resolutions_A": [d if np.isfinite(d) else None for d in self.resolutions_A],
            "line": None if known is None else {**known, "b_factor_error_A2": error},
            "reason": self.reason,
        }


def line_through(particles: tuple[int, ...], resolutions_A: tuple[float, ...], finest_A: float) -> ResolutionByNumber:
    """The line of a ResLog plot through the parts whose resolution is their own.

    Parameters
    ----------
    particles, resolutions_A : tuple
    finest_A : float
        Where the data end.

    Examples
    --------
    >>> from verglas.run.particle_number import line_through
    >>> made = line_through((1000, 2000, 4000), (5.0, 4.6, 4.3), 3.0)
    >>> round(made.line.b_factor_A2)
    99
    >>> line_through((1000, 2000, 4000), (3.1, 3.0, 3.0), 3.0).reason
    'fewer than two parts have a resolution that is not that of the pixels'
    """
    own = [(n, d) for n, d in zip(particles, resolutions_A, strict=True) if np.isfinite(d) and d > _AT_LIMIT * finest_A]
    if len(own) < 2:
        words = "fewer than two parts have a resolution that is not that of the pixels"
        return ResolutionByNumber(particles, resolutions_A, None, words)
    try:
        line = reslog(*(np.array(values) for values in zip(*own, strict=True)))
    except InputError as error:
        return ResolutionByNumber(particles, resolutions_A, None, str(error).removeprefix("reslog: "))
    return ResolutionByNumber(particles, resolutions_A, line)


def resolution_by_number(
    particles: Particles,
    mask: Map,
    *,
    symmetry: str,
    finest_A: float,
    seed: int = 0,
    threads: int | None = None,
    device: str = "cpu",
    progress: Callable[[int, int], None] | None = None,
) -> ResolutionByNumber:
    """Reconstruct an eighth, a quarter, half and all of the particles, and assess each as the whole is.

    Parts are drawn at random within each half set and hold each other. Their poses are those of all particles: a part
    that were refined by itself would have worse ones, so the line says what more particles bring to the map, not what
    they bring to the search.

    Parameters
    ----------
    particles : Particles
        With poses and half sets.
    mask : Map
        Of the assessment.
    symmetry : str
    finest_A : float
        Where the data end.
    seed : int
        Of the draw.
    threads : int, optional
    device : str
    progress : callable, optional
        Told (parts done, parts).
    """
    half = particles.half_sets
    assert half is not None
    order = np.random.default_rng(seed).permutation(len(particles))
    # first of the one half, then of the other, in turn: any first rows hold as many of both as there are
    rank = np.empty(len(order))
    for number in (1, 2):
        mine = order[half[order] == number]
        rank[mine] = (np.arange(len(mine)) + 0.5) / len(mine)
    order = np.argsort(rank, kind="stable")
    most = min(len(particles), MOST)
    numbers = tuple(most // part for part in PARTS)
    settings, found = PostprocessSettings(symmetry=symmetry, seed=seed), list[float]()
    ends: dict[str, Any] = {"low_pass_A": finest_A, "fit_to_A": finest_A}
    for done, n in enumerate(numbers):
        if progress is not None:
            progress(done, len(numbers))
        made = reconstruct_report(
            particles[np.sort(order[:n])],
            symmetry=symmetry,
            max_resolution_A=finest_A,
            halves=True,
            threads=threads,
            device=device,
            listener=None,
        )
        assert made.half_maps is not None
        first, second = made.half_maps
        result = postprocess(first, second, mask, settings=settings, threads=threads, listener=None, **ends)
        found.append(max(float(result.resolution_A), finest_A))
    if progress is not None:
        progress(len(numbers), len(numbers))
    return line_through(numbers, tuple(found), finest_A)
