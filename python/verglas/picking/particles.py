"""Picking: where particles lie in a micrograph."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from verglas import ops
from verglas.errors import InputError
from verglas.picking.average import Learned, learn
from verglas.picking.blob import laplacian_score, laplacian_starts
from verglas.picking.image import SmallImage, prepare
from verglas.picking.mask import BadAreas, bad_areas
from verglas.picking.reference_free import classifier_starts, particle_map
from verglas.picking.template import (
    MASK_OVER_PARTICLE,
    ProjectionSettings,
    correlate,
    projection_templates,
    template_bank,
    turned_templates,
)
from verglas.picking.threshold import ScoreCut, automatic_threshold
from verglas.types import Map, Optics, Picks
from verglas.types.arrays import Float32Array
from verglas.types.convert import MicrographLike, micrograph_of
from verglas.types.settings import check_settings, setting, settings_from

MERIT = "rlnAutopickFigureOfMerit"


@dataclass(frozen=True)
class Averages:
    """Class averages as templates: (m, n, n) images, particles white and centred, with their pixel size."""

    images: npt.NDArray[np.float32]
    pixel_size_A: float


Templates = Map | Averages


@dataclass(frozen=True)
class PickSettings:
    """How to pick; every default is meant to be left alone.

    Attributes
    ----------
    method : {"reference-free", "log", "template"}
        Classifier in the manner of the APPLE picker, Laplacian of Gaussian, or templates.
    threshold : float, optional
        Least figure of merit, from -1 to 1: a correlation. By default the valley between background and particles in
        each micrograph.
    distance_A : float, optional
        Least distance of two picks; 0.7 diameters by default.
    edge_A : float, optional
        Least distance from the micrograph's edge; half a diameter by default.
    exclude : bool
        Leave out carbon, ice, contaminants and holes (:func:`verglas.picking.bad_areas`).
    learn : bool
        Without templates: correlate with the rotational average of a first round's picks. False leaves the first
        round's response as figure of merit.
    white : bool
        Particles are white in the micrograph.
    symmetry, step_deg, resolution_A
        Of templates: point group of the map, angular step, low-pass (a sixth of the diameter by default).

    Raises
    ------
    SettingError
        An unknown method, a length that is negative, or a threshold that no figure of merit can have.
    """

    method: Literal["reference-free", "log", "template"] = setting(
        "reference-free", "By a classifier, as blobs, or by templates [template where some are given]"
    )
    threshold: float | None = setting(None, "Least figure of merit, -1 to 1", default_words="found in each micrograph")
    distance_A: float | None = setting(None, "Least distance of picks", at_least=0, default_words="0.7 diameters")
    edge_A: float | None = setting(None, "Least distance from the edge", at_least=0, default_words="half a diameter")
    exclude: bool = setting(True, "Leave out carbon, ice and contaminants")
    learn: bool = setting(True, "Without templates: correlate with the average of a first round's picks")
    white: bool = setting(False, "Particles are white in the micrographs")
    symmetry: str = setting("C1", "Point group of the map of templates", flags=("--sym",))
    step_deg: float = setting(15.0, "Angular step of templates", at_least=1, at_most=90)
    resolution_A: float | None = setting(
        None, "Low-pass of templates", more_than=0, default_words="a sixth of the diameter"
    )

    def __post_init__(self) -> None:
        """Check once."""
        check_settings("pick", self, self._impossible_threshold())

    def _impossible_threshold(self) -> Iterator[tuple[str, str]]:
        # Without templates and without learning the figure of merit is a response, which has no limits.
        correlation = self.learn or self.method == "template"
        if self.threshold is not None and not abs(self.threshold) <= (1 if correlation else np.inf):
            yield (
                "threshold",
                f"expected a figure of merit, which is a correlation from -1 to 1, got {self.threshold:g}; "
                "leave it out to have it found in each micrograph, or choose it among those in picks.star "
                f"({MERIT})",
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
        The threshold, and whether background and particles are two classes.
    bad : BadAreas
    small : SmallImage
        What was searched.
    template : (s, s) float32 or None
        The rotational average that was learned.
    """

    picks: Picks
    candidates: Picks
    cut: ScoreCut
    bad: BadAreas
    small: SmallImage = field(repr=False)
    template: Float32Array | None = field(default=None, repr=False)


