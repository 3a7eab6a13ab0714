"""Maximum-likelihood refinement of a CTF on the pixels of a spectrum, background and envelope fitted along."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from verglas import ops
from verglas.optics.fit.curves import Envelopes, Rings, average, equiphase_radius, fit_envelopes
from verglas.optics.fit.search import with_ctf
from verglas.optics.fit.spectrum import Band
from verglas.types import Optics
from verglas.types.arrays import Float32Array, FloatArray

_ROUNDS, _STEPS = 6, 6
# A step of less than this ends the refinement: angstrom, degrees.
_SMALL = np.array([0.5, 0.5, 0.5, 0.02])
# Pixels of a periodogram under a Hann window that count as one: neighbours' amplitudes correlate by 2/3 and 1/6, powers
# by the squares, on each axis.
HANN_CORRELATION = (1 + 2 * (4 / 9 + 1 / 36)) ** 2


@dataclass(frozen=True)
class Slab:
    """Mean spectrum of tiles of one defocus.

    Attributes
    ----------
    power : (m,) float32
        At the band's pixels.
    extra_A : float
        Defocus of these tiles beyond that of the micrograph's centre.
    weight : float
        Number of tiles.
    """

    power: Float32Array
    extra_A: float
    weight: float


@dataclass(frozen=True)
class Refined:
    """A CTF at a maximum of the likelihood.

    Attributes
    ----------
    optics : Optics
        One row.
    envelopes : Envelopes
    rings : Rings
        Equiphase average, for the centre's defocus.
    cost : float
        Mean squared residual per pixel, in units of the noise; compares starts.
    covariance : (4, 4) float64
        Of mean defocus, the two components of astigmatism (A) and the phase shift (degrees).
    """

    optics: Optics
    envelopes: Envelopes
    rings: Rings
    cost: float
    covariance: FloatArray


def vector(optics: Optics) -> FloatArray:
    """Mean defocus, (u - v)/2 cos 2 angle, (u - v)/2 sin 2 angle, phase shift."""
    half = (optics.defocus_u_A[0] - optics.defocus_v_A[0]) / 2
    angle = 2 * np.deg2rad(optics.defocus_angle_deg[0])
    mean = (optics.defocus_u_A[0] + optics.defocus_v_A[0]) / 2
    return np.array([mean, half * np.cos(angle), half * np.sin(angle), optics.phase_shift_deg[0]])


def shift_defocus(optics: Optics, extra_A: float) -> Optics:
    """The same CTF at another mean defocus."""
    return replace(optics, defocus_u_A=optics.defocus_u_A + extra_A, defocus_v_A=optics.defocus_v_A + extra_A)


def pooled_rings(optics: Optics, slabs: Sequence[Slab], band: Band) -> Rings:
    """Equiphase average of all slabs: each pixel counts at the radius where the centre's CTF has its phase."""
    parts = []
    for slab in slabs:
        radius = equiphase_radius(shift_defocus(optics, slab.extra_A), band)
        if slab.extra_A:  # lambda z q^2 / 2 is the phase: the radius scales with the square root of the defocus
            z = (optics.defocus_u_A[0] + optics.defocus_v_A[0]) / 2
            radius = radius * np.sqrt(max(z + slab.extra_A, 1.0) / max(z, 1.0))
        parts.append((radius, slab.power, slab.weight))
    if len(parts) == 1:
        rings = average(parts[0][0], parts[0][1], band)
        return Rings(rings.k, rings.power, rings.count * parts[0][2])
    first = np.concatenate([p[0] for p in parts])
    # a weighted mean: every slab as often as it has tiles, in proportion
    weights = np.concatenate([np.full(len(p[0]), p[2]) for p in parts])
    return weighted_average(first, np.concatenate([p[1] for p in parts]), weights, band)


def weighted_average(radius: FloatArray, power: Float32Array, weight: FloatArray, band: Band) -> Rings:
    """As :func:`average`, pixels with weights."""
    first, last = int(np.ceil(band.low / band.step)), int(np.floor(band.high / band.step))
    index = np.floor(radius / band.step + 0.5).astype(np.int64)
    inside = (index >= first) & (index <= last)
    index, size = index[inside] - first, last - first + 1
    count = np.bincount(index, weight[inside], minlength=size)
    total = np.bincount(index, weight[inside] * power[inside], minlength=size)
    where = np.bincount(index, weight[inside] * radius[inside], minlength=size)
    filled = count >= 4 * weight.mean()
    return Rings(where[filled] / count[filled], total[filled] / count[filled], count[filled])


