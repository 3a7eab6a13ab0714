r"""Filters for particles that are long or flat: bands of the micrograph, each split by angular order.

With h_b(k) the transfer function of band b (:mod:`.discriminant`) and phi the direction of k, the maps

.. math:: A_{bm} = \mathcal F^{-1}[ h_b(k)\, e^{i m \varphi}\, \mathcal F[I] ], \qquad m = 0, 2, 4, 6

turn with the image: a template t turned by theta has the features e^{i m theta} t_bm. Its matched filter in noise whose
power depends on abs(k) alone is, for every theta at once,

.. math:: \mathrm{score}_\theta = \mathrm{Re} \sum_{bm} e^{-i m \theta}\, w_{bm} A_{bm}, \qquad w_m = C_m^{-1} t_m

(steerable filters: Freeman and Adelson 1991, IEEE Trans. Pattern Anal. Mach. Intell. 13, 891-906), C_m the covariance
of bands measured on the micrograph. The score of a pixel is the largest over theta; seven transforms serve all of
them. The first template is the projection of a solid ellipsoid; the highest peaks, turned to one direction, teach the
next.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from verglas import fourier, ops
from verglas.picking.discriminant import RIDGE, WIDTHS, Bands, BandStatistics
from verglas.picking.image import SmallImage
from verglas.types.arrays import Float32Array, FloatArray

# Angular orders, and how many bands from the narrowest have them: an order m within a radius r needs k r > m / 1.5.
ORDERS = (0, 2, 4, 6)
_BANDS = (7, 5, 3, 2)
# Orientations of half a turn: the highest order's period has 5.
ANGLES = np.arange(16) * np.pi / 16
# Half side of the windows that picks teach from, in radii.
_KERNEL = 2.5
# Axes of the solid ellipsoid whose projection is the first template, in particle diameters.
ELLIPSOID = (1.1, 0.4)


@dataclass(frozen=True)
class OrientedFilter:
    """Weights of the bands, one array for each of :data:`ORDERS`; the score of noise has unit deviation."""

    weights: tuple[FloatArray, ...]


@lru_cache(maxsize=8)
def _ellipsoid_features(long: float, short: float) -> tuple[FloatArray, ...]:
    """Features of the projection of a solid ellipsoid at its centre, by order; axes in particle diameters."""
    k = np.linspace(0.05, 26.0, 400)[:, None]  # times the particle's radius
    angles = np.linspace(0, np.pi, 180, endpoint=False)
    q = k * np.hypot(long * np.cos(angles), short * np.sin(angles))
    transform = 3 * (np.sin(q) - q * np.cos(q)) / q**3
    narrow, wide = (np.exp(-((k * np.array(w)) ** 2) / 2) for w in (WIDTHS[:-1], WIDTHS[1:]))
    radial = (k * (narrow - wide)).T  # (bands, k)
    return tuple(
        (radial[:count] @ transform) @ np.cos(order * angles) for order, count in zip(ORDERS, _BANDS, strict=True)
    )


def ellipsoid_filter(long: float, short: float, rest: BandStatistics) -> OrientedFilter:
    """Matched filter for the projections of a solid ellipsoid in a micrograph of these statistics.

    Parameters
    ----------
    long, short : float
        Axes, in particle diameters.
    rest : BandStatistics
        Of the bands over the micrograph.

    Returns
    -------
    OrientedFilter

    Examples
    --------
    >>> import numpy as np
    >>> from verglas.picking.discriminant import BandStatistics
    >>> from verglas.picking.oriented import ellipsoid_filter
    >>> white = BandStatistics(np.zeros(7), np.ones(7), np.eye(7))
    >>> [round(float(np.abs(w).max()), 2) for w in ellipsoid_filter(1.0, 1.0, white).weights]
    [0.55, 0.0, 0.0, 0.0]
    """
    return _matched_filter(_ellipsoid_features(long, short), rest)


def _matched_filter(template: Sequence[FloatArray], rest: BandStatistics) -> OrientedFilter:
    """Matched filter for the features of a template, by order."""
    covariance = (rest.correlation + RIDGE * np.eye(len(rest.mean))) * np.outer(rest.deviation, rest.deviation)
    weights, variance = [], 0.0
    for order, count, features in zip(ORDERS, _BANDS, template, strict=True):
        # Of a complex feature only the part in phase with the template counts: half the variance.
        own = covariance[:count, :count] * (0.5 if order else 1.0)
        weights.append(np.linalg.solve(own, features))
        variance += float(weights[-1] @ own @ weights[-1])
    return OrientedFilter(tuple(w / np.sqrt(variance) for w in weights))


def oriented_response(
    spectrum: npt.NDArray[np.complex64],
    bands: Bands,
    chosen: OrientedFilter,
    *,
    threads: int | None = None,
) -> tuple[Float32Array, npt.NDArray[np.int32]]:
    """Largest score over all orientations at every pixel, and which orientation has it.

    Parameters
    ----------
    spectrum : (padded y, padded x // 2 + 1) complex64
        Of an image padded as ``bands`` has it.
    bands : Bands
        Transfer functions, and where the image lies.
    chosen : OrientedFilter
    threads : int, optional
        Threads; all by default.

    Returns
    -------
    score : (y, x) float32
    which : (y, x) int32
        Row of :data:`ANGLES`.
    """
    maps = []
    for order, weights in zip(ORDERS, chosen.weights, strict=True):
        transfer = np.tensordot(weights.astype(np.float32), bands.transfers[: len(weights)], 1)
        filtered = spectrum * transfer
        for factor in bands.turns(order):
            maps.append(fourier.inverse(filtered * factor, bands.padded, threads=threads)[bands.window])
    stack = np.stack(maps).reshape(len(maps), -1)
    best, which = ops.match(stack, _mix(), threads=threads)
    return best.reshape(maps[0].shape), which.reshape(maps[0].shape)


def _mix() -> Float32Array:
    """Rows of cos and sin of order times angle, for every angle."""
    columns = [np.ones(len(ANGLES))]
    for order in ORDERS[1:]:
        columns += [np.cos(order * ANGLES), np.sin(order * ANGLES)]
    return np.stack(columns, axis=1).astype(np.float32)


def learned_filter(
    small: SmallImage, bands: Bands, rest: BandStatistics, xy_px: npt.ArrayLike, which: npt.NDArray[np.int32]
) -> OrientedFilter | None:
    """Matched filter for the mean of picks, each turned to the direction that its pixel has; None if none has room.

    Parameters
    ----------
    small : SmallImage
    bands : Bands
        Of its data.
    rest : BandStatistics
    xy_px : (n, 2) float
        Picks.
    which : (y, x) int32
        Of :func:`oriented_response`.

    Returns
    -------
    OrientedFilter or None
    """
    half = int(np.ceil(_KERNEL * small.radius_px))
    x, y = np.rint(np.asarray(xy_px, np.float64).reshape(-1, 2)).astype(np.int64).T
    height, width = small.shape_here
    room = (x >= half) & (x < width - half) & (y >= half) & (y < height - half)
    x, y = x[room], y[room]
    if not len(x):
        return None
    side = 2 * half + 1
    windows = np.lib.stride_tricks.sliding_window_view(small.data, (side, side))[y - half, x - half].reshape(len(x), -1)
    turned = np.exp(-1j * np.multiply.outer(ORDERS, ANGLES[which[y, x]]))
    template = [bands.maps[:, y, x].mean(axis=1, dtype=np.float64) - rest.mean]
    for number, count in enumerate(_BANDS[1:], 1):
        features = windows @ _kernels(half, small.radius_px, ORDERS[number], count)
        template.append((features * turned[number][:, None]).real.mean(axis=0))
    return _matched_filter(template, rest)


@lru_cache(maxsize=16)
def _kernels(half: int, radius_px: float, order: int, count: int) -> npt.NDArray[np.complex64]:
    """What a window is multiplied by to have the features of one order at its centre, (side * side, bands)."""
    side = 2 * half + 1
    ky, kx = np.fft.fftfreq(side)[:, None], np.fft.fftfreq(side)[None]
    square = (ky**2 + kx**2) * (2 * np.pi * radius_px) ** 2 / 2
    phases = ((kx + 1j * ky) / np.maximum(np.hypot(ky, kx), 1e-9)) ** order
    gaussians = np.exp(-square * np.array(WIDTHS)[: count + 1, None, None] ** 2)
    # A feature at the centre is the sum of the spectrum: the kernel is the transform of the transfer, turned over.
    centred = np.fft.fftshift(np.fft.fft2((gaussians[:-1] - gaussians[1:]) * phases), axes=(1, 2)) / side**2
    return np.ascontiguousarray(centred.reshape(count, -1).T.astype(np.complex64))
