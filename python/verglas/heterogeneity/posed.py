"""Images at known poses, at the sampling that a resolution needs: what every model of their differences works on."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Protocol

import numpy as np

from verglas import fourier, ops
from verglas.errors import InputError, VerglasWarning
from verglas.geometry import euler_to_matrix, symmetry_matrices
from verglas.heterogeneity.expand import PARENT
from verglas.image import find_unusable_images, in_memory, plan_resample, resample_particles
from verglas.initial_model.course import working_box
from verglas.masks import soft_sphere
from verglas.optics import for_job
from verglas.reconstruction.half_sets import images_of, split_halves
from verglas.reconstruction.sums import Batch, Symmetry
from verglas.types import Particles
from verglas.types.arrays import Array, Float32Array, FloatArray, IntArray

_BATCH_PIXELS = 1 << 21
_FEWEST = 20
_EDGE_PX = 3.0
_CHUNK = 4096  # images looked at together for values that cannot be used


@dataclass(frozen=True, kw_only=True)
class PosedBatch(Batch):
    """Images ready for insertion, with their CTF and noise, that know which particles they are of.

    Attributes
    ----------
    rows : (m,) int64
        Which particles.
    """

    ctf: Float32Array
    shell_weight: Float32Array
    rows: IntArray

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, index: IntArray) -> PosedBatch:
        """Some of them; itself where that is all."""
        if len(index) == len(self):
            return self
        some: Any = {name: value[index] for name, value in vars(self).items() if isinstance(value, np.ndarray)}
        return replace(self, **some)


@dataclass(frozen=True)
class PosedImages:
    """Particles whose poses are known, Fourier-cropped to the resolution in use.

    Attributes
    ----------
    particles : Particles
        At the working sampling; those set aside are not among them.
    kept : (n,) int64
        Their numbers in the input.
    excluded : dict
        Number in the input -> reason.
    half : (n,) int64
        1 or 2; rows of one image lie in one half.
    group : (n,) int64
        Noise group, from 0.
    radius : int
        Last shell in use.
    diameter_px : float
        Of the particle, working pixels.
    symmetry : str
        Point group, imposed on every map.
    threads : int, optional
    whole_groups : int, optional
        Noise groups of the set that these are a part of.
    """

    particles: Particles
    kept: IntArray
    excluded: dict[int, str]
    half: IntArray
    group: IntArray
    radius: int
    diameter_px: float
    symmetry: str = "C1"
    threads: int | None = None
    whole_groups: int | None = None

    def __len__(self) -> int:
        return len(self.half)

    @cached_property
    def box(self) -> int:
        """Side of images and maps."""
        return self.particles.box

    @cached_property
    def pixel_size_A(self) -> float:
        """Working pixel size."""
        return self.particles.pixel_size_A

    @cached_property
    def matrices(self) -> FloatArray:
        """(n, 3, 3) rotations."""
        assert self.particles.poses is not None
        return euler_to_matrix(self.particles.poses.angles_deg)

    @cached_property
    def displacement_px(self) -> FloatArray:
        """(n, 2): minus the shifts that a STAR file holds."""
        assert self.particles.poses is not None
        return -self.particles.poses.shifts_A / self.pixel_size_A

    @cached_property
    def params(self) -> FloatArray:
        """(n, 14) CTF parameters (:func:`verglas.ops.ctf`)."""
        return self.particles.optics.as_params()

    @cached_property
    def operators(self) -> Symmetry:
        """The point group, split into what the grid does exactly and what insertion does."""
        return Symmetry.of(symmetry_matrices(self.symmetry))

    @cached_property
    def sphere(self) -> Float32Array:
        """(N, N, N) soft sphere of the particle's diameter."""
        outside = min(self.diameter_px, self.box - 2 * _EDGE_PX) / 2
        return soft_sphere(self.box, outside, _EDGE_PX).astype(np.float32)

    @cached_property
    def pixels(self) -> IntArray:
        """Flat numbers of the pixels of a half transform in shells 1 to ``radius``."""
        shells = fourier.shells((self.box, self.box)).ravel()
        return np.flatnonzero((shells >= 1) & (shells <= self.radius))

    @cached_property
    def pixel_shells(self) -> IntArray:
        """Shell of each of them."""
        return fourier.shells((self.box, self.box)).ravel()[self.pixels].astype(np.int64)

    @cached_property
    def pixel_weights(self) -> FloatArray:
        """2 where the half transform stands for two pixels of the full plane, else 1."""
        shape = (self.box, self.box // 2 + 1)
        return np.broadcast_to(fourier.half_weights((self.box, self.box)), shape).ravel()[self.pixels]

    @cached_property
    def image(self) -> IntArray:
        """(n,) the first row of the same image: copies of a symmetric particle are one."""
        return images_of(self.particles)

    @property
    def n_groups(self) -> int:
        """Noise groups."""
        return self.whole_groups or int(self.group.max()) + 1

    @property
    def batch(self) -> int:
        """Images worked on at a time; nothing depends on it but memory."""
        return max(8, _BATCH_PIXELS // self.box**2)

    def part(self, rows: IntArray) -> PosedImages:
        """Some of the particles, with the noise groups of the whole set."""
        return replace(
            self,
            particles=self.particles[rows],
            kept=self.kept[rows],
            half=self.half[rows],
            group=self.group[rows],
            whole_groups=self.n_groups,
        )

    def at_radius(self, radius: int) -> PosedImages:
        """The same images, of which coarser shells are used."""
        return replace(self, radius=radius, whole_groups=self.n_groups)

    def rows_of_half(self, half: int) -> IntArray:
        """Particles of a half set, in order."""
        return np.flatnonzero(self.half == half)

    def batches(self, rows: IntArray, sigma2: FloatArray, most: int | None = None) -> Iterator[PosedBatch]:
        """These particles in order, at most so many at a time; ``sigma2`` is (groups, shells)."""
        inverse = (1.0 / sigma2).astype(np.float32)
        step = min(self.batch, most or self.batch)
        for begin in range(0, len(rows), step):
            some = rows[begin : begin + step]
            yield PosedBatch(
                images=fourier.forward(self.particles.images(some), 2, threads=self.threads),
                matrices=self.matrices[some],
                shifts_px=self.displacement_px[some],
                ctf=ops.ctf(self.params[some], self.box, self.pixel_size_A, threads=self.threads),
                shell_weight=inverse[self.group[some]],
                rows=some,
            )

    @cached_property
    def _by_shell(self) -> tuple[IntArray, IntArray]:
        order = np.argsort(self.pixel_shells, kind="stable")
        return order, np.searchsorted(self.pixel_shells[order], np.arange(1, self.radius + 1))

    def shell_sums(self, values: Array) -> FloatArray:
        """(m, radius + 1) sums over each shell of real (m, pixels) values."""
        order, edges = self._by_shell
        out = np.zeros((len(values), self.radius + 1))
        out[:, 1:] = np.add.reduceat(values[:, order].astype(np.float64), edges, axis=1)
        return out

    @cached_property
    def shell_pixels(self) -> FloatArray:
        """(radius + 1,) pixels of the full plane in each shell."""
        return np.bincount(self.pixel_shells, self.pixel_weights, minlength=self.radius + 1).astype(np.float64)


class PosedChoices(Protocol):
    """What the settings of every job at known poses have."""

    @property
    def resolution_A(self) -> float:
        """Finest data in use."""

    @property
    def diameter_A(self) -> float | None:
        """Of the particle."""

    @property
    def symmetry(self) -> str:
        """Point group."""

    @property
    def seed(self) -> int:
        """Of half sets."""


def posed_images_for(particles: Particles, settings: PosedChoices, job: str, *, threads: int | None) -> PosedImages:
    """:func:`posed_images` as the settings of a job have it."""
    return posed_images(
        particles,
        job=job,
        resolution_A=settings.resolution_A,
        diameter_A=settings.diameter_A,
        symmetry=settings.symmetry,
        seed=settings.seed,
        threads=threads,
    )


def _half_sets(particles: Particles, seed: int) -> IntArray:
    """Half sets; warns of what was not as the file had it, but not of the copies that ``verglas expand`` made."""
    split = split_halves(particles, seed=seed)
    for note in split.notes:
        if not (note.code == "copies" and PARENT in particles.table):
            warnings.warn(f"{particles.where}: {note.sentence}", VerglasWarning, stacklevel=3)
    return split.half


def posed_images(
    particles: Particles,
    *,
    job: str,
    resolution_A: float | None,
    diameter_A: float | None = None,
    symmetry: str = "C1",
    seed: int = 0,
    threads: int | None = None,
) -> PosedImages:
    """Particles with poses, at the sampling of a resolution.

    Parameters
    ----------
    particles : Particles
        With images, CTFs and poses.
    job : str
        Who asks, for messages.
    resolution_A : float, optional
        Finest data in use; Nyquist by default.
    diameter_A : float, optional
        Of the particle; four fifths of the box by default.
    symmetry : str
        Point group, imposed on every map.
    seed : int
        Of half sets, where the particles have none.
    threads : int, optional
        Threads; all by default.

    Raises
    ------
    InputError
        No images, no poses, a diameter beyond the box, fewer than 20 particles that can be used.
    """
    if particles.source is None:
        raise InputError(f"{particles.where}: these particles have no images")
    if particles.poses is None:
        raise InputError(
            f"{particles.where}: {job} needs poses (rlnAngleRot, rlnAngleTilt, rlnAnglePsi) and these particles have "
            "none; refine them first (verglas refine)"
        )
    work = for_job(particles, job, posed=True)
    field_A = work.box * work.pixel_size_A
    if diameter_A is not None and diameter_A > field_A:
        raise InputError(f"{job}: a diameter of {diameter_A:g} A does not fit a box of {field_A:g} A")
    small = work.box if resolution_A is None else working_box(work.box, work.pixel_size_A, resolution_A)
    if small < work.box:
        work = resample_particles(work, plan_resample(work.box, work.pixel_size_A, None, small))
    work = in_memory(work)
    excluded = dict(work.optics.unusable())
    for begin in range(0, len(work), _CHUNK):
        bad = find_unusable_images(work.images(slice(begin, begin + _CHUNK)))
        excluded.update({begin + i: reason for i, reason in bad.items()})
    kept = np.setdiff1d(np.arange(len(work)), list(excluded))
    if len(kept) < _FEWEST:
        why = "".join(f" (particle {i}: {reason})" for i, reason in list(excluded.items())[:1])
        raise InputError(f"{job}: {len(kept)} of {len(work)} particles can be used{why}; it takes {_FEWEST} or more")
    work = work[kept] if len(kept) < len(work) else work
    largest = (work.box - 1) // 2
    shell = largest if resolution_A is None else round(field_A / resolution_A)
    return PosedImages(
        work,
        kept,
        excluded,
        _half_sets(work, seed),
        np.unique(work.optics.group, return_inverse=True)[1],
        int(np.clip(shell, 2, largest)),
        (0.8 * field_A if diameter_A is None else diameter_A) / work.pixel_size_A,
        symmetry,
        threads,
    )
