"""How well any estimator can know the motion of a movie of particles, beside what is reached.

    python bench/bench_motion_bound.py --check
    python bench/bench_motion_bound.py [--movies 1] [--first-seed 3100] [--kind still-ice] [--add] [--folder movies]

Movies are those of ``compare_relion_motion.py --kind particles``, taken from ``--folder`` where they are there.
Frames of a patch that show one unknown Gaussian picture in white noise have, frequency by frequency, a covariance C
over frames, which a shift of frame f multiplies by a phase. The Fisher information of the shifts along one axis (the
Slepian-Bangs formula, :func:`shift_information`) is

    J_fg = sum over k of 2 (2 pi k_x)^2 (C_fg C^-1_fg - delta_fg),  C_fg = delta_fg + q_f q_g (s_c + s_i r^|f - g|)

with q what damage has left, s_c and s_i the power over the noise of what stays and of ice whose molecules move, r =
exp(-2 pi^2 k^2 v), v their mean square displacement in a frame. s_c and s_i are fitted, ring by ring, to what the
frames of the movie share when they are moved back by their true motion; r is that of the simulation.

A field of the estimator's own family (shifts of whole frames that settle, their jitter, a lattice of splines under
its prior) is then told J alone, and the three deviations of its prior are those that make the expected error of the
planted field least (:func:`least_error`): nobody who does not know the truth can choose better ones. ``bound_px`` is
that error, ``picture_known_px`` the same if the picture were known, too, which no motion correction is told. What is
bounded is estimates by smooth fields from second moments that are the same everywhere in the frame: who knew where
the particles lie could know a little more.

``--check``: the formula against two frames, known in closed form, and against the scatter of estimates on drawn data.
"""

from __future__ import annotations

import argparse
import tempfile
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from bench_motion import errors
from compare_relion_motion import movie_in
from scipy.optimize import minimize
from scipy.special import ive

from verglas.io import read_json
from verglas.motion import fields
from verglas.motion.binned import bin_factor, bin_movie
from verglas.motion.estimate import LATTICE_FRAMES, LATTICE_LENGTH, estimate_motion
from verglas.motion.exposure import Exposure
from verglas.motion.patches import Patches, cut

from common import RESULTS, write

SHAPE, FRAMES, PIXEL_A, DOSE = (1536, 2048), 24, 1.0, 1.0
ICE_MOTION_A2 = 0.5  # in a frame of 1 e/A2: the simulation's
START = (3.0, 0.02, 0.5)  # px, of the prior's deviations


def shift_information(covariance: np.ndarray, k_x: np.ndarray) -> np.ndarray:
    """J (frames, frames) of shifts in pixels along x: covariance (n, frames, frames), k_x (n,) cycles per pixel.

    Each complex frequency counts once.
    """
    inverse = np.linalg.inv(covariance)
    each = covariance * inverse - np.eye(covariance.shape[-1])
    return np.asarray(np.einsum("n,nfg->fg", 2 * (2 * np.pi * k_x) ** 2, each))


def shared_power(patches: Patches, field_px: np.ndarray, moves_A2: float) -> tuple[np.ndarray, np.ndarray]:
    """s_c and s_i of every ring: least squares over pairs of frames, 0 or more, three neighbouring rings together."""
    rings, size, n = patches.rings, int(patches.rings.max()) + 1, patches.data.shape[1]
    usable = patches.usable(PIXEL_A)
    count = np.bincount(rings[usable], minlength=size)
    together = np.zeros((size, n, n))
    moved = patches.shifts(field_px)
    for p in range(len(patches.data)):
        down = np.exp(2j * np.pi * moved[p, :, 1, None] * patches.frequencies_y)
        across = np.exp(2j * np.pi * moved[p, :, 0, None] * patches.frequencies_x)
        z = (patches.data[p] * down[:, :, None] * across[:, None, :])[:, usable]
        order = np.argsort(rings[usable], kind="stable")
        ends = np.cumsum(count)
        for ring in np.flatnonzero(count):
            some = z[:, order[ends[ring] - count[ring] : ends[ring]]]
            together[ring] += (some @ some.conj().T).real
    pair = ~np.eye(n, dtype=bool)
    lag = np.abs(np.subtract.outer(np.arange(n), np.arange(n)))[pair]
    q = np.array([np.bincount(rings[usable], d[usable], size) for d in patches.damping]) / np.maximum(1, count)
    k_A = np.arange(size) / (patches.side * patches.factor * PIXEL_A)
    powers = np.zeros((2, size))
    for ring in np.flatnonzero(count):
        near = [r for r in (ring - 1, ring, ring + 1) if 0 <= r < size and count[r]]
        weight = sum(count[r] for r in near) * len(patches.data)
        measured = sum(together[r] for r in near)[pair] / weight
        still = ((q[:, ring, None] * q[:, ring]) ** 2)[pair]  # data are multiplied by q: q_f^2 q_g^2
        fading = still * np.exp(-2 * np.pi**2 * k_A[ring] ** 2 * moves_A2 * lag)
        powers[:, ring] = _nonnegative(np.stack([still, fading], 1), measured, moves_A2 > 0)
    return powers[0], powers[1]


