"""From sums to half maps: FSC, Wiener/MAP update, joining at low resolution, noise spectra, scales, class weights.

.. math:: V = \\frac{\\mathrm{num}}{\\mathrm{den} + 1/(T \\tau^2)}, \\qquad
          \\tau^2(s)\\, \\overline{\\mathrm{den}}(s) = \\mathrm{SSNR}(s) = \\frac{\\mathrm{FSC}}{1 - \\mathrm{FSC}}

(Scheres 2012, J. Mol. Biol. 415, 406-418, with FSC in place of his single-map spectrum). On the grid the prior is the
shell mean of the weights divided by T SSNR (:func:`verglas.reconstruction.direct.density_weights`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from verglas import filters, ops
from verglas.assessment.fsc import fsc, ssnr_from_fsc
from verglas.reconstruction import direct
from verglas.reconstruction.sums import finish
from verglas.refinement.grid_step import HalfSums, Totals
from verglas.refinement.problem import Problem
from verglas.refinement.state import HalfModel, PoseTable
from verglas.types import Map

FloatArray = npt.NDArray[np.float64]
Volume = npt.NDArray[np.float32]

_SCALE_SIGMA = 0.3  # prior of a micrograph's grey scale: 1 +- this
_FSC_MOST = 0.999  # an FSC of 1 would leave out the prior altogether
THRESHOLD = 0.143


@dataclass(frozen=True)
class ClassMaps:
    """Maps of one class.

    Attributes
    ----------
    halves : (2, N, N, N) float32
        Regularised; the references of the next iteration.
    raw : (2, N, N, N) float32
        Neither filtered nor joined.
    unmasked, masked : (shells,) float64
        FSC of the raw half maps as they are (inside the largest ball), and in the mask in use.
    """

    halves: Volume
    raw: Volume
    unmasked: FloatArray
    masked: FloatArray


def solve(
    problem: Problem, sums: ops.GridSums, ssnr: FloatArray | None, radius: int, *, regularisation_T: float = 1.0
) -> Volume:
    """Map from finished sums; with ``ssnr`` (per shell) regularised."""
    assert sums.weights is not None
    threads = problem.settings.threads
    if problem.settings.mode == "max-cc" and ssnr is not None:
        # FREALIGN's constant: SSNR of every shell the same fraction (Grigorieff 2007, J. Struct. Biol. 157, 117).
        ssnr = np.full(radius + 1, 1 / problem.settings.wiener_k)
    elif ssnr is not None:
        ssnr = regularisation_T * ssnr
    weights = direct.density_weights(sums.weights, sums.grid, ssnr=ssnr)
    volume = direct.invert(sums, weights, threads=threads)
    return problem.symmetry.apply(volume, radius, threads=threads)


def class_maps(
    problem: Problem, sums: list[ops.GridSums], mask: Volume, radius: int, *, regularisation_T: float
) -> ClassMaps:
    """Half maps of one class from the sums of both halves (folded here)."""
    threads = problem.settings.threads
    done = [finish(s, problem.symmetry, threads=threads) for s in sums]
    raw = np.stack([solve(problem, s, None, radius) for s in done])
    unmasked = half_fsc(problem, raw, None)
    masked = half_fsc(problem, raw, mask)
    ssnr = ssnr_from_fsc(np.minimum(masked[: radius + 1], _FSC_MOST))
    halves = np.stack([solve(problem, s, ssnr, radius, regularisation_T=regularisation_T) for s in done])
    return ClassMaps(joined(problem, halves), raw, unmasked, masked)


def half_fsc(problem: Problem, halves: Volume, mask: Volume | None) -> FloatArray:
    """FSC of half maps, shells 0 .. N // 2."""
    first, second = (Map(v if mask is None else v * mask, problem.pixel_size_A) for v in halves)
    return fsc(first, second, threads=problem.settings.threads).curve


def joined(problem: Problem, halves: Volume) -> Volume:
    """Both half maps with their mean in place of what is coarser than the join resolution."""
    coarse = filters.low_pass(problem.settings.join_resolution_A)
    difference = Map(halves[0] - halves[1], problem.pixel_size_A)
    low = filters.apply(difference, coarse, threads=problem.settings.threads).data
    return np.stack([halves[0] - low / 2, halves[1] + low / 2])


def resolution_shell(curve: FloatArray, last: int, threshold: float = THRESHOLD) -> float:
    """Where the FSC first falls below a threshold, interpolated; the last shell if it does not."""
    c = curve[: last + 1]
    below = np.flatnonzero(c[1:] < threshold) + 1
    if not below.size:
        return float(last)
    s = int(below[0])
    if s == 1:
        return 1.0
    return float(s - 1 + (c[s - 1] - threshold) / (c[s - 1] - c[s]))


def learn(problem: Problem, model: HalfModel, totals: Totals, poses: PoseTable, rows: npt.NDArray) -> None:
    """Noise spectra, scales, class weights of a half, and noise levels of its particles, from one pass (in place)."""
    settings = problem.settings
    if settings.mode == "likelihood":
        known = totals.coefficients > 0
        fresh = np.divide(totals.squared, totals.coefficients, out=np.zeros_like(totals.squared), where=known)
        fresh = np.maximum(fresh, 1e-3 * np.maximum(model.sigma2, 0))
        model.sigma2 = np.where(known, fresh, model.sigma2)
        model.sigma2[:, 0] = model.sigma2[:, 1]
        if settings.norm:
            ratio = totals.ratio[rows]
            mean = np.bincount(problem.group[rows], ratio) / np.maximum(np.bincount(problem.group[rows]), 1)
            poses.norm[rows] *= np.clip(np.sqrt(ratio / mean[problem.group[rows]]), 1 / 1.2, 1.2)
            poses.norm[rows] = np.clip(poses.norm[rows], 0.5, 2.0)
        if settings.scale and len(totals.cross) > 1:
            weight = 1 / _SCALE_SIGMA**2
            factor = (totals.cross + weight) / (totals.power + weight)
            scale = model.scale * np.clip(factor, 0.5, 2.0)
            particles = np.bincount(problem.micrograph[rows], minlength=len(scale))
            model.scale = np.clip(scale / np.average(scale, weights=particles), 0.2, 5.0)
    model.class_weight = np.maximum(totals.mass / totals.mass.sum(), 1e-4)
    model.class_weight /= model.class_weight.sum()


def fold_in(problem: Problem, found: list[HalfSums]) -> list[list[ops.GridSums]]:
    """Sums by class, then half."""
    return [[half.grids[k] for half in found] for k in range(len(found[0].grids))]
