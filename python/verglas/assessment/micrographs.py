"""Quality of micrographs, of CTF fits and of what was extracted: verdicts that the next stage can read."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from verglas.optics.transfer import wavelength_A
from verglas.types.arrays import any_arrays
from verglas.types.verdict import Finding, Verdict

FEWEST_PARTICLES = 50  # that a later stage can do anything with
_FEWEST_RINGS = 5  # micrographs whose median says what rings are usual
# Standard errors of the mean contrast: below minus the first particles are dark, below the second, of so many images,
# coordinates point at nothing.
_DARK, _NOTHING, _MANY = 8.0, 3.0, 300
# Of the skewness: micrographs that say something of a set, the share that has to agree, standard errors, and the least
# error of one micrograph.
_FEWEST_SKEWED, _MOST_SKEWED, _SURE, _LEAST_SKEW_ERROR = 3, 0.8, 3.0, 0.1
_LOST = 0.4  # share of picks lost at edges that is worth a warning


@dataclass(frozen=True)
class MicrographQuality:
    """What is known of one micrograph after picking.

    Attributes
    ----------
    name : str
    picks : int
    bad_fraction : float
        Of the area that is carbon, ice, contaminants or holes.
    separation : float
        Of particles and background: :class:`verglas.picking.mixture.ScoreCut`.
    clear : bool
        Whether there is a class of particles.
    defocus_A, resolution_A : float
        NaN where no CTF is known.
    precision : float
        Expected share of particles among the picks; NaN where it is not known.
    ring_contrast : float
        :func:`verglas.picking.carbon.ring_contrast`; NaN where it is not known.
    doubts : tuple of str
        What of it a trained picker has not seen in training.
    screening : str
        What :func:`verglas.picking.screen` says against it; empty for a good one, or where it was not judged.
    """

    name: str
    picks: int
    bad_fraction: float
    separation: float
    clear: bool
    defocus_A: float = float("nan")
    resolution_A: float = float("nan")
    precision: float = float("nan")
    ring_contrast: float = float("nan")
    doubts: tuple[str, ...] = ()
    screening: str = ""


@dataclass(frozen=True)
class QualityLimits:
    """When a micrograph is flagged.

    Attributes
    ----------
    bad_fraction : float
        Largest share of bad area.
    precision : float
        Least expected share of particles among the picks.
    resolution_A : float
        Coarsest CTF fit.
    merit : float
        Least merit of a CTF; below 0.3 it is set aside anyway.
    astigmatism_phase_rad : float
        Largest phase, where the rings end, that the standard error of the astigmatism turns: an error of 75 A does it
        at 3 A, one of 300 A at 6 A.
    ring_contrast : float
        Largest contrast of the power spectrum's rings over the set's median. Carbon of twice the scattering of ice has
        1.6; of 14 micrographs of apoferritin the largest has 1.4.
    few : float
        Least number of picks, as a share of the set's median.
    flagged : float
        Share of flagged or unreadable micrographs above which the set's verdict is a warning; twice it, of those that
        are unreadable or whose results are not to be trusted, is a stop.
    """

    bad_fraction: float = 0.5
    precision: float = 0.7
    resolution_A: float = 10.0
    merit: float = 0.5
    astigmatism_phase_rad: float = 0.25
    ring_contrast: float = 1.5
    few: float = 0.25
    flagged: float = 0.25


def judge_micrographs(
    qualities: Sequence[MicrographQuality], limits: QualityLimits | None = None
) -> dict[str, tuple[str, ...]]:
    """Reasons to look at a micrograph before it is used; none for a good one.

    Examples
    --------
    >>> from verglas.assessment.micrographs import MicrographQuality, judge_micrographs
    >>> judge_micrographs([MicrographQuality("a", 150, 0.01, 5, True), MicrographQuality("b", 3, 0.7, 1, False)])
    {'a': (), 'b': ('particles and background do not separate', '70 % of its area is bad', '3 picks, median 76')}
    """
    limit = limits or QualityLimits()
    median = float(np.median([one.picks for one in qualities])) if qualities else 0.0
    usual, strongest = _rings_of_set(qualities, limit)
    judged: dict[str, tuple[str, ...]] = {}
    for one in qualities:
        reasons = [one.screening] if one.screening else []
        if one.ring_contrast > strongest:
            times = one.ring_contrast / usual
            reasons.append(f"its rings are {times:.1f} times as strong as the set's: carbon alone, or no ice?")
        if not one.clear:
            reasons.append("particles and background do not separate")
        elif one.precision < limit.precision:
            reasons.append(f"only about {100 * one.precision:.0f} % of its picks are particles")
        if one.bad_fraction > limit.bad_fraction:
            reasons.append(f"{100 * one.bad_fraction:.0f} % of its area is bad")
        if one.picks < limit.few * median or not one.picks:
            reasons.append(f"{one.picks} picks, median {median:.0f}")
        if one.resolution_A > limit.resolution_A:
            reasons.append(f"CTF fits to {one.resolution_A:.1f} A only")
        judged[one.name] = (*reasons, *one.doubts)
    return judged


def _rings_of_set(qualities: Sequence[MicrographQuality], limit: QualityLimits) -> tuple[float, float]:
    """Usual contrast of rings, and that beyond which a micrograph is unlike its set; infinite for fewer than five."""
    values = np.array([one.ring_contrast for one in qualities if np.isfinite(one.ring_contrast)])
    if len(values) < _FEWEST_RINGS:
        return float("nan"), float("inf")
    middle = float(np.median(values))
    return middle, max(limit.ring_contrast * middle, middle + 5 * 1.4826 * float(np.median(np.abs(values - middle))))


@any_arrays
def judge_extraction(
    particles: int, picks: int, commonest: str, contrast: npt.NDArray[np.float64] | None = None, *, elsewhere: int = 0
) -> Verdict:
    """Verdict on particles that were cut out: enough of them for a map, few picks lost, something white in the middle.

    Parameters
    ----------
    particles, picks : int
        Cut out, asked for.
    commonest : str
        Why most of the others were set aside.
    contrast : (particles,) float64, optional
        Of the middle of each image against its background (:func:`verglas.extraction.centre_contrast`).
    elsewhere : int
        Picks in micrographs that were left out of the list: no reason to stop, however many.

    Examples
    --------
    >>> from verglas.assessment.micrographs import judge_extraction
    >>> for kept in (300, 550):
    ...     made = judge_extraction(kept, 1000, "box of 128 px beyond the edge")
    ...     made.state, *made.reasons
    ('stop', '700 of 1000 picks were set aside, most: box of 128 px beyond the edge')
    ('warn', '450 of 1000 picks were set aside, most: box of 128 px beyond the edge')
    >>> judge_extraction(950, 1000, "box of 128 px beyond the edge").state
    'go on'
    """
    numbers = {"particles": particles, "picks": picks}
    notes = []
    if particles < FEWEST_PARTICLES:
        notes.append(Finding("few_particles", "warn", f"{particles} particles are too few for a map", numbers))
    if picks and (picks - particles) / picks > _LOST:
        sentence = f"{picks - particles} of {picks} picks were set aside, most: {commonest}"
        # More than half, as of movies and micrographs: these are not the coordinates, or not the box, that were meant.
        state = "stop" if 2 * particles < picks - elsewhere else "warn"
        notes.append(Finding("picks_set_aside", state, sentence, {**numbers, "most": commonest}))
    if contrast is not None:
        notes += _judge_contrast(contrast)
    return Verdict.of_notes(notes, {})


def _judge_contrast(contrast: npt.NDArray[np.float64]) -> list[Finding]:
    """Micrographs of the other contrast, and coordinates that point at nothing: no job after this one would say so."""
    values = contrast[np.isfinite(contrast)]
    if len(values) < FEWEST_PARTICLES or not values.std():
        return []
    mean, error = float(values.mean()), float(values.std(ddof=1) / np.sqrt(len(values)))
    numbers = {"mean_contrast": round(mean, 4), "error": round(error, 4)}
    if mean < -_DARK * error:
        sentence = (
            f"the images are darker in the middle than around it ({mean:.2f} +- {error:.2f} of the noise), and "
            "particles are to be white: were the micrographs inverted before (--no-invert; --invert if that was given)?"
        )
        return [Finding("dark_particles", "warn", sentence, numbers)]
    if len(values) >= _MANY and mean < _NOTHING * error:
        sentence = (
            f"the images hold nothing in the middle that stands out on average ({mean:.3f} +- {error:.3f} of the "
            "noise): are the coordinates of these micrographs (not of binned ones, turned over in y, in angstrom)?"
        )
        return [Finding("nothing_in_the_middle", "warn", sentence, numbers)]
    return []


def judge_ctfs(fits: Sequence[Mapping[str, Any]], limits: QualityLimits | None = None) -> list[tuple[str, ...]]:
    """Reasons to look at a CTF before its micrograph is used; none for a good one.

    Parameters
    ----------
    fits : sequence of mappings
        :meth:`verglas.optics.fit.CtfFit.as_dict` of each; those that could not be fitted hold nothing but ``reason``.
    limits : QualityLimits, optional

    Returns
    -------
    list of tuples of str
        Why a fit was set aside; else rings that end early, rings that are faint, astigmatism that the
        micrograph is too small or too faint for, and astigmatism unlike the others': more than 6 robust standard
        deviations, and at least 500 A, beyond the median of the set.

    Examples
    --------
    >>> from verglas.assessment.micrographs import judge_ctfs
    >>> good = {"defocus_u_A": 15200, "defocus_v_A": 15000, "merit": 0.9, "resolution_A": 4.0, "reason": ""}
    >>> judge_ctfs([good] * 9 + [good | {"defocus_u_A": 16800, "resolution_A": 12.5}, {"reason": "a movie"}])[-3:]
    [(), ('rings to 12.5 A only', 'astigmatism 1800 A, median 200 A'), ('a movie',)]
    """
    limit = limits or QualityLimits()
    differences = np.array([one["defocus_u_A"] - one["defocus_v_A"] for one in fits if not one.get("reason")])
    middle = float(np.median(differences)) if len(differences) else 0.0
    spread = 1.4826 * float(np.median(np.abs(differences - middle))) if len(differences) else 0.0
    widest = middle + max(500.0, 6 * spread)
    judged: list[tuple[str, ...]] = []
    for one in fits:
        if one.get("reason"):
            judged.append((str(one["reason"]),))
            continue
        reasons = []
        if one["resolution_A"] is None or one["resolution_A"] > limit.resolution_A:
            reasons.append(f"rings to {one['resolution_A'] or np.inf:.1f} A only")
        if one["merit"] < limit.merit:
            reasons.append(f"faint rings, merit {one['merit']:.2f}")
        difference = one["defocus_u_A"] - one["defocus_v_A"]
        if difference > widest:
            reasons.append(f"astigmatism {difference:.0f} A, median {middle:.0f} A")
        error, phase = one.get("astigmatism_error_A", 0.0), _astigmatism_phase_rad(one)
        if phase > limit.astigmatism_phase_rad:
            reasons.append(
                f"astigmatism known to {error:.0f} A only (standard error), {phase:.1f} rad of phase at the last ring"
            )
        judged.append(tuple(reasons))
    return judged


def _astigmatism_phase_rad(one: Mapping[str, Any]) -> float:
    """Phase that a standard error of the difference of the defoci turns along either axis, at the last ring."""
    error, resolution_A = one.get("astigmatism_error_A", 0.0), one["resolution_A"]
    if not error or not resolution_A:
        return 0.0  # rings that end nowhere are a reason of their own
    # half of the difference is what each axis is off
    return float(np.pi * wavelength_A(one.get("voltage_kV", 300.0)) * (error / 2) / resolution_A**2)


def judge_set(
    judged: Mapping[str, Sequence[str]],
    unreadable: int = 0,
    limits: QualityLimits | None = None,
    *,
    untrusted: Collection[str] = (),
) -> Verdict:
    """Verdict on a set of micrographs from the reasons of each.

    Flags are for a person to look at: they are a warning, however many. A set is stopped only where what comes next
    has nothing that it can trust: no micrograph at all, or more than half of them unusable or ``untrusted``.

    Parameters
    ----------
    judged : mapping of str to sequence of str
        Reasons of each micrograph.
    unreadable : int
        Micrographs that could not be used.
    limits : QualityLimits, optional
    untrusted : collection of str
        Micrographs whose results are not to be gone on with (:func:`untrusted_picks`).

    Examples
    --------
    >>> from verglas.assessment.micrographs import judge_set
    >>> verdict = judge_set({"a": (), "b": ("3 picks, median 76",)})
    >>> verdict.state, verdict["flagged"].numbers["flagged"]
    ('warn', 1)
    >>> judge_set({"a": ("rings to 12.5 A only",)}).state, judge_set({}, unreadable=1).state
    ('warn', 'stop')
    """
    limit = limits or QualityLimits()
    total = len(judged) + unreadable
    flagged = sum(bool(reasons) for reasons in judged.values())
    doubtful = [name for name in judged if name in set(untrusted)]
    useless = unreadable + len(doubtful)
    numbers = {"unusable": unreadable, "flagged": flagged, "untrusted": len(doubtful), "of": total}
    stop = useless > 2 * limit.flagged * total or useless == total
    many = (flagged + unreadable) / max(1, total) > limit.flagged
    notes = [] if total else [Finding("none_good", "stop", "there is no micrograph", numbers)]
    if unreadable:
        sentence = f"{unreadable} of {total} micrographs could not be used"
        notes.append(Finding("unusable", "stop" if stop else "warn", sentence, numbers))
    if doubtful and stop:
        first = f"{doubtful[0]}: {'; '.join(judged[doubtful[0]])}"
        sentence = f"{len(doubtful)} of {total} micrographs cannot be relied on (the first: {first})"
        notes.append(Finding("untrusted", "stop", sentence, numbers))
    if flagged:
        state = "warn" if many else "go on"
        notes.append(Finding("flagged", state, f"{flagged} of {total} micrographs are flagged", numbers))
    return Verdict.of_notes(notes, {})


def inverted_contrast(skewness: Sequence[float]) -> list[Finding]:
    """Whether what stands out at the particle's size is of the wrong contrast: maxima of noise are picked all the same.

    Parameters
    ----------
    skewness : sequence of float
        Of each micrograph (:func:`verglas.picking.blob.contrast_skewness`); NaN where it is not known.

    Examples
    --------
    >>> from verglas.assessment.micrographs import inverted_contrast
    >>> inverted_contrast([0.4, 0.6, -0.1]), inverted_contrast([-0.5, -0.1, -0.6, -0.3])[0].code
    ([], 'inverted')
    """
    values = np.array([one for one in skewness if np.isfinite(one)])
    if len(values) < _FEWEST_SKEWED or (values < 0).mean() < _MOST_SKEWED:
        return []
    mean, error = float(values.mean()), float(values.std(ddof=1) / np.sqrt(len(values)))
    if mean > -_SURE * max(error, _LEAST_SKEW_ERROR / np.sqrt(len(values))):
        return []
    sentence = (
        f"what stands out at the size of the particles is bright in {int((values < 0).sum())} of {len(values)} "
        f"micrographs (skewness {mean:.2f} +- {error:.2f}), and particles are looked for as dark: were the micrographs "
        "inverted (--white; or white, if that was given)?"
    )
    return [Finding("inverted", "warn", sentence, {"skewness": round(mean, 3), "error": round(error, 3)})]


def untrusted_picks(qualities: Sequence[MicrographQuality], limits: QualityLimits | None = None) -> set[str]:
    """Micrographs whose picks are not to be gone on with, whatever else is flagged.

    None were found, no class of particles stands apart from the background, too few of them are expected to be
    particles, or a trained picker has not seen the like.

    Examples
    --------
    >>> from verglas.assessment.micrographs import MicrographQuality, untrusted_picks
    >>> iced = MicrographQuality("iced", 40, 0.6, 5.0, True)
    >>> empty, flat = MicrographQuality("empty", 0, 0.0, 5.0, True), MicrographQuality("flat", 9, 0.0, 0.1, False)
    >>> sorted(untrusted_picks([iced, empty, flat]))
    ['empty', 'flat']
    """
    limit = limits or QualityLimits()
    return {q.name for q in qualities if not (q.picks and q.clear) or q.precision < limit.precision or q.doubts}
