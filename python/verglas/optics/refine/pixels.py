"""Pixels of a half transform that a fit of the optics uses, and what images and slices have there."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from verglas import fourier, gridding, ops
from verglas._array_module import array_module
from verglas._devices import to_device
from verglas.geometry import euler_to_matrix
from verglas.ops._device import device_of
from verglas.types import Map, Particles
from verglas.types.arrays import Array, Complex64Array, Float32Array, FloatArray, IntArray

BATCH, BATCH_OF_GPU = 64, 512  # images at a time: what fits a processor's cache, what keeps a GPU at work


@dataclass(frozen=True, eq=False)
class Pixels:
    """Independent coefficients with first <= shell <= last, in the order of k^2 within each half.

    The two halves are a checkerboard: noise of one says nothing of the other, which is what a fit is judged on.

    Attributes
    ----------
    box : int
    pixel_size_A : float
    first, last : int
        Shells, Fourier pixels.
    """

    box: int
    pixel_size_A: float
    first: int
    last: int

    @cached_property
    def _table(self) -> tuple[IntArray, IntArray, IntArray]:
        iy, ix = np.mgrid[: self.box, : self.box // 2 + 1]
        ky = np.where(iy < (self.box + 1) // 2, iy, iy - self.box)
        shell = np.round(np.hypot(ky, ix)).astype(np.int64)
        # of a pair (0, ky), (0, -ky) one is independent, and Nyquist is left out
        use = (shell >= self.first) & (shell <= self.last) & ((ix > 0) | (ky > 0)) & (shell < self.box / 2)
        iy, ix, ky = iy[use], ix[use], ky[use]
        order = np.lexsort((ix**2 + ky**2, (ix + ky) % 2))
        return (iy * (self.box // 2 + 1) + ix)[order], ix[order], ky[order]

    @property
    def index(self) -> IntArray:
        """Where each lies in a flattened half transform."""
        return self._table[0]

    @cached_property
    def kx(self) -> FloatArray:
        """1/A."""
        return np.asarray(self._table[1] / (self.box * self.pixel_size_A))

    @cached_property
    def ky(self) -> FloatArray:
        """1/A."""
        return np.asarray(self._table[2] / (self.box * self.pixel_size_A))

    @cached_property
    def k2(self) -> FloatArray:
        """1/A^2."""
        return np.asarray(self.kx**2 + self.ky**2)

    @cached_property
    def shell(self) -> IntArray:
        """From 0 for ``first``."""
        return np.asarray(np.round(np.hypot(*self._table[1:])).astype(np.int64) - self.first)

    @property
    def shells(self) -> int:
        """Their number."""
        return self.last - self.first + 1

    @cached_property
    def half(self) -> IntArray:
        """0 or 1: which half of the checkerboard."""
        return (self._table[1] + self._table[2]) % 2

    def __len__(self) -> int:
        return len(self.index)

    def shell_sums(self, values: Array) -> FloatArray:
        """Sums over shells along the last axis."""
        flat = np.asarray(values, np.float64).reshape(-1, len(self))
        sums = np.stack([np.bincount(self.shell, row, self.shells) for row in flat])
        return np.asarray(sums.reshape(*np.shape(values)[:-1], self.shells))


class Reference:
    """Slices of a map on the pixels of a fit."""

    def __init__(self, volume: Map, pixels: Pixels, threads: int | None = None, device: str = "cpu") -> None:
        self.pixels, self.threads, self.device = pixels, threads, device
        full = ops.Grid(volume.box)
        self._grid = ops.Grid(volume.box, max_radius=min(pixels.last + 1, full.max_radius))
        self._spectrum = to_device(gridding.to_grid(volume.data, self._grid, threads=threads), device)

    def on(self, pixels: Pixels) -> Reference:
        """The same map on other pixels, none of them finer."""
        other = copy.copy(self)
        other.pixels = pixels
        return other

    def slices(self, particles: Particles) -> Complex64Array:
        """(n, box, box // 2 + 1): slices at the poses of particles, moved to where they lie."""
        poses = particles.poses
        assert poses is not None
        return self.slices_at(euler_to_matrix(poses.angles_deg), -poses.shifts_A / self.pixels.pixel_size_A)

    def slices_at(self, matrices: FloatArray, displacement_px: FloatArray | None = None) -> Complex64Array:
        """(n, box, box // 2 + 1): slices at rotations, moved by a displacement."""
        return ops.project(
            self._spectrum,
            self._grid,
            matrices,
            max_radius=min(self.pixels.last + 1, self._grid.max_radius),
            shifts_px=displacement_px,
            device=self.device,
            threads=self.threads,
        )


@dataclass(frozen=True, eq=False)
class PixelTerms:
    """Images and model of some particles on the pixels of a fit; s and c are sine and cosine of the CTF's phase.

    Attributes
    ----------
    cross : (n, m) complex64
        X conj(P) / sigma^2.
    power : (n, m) float32
        |P|^2 / sigma^2.
    sine, cosine : (n, m) float32
        The CTF, and the CTF with its phase a quarter of a turn on; envelope and scale in them.
    """

    cross: Complex64Array
    power: Float32Array
    sine: Float32Array
    cosine: Float32Array


def gather(spectra: Array, pixels: Pixels) -> Array:
    """(n, m) of (n, box, box // 2 + 1)."""
    xp = array_module(spectra)
    return xp.take(spectra.reshape(len(spectra), -1), xp.asarray(pixels.index), axis=1)


def image_spectra(particles: Particles, threads: int | None = None, device: str = "cpu") -> Complex64Array:
    """Half transforms of the images, on a device."""
    return fourier.forward(to_device(particles.images(), device), 2, threads=threads)


def transfer(
    params: FloatArray, pixels: Pixels, threads: int | None = None, device: str = "cpu"
) -> tuple[Float32Array, Float32Array]:
    """Sine and cosine of the CTF's phase on the pixels, each (n, m)."""
    turned = params.copy()
    turned[:, 6] += 90.0
    values = [ops.ctf(p, pixels.box, pixels.pixel_size_A, device=device, threads=threads) for p in (params, turned)]
    return gather(values[0], pixels), gather(values[1], pixels)


def pixel_terms(
    spectra: Complex64Array,
    slices: Complex64Array,
    params: FloatArray,
    inverse_noise: Float32Array,
    pixels: Pixels,
    threads: int | None = None,
) -> PixelTerms:
    """What the fits use, of n images and slices, where these lie; ``inverse_noise`` is (n, m) or (m,)."""
    xp = array_module(spectra)
    x, p, weight = gather(spectra, pixels), gather(slices, pixels), xp.asarray(inverse_noise)
    sine, cosine = transfer(params, pixels, threads, device_of(spectra))
    cross = xp.asarray(x * p.conj() * weight, np.complex64)
    return PixelTerms(cross, xp.asarray((p.real**2 + p.imag**2) * weight, np.float32), sine, cosine)
