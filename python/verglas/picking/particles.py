"""Picking: where particles lie in a micrograph."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
from scipy.spatial import cKDTree

from verglas.errors import InputError
from verglas.picking.carbon import ring_contrast
from verglas.picking.classical import classical_peaks
from verglas.picking.discriminant import as_correlation, split_bands
from verglas.picking.examples import ClickedMicrograph, PickExamples, examples_by_hand
from verglas.picking.features import FEATURE_METHODS
from verglas.picking.image import SmallImage, prepare
from verglas.picking.mask import BadAreas, bad_areas
from verglas.picking.merit import inside
from verglas.picking.mixture import ScoreCut
from verglas.picking.scored import Search, filter_peaks
from verglas.picking.template import (
    MASK_OVER_PARTICLE,
    ProjectionSettings,
    correlate,
    projection_templates,
    template_bank,
    turned_templates,
)
from verglas.types import Map, Micrograph, Optics, Picks
from verglas.types.arrays import Float32Array, FloatArray, any_arrays
from verglas.types.convert import MicrographLike, micrograph_of
from verglas.types.settings import JobSettings, setting, settings_from

if TYPE_CHECKING:
    from verglas.learned import Weights

MERIT = "rlnAutopickFigureOfMerit"
# Of a consensus: they share neither filter nor average.
_INDEPENDENT: tuple[Literal["log", "reference-free"], ...] = ("log", "reference-free")


@dataclass(frozen=True)
class Averages:
    """Class averages as templates: (m, n, n) images, particles white and centred, with their pixel size."""

    images: npt.NDArray[np.float32]
    pixel_size_A: float


Templates = Map | Averages


@dataclass(frozen=True)
class PickSettings(JobSettings, job="pick"):
    """How to pick; every default is meant to be left alone.

    Attributes
    ----------
    method : {"automatic", "log", "reference-free", "consensus", "learned", "template", "variance", ...}
        ``log``: a linear filter learned from the peaks of a Laplacian of a Gaussian (:mod:`.discriminant`), or, where
        weak particles are long or flat, one for each orientation (:mod:`.oriented`).
        ``automatic``: that, and the rotational average of what it picks; each micrograph decides which it supports
        more (:func:`.scored.most_supported`). ``reference-free``: a classifier in the manner of the APPLE picker and
        the average of its windows (:mod:`.average`). ``consensus``: picks of ``log`` that ``reference-free`` confirms.
        ``learned``: a small network trained on simulated micrographs (:mod:`.network`) and ``automatic``, judged
        together by how surely each sees particles here (:mod:`.joint`); figures of merit are chances to
        be a particle. ``template``: projections or class averages. ``variance``, ``reduced``, ``signature``, ``swarm``,
        ``invariants``: the classical pickers of :mod:`.features`, all but the first taught by examples or, without any,
        by what ``log`` is certain of.
    threshold : float, optional
        Least figure of merit, from -1 to 1: a correlation. By default the cut of the largest expected F in each
        micrograph (:mod:`.mixture`). Methods have figures of merit of their own: give the method with it.
    precision : float, optional
        Of ``learned``: as many picks as have at least this expected share of particles. The chances it is expected from
        are too high for kinds of particles unlike those of training (docs/guide/picking.md): fewer are.
    distance_A : float, optional
        Least distance of two picks; 0.7 diameters by default.
    border_A : float, optional
        Least distance from the edge of what was recorded (a border of repeated or constant rows is none); half a
        diameter by default.
    exclude : bool
        Leave out carbon, ice, contaminants and holes (:func:`verglas.picking.bad_areas`).
    learn : bool
        Without templates: learn a filter or an average from the first peaks. False leaves the first response as figure
        of merit.
    white : bool
        Particles are white in the micrograph.
    symmetry, step_deg, resolution_A
        Of templates: point group of the map, angular step, low-pass (a sixth of the diameter by default).

    Raises
    ------
    SettingError
        An unknown method, a length that is negative, or a threshold that no figure of merit can have.
    """

    method: Literal[
        "automatic",
        "log",
        "reference-free",
        "consensus",
        "learned",
        "template",
        "variance",
        "reduced",
        "signature",
        "swarm",
        "invariants",
    ] = setting(
        "automatic",
        "What each micrograph supports most, as blobs, by a classifier, what these two agree on, by a trained network, "
        "by templates [template where some are given], or by features: local variance, a reduced representation, "
        "a signature, swarm's profiles, rotational invariants",
    )
    threshold: float | None = setting(None, "Least figure of merit, -1 to 1", default_words="found in each micrograph")
    precision: float | None = setting(
        None,
        "Of learned: least share of particles among the picks, as its chances, which are too high, expect it",
        more_than=0,
        at_most=1,
    )
    distance_A: float | None = setting(None, "Least distance of picks", at_least=0, default_words="0.7 diameters")
    border_A: float | None = setting(
        None, "Least distance from the edge", at_least=0, default_words="half a diameter", former=("edge_A",)
    )
    exclude: bool = setting(True, "Leave out carbon, ice and contaminants")
    learn: bool = setting(True, "Without templates: learn a filter or an average from the first peaks")
    white: bool = setting(False, "Particles are white in the micrographs")
    symmetry: str = setting("C1", "Point group of the map of templates", flags=("--sym",))
    step_deg: float = setting(15.0, "Angular step of templates", at_least=1, at_most=90)
    resolution_A: float | None = setting(
        None, "Low-pass of templates", more_than=0, default_words="a sixth of the diameter"
    )

    def _impossible(self) -> Iterator[tuple[str, str]]:
        # Without templates and without learning the figure of merit is a response, which has no limits.
        correlation = (self.learn or self.method == "template") and self.method not in ("variance", "swarm")
        if self.threshold is not None and not abs(self.threshold) <= (1 if correlation else np.inf):
            yield (
                "threshold",
                f"expected a figure of merit, which is a correlation from -1 to 1, got {self.threshold:g}; "
                "leave it out to have it found in each micrograph, or choose it among those in picks.star "
                f"({MERIT})",
            )
        if self.threshold is not None and self.method == "consensus":
            yield "threshold", "the methods of a consensus have figures of merit of their own; leave it out"
        if self.precision is not None and (self.method != "learned" or self.threshold is not None):
            yield (
                "precision",
                "only the method learned knows the chance of each pick, and it sets the threshold; give one",
            )


@dataclass(frozen=True)
class PickResult:
    """Picks and what led to them.

    Attributes
    ----------
    picks : Picks
        Best first, with rlnAutopickFigureOfMerit.
    candidates : Picks
        All peaks, those below the threshold too: what ROC curves and the choice of another threshold need.
    cut : ScoreCut
        The threshold, whether there are particles at all, and how many of the picks are.
    bad : BadAreas
    small : SmallImage
        What was searched.
    template : (s, s) float32 or None
        The rotational average that was learned.
    source : str
        The method whose result this is: of ``automatic`` "log", "average" or "oriented", of ``consensus`` that as well
        if the two agree on nothing because one saw no particles.
    ring_contrast : float
        Of the micrograph's power spectrum (:func:`.carbon.ring_contrast`): in a set of ice, carbon alone stands out.
    doubts : tuple of str
        What of the micrograph a trained network has not seen in training.
    """

    picks: Picks
    candidates: Picks
    cut: ScoreCut
    bad: BadAreas
    small: SmallImage = field(repr=False)
    template: Float32Array | None = field(default=None, repr=False)
    source: str = ""
    ring_contrast: float = float("nan")
    doubts: tuple[str, ...] = ()


def pick(
    micrograph: MicrographLike,
    diameter_A: float,
    settings: PickSettings | None = None,
    *,
    templates: Templates | None = None,
    optics: Optics | None = None,
    examples: PickExamples | None = None,
    threads: int | None = None,
    **changes: Any,
) -> Picks:
    """Find the particles of a micrograph.

    Parameters
    ----------
    micrograph : Micrograph
        Particles dark, pixel size known.
    diameter_A : float
        Of the particle; 15 per cent more or less do no harm.
    settings : PickSettings, optional
        Further keywords (``method="log"``) change its fields.
    templates : Map or Averages, optional
        A map to project or class averages to turn: the method is "template" unless another is given.
    optics : Optics, optional
        CTF of the micrograph, one entry: modulates projections of a map.
    examples : PickExamples, optional
        Of :func:`verglas.picking.teach`: what the pickers by features compare with.
    threads : int, optional
        Threads; all by default. The result does not depend on it.

    Returns
    -------
    Picks
        Centres in pixels, best first, with the column rlnAutopickFigureOfMerit.

    Raises
    ------
    InputError
        A micrograph that nothing can be picked from (unknown pixel size, constant, not finite), or settings that do
        not go together.

    Examples
    --------
    >>> import numpy as np, verglas as vg
    >>> y, x = np.mgrid[:300, :400]
    >>> spots = [(60, 80), (200, 150), (120, 300), (240, 330)]
    >>> data = sum(-2.0 * np.exp(-((np.hypot(x - u, y - v) / 12) ** 4)) for v, u in spots)
    >>> m = vg.Micrograph(data + np.random.default_rng(0).normal(size=data.shape), 3.0)
    >>> picks = vg.pick(m, 80.0, method="reference-free")
    >>> sorted(tuple(int(v) for v in np.rint(p / 10)) for p in picks.xy_px[:4])  # best first
    [(8, 6), (15, 20), (30, 12), (33, 24)]
    """
    return pick_detailed(
        micrograph,
        diameter_A,
        settings,
        templates=templates,
        optics=optics,
        examples=examples,
        threads=threads,
        **changes,
    ).picks


@any_arrays
def pick_detailed(
    micrograph: MicrographLike,
    diameter_A: float,
    settings: PickSettings | None = None,
    *,
    templates: Templates | None = None,
    optics: Optics | None = None,
    left_out: npt.ArrayLike | None = None,
    examples: PickExamples | None = None,
    weights: Weights | None = None,
    threads: int | None = None,
    **changes: Any,
) -> PickResult:
    """As :func:`pick`, with the candidates, the threshold and the areas left out.

    Parameters
    ----------
    micrograph, diameter_A, settings, templates, optics, examples, threads, **changes
        As for :func:`pick`.
    left_out : (n, 3) float, optional
        Discs of the micrograph, x, y and radius in pixels, in which nothing is picked.
    weights : verglas.learned.Weights, optional
        Of the method ``learned``; those that come with verglas by default.
    """
    micrograph = micrograph_of(micrograph, "pick: micrograph")
    if templates is not None and settings is None:
        changes = {"method": "template", **changes}
    chosen = settings_from("pick", PickSettings, settings, **changes)
    if (templates is None) == (chosen.method == "template"):
        amount = "no" if templates is None else "some"
        raise InputError(
            "picking: templates and the method 'template' go together; "
            f"got the method {chosen.method!r} and {amount} templates"
        )
    if examples is not None and chosen.method not in FEATURE_METHODS[1:]:
        raise InputError(
            f"picking: examples teach the methods {', '.join(FEATURE_METHODS[1:])}; got the method {chosen.method!r}"
        )
    small = prepare(micrograph, diameter_A, white=chosen.white, threads=threads)
    if left_out is not None:
        small = small.without_discs(left_out)
    if chosen.method == "consensus":
        result = _agreement(micrograph, small, diameter_A, chosen, threads)
    elif chosen.method == "learned":
        result = _pick_by_network(micrograph, small, diameter_A, chosen, weights, threads)
    else:
        score = None if templates is None else _template_score(small, diameter_A, templates, optics, chosen, threads)
        result = _pick_with_one_method(
            micrograph, small, diameter_A, chosen, template_score=score, threads=threads, examples=examples
        )
    return replace(result, ring_contrast=ring_contrast(micrograph.data, micrograph.pixel_size_A))


def _pick_with_one_method(
    micrograph: Micrograph,
    small: SmallImage,
    diameter_A: float,
    chosen: PickSettings,
    *,
    template_score: Float32Array | None = None,
    threads: int | None = None,
    examples: PickExamples | None = None,
) -> PickResult:
    """Peaks of one method and its cut, as figures of merit in the micrograph."""
    peaks, bad = classical_peaks(small, chosen, template_score, threads=threads, examples=examples)
    filters = chosen.method in FEATURE_METHODS or (chosen.learn and chosen.method in ("automatic", "log"))
    cut, merit = peaks.cut, peaks.heights
    if peaks.source in ("log", "oriented") and filters:
        threshold, certain = (float(as_correlation(height)) for height in (cut.threshold, cut.certain))
        merit, cut = as_correlation(merit), replace(cut, threshold=threshold, certain=certain)
    if chosen.threshold is not None:
        cut = replace(cut, threshold=float(chosen.threshold))
    candidates = _away_from_border(peaks.xy_px, merit, micrograph, small, diameter_A, chosen)
    picks = candidates[candidates.columns[MERIT] >= cut.threshold]
    return PickResult(picks, candidates, cut, bad, small, peaks.template, peaks.source)


@any_arrays
def teach(
    micrographs: Iterable[tuple[MicrographLike, npt.ArrayLike]],
    diameter_A: float,
    settings: PickSettings | None = None,
    *,
    threads: int | None = None,
) -> PickExamples:
    """Examples for the pickers by features, of particles that a person has clicked.

    Parameters
    ----------
    micrographs : iterable of (Micrograph, (n, 2) float)
        Each with the centres of some of its particles, x and y in its pixels; 15 in all are enough.
    diameter_A : float
        Of the particle, as it will be picked with.
    settings : PickSettings, optional
        Whether particles are white, and whether carbon and ice are left out.
    threads : int, optional
        Threads; all by default.

    Returns
    -------
    PickExamples

    Raises
    ------
    InputError
        Fewer than five clicks, or micrographs that nothing can be picked from.

    Examples
    --------
    >>> import numpy as np, verglas as vg
    >>> from verglas.picking import teach
    >>> y, x = np.mgrid[:400, :400]
    >>> places = [(60 + 70 * i, 60 + 70 * j) for i in range(5) for j in range(5)]
    >>> data = sum(-1.0 * (np.hypot(x - u, y - v) < 12) for u, v in places)
    >>> m = vg.Micrograph(data + np.random.default_rng(0).normal(size=data.shape), 4.0)
    >>> examples = teach([(m, places[:15])], 96.0)
    >>> len(examples.particles), 20 <= len(vg.pick(m, 96.0, method="invariants", examples=examples)) <= 28
    (15, True)
    """
    chosen = settings or PickSettings()
    clicked = []
    for one, xy_px in micrographs:
        micrograph = micrograph_of(one, "teach: micrograph")
        small = prepare(micrograph, diameter_A, white=chosen.white, threads=threads)
        bad = bad_areas(small)
        distance_px = 0.7 * diameter_A / small.pixel_size_A
        allowed = ~bad.wide if chosen.exclude else np.ones_like(bad.rough)
        search = Search(small, allowed, distance_px, threads=threads)
        peaks = filter_peaks(search, split_bands(small, threads=threads))
        clicked.append(ClickedMicrograph(small, small.from_micrograph(xy_px), peaks))
    return examples_by_hand(clicked)


def _away_from_border(
    xy_px: FloatArray,
    merit: FloatArray,
    micrograph: Micrograph,
    small: SmallImage,
    diameter_A: float,
    chosen: PickSettings,
) -> Picks:
    """Peaks of the small image as positions in the micrograph, without those near its border."""
    candidates = Picks(small.to_micrograph(xy_px), micrograph.name, {MERIT: merit})
    border_A = diameter_A / 2 if chosen.border_A is None else chosen.border_A
    here = candidates.xy_px - np.array(small.corner[::-1])
    return candidates[inside(here, small.shape, border_A / micrograph.pixel_size_A)]


_SEES_PARTICLES = 0.5  # weight of the filter's mixture from which on particles stand in it by themselves


def _pick_by_network(
    micrograph: Micrograph,
    small: SmallImage,
    diameter_A: float,
    chosen: PickSettings,
    weights: Weights | None,
    threads: int | None,
) -> PickResult:
    """Peaks of a trained network and of the classical filter, judged together; the threshold is one of chances."""
    from verglas.learned import packaged_weights
    from verglas.picking.joint import pick_jointly
    from verglas.picking.network import NetworkLimits, out_of_depth

    weights = packaged_weights("picker") if weights is None else weights
    distance_px = (0.7 * diameter_A if chosen.distance_A is None else chosen.distance_A) / small.pixel_size_A
    limits = NetworkLimits(distance_px, chosen.exclude, chosen.precision)
    peaks, bad = classical_peaks(small, replace(chosen, method="automatic", precision=None), None, threads=threads)
    by_network = pick_jointly(small, weights, peaks, bad, limits)
    cut = by_network.cut if chosen.threshold is None else replace(by_network.cut, threshold=float(chosen.threshold))
    candidates = _away_from_border(by_network.xy_px, by_network.chance, micrograph, small, diameter_A, chosen)
    picks = candidates[candidates.columns[MERIT] >= cut.threshold]
    doubts = out_of_depth(weights.card, small, diameter_A)
    # What the network says of images that it does not know is no class of particles, unless the filter sees one.
    if doubts and by_network.filter_weight < _SEES_PARTICLES:
        cut = replace(cut, clear=False)
    return PickResult(picks, candidates, cut, by_network.bad, small, None, "learned", doubts=doubts)


def _agreement(
    micrograph: Micrograph, small: SmallImage, diameter_A: float, chosen: PickSettings, threads: int | None
) -> PickResult:
    """Picks of the filter that the windows' average confirms; those of one method where the other sees no particles."""
    blobs, windows = (
        _pick_with_one_method(micrograph, small, diameter_A, replace(chosen, method=method), threads=threads)
        for method in _INDEPENDENT
    )
    if not (blobs.cut.clear and windows.cut.clear):
        return windows if windows.cut.clear else blobs
    near = np.zeros(len(blobs.picks), bool)
    if len(windows.picks) and len(blobs.picks):
        distance, _ = cKDTree(windows.picks.xy_px).query(blobs.picks.xy_px)
        near = distance <= diameter_A / 3 / micrograph.pixel_size_A
    return replace(blobs, picks=blobs.picks[near], template=windows.template, source="consensus")


def _template_score(
    small: SmallImage,
    diameter_A: float,
    templates: Templates,
    optics: Optics | None,
    chosen: PickSettings,
    threads: int | None,
) -> Float32Array:
    how = ProjectionSettings(diameter_A, chosen.symmetry, chosen.step_deg, chosen.resolution_A)
    if isinstance(templates, Map):
        images = projection_templates(templates, how, small.pixel_size_A, optics)
    else:
        images = turned_templates(templates.images, templates.pixel_size_A, how, small.pixel_size_A)
    bank = template_bank(images, small.pixel_size_A, MASK_OVER_PARTICLE * small.radius_px)
    return correlate(small.data, bank, threads=threads)[0]
