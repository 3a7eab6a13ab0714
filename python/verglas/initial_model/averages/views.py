r"""Averages compared with slices of a map at all directions of a grid and all in-plane angles, and maps made of them.

On rings, :math:`c(\psi) = \sum_r w_r \mathrm{Re} \sum_m X_m(r) S_m^*(r) e^{-im\psi}`: one product of matrices for each
harmonic and one short transform compare every average with every slice at every angle. The weights are
:math:`w_r = 2 \pi r\, \rho_r / P_r`, P the mean power of the averages on a ring and :math:`\rho` the share of it that
is no noise, so that all rings with signal count, not the innermost alone.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt
import scipy.fft

from verglas import fourier, gridding, ops
from verglas.errors import InputError
from verglas.geometry import euler_to_matrix, healpix_directions, symmetry_matrices
from verglas.initial_model.common_lines import noise_beyond
from verglas.masks import soft_circle, soft_sphere
from verglas.reconstruction.sums import Batch, Symmetry, add_batch, finish, solve
from verglas.types.arrays import Complex64Array, Float32Array, FloatArray, IntArray

_EDGE_PX = 3.0
_LEAST_SHARE = 0.02
_SSNR = 20.0  # of maps: gaps between few slices stay small


@dataclass(frozen=True)
class Slices:
    """Slices of a map, unturned: weighted harmonics (d, m, rings), matrices (d, 3, 3)."""

    features: Complex64Array
    matrices: FloatArray


@dataclass(frozen=True)
class Placed:
    """Averages at their best poses against a map: matrices (n, 3, 3), correlations (n,)."""

    matrices: FloatArray
    correlation: FloatArray


@dataclass(frozen=True)
class Views:
    """Class averages, centred, masked and weighted.

    Attributes
    ----------
    images : (n, N, N) float32
        Masked by a circle of the diameter.
    radius : int
        Last shell used.
    diameter_px : float
    symmetry : Symmetry
        The group that maps are made with.
    ring_weight : (radius,) float64
        rho / P.
    threads : int, optional
    """

    images: Float32Array
    radius: int
    diameter_px: float
    symmetry: Symmetry
    ring_weight: FloatArray
    threads: int | None = None

    @classmethod
    def of(
        cls,
        images: npt.ArrayLike,
        radius: int,
        diameter_px: float,
        symmetry: str = "C1",
        *,
        threads: int | None = None,
    ) -> Views:
        """Mask and weigh a stack (n, N, N).

        Raises
        ------
        InputError
            It is no stack of square images, or holds values that are not finite.
        """
        stack = np.array(images, np.float32)
        if stack.ndim != 3 or stack.shape[1] != stack.shape[2]:
            raise InputError(f"averages: expected a stack of square images, got shape {stack.shape}")
        if not np.isfinite(stack).all():
            raise InputError("averages: there are values that are not finite")
        box = stack.shape[-1]
        diameter = min(diameter_px, box - 2.0)
        circle = soft_circle(box, min(diameter / 2, box / 2 - _EDGE_PX), _EDGE_PX).astype(np.float32)
        outside = circle == 0
        if outside.any():
            stack -= stack[:, outside].mean(axis=1)[:, None, None]
        stack *= circle
        grid = ops.PolarGrid(box, radius, diameter_px=diameter)
        power = (np.abs(ops.polar(stack, grid, threads=threads)) ** 2).mean(axis=(0, 2)).astype(np.float64)
        noise = noise_beyond(stack, diameter, threads)
        share = np.clip((power - noise) / np.maximum(power, 1e-30), _LEAST_SHARE, 1.0)
        weight = share / np.maximum(power, 1e-6 * power.max() + 1e-30)
        return cls(stack, radius, diameter, Symmetry.of(symmetry_matrices(symmetry)), weight, threads)

    def __len__(self) -> int:
        """Averages."""
        return len(self.images)

    @property
    def box(self) -> int:
        """N."""
        return self.images.shape[-1]

    @cached_property
    def polar(self) -> ops.PolarGrid:
        """Rings."""
        return ops.PolarGrid(self.box, self.radius, diameter_px=self.diameter_px)

    @cached_property
    def grid(self) -> ops.Grid:
        """Of maps."""
        return ops.Grid(self.box, max_radius=self.radius)

    @cached_property
    def sphere(self) -> Float32Array:
        """Mask of maps."""
        radius = max(min(self.diameter_px / 2, self.box / 2 - _EDGE_PX), 2.0)
        return soft_sphere(self.box, radius, _EDGE_PX).astype(np.float32)

    @cached_property
    def features(self) -> Complex64Array:
        """Weighted harmonics of the averages, (n, m, rings)."""
        return self._weighted_harmonics(ops.polar(self.images, self.polar, threads=self.threads))

    @cached_property
    def spectra(self) -> Complex64Array:
        """Half transforms."""
        return np.asarray(fourier.forward(self.images, 2, threads=self.threads), np.complex64)

    @cached_property
    def independent(self) -> float:
        """Independent real values that a correlation is taken over."""
        weight = 2 * np.pi * self.polar.radii * self.ring_weight * self._mean_power
        area = np.pi / 4 * (self.diameter_px / self.box) ** 2
        return float(area * weight.sum() * (2 * np.pi * self.polar.radii * weight).sum() / (weight**2).sum())

    @cached_property
    def _mean_power(self) -> FloatArray:
        return np.asarray((np.abs(self.features) ** 2).mean(axis=(0, 1)), np.float64) / np.maximum(
            2 * np.pi * self.polar.radii * self.ring_weight, 1e-30
        )

    def of_rows(self, rows: IntArray) -> Views:
        """Some of them, weighted as all."""
        return replace(self, images=self.images[rows])

    def draw(self, rng: np.random.Generator, share: float, fewest: int = 4) -> Views:
        """A share of them at random, in their order."""
        return self.of_rows(np.sort(rng.permutation(len(self))[: max(fewest, round(share * len(self)))]))

    def _weighted_harmonics(self, samples: npt.ArrayLike) -> Complex64Array:
        harmonics = self.polar.unpack(ops.polar_harmonics(samples, self.polar, threads=self.threads))
        weight = np.sqrt(2 * np.pi * self.polar.radii * self.polar.spacing * self.ring_weight)
        return (harmonics * weight).astype(np.complex64)

    def slices(self, volume: Float32Array, order: int) -> Slices:
        """Slices of a map along the directions of a HEALPix grid, all over the sphere."""
        directions = healpix_directions(order)
        matrices = euler_to_matrix(np.column_stack([directions, np.zeros(len(directions))]))
        spectrum = gridding.to_grid(np.ascontiguousarray(volume, np.float32), self.grid, threads=self.threads)
        samples = ops.polar_slices(spectrum, self.grid, matrices, self.polar, threads=self.threads)
        return Slices(self._weighted_harmonics(samples), matrices)

    def correlations(self, slices: Slices, radius: int | None = None) -> Float32Array:
        """Of every average with every slice at every in-plane angle, up to a shell: (angles, n, d)."""
        return rotational_correlation(self.features, slices.features, self.polar.n_theta, radius)

    def rotate_in_plane(self, slices: Slices, which: IntArray, turn: IntArray) -> FloatArray:
        """Matrices of slices turned by numbers of in-plane angles."""
        psi = 2 * np.pi * np.asarray(turn, np.float64) / self.polar.n_theta
        cosine, sine, zero = np.cos(psi), np.sin(psi), np.zeros_like(psi)
        rows = [cosine, sine, zero, -sine, cosine, zero, zero, zero, zero + 1]
        return np.stack(rows, axis=-1).reshape(-1, 3, 3) @ slices.matrices[which]

    def place(self, volume: Float32Array, order: int, radius: int | None = None) -> Placed:
        """Every average at its best direction and angle."""
        slices = self.slices(volume, order)
        correlation = self.correlations(slices, radius)
        _angles, n, d = correlation.shape
        flat = correlation.transpose(1, 0, 2).reshape(n, -1)
        best = flat.argmax(axis=1)
        matrices = self.rotate_in_plane(slices, best % d, best // d)
        return Placed(matrices, flat[np.arange(n), best].astype(np.float64))

    def map(
        self, matrices: FloatArray, rows: IntArray | None = None, weights: FloatArray | None = None
    ) -> Float32Array:
        """Map of averages at poses, masked; an average may stand at several, each with a weight."""
        rows = np.arange(len(self)) if rows is None else rows
        weight = np.ones(len(rows)) if weights is None else np.asarray(weights, np.float64)
        use = weight > 0
        if not use.any():
            raise InputError("averages: none has any weight")
        rows, matrices, weight = rows[use], matrices[use], weight[use] / weight[use].mean()
        shells = np.repeat(weight[:, None], self.radius + 1, axis=1).astype(np.float32)
        sums = ops.GridSums.zeros(self.grid)
        batch = Batch(self.spectra[rows], np.ascontiguousarray(matrices), np.zeros((len(rows), 2)), shell_weight=shells)
        add_batch(sums, batch, self.symmetry, threads=self.threads)
        sums = finish(sums, self.symmetry, threads=self.threads)
        volume = solve(sums, self.symmetry, ssnr=np.full(self.radius + 1, _SSNR), threads=self.threads)
        return np.asarray(volume * self.sphere, np.float32)


def rotational_correlation(
    images: Complex64Array, references: Complex64Array, n_theta: int, radius: int | None = None
) -> Float32Array:
    """Normalised correlations at all turns of the references: (n_theta, n, d).

    Parameters
    ----------
    images, references : (n, m, rings), (d, m, rings) complex64
        Weighted harmonics, m from 0.
    n_theta : int
        In-plane angles.
    radius : int, optional
        Rings used.
    """
    x, s = images[:, :, :radius], references[:, :, :radius]
    double = np.where(np.arange(x.shape[1]) == 0, 1.0, 2.0)
    norms = [np.sqrt(np.maximum((np.abs(a) ** 2).sum(axis=2) @ double, 1e-30)).astype(np.float32) for a in (x, s)]
    product = np.matmul(x.conj().transpose(1, 0, 2), s.transpose(1, 2, 0))  # conjugate: irfft's sign is the other
    # Harmonics beyond half the angles would alias; the grid has none (ops.PolarGrid).
    values = scipy.fft.irfft(product, n_theta, axis=0) * n_theta
    return np.asarray(values / (norms[0][:, None] * norms[1]), np.float32)
