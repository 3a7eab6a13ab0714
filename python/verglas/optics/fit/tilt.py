"""The plane of defocus across a tilted specimen, from the spectra of the tiles."""

from __future__ import annotations

import numpy as np
from scipy.optimize import minimize

from verglas.optics.fit.curves import chi_turns, equiphase_radius
from verglas.optics.fit.refined import Freedom, Refined, Slab, refine, shift_defocus
from verglas.optics.fit.spectrum import Spectra
from verglas.types.arrays import FloatArray

_STEP_A = 50.0
_LARGEST = np.tan(np.deg2rad(60))
_SLABS = 12
_PASSES = 3


def fit_tilt(
    best: Refined,
    spectra: Spectra,
    centre_px: FloatArray,
    freedom: Freedom,
    threads: int | None,
) -> tuple[Refined, FloatArray]:
    """Plane and CTF in turn: the CTF is refined on slabs of tiles of equal defocus.

    Returns
    -------
    Refined, (2,) float64
        The CTF at the micrograph's centre, and the change of underfocus along x and y in angstrom per angstrom.
    """
    places = (spectra.centres_px - centre_px) * spectra.band.pixel_size_A
    gradient = np.zeros(2)
    for number in range(_PASSES):
        offsets, cost = tile_costs(best, spectra, places, gradient)
        extra, gradient = best_plane(offsets, cost, places, gradient if number else None)
        local = places @ gradient
        slabs = _slabs(spectra, local)
        best = refine(shift_defocus(best.optics, extra), slabs, spectra.band, freedom=freedom, threads=threads)
    return best, gradient


def _slabs(spectra: Spectra, local_A: FloatArray) -> list[Slab]:
    """Tiles grouped by their defocus into at most 12 slabs."""
    spread = float(np.ptp(local_A))
    count = int(np.clip(np.ceil(spread / _STEP_A), 1, _SLABS))
    group = np.minimum(((local_A - local_A.min()) / max(spread, 1e-9) * count).astype(np.int64), count - 1)
    return [
        Slab(spectra.tiles[group == g].mean(axis=0), float(local_A[group == g].mean()), float((group == g).sum()))
        for g in np.unique(group)
    ]


def tile_costs(
    best: Refined, spectra: Spectra, places: FloatArray, gradient: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Squared residual (t, z) of every tile at every offset (z,) of its defocus from the micrograph's.

    The tiles are averaged about the astigmatism of the micrograph, which turns pixels into one curve each.
    """
    band, optics = spectra.band, best.optics
    radius = equiphase_radius(optics, band)
    first, last = int(np.ceil(band.low / band.step)), int(np.floor(band.high / band.step))
    index = np.clip(np.floor(radius / band.step + 0.5).astype(np.int64), first, last) - first
    size = last - first + 1
    count = np.bincount(index, minlength=size).astype(np.float64)
    filled = count >= 4
    curves = np.array([np.bincount(index, tile, minlength=size) for tile in spectra.tiles])[:, filled] / count[filled]
    k = (np.bincount(index, radius, minlength=size) / np.maximum(count, 1))[filled]
    background, amplitude = best.envelopes.background(k), best.envelopes.amplitude(k)
    noise = np.maximum(background + amplitude / 2, 1e-12)
    weight = np.sqrt(count[filled]) / noise
    # tiles differ in their level (thickness): each is scaled to the mean curve
    scale = (curves * weight**2) @ background / ((background * weight) ** 2).sum()
    y = (curves / scale[:, None] - background) * weight
    mean = float(optics.defocus_u_A[0] + optics.defocus_v_A[0]) / 2
    far = float(np.abs(places).sum(axis=1).max()) * _LARGEST
    offsets = np.arange(-min(far, mean - 1000), far + _STEP_A, _STEP_A)
    phases = np.array([chi_turns(shift_defocus(optics, z), k) for z in offsets])
    model = np.sin(2 * np.pi * phases) ** 2 * amplitude * weight
    return offsets, (model**2).sum(axis=1) - 2 * y @ model.T


def best_plane(
    offsets: FloatArray, cost: FloatArray, places: FloatArray, start: FloatArray | None
) -> tuple[float, FloatArray]:
    """Defocus offset at the centre and gradient of least cost: a grid over planes, then the simplex method."""

    def total(plane: FloatArray) -> float:
        at = plane[0] + places @ plane[1:]
        inside = np.clip(at, offsets[0], offsets[-1])
        place = (inside - offsets[0]) / _STEP_A
        low = np.minimum(place.astype(np.int64), len(offsets) - 2)
        part = place - low
        rows = np.arange(len(cost))
        value = cost[rows, low] * (1 - part) + cost[rows, low + 1] * part
        # Beyond the table's ends a slope back to it: a constant cost there would strand the simplex.
        return float(value.sum() + np.abs(at - inside).sum())

    reach = max(float(np.abs(places).max()), 1.0)
    if start is None:
        # gradients whose defoci at the rim differ by 250 A
        steps = np.arange(-_LARGEST, _LARGEST + 1e-9, max(250.0 / reach, 0.02))
        planes = np.array(
            [
                (z, gx, gy)
                for gx in steps
                for gy in steps
                if np.hypot(gx, gy) <= _LARGEST
                for z in np.arange(-1000, 1001, 200.0)
            ]
        )
        values = np.array([total(plane) for plane in planes])
        candidates = planes[np.argsort(values)[:5]]
    else:
        candidates = np.array([np.r_[0.0, start]])
    results = []
    for plane in candidates:
        simplex = plane + np.vstack([np.zeros(3), np.diag([100.0, 100 / reach, 100 / reach])])
        options = {"initial_simplex": simplex, "xatol": 1e-4, "fatol": 1e-6, "maxiter": 400}
        results.append(minimize(total, plane, method="Nelder-Mead", options=options))
    best = min(results, key=lambda r: r.fun).x
    return float(best[0]), best[1:]
