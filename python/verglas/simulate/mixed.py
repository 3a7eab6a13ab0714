"""Boxes of particles mixed with what pickers take beside them, and of what kind each is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy import ndimage

from verglas.errors import InputError
from verglas.image import normalise
from verglas.simulate.imaging import Imaging, Simulation
from verglas.simulate.model import Model
from verglas.simulate.noise import noise_sigma, stream
from verglas.types import Particles
from verglas.types.arrays import Float32Array, FloatArray, IntArray

# What a box can hold; the first is what is wanted.
BOX_KINDS = ("particle", "off_centre", "pair", "fragment", "contaminant", "edge", "ice", "empty")
_KIND_STREAM = 2**63 + 7
_NEIGHBOUR = 0.3  # of the particles have one at 1.1 to 1.4 diameters
_WIDE = 2  # boxes are cut from images so many times as wide


def mixed_particles(
    model: Model,
    n: int,
    box: int,
    pixel_size_A: float,
    shares: Mapping[str, float],
    *,
    snr: float = 0.1,
    fragment: Model | None = None,
    imaging: Imaging | None = None,
    seed: int = 0,
    threads: int | None = None,
) -> tuple[Particles, IntArray]:
    """Boxes as a picker leaves them, bright on dark and normalised outside the particle's circle.

    Kinds are ``particle``; ``off_centre``, by 0.3 to 0.6 diameters; ``pair``, two neighbours with the centre between
    them; ``fragment``, of a smaller model; ``contaminant``, a soft ball of 0.3 to 1.5 diameters; ``edge``, of carbon;
    ``ice``, bright crystals; ``empty``, noise alone.

    Parameters
    ----------
    model : Model
    n, box : int
    pixel_size_A : float
    shares : mapping of str -> float
        Of each kind, in any unit.
    snr : float
        Mean variance of a particle in its box over that of the noise.
    fragment : Model, optional
        Needed where fragments are asked for.
    imaging : Imaging, optional
        Optics, and the spread of the particles about their box's centre.
    seed : int
    threads : int, optional
        The result does not depend on it.

    Returns
    -------
    Particles, (n,) int64
        Images without poses, and the number of each one's kind in :data:`BOX_KINDS`.

    Raises
    ------
    InputError
        An unknown kind, or a fragment without its model.

    Examples
    --------
    >>> from verglas import simulate
    >>> model = simulate.phantom(box=32, pixel_size_A=6.0, diameter_A=120)
    >>> made, kind = simulate.mixed_particles(model, 40, 32, 6.0, {"particle": 3, "empty": 1})
    >>> made.images().shape, sorted(set(kind.tolist()))
    ((40, 32, 32), [0, 7])
    """
    unknown = sorted(set(shares) - set(BOX_KINDS))
    if unknown or not sum(shares.values()) > 0:
        raise InputError(f"simulate.mixed_particles: unknown kind {unknown[:1]}; known are {', '.join(BOX_KINDS)}")
    if shares.get("fragment", 0) > 0 and fragment is None:
        raise InputError("simulate.mixed_particles: fragments need the model of one")
    rng = stream(seed, _KIND_STREAM)
    weight = np.array([shares.get(kind, 0.0) for kind in BOX_KINDS])
    kind = rng.choice(len(BOX_KINDS), n, p=weight / weight.sum())
    how: dict[str, Any] = {"imaging": imaging, "threads": threads}
    wide = _WIDE * box
    of_model = Simulation(model, 2 * n, wide, pixel_size_A, seed=seed, **how)
    clean = of_model.clean(np.arange(2 * n))
    diameter_px = 2 * model.radius_A / pixel_size_A
    middle = slice((wide - box) // 2, (wide - box) // 2 + box)
    variance = float(clean[:n, middle, middle].var(axis=(1, 2), dtype=np.float64).mean())
    unit = np.sqrt(variance)
    small = None
    if fragment is not None:
        small = Simulation(fragment, n, wide, pixel_size_A, seed=seed + 1, **how).clean(np.arange(n))
    images = np.zeros((n, box, box), np.float32)
    for row in range(n):
        name = BOX_KINDS[kind[row]]
        if name == "fragment" and small is not None:
            one = small[row]
        elif name in ("particle", "off_centre", "pair"):
            one = _place(name, clean[row], clean[n + row], diameter_px, rng)
        else:
            one = np.float32(unit) * _dirt(name, wide, diameter_px, rng)
        images[row] = one[middle, middle]
    images += np.float32(noise_sigma(variance, snr)) * of_model.noise(np.arange(n))[:, middle, middle]
    images = normalise(images, radius_px=min(diameter_px / 2, 0.45 * box))
    optics = of_model.truth.optics[np.arange(n)]
    return Particles.from_images(np.asarray(images, np.float32), pixel_size_A, optics=optics), kind.astype(np.int64)


def _place(
    name: str, one: Float32Array, other: Float32Array, diameter_px: float, rng: np.random.Generator
) -> Float32Array:
    """A particle in the middle or beside it, or two about it."""
    way = _way(rng)
    if name == "off_centre":
        return _move(one, rng.uniform(0.3, 0.6) * diameter_px * way)
    if name == "pair":
        apart = rng.uniform(0.5, 0.62) * diameter_px * way
        return _move(one, apart) + _move(other, -apart)
    beside = rng.uniform() < _NEIGHBOUR
    return one + _move(other, rng.uniform(1.1, 1.4) * diameter_px * way) if beside else one


def _way(rng: np.random.Generator) -> FloatArray:
    angle = rng.uniform(0, 2 * np.pi)
    return np.array([np.cos(angle), np.sin(angle)])


def _move(image: Float32Array, by_px: FloatArray) -> Float32Array:
    """By whole pixels, (y, x)."""
    return np.roll(image, tuple(int(v) for v in np.rint(by_px)), axis=(0, 1))


def _dirt(name: str, side: int, diameter_px: float, rng: np.random.Generator) -> Float32Array:
    """What is no particle, in deviations of a particle's image."""
    y, x = np.indices((side, side)) - side / 2
    out = np.zeros((side, side))
    if name == "contaminant":
        away = rng.uniform(0, 0.8) * diameter_px * _way(rng)
        radius = rng.uniform(0.3, 1.5) * diameter_px / 2
        thick = np.clip(1 - (np.hypot(y - away[0], x - away[1]) / radius) ** 2, 0, None)
        out = rng.uniform(2, 8) * np.sqrt(thick)
    elif name == "edge":
        way = _way(rng)
        across = y * way[0] + x * way[1] - rng.uniform(-0.5, 0.5) * diameter_px
        texture = ndimage.gaussian_filter(rng.standard_normal(out.shape), 1.5)
        on = 1 / (1 + np.exp(-across / 1.5))
        out = on * (rng.uniform(1, 4) + rng.uniform(1, 6) * texture)
    elif name == "ice":
        for _ in range(int(rng.integers(1, 5))):
            centre, size = rng.uniform(-0.5, 0.5, 2) * diameter_px, rng.uniform(0.05, 0.25) * diameter_px
            out -= rng.uniform(4, 15) * np.exp(-((y - centre[0]) ** 2 + (x - centre[1]) ** 2) / (2 * size**2))
    return np.asarray(out, np.float32)
