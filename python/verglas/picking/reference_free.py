"""Picking without a template, in the manner of the APPLE picker.

Windows of the micrograph are scored by how many reference windows they resemble: references are the extremes of mean
and variance in each part of the micrograph, so some hold particles and some background. Particles resemble each other,
noise resembles nothing: the best-scored windows train one class, the worst-scored the other, of a support vector
machine on mean and standard deviation, which then judges every position (Heimowitz, Anden and Singer 2018, J. Struct.
Biol. 204, 215-227). The published picker ends with morphology on that map; here its maxima are the starts of
:mod:`verglas.picking.average`, which separates particles that touch.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from verglas import masks, ops
from verglas.picking.blob import sparse_start
from verglas.picking.image import SmallImage
from verglas.picking.local import disc_mean
from verglas.picking.template import TemplateBank, basis_maps, search_image, template_bank
from verglas.types.arrays import Float32Array

# Side of a window over the particle's diameter; parts of the micrograph that references are taken from, per axis.
_WINDOW = 0.8
_PARTS = 6
# Shares of the windows that train: the best-scored as particles, those beyond the worst-scored as background.
BEST, WORST = 0.05, 0.45
_TRAIN_AT_MOST = 1500


@dataclass(frozen=True)
class Windows:
    """Windows on a grid: centres (y, x), mean and standard deviation."""

    centres: npt.NDArray[np.int64]
    features: npt.NDArray[np.float64]


def local_features(small: SmallImage) -> npt.NDArray[np.float64]:
    """Mean and standard deviation over a window about every pixel, (y, x, 2)."""
    radius = _WINDOW * small.radius_px
    window = masks.soft_circle(2 * int(np.ceil(radius)) + 1, radius)
    deviation = search_image(small.data, window).deviation / np.sqrt(window.sum(dtype=np.float64))
    return np.stack([disc_mean(small.data, radius), deviation], axis=-1)


def _grid(small: SmallImage, allowed: npt.NDArray, features: npt.NDArray[np.float64]) -> Windows:
    half = int(np.ceil(_WINDOW * small.radius_px))
    step = max(1, half // 2)
    ys, xs = (np.arange(half, n - half, step) for n in small.data.shape)
    y, x = (g.ravel() for g in np.meshgrid(ys, xs, indexing="ij"))
    keep = allowed[y, x]
    centres = np.stack([y[keep], x[keep]], axis=1)
    return Windows(centres, features[centres[:, 0], centres[:, 1]])


def _references(windows: Windows, shape: tuple[int, int]) -> npt.NDArray[np.int64]:
    """Numbers of the windows of extreme mean and deviation in each part of the micrograph."""
    part = np.minimum(windows.centres * _PARTS // np.array(shape), _PARTS - 1) @ np.array([_PARTS, 1])
    chosen: set[int] = set()
    for one in np.unique(part):
        rows = np.flatnonzero(part == one)
        for column in (0, 1):
            values = windows.features[rows, column]
            chosen |= {int(rows[values.argmin()]), int(rows[values.argmax()])}
    return np.array(sorted(chosen), np.int64)


def _reference_bank(small: SmallImage, windows: Windows, rows: npt.NDArray[np.int64]) -> TemplateBank:
    half = int(np.ceil(_WINDOW * small.radius_px))
    y, x = windows.centres[rows].T
    view = np.lib.stride_tricks.sliding_window_view(small.data, (2 * half + 1, 2 * half + 1))
    stack = view[y - half, x - half]
    stack = stack[stack.std(axis=(1, 2)) > 0]
    # Scores are only counted against a quantile: a hundredth of the power may be left out.
    return template_bank(stack, small.pixel_size_A, _WINDOW * small.radius_px, left_out=0.01)


def resemblance(small: SmallImage, bank: TemplateBank, *, threads: int | None = None) -> Float32Array:
    """How many references each position resembles, counted with the best of the positions around it.

    A reference is resembled where its normalised cross-correlation is among the highest twentieth of all.
    """
    searched = search_image(small.data, bank.mask, threads=threads)
    flat = basis_maps(searched, bank, threads=threads).reshape(len(bank.basis), -1)
    usable = np.maximum(searched.deviation.ravel(), 1e-3 * searched.deviation.max())
    sample = (bank.mix @ flat[:, ::37]) / usable[::37]
    limit = float(np.quantile(sample, 0.95))
    count = np.empty(flat.shape[1], np.float32)
    for start in range(0, flat.shape[1], 4096):
        part = slice(start, start + 4096)
        count[part] = ((bank.mix @ flat[:, part]) > limit * usable[part]).sum(axis=0)
    around = 2 * (int(np.ceil(_WINDOW * small.radius_px)) // 4) + 1
    return ndimage.maximum_filter(count.reshape(small.data.shape), around)


def particle_map(small: SmallImage, allowed: npt.NDArray, *, threads: int | None = None) -> Float32Array | None:
    """The classifier's decision at every position: positive looks like a particle.

    Parameters
    ----------
    small : SmallImage
    allowed : (y, x) bool
        Positions that take part.
    threads : int, optional
        Threads; all by default.

    Returns
    -------
    (y, x) float32 or None
        None if fewer than 20 windows are allowed.
    """
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC

    features = local_features(small)
    windows = _grid(small, allowed, features)
    if len(windows.centres) < 20:
        return None
    bank = _reference_bank(small, windows, _references(windows, small.shape_here))
    count = resemblance(small, bank, threads=threads)[windows.centres[:, 0], windows.centres[:, 1]]
    order = np.argsort(-count, kind="stable")
    n_best, n_worst = max(5, int(BEST * len(order))), max(5, int(WORST * len(order)))
    best, worst = order[:n_best], order[len(order) - n_worst :]
    best, worst = best[:: -(-len(best) // _TRAIN_AT_MOST)], worst[:: -(-len(worst) // _TRAIN_AT_MOST)]
    scaler = StandardScaler().fit(windows.features)
    train = scaler.transform(windows.features[np.r_[best, worst]])
    labels = np.r_[np.ones(len(best)), np.zeros(len(worst))]
    machine = SVC(kernel="rbf", gamma="scale", class_weight="balanced").fit(train, labels)
    coarse = machine.decision_function(scaler.transform(features[::2, ::2].reshape(-1, 2)))
    wide = coarse.reshape(features[::2, ::2].shape[:2]).repeat(2, 0).repeat(2, 1)
    return wide[: small.data.shape[0], : small.data.shape[1]].astype(np.float32)


def classifier_starts(
    small: SmallImage, allowed: npt.NDArray, distance_px: float, *, threads: int | None = None
) -> list[npt.NDArray[np.float64]]:
    """Maxima of the smoothed decision that are positive, for two widths of smoothing.

    A classifier that is given the best twentieth of the windows as particles learns background where there are fewer:
    the best few blobs are a start, too.
    """
    starts = [sparse_start(small, allowed, distance_px)]
    decision = particle_map(small, allowed, threads=threads)
    if decision is None:
        return starts
    for width in (0.5, 0.8):
        smooth = disc_mean(decision, width * small.radius_px).astype(np.float32)
        xy, heights = ops.peaks(smooth, distance_px, mask=allowed)
        positive = max(int((heights > 0).sum()), 1)
        starts += [xy[: max(positive, len(xy) // 10)], xy[: max(4, len(xy) // 25)]]
    return starts
