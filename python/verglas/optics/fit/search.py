"""From nothing to a CTF: a search over defocus, astigmatism and phase shift on sectors of a spectrum."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from verglas.optics import wavelength_A
from verglas.optics.fit.curves import splines
from verglas.optics.fit.spectrum import Band
from verglas.types import Optics
from verglas.types.arrays import FloatArray

_SECTORS = 18
_BACKGROUND = 7
_ENVELOPES_A2 = (0.0, 100.0, 300.0)  # B of the rings' power, exp(-B k^2 / 2)
_PHASE_STEP_DEG = 15.0
_HALVES_A = (0.0, 150.0, 300.0, 500.0, 700.0, 1000.0, 1400.0, 2000.0)  # (u - v) / 2; the refinement closes the gaps
_STARTS, _TABLES = 3, 2


@dataclass(frozen=True)
class SearchRange:
    """What is searched.

    Attributes
    ----------
    defocus_A : (float, float)
        Smallest and largest mean underfocus.
    astigmatism_A : float
        Largest difference of the two defoci.
    phase_shift_deg : (float, float)
        Equal: not searched.
    """

    defocus_A: tuple[float, float]
    astigmatism_A: float
    phase_shift_deg: tuple[float, float]


def sector_curves(power: npt.NDArray[np.float32], band: Band) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Log of the mean power by sector of 10 degrees and radius: k (b,), log power (18, b), pixels per bin (18, b)."""
    radius = np.hypot(band.kx, band.ky) / band.step
    first, last = int(np.ceil(band.low / band.step)), int(np.floor(band.high / band.step))
    r = np.clip(np.floor(radius + 0.5).astype(np.int64), first, last) - first
    angle = np.mod(np.arctan2(band.ky, band.kx), np.pi) / np.pi * _SECTORS
    # sector s is centred on 10 s degrees
    sector = np.mod(np.floor(angle + 0.5).astype(np.int64), _SECTORS)
    size = last - first + 1
    count = np.bincount(sector * size + r, minlength=_SECTORS * size).reshape(_SECTORS, size).astype(np.float64)
    total = np.bincount(sector * size + r, power.astype(np.float64), minlength=_SECTORS * size)
    mean = np.maximum(total.reshape(_SECTORS, size), 1e-30) / np.maximum(count, 1)
    k = np.arange(first, last + 1) * band.step
    # Logarithms turn the background, which falls by orders, into an addend that splines can take off.
    logs: FloatArray = np.where(count > 0, np.log(mean), 0.0)
    return np.asarray(k, np.float64), logs, count


class _ModelTable(NamedTuple):
    """Overlap (18, z) with the curves and squared norm (z,) of models of every defocus."""

    overlap: FloatArray
    norm: FloatArray


