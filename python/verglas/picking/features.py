r"""Classical pickers by features, each a score for every pixel or every peak.

``variance``
    The local variance (van Heel 1982, Ultramicroscopy 7, 331-341) with Gaussian weights,

    .. math:: V = G_\sigma * I^2 - (G_\sigma * I)^2, \qquad \sigma = r / \sqrt{2 \ln 2}

    of a bright disc of radius r is largest at its centre: there it has half of the weight, and V is a quarter of its
    contrast squared. Detail finer than a quarter of the radius is smoothed away first: its variance would drown V.
``reduced``
    The share of a window that lies in the space of a few images, the mean of the examples and their principal
    components in all orientations (reduced representations: Volkmann 2004, J. Struct. Biol. 145, 152-156). A component
    counts for 1 - V_0 / V_1, with V_1 and V_0 its variance among particles and among background.
``signature``
    Correlation with the examples' average c; a peak counts for less where the map of c about it is less like what it is
    about a particle, the average's own autocorrelation, than about the examples (Chen and Grigorieff 2007, J. Struct.
    Biol. 157, 168-173).
``swarm``
    A peak of c is kept if its height and its profile, what it stands above the highest place of each ring about it, are
    as high as the examples' (Woolford et al. 2007, J. Struct. Biol. 157, 174-188).
``invariants``
    A classifier of rotational invariants (:mod:`verglas.picking.invariants`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from verglas import masks
from verglas.image import rotate
from verglas.picking.average import search_disc
from verglas.picking.examples import PickExamples, examples_of_peaks
from verglas.picking.image import SmallImage
from verglas.picking.invariants import invariant_peaks
from verglas.picking.local import log_deviation
from verglas.picking.scored import ScoredPeaks, Search
from verglas.picking.template import MASK_OVER_PARTICLE, TemplateBank, basis_maps, correlate, template_bank
from verglas.types.arrays import Float32Array, FloatArray

FEATURE_METHODS = ("variance", "reduced", "signature", "swarm", "invariants")
# Images of the reduced representation beside the mean; orientations and examples that they are learned from.
_COMPONENTS, _TURNS, _REDUCED = 4, 12, 200
# Rings of swarm's profile, in radii; share of self-taught examples that a limit may lose: some are no particles.
_RINGS, _LOST = np.linspace(0.2, 1.0, 5), 0.1
# Examples whose profiles and shapes make the limits, at most.
_COMPARED = 100


def feature_peaks(search: Search, peaks: ScoredPeaks, method: str, examples: PickExamples | None = None) -> ScoredPeaks:
    """Peaks of one of :data:`FEATURE_METHODS`.

    Parameters
    ----------
    search : Search
    peaks : ScoredPeaks
        Of the learned filter: what teaches where there are no examples.
    method : str
    examples : PickExamples, optional

    Returns
    -------
    ScoredPeaks

    Raises
    ------
    InputError
        Examples of another sampling than the search's.
    """
    small = search.small
    if method == "variance":
        return search.peaks(method, local_variance(small))
    taught = examples or examples_of_peaks(small, peaks)
    if method == "invariants":
        return invariant_peaks(search, peaks, taught)
    average = taught.average()
    bank = template_bank(average[None], small.pixel_size_A, MASK_OVER_PARTICLE * small.radius_px)
    searched = search_disc(small, threads=search.threads)
    if method == "reduced":
        space = reduced_space(taught, small)
        return search.peaks(
            method, share_in_space(basis_maps(searched, space, threads=search.threads), space, searched.deviation)
        )
    score, _ = correlate(searched, bank, threads=search.threads)
    if method == "signature":
        return _signature_peaks(search, score, taught, average)
    return _swarm_peaks(search, score, taught, average)


def local_variance(small: SmallImage) -> Float32Array:
    """Logarithm of the local deviation at every pixel, in units of its own deviation over the image.

    Examples
    --------
    >>> import numpy as np, verglas as vg
    >>> from verglas.picking import prepare
    >>> from verglas.picking.features import local_variance
    >>> y, x = np.mgrid[:240, :300]
    >>> rng = np.random.default_rng(0)
    >>> disc = vg.Micrograph(rng.normal(size=x.shape) - 2.0 * (np.hypot(x - 70, y - 110) < 15), 4.0)
    >>> small = prepare(disc, 120.0)
    >>> score = local_variance(small)
    >>> top = np.unravel_index(score.argmax(), score.shape)
    >>> bool(np.abs(small.to_micrograph(top[::-1])[0] - (70, 110)).max() < 8)
    True
    """
    radius = small.radius_px
    smooth = ndimage.gaussian_filter(small.data.astype(np.float64), 0.25 * radius, mode="reflect")
    score = log_deviation(gaussian_variance(smooth, radius / np.sqrt(2 * np.log(2))))
    return np.asarray((score - score.mean()) / max(float(score.std()), 1e-12), np.float32)


def gaussian_variance(data: npt.ArrayLike, width_px: float) -> FloatArray:
    """Variance about every pixel with the weights of a Gaussian of a width."""
    values = np.asarray(data, np.float64)
    mean = ndimage.gaussian_filter(values, width_px, mode="reflect")
    return np.asarray(ndimage.gaussian_filter(values**2, width_px, mode="reflect") - mean**2)


def reduced_space(examples: PickExamples, small: SmallImage) -> TemplateBank:
    """Mean of the examples and their principal components, as orthonormal images with weights; the mean first."""
    reach = MASK_OVER_PARTICLE * small.radius_px
    side = 2 * int(np.ceil(reach)) + 1
    mask = masks.soft_circle(side, reach)
    angles = np.arange(_TURNS) * 360.0 / _TURNS
    # In all orientations: a component is then as much of any particle, however it lies.
    rows = _unit_rows([rotate(one, float(angle)) for one in examples.particles[:_REDUCED] for angle in angles], mask)
    mean = rows.mean(axis=0)
    mean /= np.linalg.norm(mean)
    rest = rows - np.outer(rows @ mean, mean)
    _, vectors = np.linalg.eigh(rest.T @ rest)
    flat = np.vstack([mean, vectors[:, : -_COMPONENTS - 1 : -1].T])
    of_particles = ((rows @ flat.T) ** 2).mean(axis=0)
    weights = np.ones(len(flat))
    if len(examples.others):
        # Whatever window it is, slow gradients and neighbours are much of it: they tell nothing of particles.
        of_others = ((_unit_rows(list(examples.others[: 2 * _REDUCED]), mask) @ flat.T) ** 2).mean(axis=0)
        weights[1:] = np.maximum(0, 1 - of_others / of_particles)[1:]
    basis = np.zeros((len(flat), side, side), np.float32)
    basis[:, mask > 0] = flat
    return TemplateBank(basis, np.diag(np.sqrt(weights)).astype(np.float32), mask, small.pixel_size_A)


def _unit_rows(windows: list[Float32Array], mask: Float32Array) -> FloatArray:
    """Middles of windows, smoothed by a pixel, of mean 0 and norm 1 under the mask, (n, pixels)."""
    cut = (windows[0].shape[0] - mask.shape[0]) // 2
    middle = slice(cut, cut + mask.shape[0])
    stack = ndimage.gaussian_filter(np.stack(windows)[:, middle, middle], (0, 1, 1))
    rows = stack[:, mask > 0].astype(np.float64)
    rows -= rows.mean(axis=1, keepdims=True)
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12))


def share_in_space(maps: Float32Array, space: TemplateBank, deviation: Float32Array) -> Float32Array:
    """Norm of a window's part in the space over that of the window, with the sign of its correlation with the mean.

    Parameters
    ----------
    maps : (images, y, x) float32
        Of :func:`verglas.picking.template.basis_maps`.
    space : TemplateBank
    deviation : (y, x) float32
        Of the window about each pixel.

    Returns
    -------
    (y, x) float32
    """
    weights = np.diag(space.mix).astype(np.float64) ** 2
    norm = np.sqrt(np.tensordot(weights, maps.astype(np.float64) ** 2, 1)) * np.sign(maps[0])
    usable = deviation > 1e-3 * float(deviation.max(initial=0.0))
    return np.divide(norm, deviation, out=np.zeros_like(norm), where=usable).clip(-1, 1).astype(np.float32)


def peak_shape(
    score: Float32Array, average: Float32Array, small: SmallImage, *, threads: int | None = None
) -> Float32Array:
    """Correlation of the neighbourhood of every pixel of a score map with the average's autocorrelation.

    Parameters
    ----------
    score : (y, x) float32
        Normalised cross-correlation with ``average``.
    average : (s, s) float32
    small : SmallImage
        For the particle's radius.
    threads : int, optional
        Threads; all by default.

    Returns
    -------
    (y, x) float32
        1 where the map looks as it does about a noiseless particle.
    """
    side, reach = average.shape[0], MASK_OVER_PARTICLE * small.radius_px
    wide = np.pad(average - average.mean(), side // 2 + 1)
    bank = template_bank(average[None], small.pixel_size_A, reach)
    expected, _ = correlate(wide, bank, threads=threads)
    middle = slice(side // 2 + 1, side // 2 + 1 + side)
    shape = template_bank(expected[None, middle, middle], small.pixel_size_A, reach)
    return correlate(score, shape, threads=threads)[0]


def _signature_peaks(search: Search, score: Float32Array, taught: PickExamples, average: Float32Array) -> ScoredPeaks:
    """Peaks of the correlation, lowered where their shape is less like a particle's than that of the examples."""
    small = search.small
    peaks = search.peaks("signature", score, average)
    alike = _at(peak_shape(score, average, small, threads=search.threads), peaks.xy_px)
    reference = [
        float(_at(peak_shape(one, average, small, threads=1), at)[0])
        for one, at in _correlated_examples(taught, average, small)
    ]
    limit = float(np.quantile(reference, 0.0 if taught.by_hand else _LOST))
    # Where the examples have no shape of their own it says nothing.
    share = np.clip(alike / limit, 0, 1) if limit > 0 else np.ones(len(alike))
    heights = np.where(peaks.heights > 0, peaks.heights * share, peaks.heights)
    order = np.argsort(-heights, kind="stable")
    return replace(peaks, xy_px=peaks.xy_px[order], heights=heights[order])


