"""Whether half maps are what a resolution takes them for: independent, with signal, under a mask that makes none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage, special

from verglas import fourier
from verglas.assessment.fsc import FSC, fsc
from verglas.assessment.independence import proportional
from verglas.assessment.solvent_noise import solvent_noise
from verglas.errors import InputError
from verglas.geometry import symmetry_order
from verglas.masks import soft_sphere
from verglas.types import Map
from verglas.types.arrays import Float32Array, FloatArray, IntArray
from verglas.types.verdict import Finding

_FALSE_ALARM = 1e-3  # of one question, where its null distribution is known
_PLATEAU = 0.02  # correlation beyond the signal that matters: 2 % of the particles in both halves
_FIRST_A = 40.0  # coarser, refinements join their halves
_SIGNAL_SHELLS = 3  # in a row that chance does not explain
_MASK_MAKES = 0.1  # correlation of phase-randomised halves at the resolution that is claimed
_REPEAT_LOSES = 0.1  # of the mean FSC, which half sets refined again apart do not reach
_SOFT_EDGE_PX = 2.0  # of a soft edge; a hard one has none
_PLATEAU_FALLS = 0.6  # of its mean at most, from the first half of the tail to the second
_NOT_FALLEN = 0.5
_ONE_SIDED_95 = 1.645
_PARTLY = 0.02  # inside, or outside
_CUT_OFF = 1e-4  # of the noise power of coarser shells
_TAIL = 0.8  # of Nyquist: what lies beyond is looked at for a plateau


@dataclass(frozen=True)
class Question:
    """What is asked, for the page: a code of :class:`Finding`, the question, its threshold, its false alarms."""

    code: str
    text: str
    threshold: str
    false_alarms: str


QUESTIONS = (
    Question("independent-halves", "Are the half maps two?", "1 - correlation of the boxes >= 1e-6", "none possible"),
    Question(
        "shared-noise",
        "Do the half maps share noise?",
        "correlation of the finest shells outside the molecule below 0.1 or chance; mean FSC of the last fifth of the "
        f"shells, inside the largest sphere, below {_PLATEAU:g} or below chance, where it does not fall there; "
        f"above {_NOT_FALLEN:g}, and where less is common outside the molecule, it is signal",
        f"{_FALSE_ALARM:g} each by the null distribution",
    ),
    Question(
        "shared-particles",
        "Does an image lie in both half sets?",
        "no image, by its name, its pixels (grey scale and a little noise apart), or a place nearer than a tenth of "
        "the box in one micrograph",
        "none possible by names and pixels; not measured by places",
    ),
    Question(
        "half-sets",
        "Are there half sets?",
        "particles.star says which half each particle is of",
        "none possible",
    ),
    Question(
        "homogeneity",
        "Are the classes one structure?",
        "correlation between halves of what differs, beyond scale and filter of each shell, below chance",
        f"{_FALSE_ALARM:g} of a pair of classes by the null distribution",
    ),
    Question(
        "repeat",
        "Do half sets that are refined again apart agree as far?",
        f"mean FSC up to the stated resolution falls by less than {_REPEAT_LOSES:g}, or by what chance makes",
        "0 of 4 refinements of unseen phantoms",
    ),
    Question(
        "better-than-noise",
        "Do particles resolve more than as many images of noise, aligned to their map?",
        "mean FSC of all of the images asked for, up to the run's resolution, above that of noise",
        "the other way round: noise passes in less than 1 of 1000",
    ),
    Question(
        "signal-in-halves",
        "Do the half maps agree more than noise would?",
        f"{_SIGNAL_SHELLS} shells in a row beyond chance, finer than {_FIRST_A:g} A",
        "the other way round: noise passes in less than 1 of 1000",
    ),
    Question(
        "mask",
        "Does the mask make the resolution?",
        f"FSC of phase-randomised halves below {_MASK_MAKES:g} at the resolution",
        "not measured",
    ),
    Question(
        "mask-edge",
        "Is the mask's edge soft?",
        f"voxels between outside and inside over those on the surface, at least {_SOFT_EDGE_PX:g}",
        "none of masks made by verglas",
    ),
)


def judge_independence(half1: Map, half2: Map) -> Finding:
    """Whether two half maps are one: ``independent-halves``, go on or stop.

    Examples
    --------
    >>> import numpy as np, verglas as vg
    >>> from verglas.assessment.validation import judge_independence
    >>> half = vg.Map(np.random.default_rng(0).normal(size=(8, 8, 8)), 1.0)
    >>> judge_independence(half, half.with_data(2 * half.data)).state
    'stop'
    """
    if proportional(half1.data, half2.data):
        same = "identical" if np.array_equal(half1.data, half2.data) else "proportional"
        sentence = f"The half maps are {same}: one map twice. No resolution can be told from them."
        return Finding("independent-halves", "stop", sentence, {"relation": same})
    if not (np.ptp(half1.data) > 0 and np.ptp(half2.data) > 0):
        sentence = "A half map is constant: no particle was put into it."
        return Finding("independent-halves", "stop", sentence, {"relation": "constant"})
    correlation = float(np.corrcoef(half1.data.ravel(), half2.data.ravel())[0, 1])
    numbers = {"correlation": round(correlation, 5)}
    return Finding("independent-halves", "go on", "The half maps are two different maps.", numbers)


def judge_shared_noise(half1: Map, half2: Map, *, symmetry: str = "C1", threads: int | None = None) -> Finding:
    """Whether the FSC stays above zero where no map has signal: ``shared-noise``.

    Signal ends; noise that both halves share (particles in both, a common mask, solvent flattening, a filter that
    joined them) does not. And signal lies in the molecule, noise everywhere
    (:func:`verglas.assessment.solvent_noise.solvent_noise`). The shells beyond 0.8 of Nyquist are taken together; of
    independent noise their mean has a normal distribution whose variance the number of independent voxels gives: fewer
    by the order of the point group (``symmetry``) that both maps were made under. Of maps that are resolved to their
    sampling only the solvent tells, and nothing where that is empty or the molecule fills the box.
    """
    order = symmetry_order(symmetry)
    curve = fsc(half1, half2, _sphere(half1.box), symmetry_order=order, threads=threads)
    last = len(curve.curve) - 1
    tail = np.arange(int(np.ceil(_TAIL * last)), last + 1)
    filled = curve.curve[tail] != 0
    if np.count_nonzero(filled) < 2 or _were_cut_off(half1, half2, int(tail[0]), threads):
        said = "The half maps were cut off before Nyquist, or their box is tiny: no noise to compare."
        return Finding("shared-noise", "go on", said, {})
    mean, deviation = _mean_correlation(curve, tail[filled])
    limit = max(_PLATEAU, -float(special.ndtri(_FALSE_ALARM)) * deviation)
    numbers = {"mean_fsc": round(mean, 4), "limit": round(limit, 4)}
    # Signal falls, shared noise does not: it is named where a fall within the tail can be excluded, and from as many
    # shells before there is none. A curve that still falls is that of a map which its sampling cuts off.
    before = np.arange(max(1, 2 * int(tail[0]) - last), int(tail[0]))
    coarse, fine = (_mean_correlation(curve, part)[0] for part in np.array_split(tail[filled], 2))
    fall = max(coarse - fine + _ONE_SIDED_95 * 2 * deviation, _mean_correlation(curve, before)[0] - mean)
    falls = mean > _NOT_FALLEN or fall > _PLATEAU_FALLS * mean
    solvent = solvent_noise(half1, half2, order=order, threads=threads)
    # What the solvent has less of than the tail is no noise: signal, which may hardly fall up to Nyquist.
    falls |= solvent is not None and solvent.share + solvent.limit < mean
    if solvent is not None:
        numbers |= {"solvent_share": round(solvent.share, 4), "solvent_limit": round(solvent.limit, 4)}
        if solvent.share > solvent.limit:
            sentence = (
                f"Outside the molecule, where there is no signal, {100 * min(solvent.share, 1.0):.0f} % of the noise "
                "in the finest shells is the same in both half maps: particles in both halves, or maps that were "
                "filtered or refined together. Resolutions from these halves are too good."
            )
            return Finding("shared-noise", "stop", sentence, numbers)
    if mean <= limit:
        sentence = f"Beyond the signal the FSC is {mean:.3f}, as of independent noise."
        return Finding("shared-noise", "go on", sentence, numbers)
    if falls:
        sentence = (
            f"The FSC is {mean:.2f} close to Nyquist and may still fall: the map is resolved to its sampling. "
            + (
                "Noise which both halves share cannot be told from signal; a smaller pixel would show it."
                if solvent is None
                else "Outside the molecule the halves share no noise."
            )
        )
        return Finding("shared-noise", "go on", sentence, numbers)
    share = 100 * min(mean, 1.0)
    sentence = (
        f"The FSC does not fall to zero: {mean:.3f} close to Nyquist (independent noise stays below {limit:.3f}). "
        f"About {share:.0f} % of what the halves hold there is common: particles in both halves, or maps that were "
        "masked, filtered or refined together. Resolutions from these halves are too good."
    )
    return Finding("shared-noise", "stop", sentence, numbers)


def _were_cut_off(half1: Map, half2: Map, first: int, threads: int | None) -> bool:
    """Whether next to no noise is left from a shell on: all there is comes from the shells before, by the sphere."""
    power = fourier.power_spectrum(half1.data - half2.data, 3, threads=threads)
    return bool(power[first:].mean() < _CUT_OFF * power[1:first].mean())


def _sphere(box: int) -> Float32Array:
    return soft_sphere(box, 0.42 * box, 0.06 * box)


def _mean_correlation(curve: FSC, shells: IntArray) -> tuple[float, float]:
    """Weighted mean of a curve over shells, and its standard deviation for independent noise."""
    n = curve.n[shells]
    # Under a mask neighbouring shells are correlated over about two shells, in which the mask's transform falls off.
    return float(np.average(curve.curve[shells], weights=n)), float(np.sqrt(2.0 / n.sum()))


def judge_shared_particles(names: Sequence[str], half_sets: npt.ArrayLike) -> Finding:
    """Whether an image stands in both half sets: ``shared-particles``.

    Parameters
    ----------
    names : sequence of str
        Images, as ``000012@stack.mrcs``.
    half_sets : (n,) int
        1 or 2.

    Examples
    --------
    >>> from verglas.assessment.validation import judge_shared_particles
    >>> judge_shared_particles(["1@a", "2@a", "1@a"], [1, 2, 2]).sentence
    '1 image lies in both half sets (1@a): the halves are not independent.'
    """
    half = np.asarray(half_sets)
    if len(names) != len(half):
        raise InputError(f"shared particles: {len(names)} images and {len(half)} half sets")
    known = np.asarray(names, str)
    both = np.intersect1d(known[half == 1], known[half == 2])
    twice = len(known) - len(np.unique(known)) - len(both)
    numbers = {"in_both": len(both), "twice_in_one": int(max(twice, 0))}
    if len(both):
        what = "1 image lies" if len(both) == 1 else f"{len(both)} images lie"
        sentence = f"{what} in both half sets ({both[0]}): the halves are not independent."
        return Finding("shared-particles", "stop", sentence, numbers)
    if twice > 0:
        return Finding("shared-particles", "warn", f"{twice} images stand twice in one half set.", numbers)
    return Finding("shared-particles", "go on", "No image lies in both half sets.", numbers)


def judge_signal(half1: Map, half2: Map, *, symmetry: str = "C1", threads: int | None = None) -> Finding:
    """Whether half maps agree more than noise would: ``signal-in-halves``, stop where they do not.

    Shells finer than 40 angstrom; three in a row beyond chance at 1e-3 each (Fisher's exact threshold with the
    independent voxels under a soft sphere, of which a point group leaves one in its order).
    """
    # Within a sphere: a mask made from the map follows its noise, which then agrees in both halves.
    order = symmetry_order(symmetry)
    curve = fsc(half1, half2, _sphere(half1.box), symmetry_order=order, threads=threads)
    level = curve.threshold(f"{-special.ndtri(_FALSE_ALARM):.4f}sigma-fisher")
    fine = curve.frequency_per_A > 1 / min(_FIRST_A, half1.box * half1.pixel_size_A / 4)
    above = (curve.curve > level) & fine
    longest, run = 0, 0
    for one in above.tolist():
        run = run + 1 if one else 0
        longest = max(longest, run)
    resolution = curve.resolution_A("half-bit")
    numbers = {"shells_in_a_row": longest, "half_bit_A": round(resolution, 3) if np.isfinite(resolution) else None}
    if longest >= _SIGNAL_SHELLS:
        sentence = f"The half maps agree beyond chance over {longest} shells in a row."
        return Finding("signal-in-halves", "go on", sentence, numbers)
    sentence = (
        f"The half maps agree no more than noise does: at most {longest} shells in a row exceed chance. There is "
        "nothing in the map that both halves support."
    )
    return Finding("signal-in-halves", "stop", sentence, numbers)


def judge_half_sets(half_sets: npt.ArrayLike | None) -> Finding:
    """Whether particles are told apart into half sets: ``half-sets``, warn where they are not.

    Examples
    --------
    >>> from verglas.assessment.validation import judge_half_sets
    >>> judge_half_sets([1, 2, 2]).state, judge_half_sets(None).state
    ('go on', 'warn')
    """
    if half_sets is None:
        sentence = (
            "particles.star has no half sets (rlnRandomSubset): halves that are parted after one common refinement "
            "share the noise that it fitted, and their resolution is too good. Refine with half sets apart."
        )
        return Finding("half-sets", "warn", sentence, {})
    counts = np.bincount(np.asarray(half_sets, np.int64), minlength=3)
    return Finding("half-sets", "go on", f"{counts[1]} and {counts[2]} particles.", {"particles": int(counts.sum())})


def judge_repeat(stated: FSC, repeated: FSC, start_A: float) -> Finding:
    """Whether half sets that were refined again, each by itself, agree as far as was stated: ``repeat``.

    Noise that a common refinement fitted lies in both half maps up to the resolution of its reference. Refined again
    from a reference that ends at ``start_A``, half sets apart, what is finer has to be found anew in each.

    Parameters
    ----------
    stated, repeated : FSC
        Between the half maps as they are, and as they were refined again.
    start_A : float
        Where the reference of the repeat ended.

    Examples
    --------
    >>> import numpy as np
    >>> from verglas.assessment import FSC
    >>> from verglas.assessment.validation import judge_repeat
    >>> n = np.full(17, 400)
    >>> fine, coarse = (FSC(np.arange(17) / 64, np.linspace(1, low, 17), n, n, 2.0) for low in (0, -1))
    >>> judge_repeat(fine, fine, 30.0).state, judge_repeat(fine, coarse, 30.0).state
    ('go on', 'stop')
    """
    stated_A, repeated_A = stated.resolution_A(), repeated.resolution_A()
    frequency = stated.frequency_per_A
    shells = np.flatnonzero((frequency > 1 / start_A) & (frequency <= 1 / stated_A + frequency[1] / 2))
    numbers = {"stated_A": _number(stated_A), "repeated_A": _number(repeated_A), "start_A": round(start_A, 2)}
    if not shells.size:
        sentence = f"No resolution finer than the {start_A:.1f} A that a repeat begins at is stated."
        return Finding("repeat", "go on", sentence, numbers)
    n = np.minimum(stated.n, repeated.n)[shells]
    lost = float(np.average(stated.curve[shells] - repeated.curve[shells], weights=n))
    limit = max(_REPEAT_LOSES, -float(special.ndtri(_FALSE_ALARM)) * float(np.sqrt(2.0 / n.sum())))
    numbers |= {"mean_fsc_lost": round(lost, 4), "limit": round(limit, 4)}
    again = f"Refined again from {start_A:.1f} A with half sets apart, the half maps agree to {_length(repeated_A)}"
    if lost > limit:
        sentence = (
            f"{again}, not to {_length(stated_A)}: the FSC up to there falls by {lost:.2f} in the mean (limit "
            f"{limit:.2f}). The stated agreement holds noise that both halves were fitted to together."
        )
        return Finding("repeat", "stop", sentence, numbers)
    return Finding("repeat", "go on", f"{again}; stated are {_length(stated_A)}.", numbers)


def _number(value: float) -> float | None:
    return round(value, 3) if np.isfinite(value) else None


def _length(value: float) -> str:
    return f"{value:.2f} A" if np.isfinite(value) else "nothing"


def judge_mask(
    frequency_per_A: FloatArray,
    phase_randomised: FloatArray,
    resolution_A: float,
    first_random_A: float | None,
    *,
    vouched: bool = True,
) -> Finding:
    """Whether the mask makes the agreement that is claimed: ``mask``.

    Parameters
    ----------
    frequency_per_A, phase_randomised : (n_shells,) float
        FSC of the halves with random phases under the mask; NaN where there is none.
    resolution_A : float
        Claimed.
    first_random_A : float, optional
        From where phases are random.
    vouched : bool
        Whether the masked curve was believed (:func:`verglas.postprocess`); the resolution is that of the unmasked
        maps otherwise.
    """
    if not vouched:
        sentence = (
            f"Phase randomisation cannot vouch for this mask: it is tighter than the molecule or its edge is sharp. "
            f"The {resolution_A:.2f} A stated are those of the unmasked maps; widen the mask and soften its edge."
        )
        return Finding("mask", "warn", sentence, {"resolution_A": round(resolution_A, 3)})
    if first_random_A is None or not np.isfinite(phase_randomised).any() or not np.isfinite(resolution_A):
        return Finding("mask", "go on", "No phases were randomised: what the mask adds was not measured.", {})
    # Shells whose phases stayed agree as before; those just beyond are mixed by the mask.
    usable = (frequency_per_A > 1.15 / first_random_A) & np.isfinite(phase_randomised)
    near = usable & (np.abs(frequency_per_A - 1 / resolution_A) <= 2.5 * frequency_per_A[1])
    if not near.any():
        return Finding("mask", "go on", "The resolution lies where phases were kept.", {})
    made = float(np.nanmean(phase_randomised[near]))
    numbers = {"fsc_of_random_phases": round(made, 4), "resolution_A": round(resolution_A, 3)}
    if made > _MASK_MAKES:
        sentence = (
            f"The mask alone makes an FSC of {made:.2f} at {resolution_A:.2f} A: it is too tight, or its edge too "
            "sharp. Widen it, or soften its edge, and read the corrected curve only."
        )
        return Finding("mask", "warn", sentence, numbers)
    return Finding("mask", "go on", f"The mask adds {made:.3f} to the FSC at the resolution.", numbers)


def judge_mask_edge(mask: Map) -> Finding:
    """Whether the mask that curves were made under ends softly: ``mask-edge``, warn where it does not.

    The number of voxels that are partly inside over that on the surface, which is the width of the edge in voxels. A
    sharp edge cuts both halves alike, and makes them agree in shells as fine as the voxels.

    Examples
    --------
    >>> import numpy as np, verglas as vg
    >>> from verglas.assessment.validation import judge_mask_edge
    >>> ball = vg.masks.soft_sphere(32, 9.0, 5.0)
    >>> judge_mask_edge(vg.Map(ball, 2.0)).state, judge_mask_edge(vg.Map(np.rint(ball), 2.0)).state
    ('go on', 'warn')
    """
    values = mask.data / max(float(mask.data.max()), 1e-30)  # a mask may reach less than 1
    inside = values >= 0.5
    surface = np.count_nonzero(inside & ~ndimage.binary_erosion(inside, border_value=1))
    if not surface:
        return Finding("mask-edge", "go on", "The mask has no edge: it holds the whole box.", {})
    width_px = np.count_nonzero((values > _PARTLY) & (values < 1 - _PARTLY)) / surface
    numbers = {"edge_px": round(width_px, 2)}
    if width_px < _SOFT_EDGE_PX:
        sentence = (
            f"The mask falls from inside to outside within {width_px:.1f} voxels: a sharp edge makes the halves agree. "
            "Soften it by several voxels."
        )
        return Finding("mask-edge", "warn", sentence, numbers)
    return Finding("mask-edge", "go on", f"The mask's edge is {width_px:.1f} voxels wide.", numbers)