class SectorSearch:
    """Correlation of every sector's curve with the squared CTF of every defocus, backgrounds projected out.

    With few sectors one sum of table entries, looked up at z + A cos 2(theta - alpha), scores any astigmatic CTF; no
    candidate costs more than 18 additions.
    """

    def __init__(self, power: npt.NDArray[np.float32], band: Band, base: Optics, span: SearchRange) -> None:
        self.k, logs, count = sector_curves(power, band)
        self.base, self.span = base, span
        self.theta = np.arange(_SECTORS) * np.pi / _SECTORS
        weight = np.sqrt(count.mean(axis=0))
        self.basis, _ = np.linalg.qr(splines(self.k, band.low, band.high, _BACKGROUND) * weight[:, None])
        self.weight = weight
        y = logs * weight
        self.y = y - (y @ self.basis) @ self.basis.T
        # half a radian at the finest frequency
        lam = float(wavelength_A(base.voltage_kV[0]))
        step = 0.5 / (np.pi * lam * self.k[-1] ** 2)
        reach = span.astigmatism_A / 2
        low, high = span.defocus_A
        # the table reaches beyond the mean defoci by what astigmatism adds
        self.z = np.arange(max(low - reach, 100.0), high + reach + 2 * step, step)
        self.means = self.z[(self.z >= low - step / 2) & (self.z <= high + step / 2)]

    def table(self, phase_shift_deg: float, envelope_A2: float) -> _ModelTable:
        """Of the models without what the background may be."""
        k2 = self.k**2
        lam = float(wavelength_A(self.base.voltage_kV[0]))
        offset = np.deg2rad(phase_shift_deg) + np.arcsin(self.base.amplitude_contrast[0])
        chi = np.pi * lam * self.z[:, None] * k2 - np.pi / 2 * self.base.cs_mm[0] * 1e7 * lam**3 * k2**2 + offset
        model = np.sin(chi) ** 2 * np.exp(-envelope_A2 * k2 / 2) * self.weight
        model -= (model @ self.basis) @ self.basis.T
        return _ModelTable(self.y @ model.T, (model**2).sum(axis=1))

    def scores(self, table: _ModelTable, half_A: float, angle_rad: float) -> FloatArray:
        """Partial correlation of every mean defocus for an astigmatism (u - v) / 2 = half_A along an angle."""
        overlap, norm = table
        moved = half_A * np.cos(2 * (self.theta - angle_rad))
        place = (self.means[0] - self.z[0] + moved) / (self.z[1] - self.z[0])
        low = np.clip(np.floor(place).astype(np.int64), 0, len(self.z) - len(self.means) - 1)
        part = np.clip(place - low, 0, 1)
        top, below = np.zeros(len(self.means)), np.zeros(len(self.means))
        for row, a, f in zip(overlap, low, part, strict=True):  # slices: the table is equally spaced
            b = a + len(self.means)
            top += (1 - f) * row[a:b] + f * row[a + 1 : b + 1]
            below += (1 - f) * norm[a:b] + f * norm[a + 1 : b + 1]
        return np.asarray(top / np.sqrt(np.maximum(below, 1e-12) * max((self.y**2).sum(), 1e-30)))

    def phases(self) -> FloatArray:
        """Phase shifts to try."""
        low, high = self.span.phase_shift_deg
        return (
            np.linspace(low, high, int(np.ceil((high - low) / _PHASE_STEP_DEG)) + 1) if high > low else np.array([low])
        )

    def starts(self) -> list[Optics]:
        """The best few CTFs, best first, no two of the same defocus and phase shift."""
        tables = {(p, b): self.table(p, b) for p in self.phases() for b in _ENVELOPES_A2}
        round_ones = [(float(s), key, i) for key, t in tables.items() for i, s in _peaks(self.scores(t, 0.0, 0.0))]
        round_ones.sort(reverse=True)
        candidates: list[tuple[float, float, float, float, float]] = []
        keys = list(dict.fromkeys(key for _, key, _ in round_ones))[:_TABLES]
        halves = [half for half in _HALVES_A if half <= self.span.astigmatism_A / 2]
        for key in keys:
            for half in halves:
                for angle in self.theta if half > 0 else self.theta[:1]:
                    scores = self.scores(tables[key], half, angle)
                    candidates += [(float(s), key[0], float(self.means[i]), half, angle) for i, s in _peaks(scores)]
        candidates.sort(reverse=True)
        chosen: list[tuple[float, float, float, float, float]] = []
        for one in candidates:
            if all(abs(one[2] - c[2]) > 500 or abs(one[1] - c[1]) > 1 for c in chosen):
                chosen.append(one)
            if len(chosen) == _STARTS:
                break
        return [with_ctf(self.base, z, half * np.cos(2 * a), half * np.sin(2 * a), p) for _, p, z, half, a in chosen]


def _peaks(scores: FloatArray, count: int = 3) -> list[tuple[int, float]]:
    """The highest local maxima."""
    padded = np.r_[-np.inf, scores, -np.inf]
    top = np.flatnonzero((padded[1:-1] >= padded[:-2]) & (padded[1:-1] > padded[2:]))
    best = top[np.argsort(scores[top])[::-1][:count]]
    return [(int(i), float(scores[i])) for i in best]


def with_ctf(base: Optics, mean_A: float, cosine_A: float, sine_A: float, phase_shift_deg: float) -> Optics:
    """One CTF by its mean defocus and (u - v) / 2 times cosine and sine of twice the angle; u is the larger."""
    half = float(np.hypot(cosine_A, sine_A))
    angle = float(np.rad2deg(np.arctan2(sine_A, cosine_A)) / 2) % 180
    return replace(
        base,
        defocus_u_A=np.array([mean_A + half]),
        defocus_v_A=np.array([mean_A - half]),
        defocus_angle_deg=np.array([angle]),
        phase_shift_deg=np.array([phase_shift_deg]),
    )