def _nonnegative(columns: np.ndarray, values: np.ndarray, both: bool) -> np.ndarray:
    if both:
        found = np.linalg.lstsq(columns, values, rcond=None)[0]
        if (found >= 0).all():
            return np.asarray(found)
    fits = []
    for j in range(2 if both else 1):
        alone = max(0.0, float(columns[:, j] @ values / (columns[:, j] @ columns[:, j])))
        fits.append((float(((values - alone * columns[:, j]) ** 2).sum()), alone * np.eye(2)[j]))
    return np.asarray(min(fits, key=lambda fit: fit[0])[1])


def information_of(patches: Patches, powers: tuple[np.ndarray, np.ndarray], moves_A2: float, known: bool) -> np.ndarray:
    """J of one patch, per square pixel of the frames, mean of both axes."""
    usable = patches.usable(PIXEL_A)
    rings = patches.rings[usable]
    n = patches.data.shape[1]
    lag = np.abs(np.subtract.outer(np.arange(n), np.arange(n)))
    total = np.zeros((n, n))
    for ring in np.unique(rings):
        here = usable & (patches.rings == ring)
        q = patches.damping[:, here].mean(1).astype(float)
        k_A = ring / (patches.side * patches.factor * PIXEL_A)
        fading = np.exp(-2 * np.pi**2 * k_A**2 * moves_A2 * lag)
        signal = np.outer(q, q) * (powers[0][ring] + powers[1][ring] * fading)
        k_axis = patches.radius[here] / np.sqrt(2) / patches.factor
        if known:  # the power that two frames share and more: what stays
            total += np.diag(2 * ((2 * np.pi * k_axis) ** 2).sum() * np.diag(signal))
        else:
            total += shift_information((np.eye(n) + signal)[None], np.sqrt([(k_axis**2).sum()]))
    return total


def least_error(patches: Patches, information: np.ndarray, truth: Any) -> tuple[float, list[float]]:
    """Expected mean error over nine by nine places and all frames, and the prior's deviations that make it least."""
    timing = fields.Timing(FRAMES, np.arange(FRAMES))
    centres, n = patches.centres_px, len(patches.data)
    x, y = (axis.ravel() for axis in np.meshgrid(*(np.linspace(0, side - 1, 9) for side in SHAPE[::-1])))
    places = np.stack([x, y], 1)
    time = fields.settling_times(timing.frames, LATTICE_FRAMES)
    terms = [
        *fields.global_terms(n, timing.frames),
        (fields.lattice_places(centres, SHAPE, LATTICE_LENGTH)[0], time, 1.0),
    ]
    space = [np.ones((81, 1))] * 2 + [fields.lattice_places(places, SHAPE, LATTICE_LENGTH)[0]]
    field = fields.field_of(terms[:2], terms[2:])
    design = np.concatenate(
        [np.einsum("ms,ft->mfst", s, t).reshape(81, FRAMES, -1) for s, t in zip(space, field.time, strict=True)],
        axis=2,
    )
    design -= design.mean(1, keepdims=True)
    wanted = truth.at(x, y)
    wanted = wanted - wanted.mean(1, keepdims=True)
    told = field.information(np.ones(n), information)
    pushed = field.adjoint(np.einsum("fg,pga->pfa", information, truth.at(*centres.T)))

    def expected(log_deviations: np.ndarray) -> float:
        prior = field.with_deviations(tuple(np.exp(log_deviations))).precision()
        gain = np.linalg.inv(told + np.diag(prior))
        bias = np.einsum("mfs,as->mfa", design, pushed @ gain) - wanted
        spread = gain @ told @ gain
        variance = np.einsum("mfs,mfs->mf", design @ spread, design)
        return float(mean_distance((bias**2).sum(-1), np.maximum(variance, 1e-12)).mean())

    best = minimize(
        expected, np.log(START), method="Nelder-Mead", options={"maxiter": 120, "fatol": 1e-4, "xatol": 0.1}
    )
    return float(best.fun), [float(d) for d in np.exp(best.x)]


