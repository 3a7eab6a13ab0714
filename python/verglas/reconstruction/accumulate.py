"""Sums of particles with known poses: on the CPU, or on GPUs that share the particles, a thread each."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from verglas import fourier, gridding, ops
from verglas._array_module import array_module, on_device, to_host
from verglas._devices import device_names, release_memory, upload_pieces, work_on
from verglas.errors import DeviceMemoryError, InputError, VerglasWarning
from verglas.geometry import euler_to_matrix
from verglas.image import find_unusable_images
from verglas.reconstruction import direct, least_squares
from verglas.reconstruction.ewald import SideBands, Sign
from verglas.reconstruction.iterated import ITERATED, iterate_map
from verglas.reconstruction.packed_sums import PackedSums
from verglas.reconstruction.sums import Batch, Symmetry, add_batch, finish
from verglas.types.settings import check_settings, setting

if TYPE_CHECKING:
    from verglas.types import Particles

Progress = Callable[[int, int], None]
Tick = Callable[[int, int], None]
_BATCH_PIXELS = 1 << 23  # pixels read and transformed at a time: about 100 MB with transforms and CTFs
_LEAST_BATCH = 8


@dataclass(frozen=True)
class ReconstructSettings:
    """How a map is made from images with known poses.

    Attributes
    ----------
    symmetry : str
        Point group, RELION's orientation; applied exactly.
    max_resolution_A : float, optional
        Data beyond are not used; Nyquist by default.
    method : {"direct", "least-squares", "gridding", "sirt", "cg", "tv"}
        Division on the grid, the default: quickest, and the best of the three on noisy images; conjugate gradients on
        the exact normal equations (:mod:`verglas.reconstruction.least_squares`): the most exact, best where noise is
        small or views are few; or division by iterated density weights (:mod:`verglas.reconstruction.direct`).
        docs/kernels.md has the figures. Or iterations that end early, and total variation
        (:mod:`verglas.reconstruction.iterated`).
    iterations : int
        At most, for least-squares (30) and gridding (10); sirt (60), cg (12), tv (40).
    tv_weight : float, optional
        Of "tv", in standard deviations of the noise; by default that under which half the particles explain the others.
    ctf : bool
        False takes every CTF as 1.
    ewald : bool
        Side bands on Ewald's sphere in place of flat slices (:mod:`verglas.reconstruction.ewald`).
    ewald_sign : {"auto", "positive", "negative"}
        Which way the sphere curves; ``"auto"`` asks each half of the particles which of the other half's maps foretells
        its images better, and stays with flat slices where neither sign does.
    diameter_A : float, optional
        Of the particle, for what the two side bands share; 3/4 of the box by default.
    """

    symmetry: str = setting("C1", "Point group: C1, C4, D2, T, O, I1 ...", flags=("--sym",))
    max_resolution_A: float | None = setting(None, "Use data to this resolution only", more_than=0)
    method: Literal["direct", "least-squares", "gridding", "sirt", "cg", "tv"] = setting(
        "direct", "Division on the grid, exact normal equations, density weights, or SIRT, CG, total variation"
    )
    iterations: int | None = setting(
        None,
        "Most iterations",
        at_least=1,
        default_words="30, gridding: 10, sirt: 60, cg: 12, tv: 40",
    )
    tv_weight: float | None = setting(
        None, "Weight of total variation, for tv", more_than=0, default_words="by what half the particles say"
    )
    ctf: bool = setting(True, "Correct the CTF; else every CTF is taken as 1")
    ewald: bool = setting(False, "Follow the curvature of Ewald's sphere, by single side bands")
    ewald_sign: Literal["auto", "positive", "negative"] = setting(
        "auto", "Which way the sphere curves; auto finds it by held-out particles"
    )
    diameter_A: float | None = setting(
        None, "Particle's diameter, for --ewald", more_than=0, default_words="3/4 of the box"
    )

    def __post_init__(self) -> None:
        """Check once."""
        check_settings("reconstruct", self)
        if self.ewald and not self.ctf:
            raise InputError("reconstruct: ewald needs the CTF, whose phase parts the two side bands; take ctf=True")
        if self.tv_weight is not None and self.method != "tv":
            raise InputError(
                f"reconstruct: tv_weight={self.tv_weight:g} is not used by method {self.method}; leave it out"
            )
        if not self.ewald and self.ewald_sign != "auto":
            raise InputError(f"reconstruct: ewald_sign={self.ewald_sign} has no effect without ewald=True")

    @property
    def exact(self) -> bool:
        """Whether the normal equations are solved, not divided on the grid."""
        return self.method == "least-squares" or self.method in ITERATED

    @property
    def curvature_sign(self) -> Sign | None:
        """The sign of the curvature, where it is known and asked for."""
        return self.ewald_sign if self.ewald and self.ewald_sign != "auto" else None


def images_of_a_batch(box: int) -> int:
    """Images that are read, transformed and inserted together."""
    return max(1, _BATCH_PIXELS // box**2)


def direct_grid(box: int, max_radius: int) -> ops.Grid:
    """Division on the grid wants a fine one: at 1.5x the local mean blurs the few-view case (docs/kernels.md)."""
    return ops.Grid(box, max_radius=max_radius, oversampling=2.0)


class Accumulator:
    """Sums of one set of particles on a device: values on the map's grid, weights there or on the kernel's grid."""

    def __init__(
        self, box: int, max_radius: int, settings: ReconstructSettings, device: str, threads: int | None
    ) -> None:
        exact = settings.exact
        self.values: Any  # GridSums, or PackedSums after pack
        self.weights: Any
        grid = ops.Grid(box, max_radius=max_radius) if exact else direct_grid(box, max_radius)
        self.settings, self.device, self.threads = settings, device, threads
        if exact:
            self.values = ops.GridSums.zeros(grid, weights=False, device=device)
            kernel = least_squares.kernel_grid(box, max_radius)
            self.weights = ops.GridSums.zeros(kernel, values=False, device=device)
        else:
            self.values = self.weights = ops.GridSums.zeros(grid, device=device)

    def add(self, batch: Batch, symmetry: Symmetry) -> None:
        """Insert a batch."""
        add_batch(self.values, batch, symmetry, threads=self.threads, device=self.device)
        if self.weights is not self.values:
            add_batch(self.weights, batch, symmetry, threads=self.threads, device=self.device)

    def pack(self) -> None:
        """Without the corners of the grid from now on: sums that others are added to, for a direct map on the host."""
        if self.settings.method == "direct" and isinstance(self.values, ops.GridSums) and self.device == "cpu":
            self.values = self.weights = PackedSums.of(self.values)

    def take(self, other: Accumulator) -> None:
        """Add the sums of another set, as of another device; :meth:`finish` is for both of them or for neither yet."""
        shared = self.weights is self.values
        for mine, theirs in ((self.values, other.values), (self.weights, other.weights))[: 1 if shared else 2]:
            if isinstance(mine, PackedSums):
                mine += theirs
                continue
            for total, part in ((mine.values, theirs.values), (mine.weights, theirs.weights)):
                if total is not None:
                    # Through the host: the two devices need not be able to reach each other's memory.
                    total += array_module(total).asarray(to_host(part))

    def finish(self, symmetry: Symmetry) -> None:
        """Sums of the full plane and the full group."""
        shared = self.weights is self.values
        self.values = finish(self.values, symmetry, threads=self.threads)
        self.weights = self.values if shared else finish(self.weights, symmetry, threads=self.threads)
        if self.device != "cpu" and self.settings.method != "direct":  # solved on the host
            self.values, self.weights = _sums_to_host(self.values), _sums_to_host(self.weights)

    def plus(self, other: Accumulator) -> Accumulator:
        """Sums of both sets; call after :meth:`finish`."""
        total = object.__new__(Accumulator)
        total.settings, total.device, total.threads = self.settings, self.device, self.threads
        total.values = self.values + other.values
        total.weights = total.values if self.weights is self.values else self.weights + other.weights
        return total

    def normal_equations(
        self, ssnr: npt.NDArray[np.float64] | None = None
    ) -> tuple[least_squares.NormalOperator, npt.NDArray[np.float32]]:
        """B and b of the exact methods."""
        operator = least_squares.normal_operator(self.weights, ssnr=ssnr, threads=self.threads)
        assert self.values.values is not None
        return operator, gridding.from_grid(self.values.values, self.values.grid, threads=self.threads)

    def solve(
        self, ssnr: npt.NDArray[np.float64] | None, tv_weight: float = 0.0
    ) -> tuple[npt.NDArray[np.float32], float]:
        """Map and residual; ``tv_weight`` in the unit of b."""
        settings, threads = self.settings, self.threads
        if settings.method in ITERATED:
            operator, right_side = self.normal_equations()
            way: dict[str, Any] = {"tv_weight": tv_weight, "threads": threads}
            iterated = iterate_map(operator, right_side, settings.method, settings.iterations, **way)
            return iterated.volume, iterated.residuals[-1] if iterated.residuals else 0.0
        if settings.exact:
            operator, right_side = self.normal_equations(ssnr)
            steps = 30 if settings.iterations is None else settings.iterations
            solution = least_squares.solve(operator, right_side, iterations=steps, threads=threads)
            return solution.volume, solution.residuals[-1] if solution.residuals else 0.0
        assert self.weights.weights is not None
        steps = 0 if settings.method == "direct" else 10 if settings.iterations is None else settings.iterations
        if steps == 0 and self.weights is self.values:
            return to_host(direct.solve(self.values, ssnr=ssnr, threads=threads)), float("nan")
        weights = direct.density_weights(self.weights.weights, self.weights.grid, ssnr=ssnr, iterations=steps)
        return to_host(direct.invert(self.values, weights, threads=threads)), weights.residual


def _sums_to_host(sums: ops.GridSums) -> ops.GridSums:
    return replace(sums, values=to_host(sums.values), weights=to_host(sums.weights))


@dataclass(frozen=True)
class Insertion:
    """Insertion of particles into the sums of one or two sets.

    Attributes
    ----------
    particles : Particles
        With poses.
    subset : (n,) int64
        Set of each particle, from 1.
    n_sets : int
    symmetry : Symmetry
    max_radius : int
        Last shell in use.
    settings : ReconstructSettings
        Method, iterations, and whether CTFs are taken as 1.
    progress : callable, optional
        Called with (particles done, particles in all).
    known : dict of int -> str
        Particles that cannot be used, as far as is known: :func:`verglas.image.outliers.inspect_images`.
    threads, device
        As in :func:`verglas.reconstruct`; several devices share the particles in contiguous blocks.
    batch_pixels : int
        Of the images worked on at a time; results do not depend on it.
    """

    particles: Particles
    subset: npt.NDArray[np.int64]
    n_sets: int
    symmetry: Symmetry
    max_radius: int
    settings: ReconstructSettings
    progress: Progress | None = None
    known: Mapping[int, str] = field(default_factory=dict)
    threads: int | None = None
    device: str = "cpu"
    batch_pixels: int = _BATCH_PIXELS

    def run(self) -> tuple[list[Accumulator], dict[int, str]]:
        """Finished sums of each set, on the first device; and the particles set aside, with the reason of each.

        Raises
        ------
        InputError
            No particle can be used.
        DeviceError
            A GPU cannot be used, or its memory does not suffice for half a batch either.
        """
        n, devices = len(self.particles), device_names(self.device)
        shares = [_Share(self, *part) for part in zip(np.array_split(np.arange(n), len(devices)), devices, strict=True)]
        tick = self._ticker(len(shares))
        if len(shares) == 1:
            results = [shares[0].sums(tick)]
        else:
            with ThreadPoolExecutor(len(shares)) as threads:
                results = list(threads.map(lambda share: share.sums(tick), shares))
        excluded = {i: reason for _, aside in results for i, reason in aside.items()}
        if len(excluded) == n:
            why = "".join(f"; the first: {reason}" for reason in list(dict(sorted(excluded.items())).values())[:1])
            raise InputError(f"reconstruct: none of the {n} particles can be used{why}")
        sets = results[0][0]
        with work_on(devices[0]):
            # Always in the order of the devices: the same sums for the same number of them.
            for others, _ in results[1:]:
                for mine in sets:
                    mine.take(others.pop(0))
            for accumulator in sets:
                accumulator.finish(self.symmetry)
        return sets, excluded

    def _ticker(self, shares: int) -> Tick:
        """What a share calls with its first row, its rows done and those of this batch."""
        n_done, lock = [0], threading.Lock()

        def tick(last: int, count: int) -> None:
            with lock:
                n_done[0] = last + 1 if shares == 1 else n_done[0] + count
                if self.progress is not None:
                    self.progress(n_done[0], len(self.particles))

        return tick


@dataclass(frozen=True)
class _Share:
    """Some of the particles, in order, and the device that inserts them."""

    all: Insertion
    rows: npt.NDArray[np.int64]
    device: str

    def sums(self, tick: Tick) -> tuple[list[Accumulator], dict[int, str]]:
        """Sums of each set, not finished; a GPU that runs out of memory starts once more with half the batch."""
        batch = max(1, self.all.batch_pixels // self.all.particles.box**2)
        progress = [0]

        def count_done(last: int, count: int) -> None:
            progress[0] += count
            tick(last, count)

        try:
            return self._insert_share(batch, count_done)
        except DeviceMemoryError as error:
            batch = min(batch, len(self.rows)) // 2
            if batch < _LEAST_BATCH:
                raise
            warnings.warn(
                f"reconstruct: {self.device} ran out of memory; it starts again with {batch} images at a time: {error}",
                VerglasWarning,
                stacklevel=2,
            )
        # Takes back the progress that the failed attempt had counted.
        tick(-1, -progress[0])
        release_memory(self.device)
        return self._insert_share(batch, tick)

    def _insert_share(self, batch: int, tick: Tick) -> tuple[list[Accumulator], dict[int, str]]:
        job, excluded = self.all, dict[int, str]()
        with work_on(self.device):
            shape = job.particles.box, job.max_radius
            sets = [Accumulator(*shape, job.settings, self.device, job.threads) for _ in range(job.n_sets)]
            for index, images in self._batches(batch, excluded):
                for number, accumulator in enumerate(sets, start=1):
                    chosen = job.subset[index] == number
                    if chosen.any():
                        accumulator.add(images if chosen.all() else _select(images, chosen), job.symmetry)
                tick(int(index[-1]), len(index))
        return sets, excluded

    def _batches(self, size: int, excluded: dict[int, str]) -> Iterator[tuple[npt.NDArray[np.int64], Batch]]:
        """Read, check and transform the particles in order; those set aside are added to ``excluded``."""
        particles, threads, poses = self.all.particles, self.all.threads, self.all.particles.poses
        settings = self.all.settings
        assert poses is not None
        box, pixel_size_A = particles.box, particles.pixel_size_A
        optics = particles.optics if settings.ctf else None
        params = None if optics is None else optics.as_params()
        bad = {**({} if optics is None else optics.unusable()), **self.all.known}
        excluded.update({i: bad[i] for i in np.intersect1d(list(bad), self.rows).astype(np.int64).tolist()})
        usable: list[npt.NDArray[np.int64]] = []

        def read(index: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
            images = particles.images(index)
            bad = find_unusable_images(images)
            excluded.update({int(index[i]): reason for i, reason in bad.items()})
            keep = np.flatnonzero([row not in excluded for row in index.tolist()])
            usable.append(index[keep])
            return images[keep]

        pieces = [self.rows[begin : begin + size] for begin in range(0, len(self.rows), size)]
        for _, images in upload_pieces(read, pieces, self.device, (min(size, len(self.rows)), box, box)):
            index = usable.pop(0)
            if not len(index):
                continue
            ctf = bands = None
            if params is not None:
                where: dict[str, Any] = {"device": self.device, "threads": threads}
                ctf = ops.ctf(params[index], box, pixel_size_A, **where)
                if settings.curvature_sign is not None:
                    bands = SideBands.of(
                        params[index], box, pixel_size_A, settings.curvature_sign, settings.diameter_A, **where
                    )
            yield (
                index,
                Batch(
                    fourier.forward(images, 2, threads=threads),
                    euler_to_matrix(poses.angles_deg[index]),
                    # Minus: the origin in a file brings the particle to the centre, so the particle lies at minus the
                    # origin.
                    -poses.shifts_A[index] / pixel_size_A,
                    ctf,
                    bands=bands,
                ),
            )


def _select(batch: Batch, chosen: npt.NDArray[np.bool_]) -> Batch:
    where = chosen
    if on_device(batch.images):
        # Row numbers, not a mask: CuPy has to ask the device how many a mask holds, and waits for it.
        where = array_module(batch.images).asarray(np.flatnonzero(chosen))
    return replace(
        batch,
        images=batch.images[where],
        matrices=batch.matrices[chosen],
        shifts_px=batch.shifts_px[chosen],
        ctf=None if batch.ctf is None else batch.ctf[where],
        bands=None if batch.bands is None else batch.bands[np.flatnonzero(chosen)],
    )
