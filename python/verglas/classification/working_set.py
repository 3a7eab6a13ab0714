"""Particles as classification sees them: background removed, cropped in Fourier space to the resolution in use."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from verglas import fourier, ops
from verglas._array_module import to_host
from verglas._devices import one_device, to_device
from verglas.classification.settings import BiasSettings, Class2DSettings
from verglas.errors import InputError, VerglasWarning
from verglas.image import fourier_resample
from verglas.image.outliers import inspect_images
from verglas.masks import distance_from, soft_circle
from verglas.optics import for_job
from verglas.search.grid_search import Where
from verglas.types import Particles
from verglas.types.arrays import Float32Array, IntArray
from verglas.types.particle_size import refuse_tiny_particle

# Images are always read and prepared in these blocks of the whole set, so no result depends on what is asked for.
BLOCK = 128
CACHE_GB = 3.5
# Of what caches may take, at most for images, and for each of the two kinds of samples.
IMAGES_SHARE, SAMPLES_SHARE = 0.4, 0.3
_EDGE_A = 8.0  # width of the soft edge of the mask
_BEYOND = 1.3  # averages reach this much further than the search


@dataclass(frozen=True)
class Geometry:
    """Sizes in the working box, which holds the same field as the particle's box in fewer pixels.

    Attributes
    ----------
    box, pixel_size_A
        Of the working images.
    diameter_px, edge_px
        Outer diameter of the mask, and the width of its edge.
    last_ring
        Largest ring that averages reach.
    search_limit
        Largest ring of the search.
    """

    box: int
    pixel_size_A: float
    diameter_px: float
    edge_px: float
    last_ring: int
    search_limit: int

    def ring(self, resolution_A: float) -> int:
        """Ring of a resolution."""
        return max(1, round(self.box * self.pixel_size_A / resolution_A))

    def resolution_A(self, ring: float) -> float:
        """Resolution of a ring."""
        return self.box * self.pixel_size_A / ring

    @property
    def mask(self) -> Float32Array:
        """The soft circle."""
        return soft_circle(self.box, self.diameter_px / 2 - self.edge_px, self.edge_px)


def plan_geometry(box: int, pixel_size_A: float, settings: Class2DSettings | BiasSettings) -> Geometry:
    """Choose the working box for the resolution asked for.

    Raises
    ------
    InputError
        The diameter does not fit the box.
    """
    field = box * pixel_size_A
    diameter = 0.8 * field if settings.diameter_A is None else settings.diameter_A
    if not 0 < diameter <= field:
        raise InputError(f"classify2d: expected a diameter of at most the box, {field:g} A, got {diameter:g} A")
    refuse_tiny_particle("classify2d", diameter, pixel_size_A)
    largest = (box - 1) // 2
    limit = min(largest, max(4, round(field / settings.max_resolution_A)))
    last = min(largest, int(np.ceil(_BEYOND * limit)) + 2)
    work = min(box, fourier.fast_size(2 * last + 6, even=True))
    pixel = field / work
    edge = min(_EDGE_A / pixel, diameter / pixel / 4)
    return Geometry(work, pixel, diameter / pixel, edge, last, limit)


class WorkingSet:
    """Usable particles, prepared in blocks and kept in memory where they fit.

    Parameters
    ----------
    particles : Particles
        With images.
    settings : Class2DSettings or BiasSettings
        For diameter, resolution and CTF.
    where : Where, optional
        Device and threads; one device. The CPU by default.
    cache_GB : float
        What images and samples may take; beyond it they are read again in each pass.

    Raises
    ------
    InputError
        No particle can be used.

    Warns
    -----
    VerglasWarning
        Particles are set aside (not finite, constant, flat background); the text names them.
    """

    def __init__(
        self,
        particles: Particles,
        settings: Class2DSettings | BiasSettings,
        where: Where | None = None,
        cache_GB: float = CACHE_GB,
    ) -> None:
        particles = for_job(particles, "classify2d", ctf=settings.ctf)
        self.particles, self.settings = particles, settings
        where = where or Where()
        self.where = Where(one_device("classify2d", where.device), where.threads)
        self.cache_GB = cache_GB
        self.pixel_size_A = particles.pixel_size_A
        self.geometry = plan_geometry(particles.box, self.pixel_size_A, settings)
        self._outside = distance_from((particles.box,) * 2) > self.geometry.diameter_px / 2 * (
            particles.box / self.geometry.box
        )
        if np.count_nonzero(self._outside) < 4:
            self._outside = np.ones_like(self._outside)
        bytes_all = 4 * len(particles) * self.geometry.box**2
        self._kept: Float32Array | None = None
        if bytes_all <= IMAGES_SHARE * 1e9 * self.cache_GB:
            self._kept = np.empty((len(particles), self.geometry.box, self.geometry.box), np.float32)
        optics = particles.optics if settings.ctf else None
        self.ctf = None if optics is None else optics.as_params()
        self.bad = {**({} if optics is None else optics.unusable()), **self._first_pass()}
        if len(self.bad) == len(particles):
            reason = next(iter(self.bad.values()), "there are none")
            raise InputError(f"classify2d: none of the {len(particles)} particles can be used ({reason})")
        self.usable = np.setdiff1d(np.arange(len(particles)), list(self.bad))
        self._warn()
        self.group = self._groups()

    def __len__(self) -> int:
        return len(self.particles)

    @property
    def n_groups(self) -> int:
        """Number of noise groups."""
        return int(self.group.max()) + 1

    def _groups(self) -> IntArray:
        if self.settings.ctf:
            return np.unique(self.particles.optics.group, return_inverse=True)[1].astype(np.int64)
        if "rlnOpticsGroup" in self.particles.table:
            labels = self.particles.table["rlnOpticsGroup"].to_numpy()
            return np.unique(labels, return_inverse=True)[1].astype(np.int64)
        return np.zeros(len(self.particles), np.int64)

    def _first_pass(self) -> dict[int, str]:
        bad: dict[int, str] = {}
        bad |= inspect_images(self.particles).excluded
        for begin in range(0, len(self), BLOCK):
            block, reasons = self._prepare_block(begin)
            bad.update(reasons)
            if self._kept is not None:
                self._kept[begin : begin + len(block)] = block
        return bad

    def _warn(self) -> None:
        if not self.bad:
            return
        examples = "; ".join(f"particle {i}: {reason}" for i, reason in list(self.bad.items())[:5])
        more = f" and {len(self.bad) - 5} more" if len(self.bad) > 5 else ""
        warnings.warn(
            f"classify2d: {len(self.bad)} particles set aside ({examples}{more})", VerglasWarning, stacklevel=5
        )

    def _prepare_block(self, begin: int) -> tuple[Float32Array, dict[int, str]]:
        """One block: background to mean 0 and deviation 1, cropped; unusable images are zero."""
        images = self.particles.images(slice(begin, min(begin + BLOCK, len(self))))
        flat = images.reshape(len(images), -1)
        bad = {begin + int(i): "not finite (NaN or infinity)" for i in np.flatnonzero(~np.isfinite(flat).all(axis=1))}
        if bad:
            images = images.copy()
            images[[i - begin for i in bad]] = 0
        background = images[:, self._outside].astype(np.float64)
        mean, deviation = background.mean(axis=1), background.std(axis=1)
        level = np.abs(images).max(axis=(1, 2))
        for i in np.flatnonzero(~(deviation > 1e-6 * np.maximum(level, 1e-30))):
            bad.setdefault(begin + int(i), "constant background")
        scale = np.where(deviation > 0, 1 / np.where(deviation > 0, deviation, 1), 0)
        scale[[i - begin for i in bad]] = 0
        images = ((images - mean[:, None, None]) * scale[:, None, None]).astype(np.float32)
        work = self.geometry.box
        if work != images.shape[-1]:
            images = fourier_resample(images, (work, work), threads=1)
        return images, bad

    def images(self, rows: npt.ArrayLike) -> Float32Array:
        """Prepared images of these particles, (m, box, box); rows of one block should come together."""
        at_rows = np.asarray(rows, np.int64)
        if self._kept is not None:
            return self._kept[at_rows]
        out = np.empty((len(at_rows), self.geometry.box, self.geometry.box), np.float32)
        block_of = at_rows // BLOCK
        for block in np.unique(block_of):
            own = block_of == block
            out[own] = self._prepare_block(int(block) * BLOCK)[0][at_rows[own] - block * BLOCK]
        return out


class Samples:
    """Polar samples of the working images, masked or not, computed once where they fit in memory."""

    def __init__(self, work: WorkingSet, grid: ops.PolarGrid, *, masked: bool, share: float = SAMPLES_SHARE) -> None:
        self.work, self.grid, self.masked = work, grid, masked
        self._mask = work.geometry.mask if masked else None
        shape = (len(work), grid.n_rings, grid.n_theta // 2)
        fits = 8 * np.prod(shape, dtype=np.int64) <= share * 1e9 * work.cache_GB
        self._store = np.empty(shape, np.complex64) if fits else None
        self._known = np.zeros(len(work), bool)
        self._power = np.full((len(work), grid.n_rings), np.nan) if fits else None

    def get(self, rows: IntArray) -> npt.NDArray[np.complex64]:
        """Samples of these particles."""
        if self._store is None:
            return self._compute(rows)
        missing = rows[~self._known[rows]]
        if len(missing):
            self._store[missing] = self._compute(missing)
            self._known[missing] = True
        return self._store[rows]

    def power(self, rows: IntArray, x: npt.NDArray[np.complex64]) -> npt.NDArray[np.float64]:
        """Mean of |X|^2 on each ring, (m, rings), of these particles and their samples; kept with the samples."""
        if self._power is None:
            return _ring_power(x)
        new = np.flatnonzero(np.isnan(self._power[rows, 0]))
        if len(new):
            self._power[rows[new]] = _ring_power(x[new])
        return self._power[rows]

    def _compute(self, rows: IntArray) -> npt.NDArray[np.complex64]:
        images = self.work.images(rows)
        where = self.work.where
        window = to_device(images if self._mask is None else images * self._mask, where.device)
        return to_host(ops.polar(window, self.grid, **where.of_ops))


def _ring_power(x: npt.NDArray[np.complex64]) -> npt.NDArray[np.float64]:
    return (x.real**2 + x.imag**2).mean(axis=2, dtype=np.float64)
