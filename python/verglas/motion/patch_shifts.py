"""Classical local motion: shifts of patches, each measured by itself, and surfaces through them.

S. Q. Zheng et al. (2017) Nat. Methods 14, 331 (a polynomial through patches); S. H. W. Scheres (2014) eLife 3, e03665
(linear tracks of neighbours); A. F. Brilot et al. (2012) J. Struct. Biol. 177, 630 (doming).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from verglas import fourier
from verglas.errors import InputError
from verglas.motion.patches import Patches
from verglas.motion.whole_frames import peak_shift
from verglas.types.arrays import FloatArray
from verglas.types.display import one_line
from verglas.types.motion import polynomial_space, polynomial_time, spline_basis

TUKEY = 4.685  # residuals beyond so many robust standard deviations count nothing
ROUNDS = 20


def measure(patches: Patches, weights: FloatArray, at_px: FloatArray, rounds: int = 2, together: int = 1) -> FloatArray:
    """Shift of every patch in every frame, where its correlation with the sum of the other frames is highest.

    Parameters
    ----------
    patches : Patches
    weights : (rows, columns)
    at_px : (n, frames, 2)
        Where to start, pixels of the frames.
    rounds : int
        How often the sums are made anew.
    together : int
        Frames about each, itself included, that are summed to be compared with the rest: a frame of little exposure
        shows too little by itself, and its highest peak lies anywhere in the patch.

    Returns
    -------
    (n, frames, 2) float64
        Pixels, x then y; the mean over frames is that of ``at_px``.
    """
    side, shift = patches.side, np.array(at_px, float)
    number = np.arange(at_px.shape[1])
    summed = (np.abs(number[:, None] - number) <= together // 2).astype(np.float32)
    rows = np.rint(patches.frequencies_y * side).astype(int) % side
    columns = np.rint(patches.frequencies_x * side).astype(int)
    for _ in range(rounds):
        shifts = patches.shifts(shift)
        for p, data in enumerate(patches.data):
            phase = np.exp(
                2j
                * np.pi
                * (
                    shifts[p, :, 0, None, None] * patches.frequencies_x
                    + shifts[p, :, 1, None, None] * patches.frequencies_y[:, None]
                )
            )
            turned = data * phase
            total = turned.sum(0)
            turned = np.einsum("fg,gyx->fyx", summed, turned, optimize=True)
            others = weights * (total - turned).conj()
            spectra = np.zeros((len(turned), side, side // 2 + 1), np.complex64)
            spectra[:, rows[:, None], columns] = others * turned
            fft, more = fourier.transforms(spectra, patches.threads)
            maps = fft.irfft2(spectra, s=(side, side), **more)
            moved = np.array([peak_shift(map_, np.zeros(2))[0] for map_ in maps])
            shift[p] += (moved - moved.mean(0)) * patches.factor
    return shift


@dataclass(frozen=True, eq=False)
class PolynomialFit:
    """A polynomial through shifts of patches.

    Attributes
    ----------
    coefficients : (2, 18) float64
        As in :class:`verglas.types.motion.Motion`.
    residual_px : float
        Root mean square of the distances, over the shifts that count.
    kept : (n, frames) bool
        Shifts that count.
    """

    coefficients: FloatArray
    residual_px: float
    kept: npt.NDArray[np.bool_]


def polynomial_through(
    centres_px: npt.ArrayLike,
    shifts_px: npt.ArrayLike,
    shape: tuple[int, int],
    *,
    robust: bool = True,
    about_mean: bool = False,
) -> PolynomialFit:
    """The 18 coefficients an axis that explain shifts of patches best, as RELION defines them.

    Parameters
    ----------
    centres_px : (n, 2) array_like
        x, y.
    shifts_px : (n, frames, 2) array_like
        Beyond the shifts of whole frames; the first frame's are at 0.
    shape : (int, int)
        (y, x) of the frames.
    robust : bool
        Whether shifts far from the surface are found and left out (Tukey's biweight).
    about_mean : bool
        Shifts of a patch are known up to a constant, as those against the sum of frames are: the mean over frames is
        taken off shifts and polynomial alike before they are compared.

    Raises
    ------
    InputError
        Shapes that do not go together, or fewer than 6 patches or 4 frames.

    Examples
    --------
    >>> import numpy as np
    >>> from verglas.motion.patch_shifts import polynomial_through
    >>> xy = np.stack(np.meshgrid(np.arange(50, 400, 100), np.arange(50, 300, 100)), -1).reshape(-1, 2)
    >>> planted = 0.01 * (xy[:, None, :1] / 400 - 0.5) * np.arange(6)[:, None] * [1, 0]
    >>> polynomial_through(xy, planted, (300, 400)).coefficients[0, 3].round(6).item()
    0.01
    """
    centres, shifts = np.asarray(centres_px, float), np.asarray(shifts_px, float)
    if centres.ndim != 2 or shifts.ndim != 3 or len(centres) != len(shifts) or shifts.shape[2] != 2:
        raise InputError(
            f"polynomial: expected (n, 2) centres and (n, frames, 2) shifts, got {centres.shape}, {shifts.shape}"
        )
    n, frames = shifts.shape[:2]
    if n < 6 or frames < 4:
        raise InputError(f"polynomial: {n} patches and {frames} frames; expected at least 6 and 4")
    space, time = polynomial_space(centres[:, 0], centres[:, 1], shape), polynomial_time(frames)
    scale = float(frames - 1) ** np.arange(1, 4)
    time = time / scale
    if about_mean:
        time, shifts = time - time.mean(0), shifts - shifts.mean(1, keepdims=True)
    design = np.einsum("ps,ft->pfst", space, time).reshape(n * frames, 18)
    values, weight = shifts.reshape(-1, 2), np.ones(n * frames)
    solution = np.zeros((18, 2))
    for _ in range(ROUNDS if robust else 1):
        solution, before = np.linalg.lstsq(weight[:, None] * design, weight[:, None] * values, rcond=None)[0], solution
        residual = np.hypot(*(values - design @ solution).T)
        spread = max(float(np.median(residual)) / 1.1774, 1e-9)  # median of a Rayleigh variable of unit sigma
        if not robust or np.abs(solution - before).max() < 1e-6:
            break
        weight = np.clip(1 - (residual / (TUKEY * spread)) ** 2, 0, None)
    kept = weight > 0
    coefficients = (solution.T.reshape(2, 6, 3) / scale).reshape(2, 18)
    return PolynomialFit(coefficients, float(np.sqrt(np.mean(residual[kept] ** 2))), kept.reshape(n, frames))


def linear_tracks(
    xy_px: npt.ArrayLike, shifts_px: npt.ArrayLike, sigma_px: float, at_px: npt.ArrayLike | None = None
) -> FloatArray:
    r"""Straight tracks fitted to a particle and its neighbours: alpha + beta f of each.

    .. math:: \min_{\alpha, \beta} \sum_{p'} w_{pp'} \sum_f (\Delta_{p'f} - \alpha - \beta f)^2, \quad
        w_{pp'} = e^{-r_{pp'}^2 / (2 \sigma^2)}

    Parameters
    ----------
    xy_px : (n, 2) array_like
    shifts_px : (n, frames, 2) array_like
        Of each by itself.
    sigma_px : float
        Over which neighbours count.
    at_px : (m, 2) array_like, optional
        Places wanted; those of the particles by default.

    Returns
    -------
    (m, frames, 2) float64

    Examples
    --------
    >>> import numpy as np
    >>> from verglas.motion.patch_shifts import linear_tracks
    >>> linear_tracks([[0, 0]], [[[0, 0], [1, 0], [2, 3]]], 10.0)[0].round(2).tolist()
    [[0.0, -0.5], [1.0, 1.0], [2.0, 2.5]]
    """
    places, shifts = np.asarray(xy_px, float), np.asarray(shifts_px, float)
    if not sigma_px > 0 or shifts.shape[::2] != places.shape:
        raise InputError(
            f"tracks: expected a positive sigma, (n, 2) places and (n, frames, 2) shifts; got "
            f"{sigma_px:g}, {places.shape}, {shifts.shape}"
        )
    at = places if at_px is None else np.asarray(at_px, float)
    distance2 = ((at[:, None] - places[None]) ** 2).sum(-1)
    # relative to the nearest, so that a place far from all still has neighbours
    weight = np.exp(-(distance2 - distance2.min(1, keepdims=True)) / (2 * sigma_px**2))
    weight /= weight.sum(1, keepdims=True)
    # all tracks share the frames, so the best line of the weighted shifts is the line of their weighted mean
    mean = np.einsum("mp,pfa->mfa", weight, shifts)
    time = np.arange(shifts.shape[1]) - (shifts.shape[1] - 1) / 2
    beta = np.einsum("f,mfa->ma", time, mean) / max(float(time @ time), 1e-300)
    return np.asarray(mean.mean(1)[:, None] + beta[:, None] * time[:, None])


@one_line
@dataclass(frozen=True, eq=False)
class Dome:
    """A specimen that domes.

    The height is A_f (1 - |r - c|^2 / R^2), R half the diagonal of the frame: its change along the beam shows as
    A_f tan(tilt) across the tilt axis, its slope as a stretch B_f (r - c) / R.

    Attributes
    ----------
    height_px : (frames,) float64
        A; 0 without a tilt, where height shows nothing.
    stretch_px : (frames,) float64
        B.
    centre_px : (2,) float64
        c; the centre of the frame without a tilt.
    shifts_px : (frames, 2) float64
        Of the whole frame.
    """

    height_px: FloatArray
    stretch_px: FloatArray
    centre_px: FloatArray
    shifts_px: FloatArray
    shape: tuple[int, int]
    tilt_deg: float
    axis_deg: float

    def at(self, xy_px: npt.ArrayLike) -> FloatArray:
        """The field (n, frames, 2) at places (n, 2)."""
        stretch, lift = _dome_functions(
            np.asarray(xy_px, float), self.centre_px, self.shape, self.tilt_deg, self.axis_deg
        )
        moved = stretch[:, None] * self.stretch_px[:, None] + lift[:, None] * self.height_px[:, None]
        return np.asarray(self.shifts_px + moved)


def _dome_functions(
    xy: FloatArray, centre: FloatArray, shape: tuple[int, int], tilt_deg: float, axis_deg: float
) -> tuple[FloatArray, FloatArray]:
    """Stretch (n, 2) and lift (n, 2) of a unit stretch and a unit height."""
    radius = np.hypot(*shape) / 2
    away = (xy - centre) / radius
    across = np.deg2rad(axis_deg + 90)
    height = 1 - (away**2).sum(-1)
    direction = np.tan(np.deg2rad(tilt_deg)) * np.array([np.cos(across), np.sin(across)])
    return away, height[:, None] * direction


def fit_dome(
    xy_px: npt.ArrayLike,
    shifts_px: npt.ArrayLike,
    shape: tuple[int, int],
    tilt_deg: float = 0.0,
    axis_deg: float = 0.0,
) -> Dome:
    """A dome through shifts of places: one centre, a height and a stretch of every frame.

    Parameters
    ----------
    xy_px : (n, 2) array_like
    shifts_px : (n, frames, 2) array_like
    shape : (int, int)
        (y, x) of the frames.
    tilt_deg, axis_deg : float
        Of the specimen; the axis from +x towards +y.

    Raises
    ------
    InputError
        Fewer than 4 places.
    """
    xy, shifts = np.asarray(xy_px, float), np.asarray(shifts_px, float)
    if len(xy) < 4 or shifts.shape[::2] != (len(xy), 2):
        raise InputError(f"dome: expected 4 places and more with (n, frames, 2) shifts, got {xy.shape}, {shifts.shape}")
    middle = (np.array(shape[::-1]) - 1) / 2
    tilted = abs(np.tan(np.deg2rad(tilt_deg))) > 1e-6

    def solve(centre: FloatArray) -> tuple[FloatArray, float]:
        stretch, lift = _dome_functions(xy, centre, shape, tilt_deg, axis_deg)
        one = np.eye(2)[None].repeat(len(xy), 0)  # (n, axis, shift)
        columns = [one[..., 0], one[..., 1], stretch, *([lift] if tilted else [])]
        design = np.stack(columns, -1).reshape(2 * len(xy), -1)
        values = shifts.transpose(0, 2, 1).reshape(2 * len(xy), -1)
        solution = np.linalg.lstsq(design, values, rcond=None)[0]
        return solution, float(((values - design @ solution) ** 2).sum())

    centre = middle
    if tilted:
        from scipy.optimize import minimize

        reach = np.hypot(*shape) / 4
        best = minimize(
            lambda c: solve(middle + reach * c)[1],
            np.zeros(2),
            method="Nelder-Mead",
            options={"xatol": 1e-4, "fatol": 0.0, "maxiter": 400},
        )
        centre = middle + reach * best.x
    solution, _ = solve(centre)
    height = solution[3] if tilted else np.zeros(shifts.shape[1])
    return Dome(height, solution[2], centre, solution[:2].T, shape, tilt_deg, axis_deg)


def lattice_through(
    centres_px: npt.ArrayLike, values_px: npt.ArrayLike, shape: tuple[int, int], nodes: int = 7, ridge: float = 1e-2
) -> FloatArray:
    """Control points (frames, nodes, nodes, 2) of splines through values (n, frames, 2), second differences damped."""
    centres, values = np.asarray(centres_px, float), np.asarray(values_px, float)
    down, across = spline_basis(centres[:, 1], shape[0], nodes), spline_basis(centres[:, 0], shape[1], nodes)
    basis = (down[:, :, None] * across[:, None]).reshape(len(centres), -1)
    bend = np.diff(np.eye(nodes), 2, axis=0)
    smooth = np.kron(bend.T @ bend, np.eye(nodes)) + np.kron(np.eye(nodes), bend.T @ bend)
    left = basis.T @ basis + len(centres) / nodes**2 * (ridge * smooth + 1e-6 * np.eye(nodes**2))
    solved = np.linalg.solve(left, basis.T @ values.reshape(len(values), -1))
    return np.asarray(solved.reshape(nodes, nodes, -1, 2).transpose(2, 0, 1, 3))