@dataclass(frozen=True)
class Freedom:
    """Which of mean defocus, two components of astigmatism and phase shift are refined, and between which bounds.

    Attributes
    ----------
    free : four bools
    low, high : (4,) float64, optional
        Smallest and largest values.
    """

    free: Sequence[bool] = (True, True, True, False)
    low: FloatArray | None = None
    high: FloatArray | None = None


def refine(
    start: Optics,
    slabs: Sequence[Slab],
    band: Band,
    *,
    freedom: Freedom | None = None,
    rounds: int = _ROUNDS,
    threads: int | None = 1,
) -> Refined:
    """Alternate background and envelope (linear) with Gauss-Newton steps of the CTF's parameters.

    Parameters
    ----------
    start : Optics
        One row.
    slabs : sequence of Slab
    band : Band
    freedom : Freedom, optional
        All but the phase shift, without bounds, by default.
    rounds : int
        Of alternation, at most.
    threads : int, optional
        Of the kernel.
    """
    freedom = freedom or Freedom()
    optics, free_at = start, np.flatnonzero(freedom.free)
    for _ in range(rounds):
        rings = pooled_rings(optics, slabs, band)
        envelopes = fit_envelopes(rings, optics, band)
        before = vector(optics)
        optics, cost, normal = _gauss_newton(optics, slabs, band, envelopes, freedom, threads)
        if (np.abs(vector(optics) - before) < 4 * _SMALL).all():
            break
    rings = pooled_rings(optics, slabs, band)
    covariance = np.zeros((4, 4))
    part = normal[np.ix_(free_at, free_at)]
    if np.linalg.cond(part) < 1e12:
        # a residual weighs as much as its slab has tiles, and has so much less variance: sigma^2 is their mean product
        variance = cost * sum(slab.weight for slab in slabs) / len(slabs)
        covariance[np.ix_(free_at, free_at)] = np.linalg.inv(part) * variance * HANN_CORRELATION
    return Refined(optics, fit_envelopes(rings, optics, band), rings, cost, covariance)


def _gauss_newton(
    optics: Optics,
    slabs: Sequence[Slab],
    band: Band,
    envelopes: Envelopes,
    freedom: Freedom,
    threads: int | None,
) -> tuple[Optics, float, FloatArray]:
    """Levenberg-Marquardt steps on fixed background and envelope: optics, mean cost, normal matrix."""
    free, low, high = np.flatnonzero(freedom.free), freedom.low, freedom.high
    data = [_pixels(slab, band, envelopes) for slab in slabs]
    power = sum(slab.weight * float(y @ y) for slab, (y, _) in zip(slabs, data, strict=True))
    total = sum(slab.weight for slab in slabs) * len(band.flat)

    def evaluate(p: FloatArray) -> tuple[float, FloatArray, FloatArray]:
        cost, descent, normal = power, np.zeros(4), np.zeros((4, 4))
        for slab, (y, a) in zip(slabs, data, strict=True):
            row = shift_defocus(with_ctf(optics, *p), slab.extra_A).as_params()
            s = ops.ctf_score(row, band.kx, band.ky, y, a, derivatives=True, threads=threads)
            cost += slab.weight * (s.model_power[0] - 2 * s.overlap[0])
            descent += slab.weight * s.descent[0]
            normal += slab.weight * s.normal[0]
        return cost, descent, normal

    p, damping = vector(optics), 1e-3
    cost, descent, normal = evaluate(p)
    for _ in range(_STEPS):
        matrix = normal[np.ix_(free, free)]
        step = np.zeros(4)
        step[free] = np.linalg.lstsq(matrix + damping * np.diag(np.diag(matrix) + 1e-30), descent[free], rcond=None)[0]
        moved = p + step if low is None or high is None else np.clip(p + step, low, high)
        new = evaluate(moved)
        if new[0] < cost:
            small = bool((np.abs(moved - p) < _SMALL).all())
            p, (cost, descent, normal), damping = moved, new, damping / 10
            if small:
                break
        else:
            damping *= 20
            if damping > 1e4 or (np.abs(step) < _SMALL).all():
                break
    return with_ctf(optics, *p), cost / total, normal


def _pixels(slab: Slab, band: Band, envelopes: Envelopes) -> tuple[Float32Array, Float32Array]:
    """Residual power and ring amplitude in units of the noise, whose deviation is proportional to the power."""
    radius = np.hypot(band.kx, band.ky).astype(np.float64)
    grid = np.linspace(band.low, band.high, 512)
    background, amplitude = envelopes.background(grid), envelopes.amplitude(grid)
    noise = np.maximum(background + amplitude / 2, 1e-6 * np.abs(background).max())
    y = (slab.power - np.interp(radius, grid, background)) / np.interp(radius, grid, noise)
    a = np.interp(radius, grid, amplitude / noise)
    return y.astype(np.float32), a.astype(np.float32)
