"""What a multibody refinement says of every body: half maps, FSC in its mask, and whether that can be trusted."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from verglas.assessment import FSC, postprocess
from verglas.geometry import angular_distance
from verglas.heterogeneity.motions import Motions
from verglas.heterogeneity.multibody import Multibodies
from verglas.reconstruction import reconstruct
from verglas.refinement.update import THRESHOLD
from verglas.types import Map, Particles
from verglas.types.arrays import Float32Array
from verglas.types.display import one_line
from verglas.types.listener import Listener
from verglas.types.verdict import Finding


@one_line
@dataclass(frozen=True, eq=False)
class BodyResult:
    """What is known of a body in the end.

    Attributes
    ----------
    map : Map
        From both halves, Wiener-weighted, in place: where the body lies in the particle.
    half_maps : (Map, Map)
        Neither filtered nor masked.
    mask : Map
        In use: where masks overlap, the body's share.
    fsc : FSC
        Between the half maps, in the mask, corrected by phase randomisation; where that cannot vouch for the mask, no
        more than the FSC without it.
    resolution_A : float
        Where it falls to 0.143; the last shell of the data if it does not.
    whole_resolution_A : float
        The same, in the same mask, of half maps made at the poses of the whole.
    vouched : bool
        Whether phase randomisation vouches for the mask: not where it is tight or has a sharp edge.
    ends_with_data : bool
        The FSC is above 0.143 to the last shell: the data's end, no resolution, is what is given.
    accuracy_deg : float
        Median error of the body's orientations, as likelihood and prior state it.
    turn_deg : float
        Root mean square angle between the body's orientations and those of the whole.
    """

    map: Map
    half_maps: tuple[Map, Map]
    mask: Map
    fsc: FSC
    resolution_A: float
    whole_resolution_A: float
    vouched: bool
    ends_with_data: bool
    accuracy_deg: float
    turn_deg: float


def foreign_halves(particles: Particles) -> list[Finding]:
    """A warning where the half sets are not those in which the poses were refined."""
    if particles.half_sets is not None:
        return []
    sentence = (
        "the particles have no half sets (rlnRandomSubset) and are dealt out at random: poses that were refined "
        "against one map of them all have fitted its noise, which both half maps then share, and "
        "every FSC may be too good"
    )
    return [Finding("half_sets", "warn", sentence)]


def halves_of_whole(made: Multibodies, listener: Listener) -> tuple[Map, Map]:
    """Half maps at the poses of the whole."""
    listener.progress("half maps at the poses of the whole", 0, 1)
    first = made.bodies[0].problem
    halves = reconstruct(
        made.particles, "C1", first.settings.max_resolution_A, halves=True, threads=first.threads, listener=None
    )[1]
    listener.progress("half maps at the poses of the whole", 1, 1)
    return halves[0], halves[1]


@dataclass(frozen=True)
class Judged:
    """FSC of half maps in the mask of a body, and what may be read from it (the fields of :class:`BodyResult`)."""

    fsc: FSC
    resolution_A: float
    vouched: bool
    ends_with_data: bool


def judge_halves(
    halves: tuple[Map, Map], mask: Map, last_shell: int, *, seed: int = 0, threads: int | None = None
) -> Judged:
    """What half maps show in a mask, by the rules of :func:`verglas.assessment.postprocess`.

    Parameters
    ----------
    halves : (Map, Map)
    mask : Map
    last_shell : int
        Of the data; what lies beyond is left by the gridding's correction.
    seed : int
        Of the random phases.
    threads : int, optional
    """
    judged = postprocess(*halves, mask=mask, seed=seed, threads=threads, listener=None)
    curve = np.where(np.arange(len(judged.trusted.curve)) > last_shell, 0.0, judged.trusted.curve)
    field_A = mask.box * mask.pixel_size_A
    ends_with_data = bool((curve[1 : last_shell + 1] >= THRESHOLD).all())
    return Judged(
        replace(judged.trusted, curve=curve),
        float(np.clip(judged.resolution_A, field_A / last_shell, field_A)),
        judged.vouched or ends_with_data,  # without the mask, too: the trusted curve is no more than that
        ends_with_data,
    )


def body_result(made: Multibodies, index: int, whole: tuple[Map, Map]) -> BodyResult:
    """What is known of a refined body, beside half maps at the poses of the whole."""
    one = made.bodies[index]
    problem, body = one.problem, one.body
    assert one.made is not None
    maps = one.made.maps[0]
    assert maps.joint is not None

    def in_place(volume: Float32Array) -> Map:
        return Map(body.in_place(volume), problem.pixel_size_A)

    halves = in_place(maps.raw[0]), in_place(maps.raw[1])
    mask = Map(body.mask, problem.pixel_size_A)
    seed, last = problem.settings.seed, problem.last_radius
    judged, at_whole = (judge_halves(h, mask, last, seed=seed, threads=problem.threads) for h in (halves, whole))
    given, now = problem.particles.poses, one.state.poses
    assert given is not None
    turn = angular_distance(now.angles_deg, given.angles_deg)
    known = now.angle_error_deg[np.isfinite(now.angle_error_deg)]
    return BodyResult(
        in_place(maps.joint),
        halves,
        mask,
        judged.fsc,
        judged.resolution_A,
        at_whole.resolution_A,
        judged.vouched,
        judged.ends_with_data,
        float(np.median(known)) if len(known) else float("nan"),
        float(np.sqrt(np.mean(np.square(turn)))),
    )


def doubts_of(results: list[BodyResult]) -> list[Finding]:
    """Warnings on the bodies' resolutions."""
    doubts = []
    for number, one in enumerate(results, 1):
        if not one.vouched:
            sentence = (
                f"body {number}: phase randomisation cannot vouch for its mask (tighter than the body, or with a sharp "
                "edge): its resolution is that of the half maps without it; a wider, softer mask may show a better one"
            )
            doubts.append(Finding("tight_mask", "warn", sentence, {"body": number}))
        elif one.ends_with_data:
            sentence = (
                f"body {number}: its FSC stays above 0.143 to the last shell: {one.resolution_A:.2f} A is where the "
                "data end, no measured resolution"
            )
            doubts.append(Finding("sampling", "warn", sentence, {"body": number}))
    return doubts


def sentence_of(results: list[BodyResult], motions: Motions, warnings: list[Finding]) -> str:
    """What a reader must know, with what makes it doubtful."""
    each = ", ".join(f"{one.resolution_A:.2f} A{' (where the data end)' * one.ends_with_data}" for one in results)
    whole = ", ".join(f"{one.whole_resolution_A:.2f}" for one in results)
    said = f"{len(results)} bodies of {each}; at the poses of the whole {whole}"
    tight = [str(note.numbers["body"]) for note in warnings if note.code == "tight_mask"]
    if tight:
        said += f"; no FSC to be trusted in the mask of body {' and '.join(tight)}"
    if any(note.code == "half_sets" for note in warnings):
        said += "; without half sets of the poses every FSC may be too good"
    count = motions.n_motions
    if not count:
        return f"{said}; no motion stands out from errors"
    share = 100 * motions.share[:count].sum()
    return f"{said}; {count} motion{'s' if count > 1 else ''} with {share:.0f} % of the variance"
