"""Movies of a random picture that moves, for tests of motion correction."""

from __future__ import annotations

import numpy as np

from verglas import ops
from verglas.types import Movie
from verglas.types.motion import Motion


def picture(shape: tuple[int, int], seed: int) -> np.ndarray:
    """Grains a few pixels wide, variance 1."""
    ky, kx = np.fft.fftfreq(shape[0])[:, None], np.fft.rfftfreq(shape[1])
    noise = np.fft.rfft2(np.random.default_rng(seed).standard_normal(shape)) * np.exp(-((ky**2 + kx**2) / 0.02))
    image = np.fft.irfft2(noise, shape)
    return (image / image.std()).astype(np.float32)


def movie_of(motion: Motion, seed: int, *, signal: float = 0.4, pixel_size_A: float = 1.8, **known) -> Movie:
    """Frames picture(x - d_f(x)) * signal + noise of variance 1 + 10; d is taken at x, which a smooth field allows."""
    image = signal * picture(motion.shape, seed)
    rng = np.random.default_rng(seed + 1)
    field = -motion.on_lattice(33, 33)
    frames = [
        10 + ops.warp(image[None], field[f : f + 1])[0] + rng.standard_normal(motion.shape) for f in range(len(motion))
    ]
    return Movie.from_array(np.array(frames, np.float32), pixel_size_A, **known)


def error_px(found: Motion, truth: Motion) -> float:
    """Mean over a grid and all frames of the distance between two motions, each place's mean over frames taken off."""
    x, y = np.meshgrid(np.linspace(0, truth.shape[1] - 1, 9), np.linspace(0, truth.shape[0] - 1, 9))
    difference = found.at(x, y) - truth.at(x, y)
    difference -= difference.mean(-2, keepdims=True)
    return float(np.hypot(difference[..., 0], difference[..., 1]).mean())


def settling(n: int, to_px: tuple[float, float], frames: float = 4.0) -> np.ndarray:
    """Shifts of whole frames that settle: (n, 2)."""
    return np.array(to_px) * (1 - np.exp(-np.arange(n) / frames))[:, None]


SHAPE = (512, 640)


def planted_polynomial(n: int, seed: int, size_px: float) -> Motion:
    rng = np.random.default_rng(seed)
    terms = rng.normal(0, 1, (2, 6, 3)) / (n - 1.0) ** np.arange(1, 4) * size_px
    terms[:, 0] = 0
    return Motion(SHAPE, settling(n, (6, -4)), "polynomial", polynomial=terms.reshape(2, 18))


def planted_dome(n: int, size_px: float) -> Motion:
    """A lattice that no quadratic fits: a swirl about a place off the centre that settles."""
    y, x = np.mgrid[:9, :9] / 8.0
    bump = np.exp(-((x - 0.35) ** 2 + (y - 0.6) ** 2) / 0.04)
    swirl = np.stack([-(y - 0.6) * bump, (x - 0.35) * bump], -1)
    swirl *= size_px / np.abs(swirl).max()
    time = 1 - np.exp(-np.arange(n) / 4.0)
    return Motion(SHAPE, settling(n, (6, -4)), "spline", lattice_px=time[:, None, None, None] * swirl)
