"""What numbers of a finished refinement mean: findings with a code, for the page, for programs and for the next stage.

The thresholds were set on simulated sets; bench/bench_verdict.py counts false alarms and misses on others.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from verglas.assessment.directional import DirectionalFSC
from verglas.types.arrays import FloatArray
from verglas.types.verdict import Finding, Verdict

AREA_RATIO = 0.5  # below it, directions differ (cryoSPARC's cFAR has the same alarm)
_OF_CHANCE = 0.65  # and below this share of what the voxels' number makes of a map that is alike in all directions
_SIGMAS = 3.0  # mean gain in its standard errors that is no accident
_LEAST_GAIN = 0.02  # nats per particle
_AGAINST = 2.0  # loss of evidence, in its standard errors, that refutes a group
# Expected share of particles more than 30 degrees off. On development sets (bench/bench_verdict.py, seeds 900 and on)
# the expected share was up to 0.15 above the true one, and a fifth lying wrong is what the warning is for.
_FAR_SHARE = 1 / 3
_UNEXPLAINED = 1 / 3  # of the particles, at least, that the map does not explain: worth a word
_ROUNDS = 100  # of expectation and maximisation
_CERTAIN_NATS = 1.92  # below the most likely share: 95 % of a profile likelihood
# Under these half maps may agree on nothing, or on what both align wrongly in the same way: their FSC cannot tell.
_WITHHOLDING = ("noise", "uncertain-orientations")


def judge_directions(directions: DirectionalFSC) -> Finding:
    """Whether all directions are resolved alike: ``directions`` or ``restricted-views``."""
    (x, y, z), coarse = directions.worst
    fine = directions.best[1]
    numbers = {
        "area_ratio": round(directions.area_ratio, 3),
        "area_ratio_by_chance": round(directions.chance_ratio, 3),
        "sphericity": round(directions.sphericity, 3),
        "worst_resolution_A": _finite(coarse),
        "worst_direction": [round(float(v), 3) for v in (x, y, z)],
        "coarse_axis": [round(float(v), 3) for v in directions.coarse_axis],
        "best_resolution_A": _finite(fine),
    }
    missing = directions.missing
    if missing.found:
        numbers |= {"missing_half_angle_deg": missing.half_angle_deg, "missing_signal_share": round(missing.share, 3)}
    where = f"{_length(coarse)} along ({x:.2f}, {y:.2f}, {z:.2f}), {_length(fine)} at best"
    measures = f"ratio of areas {directions.area_ratio:.2f}, sphericity {directions.sphericity:.2f}"
    limit = min(AREA_RATIO, _OF_CHANCE * directions.chance_ratio)
    if missing.found:
        ax, ay, az = missing.axis
        return Finding(
            "restricted-views",
            "warn",
            f"Views are missing: within {missing.half_angle_deg:.0f} degrees of ({ax:.2f}, {ay:.2f}, {az:.2f}) the "
            f"half maps share {max(missing.share, 0.0):.0%} of the signal that they share elsewhere, and what agrees "
            f"there has leaked in. Resolution by direction: {where}; {measures}.",
            numbers,
        )
    if directions.area_ratio >= limit:
        return Finding("directions", "go on", f"Resolution by direction: {where}; {measures}.", numbers)
    return Finding(
        "restricted-views",
        "warn",
        f"The resolution depends on the direction: {where}; {measures} (1 if isotropic; a ratio of areas below "
        f"{limit:.2g} is a warning). Views are missing, or orientations are wrong; a single resolution overstates "
        "what is resolved in the worst directions.",
        numbers,
    )


def judge_gain(gain: FloatArray, faint: FloatArray | None = None) -> Finding:
    """Whether a map explains particles that it was not made from: ``signal``, ``weak-signal`` or ``noise``.

    Parameters
    ----------
    gain : (n,) float64
        Log evidence of each held-out particle over that of the map's spherical average (or of nothing, if that is
        more), nats.
    faint : (n,) float64, optional
        The same for maps of half the amplitude, which count where the maps as they are show nothing.
    """
    mean, error = _mean_and_error(gain)
    numbers = {"gain_nats": round(mean, 4), "gain_error_nats": round(error, 4), "particles": len(gain)}
    if _is_gain(mean, error):
        return Finding(
            "signal",
            "go on",
            f"Each half map explains particles of the other half better than a round blob does, by {mean:.2f} +- "
            f"{error:.2f} nats per particle (log-likelihood; one nat is a factor of e in probability).",
            numbers,
        )
    if faint is not None:
        less, its_error = _mean_and_error(faint)
        numbers |= {"faint_gain_nats": round(less, 4), "faint_gain_error_nats": round(its_error, 4)}
        if _is_gain(less, its_error):
            return Finding(
                "weak-signal",
                "warn",
                "Little structure: half maps as strong as they are explain particles of the other half no better than "
                f"a round blob does ({mean:+.2f} +- {error:.2f} nats per particle), at half their amplitude they do "
                f"({less:+.2f} +- {its_error:.2f}). There is signal, in much noise: more particles would help most.",
                numbers,
            )
    return Finding(
        "noise",
        "stop",
        "No structure: a half map explains particles of the other half no better than a round blob does "
        f"({mean:+.2f} +- {error:.2f} nats per particle). What the half maps share came from the reference or from "
        "copies of images, not from the particles: the resolution is not one of their structure.",
        numbers,
    )


def _mean_and_error(gain: FloatArray) -> tuple[float, float]:
    n = len(gain)
    return float(np.mean(gain)), float(np.std(gain, ddof=1) / np.sqrt(n)) if n > 1 else math.inf


def _is_gain(mean: float, error: float) -> bool:
    return mean > max(_SIGMAS * error, _LEAST_GAIN)


def judge_unexplained(evidence: FloatArray, blob: FloatArray) -> list[Finding]:
    r"""``unexplained-particles``, where a third of the held-out particles or more are surely no such particle.

    Each particle is a view of the map, the round blob, or nothing, in shares :math:`\pi` that make all of them most
    likely,

    .. math:: \max_\pi \sum_i \log(\pi_1 e^{m_i} + \pi_2 e^{b_i} + \pi_3)

    What is stated as the least share follows from the profile of this likelihood. Particles that evidence cannot tell
    apart leave the shares open, and nothing is said.

    Parameters
    ----------
    evidence, blob : (n,) float64
        Log evidence of each held-out particle under the map, and under its spherical average, over that of no density;
        nats.

    Examples
    --------
    >>> import numpy as np
    >>> from verglas.assessment.judge import judge_unexplained
    >>> evidence = np.tile([9.0, 9.0, -9.0, -9.0, -9.0], 40)
    >>> [found] = judge_unexplained(evidence, np.zeros(200))
    >>> found.numbers["share_unexplained"]
    0.6
    >>> judge_unexplained(np.full(200, 9.0), np.zeros(200))
    []
    """
    terms = np.stack([evidence, blob, np.zeros(len(evidence))], axis=1)
    most = terms.max(axis=1, keepdims=True)
    likely = np.exp(terms - most)
    shares = np.full(3, 1 / 3)
    for _ in range(_ROUNDS):
        weight = likely * shares
        shares = (weight / weight.sum(axis=1, keepdims=True)).mean(axis=0)
    of_map = likely[:, 0]
    other = likely[:, 1:] @ (shares[1:] / max(float(shares[1:].sum()), 1e-300))
    tried = np.linspace(0.0, 1.0, 201)  # of the map
    with np.errstate(divide="ignore"):
        profile = np.log(np.outer(tried, of_map) + np.outer(1 - tried, other)).sum(axis=1)
    unexplained = 1 - float(shares[0])
    least = 1 - float(tried[profile >= profile.max() - _CERTAIN_NATS].max())
    if least < _UNEXPLAINED:
        return []
    numbers = {
        "share_unexplained": round(unexplained, 3),
        "least_share_unexplained": round(least, 3),
        "particles": len(evidence),
    }
    sentence = (
        f"{unexplained:.0%} of the particles ({least:.0%} at least) are explained no better by the map than by noise "
        "or a round blob: empty or damaged images, or another particle. They are in the map all the same, and make it "
        "worse: verglas sieve looks for them, and leaves them out if held-out particles say that the map gains."
    )
    return [Finding("unexplained-particles", "warn", sentence, numbers)]


def judge_orientations(radius_deg: FloatArray, far: FloatArray) -> Finding:
    """Whether most particles lie right: ``orientations`` or ``uncertain-orientations``.

    A particle of which one place in ten is possible elsewhere has a wide 95 % radius and yet most probably lies right;
    how many lie wrong is the mean of the probabilities.

    Parameters
    ----------
    radius_deg : (n,) float64
        95 % credible radius of each particle's orientation, degrees.
    far : (n,) float64
        Probability that it lies more than 30 degrees off.
    """
    share, median = float(np.mean(far)), float(np.median(radius_deg))
    numbers = {"expected_share_far": round(share, 3), "median_radius_deg": round(median, 1)}
    measures = (
        f"{share:.0%} of the particles are expected to lie more than 30 degrees off; half of them have a 95 % credible "
        f"radius below {median:.1f} degrees"
    )
    if share <= _FAR_SHARE:
        return Finding("orientations", "go on", f"Orientations are known: {measures}.", numbers)
    return Finding(
        "uncertain-orientations",
        "warn",
        f"Many particles lie wrong: {measures}. The map is carried by the others. Its resolution is not to be stated: "
        "half maps agree on what both align wrongly in the same way, too. More particles, better or larger "
        "ones would help, and so might leaving out those of which the STAR file says so (verglasProbabilityFar).",
        numbers,
    )


def resolution_withheld_by(verdict: Verdict) -> str | None:
    """Code of the finding under which the resolution of the half maps is not to be stated; None where it may be.

    Examples
    --------
    >>> from verglas.assessment.judge import resolution_withheld_by
    >>> from verglas.types.verdict import Finding, Verdict
    >>> wrong = Finding("uncertain-orientations", "warn", "Many particles lie wrong.")
    >>> resolution_withheld_by(Verdict.of([wrong])), resolution_withheld_by(Verdict("go on"))
    ('uncertain-orientations', None)
    """
    return next((finding.code for finding in verdict.findings if finding.code in _WITHHOLDING), None)


def withheld_claim(code: str | None) -> dict[str, Any]:
    """What a record says in place of the resolution to state, which a finding withholds; nothing without one.

    Examples
    --------
    >>> from verglas.assessment.judge import withheld_claim
    >>> withheld_claim("noise")
    {'claimed_resolution_A': None, 'resolution_withheld_by': 'noise'}
    """
    return {} if code is None else {"claimed_resolution_A": None, "resolution_withheld_by": code}


def judge_hidden_symmetry(symmetry: str, score: float, gain: FloatArray) -> list[Finding]:
    """``looks-symmetric``, unless held-out particles speak against it: then nothing.

    A good map gains next to nothing by taking its mean over a group that is there; over one that is not it loses what
    differs.

    Parameters
    ----------
    symmetry : str
        The group that a map made without symmetry shows.
    score : float
        Mean correlation with the copies turned by its elements, on what the map's noise allows.
    gain : (n,) float64
        Log evidence of each held-out particle under the half map's mean over the group, over that of the half map as
        it is, nats.
    """
    mean, error = _mean_and_error(gain)
    if not mean > -_AGAINST * error:
        return []
    numbers = {"symmetry": symmetry, "score": round(score, 3), "gain_nats": round(mean, 4)}
    numbers["gain_error_nats"] = round(error, 4)
    sentence = (
        f"The map looks as if it had the symmetry {symmetry}: turned by its elements it correlates with itself by "
        f"{score:.2f} of what its noise allows, and its mean over them explains held-out particles as well or better "
        f"({mean:+.2f} +- {error:.2f} nats each). Refined under it (--symmetry {symmetry}), every particle counts for "
        "more; a group that is only nearly there would hide what differs."
    )
    return [Finding("looks-symmetric", "warn", sentence, numbers)]


@dataclass(frozen=True)
class GroupLead:
    """What a point group explains held-out particles better by than its best subgroup, nats each."""

    mean: float
    error: float


@dataclass(frozen=True)
class GroupResolutions:
    """Of half maps from the same poses, made without a point group and with it, in A."""

    without_A: float
    with_A: float


def judge_symmetry(
    symmetry: str, winner: str | None, evidence: Mapping[str, float], lead: GroupLead, resolutions: GroupResolutions
) -> Finding:
    """What a contest of a point group with its subgroups says.

    The codes are ``symmetry-supported``, ``symmetry-undecided`` and ``symmetry-not-supported``.

    Parameters
    ----------
    symmetry : str
        The group refined under.
    winner : str, optional
        The group that explains held-out particles clearly better; None where none does.
    evidence : mapping of str -> float
        Log evidence per held-out particle of every group, nats.
    lead : GroupLead
        Of the group over the best subgroup, with its standard error.
    resolutions : GroupResolutions
    """
    others = {name: value for name, value in evidence.items() if name != symmetry}
    best = max(others, key=lambda name: others[name])
    gain = resolutions.without_A / resolutions.with_A
    numbers = {
        "lead_nats": round(lead.mean, 4),
        "lead_error_nats": round(lead.error, 4),
        "best_subgroup": best,
        "evidence_nats": [f"{name}: {value:.3f}" for name, value in evidence.items()],
        "resolution_without_symmetry_A": _finite(resolutions.without_A),
        "resolution_with_symmetry_A": _finite(resolutions.with_A),
        "gain_by_symmetry": _finite(gain),
    }
    measured = (
        f"held-out particles are explained {'better' if lead.mean > 0 else 'worse'} by a map under {symmetry} "
        f"than by one under {best}, the best of {', '.join(others)}: {lead.mean:+.2f} +- {lead.error:.2f} nats each"
    )
    halves = (
        f"half maps from the same poses agree to {_length(resolutions.without_A)} without the group and to "
        f"{_length(resolutions.with_A)} with it, in the sphere"
    )
    if winner == symmetry:
        return Finding("symmetry-supported", "go on", f"Symmetry {symmetry} holds: {measured}; {halves}.", numbers)
    if winner is None:
        return Finding(
            "symmetry-undecided",
            "warn",
            f"The particles neither support nor refute symmetry {symmetry}: {measured}; {halves}.",
            numbers,
        )
    return Finding(
        "symmetry-not-supported",
        "stop",
        f"The particles do not have symmetry {symmetry}: {measured}. The map is an average of what differs, and its "
        f"resolution means little ({halves}); refine under a subgroup, or without symmetry (--symmetry C1).",
        numbers,
    )


def _finite(value: float) -> float | None:
    return round(float(value), 3) if math.isfinite(value) else None


def _length(value: float) -> str:
    return f"{value:.1f} A" if math.isfinite(value) else "no resolution"
