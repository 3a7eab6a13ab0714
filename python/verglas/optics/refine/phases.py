r"""Phases of an optics group by maximum likelihood: beam tilt and trefoil (odd), fourth order (even), magnification.

Sums over particles hold all that the likelihood of a phase needs, exactly. With the slice P, the CTF sin chi, noise
power sigma^2 and an amplitude a of each shell (what the reference has of the signal there, found with the phases),

.. math:: L = \sum_k \left[2 a S(k) - a^2 D(k)\right]

- odd: S = Re(q e^{-i psi}), q = sum X conj(C P) / sigma^2, D = sum |C P|^2 / sigma^2;
- even: S = b_s cos d + b_c sin d, D = A_ss cos^2 d + 2 A_sc sin d cos d + A_cc sin^2 d, b = sum Re(X conj P) (sin chi,
  cos chi) / sigma^2 and A likewise of |P|^2.

A free amplitude, of either sign, is what lets a fit go through shells that a wrong phase has taken from the reference.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize

from verglas._array_module import array_module, to_host
from verglas.optics.refine.held_out import HeldOutGain
from verglas.optics.refine.pixels import Pixels, PixelTerms
from verglas.optics.zernike import zernike, zernike_indices
from verglas.types.arrays import Array, FloatArray, IntArray

ODD, EVEN = 6, 9
FOLDS = 2
_MATRIX = 4  # numbers of a magnification
_LEAST_WEIGHT = 1e-8  # of the largest: sums of products in float32 are wrong by 1e-10 of it


@dataclass(frozen=True)
class GroupFit(HeldOutGain):
    """A fit of some coefficients of an optics group.

    Attributes
    ----------
    change : (n,) float64
        To add to the phase: coefficients of Zernike polynomials (radians), or of M - 1.
    standard_error : (n,) float64
    gain_nats, gain_error_nats : float
        What particles that the fit did not see gain by it, and its standard error.
    displacement_per_A : (2, cells, cells) float64, optional
        Of a magnification, for pictures: see :func:`displacement_field`.
    reach_per_A : float
        Frequency at the edge of that plane.
    """

    change: FloatArray
    standard_error: FloatArray
    gain_nats: float
    gain_error_nats: float
    displacement_per_A: FloatArray | None = None
    reach_per_A: float = 0.0


class GroupSums:
    """Sums over particles of each optics group and fold that fits of phases use; ``add`` takes batches."""

    def __init__(self, groups: int, pixels: Pixels, magnification: bool = False) -> None:
        self.pixels = pixels
        shape = (groups, FOLDS, len(pixels))
        self.odd_cross = np.zeros(shape, np.complex128)
        self.odd_power = np.zeros(shape)
        self.even_cross = np.zeros((2, *shape))
        self.even_power = np.zeros((3, *shape))
        # gradient of the model: (xx, xy, yy), its products with image, model, and slice times cos chi
        self.gradients = np.zeros((9, *shape)) if magnification else None

    def add(self, batch: PixelTerms, group: IntArray, fold: IntArray, gradients: Array | None = None) -> None:
        """Sums of a batch; ``gradients`` is (9, n, m) where magnification is fitted."""
        real = batch.cross.real
        ps, pc = batch.power * batch.sine, batch.power * batch.cosine
        odd, terms = batch.cross * batch.sine, (real * batch.sine, real * batch.cosine)
        powers = (ps * batch.sine, ps * batch.cosine, pc * batch.cosine)
        xp = array_module(batch.cross)
        for g, f in {(int(a), int(b)) for a, b in zip(group, fold, strict=True)}:
            rows = xp.asarray(np.flatnonzero((group == g) & (fold == f)))
            self.odd_cross[g, f] += to_host(odd[rows].sum(axis=0))
            self.odd_power[g, f] += to_host(powers[0][rows].sum(axis=0))
            for i, values in enumerate(terms):
                self.even_cross[i, g, f] += to_host(values[rows].sum(axis=0))
            for i, values in enumerate(powers):
                self.even_power[i, g, f] += to_host(values[rows].sum(axis=0))
            if self.gradients is not None and gradients is not None:
                self.gradients[:, g, f] += to_host(gradients[:, rows].sum(axis=1))


# Of coefficients: S and D on the pixels, and their derivatives (n, m)
class _Pixelwise(NamedTuple):
    """S and D of every pixel, and their derivatives along each coefficient."""

    s: FloatArray
    d: FloatArray
    s_slope: FloatArray
    d_slope: FloatArray


Terms = Callable[[FloatArray], _Pixelwise]  # of coefficients


def basis(pixels: Pixels, parity: str) -> FloatArray:
    """(n, m): Zernike polynomials of that parity."""
    count = ODD if parity == "odd" else EVEN
    return np.stack([zernike(n, m, pixels.kx, pixels.ky) for n, m in zernike_indices(count, parity)])


def _monomials(
    pixels: Pixels, parity: str, chosen: Sequence[tuple[int, int]] | None = None
) -> tuple[FloatArray, FloatArray]:
    """A basis scaled to at most 1 on the pixels, and the matrix to Zernike coefficients."""
    own = basis(pixels, parity)
    k = float(np.sqrt(pixels.k2.max()))
    indices = zernike_indices(len(own), parity)
    # Zernike polynomials of k / k_max: nearly orthogonal there, unlike those of k
    used = [index for index in indices if chosen is None or index in chosen]
    scaled = np.stack([zernike(n, m, pixels.kx / k, pixels.ky / k) for n, m in used])
    to_own = np.linalg.lstsq(own.T, scaled.T, rcond=None)[0]
    return scaled, np.asarray(to_own)


def _odd_terms(cross: Array, power: FloatArray, phases: FloatArray) -> Terms:
    def terms(z: FloatArray) -> _Pixelwise:
        turned = cross * np.exp(-1j * (z @ phases))
        return _Pixelwise(turned.real, power, turned.imag * phases, np.zeros_like(phases))

    return terms


def _even_terms(cross: FloatArray, power: FloatArray, phases: FloatArray) -> Terms:
    def terms(z: FloatArray) -> _Pixelwise:
        d = z @ phases
        c, s = np.cos(d), np.sin(d)
        model = power[0] * c**2 + 2 * power[1] * s * c + power[2] * s**2
        slope = 2 * (power[2] - power[0]) * s * c + 2 * power[1] * (c**2 - s**2)
        return _Pixelwise(cross[0] * c + cross[1] * s, model, (cross[1] * c - cross[0] * s) * phases, slope * phases)

    return terms


def _climb(terms: Terms, pixels: Pixels, start: FloatArray, last: int) -> FloatArray:
    """Coefficients that maximise sum S_shell^2 / D_shell over the shells below ``last``."""

    def shells(values: FloatArray) -> FloatArray:
        return pixels.shell_sums(values)[..., :last]

    def score(z: FloatArray) -> tuple[float, FloatArray]:
        s, d, ds, dd = (shells(v) for v in terms(z))
        d = np.maximum(d, 1e-30)
        a = s / d
        return -float((s * a).sum()), -np.asarray((2 * a * ds - a**2 * dd).sum(axis=1))

    return np.asarray(minimize(score, start, jac=True, method="BFGS", options={"gtol": 1e-4}).x)


def _amplitudes(terms: Terms, z: FloatArray, pixels: Pixels) -> FloatArray:
    here = terms(z)
    s, d = pixels.shell_sums(here.s), pixels.shell_sums(here.d)
    return np.asarray(s / np.maximum(d, 1e-30))


def _fit(terms: Terms, pixels: Pixels, count: int) -> FloatArray:
    """From low frequency, where a phase is small, to high: a wrapped phase is never taken for another."""
    z = np.zeros(count)
    for fraction in (0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0):
        z = _climb(terms, pixels, z, max(3, int(np.ceil(fraction * pixels.shells))))
    return z


def _gain(seen: Terms, unseen: Terms, z: FloatArray, pixels: Pixels, still: FloatArray) -> tuple[float, float]:
    """What unseen particles gain by the coefficients found on seen ones, and its variance."""
    zero = np.zeros_like(z)
    a, a0 = (_amplitudes(seen, value, pixels)[pixels.shell] for value in (z, zero))
    (s, d, *_), (s0, d0, *_) = unseen(z), unseen(zero)
    gain = (2 * a * s - a**2 * d - 2 * a0 * s0 + a0**2 * d0).sum()
    # noise moves 2 (m - m0) . n by its variance, 2 |m - m0|^2
    return float(gain), float(2 * (a**2 * d + a0**2 * d0 - 2 * a * a0 * still).sum())


def _overlap(parity: str, power: FloatArray, d: FloatArray) -> FloatArray:
    """Product of the models with phase d and without."""
    return power * np.cos(d) if parity == "odd" else power[0] * np.cos(d) + power[1] * np.sin(d)


def fit_phase(sums: GroupSums, group: int, parity: str, chosen: Sequence[tuple[int, int]] | None = None) -> GroupFit:
    """Zernike coefficients of the phase of one group that the images have and the model has not.

    Parameters
    ----------
    sums : GroupSums
    group : int
    parity : str
        ``"odd"``: added to psi. ``"even"``: added to chi, so that ``rlnEvenZernike`` changes by minus this.
    chosen : sequence of (n, m), optional
        Zernike polynomials (of k over its largest value) that are free; all of that parity by default.

    Returns
    -------
    GroupFit
    """
    pixels = sums.pixels
    phases, to_own = _monomials(pixels, parity, chosen)

    def terms_of(folds: list[int]) -> tuple[Terms, FloatArray]:
        if parity == "odd":
            power = sums.odd_power[group, folds].sum(axis=0)
            return _odd_terms(sums.odd_cross[group, folds].sum(axis=0), power, phases), power
        power = sums.even_power[:, group, folds].sum(axis=1)
        return _even_terms(sums.even_cross[:, group, folds].sum(axis=1), power, phases), power

    parts = [terms_of([fold]) for fold in range(FOLDS)]
    gain = variance = 0.0
    for (seen, _), (unseen, power) in ((parts[0], parts[1]), (parts[1], parts[0])):
        z = _fit(seen, pixels, len(phases))
        one, spread = _gain(seen, unseen, z, pixels, _overlap(parity, power, z @ phases))
        gain, variance = gain + one, variance + spread
    whole, power = terms_of(list(range(FOLDS)))
    z = _fit(whole, pixels, len(phases))
    a = _amplitudes(whole, z, pixels)[pixels.shell]
    if parity == "odd":
        weight = 2 * a**2 * power
    else:
        d = z @ phases  # |d model / d phase|^2
        weight = 2 * a**2 * (power[0] * np.sin(d) ** 2 - power[1] * np.sin(2 * d) + power[2] * np.cos(d) ** 2)
    covariance = to_own @ np.linalg.pinv(phases * weight @ phases.T) @ to_own.T
    return GroupFit(to_own @ z, np.sqrt(np.diag(covariance)), gain, float(np.sqrt(max(variance, 0.0))))


def fit_magnification(sums: GroupSums, group: int, amplitude: FloatArray) -> GroupFit:
    r"""M - 1 of one group, row by row, to first order.

    .. math:: X = a (C P + u\cdot\nabla (C P) + d P\cos\chi + \alpha C P) + noise, \quad u = (M - 1) k

    Even phases d (Zernike polynomials) and the amplitude of each shell are free with it, and then left where they were:
    through the CTF a magnification looks like a change of defocus and astigmatism. Fitted in turns, each would come to
    rest beside the other's error.

    Parameters
    ----------
    sums : GroupSums
        With gradients.
    group : int
    amplitude : (shells,) float64
        a.

    Returns
    -------
    GroupFit
    """
    parts = [_magnification_equations(sums, group, fold, amplitude) for fold in range(FOLDS)]
    gain = variance = 0.0
    for (normal, right), (other_normal, other_right) in ((parts[0], parts[1]), (parts[1], parts[0])):
        z = _solve_scaled(normal, right)[0]
        still = np.concatenate([np.zeros(_MATRIX), _solve_scaled(normal[_MATRIX:, _MATRIX:], right[_MATRIX:])[0]])
        gain += float(2 * (z - still) @ other_right - z @ other_normal @ z + still @ other_normal @ still)
        variance += float(2 * (z - still) @ other_normal @ (z - still))
    normal, right = parts[0][0] + parts[1][0], parts[0][1] + parts[1][1]
    z, inverse = _solve_scaled(normal, right)
    error = np.sqrt(np.diag(inverse)[:_MATRIX] / 2)
    seen = displacement_field(sums, group, amplitude)
    spread = float(np.sqrt(max(variance, 0.0)))
    return GroupFit(z[:_MATRIX], error, gain, spread, seen, _reach_per_A(sums.pixels))


def _reach_per_A(pixels: Pixels) -> float:
    return float(np.sqrt(pixels.k2.max()))


def displacement_field(sums: GroupSums, group: int, amplitude: FloatArray, cells: int = 36) -> FloatArray:
    r"""Where frequencies of the model lie in the images of one group, less where they should.

    Of each cell of a grid over the plane, least squares of u in :math:`X = a (C P + u\cdot\nabla (C P))`;
    of a magnification u is (M - 1) k. The other half of the plane has -u.

    Parameters
    ----------
    sums : GroupSums
        With gradients.
    group : int
    amplitude : (shells,) float64
        a.
    cells : int
        Along a side, from minus to plus the largest frequency in use.

    Returns
    -------
    (2, cells, cells) float64
        u along x and y in 1/A, rows along ky; NaN where the reference has no signal.
    """
    assert sums.gradients is not None
    pixels = sums.pixels
    a = amplitude[pixels.shell]
    xx, xy, yy, hx, hy, ex, ey, _, _ = sums.gradients[:, group].sum(axis=1)
    even, odd = a**2 * np.stack([xx, xy, yy]), np.stack([a * hx - a**2 * ex, a * hy - a**2 * ey])
    reach = _reach_per_A(pixels) * (1 + 1e-9)
    totals = np.zeros((5, cells * cells))
    column, row = (((k / reach + 1) / 2 * cells).astype(int) for k in (pixels.kx, pixels.ky))
    cell = row * cells + column
    for sign, place in ((1, cell), (-1, cells * cells - 1 - cell)):
        for total, values in zip(totals, (*even, *(sign * odd)), strict=True):
            total += np.bincount(place, values, cells * cells)
    xx, xy, yy, bx, by = totals
    determinant = xx * yy - xy**2
    known = determinant > _LEAST_WEIGHT * float((xx * yy).max(initial=0.0))
    scale = np.divide(1.0, determinant, out=np.full(len(determinant), np.nan), where=known)
    return np.asarray(np.stack([yy * bx - xy * by, xx * by - xy * bx]) * scale).reshape(2, cells, cells)


def _magnification_equations(
    sums: GroupSums, group: int, fold: int, amplitude: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Normal equations of M - 1, even phases, and the relative change of the amplitude of each shell, in this order."""
    assert sums.gradients is not None
    pixels = sums.pixels
    a = amplitude[pixels.shell]
    design = np.zeros((2, _MATRIX, len(pixels)))  # u = design . (M - 1)
    design[0, 0] = design[1, 2] = pixels.kx
    design[0, 1] = design[1, 3] = pixels.ky
    phases = _monomials(pixels, "even")[0]
    xx, xy, yy, hx, hy, ex, ey, cx, cy = sums.gradients[:, group, fold]
    image, power = sums.even_cross[:, group, fold], sums.even_power[:, group, fold]
    moved = np.einsum("aim,abm->ibm", design, np.stack([[xx, xy], [xy, yy]]) * a**2)
    beside = np.einsum("aim,am->im", design, a**2 * np.stack([cx, cy]))
    along = np.einsum("aim,am->im", design, a**2 * np.stack([ex, ey]))
    shells = pixels.shell_sums(np.concatenate([along, a**2 * power[1] * phases]))
    by_phase = np.vstack([beside @ phases.T, (a**2 * power[2] * phases) @ phases.T])
    normal = np.block(
        [
            [np.einsum("ibm,bjm->ij", moved, design), by_phase[:_MATRIX], shells[:_MATRIX]],
            [by_phase[:_MATRIX].T, by_phase[_MATRIX:], shells[_MATRIX:]],
            [shells.T, np.diag(pixels.shell_sums(a**2 * power[0]))],
        ]
    )
    right = [
        np.einsum("aim,am->i", design, np.stack([a * hx - a**2 * ex, a * hy - a**2 * ey])),
        phases @ (a * image[1] - a**2 * power[1]),
        pixels.shell_sums(a * image[0] - a**2 * power[0]),
    ]
    return normal, np.concatenate(right)


def _solve_scaled(normal: FloatArray, right: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Solution and inverse of normal equations whose unknowns have units of their own.

    What the data cannot tell apart keeps a weight of rounding's size: its variance is large, where without it would be
    zero or, of a negative eigenvalue, below.
    """
    weight = np.diag(normal)
    scale = 1 / np.sqrt(np.where(weight > 0, weight, 1.0))
    values, vectors = np.linalg.eigh(scale[:, None] * normal * scale)
    values = np.maximum(values, max(_LEAST_WEIGHT * float(values[-1]), np.finfo(np.float64).tiny))
    inverse = scale[:, None] * ((vectors / values) @ vectors.T) * scale
    return inverse @ right, inverse
