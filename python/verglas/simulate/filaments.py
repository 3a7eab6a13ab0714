"""Micrographs of filaments with known centre-lines: solid rods that bend and cross, modulated along their length."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree

from verglas.errors import InputError
from verglas.simulate.micrographs import MicrographTruth, Scene, apply_optics, micrograph
from verglas.simulate.noise import stream
from verglas.types import Micrograph
from verglas.types.arrays import Float32Array, FloatArray
from verglas.types.settings import settings_from

_LINES = 11  # number of the random stream; micrographs use 1 to 5
_SIGMA = 10.0  # deviation of the noise in simulated micrographs
_STEP_PX = 0.5


@dataclass(frozen=True)
class FilamentTruth:
    """What is known of a simulated micrograph of filaments.

    Attributes
    ----------
    lines : list of (n, 2) float64
        Centre-lines as x, y in pixels, half a pixel from point to point, along one direction of each filament.
    width_A : float
        Diameter of the rods.
    micrograph : MicrographTruth
        Scene, contaminants and carbon.
    """

    lines: list[FloatArray]
    width_A: float
    micrograph: MicrographTruth


def filaments(
    scene: Scene | None = None,
    *,
    width_A: float = 100.0,
    persistence_A: float = 20000.0,
    length_A: float | None = None,
    repeat_A: float = 60.0,
    seed: int = 0,
    **changes: Any,
) -> tuple[Micrograph, FilamentTruth]:
    r"""Simulate one micrograph of filaments.

    Each is a solid rod whose direction is a random walk of variance s / P over a length s (a worm-like chain of
    persistence length P in the plane), its density modulated by 1 + 0.4 cos(2 pi s / repeat), projected, modulated by
    the CTF, dark. Noise, carbon and contaminants are those of :func:`verglas.simulate.micrograph`.

    Parameters
    ----------
    scene : Scene, optional
        ``n`` filaments; ``snr`` is their variance over that of the noise, within half a width of the centre-lines.
        Further keywords change its fields.
    width_A, persistence_A, repeat_A : float
        Diameter of the rods, persistence length, axial repeat.
    length_A : float, optional
        Of each filament; by default each leaves the micrograph at both ends.
    seed : int
    **changes
        Fields of :class:`Scene`: ``shape=(256, 300)``, ``snr=0.2``.

    Returns
    -------
    Micrograph, FilamentTruth

    Raises
    ------
    InputError
        A width, length or repeat that is not positive, or a setting that :class:`Scene` does not know.

    Examples
    --------
    >>> import verglas as vg
    >>> m, truth = vg.simulate.filaments(shape=(256, 300), pixel_size_A=4.0, n=2, snr=0.2, seed=1)
    >>> m.shape, len(truth.lines)
    ((256, 300), 2)
    """
    if not min(width_A, persistence_A, repeat_A, length_A or 1.0) > 0:
        raise InputError("simulate.filaments: expected positive width_A, persistence_A, repeat_A and length_A")
    scene = settings_from("simulate.filaments", Scene, scene or Scene(n=5), **changes)
    plain, truth = micrograph(None, scene, seed=seed)
    rng = stream(seed, _LINES)
    lines = [_centre_line(scene, persistence_A, length_A, rng) for _ in range(scene.n)]
    drawn = _apply(scene, _draw(scene, lines, width_A, repeat_A))
    near = _near_lines(scene, lines, width_A / 2 / scene.pixel_size_A)
    power = float(drawn[near].var()) if near.any() else 0.0
    gain = _SIGMA * np.sqrt(scene.snr / power) if power > 0 else 0.0
    data = plain.data - np.float32(gain) * drawn
    return replace(plain, data=data.astype(np.float32)), FilamentTruth(lines, width_A, truth)


def _centre_line(scene: Scene, persistence_A: float, length_A: float | None, rng: np.random.Generator) -> FloatArray:
    """Points of one chain, half of it to either side of a random place off the carbon."""
    height, width = scene.shape
    left = scene.carbon * width
    start = np.array(
        [rng.uniform(left + 0.15 * (width - left), width - 0.15 * (width - left)), rng.uniform(0.15, 0.85) * height]
    )
    direction = rng.uniform(0, 2 * np.pi)
    half = (2.0 * max(scene.shape) if length_A is None else length_A / 2 / scene.pixel_size_A) / _STEP_PX
    turn = np.sqrt(_STEP_PX * scene.pixel_size_A / persistence_A)
    sides = []
    for sign in (1, -1):
        angles = direction + np.cumsum(rng.normal(scale=turn, size=int(half)))
        steps = sign * _STEP_PX * np.stack([np.cos(angles), np.sin(angles)], axis=1)
        sides.append(start + np.cumsum(steps, axis=0))
    line = np.concatenate([sides[1][::-1], start[None], sides[0]])
    # Filaments end at the edge and at the carbon, and do not come back.
    inside = ((line >= (left, 0)) & (line <= (width - 1, height - 1))).all(axis=1)
    middle = len(sides[1])
    outside = np.flatnonzero(~inside)
    first = outside[outside < middle].max(initial=-1) + 1
    last = outside[outside > middle].min(initial=len(line))
    return np.asarray(line[first:last])


def _draw(scene: Scene, lines: list[FloatArray], width_A: float, repeat_A: float) -> Float32Array:
    """Projected rods: a line smeared with a disc has the profile of a cylinder, 2 sqrt(R^2 - v^2)."""
    out = np.zeros(scene.shape, np.float32)
    for line in lines:
        along_A = np.arange(len(line)) * _STEP_PX * scene.pixel_size_A
        weights = 1 + 0.4 * np.cos(2 * np.pi * along_A / repeat_A)
        corner = np.floor(line).astype(np.int64)
        share = line - corner
        for dx in (0, 1):
            for dy in (0, 1):
                part = np.abs(1 - dx - share[:, 0]) * np.abs(1 - dy - share[:, 1]) * weights
                x, y = corner[:, 0] + dx, corner[:, 1] + dy
                kept = (x < scene.shape[1]) & (y < scene.shape[0])
                np.add.at(out, (y[kept], x[kept]), part[kept])
    radius = width_A / 2 / scene.pixel_size_A
    reach = int(np.ceil(radius)) + 1
    grid = np.arange(-reach, reach + 1)
    disc = np.clip(radius + 0.5 - np.hypot(grid[:, None], grid), 0, 1)
    from scipy import signal  # loads scipy.stats: a fifth of the start of every command

    return np.asarray(signal.fftconvolve(out, disc, mode="same"), np.float32)


def _apply(scene: Scene, drawn: Float32Array) -> Float32Array:
    """The CTF of the scene; mirrored beyond the edge, so that no filament ends there."""
    side = max(scene.shape)
    square = np.pad(drawn, [(0, 2 * side - n) for n in scene.shape], mode="symmetric") if min(scene.shape) else drawn
    return apply_optics(scene, np.asarray(square, np.float32))


def _near_lines(scene: Scene, lines: list[FloatArray], distance_px: float) -> np.ndarray:
    if not lines:
        return np.zeros(scene.shape, bool)
    marks = np.ones(scene.shape, bool)
    for line in lines:
        x, y = np.rint(line).astype(np.int64).T
        marks[y.clip(0, scene.shape[0] - 1), x.clip(0, scene.shape[1] - 1)] = False
    return np.asarray(ndimage.distance_transform_edt(marks) <= distance_px)


def distance_to_lines(xy_px: FloatArray, lines: list[FloatArray]) -> tuple[FloatArray, FloatArray]:
    """Distance of points to the nearest centre-line, and its direction there, in degrees modulo 180.

    Parameters
    ----------
    xy_px : (n, 2) float64
    lines : list of (m, 2) float64

    Returns
    -------
    (n,) float64, (n,) float64

    Examples
    --------
    >>> import numpy as np
    >>> from verglas.simulate.filaments import distance_to_lines
    >>> line = np.stack([np.arange(100.0), np.full(100, 7.0)], axis=1)
    >>> [float(v[0]) for v in distance_to_lines(np.array([[50.0, 10.0]]), [line])]
    [3.0, 0.0]
    """
    points = np.concatenate(lines)
    directions = np.concatenate([np.gradient(line, axis=0) for line in lines])
    distance, index = cKDTree(points).query(xy_px)
    angle = np.rad2deg(np.arctan2(directions[index, 1], directions[index, 0])) % 180
    return np.asarray(distance), np.asarray(angle)