def pick(
    micrograph: MicrographLike,
    diameter_A: float,
    settings: PickSettings | None = None,
    *,
    templates: Templates | None = None,
    optics: Optics | None = None,
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
    >>> found = vg.pick(m, 80.0, method="log")
    >>> sorted(tuple(int(v) for v in np.rint(p / 10)) for p in found.xy_px)
    [(8, 6), (15, 20), (30, 12), (33, 24)]
    """
    return pick_detailed(
        micrograph, diameter_A, settings, templates=templates, optics=optics, threads=threads, **changes
    ).picks


def pick_detailed(
    micrograph: MicrographLike,
    diameter_A: float,
    settings: PickSettings | None = None,
    *,
    templates: Templates | None = None,
    optics: Optics | None = None,
    threads: int | None = None,
    **changes: Any,
) -> PickResult:
    """As :func:`pick`, with the candidates, the threshold and the areas left out."""
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
    small = prepare(micrograph, diameter_A, white=chosen.white, threads=threads)
    bad = bad_areas(small)
    allowed = ~bad.wide if chosen.exclude else np.ones_like(bad.rough)
    distance_A = 0.7 * diameter_A if chosen.distance_A is None else chosen.distance_A
    distance_px = distance_A / small.pixel_size_A
    template: Float32Array | None = None
    if templates is not None:
        score = _template_score(small, diameter_A, templates, optics, chosen, threads)
    else:
        score, learned = _free_score(small, allowed, distance_px, chosen, threads)
        template = None if learned is None else learned.template
    xy, merit = ops.peaks(score, distance_px, mask=allowed, threads=threads)
    cut = automatic_threshold(merit, score)
    if chosen.exclude:
        bad = bad.for_particles(xy[merit >= cut.threshold])
        xy, merit = ops.peaks(score, distance_px, mask=~bad.mask, threads=threads)
        cut = automatic_threshold(merit, score)
    if chosen.threshold is not None:
        cut = replace(cut, threshold=float(chosen.threshold))
    candidates = Picks(small.to_micrograph(xy), micrograph.name, {MERIT: merit})
    edge_A = diameter_A / 2 if chosen.edge_A is None else chosen.edge_A
    candidates = candidates[inside(candidates.xy_px, micrograph.shape, edge_A / micrograph.pixel_size_A)]
    return PickResult(candidates[candidates.columns[MERIT] >= cut.threshold], candidates, cut, bad, small, template)


def inside(xy_px: npt.ArrayLike, shape: tuple[int, int], margin_px: float) -> npt.NDArray[np.bool_]:
    """Which positions x, y lie at least ``margin_px`` from every edge of an image (y, x).

    Examples
    --------
    >>> from verglas.picking import inside
    >>> inside([[5, 5], [94, 5], [95, 5]], (50, 100), 5).tolist()
    [True, True, False]
    """
    x, y = np.asarray(xy_px, np.float64).reshape(-1, 2).T
    height, width = shape
    return (x >= margin_px) & (x <= width - 1 - margin_px) & (y >= margin_px) & (y <= height - 1 - margin_px)


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


def _free_score(
    small: SmallImage, allowed: npt.NDArray[np.bool_], distance_px: float, chosen: PickSettings, threads: int | None
) -> tuple[Float32Array, Learned | None]:
    """Score map without templates, and what was learned on the way."""
    blobs = chosen.method == "log"
    if chosen.learn:
        starts = (
            laplacian_starts(small, allowed, distance_px)
            if blobs
            else classifier_starts(small, allowed, distance_px, threads=threads)
        )
        learned = learn(small, starts, allowed, distance_px, threads=threads)
        if learned is not None:
            return learned.score, learned
    if blobs:
        return laplacian_score(small), None
    decision = particle_map(small, allowed, threads=threads)
    return (np.zeros_like(small.data) if decision is None else decision), None
