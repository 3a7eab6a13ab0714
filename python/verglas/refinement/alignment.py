"""Global alignment of particles to a map: polar search, branch and bound to fine steps, then the exact maximum."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

from verglas import fourier, gridding, ops
from verglas.errors import InputError, VerglasWarning
from verglas.geometry import (
    direction_vectors,
    euler_to_matrix,
    healpix_order,
    healpix_spacing_deg,
    matrix_to_euler,
    orientation_grid,
    unit_pixels,
)
from verglas.image import unusable
from verglas.masks import soft_circle
from verglas.refinement.cells import Level
from verglas.refinement.planner import search_cost
from verglas.refinement.prepare import inverse_noise, reference_power, usable_batches
from verglas.refinement.search import PoseSearch, SearchSettings
from verglas.types import Map, Poses

if TYPE_CHECKING:
    from verglas.types import Particles

Array = npt.NDArray
Progress = Callable[[int, int], None]
_BATCH = 256
# Images that set the grey scale of the map before the search.
_SCALE_IMAGES = 128
_MASK_EDGE_PX = 4.0
# About the step that a search starts from; from half of it on down there are levels to branch over.
_FIRST_STEP_DEG = 7.5
# Cells of an image that go on to the next level, at most.
_MAX_CELLS = 200


@dataclass(frozen=True)
class AlignSettings:
    """How :func:`align` searches.

    Attributes
    ----------
    symmetry : str
        Directions of this group's asymmetric unit are searched.
    max_resolution_A : float, optional
        Finest data used for the final pose; Nyquist by default.
    diameter_A : float, optional
        Diameter of the particle: mask of the images in the search; four fifths of the box by default.
    step_deg : float
        Spacing of directions and in-plane angles at the end of the search. Down to 7.5 degrees every pose is scored;
        each halving below adds a level of branch and bound (:class:`verglas.refinement.PoseSearch`).
    shift_range_A : float
        Largest shift searched.
    search_resolution_A : float, optional
        Finest data used in the search; by default what the angular step can resolve.
    refine : bool
        Finish each pose on the exact score; without it poses stay on the grid.
    threads : int, optional
        Threads; all by default.
    progress : callable, optional
        Called with (particles done, particles in all).
    exhaustive : bool
        Score every pose of a fine grid too: what branch and bound is judged by.
    """

    symmetry: str = "C1"
    max_resolution_A: float | None = None
    diameter_A: float | None = None
    step_deg: float = _FIRST_STEP_DEG
    shift_range_A: float = 12.0
    refine: bool = True
    search_resolution_A: float | None = None
    threads: int | None = None
    progress: Progress | None = None
    exhaustive: bool = False

    def __post_init__(self) -> None:
        """Refuse what cannot be searched."""
        for name in ("step_deg", "shift_range_A", "search_resolution_A"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise InputError(f"align: expected a positive {name}, got {value}")


@dataclass(frozen=True)
class _Geometry:
    """Everything about the search that does not depend on the images.

    ``levels`` has one entry where every pose is scored, more for branch and bound.
    """

    box: int
    pixel_size_A: float
    diameter_px: float
    final_radius: int
    shift_range_px: float
    levels: list[Level]

    def shifts_px(self) -> npt.NDArray[np.float32]:
        """Shifts of the first level."""
        step = self.levels[0].shift_step_px
        reach = int(self.shift_range_px / step)
        k = np.arange(-reach, reach + 1)
        grid = np.stack(np.meshgrid(k, k), axis=-1).reshape(-1, 2)
        return np.asarray(grid[np.hypot(*grid.T) <= max(reach, 0.5)] * step, np.float32)

    def search_settings(self) -> SearchSettings:
        """Of the branch and bound: the best pose is wanted, of broad posteriors too."""
        return SearchSettings(shift_range_px=self.shift_range_px, max_cells=_MAX_CELLS, keep_best=True)

    def mask(self) -> Array:
        """Soft disc that the images are multiplied by in the search."""
        return soft_circle(self.box, (self.diameter_px - _MASK_EDGE_PX) / 2, _MASK_EDGE_PX)


def _geometry(particles: Particles, settings: AlignSettings) -> _Geometry:
    box, pixel_size_A = particles.box, particles.pixel_size_A
    final = largest = (box - 1) // 2
    if settings.max_resolution_A is not None:
        if not settings.max_resolution_A > 0:
            raise InputError(f"align: expected a positive max_resolution_A, got {settings.max_resolution_A}")
        final = min(largest, max(1, round(box * pixel_size_A / settings.max_resolution_A)))
    diameter = 0.8 * box if settings.diameter_A is None else settings.diameter_A / pixel_size_A
    if not 0 < diameter <= box:
        raise InputError(f"align: expected a diameter of 0 to {box * pixel_size_A:g} A, got {settings.diameter_A}")
    asked = None
    if settings.search_resolution_A is not None:
        asked = max(1, round(box * pixel_size_A / settings.search_resolution_A))

    def radius(step_deg: float) -> int:
        # Half a step moves the edge of the particle by diameter step / 4: up to three eighths of a period.
        return max(4, round(1.5 * box / (diameter * np.deg2rad(step_deg))))

    # A quarter of an octave: a step of 2 degrees starts at 8, not at 4, which is sixteen times the poses.
    halvings = 0 if settings.exhaustive else max(0, int(np.log2(_FIRST_STEP_DEG / settings.step_deg) + 0.25))
    first_deg = settings.step_deg * 2**halvings
    last = min(radius(settings.step_deg) if asked is None else asked, final)
    radii = [min(radius(first_deg / 2**k), last) for k in range(halvings)] + [last]
    shift_step, n_psi = max(1.0, box / (4 * radii[0])), int(np.ceil(360 / first_deg / 16)) * 16
    levels = [
        Level(r, healpix_order(first_deg) + k, n_psi * 2**k, shift_step / 2**k) for k, r in enumerate(radii)
    ]  # fmt: skip
    return _Geometry(box, pixel_size_A, diameter, final, settings.shift_range_A / pixel_size_A, levels)


def align_plan(particles: Particles, settings: AlignSettings) -> str:
    """One line that says what :func:`align` will search, and at what cost, before it runs.

    Examples
    --------
    >>> import numpy as np, verglas as vg
    >>> from verglas.refinement import AlignSettings, align_plan
    >>> particles = vg.Particles.from_images(np.zeros((3, 32, 32), np.float32), 4.0)
    >>> align_plan(particles, AlignSettings(step_deg=15))[:81]
    '3 particles of 32 px, 4 A/px: directions at 14.7 degrees, 32 in-plane angles, shi'
    """
    geo = _geometry(particles, settings)
    last = geo.levels[-1]
    text = (
        f"{len(particles)} particles of {geo.box} px, {geo.pixel_size_A:g} A/px: directions at "
        f"{healpix_spacing_deg(last.order):.3g} degrees, {last.n_psi} in-plane angles, shifts of "
        f"{last.shift_step_px:.3g} px, data to {geo.box * geo.pixel_size_A / last.radius:.3g} A; "
    )
    if len(geo.levels) > 1:
        cost = search_cost(
            geo.box, geo.levels, symmetry=settings.symmetry, diameter_px=geo.diameter_px,
            settings=geo.search_settings(), threads=settings.threads,
        )  # fmt: skip
        return f"{text}branch and bound over {len(geo.levels)} levels: {cost}"
    poses = len(unit_pixels(last.order, settings.symmetry)) * last.n_psi * len(geo.shifts_px())
    return f"{text}all {poses:.3g} poses of each are scored"


def _slices(symmetry: str, step_deg: float) -> tuple[Array, Array]:
    """Directions whose slices are made, and the log prior of each and of its opposite (score's two columns).

    The opposite (rot + 180, 180 - tilt) of a slice costs half a slice: of two opposite directions one slice is made.
    """
    wanted, _ = orientation_grid(step_deg, symmetry)
    vectors = direction_vectors(wanted)
    below = vectors[:, 2] < -1e-9
    made = wanted.copy()
    made[below] = np.column_stack([wanted[below, 0] + 180, 180 - wanted[below, 1]])
    keys = np.round(direction_vectors(made), 6) + 0.0  # + 0.0: minus zero is zero
    _, first, which = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    prior = np.full((len(first), 2), -np.inf)
    prior[which.ravel(), below.astype(int)] = -np.log(len(wanted))
    return made[first], prior


@dataclass(frozen=True)
class _Images:
    """A batch: images as they are, and what is known of each."""

    pixels: Array
    ctf: Array
    inv_sigma2: Array  # by shell
    first: int = 0

    def __len__(self) -> int:
        return len(self.pixels)


@dataclass(frozen=True)
class _Found:
    """Best pose of every image on the grid of its level, its share of the posterior, and the log evidence."""

    poses: Poses
    sharp: Array
    evidence: Array
    level: Array


class _Search(Protocol):
    def run(self, images: _Images) -> _Found: ...


class _Everything:
    """The first level's grid, every pose scored. The slices are made once, for the grey scale and for the search."""

    def __init__(self, spectrum: Array, grid: ops.Grid, geo: _Geometry, settings: AlignSettings) -> None:
        level = geo.levels[0]
        self.geo, self.threads, self.n_psi = geo, settings.threads, level.n_psi
        self.polar = ops.PolarGrid(geo.box, level.radius, diameter_px=geo.diameter_px)
        self.directions, self.prior = _slices(settings.symmetry, healpix_spacing_deg(level.order) + 1e-9)
        matrices = euler_to_matrix(np.column_stack([self.directions, np.zeros(len(self.directions))]))
        self.slices = ops.polar_slices(spectrum, grid, matrices, self.polar, threads=settings.threads)
        self.shifts_px, self.mask = geo.shifts_px(), geo.mask()
        self.plan = self._plan("correlation")

    def _plan(self, score: str) -> ops.ScorePlan:
        plan = ops.ScorePlan(self.polar, self.n_psi, score=score, max_candidates=64)
        plan.set_reference(self.slices, log_prior=self.prior, threads=self.threads)
        return plan

    def set_scale(self, scale: float) -> None:
        """From correlations, which need no grey scale, to likelihoods."""
        self.slices *= np.float32(scale)
        self.plan = self._plan("likelihood")

    def run(self, images: _Images) -> _Found:
        """Best poses on the grid."""
        samples = ops.polar(images.pixels * self.mask, self.polar, threads=self.threads)
        found = self.plan.run(
            samples, self.shifts_px, ctf=images.ctf, pixel_size_A=self.geo.pixel_size_A,
            inv_sigma2=images.inv_sigma2[:, self.polar.shells], first_particle=images.first, threads=self.threads,
        )  # fmt: skip
        rot, tilt = self.directions[found.best_slice].T
        rot, tilt = np.where(found.best_opposite, rot + 180, rot), np.where(found.best_opposite, 180 - tilt, tilt)
        angles = np.column_stack([rot, tilt, ops.psi_angles_deg(self.n_psi)[found.best_psi]])
        poses = Poses(angles, self.shifts_px[found.best_shift].astype(np.float64) * self.geo.pixel_size_A)
        sharp = np.exp(found.best_score - found.log_evidence)
        return _Found(poses, sharp, found.log_evidence, np.zeros(len(images), np.int64))


class _Bounded:
    """Branch and bound to the finest level."""

    def __init__(self, volume: Array, geo: _Geometry, settings: AlignSettings) -> None:
        self.geo, self.mask = geo, geo.mask()
        self.search = PoseSearch(
            volume, geo.levels, symmetry=settings.symmetry, diameter_px=geo.diameter_px,
            settings=geo.search_settings(), threads=settings.threads,
        )  # fmt: skip

    def run(self, images: _Images) -> _Found:
        """Best poses on the grid of the level that each image reached."""
        found = self.search.run(
            images.pixels * self.mask, images.inv_sigma2, ctf=images.ctf, pixel_size_A=self.geo.pixel_size_A,
            first_particle=images.first,
        )  # fmt: skip
        poses = Poses(found.angles_deg, found.shifts_px * self.geo.pixel_size_A)
        return _Found(poses, np.exp(found.score - found.log_evidence), found.log_evidence, found.level)


@dataclass(frozen=True)
class _Exact:
    """The exact score of poses on the pixels of the images."""

    spectrum: Array
    grid: ops.Grid
    geo: _Geometry
    threads: int | None

    def _run(self, images: _Images, poses: Poses, search: ops.PoseSettings, scale: float = 1.0) -> ops.PoseResult:
        radius, pixel_size_A = search.max_radius or self.grid.max_radius, self.geo.pixel_size_A
        return ops.refine_pose(
            fourier.forward(images.pixels, 2, threads=self.threads), self.spectrum, self.grid,
            euler_to_matrix(poses.angles_deg), -poses.shifts_A / pixel_size_A,
            ctf=ops.ctf(images.ctf, self.geo.box, pixel_size_A, threads=self.threads),
            shell_weight=np.ascontiguousarray(images.inv_sigma2[:, : radius + 1], np.float32),
            scale=np.full(len(images), scale), search=search, threads=self.threads,
        )  # fmt: skip

    def grey_scale(self, images: _Images, poses: Poses) -> float:
        """Factor of the map that fits the images best at these poses.

        L at scale s is s cross - s^2 power / 2: evaluating it at scales 1 and 2 gives cross and power.
        """
        as_they_are = ops.PoseSettings(max_radius=self.geo.levels[0].radius, steps=0)
        once, twice = (float(self._run(images, poses, as_they_are, s).scores.sum()) for s in (1.0, 2.0))
        power = 2 * once - twice
        cross = once + power / 2
        if not power > 0:
            raise InputError("align: the map is empty (all zero) at the resolution of the search")
        if not cross > 0:
            raise InputError(
                "align: the images do not resemble the map, or their contrast is inverted (particles are white)"
            )
        return cross / power

    def maximum(self, images: _Images, found: _Found) -> Poses:
        """Every pose taken to the maximum; the radii it passes depend on the grid that its search ended on."""
        angles, shifts = found.poses.angles_deg.copy(), found.poses.shifts_A.copy()
        for k in np.unique(found.level):
            rows, level = np.flatnonzero(found.level == k), self.geo.levels[k]
            step_deg = healpix_spacing_deg(level.order)
            coarse = [
                r for r in ops.pose_radii(self.grid, step_deg / 2, level.shift_step_px / 2, self.geo.diameter_px)
                if r < self.geo.final_radius
            ]  # fmt: skip
            part = _Images(images.pixels[rows], images.ctf[rows], images.inv_sigma2[rows])
            search = ops.PoseSettings(max_radius=self.geo.final_radius, coarse_radii=coarse)
            refined = self._run(part, Poses(angles[rows], shifts[rows]), search)
            angles[rows] = matrix_to_euler(refined.matrices)
            shifts[rows] = -refined.shifts_px * self.geo.pixel_size_A
        return Poses(angles, shifts)


def _set_aside(excluded: dict[int, str], n: int) -> None:
    """Say which particles cannot be used; all of them is an error."""
    if len(excluded) == n:
        raise InputError(f"align: none of the {n} particles can be used ({next(iter(excluded.values()))})")
    if excluded:
        listed = "; ".join(f"particle {i}: {excluded[i]}" for i in sorted(excluded)[:5])
        more = f" and {len(excluded) - 5} more" if len(excluded) > 5 else ""
        warnings.warn(f"align: {len(excluded)} particles set aside ({listed}{more})", VerglasWarning, stacklevel=3)


def _ready(particles: Particles, volume: Array, settings: AlignSettings, geo: _Geometry, excluded: dict[int, str]) -> (
    tuple[_Search, _Exact, Array]
):  # fmt: skip
    """The search and the exact score, on the images' grey scale, and 1 / sigma^2 by particle and shell."""
    grid = ops.Grid(geo.box)
    spectrum = gridding.to_grid(volume, grid, threads=settings.threads)
    batches = list(usable_batches(particles, np.arange(len(particles)), _SCALE_IMAGES, excluded))
    if not batches:
        _set_aside(excluded, len(particles))
    rows, pixels = (np.concatenate(parts) for parts in zip(*batches, strict=True))
    flat = np.ones((len(rows), grid.max_radius + 1))
    sample = _Images(pixels, particles.optics.as_params()[rows], flat)
    everything, exact = _Everything(spectrum, grid, geo, settings), _Exact(spectrum, grid, geo, settings.threads)
    scale = exact.grey_scale(sample, everything.run(sample).poses)
    spectrum *= np.float32(scale)
    inv_sigma2 = inverse_noise(particles, reference_power(spectrum, grid, particles), excluded)
    if len(geo.levels) > 1:
        return _Bounded(volume * np.float32(scale), geo, settings), exact, inv_sigma2
    everything.set_scale(scale)
    return everything, exact, inv_sigma2


def align(particles: Particles, map: Map, symmetry: str = "C1", max_resolution_A: float | None = None, *,
          settings: AlignSettings | None = None, **changes: object) -> Particles:  # fmt: skip
    r"""Poses of particles against a map, by global search; nothing about their poses needs to be known.

    Every direction of the asymmetric unit, every in-plane angle and every shift is scored on polar harmonics
    (:class:`verglas.ops.ScorePlan`); with a step of 3.75 degrees or less, branch and bound goes on to it from a coarser
    grid (:class:`verglas.refinement.PoseSearch`). The best pose is then taken to the maximum of the exact
    log-likelihood (:func:`verglas.ops.refine_pose`). Noise spectra come from the images of each optics group, and the
    map is put on the images' grey scale first. A finer step costs more and finds poses that a coarse one, which sees
    low resolution only, mistakes for others.

    Parameters
    ----------
    particles : Particles
        Images and optics.
    map : Map
        The reference, same box; same pixel size to 1 %.
    symmetry : str
        Its point group.
    max_resolution_A : float, optional
        Finest data used for the final pose; Nyquist by default.
    settings : AlignSettings, optional
        All choices at once; ``symmetry`` and ``max_resolution_A`` are then taken from it.
    **changes
        Single choices: ``diameter_A``, ``step_deg``, ``shift_range_A``, ``search_resolution_A``, ``refine``,
        ``threads``, ``progress``, ``exhaustive``.

    Returns
    -------
    Particles
        Those that can be used, with poses, ``rlnLogLikeliContribution`` (log evidence of the search) and
        ``rlnMaxValueProbDistribution`` (posterior of the best pose on the grid that its search ended on).

    Raises
    ------
    InputError
        Box or pixel size differ from the map's, the map is empty, or no particle can be used.

    Warns
    -----
    VerglasWarning
        Particles were set aside (not finite, constant); the text names them.

    Examples
    --------
    >>> import verglas as vg
    >>> model = vg.simulate.phantom(24, 4.0, 70.0)
    >>> particles = vg.simulate.particles(model, 8, 24, 4.0, snr=5.0, seed=1)
    >>> found = vg.align(particles, vg.simulate.density(model, 24, 4.0), step_deg=15)
    >>> error = vg.geometry.angular_distance(found.poses.angles_deg, particles.poses.angles_deg)
    >>> bool(sorted(error)[4] < 5)
    True
    """
    if settings is None:
        settings = AlignSettings(symmetry, max_resolution_A, **changes)  # type: ignore[arg-type]
    elif changes:
        raise InputError(f"align: give settings or {', '.join(changes)}, not both")
    if map.box != particles.box:
        raise InputError(f"align: the map has {map.box} px, the particles {particles.box}; resample the map first")
    if abs(map.pixel_size_A / particles.pixel_size_A - 1) > 0.01:
        raise InputError(
            f"align: the map has {map.pixel_size_A:g} A/px, the particles {particles.pixel_size_A:g}; resample the map"
        )
    geo, n = _geometry(particles, settings), len(particles)
    excluded: dict[int, str] = {}
    search, exact, inv_sigma2 = _ready(particles, map.data, settings, geo, excluded)
    params = particles.optics.as_params()
    kept: list[Array] = []
    poses: list[Poses] = []
    columns: dict[str, list[Array]] = {"rlnLogLikeliContribution": [], "rlnMaxValueProbDistribution": []}
    for begin in range(0, n, _BATCH):
        rows = np.arange(begin, min(begin + _BATCH, n))
        pixels = particles.images(rows)
        excluded.update({begin + i: reason for i, reason in unusable(pixels).items()})
        rows = rows[[i not in excluded for i in rows.tolist()]]
        if len(rows):
            batch = _Images(pixels[rows - begin], params[rows], inv_sigma2[rows], begin)
            found = search.run(batch)
            kept.append(rows)
            poses.append(exact.maximum(batch, found) if settings.refine else found.poses)
            columns["rlnLogLikeliContribution"].append(found.evidence)
            columns["rlnMaxValueProbDistribution"].append(found.sharp)
        if settings.progress is not None:
            settings.progress(min(begin + _BATCH, n), n)
    _set_aside(excluded, n)
    found_poses = Poses(np.concatenate([p.angles_deg for p in poses]), np.concatenate([p.shifts_A for p in poses]))
    chosen = particles[np.concatenate(kept)] if excluded else particles
    return chosen.with_poses(found_poses).with_columns(**{k: np.concatenate(v) for k, v in columns.items()})