def _swarm_peaks(search: Search, score: Float32Array, taught: PickExamples, average: Float32Array) -> ScoredPeaks:
    """Peaks of the correlation whose height and profile reach those of the examples."""
    peaks = search.peaks("swarm", score, average)
    radius = search.small.radius_px
    examples = _correlated_examples(taught, average, search.small)
    reference = np.concatenate([_profiles(one, at, radius) for one, at in examples])
    mine = _profiles(score, peaks.xy_px, radius)
    lowest = 0.0 if taught.by_hand else _LOST
    limit, middle = np.quantile(reference, lowest, axis=0), np.median(reference, axis=0)
    # 0 at the limit and 1 at a typical example, of the worst of the features: a peak has to reach all of them.
    heights = ((mine - limit) / np.maximum(middle - limit, 1e-6)).min(axis=1, initial=np.inf)
    order = np.argsort(-heights, kind="stable")
    return replace(peaks, xy_px=peaks.xy_px[order], heights=heights[order], cut=replace(peaks.cut, threshold=0.0))


def _correlated_examples(
    taught: PickExamples, average: Float32Array, small: SmallImage
) -> Iterator[tuple[Float32Array, FloatArray]]:
    """Each example correlated with the average by itself, and its highest place (1, 2)."""
    half = taught.particles.shape[1] // 2
    bank = template_bank(average[None], small.pixel_size_A, MASK_OVER_PARTICLE * small.radius_px)
    centre = np.array([[half, half]], np.float64)
    for window in taught.particles[:_COMPARED]:
        score = correlate(window, bank, threads=1)[0]
        yield score, _highest(score, centre, small.radius_px)


