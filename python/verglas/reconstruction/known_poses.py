"""Reconstruction from particles whose poses are known."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, overload

import numpy as np
import numpy.typing as npt

from verglas import fourier, gridding, ops
from verglas.errors import InputError
from verglas.geometry import euler_to_matrix, symmetry_matrices
from verglas.image import unusable
from verglas.reconstruction import direct, least_squares
from verglas.reconstruction.sums import Batch, Symmetry, add_batch, finish
from verglas.types import Map, Poses

if TYPE_CHECKING:
    from verglas.types import Particles

Progress = Callable[[int, int], None]
_BATCH_PIXELS = 1 << 23  # pixels read and transformed at a time: about 100 MB with transforms and CTFs


@dataclass(frozen=True)
class Method:
    """How the map is made from the images.

    Attributes
    ----------
    name : {"direct", "least-squares", "gridding"}
        Division on the grid, the default: quickest, and the best of the three on noisy images; conjugate gradients on
        the exact normal equations (:mod:`verglas.reconstruction.least_squares`): the most exact, best where noise is
        small or views are few; or division by iterated density weights (:mod:`verglas.reconstruction.direct`).
        docs/kernels.md has the figures.
    iterations : int
        At most, for least-squares (30) and gridding (10).
    ctf : bool
        False takes every CTF as 1.
    ssnr : array or callable, optional
        Spectral signal-to-noise ratio of the full map per shell, for a Wiener reconstruction; or a function of the two
        half maps that gives it, from which the full map is then solved with the sums at hand.
    threads : int, optional
        Threads; all by default.
    """

    name: Literal["least-squares", "direct", "gridding"] = "direct"
    iterations: int | None = None
    ctf: bool = True
    ssnr: npt.NDArray[np.float64] | Callable[[Map, Map], npt.NDArray[np.float64]] | None = None
    threads: int | None = None

    def __post_init__(self) -> None:
        """Check the name once."""
        if self.name not in ("least-squares", "direct", "gridding"):
            raise InputError(f"reconstruct: expected method least-squares, direct or gridding, got {self.name!r}")


@dataclass(frozen=True)
class Reconstruction:
    """What a reconstruction gives.

    Attributes
    ----------
    map : Map
        From all particles.
    half_maps : tuple of Map, or None
        From the particles of random subsets 1 and 2, where asked for.
    used : int
        Particles inserted.
    excluded : dict
        Particle number (from 0) -> reason, for particles set aside.
    residual : float
        Relative residual at the end (least-squares), density residual (gridding), NaN (direct).
    """

    map: Map
    half_maps: tuple[Map, Map] | None
    used: int
    excluded: dict[int, str]
    residual: float


class _Accumulator:
    """Sums of one set of particles: values on the map's grid, weights there or on the kernel's grid."""

    def __init__(self, box: int, max_radius: int, method: Method) -> None:
        grid = ops.Grid(box, max_radius=max_radius) if method.name == "least-squares" else direct_grid(box, max_radius)
        self.method = method
        if method.name == "least-squares":
            self.values = ops.GridSums.zeros(grid, weights=False)
            self.weights = ops.GridSums.zeros(least_squares.kernel_grid(box, max_radius), values=False)
        else:
            self.values = self.weights = ops.GridSums.zeros(grid)

    def add(self, batch: Batch, symmetry: Symmetry) -> None:
        add_batch(self.values, batch, symmetry, threads=self.method.threads)
        if self.weights is not self.values:
            add_batch(self.weights, batch, symmetry, threads=self.method.threads)

    def finish(self, symmetry: Symmetry) -> None:
        shared = self.weights is self.values
        self.values = finish(self.values, symmetry, threads=self.method.threads)
        self.weights = self.values if shared else finish(self.weights, symmetry, threads=self.method.threads)

    def plus(self, other: _Accumulator) -> _Accumulator:
        """Sums of both sets; call after :meth:`finish`."""
        total = object.__new__(_Accumulator)
        total.method = self.method
        total.values = self.values + other.values
        total.weights = total.values if self.weights is self.values else self.weights + other.weights
        return total

    def solve(self, ssnr: npt.NDArray[np.float64] | None) -> tuple[npt.NDArray[np.float32], float]:
        """Map and residual."""
        method = self.method
        if method.name == "least-squares":
            operator = least_squares.normal_operator(self.weights, ssnr=ssnr, threads=method.threads)
            assert self.values.values is not None
            right_side = gridding.from_grid(self.values.values, self.values.grid, threads=method.threads)
            steps = 30 if method.iterations is None else method.iterations
            solution = least_squares.solve(operator, right_side, iterations=steps, threads=method.threads)
            return solution.volume, solution.residuals[-1] if solution.residuals else 0.0
        assert self.weights.weights is not None
        steps = 0 if method.name == "direct" else 10 if method.iterations is None else method.iterations
        weights = direct.density_weights(self.weights.weights, self.weights.grid, ssnr=ssnr, iterations=steps)
        return direct.invert(self.values, weights, threads=method.threads), weights.residual


def direct_grid(box: int, max_radius: int) -> ops.Grid:
    """Division on the grid wants a fine one: at 1.5x the local mean blurs the few-view case (docs/kernels.md)."""
    return ops.Grid(box, max_radius=max_radius, oversampling=2.0)


def max_radius_for(box: int, pixel_size_A: float, max_resolution_A: float | None) -> int:
    """Last shell in use: round(box * pixel size / resolution), at most (box - 1) // 2.

    Examples
    --------
    >>> from verglas.reconstruction.known_poses import max_radius_for
    >>> max_radius_for(100, 1.0, 10.0), max_radius_for(100, 1.0, None)
    (10, 49)
    """
    largest = (box - 1) // 2
    if max_resolution_A is None:
        return largest
    if not max_resolution_A > 0:
        raise InputError(f"max_resolution_A: expected a positive number of angstrom, got {max_resolution_A}")
    return min(largest, max(1, round(box * pixel_size_A / max_resolution_A)))


def _batches(
    particles: Particles, poses: Poses, method: Method, excluded: dict[int, str]
) -> Iterator[tuple[npt.NDArray[np.int64], Batch]]:
    """Read, check and transform the particles in order; those set aside are added to ``excluded``."""
    box, pixel_size_A, n = particles.box, particles.pixel_size_A, len(particles)
    params = particles.optics.as_params() if method.ctf else None
    step = max(1, _BATCH_PIXELS // box**2)
    for begin in range(0, n, step):
        index = np.arange(begin, min(begin + step, n))
        images = particles.images(index)
        bad = unusable(images)
        excluded.update({int(index[i]): reason for i, reason in bad.items()})
        keep = np.setdiff1d(np.arange(len(index)), list(bad))
        index, images = index[keep], images[keep]
        if not len(index):
            continue
        ctf = None if params is None else ops.ctf(params[index], box, pixel_size_A, threads=method.threads)
        yield (
            index,
            Batch(
                fourier.forward(images, 2, threads=method.threads),
                euler_to_matrix(poses.angles_deg[index]),
                -poses.shifts_A[index] / pixel_size_A,
                ctf,
            ),
        )


def _select(batch: Batch, chosen: npt.NDArray[np.bool_]) -> Batch:
    ctf = None if batch.ctf is None else batch.ctf[chosen]
    return replace(
        batch, images=batch.images[chosen], matrices=batch.matrices[chosen], shifts_px=batch.shifts_px[chosen], ctf=ctf
    )


def half_sets(particles: Particles, *, seed: int = 0) -> npt.NDArray[np.int64]:
    """Random subsets 1 and 2; without valid ones, assigned at random within each micrograph.

    Parameters
    ----------
    particles : Particles
        With rlnRandomSubset, which is then honoured, or without.
    seed : int
        Of the assignment.

    Returns
    -------
    (n,) int64
        1 or 2; of equal size within every micrograph, to one particle.

    Examples
    --------
    >>> import numpy as np, verglas as vg
    >>> from verglas.reconstruction.known_poses import half_sets
    >>> p = vg.Particles.from_images(np.ones((6, 4, 4), np.float32), 1.0)
    >>> sorted(half_sets(p).tolist())
    [1, 1, 1, 2, 2, 2]
    """
    halves = particles.half_sets
    if halves is not None:
        return halves
    n, table = len(particles), particles.table
    micrograph = np.zeros(n, np.int64)
    if "rlnMicrographName" in table:
        micrograph = np.unique(table["rlnMicrographName"].to_numpy(str), return_inverse=True)[1]
    order = np.lexsort((np.random.default_rng(seed).random(n), micrograph))
    halves = np.empty(n, np.int64)
    halves[order] = 1 + np.arange(n) % 2
    return halves


def reconstruct_report(
    particles: Particles,
    symmetry: str = "C1",
    max_resolution_A: float | None = None,
    *,
    halves: bool = False,
    method: Method | None = None,
    progress: Progress | None = None,
) -> Reconstruction:
    """Like :func:`reconstruct`, with what was set aside and how well the equations were solved.

    Parameters
    ----------
    particles : Particles
        Images, poses and optics.
    symmetry : str
        Point group, RELION's orientation.
    max_resolution_A : float, optional
        Data beyond are not used; Nyquist by default.
    halves : bool
        Also make the two half maps (rlnRandomSubset; without it, random halves of each micrograph).
    method : Method, optional
        Direct, with CTF, by default.
    progress : callable, optional
        Called with (particles done, particles in all).

    Returns
    -------
    Reconstruction

    Raises
    ------
    InputError
        No poses, no particles that can be used, an unknown symmetry, mixed pixel or box sizes.
    """
    method = method or Method()
    poses = particles.poses
    if poses is None:
        raise InputError(
            "reconstruct: the particles have no poses (rlnAngleRot, rlnAngleTilt, rlnAnglePsi); refine them first"
        )
    halves = halves or callable(method.ssnr)
    group = Symmetry.of(symmetry_matrices(symmetry))
    radius = max_radius_for(particles.box, particles.pixel_size_A, max_resolution_A)
    sets = [_Accumulator(particles.box, radius, method) for _ in range(2 if halves else 1)]
    subset = half_sets(particles) if halves else np.ones(len(particles), np.int64)
    excluded: dict[int, str] = {}
    for index, batch in _batches(particles, poses, method, excluded):
        for number, accumulator in enumerate(sets, start=1):
            chosen = subset[index] == number
            if chosen.any():
                accumulator.add(batch if chosen.all() else _select(batch, chosen), group)
        if progress is not None:
            progress(int(index[-1]) + 1, len(particles))
    if len(excluded) == len(particles):
        raise InputError(f"reconstruct: none of the {len(particles)} particles can be used")
    for accumulator in sets:
        accumulator.finish(group)

    def solved(sums: _Accumulator, ssnr: npt.NDArray[np.float64] | None) -> tuple[Map, float]:
        volume, residual = sums.solve(ssnr)
        return Map(group.apply(volume, radius, threads=method.threads), particles.pixel_size_A), residual

    maps = (solved(sets[0], None)[0], solved(sets[1], None)[0]) if halves else None
    ssnr = method.ssnr(*maps) if maps is not None and callable(method.ssnr) else method.ssnr
    assert not callable(ssnr)
    full, residual = solved(sets[0].plus(sets[1]) if halves else sets[0], ssnr)
    return Reconstruction(full, maps, len(particles) - len(excluded), excluded, residual)


@overload
def reconstruct(
    particles: Particles, symmetry: str = ..., max_resolution_A: float | None = ..., *, halves: Literal[False] = ...,
    method: Method | str | None = ...,
) -> Map: ...  # fmt: skip
@overload
def reconstruct(
    particles: Particles, symmetry: str = ..., max_resolution_A: float | None = ..., *, halves: Literal[True],
    method: Method | str | None = ...,
) -> tuple[Map, tuple[Map, Map]]: ...  # fmt: skip
def reconstruct(
    particles: Particles,
    symmetry: str = "C1",
    max_resolution_A: float | None = None,
    *,
    halves: bool = False,
    method: Method | str | None = None,
) -> Map | tuple[Map, tuple[Map, Map]]:
    r"""Map from particles with known poses.

    Minimises :math:`\sum_i \| X_i - C_i P_i V \|^2 + \| V \|^2_\Lambda` inside the largest ball of the box, with a weak
    ridge :math:`\Lambda`: on the grid point by point (``"direct"``), or exactly (``"least-squares"``). The CTF is
    thereby corrected, and the map is on the images' grey scale.

    Parameters
    ----------
    particles : Particles
        Images, poses and optics (``vg.read_particles``).
    symmetry : str
        Point group, RELION's orientation; applied exactly.
    max_resolution_A : float, optional
        Data beyond are not used; Nyquist by default.
    halves : bool
        Also return the two half maps (rlnRandomSubset; without it, random halves of each micrograph).
    method : Method or str, optional
        ``"direct"`` (default), ``"least-squares"`` or ``"gridding"``, or a :class:`Method` with more choices.

    Returns
    -------
    Map, or (Map, (Map, Map)) with ``halves=True``

    Raises
    ------
    InputError
        No poses, no particles that can be used, an unknown symmetry, mixed pixel or box sizes.

    Warns
    -----
    UserWarning
        Particles were set aside (not finite, constant); the numbers and reasons are in the text.

    Examples
    --------
    >>> import numpy as np, verglas as vg
    >>> from verglas.reconstruction import Method
    >>> images = np.random.default_rng(0).normal(size=(20, 16, 16)).astype(np.float32)
    >>> poses = vg.Poses(np.random.default_rng(1).uniform(0, 180, size=(20, 3)))
    >>> particles = vg.Particles.from_images(images, 4.0, poses=poses)
    >>> vg.reconstruct(particles, method=Method(ctf=False)).data.shape
    (16, 16, 16)
    """
    chosen = Method(name=method) if isinstance(method, str) else method  # type: ignore[arg-type]
    result = reconstruct_report(particles, symmetry, max_resolution_A, halves=halves, method=chosen)
    if result.excluded:
        first = list(result.excluded.items())[:5]
        listed = "; ".join(f"particle {i}: {reason}" for i, reason in first)
        warnings.warn(f"{len(result.excluded)} particles set aside ({listed}, ...)", stacklevel=2)
    if result.half_maps is None:
        return result.map
    return result.map, result.half_maps
