"""Global alignment of particles to a map: exhaustive polar search, then the exact maximum."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from verglas import fourier, gridding, ops
from verglas.errors import InputError, VerglasWarning
from verglas.geometry import direction_vectors, euler_to_matrix, matrix_to_euler, orientation_grid
from verglas.image import unusable
from verglas.masks import soft_circle
from verglas.types import Map, Poses

if TYPE_CHECKING:
    from verglas.types import Particles

Array = npt.NDArray
Progress = Callable[[int, int], None]
_BATCH = 256
# Images that set the grey scale of the map before the search.
_SCALE_IMAGES = 128
_MASK_EDGE_PX = 4.0


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
        Spacing of directions and in-plane angles in the search.
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
    """

    symmetry: str = "C1"
    max_resolution_A: float | None = None
    diameter_A: float | None = None
    step_deg: float = 7.5
    shift_range_A: float = 12.0
    refine: bool = True
    search_resolution_A: float | None = None
    threads: int | None = None
    progress: Progress | None = None

    def __post_init__(self) -> None:
        """Refuse what cannot be searched."""
        for name in ("step_deg", "shift_range_A", "search_resolution_A"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise InputError(f"align: expected a positive {name}, got {value}")


@dataclass(frozen=True)
class _Geometry:
    """Everything about the search that does not depend on the images."""

    box: int
    pixel_size_A: float
    diameter_px: float
    search_radius: int
    final_radius: int
    shifts_px: Array
    shift_step_px: float
    n_psi: int


def _geometry(particles: Particles, settings: AlignSettings) -> _Geometry:
    box, pixel_size_A = particles.box, particles.pixel_size_A
    largest = (box - 1) // 2
    final = largest
    if settings.max_resolution_A is not None:
        if not settings.max_resolution_A > 0:
            raise InputError(f"align: expected a positive max_resolution_A, got {settings.max_resolution_A}")
        final = min(largest, max(1, round(box * pixel_size_A / settings.max_resolution_A)))
    diameter = 0.8 * box if settings.diameter_A is None else settings.diameter_A / pixel_size_A
    if not 0 < diameter <= box:
        raise InputError(f"align: expected a diameter of 0 to {box * pixel_size_A:g} A, got {settings.diameter_A}")
    # Half a step moves the edge of the particle by diameter step / 4: up to three eighths of a period.
    search = max(4, round(1.5 * box / (diameter * np.deg2rad(settings.step_deg))))
    if settings.search_resolution_A is not None:
        search = max(1, round(box * pixel_size_A / settings.search_resolution_A))
    search = min(search, final)
    step = max(1.0, box / (4 * search))
    reach = int(settings.shift_range_A / pixel_size_A / step)
    k = np.arange(-reach, reach + 1)
    grid = np.stack(np.meshgrid(k, k), axis=-1).reshape(-1, 2)
    shifts = grid[np.hypot(*grid.T) <= max(reach, 0.5)] * step
    n_psi = int(np.ceil(360 / settings.step_deg / 16)) * 16
    return _Geometry(box, pixel_size_A, diameter, search, final, shifts.astype(np.float32), step, n_psi)


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


def _noise(particles: Particles, reference_power: Array) -> Array:
    """1 / sigma^2 per particle and shell: mean power of the group's images less the map's share of it.

    The map's share is the mean power of its CTF-modulated slices; at least a tenth of the power is taken as noise.
    """
    groups, box = particles.optics.group, particles.box
    shells, full = fourier.shells((box, box)), fourier.half_weights((box, box))
    count = (box - 1) // 2 + 1
    weights = np.broadcast_to(full, shells.shape).ravel()
    number = np.bincount(shells.ravel(), weights=weights)[:count]
    sigma2 = np.empty((len(particles), count))
    for group in np.unique(groups):
        members = np.flatnonzero(groups == group)
        sample = members[:: max(1, len(members) // 512)]
        total = np.zeros(count)
        for begin in range(0, len(sample), _BATCH):
            spectra = fourier.forward(particles.images(sample[begin : begin + _BATCH]), 2)
            power = (np.abs(spectra) ** 2).sum(axis=0, dtype=np.float64)
            total += np.bincount(shells.ravel(), weights=power.ravel() * weights)[:count]
        power = total / number / len(sample)
        sigma2[members] = np.maximum(power - reference_power, 0.1 * power)
    if not np.all(sigma2 > 0):
        raise InputError("align: the images have no power at some resolution (all zero?); nothing can be aligned")
    return 1.0 / sigma2


def _grey_scale(
    particles: Particles, spectrum: Array, grid: ops.Grid, settings: AlignSettings, geo: _Geometry
) -> float:
    """Factor of the map that fits the images best, from a scale-free search of some of them.

    L at scale s is s cross - s^2 power / 2: evaluating it at scales 1 and 2 gives cross and power at the best pose.
    """
    few = particles[:: max(1, len(particles) // _SCALE_IMAGES)]
    flat = np.ones((len(few), grid.max_radius + 1))
    _, poses, _ = _search(few, spectrum, grid, flat, settings, geo, score="correlation")
    as_they_are = ops.PoseSettings(max_radius=geo.search_radius, steps=0)
    once, twice = (
        float(_evaluate(few, factor * spectrum, grid, flat, poses, geo, as_they_are, settings).scores.sum())
        for factor in (np.float32(1), np.float32(2))
    )
    power = 2 * once - twice
    cross = once + power / 2
    if not power > 0:
        raise InputError("align: the map is empty (all zero) at the resolution of the search")
    if not cross > 0:
        raise InputError(
            "align: the images do not resemble the map, or their contrast is inverted (particles are white)"
        )
    return cross / power


def _search(
    particles: Particles, spectrum: Array, grid: ops.Grid, inv_sigma2: Array, settings: AlignSettings, geo: _Geometry,
    *, score: str = "likelihood", progress: Progress | None = None,
) -> tuple[Array, Poses, Array]:  # fmt: skip
    """Best grid pose of every particle, with its share of the posterior and the log evidence."""
    polar = ops.PolarGrid(geo.box, geo.search_radius, diameter_px=geo.diameter_px)
    directions, prior = _slices(settings.symmetry, settings.step_deg)
    matrices = euler_to_matrix(np.column_stack([directions, np.zeros(len(directions))]))
    plan = ops.ScorePlan(polar, geo.n_psi, score=score, max_candidates=64)
    plan.set_reference(ops.polar_slices(spectrum, grid, matrices, polar, threads=settings.threads), log_prior=prior)
    mask = soft_circle(geo.box, (geo.diameter_px - _MASK_EDGE_PX) / 2, _MASK_EDGE_PX)
    params = particles.optics.as_params()
    sharp, angles, shifts, evidence = [], [], [], []
    for begin in range(0, len(particles), _BATCH):
        rows = np.arange(begin, min(begin + _BATCH, len(particles)))
        samples = ops.polar(particles.images(rows) * mask, polar, threads=settings.threads)
        found = plan.run(
            samples, geo.shifts_px, ctf=params[rows], pixel_size_A=geo.pixel_size_A,
            inv_sigma2=inv_sigma2[rows][:, polar.shells], first_particle=begin, threads=settings.threads,
        )  # fmt: skip
        rot, tilt = directions[found.best_slice].T
        rot, tilt = np.where(found.best_opposite, rot + 180, rot), np.where(found.best_opposite, 180 - tilt, tilt)
        angles.append(np.column_stack([rot, tilt, ops.psi_angles_deg(geo.n_psi)[found.best_psi]]))
        shifts.append(geo.shifts_px[found.best_shift] * geo.pixel_size_A)
        evidence.append(found.log_evidence)
        sharp.append(np.exp(found.best_score - found.log_evidence))
        if progress is not None:
            progress(int(rows[-1]) + 1, len(particles))
    return np.concatenate(sharp), Poses(np.concatenate(angles), np.concatenate(shifts)), np.concatenate(evidence)


def _evaluate(
    particles: Particles, spectrum: Array, grid: ops.Grid, inv_sigma2: Array, poses: Poses, geo: _Geometry,
    search: ops.PoseSettings, settings: AlignSettings,
) -> ops.PoseResult:  # fmt: skip
    """Exact scores (steps = 0) or refined poses of all particles, in batches."""
    params = particles.optics.as_params()
    matrices, shifts = euler_to_matrix(poses.angles_deg), -poses.shifts_A / geo.pixel_size_A
    radius = search.max_radius if search.max_radius is not None else grid.max_radius
    weights = np.ascontiguousarray(inv_sigma2[:, : radius + 1], np.float32)
    results = []
    for begin in range(0, len(particles), _BATCH):
        rows = slice(begin, begin + _BATCH)
        images = fourier.forward(particles.images(rows), 2, threads=settings.threads)
        results.append(
            ops.refine_pose(
                images,
                spectrum,
                grid,
                matrices[rows],
                shifts[rows],
                ctf=ops.ctf(params[rows], geo.box, geo.pixel_size_A, threads=settings.threads),
                shell_weight=weights[rows],
                search=search,
                threads=settings.threads,
            )
        )
    names = ops.PoseResult.__dataclass_fields__
    return ops.PoseResult(**{name: np.concatenate([getattr(r, name) for r in results]) for name in names})


def _reference_power(spectrum: Array, grid: ops.Grid, particles: Particles) -> Array:
    """Mean power per shell of CTF-modulated slices of the map over all directions."""
    box = grid.box
    directions, _ = orientation_grid(30.0)
    matrices = euler_to_matrix(np.column_stack([directions, np.zeros(len(directions))]))
    shells = fourier.shells((box, box)).ravel()
    weights = np.broadcast_to(fourier.half_weights((box, box)), (box, box // 2 + 1)).ravel()
    count = (box - 1) // 2 + 1

    def mean(values: Array) -> Array:
        total = np.bincount(shells, weights=values.ravel() * weights)
        return (total / np.bincount(shells, weights=weights))[:count]

    power = mean((np.abs(ops.project(spectrum, grid, matrices)) ** 2).mean(axis=0))
    params = particles.optics.as_params()
    some = params[:: max(1, len(params) // 64)]
    return power * mean((ops.ctf(some, box, particles.pixel_size_A) ** 2).mean(axis=0))


def _usable(particles: Particles) -> Particles:
    """Particles without those that no stage can use; a warning names these."""
    bad: dict[int, str] = {}
    for begin in range(0, len(particles), _BATCH):
        found = unusable(particles.images(slice(begin, begin + _BATCH)))
        bad.update({begin + i: reason for i, reason in found.items()})
    if not bad:
        return particles
    if len(bad) == len(particles):
        raise InputError(f"align: none of the {len(particles)} particles can be used ({next(iter(bad.values()))})")
    listed = "; ".join(f"particle {i}: {reason}" for i, reason in list(bad.items())[:5])
    more = f" and {len(bad) - 5} more" if len(bad) > 5 else ""
    warnings.warn(f"align: {len(bad)} particles set aside ({listed}{more})", VerglasWarning, stacklevel=3)
    return particles[np.setdiff1d(np.arange(len(particles)), list(bad))]


def align(particles: Particles, map: Map, symmetry: str = "C1", max_resolution_A: float | None = None, *,
          settings: AlignSettings | None = None, **changes: object) -> Particles:  # fmt: skip
    r"""Poses of particles against a map, by global search; nothing about their poses needs to be known.

    Every direction of the asymmetric unit, every in-plane angle and every shift is scored on polar harmonics
    (:class:`verglas.ops.ScorePlan`); the best pose is then taken to the maximum of the exact log-likelihood
    (:func:`verglas.ops.refine_pose`). Noise spectra come from the images of each optics group, and the map is put on
    the images' grey scale first.

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
        ``threads``, ``progress``.

    Returns
    -------
    Particles
        Those that can be used, with poses, ``rlnLogLikeliContribution`` (log evidence of the search) and
        ``rlnMaxValueProbDistribution`` (posterior of the best pose on the search grid).

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
    particles = _usable(particles)
    geo = _geometry(particles, settings)
    grid = ops.Grid(geo.box)
    spectrum = gridding.to_grid(map.data, grid, threads=settings.threads)
    spectrum *= np.float32(_grey_scale(particles, spectrum, grid, settings, geo))
    inv_sigma2 = _noise(particles, _reference_power(spectrum, grid, particles))
    sharp, poses, evidence = _search(particles, spectrum, grid, inv_sigma2, settings, geo, progress=settings.progress)
    if settings.refine:
        coarse = [
            radius
            for radius in ops.pose_radii(grid, settings.step_deg / 2, geo.shift_step_px / 2, geo.diameter_px)
            if radius < geo.final_radius
        ]
        search = ops.PoseSettings(max_radius=geo.final_radius, coarse_radii=coarse)
        refined = _evaluate(particles, spectrum, grid, inv_sigma2, poses, geo, search, settings)
        poses = Poses(matrix_to_euler(refined.matrices), -refined.shifts_px * geo.pixel_size_A)
    columns = {"rlnLogLikeliContribution": evidence, "rlnMaxValueProbDistribution": sharp}
    return particles.with_poses(poses).with_columns(**columns)
