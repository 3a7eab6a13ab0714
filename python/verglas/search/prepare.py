"""What a search against a map is told first: images to measure on, noise spectra, the map's share of the power."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from verglas import fourier, ops
from verglas.geometry import euler_to_matrix, orientation_grid
from verglas.image import find_unusable_images
from verglas.search.noise import first_noise
from verglas.types.arrays import Array

if TYPE_CHECKING:
    from verglas.types import Particles

_BATCH = 256
# Images of a group that its noise spectrum is measured on.
_NOISE_IMAGES = 512


def usable_batches(
    particles: Particles, rows: Array, count: int, excluded: dict[int, str]
) -> Iterator[tuple[Array, npt.NDArray[np.float32]]]:
    """Up to ``count`` usable images, spread evenly over ``rows``, a batch at a time.

    Parameters
    ----------
    particles : Particles
    rows : (m,) int64
        Numbers to choose from.
    count : int
        Most images in all.
    excluded : dict of int -> str
        Not yielded; particles found unusable on the way, with the reason, are added.

    Yields
    ------
    rows : (k,) int64
    images : (k, N, N) float32
    """
    # Strided, not random: particles of one micrograph lie side by side, and the sample is the same whatever the seed.
    stride = max(1, len(rows) // count)
    order = np.concatenate([rows[k::stride] for k in range(stride)])
    n_left = count
    while n_left and len(order):
        take, order = np.split(order, [min(n_left, _BATCH)])
        images = particles.images(take)
        bad = find_unusable_images(images)
        excluded.update({int(take[i]): reason for i, reason in bad.items()})
        good = np.flatnonzero([row not in excluded for row in take.tolist()])
        n_left -= len(good)
        if len(good):
            yield take[good], images[good]


def _shell_means(values: Array, box: int) -> Array:
    """Means over the shells of the full plane of a half transform's values, (shells,)."""
    shells = fourier.shells((box, box)).ravel()
    weights = np.broadcast_to(fourier.half_weights((box, box)), (box, box // 2 + 1)).ravel()
    total = np.bincount(shells, weights=values.ravel() * weights)
    return (total / np.bincount(shells, weights=weights))[: (box - 1) // 2 + 1]


def inverse_noise(particles: Particles, reference_power: Array, excluded: dict[int, str]) -> Array:
    """1 / sigma^2 per particle and shell: mean power of the group's images less the map's share of it.

    The map's share is the mean power of its CTF-modulated slices; at least a tenth of the power is taken as noise.

    Parameters
    ----------
    particles : Particles
    reference_power : (shells,) float64
        :func:`reference_power`.
    excluded : dict of int -> str
        As in :func:`usable_batches`.

    Returns
    -------
    (n, shells) float64
    """
    groups, box = particles.optics.group, particles.box
    sigma2 = np.ones((len(particles), len(reference_power)))
    for group in np.unique(groups):
        members = np.flatnonzero(groups == group)
        total, number = np.zeros((box, box // 2 + 1)), 0
        for _, images in usable_batches(particles, members, _NOISE_IMAGES, excluded):
            total += (np.abs(fourier.forward(images, 2)) ** 2).sum(axis=0, dtype=np.float64)
            number += len(images)
        if not number:
            continue  # none of the group will be searched
        power = _shell_means(total, box) / number
        sigma2[members] = first_noise(power, reference_power, job="align")
    return 1.0 / sigma2


def reference_power(spectrum: Array, grid: ops.Grid, particles: Particles) -> Array:
    """Mean power per shell of CTF-modulated slices of a map over all directions, (shells,)."""
    box = grid.box
    directions, _ = orientation_grid(30.0)
    matrices = euler_to_matrix(np.column_stack([directions, np.zeros(len(directions))]))
    power = _shell_means((np.abs(ops.project(spectrum, grid, matrices)) ** 2).mean(axis=0), box)
    params = particles.optics.as_params()
    params = params[np.isfinite(params).all(axis=1)]
    some = params[:: max(1, len(params) // 64)]
    return power * _shell_means((ops.ctf(some, box, particles.pixel_size_A) ** 2).mean(axis=0), box)
