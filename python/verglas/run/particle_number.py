"""ResLog of a refinement: the resolution that parts of its particles give, at the poses that all of them have found."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from verglas._devices import work_on
from verglas.assessment import PostprocessSettings, ResLog, postprocess, reslog
from verglas.assessment.planner import ParticlesLaw
from verglas.errors import InputError
from verglas.geometry import symmetry_matrices
from verglas.optics import for_job
from verglas.reconstruction.accumulate import Accumulator, Insertion, ReconstructSettings
from verglas.reconstruction.known_poses import max_radius_for
from verglas.reconstruction.sums import Symmetry
from verglas.search.pose_step import CLIMBING_PIXELS
from verglas.types import Map, Particles
from verglas.types.arrays import IntArray

FEWEST = 1000  # particles of a set whose eighth still makes two half maps that say something
MOST = 200_000  # particles whose half is the largest part: the line goes on beyond by itself
PARTS = (8, 4, 2)  # of all: what these resolve is known from the assessment
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
    law : ParticlesLaw or None
        The empirical law through the same.
    """

    particles: tuple[int, ...]
    resolutions_A: tuple[float, ...]
    line: ResLog | None
    reason: str = ""
    law: ParticlesLaw | None = None

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        line = self.line
        known = None if line is None else {name: getattr(line, name) for name in ("b_factor_A2", "slope", "intercept")}
        error = None if line is None or not np.isfinite(line.b_factor_error_A2) else line.b_factor_error_A2
        return {
            "particles": list(self.particles),
            "resolutions_A": [d if np.isfinite(d) else None for d in self.resolutions_A],
            "line": None if known is None else {**known, "b_factor_error_A2": error},
            "law": None if self.law is None else {"one_A": self.law.one_A, "decade_A": self.law.decade_A},
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
    197
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
    return ResolutionByNumber(particles, resolutions_A, line, law=_law_of(own))


def _law_of(own: list[tuple[int, float]]) -> ParticlesLaw | None:
    """None where more particles gave no finer resolution: a few of them can, by chance."""
    try:
        return ParticlesLaw.fit([n for n, _ in own], [d for _, d in own])
    except InputError:
        return None


def resolution_by_number(
    particles: Particles,
    mask: Map,
    of_all_A: float,
    *,
    symmetry: str,
    finest_A: float,
    seed: int = 0,
    threads: int | None = None,
    device: str = "cpu",
    progress: Callable[[int, int], None] | None = None,
) -> ResolutionByNumber:
    """Reconstruct an eighth, a quarter and half of the particles, and assess each as the whole is.

    Parts are drawn at random within each half set and hold each other, so that no image is inserted twice, and half
    of them never. Their poses are those of all particles: a part that were refined by itself would have worse ones, so
    the line says what more particles bring to the map, not what they bring to the search.

    Parameters
    ----------
    particles : Particles
        With poses and half sets, those that could not be used left out.
    mask : Map
        Of the assessment.
    of_all_A : float
        What all particles resolve, by the same assessment.
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
    most = min(len(particles), MOST)
    numbers = tuple(most // part for part in PARTS)
    order = np.random.default_rng(seed).permutation(len(particles))
    mine_of = {number: order[half[order] == number] for number in (1, 2)}
    ends_of = {number: [round(len(mine) * n / len(particles)) for n in numbers] for number, mine in mine_of.items()}
    for number, ends in ends_of.items():
        if min(np.diff([0, *ends])) < 1:
            few = len(mine_of[number])
            words = f"half set {number} has {few} particle{'s' * (few != 1)}, too few to be divided into parts"
            return ResolutionByNumber((), (), None, words)
    settings = ReconstructSettings(symmetry=symmetry, max_resolution_A=finest_A)
    done, halves = 0, list[list[Map]]()
    for number, mine in mine_of.items():
        ends = ends_of[number]
        halves.append([])
        for volume in maps_of_parts(particles, np.split(mine, ends)[:-1], settings, threads, device):
            halves[-1].append(volume)
            done += 1
            if progress is not None:
                progress(done, 2 * len(numbers))
    how = PostprocessSettings(symmetry=symmetry, seed=seed)
    found = [
        postprocess(
            first, second, mask, settings=how, low_pass_A=finest_A, fit_to_A=finest_A, threads=threads, listener=None
        ).resolution_A
        for first, second in zip(*halves, strict=True)
    ]
    if most == len(particles):
        numbers, found = (*numbers, most), [*found, of_all_A]
    return line_through(numbers, tuple(max(float(d), finest_A) for d in found), finest_A)


def maps_of_parts(
    particles: Particles,
    pieces: list[IntArray],
    settings: ReconstructSettings,
    threads: int | None = None,
    device: str = "cpu",
) -> Iterator[Map]:
    """Maps of the first piece, of the first two, and so on; two sums at a time, one of them packed."""
    particles = for_job(particles, "refine", ctf=settings.ctf, posed=True)
    group = Symmetry.of(symmetry_matrices(settings.symmetry))
    radius = max_radius_for(particles.box, particles.pixel_size_A, settings.max_resolution_A)
    total: Accumulator | None = None
    for piece in pieces:
        rows = np.sort(piece)
        one = np.ones(len(rows), np.int64)
        where: dict[str, Any] = {"threads": threads, "device": device, "batch_pixels": CLIMBING_PIXELS}
        insertion = Insertion(particles[rows], one, 1, group, radius, settings, **where)
        (sums,), _ = insertion.run()
        with work_on(sums.device):
            if total is None:
                total = sums
                total.pack()
            else:
                total.take(sums)
            del sums  # or they would be held while the next are made
            volume, _ = total.solve(None)
        yield Map(group.apply(volume, radius, threads=threads), particles.pixel_size_A)
