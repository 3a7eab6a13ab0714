"""The random starts of an ab initio reconstruction: as many as it takes, and under which point group."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

from verglas.initial_model.consensus import (
    Comparison,
    Verdict,
    blob_evidence,
    common_noise,
    compare,
    judge,
    rank_starts,
)
from verglas.initial_model.contest import CUBIC, Contest, contest
from verglas.initial_model.course import Course, resample_to_box
from verglas.initial_model.hill_climbing import HillClimbing
from verglas.initial_model.records import StartRecords
from verglas.initial_model.settings import AUTO, METHODS, AbInitioSettings
from verglas.initial_model.sign import SHARP_NATS, better_sign
from verglas.initial_model.starts import Method, Start, StartTask, StochasticEM, evaluate_held_out, run_start
from verglas.initial_model.symmetry import SymmetryFound
from verglas.search.problem import Problem
from verglas.types.arrays import FloatArray, IntArray
from verglas.types.listener import phase_progress


@dataclass(frozen=True)
class Starts:
    """All starts under one point group.

    Attributes
    ----------
    problem, settings
        What they were made with; the group is in both.
    made : list of Start
        By falling evidence of the particles held out, under one noise.
    others : list of Comparison
        All but the best, turned onto it.
    verdict : Verdict
    """

    problem: Problem
    settings: AbInitioSettings
    made: list[Start]
    others: list[Comparison]
    verdict: Verdict

    @property
    def nearly_round(self) -> bool:
        """Whether what is not round is so weak that a start without symmetry may miss it."""
        return self.verdict.gain <= SHARP_NATS

    def replace_best(self, best: Start, problem: Problem, settings: AbInitioSettings) -> Starts:
        """With the best start changed, and the others compared with it anew."""
        others = [compare_with_best(problem, settings, best, s) for s in self.made[1:]]
        return replace(self, problem=problem, settings=settings, made=[best, *self.made[1:]], others=others)


def method_of(settings: AbInitioSettings) -> Method:
    """How starts come to their maps."""
    return StochasticEM() if settings.method == METHODS[0] else HillClimbing()


def _stage(settings: AbInitioSettings, number: int, group: str) -> str:
    """A start's name in the progress."""
    under = f"{group}, " if group else ""
    return f"{under}start {number + 1} of {max(settings.starts, number + 1)}"


def compare_with_best(problem: Problem, settings: AbInitioSettings, best: Start, other: Start) -> Comparison:
    """Another start, turned onto the best."""
    course = Course(problem, settings, len(problem))
    return compare(problem, best, other, max(3, round(0.75 * course.last_radius)))


def all_starts(
    problem: Problem,
    settings: AbInitioSettings,
    sigma2: FloatArray,
    held_out: IntArray,
    records: StartRecords,
    *,
    group: str = "",
) -> Starts:
    """Starts by falling evidence, the others turned onto the best, and the verdict; more starts while none agree.

    ``group`` imposes a point group other than that of the settings. Where the group is to be found and the particle is
    nearly round, starts under groups tell more than further ones without.
    """
    if group:
        problem, settings = problem.under(group), replace(settings, symmetry=group)

    def one(k: int) -> Start:
        start = run_start(
            problem,
            settings,
            StartTask(k, sigma2, held_out),
            phase_progress(records.listener, _stage(settings, k, group)),
            keeper=records.of_start(k, group),
            method=method_of(settings),
        )
        # The evidence of a nearly round particle begins with the square of what is not round: a start may end in its
        # negative. Hill climbing has no such term.
        if settings.method == METHODS[0]:
            start = better_sign(problem, settings, start, held_out)
        if not group:
            records.take_start(start)
        return start

    runs = [one(k) for k in range(settings.starts)]
    # Under its own noise a start that explains less has more noise, which forgives it: one noise for all.
    noise = common_noise(runs)

    def rescore(start: Start) -> Start:
        return replace(start, evidence=evaluate_held_out(problem, settings, start.model, held_out, noise))

    runs = rank_starts([rescore(s) for s in runs])
    while True:
        others = [compare_with_best(problem, settings, runs[0], s) for s in runs[1:]]
        blob = blob_evidence(problem, settings, runs[0], held_out, noise)
        verdict = judge(runs[0], blob, others, settings.final_resolution_A)
        starts = Starts(problem, settings, runs, others, verdict)
        enough = len(runs) >= settings.max_starts or (settings.symmetry.lower() == AUTO and starts.nearly_round)
        if verdict.kind != "undecided" or enough:
            return starts
        runs = rank_starts([*runs, rescore(one(len(runs)))])


class NoisyProblem(NamedTuple):
    """Particles, and their first noise, (groups, shells)."""

    problem: Problem
    sigma2: FloatArray


def contest_groups(
    without: Starts,
    finer: Callable[[], NoisyProblem],
    sigma2: FloatArray,
    held_out: IntArray,
    records: StartRecords,
) -> tuple[Starts, Contest]:
    """The starts under the cubic group that explains particles held out better than all others do; else as they were.

    Parameters
    ----------
    without : Starts
        Without symmetry.
    finer : callable
        Makes the problem with finer pixels, and its first noise.
    sigma2 : (groups, shells) float64
        First noise at the pixel size of the starts.
    held_out : (m,) int64
        Particles that no start learns from.
    records : StartRecords
    """
    by_group = {g: all_starts(without.problem, without.settings, sigma2, held_out, records, group=g) for g in CUBIC}
    fine = finer()
    entrants = {"C1": without.made[0], **{g: s.made[0] for g, s in by_group.items()}}
    result = contest(
        fine.problem,
        without.settings,
        fine.sigma2,
        entrants,
        held_out,
        phase_progress(records.listener, "contest of point groups"),
    )
    if result.winner is None or result.winner == "C1":
        return without, result
    winner = by_group[result.winner]
    volume = resample_to_box(result.maps[result.winner], winner.problem.box)
    model = replace(winner.made[0].model, volumes=volume[None])
    return winner.replace_best(replace(winner.made[0], model=model), winner.problem, winner.settings), result


def describe_contest(symmetry: SymmetryFound, result: Contest) -> SymmetryFound:
    """What was found of the symmetry, the contest of groups included."""
    sentence = f"{result.sentence[0].upper()}{result.sentence[1:]}."
    winner = result.winner
    if winner is None or winner == "C1":
        return replace(symmetry, sentence=f"{symmetry.sentence} {sentence}")
    return replace(
        symmetry,
        symmetry=winner,
        gain=result.lead,
        gain_error=result.lead_error,
        sentence=f"Symmetry {winner}, which the map made without symmetry does not show. {sentence}",
    )
