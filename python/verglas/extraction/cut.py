"""Particle images out of one micrograph: cropped, inverted, background normalised, scaled down."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import numpy.typing as npt

from verglas import image
from verglas.errors import InputError
from verglas.types import Micrograph, Picks
from verglas.types._columns import ANGLES
from verglas.types.arrays import FloatArray, any_arrays
from verglas.types.settings import check_settings, setting

# A circle this much wider than the particle keeps its blurred edge out of the background.
_MARGIN = 1.1
_MIDDLE = 0.7  # of the circle's radius: within the particle, also where that is a fifth narrower than was said
_MOST_BAD = 0.1  # share of a particle that bad pixels may take


@dataclass(frozen=True)
class ExtractSettings:
    """How particles are cut out.

    Attributes
    ----------
    box : int
        Side of the box in pixels of the micrograph; the particle lies at pixel box // 2.
    pixel_size_A : float
        Of the micrograph.
    new_pixel_size_A : float, optional
        Scale the images to this pixel size by Fourier cropping; not below the micrograph's.
    new_box : int, optional
        Side of the scaled images in pixels; by default the even number nearest to the field of the box.
    diameter_A : float, optional
        Diameter of the particle: what lies outside a circle 1.1 times as wide is background. By default the circle is
        0.75 of the box.
    invert : bool
        Multiply by -1: micrographs have dark particles, stacks white ones.
    ramp : bool
        Subtract the plane that fits the background best, not only its mean.
    edge : "exclude" or "fill"
        Particles whose box leaves the micrograph: set aside, or the missing pixels filled with the mean of the others.

    Raises
    ------
    SettingError
        A value outside its range, or a diameter that leaves no background.

    Examples
    --------
    >>> from verglas.extraction import ExtractSettings
    >>> s = ExtractSettings(box=256, pixel_size_A=1.0, new_pixel_size_A=2.0, diameter_A=200)
    >>> s.plan.new_box, s.plan.pixel_size_A, round(s.radius_px)
    (128, 2.0, 110)
    """

    box: int = setting(help="Side of the box in pixels of the micrograph.", at_least=8)
    pixel_size_A: float = setting(help="Of the micrograph.", more_than=0)
    new_pixel_size_A: float | None = setting(None, "Scale the images down to this.", more_than=0)
    new_box: int | None = setting(None, "Side of the scaled images, pixels.", at_least=8)
    diameter_A: float | None = setting(None, "Of the particle: what is outside is background.", more_than=0)
    invert: bool = setting(True, "Micrographs have dark particles, which stacks have white.")
    ramp: bool = setting(True, "Subtract the background's gradient, not only its mean.")
    edge: Literal["exclude", "fill"] = setting("exclude", "Boxes that leave the micrograph.")

    def __post_init__(self) -> None:
        """Check once, and plan the change of scale."""
        check_settings("extract", self)  # first: what follows divides by the pixel size
        check_settings("extract", self, self._what_does_not_fit())
        _ = self.plan  # a plan that cannot be is a wrong setting: said now, not at the first micrograph

    @cached_property
    def plan(self) -> image.ResamplePlan:
        """The change of scale."""
        new = self.new_pixel_size_A
        box = self.new_box if new is not None or self.new_box is not None else self.box
        return image.plan_resample(self.box, self.pixel_size_A, new, box)

    def _what_does_not_fit(self) -> Iterator[tuple[str, str]]:
        """Fields and what is wrong with them beside the others."""
        if int(self.box) != self.box:
            yield "box", f"expected whole pixels, got {self.box}"
        if not np.isfinite(self.pixel_size_A):
            yield "pixel_size_A", f"expected the micrographs' pixel size in A, got {self.pixel_size_A}; give it"
        new = self.new_pixel_size_A
        # a pixel size that went through a file of six digits is not finer
        if new is not None and new < self.pixel_size_A * (1 - 1e-6):
            yield (
                "new_pixel_size_A",
                f"the new pixel size of {new:g} A is finer than the micrographs' {self.pixel_size_A:g} A; "
                "extraction only scales down",
            )
        radius = self.radius_px
        if radius is not None and 2 * radius >= self.box:
            yield (
                "box",
                f"a box of {self.box} px ({self.box * self.pixel_size_A:g} A) leaves no background around a "
                f"particle of {self.diameter_A} A; expected at least {int(2 * radius) + 2} px",
            )

    @property
    def radius_px(self) -> float | None:
        """Radius of the circle around the particle, in pixels of the micrograph; None without a diameter."""
        return None if self.diameter_A is None else _MARGIN * self.diameter_A / 2 / self.pixel_size_A


@dataclass(frozen=True)
class Cut:
    """Particles cut out of one micrograph.

    Attributes
    ----------
    images : (m, box, box) float32
        White particles, background of mean 0 and standard deviation 1.
    kept : (m,) int64
        Their places in the picks.
    centres_px : (m, 2) int64
        Pixel (x, y) of the micrograph that became pixel box // 2.
    excluded : dict of int -> str
        Place in the picks of what was set aside -> the reason.
    """

    images: npt.NDArray[np.float32]
    kept: npt.NDArray[np.int64]
    centres_px: npt.NDArray[np.int64]
    excluded: dict[int, str]


@any_arrays
def cut_particles(
    micrograph: Micrograph, picks: Picks, settings: ExtractSettings, *, bad_share: FloatArray | None = None
) -> Cut:
    """Cut the particles of one micrograph.

    Coordinates are rounded to the nearest pixel (halves up), so that no image is interpolated. A box must lie in the
    micrograph as a whole, unless ``settings.edge`` is "fill". Images that hold NaN, or whose background is constant,
    are set aside, and so are coordinates whose box was cut before: two lists joined hold particles twice. (Not where
    coordinates come with poses: a particle may then stand there once for each of its units.)

    Order: crop, invert, subtract the background's plane, Fourier-crop to the new scale, divide by the background's
    standard deviation at that scale (after the crop, because it takes part of the noise away).

    Parameters
    ----------
    micrograph : Micrograph
        As recorded, particles dark.
    picks : Picks
        Centres in pixels of this array.
    settings : ExtractSettings
    bad_share : (y, x) float, optional
        Share of each pixel that bad pixels of the detector are (:func:`bad_share_of`): where they are more than a tenth
        of a particle, its image shows what was put in their place, and it is set aside.

    Returns
    -------
    Cut

    Examples
    --------
    >>> import numpy as np
    >>> from verglas.extraction import ExtractSettings, cut_particles
    >>> from verglas.types import Micrograph, Picks
    >>> noise = np.random.default_rng(0).normal(100, 10, (64, 64))
    >>> cut = cut_particles(Micrograph(noise, 2.0), Picks([[30, 31], [5, 40]]), ExtractSettings(16, 2.0))
    >>> cut.images.shape, cut.excluded
    ((1, 16, 16), {1: 'box of 16 px beyond the edge'})
    """
    # Not np.round: it takes halves to the even number, so that neighbouring picks would round to different sides.
    centres = np.floor(picks.xy_px + 0.5).astype(np.int64)
    raw, places, excluded = _crop(micrograph.data, centres, settings)
    unfit = _cut_before(centres[places], places) if not any(label in picks.columns for label in ANGLES) else {}
    if bad_share is not None:
        unfit = _on_bad_pixels(bad_share, centres[places], settings) | unfit
    excluded.update({int(places[i]): reason for i, reason in unfit.items()})
    whole = np.setdiff1d(np.arange(len(places)), list(unfit))
    raw, places = raw[whole], places[whole]
    bad = image.find_unusable_images(raw)
    excluded.update({int(places[i]): reason for i, reason in bad.items()})
    good = np.setdiff1d(np.arange(len(places)), list(bad))
    try:
        images = _normalise(raw[good], settings)
    except InputError:  # an image varies, its background does not: find which
        flat = [i for i in good if _is_flat(raw[i], settings)]
        excluded.update({int(places[i]): "flat background" for i in flat})
        good = np.setdiff1d(good, flat)
        images = _normalise(raw[good], settings)
    return Cut(images, places[good], centres[places[good]], dict(sorted(excluded.items())))


@any_arrays
def bad_share_of(pixels: npt.ArrayLike, shape: tuple[int, int], binning: float = 1.0) -> FloatArray:
    """Share of each pixel of a micrograph that bad pixels of the frames are.

    Parameters
    ----------
    pixels : (n, 2) array_like
        Rows (y, x) of the frames.
    shape : (int, int)
        Of the micrograph.
    binning : float
        Pixels of a frame per pixel of the micrograph.

    Examples
    --------
    >>> from verglas.extraction import bad_share_of
    >>> bad_share_of([[0, 0], [0, 1], [3, 2]], (2, 2), 2.0).tolist()
    [[0.5, 0.0], [0.0, 0.25]]
    """
    share = np.zeros(shape)
    at = np.floor(np.asarray(pixels, np.float64).reshape(-1, 2) / binning).astype(np.int64)
    at = at[((at >= 0) & (at < shape)).all(axis=1)]
    np.add.at(share, tuple(at.T), 1 / binning**2)
    return np.minimum(share, 1.0)


def _cut_before(centres: npt.NDArray[np.int64], places: npt.NDArray[np.int64]) -> dict[int, str]:
    """Reasons by place in ``centres``: boxes that another pick before it has to the pixel."""
    _, first, which = np.unique(centres, axis=0, return_index=True, return_inverse=True)
    original = first[np.ravel(which)]
    return {
        int(i): f"same box as particle {places[original[i]]}"
        for i in np.flatnonzero(original < np.arange(len(centres)))
    }


def _on_bad_pixels(share: FloatArray, centres: npt.NDArray[np.int64], settings: ExtractSettings) -> dict[int, str]:
    """Places of the particles that too many bad pixels lie on, and the reason."""
    radius = settings.radius_px or 0.375 * settings.box
    reach = int(radius)
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    inside = np.hypot(y, x) <= radius
    if share.sum() <= _MOST_BAD * inside.sum():  # as nearly always
        return {}
    dy, dx = y[inside], x[inside]
    excluded = {}
    for i, (cx, cy) in enumerate(centres):
        there = share[np.clip(cy + dy, 0, share.shape[0] - 1), np.clip(cx + dx, 0, share.shape[1] - 1)].mean()
        if there > _MOST_BAD:
            excluded[i] = f"bad pixels of the detector under {100 * there:.0f} % of the particle"
    return excluded


def _is_flat(raw: npt.NDArray[np.float32], settings: ExtractSettings) -> bool:
    try:
        _normalise(raw[None], settings)
    except InputError:
        return True
    return False


def _normalise(raw: npt.NDArray[np.float32], settings: ExtractSettings) -> npt.NDArray[np.float32]:
    # The ramp has to go before the Fourier crop, which takes the image as periodic.
    normal = image.normalise(-raw if settings.invert else raw, settings.radius_px, ramp=settings.ramp)
    plan = settings.plan
    if (plan.work_box, plan.new_work_box, plan.new_box) == (plan.box,) * 3:
        return normal
    small = image.resample(normal, plan, threads=1)
    radius = None if settings.radius_px is None else settings.radius_px * settings.pixel_size_A / plan.pixel_size_A
    return image.normalise(small, radius, ramp=False)


def _crop(
    data: npt.NDArray[np.float32], centres: npt.NDArray[np.int64], settings: ExtractSettings
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64], dict[int, str]]:
    """Boxes, the places of those that were cut, and those set aside."""
    box, shape = settings.box, np.array(data.shape[::-1])
    low = centres - box // 2
    inside = np.atleast_1d(((low >= 0) & (low + box <= shape)).all(axis=1))
    fill = settings.edge == "fill"
    usable = ((low + box > 0) & (low < shape)).all(axis=1) if fill else inside
    reason = f"box of {box} px {'outside the micrograph' if fill else 'beyond the edge'}"
    excluded = {int(i): reason for i in np.flatnonzero(~usable)}
    places = np.flatnonzero(usable)
    out = np.empty((len(places), box, box), np.float32)
    for slot, i in enumerate(places):
        x, y = low[i]
        if inside[i]:
            out[slot] = data[y : y + box, x : x + box]
            continue
        (x0, y0), (x1, y1) = np.maximum(low[i], 0), np.minimum(low[i] + box, shape)
        part = data[y0:y1, x0:x1]
        out[slot] = part.mean(dtype=np.float64)
        out[slot, y0 - y : y1 - y, x0 - x : x1 - x] = part
    return out, places, excluded


@any_arrays
def background_excess(images: npt.NDArray[np.float32], radius_px: float | None = None) -> FloatArray:
    """Variance inside the particle's circle over that outside, minus 1: a rough signal-to-noise ratio of each image.

    The low-frequency excess of ice and neighbours counts too, so the figure compares sets, it does not measure SNR.

    Parameters
    ----------
    images : (n, N, N) float32
        Normalised images.
    radius_px : float, optional
        Of the circle; by default 0.75 of the half box, as for normalising.

    Returns
    -------
    (n,) float64

    Examples
    --------
    >>> import numpy as np
    >>> from verglas.extraction import background_excess
    >>> noise = np.random.default_rng(0).normal(size=(2, 64, 64)).astype(np.float32)
    >>> bool(np.abs(background_excess(noise)).max() < 0.1)
    True
    """
    distance, radius = _from_the_middle(images, radius_px)
    inside = distance <= radius
    out = np.empty(len(images))
    for i, one in enumerate(images):  # one at a time: memory, and independence of the batch
        out[i] = one[inside].var(dtype=np.float64) / one[~inside].var(dtype=np.float64) - 1
    return out


@any_arrays
def centre_contrast(images: npt.NDArray[np.float32], radius_px: float | None = None) -> FloatArray:
    """Mean of the middle of each image less that outside the particle's circle: positive where a particle is.

    Of one image it is noise; over a set it says whether coordinates point at particles, and whether these are white.
    In nine micrographs of beta-galactosidase and three of apoferritin its mean is 22 to 44 standard errors above zero.

    Parameters
    ----------
    images : (n, N, N) float32
        Normalised images.
    radius_px : float, optional
        Of the circle; by default 0.75 of the half box, as for normalising.

    Returns
    -------
    (n,) float64

    Examples
    --------
    >>> import numpy as np
    >>> from verglas.extraction import centre_contrast
    >>> one = np.zeros((1, 32, 32), np.float32)
    >>> one[0, 7:26, 7:26] = 2
    >>> centre_contrast(one).round(1).tolist()
    [2.0]
    """
    distance, radius = _from_the_middle(images, radius_px)
    inside, outside = distance <= _MIDDLE * radius, distance > radius
    out = np.empty(len(images))
    for i, one in enumerate(images):
        out[i] = one[inside].mean(dtype=np.float64) - one[outside].mean(dtype=np.float64)
    return out


def _from_the_middle(images: npt.NDArray[np.float32], radius_px: float | None) -> tuple[FloatArray, float]:
    """Distance of each pixel of an image from its middle, and the radius of the particle's circle."""
    box = images.shape[-1]
    pixel = np.arange(box) - box // 2
    return np.hypot(pixel, pixel[:, None]), 0.375 * box if radius_px is None else radius_px