def mean_distance(bias2: np.ndarray, variance: np.ndarray) -> np.ndarray:
    """Mean length of a vector in the plane with a Gaussian error of this variance along each axis (Rice)."""
    h = bias2 / (4 * variance)
    return np.asarray(np.sqrt(np.pi * variance / 2) * ((1 + 2 * h) * ive(0, h) + 2 * h * ive(1, h)))


def row_of(seed: int, kind: str, folder: Path | None) -> dict[str, Any]:
    """What is reached on one movie, and what can be."""
    moves = ICE_MOTION_A2 if kind == "particles" else 0.0
    with nullcontext(folder) if folder else tempfile.TemporaryDirectory() as place:
        path, truth = movie_in(Path(place), SHAPE, FRAMES, seed, kind)
        frames = tifffile.imread(path)
    binned = bin_movie(
        (frame.astype(np.float32) for frame in frames), FRAMES, SHAPE, bin_factor(SHAPE, FRAMES, PIXEL_A)
    )
    exposure = Exposure(PIXEL_A, DOSE)
    reached = estimate_motion(binned, exposure, threads=2)
    used = np.arange(FRAMES)
    patches = cut(binned, used, truth.at(SHAPE[1] / 2, SHAPE[0] / 2), exposure)
    powers = shared_power(patches, truth.at(*patches.centres_px.T), moves)
    row: dict[str, Any] = {"seed": seed, "kind": kind, "model": reached.motion.model}
    row |= errors(reached.motion, truth, SHAPE)
    row["nothing_px"] = errors(None, truth, SHAPE)["all_px"]
    for name, known in (("bound_px", False), ("picture_known_px", True)):
        row[name], row[name.replace("_px", "_prior_px")] = least_error(
            patches, information_of(patches, powers, moves, known), truth
        )
    row["reached_over_bound"] = row["all_px"] / row["bound_px"]
    return row


def check() -> None:
    """The closed form of two frames, and the scatter of estimates on drawn data.

    Two frames of one picture of power s in noise of 1: J of their difference is 2 (2 pi k)^2 s^2 / (1 + 2 s) each.
    """
    s, k = 0.7, np.linspace(0.02, 0.2, 60)
    two = shift_information(np.broadcast_to(np.eye(2) + s, (len(k), 2, 2)), k)
    closed = (2 * (2 * np.pi * k) ** 2 * s**2 / (1 + 2 * s)).sum()
    assert np.allclose(two, closed * np.array([[1, -1], [-1, 1]])), (two, closed)
    n, trials, rng = 6, 400, np.random.default_rng(1)
    q = np.exp(-0.1 * np.arange(n))
    lag = np.abs(np.subtract.outer(np.arange(n), np.arange(n)))
    k = np.repeat(k, 10)
    c = np.eye(n) + np.outer(q, q) * (0.3 + 0.5 * np.exp(-30 * k[:, None, None] ** 2 * lag))
    root, inverse = np.linalg.cholesky(c), np.linalg.inv(c)
    j = shift_information(c, k)
    found = []
    for _ in range(trials):
        white = (rng.normal(size=(len(k), n)) + 1j * rng.normal(size=(len(k), n))) / np.sqrt(2)
        z = np.einsum("kfg,kg->kf", root, white)
        # one step of scoring from the truth: solve J d = slope of the log-likelihood; a shift of all frames is free
        told = np.einsum("kfg,kg->kf", inverse, z)
        slope = -(4 * np.pi * k[:, None] * (told.conj() * z).imag).sum(0)
        found.append(np.linalg.pinv(j) @ slope)
    ratio = np.var(np.array(found), axis=0).mean() / np.diag(np.linalg.pinv(j)).mean()
    print(
        f"two frames: the closed form to rounding; {trials} drawn sets of {n} frames: variance {ratio:.3f} of the bound"
    )
    assert abs(ratio - 1) < 0.1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--movies", type=int, default=1)
    parser.add_argument("--first-seed", type=int, default=3100)
    parser.add_argument("--kind", choices=("particles", "still-ice"), default="particles")
    parser.add_argument("--folder", type=Path, help="where movies are kept; a temporary one by default")
    parser.add_argument("--add", action="store_true", help="to the rows that the file of results holds")
    parser.add_argument("--check", action="store_true", help="the formula against known cases; nothing is written")
    args = parser.parse_args()
    if args.check:
        check()
        return
    rows = read_json(RESULTS / "motion_bound.json")["rows"] if args.add else []
    for seed in range(args.first_seed, args.first_seed + args.movies):
        rows.append(row_of(seed, args.kind, args.folder))
        print(rows[-1], flush=True)
        write("motion_bound", rows, quiet=True, shape=SHAPE, frames=FRAMES, dose_per_frame_e_A2=DOSE)


if __name__ == "__main__":
    main()
