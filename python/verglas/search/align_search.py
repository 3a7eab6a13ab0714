"""The parts of an alignment: geometry of the search, the search and the exact maximum on a device, devices together."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np
import numpy.typing as npt

from verglas import fourier, gridding, ops
from verglas._array_module import all_to_host, array_module
from verglas._devices import to_device, upload_pieces, work_on
from verglas.errors import InputError, VerglasWarning
from verglas.geometry import direction_vectors, euler_to_matrix, healpix_spacing_deg, matrix_to_euler, orientation_grid
from verglas.image import find_unusable_images
from verglas.masks import soft_circle
from verglas.search.cells import Level
from verglas.search.grey_scale import INVERTED, cross_and_power
from verglas.search.grid_search import GridSearch, PoseGrid, Where, shift_disc
from verglas.search.image_batch import ImageBatch
from verglas.search.pose_search import PoseSearch
from verglas.search.prepare import inverse_noise, reference_power, usable_batches
from verglas.search.search_settings import SearchSettings
from verglas.types import Poses
from verglas.types.arrays import Array
from verglas.types.listener import Listener, Silence

if TYPE_CHECKING:
    from verglas.types import Particles

# Images that set the grey scale of the map before the search.
_SCALE_IMAGES = 128
_MASK_EDGE_PX = 4.0
# Cells of an image that go on to the next level, at most.
_MAX_CELLS = 200
_BATCH = 256


@dataclass(frozen=True)
class Geometry:
    """Everything about the search that does not depend on the images.

    ``levels`` has one entry where every pose is scored, more for branch and bound.
    """

    box: int
    pixel_size_A: float
    diameter_px: float
    final_radius: int
    shift_range_px: float
    levels: list[Level]
    symmetry: str = "C1"

    def shifts_px(self) -> npt.NDArray[np.float32]:
        """Shifts of the first level."""
        step = self.levels[0].shift_step_px
        return np.asarray(shift_disc(int(self.shift_range_px / step)) * step, np.float32)

    @property
    def poses(self) -> PoseGrid:
        """In-plane angles and shifts of the first level."""
        return PoseGrid(self.levels[0].n_psi, self.shifts_px())

    def search_settings(self, device: str = "cpu") -> SearchSettings:
        """Of the branch and bound: the best pose is wanted, of broad posteriors too."""
        search = SearchSettings(shift_range_px=self.shift_range_px, max_cells=_MAX_CELLS, keep_best=True)
        return search if device == "cpu" else replace(search, batch=_BATCH)

    def mask(self) -> Array:
        """Soft disc that the images are multiplied by in the search."""
        return soft_circle(self.box, (self.diameter_px - _MASK_EDGE_PX) / 2, _MASK_EDGE_PX)


def _slices(symmetry: str, step_deg: float) -> tuple[Array, Array]:
    """Directions whose slices are made, and the log prior of each and of its opposite (score's two columns).

    The opposite (rot + 180, 180 - tilt) of a slice costs half a slice: of two opposite directions one slice is made.
    """
    grid_angles, _ = orientation_grid(step_deg, symmetry)
    vectors = direction_vectors(grid_angles)
    below = vectors[:, 2] < -1e-9
    view_angles = grid_angles.copy()
    view_angles[below] = np.column_stack([grid_angles[below, 0] + 180, 180 - grid_angles[below, 1]])
    keys = np.round(direction_vectors(view_angles), 6) + 0.0  # + 0.0: minus zero is zero
    _, first, which = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    prior = np.full((len(first), 2), -np.inf)
    prior[which.ravel(), below.astype(int)] = -np.log(len(grid_angles))
    return view_angles[first], prior


@dataclass(frozen=True)
class Found:
    """Best pose of every image on the grid of its level, its share of the posterior, and the log evidence."""

    poses: Poses
    sharp: Array
    evidence: Array
    level: Array


class _Search(Protocol):
    def run(self, images: ImageBatch) -> Found: ...


class _Everything:
    """The first level's grid, every pose scored. The slices are made once, for the grey scale and for the search."""

    def __init__(self, spectrum: Array, grid: ops.Grid, geo: Geometry, where: Where) -> None:
        level = geo.levels[0]
        self.geo, self.where = geo, where
        self.polar = ops.PolarGrid(geo.box, level.radius, diameter_px=geo.diameter_px)
        self.directions, self.prior = _slices(geo.symmetry, healpix_spacing_deg(level.order) + 1e-9)
        matrices = euler_to_matrix(np.column_stack([self.directions, np.zeros(len(self.directions))]))
        self.slices = ops.polar_slices(spectrum, grid, matrices, self.polar, **where.of_ops)
        self.mask = to_device(geo.mask(), where.device)
        self.search = self._search("correlation")

    def _search(self, score: Literal["correlation", "likelihood"]) -> GridSearch:
        search = GridSearch(self.polar, self.geo.poses, self.where, score=score, max_candidates=64)
        search.set_reference(self.slices, self.prior)
        return search

    def set_scale(self, scale: float) -> None:
        """From correlations, which need no grey scale, to likelihoods."""
        self.slices *= np.float32(scale)
        self.search = self._search("likelihood")

    def refuse_inverted(self, images: ImageBatch) -> None:
        """Raise where images resemble minus the map: each has a pose that scores best with the map, too."""
        samples = images.on_rings(ops.polar(images.images * self.mask, self.polar, **self.where.of_ops), self.polar)
        inverted = GridSearch(self.polar, self.geo.poses, self.where, score="correlation", max_candidates=64)
        inverted.set_reference(-self.slices, self.prior)
        best, against = (float(s.run(samples).best_score.mean()) for s in (self.search, inverted))
        if against > INVERTED * max(best, 0.0):
            raise InputError(
                f"align: the images resemble the inverted map (mean correlation {against:.3f}) more than the map "
                f"({best:.3f}); particles must be white: multiply the images or the map by -1"
            )

    def run(self, images: ImageBatch) -> Found:
        """Best poses on the grid."""
        samples = ops.polar(images.images * self.mask, self.polar, **self.where.of_ops)
        result = self.search.run(images.on_rings(samples, self.polar))
        rot, tilt = self.directions[result.best_slice].T
        rot, tilt = np.where(result.best_opposite, rot + 180, rot), np.where(result.best_opposite, 180 - tilt, tilt)
        grid = self.search.poses
        angles = np.column_stack([rot, tilt, grid.psi_deg(result.best_psi)])
        poses = Poses(angles, grid.shifts_px[result.best_shift].astype(np.float64) * self.geo.pixel_size_A)
        sharp = np.exp(result.best_score - result.log_evidence)
        return Found(poses, sharp, result.log_evidence, np.zeros(len(images), np.int64))


class _Bounded:
    """Branch and bound to the finest level."""

    def __init__(self, volume: Array, geo: Geometry, where: Where) -> None:
        self.geo, self.mask = geo, to_device(geo.mask(), where.device)
        self.search = PoseSearch(
            volume,
            geo.levels,
            symmetry=geo.symmetry,
            diameter_px=geo.diameter_px,
            settings=geo.search_settings(where.device),
            threads=where.threads,
            device=where.device,
        )

    def run(self, images: ImageBatch) -> Found:
        """Best poses on the grid of the level that each image reached."""
        result = self.search.run(
            images.images * self.mask,
            images.inv_sigma2,
            ctf=images.params,
            pixel_size_A=self.geo.pixel_size_A,
            first_particle=int(images.rows[0]),
        )
        poses = Poses(result.angles_deg, result.shifts_px * self.geo.pixel_size_A)
        return Found(poses, np.exp(result.score - result.log_evidence), result.log_evidence, result.level)


@dataclass(frozen=True)
class _Exact:
    """The exact score of poses on the pixels of the images."""

    spectrum: Array
    grid: ops.Grid
    geo: Geometry
    where: Where

    def _run(self, images: ImageBatch, poses: Poses, search: ops.PoseSettings, scale: float = 1.0) -> ops.PoseResult:
        radius, pixel_size_A = search.max_radius or self.grid.max_radius, self.geo.pixel_size_A
        result: ops.PoseResult = all_to_host(
            ops.refine_pose(
                fourier.forward(images.images, 2, threads=self.where.threads),
                self.spectrum,
                self.grid,
                euler_to_matrix(poses.angles_deg),
                -poses.shifts_A / pixel_size_A,
                ctf=images.ctf(**self.where.of_ops),
                shell_weight=np.ascontiguousarray(images.inv_sigma2[:, : radius + 1], np.float32),
                scale=np.full(len(images), scale),
                search=search,
                **self.where.of_ops,
            )
        )
        return result

    def grey_scale(self, images: ImageBatch, poses: Poses) -> float:
        """Factor of the map that fits the images best at these poses."""
        as_they_are = ops.PoseSettings(max_radius=self.geo.levels[0].radius, steps=0)
        fit = cross_and_power(lambda s: float(self._run(images, poses, as_they_are, s).scores.sum()))
        if not fit.power > 0:
            raise InputError("align: the map is empty (all zero) at the resolution of the search")
        if not fit.cross > 0:
            raise InputError(
                "align: the images do not resemble the map, or their contrast is inverted (particles are white)"
            )
        return fit.cross / fit.power

    def maximum(self, images: ImageBatch, on_grid: Found) -> Poses:
        """Every pose taken to the maximum; the radii it passes depend on the grid that its search ended on."""
        angles, shifts = on_grid.poses.angles_deg.copy(), on_grid.poses.shifts_A.copy()
        # Images may have stopped at different levels, and a coarser grid ends farther from the maximum.
        for k in np.unique(on_grid.level):
            rows, level = np.flatnonzero(on_grid.level == k), self.geo.levels[k]
            step_deg = healpix_spacing_deg(level.order)
            coarse = [
                r
                for r in ops.pose_radii(self.grid, step_deg / 2, level.shift_step_px / 2, self.geo.diameter_px)
                if r < self.geo.final_radius
            ]
            pixels = images.images[array_module(images.images).asarray(rows)]
            part = replace(
                images,
                rows=images.rows[rows],
                images=pixels,
                params=None if images.params is None else images.params[rows],
                inv_sigma2=images.inv_sigma2[rows],
                origin_px=images.origin_px[rows],
            )
            search = ops.PoseSettings(max_radius=self.geo.final_radius, coarse_radii=coarse)
            refined = self._run(part, Poses(angles[rows], shifts[rows]), search)
            angles[rows] = matrix_to_euler(refined.matrices)
            shifts[rows] = -refined.shifts_px * self.geo.pixel_size_A
        return Poses(angles, shifts)


def set_aside(excluded: dict[int, str], n: int) -> None:
    """Say which particles cannot be used; all of them is an error."""
    if len(excluded) == n:
        raise InputError(f"align: none of the {n} particles can be used ({next(iter(excluded.values()))})")
    if excluded:
        examples = "; ".join(f"particle {i}: {excluded[i]}" for i in sorted(excluded)[:5])
        more = f" and {len(excluded) - 5} more" if len(excluded) > 5 else ""
        warnings.warn(f"align: {len(excluded)} particles set aside ({examples}{more})", VerglasWarning, stacklevel=3)


@dataclass(frozen=True)
class Reference:
    """The map on the images' grey scale, and 1 / sigma^2 by particle and shell: what every device searches with."""

    volume: Array
    scale: float
    inv_sigma2: Array
    made: dict[str, tuple[Array, _Everything]]  # on the device that measured: not made twice

    def on(self, geo: Geometry, where: Where) -> tuple[_Search, _Exact]:
        """The search and the exact score on a device."""
        grid = ops.Grid(geo.box)
        everything: _Everything | None
        if where.device in self.made:
            spectrum, everything = self.made.pop(where.device)
        else:
            spectrum = gridding.to_grid(to_device(self.volume, where.device), grid, threads=where.threads)
            everything = None if len(geo.levels) > 1 else _Everything(spectrum, grid, geo, where)
        # In place: what 'made' held is gone from it by now, or a second call would scale it twice.
        spectrum *= np.float32(self.scale)
        exact = _Exact(spectrum, grid, geo, where)
        if everything is None or len(geo.levels) > 1:
            return _Bounded(self.volume * np.float32(self.scale), geo, where), exact
        everything.set_scale(self.scale)
        return everything, exact


def measure_reference(
    particles: Particles, volume: Array, geo: Geometry, where: Where, excluded: dict[int, str]
) -> Reference:
    """Grey scale of the map and noise of the images, from some of them."""
    grid = ops.Grid(geo.box)
    spectrum = gridding.to_grid(volume, grid, threads=where.threads)
    batches = list(usable_batches(particles, np.arange(len(particles)), _SCALE_IMAGES, excluded))
    if not batches:
        set_aside(excluded, len(particles))
    rows, pixels = (np.concatenate(parts) for parts in zip(*batches, strict=True))
    # The noise is not known before the map's grey scale is, nor the scale before poses: correlations of unweighted
    # images need neither.
    flat = np.ones((len(rows), grid.max_radius + 1))
    with work_on(where.device):
        sample = ImageBatch(
            rows,
            to_device(pixels, where.device),
            particles.optics.as_params()[rows],
            flat,
            np.zeros((len(rows), 2)),
            geo.pixel_size_A,
            where,
        )
        there = to_device(spectrum, where.device)
        # Always the exhaustive first level, which is cheap: branch and bound needs the scale that is measured here.
        everything, exact = _Everything(there, grid, geo, where), _Exact(there, grid, geo, where)
        scale = exact.grey_scale(sample, everything.run(sample).poses)
        everything.refuse_inverted(sample)
    noise = inverse_noise(particles, reference_power(spectrum * np.float32(scale), grid, particles), excluded)
    return Reference(volume, scale, noise, {where.device: (there, everything)})


@dataclass
class _Share:
    """Some of the particles, in order, one device, and what it found of them."""

    rows: Array
    device: str
    excluded: dict[int, str]
    kept: list[Array] = field(default_factory=list)
    on_grid: list[Found] = field(default_factory=list)


@dataclass(frozen=True)
class Aligned:
    """Particles that could be used, and what was found of each."""

    kept: Array
    poses: Poses
    evidence: Array
    sharp: Array


@dataclass(frozen=True)
class SharedSearch:
    """The search of all particles, shared among devices in contiguous blocks, a thread each.

    Attributes
    ----------
    particles, geo, reference
        What is aligned to what, and how.
    refine : bool
        Finish each pose on the exact score.
    threads : int, optional
        Threads; all by default.
    listener : Listener
        Told how many particles are searched.
    """

    particles: Particles
    geo: Geometry
    reference: Reference
    refine: bool = True
    threads: int | None = None
    listener: Listener = field(default_factory=Silence)

    def run(self, devices: list[str], excluded: dict[int, str]) -> Aligned:
        """Align every particle; those that cannot be used are added to ``excluded``."""
        n = len(self.particles)
        # Contiguous, so that results joined block by block stand in the order of the file.
        blocks = np.array_split(np.arange(n), len(devices))
        shares = [_Share(rows, device, dict(excluded)) for rows, device in zip(blocks, devices, strict=True)]
        n_searched, lock = [0], threading.Lock()

        def tick(count: int) -> None:
            with lock:
                n_searched[0] += count
                self.listener.progress("particles searched", n_searched[0], n)

        if len(shares) == 1:
            self._search(shares[0], tick)
        else:
            with ThreadPoolExecutor(len(shares)) as threads:
                list(threads.map(lambda share: self._search(share, tick), shares))
        for share in shares:
            excluded.update(share.excluded)
        set_aside(excluded, n)
        result = [f for share in shares for f in share.on_grid]
        poses = Poses(
            np.concatenate([f.poses.angles_deg for f in result]), np.concatenate([f.poses.shifts_A for f in result])
        )
        usable_rows = np.concatenate([rows for share in shares for rows in share.kept])
        return Aligned(
            usable_rows, poses, np.concatenate([f.evidence for f in result]), np.concatenate([f.sharp for f in result])
        )

    def _search(self, share: _Share, tick: Callable[[int], None]) -> None:
        """Align the particles of one share."""
        particles, box = self.particles, self.geo.box
        params, where = particles.optics.as_params(), Where(share.device, self.threads)

        def read(rows: Array) -> Array:
            pixels = particles.images(rows)
            share.excluded.update({int(rows[i]): reason for i, reason in find_unusable_images(pixels).items()})
            return pixels

        pieces = [share.rows[begin : begin + _BATCH] for begin in range(0, len(share.rows), _BATCH)]
        with work_on(share.device):
            search, exact = self.reference.on(self.geo, where)
            for everyone, pixels in upload_pieces(read, pieces, share.device, (min(_BATCH, len(share.rows)), box, box)):
                good = np.flatnonzero([i not in share.excluded for i in everyone.tolist()])
                rows = everyone[good]
                if len(rows):
                    images = pixels[array_module(pixels).asarray(good)]
                    batch = ImageBatch(
                        rows,
                        images,
                        params[rows],
                        self.reference.inv_sigma2[rows],
                        np.zeros((len(rows), 2)),
                        self.geo.pixel_size_A,
                        where,
                    )
                    on_grid = search.run(batch)
                    share.kept.append(rows)
                    share.on_grid.append(
                        replace(on_grid, poses=exact.maximum(batch, on_grid)) if self.refine else on_grid
                    )
                tick(len(everyone))
