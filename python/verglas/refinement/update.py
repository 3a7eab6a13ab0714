r"""From sums to half maps: FSC, Wiener/MAP update, joining at low resolution, noise spectra, scales, class weights.

.. math:: V = \frac{\mathrm{num}}{\mathrm{den} + 1/(T \tau^2)}, \qquad
          \tau^2(s)\, \overline{\mathrm{den}}(s) = \mathrm{SSNR}(s) = \frac{\mathrm{FSC}}{1 - \mathrm{FSC}}

(Scheres 2012, J. Mol. Biol. 415, 406-418, with the FSC of the half maps in place of one map's spectrum). On the grid
the prior is the shell mean of the weights divided by T SSNR (:func:`verglas.reconstruction.direct.density_weights`).
Other priors are in :mod:`verglas.regularisation`; every FSC is that of the half maps before any of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from verglas import filters, fourier, ops
from verglas.assessment import fsc
from verglas.assessment.fsc import correlate_shells
from verglas.assessment.phase_randomisation import correct_for_mask, vouches_for
from verglas.assessment.postprocess import PostprocessSettings
from verglas.assessment.solvent import find_solvent_mask
from verglas.reconstruction.direct import fft_weights, shell_means
from verglas.reconstruction.packed_sums import AnySums, PackedSums, whole_weights
from verglas.reconstruction.sums import finish
from verglas.reconstruction.sums import solve as sums_to_map
from verglas.refinement.prior_choice import PLAIN, Choice
from verglas.refinement.problem import RefineProblem
from verglas.regularisation.protocol import HalfMaps, MapSource, Prior, Wiener
from verglas.regularisation.score_weight import local_weight
from verglas.search.grid_step import Totals
from verglas.search.state import HalfModel, PoseTable
from verglas.types import Map
from verglas.types.arrays import Float32Array, FloatArray

_LEAST_NOISE = 1e-3  # of what it was, from one iteration to the next
_SCALE_SIGMA = 0.3  # prior of a micrograph's grey scale: 1 +- this
_MASK_FROM_A = 15.0  # a map this good shows where the molecule is
THRESHOLD = 0.143

Judge = Callable[[Mapping[str, Float32Array]], Choice]  # half maps under several priors -> the one to take


@dataclass(frozen=True)
class ClassMaps:
    """Maps of one class.

    Attributes
    ----------
    halves : (2, N, N, N) float32
        Regularised; the references of the next iteration.
    raw : (2, N, N, N) float32
        Neither filtered, nor masked, nor joined.
    joint : (N, N, N) float32 or None
        From both halves, regularised; where asked for.
    unmasked, masked : (shells,) float64
        FSC of the raw half maps inside the largest ball; in the mask in use, corrected by phase randomisation.
    choice : Choice
        The prior that halves and joint were made with.
    weight : (N, N, N) float32 or None
        Of places by their local gain (:func:`verglas.regularisation.score_weight.local_weight`), where the settings ask
        for it.
    """

    halves: Float32Array
    raw: Float32Array
    joint: Float32Array | None
    unmasked: FloatArray
    masked: FloatArray
    choice: Choice = Choice(PLAIN)  # noqa: RUF009 (frozen)
    weight: Float32Array | None = None


def solve(
    problem: RefineProblem,
    sums: AnySums,
    ssnr: FloatArray | None,
    radius: int,
    means: FloatArray | None = None,
) -> Float32Array:
    """Map from finished sums; with the SSNR of each shell, regularised (:func:`verglas.reconstruction.sums.solve`).

    A class may have lost all its particles of a half set: its map is zero, and the iteration goes on without it.
    """
    means = shell_means(whole_weights(sums), sums.grid) if means is None else means
    if not means.any():
        return np.zeros((problem.box,) * 3, np.float32)
    if problem.correlation and ssnr is not None:
        # FREALIGN's constant: SSNR of every shell the same fraction (Grigorieff 2007, J. Struct. Biol. 157, 117).
        ssnr = np.full(radius + 1, 1 / problem.settings.wiener_k)
    return sums_to_map(sums, problem.operators, ssnr=ssnr, means=means, threads=problem.threads)


@dataclass(frozen=True)
class MapUpdate:
    """How the maps of a class are made of its sums.

    Attributes
    ----------
    radius : int
        Last shell of the sums.
    T : float
        Factor of the prior's variance.
    joint : bool
        Also the map of both halves.
    mask : (N, N, N) float32, optional
        Made from the map; without it the sphere.
    priors : sequence of Prior
        The one to regularise by; of several the ``judge`` takes one.
    judge : callable, optional
        Needed where there are several priors.
    iteration, class_number : int
        For priors that write files.
    """

    radius: int
    T: float
    joint: bool
    mask: Float32Array | None = None
    priors: Sequence[Prior] = (Wiener(),)
    judge: Judge | None = None
    iteration: int = 0
    class_number: int = 0


def class_maps(problem: RefineProblem, sums: list[AnySums], how: MapUpdate) -> ClassMaps:
    """Half maps of one class from the sums of both halves, which are used up."""
    radius, mask = how.radius, how.mask
    done, means = map(list, zip(*[_finish(problem, sums) for _ in range(2)], strict=True))
    raw = np.stack([solve(problem, s, None, radius, m) for s, m in zip(done, means, strict=True)])
    unmasked, masked = (np.nan_to_num(curve) for curve in half_fsc(problem, raw, mask))  # NaN: one of them is empty
    unmasked[radius + 1 :] = masked[radius + 1 :] = 0  # nothing was inserted there
    where = problem.sphere if mask is None else mask
    pixel_A = problem.pixel_size_A
    given = HalfMaps(
        raw, masked[: radius + 1], radius, how.T, where, problem.threads, pixel_A, how.iteration, how.class_number
    )
    fitted = {prior.name: prior.fit(given) for prior in how.priors}
    weight = local_weight(given) if problem.settings.score_mask != "off" else None

    def source(number: int, name: str, half_sets: int = 1) -> MapSource:
        of_both = half_sets > 1
        plain = raw.mean(axis=0) if of_both else raw[number]
        of_these = done[number]

        def weights() -> FloatArray:
            return fft_weights(whole_weights(of_these), of_these.grid)

        return MapSource(
            name, half_sets, plain, partial(solve, problem, of_these, radius=radius, means=means[number]), weights
        )

    made = {
        name: np.stack([regularise(source(number, f"half{number + 1}")) for number in (0, 1)])
        for name, regularise in fitted.items()
    }
    choice = Choice(next(iter(made))) if how.judge is None else how.judge(made)
    halves, both = made[choice.name], None
    if how.joint:
        done[0] += done.pop()  # in place: the sums of both would be a third grid
        means[0] = shell_means(whole_weights(done[0]), done[0].grid)
        both = _limit_band(problem, fitted[choice.name](source(0, "both", 2)), radius)
        raw = np.stack([_limit_band(problem, v, radius) for v in raw])
    return ClassMaps(join_halves(problem, halves), raw, both, unmasked, masked, choice, weight)


def _finish(problem: RefineProblem, sums: list[AnySums]) -> tuple[AnySums, FloatArray]:
    """The first of some sums finished, in their memory; and the mean weight of every shell."""
    held = sums.pop(0)
    whole = held.unpack() if isinstance(held, PackedSums) else held
    whole = finish(whole, problem.operators, threads=problem.threads)
    means = shell_means(whole_weights(whole), whole.grid)
    if not isinstance(held, PackedSums):
        return whole, means
    held.fill(whole)
    return held, means


def _limit_band(problem: RefineProblem, volume: Float32Array, radius: int) -> Float32Array:
    """Without what correcting for the gridding window spreads beyond the last shell of the data."""
    if radius >= (problem.box - 1) // 2:
        return volume
    threads = problem.threads
    spectrum = fourier.forward(volume, 3, threads=threads)
    spectrum[fourier.shells(volume.shape) > radius] = 0
    return fourier.inverse(spectrum, volume.shape, threads=threads)


def half_fsc(problem: RefineProblem, halves: Float32Array, mask: Float32Array | None) -> tuple[FloatArray, FloatArray]:
    """FSC of half maps as they are, and in the mask, corrected for what the mask itself correlates.

    In the sphere alone, whose edge is wide and far from the molecule, there is nothing to correct. Where phase
    randomisation cannot vouch for the mask the curve is at most that of the sphere: a tight mask would else claim
    resolution from its own edge, and the next iteration would align noise to it.
    """
    threads = problem.threads
    first, second = (Map(v, problem.pixel_size_A) for v in halves)
    masked = fsc(first, second, problem.sphere if mask is None else mask, threads=threads)
    spectra = [fourier.forward(half.data, 3, threads=threads) for half in (first, second)]
    unmasked = correlate_shells(spectra, first.data.shape, masked.counts)
    below = np.flatnonzero(unmasked[1:] < PostprocessSettings().randomise_below)
    if mask is None or not below.size:
        return unmasked, masked.curve
    shell = int(below[0]) + 1
    randomised, corrected = correct_for_mask(masked, spectra, mask, shell, problem.settings.seed, threads=threads)
    if vouches_for(shell, randomised, corrected):
        return unmasked, corrected.curve
    return unmasked, np.minimum(corrected.curve, fsc(first, second, problem.sphere, threads=threads).curve)


def mask_from_map(problem: RefineProblem, halves: Float32Array, shell: float) -> Float32Array | None:
    """Soft mask of the molecule from the mean of half maps, once their resolution allows it; None: the sphere stays."""
    if not problem.settings.solvent_mask or problem.resolution_of_A(shell) > _MASK_FROM_A:
        return None
    diameter = problem.diameter_px * problem.pixel_size_A
    mean = Map(halves.mean(axis=0), problem.pixel_size_A)
    mask = find_solvent_mask(mean, diameter_A=diameter, threads=problem.threads)
    return None if mask is None else mask.data


def join_halves(problem: RefineProblem, halves: Float32Array) -> Float32Array:
    """Both half maps with their mean in place of what is coarser than the join resolution."""
    coarse = filters.low_pass(problem.settings.join_resolution_A)
    difference = Map(halves[0] - halves[1], problem.pixel_size_A)
    low = filters.apply(difference, coarse, threads=problem.threads).data
    return np.stack([halves[0] - low / 2, halves[1] + low / 2])


def resolution_shell(curve: FloatArray, last: int, threshold: float = THRESHOLD) -> float:
    """Where the FSC first falls below a threshold, interpolated; the last shell if it does not.

    Examples
    --------
    >>> from verglas.refinement.update import resolution_shell
    >>> resolution_shell([1.0, 0.9, 0.5, 0.1], 3, threshold=0.3)
    2.5
    """
    c = np.asarray(curve, np.float64)[: last + 1]
    below = np.flatnonzero(c[1:] < threshold) + 1
    if not below.size:
        return float(last)
    s = int(below[0])
    return 1.0 if s == 1 else float(s - 1 + (c[s - 1] - threshold) / (c[s - 1] - c[s]))


def learn(problem: RefineProblem, model: HalfModel, totals: Totals, poses: PoseTable, rows: npt.NDArray) -> None:
    """Noise spectra, scales, class weights of a half, and noise levels of its particles, from one pass (in place)."""
    settings = problem.settings
    if settings.mode == "likelihood":
        model.sigma2 = ops.noise_variance(totals.squared, totals.coefficients, before=model.sigma2, least=_LEAST_NOISE)
        model.sigma2[:, 0] = model.sigma2[:, 1]
        if settings.norm:
            _learn_norm(problem, totals, poses, rows)
        if settings.scale and len(totals.cross) > 1:
            factor = ops.grey_scale(totals.cross, totals.power, sigma=_SCALE_SIGMA)
            scale = model.scale * np.clip(factor, 0.5, 2.0)
            particles = np.bincount(problem.micrograph[rows], minlength=len(scale))
            model.scale = np.clip(scale / np.average(scale, weights=particles), 0.2, 5.0)
    model.class_weight = np.maximum(totals.mass / totals.mass.sum(), 1e-4)
    model.class_weight /= model.class_weight.sum()


def _learn_norm(problem: RefineProblem, totals: Totals, poses: PoseTable, rows: npt.NDArray) -> None:
    """Noise level of each image against the mean of its group, changed by at most a fifth at a time."""
    ratio, group = totals.ratio[rows], problem.group[rows]
    mean = np.bincount(group, ratio) / np.maximum(np.bincount(group), 1)
    change = np.clip(np.sqrt(ratio / mean[group]), 1 / 1.2, 1.2)
    poses.norm[rows] = np.clip(poses.norm[rows] * change, 0.5, 2.0)
