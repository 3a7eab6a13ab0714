"""Global alignment of particles to a map: polar search, branch and bound to fine steps, then the exact maximum."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from verglas._devices import device_names
from verglas._screen import ListenerChoice, shown_to
from verglas.errors import InputError
from verglas.geometry import healpix_order, healpix_spacing_deg, unit_pixels
from verglas.image.outliers import inspect_images
from verglas.optics import common_size, for_job
from verglas.search.align_search import Geometry, SharedSearch, measure_reference
from verglas.search.cells import Level
from verglas.search.grid_search import Where
from verglas.search.planner import search_cost
from verglas.search.step import step_radius
from verglas.types.convert import MapLike, ParticlesLike, map_of, particles_of
from verglas.types.particle_size import refuse_tiny_particle
from verglas.types.settings import JobSettings, setting, settings_from

if TYPE_CHECKING:
    from verglas.types import Particles

# About the step that a search starts from; from half of it on down there are levels to branch over.
_FIRST_STEP_DEG = 7.5


@dataclass(frozen=True)
class AlignSettings(JobSettings, job="align"):
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
        each halving below adds a level of branch and bound (:class:`verglas.search.PoseSearch`).
    shift_range_A : float
        Largest shift searched.
    search_resolution_A : float, optional
        Finest data used in the search; by default what the angular step can resolve.
    refine : bool
        Finish each pose on the exact score; without it poses stay on the grid.
    exhaustive : bool
        Score every pose of a fine grid too: what branch and bound is judged by.
    """

    symmetry: str = setting("C1", "Point group of the map", flags=("--sym",))
    max_resolution_A: float | None = setting(
        None, "Finest data used for the final pose", more_than=0, default_words="Nyquist"
    )
    diameter_A: float | None = setting(
        None, "Diameter of the particle", more_than=0, default_words="four fifths of the box"
    )
    step_deg: float = setting(_FIRST_STEP_DEG, "Angular step at the end of the search", more_than=0)
    shift_range_A: float = setting(12.0, "Largest shift searched", more_than=0)
    refine: bool = setting(True, "Take poses from the search grid to the maximum of the exact likelihood")
    search_resolution_A: float | None = setting(
        None, "Finest data used in the search", more_than=0, default_words="what the step can resolve"
    )
    exhaustive: bool = setting(False, "Score every pose of a fine grid; very slow")


def _geometry(particles: Particles, settings: AlignSettings) -> Geometry:
    box, pixel_size_A = common_size(particles)
    final = largest = (box - 1) // 2
    if settings.max_resolution_A is not None:
        final = min(largest, max(1, round(box * pixel_size_A / settings.max_resolution_A)))
    diameter = 0.8 * box if settings.diameter_A is None else settings.diameter_A / pixel_size_A
    if not 0 < diameter <= box:
        raise InputError(f"align: expected a diameter of 0 to {box * pixel_size_A:g} A, got {settings.diameter_A}")
    refuse_tiny_particle("align", diameter * pixel_size_A, pixel_size_A)
    resolution_A = None
    if settings.search_resolution_A is not None:
        resolution_A = max(1, round(box * pixel_size_A / settings.search_resolution_A))

    def radius(step_deg: float) -> int:
        return step_radius(box, diameter, step_deg)

    # A quarter of an octave: a step of 2 degrees starts at 8, not at 4, which is sixteen times the poses.
    halvings = 0 if settings.exhaustive else max(0, int(np.log2(_FIRST_STEP_DEG / settings.step_deg) + 0.25))
    first_deg = settings.step_deg * 2**halvings
    last = min(radius(settings.step_deg) if resolution_A is None else resolution_A, final)
    radii = [min(radius(first_deg / 2**k), last) for k in range(halvings)] + [last]
    shift_step, n_psi = max(1.0, box / (4 * radii[0])), int(np.ceil(360 / first_deg / 16)) * 16
    levels = [Level(r, healpix_order(first_deg) + k, n_psi * 2**k, shift_step / 2**k) for k, r in enumerate(radii)]
    return Geometry(
        box, pixel_size_A, diameter, final, settings.shift_range_A / pixel_size_A, levels, settings.symmetry
    )


