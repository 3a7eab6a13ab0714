"""Half maps whose resolution is known at every voxel: what a measure of local resolution is tried on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from verglas import filters, fourier
from verglas.errors import InputError
from verglas.masks import soft_sphere
from verglas.types import Map
from verglas.types.arrays import Float32Array, FloatArray

_EDGE_A, _EDGE_WAVES = 8.0, 2.0  # of the ball that holds the signal; a sharper one would hold finer waves than planted


@dataclass(frozen=True)
class PlantedHalves:
    """Two half maps of one signal that ends at a planted resolution, and what was planted.

    Attributes
    ----------
    half1, half2 : Map
        Signal and independent white noise.
    truth : Map
        The signal.
    resolution_A : (z, y, x) float32
        What was planted at each voxel.
    boundary_A : (z, y, x) float32
        Distance to the nearest plane between two resolutions.
    inside : (z, y, x) bool
        Where the signal is at full strength.
    """

    half1: Map
    half2: Map
    truth: Map
    resolution_A: Float32Array
    boundary_A: Float32Array
    inside: npt.NDArray[np.bool_]

    def at(self, resolution_A: float, beyond_A: float = 0.0) -> npt.NDArray[np.bool_]:
        """Voxels of a planted resolution, farther than this from any other."""
        return self.inside & np.isclose(self.resolution_A, resolution_A) & (self.boundary_A > beyond_A)


def planted_halves(
    density: Map, resolutions_A: Sequence[float], noise: float = 1.0, seed: int = 0, *, threads: int | None = None
) -> PlantedHalves:
    """Half maps of slabs along x, each resolved to its own limit.

    The density's amplitudes are made equal in all shells, so that at every noise the limit is the planted one and not
    where a falling spectrum meets the noise; each slab ends sharply at its frequency, inside a ball of 0.42 of the box.

    Parameters
    ----------
    density : Map
        A cube: an object, or noise.
    resolutions_A : sequence of float
        One per slab of equal width, from -x to +x, coarser than two voxels.
    noise : float
        Standard deviation of each half's noise, in those of the signal over the whole box.
    seed : int
        Of the noise.
    threads : int, optional
        Threads; the result does not depend on it.

    Raises
    ------
    InputError
        A resolution that the voxels cannot hold, or none.

    Examples
    --------
    >>> import numpy as np, verglas as vg
    >>> from verglas.simulate import planted_halves
    >>> noise = vg.Map(np.random.default_rng(0).normal(size=(32, 32, 32)), 1.5)
    >>> halves = planted_halves(noise, (4.0, 8.0))
    >>> sorted(set(halves.resolution_A.ravel().tolist())), halves.half1.box
    ([4.0, 8.0], 32)
    """
    box, pixel = density.box, density.pixel_size_A
    if len(resolutions_A) == 0 or min(resolutions_A) < 2 * pixel:
        raise InputError(
            f"planted_halves: expected resolutions no finer than two voxels, {2 * pixel:g} A, got {list(resolutions_A)}"
        )
    shape, radius_A = (box, box, box), 0.42 * box * pixel
    edge_A = min(max(_EDGE_A, _EDGE_WAVES * min(resolutions_A)), 0.5 * radius_A)
    spectrum = _flat(fourier.forward(density.data, 3, threads=threads), shape)
    frequency = fourier.radius(shape) / (box * pixel)
    x_A = (np.arange(box) - box // 2) * pixel
    edges = np.linspace(-radius_A, radius_A, len(resolutions_A) + 1)
    slab = np.clip(np.searchsorted(edges, x_A, side="right") - 1, 0, len(resolutions_A) - 1)
    signal = np.zeros(shape, np.float32)
    for number, limit in enumerate(resolutions_A):
        part = fourier.inverse((spectrum * (frequency <= 1 / limit)).astype(np.complex64), shape, threads=threads)
        signal[:, :, slab == number] = part[:, :, slab == number]
    signal *= soft_sphere(box, (radius_A - edge_A) / pixel, edge_A / pixel)
    rng, sigma = np.random.default_rng(seed), np.float32(noise * signal.std())
    first, second = (signal + sigma * rng.standard_normal(shape, dtype=np.float32) for _ in range(2))
    inner = edges[1:-1] if len(edges) > 2 else np.array([np.inf])
    distance = np.abs(x_A[:, None] - inner).min(axis=1)
    full = np.zeros(shape, np.float32)
    return PlantedHalves(
        density.with_data(first),
        density.with_data(second),
        density.with_data(signal),
        full + np.asarray(resolutions_A, np.float32)[slab],
        full + distance.astype(np.float32),
        soft_sphere(box, (radius_A - edge_A) / pixel) > 0.5,
    )


@dataclass(frozen=True)
class MixedBlur:
    """Half maps of one structure blurred differently from place to place.

    Attributes
    ----------
    half1, half2 : Map
        Blurred signal and independent white noise.
    truth : Map
        The structure, not blurred.
    """

    half1: Map
    half2: Map
    truth: Map


def mixed_blur(
    density: Map,
    b_factors_A2: tuple[float, float],
    noise: float = 1.0,
    seed: int = 0,
    *,
    edge_A: float = 12.0,
    threads: int | None = None,
) -> MixedBlur:
    """Half maps of a structure whose two halves along x are blurred by two B-factors.

    Parameters
    ----------
    density : Map
        A cube.
    b_factors_A2 : (float, float)
        Of the half at -x and at +x.
    noise : float
        Standard deviation of each half map's noise, in those of the blurred signal over the whole box.
    seed : int
        Of the noise.
    edge_A : float
        Width of the soft step between the two.
    threads : int, optional
        Threads; the result does not depend on it.

    Examples
    --------
    >>> import numpy as np, verglas as vg
    >>> from verglas.simulate import mixed_blur
    >>> sharp = vg.Map(np.random.default_rng(0).normal(size=(32, 32, 32)), 2.0)
    >>> halves = mixed_blur(sharp, (20.0, 200.0), noise=0.0)
    >>> left, right = halves.half1.data[:, :, 4:12].std(), halves.half1.data[:, :, 20:28].std()
    >>> bool(left > 2 * right)
    True
    """
    x_A = (np.arange(density.data.shape[2]) - density.data.shape[2] // 2) * density.pixel_size_A
    share = (0.5 * (1 + np.tanh(2 * x_A / edge_A))).astype(np.float32)
    low, high = (filters.apply(density, filters.b_factor(b), threads=threads).data for b in b_factors_A2)
    signal = (1 - share) * low + share * high
    rng, sigma = np.random.default_rng(seed), np.float32(noise * signal.std())
    halves = [density.with_data(signal + sigma * rng.standard_normal(signal.shape, dtype=np.float32)) for _ in "ab"]
    return MixedBlur(halves[0], halves[1], density)


def _flat(spectrum: npt.NDArray[np.complex64], shape: tuple[int, ...]) -> npt.NDArray[np.complex64]:
    """The same amplitude, root mean square, in every shell; phases as they are."""
    shells, weights = (
        fourier.shells(shape).ravel(),
        np.broadcast_to(fourier.half_weights(shape), spectrum.shape).ravel(),
    )
    power = np.bincount(shells, weights * np.abs(spectrum.ravel()) ** 2) / np.bincount(shells, weights)
    amplitude: FloatArray = np.sqrt(power)
    scale = np.divide(1.0, amplitude, out=np.zeros_like(amplitude), where=amplitude > 1e-6 * amplitude.max())
    return (spectrum * scale[shells].reshape(spectrum.shape)).astype(np.complex64)
