"""Where the centre of a particle lies in its box: mass, geometric median, and a centre that noise does not move.

Positions are (x, y) in pixels, the first pixel is (0, 0); a centred particle lies at N // 2. Images have white
particles on a background of mean 0.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import scipy.ndimage
import scipy.special

from verglas import fourier, masks
from verglas.errors import InputError
from verglas.fourier import fast_size
from verglas.types.arrays import FloatArray, any_arrays

METHODS = ("surrogate", "disc", "mass", "median")
# Width of the Gaussian over the radius; from a twelfth to a fourth makes no difference.
_LANDSCAPE_SMOOTH = 1 / 6


def _stack(images: npt.ArrayLike) -> FloatArray:
    array = np.asarray(images, np.float64)
    array = array[None] if array.ndim == 2 else array
    if array.ndim != 3:
        raise InputError(f"images: expected (n, y, x) or (y, x), got shape {array.shape}")
    bad = np.flatnonzero(~np.isfinite(array).all(axis=(1, 2)))
    if bad.size:
        raise InputError(f"image {bad[0]} (from 0) holds values that are not finite; {bad.size} images concerned")
    return array


@any_arrays
def centre_of_mass(images: npt.ArrayLike) -> FloatArray:
    r"""Mean position weighted by grey value.

    .. math:: \mu = \frac{\sum_p I(p)\, p}{\sum_p I(p)} = \arg\min_x \sum_p I(p)\, d(p, x)^2

    Parameters
    ----------
    images : (n, y, x) or (y, x) float
        Grey values are taken as they are: noise counts, and a sum near 0 sends the centre anywhere.

    Returns
    -------
    (n, 2) float64
        x, y in pixels.

    Raises
    ------
    InputError
        An image whose sum is not positive.

    Examples
    --------
    >>> import numpy as np
    >>> from verglas.extraction import centre_of_mass
    >>> spot = np.zeros((5, 9)); spot[3, 2], spot[3, 6] = 1, 3
    >>> centre_of_mass(spot).tolist()
    [[5.0, 3.0]]
    """
    stack = _stack(images)
    total = stack.sum(axis=(1, 2))
    bad = np.flatnonzero(~(total > 0))
    if bad.size:
        raise InputError(f"centre of mass: image {bad[0]} (from 0) sums to {total[bad[0]]:g}; expected more than 0")
    y, x = np.arange(stack.shape[1]), np.arange(stack.shape[2])
    return np.stack([stack.sum(axis=1) @ x, stack.sum(axis=2) @ y], axis=1) / total[:, None]


@any_arrays
def geometric_median(images: npt.ArrayLike, *, tolerance_px: float = 1e-4, rounds: int = 200) -> FloatArray:
    r"""Position of least weighted distance: half the mass has to move before it leaves the other half.

    .. math:: \mu_1 = \arg\min_x \sum_p I(p)\, d(p, x)

    by Weiszfeld's iteration in the form of Vardi and Zhang (2000, Proc. Natl. Acad. Sci. 97, 1423-1426), which does not
    stop at a pixel it happens to meet.

    Parameters
    ----------
    images : (n, y, x) or (y, x) float
        Negative values count as 0.
    tolerance_px : float
        Step below which the iteration ends.
    rounds : int
        At most.

    Returns
    -------
    (n, 2) float64
        x, y in pixels.

    Examples
    --------
    >>> import numpy as np
    >>> from verglas.extraction import centre_of_mass, geometric_median
    >>> image = np.zeros((9, 99)); image[4, 4], image[4, 90] = 4, 1
    >>> centre_of_mass(image).round(1).tolist(), geometric_median(image).round(1).tolist()
    ([[21.2, 4.0]], [[4.0, 4.0]])
    """
    stack = np.maximum(_stack(images), 0)
    y, x = np.indices(stack.shape[1:])
    points = np.stack([x.ravel(), y.ravel()], axis=1).astype(np.float64)
    medians = centre_of_mass(stack)
    for number, weights in enumerate(stack.reshape(len(stack), -1)):
        at, mass, here = medians[number], weights[weights > 0], points[weights > 0]
        for _ in range(rounds):
            step = _weiszfeld(at, here, mass)
            at = at + step
            if np.abs(step).max() < tolerance_px:
                break
        medians[number] = at
    return medians


def _weiszfeld(at: FloatArray, points: FloatArray, mass: FloatArray) -> FloatArray:
    """One step, with the mass at the current position pulling it back (Vardi and Zhang)."""
    offset = points - at
    distance = np.hypot(*offset.T)
    away = distance > 1e-9
    pull = mass[away] / distance[away]
    if not pull.size:
        return np.zeros(2)
    towards = pull @ offset[away]
    strength = float(np.hypot(*towards))
    own = float(mass[~away].sum())
    factor = 1.0 if strength == 0 else max(0.0, 1 - own / strength)
    return np.asarray(factor * towards / pull.sum())


@any_arrays
def surrogate_landscape(images: npt.ArrayLike, radius_px: float) -> FloatArray:
    r"""The landscape whose lowest point is the surrogate centre.

    .. math::
        L(p) = \sum_{r=0}^{R} \left| \frac{u_p[r]}{E_{max}} - 1 \right|, \qquad
        u_p[r] = \sum_{|q - p| \le r} I(q), \qquad E_{max} = \max_p u_p[R]

    u_p are the cumulative ring sums about p: about the centre of a compact object they reach the whole mass soonest,
    and being sums over discs they average the noise. Each disc is one product of transforms for all positions.

    Parameters
    ----------
    images : (n, y, x) or (y, x) float
        Background of mean 0; outside the box is 0.
    radius_px : float
        R, the particle's radius.

    Returns
    -------
    (n, y, x) float64

    Raises
    ------
    InputError
        A radius below 1 or beyond the box, or an image with no disc of positive sum.

    Notes
    -----
    Source: Heimowitz, Sharon and Singer (2021), SIAM J. Imaging Sci. 14, 1138-1160, algorithm 3.1. R + 2 transforms per
    image. A neighbour that reaches into the box adds to the sums on its side and moves the centre towards itself: with
    neighbours, choose R no larger than the particle's radius, and do not trust the result where the box holds two.
    """
    stack = _stack(images)
    if not 1 <= radius_px <= min(stack.shape[1:]):
        raise InputError(f"radius_px: expected 1 to {min(stack.shape[1:])} for this box, got {radius_px}")
    margin = int(np.ceil(radius_px))
    shape = tuple(fast_size(n + 2 * margin) for n in stack.shape[1:])
    before = [(m - n) // 2 for m, n in zip(shape, stack.shape[1:], strict=True)]
    window = tuple(slice(b, b + n) for b, n in zip(before, stack.shape[1:], strict=True))
    padded = np.zeros((len(stack), *shape))
    padded[(slice(None), *window)] = stack
    spectra = fourier.forward(padded, 2)
    distance = masks.distance_from(shape)
    radii = np.arange(margin + 1)

    def sums(radius: int) -> FloatArray:
        disc = fourier.forward((distance <= radius).astype(np.float64), 2)
        return fourier.inverse(spectra * disc, shape)[(slice(None), *window)]

    largest = sums(margin).max(axis=(1, 2))
    bad = np.flatnonzero(~(largest > 0))
    if bad.size:
        raise InputError(f"surrogate centre: image {bad[0]} (from 0) has no disc of positive sum; is it inverted?")
    landscape = np.zeros_like(stack)
    for radius in radii:
        landscape += np.abs(sums(int(radius)) / largest[:, None, None] - 1)
    return landscape


@any_arrays
def surrogate_centre(images: npt.ArrayLike, radius_px: float, *, batch: int = 64) -> FloatArray:
    """Centre of a particle that neither noise nor its shape moves far: lowest point of :func:`surrogate_landscape`.

    The landscape is smoothed by a Gaussian of a sixth of the radius first: at an SNR of 1/45 its small discs make it
    rough, and without this three times as many centres are off by more than 3 pixels (tests/test_centre.py).

    Parameters
    ----------
    images : (n, y, x) or (y, x) float
    radius_px : float
        The particle's radius.
    batch : int
        Images transformed together; the result does not depend on it.

    Returns
    -------
    (n, 2) float64
        x, y in pixels, whole numbers.

    Examples
    --------
    >>> import numpy as np
    >>> from verglas.extraction import surrogate_centre
    >>> y, x = np.indices((48, 48))
    >>> disc = (np.hypot(x - 29, y - 20) < 9).astype(float)
    >>> surrogate_centre(disc + np.random.default_rng(0).normal(0, 0.3, (48, 48)), 11).tolist()
    [[29.0, 20.0]]
    """
    stack = _stack(images)
    centres = []
    for start in range(0, len(stack), batch):
        landscape = surrogate_landscape(stack[start : start + batch], radius_px)
        width = _LANDSCAPE_SMOOTH * radius_px
        landscape = scipy.ndimage.gaussian_filter(landscape, (0, width, width), mode="nearest")
        lowest = landscape.reshape(len(landscape), -1).argmin(axis=1)
        y, x = np.unravel_index(lowest, landscape.shape[1:])
        centres.append(np.stack([x, y], axis=1).astype(np.float64))
    return np.concatenate(centres) if centres else np.zeros((0, 2))


@any_arrays
def find_centres(images: npt.ArrayLike, method: str = "surrogate", radius_px: float | None = None) -> FloatArray:
    """Centres by name of the method.

    "surrogate" is :func:`surrogate_centre`; "disc" starts there and goes to the centre of mass within the radius, for
    class averages, whose noise is low; "mass" and "median" see all of the image. The last three look at what lies above
    the median of the image only.

    Raises
    ------
    InputError
        An unknown method, or "surrogate" or "disc" without a radius.
    """
    if method not in METHODS:
        raise InputError(f"centring method: expected {', '.join(METHODS)}, got {method!r}")
    stack = _stack(images)
    if method in ("surrogate", "disc"):
        if radius_px is None:
            raise InputError(f"centring method {method!r}: give radius_px, the particle's radius")
        centres = surrogate_centre(stack, radius_px)
        return centres if method == "surrogate" else _disc_mass(stack, centres, radius_px)
    positive = np.maximum(stack - np.median(stack, axis=(1, 2), keepdims=True), 0)
    return centre_of_mass(positive) if method == "mass" else geometric_median(positive)


def _disc_mass(stack: FloatArray, centres: FloatArray, radius_px: float) -> FloatArray:
    """Centre of mass of what exceeds the median within a disc that follows it: three rounds."""
    y, x = np.indices(stack.shape[1:])
    positive = np.maximum(stack - np.median(stack, axis=(1, 2), keepdims=True), 0)
    for _ in range(3):
        near = np.hypot(x - centres[:, 0, None, None], y - centres[:, 1, None, None]) <= radius_px
        weight = np.where(near, positive, 0)
        total = np.maximum(weight.sum(axis=(1, 2)), 1e-300)
        centres = np.stack([(weight * x).sum(axis=(1, 2)), (weight * y).sum(axis=(1, 2))], axis=1) / total[:, None]
    return centres


@any_arrays
def recentre(
    images: npt.ArrayLike, method: str = "surrogate", radius_px: float | None = None
) -> tuple[npt.NDArray[np.float32], FloatArray]:
    """Move particles or class averages so that their centres lie at N // 2.

    Parameters
    ----------
    images : (n, y, x) float
    method, radius_px
        As in :func:`find_centres`.

    Returns
    -------
    images : (n, y, x) float32
        Moved in Fourier space: what leaves the box on one side comes in on the other.
    shifts_px : (n, 2) float64
        What was added to the positions, x and y.

    Examples
    --------
    >>> import numpy as np
    >>> from verglas.extraction import centre_of_mass, recentre
    >>> y, x = np.indices((32, 32))
    >>> moved, shifts = recentre(np.exp(-((x - 20) ** 2 + (y - 13) ** 2) / 18.0), "mass")
    >>> shifts.round(2).tolist(), centre_of_mass(np.maximum(moved, 0)).round(1).tolist()
    ([[-4.0, 3.0]], [[16.0, 16.0]])
    """
    stack = _stack(images)
    middle = np.array(stack.shape[:0:-1]) // 2
    shifts = middle - find_centres(stack, method, radius_px)
    shape = (stack.shape[1], stack.shape[2])
    spectra = fourier.forward(stack.astype(np.float32), 2) * fourier.shift_phases(shape, shifts)
    return fourier.inverse(spectra, shape).astype(np.float32), shifts


@any_arrays
def ring_average(images: npt.ArrayLike, radii_px: npt.ArrayLike, centres_px: npt.ArrayLike | None = None) -> FloatArray:
    r"""Mean over circles about a centre, of the trigonometric polynomial through the pixels.

    .. math:: m(r) = \frac{1}{N_y N_x} \sum_k \hat I(k)\, e^{2\pi i\, k \cdot c}\, J_0(2\pi |k| r)

    with k in cycles per pixel and c the centre's offset from N // 2: exact, with no interpolation.

    Parameters
    ----------
    images : (n, y, x) or (y, x) float
    radii_px : (m,) float
    centres_px : (n, 2) float, optional
        x, y in pixels; N // 2 by default.

    Returns
    -------
    (n, m) float64

    Examples
    --------
    >>> import numpy as np
    >>> from verglas.extraction import ring_average
    >>> y, x = np.indices((32, 32)) - 16
    >>> gauss = np.exp(-(x**2 + y**2) / 50.0) * (1 + 0.5 * x)  # the odd part averages out
    >>> bool(np.allclose(ring_average(gauss, [0, 3.3]), np.exp([0, -(3.3**2) / 50]), atol=1e-4))
    True
    """
    stack = _stack(images)
    shape = (stack.shape[1], stack.shape[2])
    ky, kx = (k / n for k, n in zip(fourier.half_grid(shape), shape, strict=True))
    spectra = fourier.forward(stack, 2) * fourier.half_weights(shape)
    if centres_px is not None:
        middle = np.array(shape[::-1]) // 2
        offset = np.asarray(centres_px, np.float64).reshape(-1, 2) - middle
        phase = kx * offset[:, 0, None, None] + ky * offset[:, 1, None, None]
        # Moves the given centre onto N // 2: the sign is opposite to that of a shift by the offset.
        spectra = spectra * np.exp(2j * np.pi * phase)
    radii = np.atleast_1d(np.asarray(radii_px, np.float64))
    # Circles of frequencies share their Bessel function: sum the spectrum over equal |k| first.
    length, which = np.unique(np.round(np.hypot(ky, kx), 12), return_inverse=True)
    bessel = scipy.special.j0(2 * np.pi * np.outer(length, radii))
    which = which.ravel()
    sums = np.stack([np.bincount(which, s.real.ravel(), minlength=len(length)) for s in spectra])
    return sums @ bessel / (shape[0] * shape[1])


@any_arrays
def prolate_radial(bandlimit: float, count: int, points: npt.ArrayLike) -> FloatArray:
    r"""Radial prolate spheroidal wave functions of angular index 0 on the unit disc.

    Eigenfunctions of

    .. math:: \int_0^1 J_0(c\, r \rho)\, \psi(\rho)\, \rho\, d\rho = \gamma\, \psi(r)

    the functions of the disc whose transform is concentrated best within the bandlimit c (Slepian 1964, Bell Syst.
    Tech. J. 43, 3009-3057), by Gauss-Legendre quadrature and Nystrom's interpolation.

    Parameters
    ----------
    bandlimit : float
        c = pi R s for a disc of R pixels, s the highest frequency in units of Nyquist's.
    count : int
        How many, best concentrated first.
    points : (m,) float
        Radii in [0, 1].

    Returns
    -------
    (count, m) float64
        Orthonormal with weight r dr; fewer rows if the others hold no energy within the bandlimit.
    """
    nodes, weights = np.polynomial.legendre.leggauss(max(64, int(bandlimit) + 2 * count + 16))
    rho, w = (nodes + 1) / 2, weights / 2
    root = np.sqrt(w * rho)
    # Weights split evenly on both sides make the kernel symmetric: eigh, with real and orthogonal functions.
    values, vectors = np.linalg.eigh(root[:, None] * scipy.special.j0(bandlimit * np.outer(rho, rho)) * root)
    order = np.argsort(-np.abs(values))[:count]
    # Eigenvalues fall faster than exponentially; what lies below is rounding, by which the last line would divide.
    order = order[np.abs(values[order]) > 1e-8 * np.abs(values[order[0]])]
    kernel = scipy.special.j0(bandlimit * np.outer(np.asarray(points, np.float64), rho)) * root
    return (kernel @ vectors[:, order] / values[order]).T


@any_arrays
def prolate_average(images: npt.ArrayLike, radius_px: float, bandlimit: float = 1.0) -> FloatArray:
    """Rotational average by its expansion in prolate functions of angular index 0: an image without its ring noise.

    The coefficients are those of least squares over the pixels of the disc.

    Parameters
    ----------
    images : (n, y, x) or (y, x) float
        Centred on N // 2.
    radius_px : float
        R of the disc; outside it the result is 0.
    bandlimit : float
        Highest frequency kept, in units of Nyquist's.

    Returns
    -------
    (n, y, x) float64

    Raises
    ------
    InputError
        A disc that does not fit the box, or a bandlimit outside (0, 1].

    Notes
    -----
    Of a band-limited image that fits the disc this is :func:`ring_average`, to 1e-3 (tests/test_centre.py).
    """
    stack = _stack(images)
    if not 1 <= radius_px <= min(stack.shape[1:]) / 2:
        raise InputError(f"radius_px: expected 1 to {min(stack.shape[1:]) // 2} for this box, got {radius_px}")
    if not 0 < bandlimit <= 1:
        raise InputError(f"bandlimit: expected a share of Nyquist's frequency in (0, 1], got {bandlimit}")
    distance = masks.distance_from(stack.shape[1:]) / radius_px
    inside = distance <= 1
    c = np.pi * radius_px * bandlimit
    basis = prolate_radial(c, int(np.ceil(c / np.pi)) + 3, distance[inside])
    fit: Any = np.linalg.lstsq(basis.T, stack[:, inside].T, rcond=1e-6)[0]
    out = np.zeros_like(stack)
    out[:, inside] = fit.T @ basis
    return out


@any_arrays
def signal_to_noise(clean: npt.ArrayLike, noise: npt.ArrayLike) -> float:
    r"""SNR(I) = ||I_c||^2 / ||e||^2 over the whole box: power of the clean image over that of the noise.

    Examples
    --------
    >>> from verglas.extraction import signal_to_noise
    >>> signal_to_noise([3.0, 4.0], [0.0, 10.0])
    0.25
    """
    signal, error = (np.asarray(v, np.float64) for v in (clean, noise))
    power = float((error**2).sum())
    if not power > 0:
        raise InputError("signal_to_noise: the noise is zero")
    return float((signal**2).sum()) / power