def align_plan(particles: Particles, settings: AlignSettings, *, threads: int | None = None) -> str:
    """One line that says what :func:`align` will search, and at what cost, before it runs.

    Parameters
    ----------
    particles : Particles
    settings : AlignSettings
    threads : int, optional
        Threads; all by default.

    Examples
    --------
    >>> import numpy as np, verglas as vg
    >>> from verglas.search import AlignSettings, align_plan
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
            geo.box,
            geo.levels,
            symmetry=settings.symmetry,
            diameter_px=geo.diameter_px,
            settings=geo.search_settings(),
            threads=threads,
        )
        return f"{text}branch and bound over {len(geo.levels)} levels: {cost}"
    poses = len(unit_pixels(last.order, settings.symmetry)) * last.n_psi * len(geo.shifts_px())
    return f"{text}all {poses:.3g} poses of each are scored"


def align(
    particles: ParticlesLike,
    map: MapLike,
    symmetry: str | None = None,
    max_resolution_A: float | None = None,
    *,
    settings: AlignSettings | None = None,
    device: str = "cpu",
    threads: int | None = None,
    listener: ListenerChoice = "screen",
    **changes: Any,
) -> Particles:
    r"""Poses of particles against a map, by global search; nothing about their poses needs to be known.

    Every direction of the asymmetric unit, every in-plane angle and every shift is scored on polar harmonics
    (:class:`verglas.ops.ScorePlan`); with a step of 3.75 degrees or less, branch and bound goes on to it from a coarser
    grid (:class:`verglas.search.PoseSearch`). The best pose is then taken to the maximum of the exact
    log-likelihood (:func:`verglas.ops.refine_pose`). Noise spectra come from the images of each optics group, and the
    map is put on the images' grey scale first. A finer step costs more and finds poses that a coarse one, which sees
    low resolution only, mistakes for others.

    Parameters
    ----------
    particles : Particles
        Images and optics.
    map : Map
        The reference, same box; same pixel size to 1 %.
    symmetry : str, optional
        Its point group; C1 by default.
    max_resolution_A : float, optional
        Finest data used for the final pose; Nyquist by default.
    settings : AlignSettings, optional
        All choices at once; what is given beside them goes before.
    device : str
        ``"cpu"``, ``"cuda:0"``, several (``"cuda:0,cuda:1"``, which share the particles in contiguous blocks), or
        ``"cuda"`` for every GPU.
    threads : int, optional
        Threads; all by default. The result does not depend on it.
    listener : Listener, "screen" or None
        Who is told how it goes (:class:`verglas.types.listener.Listener`).
    **changes
        Single choices, as the fields of :class:`AlignSettings`.

    Returns
    -------
    Particles
        Those that can be used, with poses, ``rlnLogLikeliContribution`` (log evidence of the search) and
        ``rlnMaxValueProbDistribution`` (posterior of the best pose on the grid that its search ended on).

    Raises
    ------
    SettingError
        Settings are unknown or out of bounds; all of them are named.
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
    >>> result = vg.align(particles, vg.simulate.density(model, 24, 4.0), step_deg=15)
    >>> error = vg.geometry.angular_distance(result.poses.angles_deg, particles.poses.angles_deg)
    >>> bool(sorted(error)[4] < 5)
    True
    """
    required = {"symmetry": symmetry, "max_resolution_A": max_resolution_A}
    changes |= {name: value for name, value in required.items() if value is not None}
    settings = settings_from("align", AlignSettings, settings, **changes)
    map, particles = map_of(map, "align: map"), particles_of(particles, "align: particles")
    particles = for_job(particles, "align")
    if map.box != particles.box:
        raise InputError(f"align: the map has {map.box} px, the particles {particles.box}; resample the map first")
    if abs(map.pixel_size_A / particles.pixel_size_A - 1) > 0.01:
        raise InputError(
            f"align: the map has {map.pixel_size_A:g} A/px, the particles {particles.pixel_size_A:g}; resample the map"
        )
    if map.data.flat[0] and not np.ptp(map.data):
        raise InputError(f"align: the map is {map.data.flat[0]:g} everywhere; expected a density")
    geo, devices = _geometry(particles, settings), device_names(device)
    reasons = {**inspect_images(particles).excluded, **particles.optics.unusable()}
    where = Where(devices[0], threads)
    reference = measure_reference(particles, map.data, geo, where, reasons)
    with shown_to(listener) as heard:
        search = SharedSearch(particles, geo, reference, refine=settings.refine, threads=threads, listener=heard)
        alignment = search.run(devices, reasons)
    usable = particles[alignment.kept] if reasons else particles
    return usable.with_poses(alignment.poses).with_columns(
        rlnLogLikeliContribution=alignment.evidence, rlnMaxValueProbDistribution=alignment.sharp
    )
