"""From images with known poses to sums on the grid, symmetry included."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from verglas import fourier, gridding, ops
from verglas._array_module import to_host
from verglas.errors import InputError
from verglas.masks import soft_sphere
from verglas.reconstruction import direct
from verglas.reconstruction.ewald import SideBands, insert_bands
from verglas.reconstruction.packed_sums import AnySums
from verglas.types.arrays import Array, Float32Array, FloatArray


@dataclass(frozen=True)
class Symmetry:
    """A point group split into what the grid does exactly and what insertion does.

    Rotations that permute the axes (up to sign) map the grid onto itself: sums are symmetrised under that subgroup H
    without interpolation. The rest of the group is reached by inserting every image once per left coset c H.

    Attributes
    ----------
    on_grid : (h, 3, 3) float64
        H: signed permutations of the axes.
    cosets : (c, 3, 3) float64
        One representative per coset; h times c is the order of the group.
    """

    on_grid: Array
    cosets: Array

    @classmethod
    def of(cls, matrices: npt.ArrayLike) -> Symmetry:
        """Split a closed group given by its matrices.

        Examples
        --------
        >>> import numpy as np
        >>> from verglas.geometry import symmetry_matrices
        >>> from verglas.reconstruction.sums import Symmetry
        >>> s = Symmetry.of(symmetry_matrices("O"))
        >>> len(s.on_grid), len(s.cosets)
        (24, 1)
        """
        group = np.asarray(matrices, np.float64)
        if group.ndim != 3 or group.shape[1:] != (3, 3):
            raise InputError(f"symmetry: expected matrices of shape (n, 3, 3), got {group.shape}")
        # Elements that permute the axes map grid points onto grid points: summed after insertion, without
        # interpolation.
        integer = np.abs(group - np.rint(group)).max(axis=(1, 2)) < 1e-6
        on_grid = np.rint(group[integer])
        remaining, cosets = list(range(len(group))), []
        while remaining:
            representative = group[remaining[0]]
            cosets.append(representative)
            members = representative @ on_grid
            remaining = [i for i in remaining if np.abs(group[i] - members).max(axis=(1, 2)).min() > 1e-6]
        if len(cosets) * len(on_grid) != len(group):
            raise InputError(f"symmetry: the {len(group)} matrices are not a closed group of rotations")
        return cls(on_grid, np.array(cosets))

    def apply(
        self, volume: npt.NDArray[np.float32], max_radius: int, *, threads: int | None = None
    ) -> npt.NDArray[np.float32]:
        """Mean of a map over the group: exact for H, by one interpolation (1e-6) for the cosets.

        The map is taken inside the largest ball of its box. Where there are cosets, the ball has a soft edge of an
        eighth of the radius, and the spectrum ends softly, from one shell before max_radius to four behind it: a hard
        edge in either space rings in the other past the box or past Nyquist, where a grid cannot be turned.
        """
        box = len(volume)
        radius = (box - 1) // 2
        edge = max(3.0, radius / 8) if len(self.cosets) > 1 else 0.0
        ball = soft_sphere(box, radius - edge, edge)
        volume = volume * ball
        if len(self.cosets) > 1:
            grid = ops.Grid(box, width=8)
            spectrum = gridding.to_grid(volume, grid, threads=threads)
            total = np.zeros((box, box, box // 2 + 1), np.complex64)
            for coset in self.cosets:
                total += ops.rotate(spectrum, grid, coset.T, threads=threads)
            total *= _roll_off(box, max_radius) / np.float32(len(self.cosets))
            volume = fourier.inverse(total, volume.shape, threads=threads)
            volume *= ball
        if len(self.on_grid) == 1:
            return volume
        # An even box has one plane more on the negative side; it is outside the ball.
        core = volume[1 - box % 2 :, 1 - box % 2 :, 1 - box % 2 :]
        mean = sum((_permute_axes(core, h) for h in self.on_grid), np.zeros_like(core, np.float64)) / len(self.on_grid)
        out = np.zeros_like(volume)
        out[1 - box % 2 :, 1 - box % 2 :, 1 - box % 2 :] = mean
        return out


def _roll_off(box: int, max_radius: int) -> npt.NDArray[np.float32]:
    """1 up to max_radius - 1, a raised cosine to 0 at max_radius + 4."""
    t = np.clip((fourier.radius((box,) * 3) - (max_radius - 1)) / 5, 0, 1)
    return (0.5 + 0.5 * np.cos(np.pi * t)).astype(np.float32)


def _permute_axes(core: Array, matrix: Array) -> Array:
    """A centred odd cube turned by a signed permutation of the axes x, y, z (a view)."""
    source = np.abs(matrix).argmax(axis=1)  # component a of the result comes from this component
    sign = matrix[np.arange(3), source]
    # Array axis 2 is x: component c stands on axis 2 - c.
    turned = core.transpose(*(2 - source[2 - axis] for axis in range(3)))
    return turned[tuple(slice(None, None, int(sign[2 - axis])) for axis in range(3))]


@dataclass(frozen=True)
class Batch:
    """Some images, ready for insertion: half transforms and what is known of them.

    Attributes
    ----------
    images : (n, N, N // 2 + 1) complex64
        Phase-centred half transforms.
    matrices : (n, 3, 3) float64
        Rotation matrices.
    shifts_px : (n, 2) float64
        Displacement of the particle from the centre, pixels.
    ctf : (n, N, N // 2 + 1) float32 or None
        Contrast transfer.
    shell_weight : (n, max_radius + 1) float32 or None
        1 / sigma^2 per shell.
    bands : SideBands or None
        Ewald's sphere: :mod:`verglas.reconstruction.ewald`.
    """

    images: Array
    matrices: Array
    shifts_px: Array
    ctf: Array | None = None
    shell_weight: Array | None = None
    bands: SideBands | None = None


def add_batch(
    sums: ops.GridSums, batch: Batch, symmetry: Symmetry, *, threads: int | None = None, device: str = "cpu"
) -> None:
    """Insert a batch into sums, once per coset of the symmetry.

    Parameters
    ----------
    sums : GridSums
        Added to.
    batch : Batch
        The images.
    symmetry : Symmetry
        Its cosets are inserted here; :func:`finish` does the rest.
    threads : int, optional
        Threads; all by default.
    device : str
        Where sums and batch are.
    """
    images = batch.images if sums.values is not None else None
    for coset in symmetry.cosets:
        if batch.bands is not None:
            where: dict[str, Any] = {"threads": threads, "device": device, "deterministic": True}
            insert_bands(sums, batch, batch.matrices @ coset, **where)
            continue
        ops.insert(
            sums,
            images,
            batch.matrices @ coset,
            shifts_px=batch.shifts_px,
            ctf=batch.ctf,
            shell_weight=batch.shell_weight,
            threads=threads,
            device=device,
            deterministic=True,
        )


def finish(sums: ops.GridSums, symmetry: Symmetry, *, threads: int | None = None) -> ops.GridSums:
    """Fold Friedel's mates (in place) and symmetrise: the sums of the full plane and the full group.

    Parameters
    ----------
    sums : GridSums
        After the last batch; folded in place, so not to be inserted into again.
    symmetry : Symmetry
        The group.
    threads : int, optional
        Threads; all by default.

    Returns
    -------
    GridSums
    """
    ops.fold(sums)
    if len(symmetry.on_grid) == 1:
        return sums
    return ops.symmetrise(sums, symmetry.on_grid, threads=threads)


def solve(
    sums: AnySums,
    symmetry: Symmetry,
    *,
    ssnr: FloatArray | None = None,
    means: FloatArray | None = None,
    threads: int | None = None,
) -> Float32Array:
    """Map from finished sums, divided on the grid; with the SSNR of each shell, a Wiener filter.

    Made where the sums are, brought to the host.

    Parameters
    ----------
    sums : GridSums or PackedSums
        From :func:`finish`.
    symmetry : Symmetry
        The group that they were inserted under.
    ssnr : (shells,) float64, optional
        To the last shell of the sums.
    means : (shells,) float64, optional
        Mean weight of each shell (:func:`verglas.reconstruction.direct.shell_means`), where it is known already.
    threads : int, optional
        Threads; all by default.

    Returns
    -------
    (N, N, N) float32
    """
    volume = to_host(direct.solve(sums, ssnr=ssnr, means=means, threads=threads))
    # Sums under a group that maps the grid onto itself are symmetric already.
    if len(symmetry.cosets) == 1:
        return volume
    return symmetry.apply(volume, sums.grid.max_radius, threads=threads)