def _at(score: Float32Array, xy_px: FloatArray) -> FloatArray:
    x, y = np.rint(xy_px).astype(np.int64).T
    return score[y.clip(0, score.shape[0] - 1), x.clip(0, score.shape[1] - 1)].astype(np.float64)


def _highest(score: Float32Array, centre: FloatArray, radius_px: float) -> FloatArray:
    """The highest place within a third of the radius: clicks are not on peaks."""
    reach = max(1, round(radius_px / 3))
    x, y = centre[0].astype(int)
    near = score[y - reach : y + reach + 1, x - reach : x + reach + 1]
    row, column = np.unravel_index(int(near.argmax()), near.shape)
    return np.array([[x - reach + column, y - reach + row]], np.float64)


def _profiles(score: Float32Array, xy_px: npt.ArrayLike, radius_px: float) -> FloatArray:
    """Height of each peak, and how far it stands above the highest place of each ring, (n, 1 + rings)."""
    x, y = np.rint(np.asarray(xy_px, np.float64).reshape(-1, 2)).astype(np.int64).T
    height, width = score.shape
    heights = _at(score, np.asarray(xy_px, np.float64).reshape(-1, 2))
    columns = [heights]
    angles = np.arange(24) * 2 * np.pi / 24
    for ring in _RINGS * radius_px:
        rows = np.rint(y[:, None] + ring * np.sin(angles)).astype(np.int64).clip(0, height - 1)
        places = np.rint(x[:, None] + ring * np.cos(angles)).astype(np.int64).clip(0, width - 1)
        columns.append(heights - score[rows, places].max(axis=1, initial=-1.0))
    return np.stack(columns, axis=1)
