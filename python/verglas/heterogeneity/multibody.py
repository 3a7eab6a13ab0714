r"""Multibody refinement: every body of a particle has a pose of its own, near that of the whole.

.. math:: X_i = C_i \sum_b P(R_{ib}, t_{ib}) [M_b V_b] + n, \qquad
          (R_{ib}, t_{ib}) \sim N\bigl((R_i, t_i);\, \sigma_\mathrm{angle}, \sigma_\mathrm{shift}\bigr)

about the centre of each body. One body at a time: the projections of the others, as they stand, are taken out of the
images; the body's poses climb likelihood and prior from where they were; its map is made anew. Half sets stay apart:
what is taken out of an image of one half comes from maps of that half (Nakane et al. 2018, eLife 7, e36861).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from itertools import product
from typing import Any

import numpy as np

from verglas import filters, fourier, gridding, ops
from verglas.errors import InputError
from verglas.geometry import euler_to_matrix
from verglas.heterogeneity.bodies import Body
from verglas.heterogeneity.classes import keep_state, restore_state
from verglas.heterogeneity.settings import MultibodySettings
from verglas.reconstruction import project
from verglas.refinement import schedule, start
from verglas.refinement.em import Iteration, iterate, may_end
from verglas.refinement.problem import RefineProblem
from verglas.refinement.settings import RefineSettings
from verglas.refinement.state import State
from verglas.search.half_pass import HalfTask
from verglas.search.state import HalfModel, PoseTable
from verglas.search.step import Step
from verglas.types import Keeper, Map, Particles, Poses, Snapshot
from verglas.types.arrays import Complex64Array, Float32Array, FloatArray, IntArray
from verglas.types.listener import Listener, Silence, count_phase

_SCALE_IMAGES = 512
_BOUNDLESS = 1e30
_BODY_MAPS = 8  # of a body: references, raw half maps and the joint one of its last iteration, two masks


@dataclass(frozen=True, eq=False)
class Part:
    """A body as one half set knows it: what is projected."""

    spectrum: Complex64Array
    matrices: FloatArray
    displacement_px: FloatArray


@dataclass(frozen=True, eq=False)
class WithoutOthers:
    """Images less the projections of bodies, made when they are read.

    Attributes
    ----------
    base : Particles
        Plain images.
    params : (n, 14) float64
        CTF parameters.
    half : (n,) int64
        1 or 2.
    grid : Grid
        Of the spectra.
    parts : list of list of Part
        What is taken away, of each half.
    threads : int, optional
    """

    base: Particles
    params: FloatArray
    half: IntArray
    grid: ops.Grid
    parts: list[list[Part]]
    threads: int | None = None

    def __len__(self) -> int:
        return len(self.half)

    def read(self, rows: IntArray) -> Float32Array:
        """Images of these rows, without the bodies."""
        rows = np.atleast_1d(np.asarray(rows, np.int64))
        images, box = self.base.images(rows), self.grid.box
        ctf = ops.ctf(self.params[rows], box, self.base.pixel_size_A, threads=self.threads)
        for number in (1, 2):
            mine = np.flatnonzero(self.half[rows] == number)
            if not len(mine):
                continue
            some = rows[mine]
            total = np.zeros((len(mine), box, box // 2 + 1), np.complex64)
            for part in self.parts[number - 1]:
                total += ops.project(
                    part.spectrum,
                    self.grid,
                    part.matrices[some],
                    shifts_px=part.displacement_px[some],
                    ctf=ctf[mine],
                    threads=self.threads,
                )
            images[mine] -= fourier.inverse(total, (box, box), threads=self.threads)
        return images

    def take(self, rows: IntArray) -> WithoutOthers:
        """A subset, still lazy."""
        some = np.asarray(rows, np.int64)
        parts = [
            [Part(p.spectrum, p.matrices[some], p.displacement_px[some]) for p in of_half] for of_half in self.parts
        ]
        return replace(self, base=self.base[some], params=self.params[some], half=self.half[some], parts=parts)

    def boxes(self) -> IntArray:
        """Of the images."""
        return np.array([self.grid.box])

    def pixel_sizes_A(self) -> FloatArray:
        """Of the images."""
        return np.array([self.base.pixel_size_A])


@dataclass(eq=False)
class BodyRefinement:
    """Where the refinement of one body stands.

    Attributes
    ----------
    body : Body
    problem : RefineProblem
        Its particles have the poses of the whole, about the body's centre: the prior's.
    state : State
        Maps about the body's centre.
    step : Step
        The next one.
    made : Iteration, optional
        What the last one made.
    """

    body: Body
    problem: RefineProblem
    state: State
    step: Step
    made: Iteration | None = None

    @property
    def matrices(self) -> FloatArray:
        """(n, 3, 3) present orientations."""
        return euler_to_matrix(self.state.poses.angles_deg)

    def parts(self, grid: ops.Grid) -> list[Part]:
        """The masked maps of both halves, at the present poses."""
        mask, threads = self.state.mask, self.problem.threads
        assert mask is not None
        matrices, displacement = self.matrices, -self.state.poses.origin_px
        return [
            Part(gridding.to_grid(half.volumes[0] * mask, grid, threads=threads), matrices, displacement)
            for half in self.state.halves
        ]

    def whole_poses(self) -> Poses:
        """Poses of the whole particle at which the body lies where it was found."""
        origin = self.body.whole_origins_px(self.state.poses.origin_px, self.matrices)
        return Poses(self.state.poses.angles_deg.copy(), origin * self.problem.pixel_size_A)


@dataclass(eq=False)
class Multibodies:
    """All bodies of a set of particles between two iterations.

    Attributes
    ----------
    particles : Particles
        In use, plain images, with the poses of the whole.
    bodies : list of BodyRefinement
    settings : MultibodySettings
    iteration : int
        Done.
    scale : float
        What the map was multiplied by.
    """

    particles: Particles
    bodies: list[BodyRefinement]
    settings: MultibodySettings
    iteration: int = 0
    scale: float = 1.0
    _parts: list[list[Part]] = field(default_factory=list, repr=False)

    @property
    def grid(self) -> ops.Grid:
        """Of the spectra that are taken away."""
        return ops.Grid(self.particles.box)

    def without_others(self, index: int, parts: list[list[Part]] | None = None) -> RefineProblem:
        """The problem of a body, whose images are less the other bodies as they stand, or as ``parts`` have them."""
        one = self.bodies[index]
        others = [of_body for number, of_body in enumerate(parts or self._parts) if number != index]
        source = WithoutOthers(
            self.particles,
            one.problem.params,
            one.problem.half,
            self.grid,
            [[of_body[half] for of_body in others] for half in (0, 1)],
            one.problem.threads,
        )
        return replace(one.problem, particles=one.problem.particles.with_source(source))

    def refresh(self, index: int | None = None) -> None:
        """Make anew what is taken away of a body, or of all."""
        if index is None:
            self._parts = [one.parts(self.grid) for one in self.bodies]
        else:
            self._parts[index] = self.bodies[index].parts(self.grid)

    def advance(self, listener: Listener, *, final: bool = False) -> None:
        """One iteration: every body once, the largest first."""
        if not self._parts:
            self.refresh()
        for index in sorted(range(len(self.bodies)), key=lambda i: -self.bodies[i].body.share):
            one = self.bodies[index]
            step = schedule.final_step(one.problem, one.step) if final else one.step
            problem = self.without_others(index)
            one.state, one.made = iterate(problem, one.state, step, self._progress(one, listener))
            one.step = step if final else schedule.next_step(one.problem, one.state, step)
            self.refresh(index)
            listener.iteration(one.state.figures[-1].as_row() | {"body": one.body.number})
        self.iteration += 1

    def looks(self, listener: Listener) -> list[tuple[PoseTable, PoseTable]]:
        """Poses of every body from the even shells of the images alone, and from the odd ones.

        What the two have in common is no noise of the image. Each particle is compared with the maps of the other half:
        those of its own hold its noise, which would draw both looks to one place. Both begin where the whole is, coarse
        before fine.
        """
        self.refresh()
        first, second = (self._look(parity, listener) for parity in (0, 1))
        return list(zip(first, second, strict=True))

    def _look(self, parity: int, listener: Listener) -> list[PoseTable]:
        tables, parts = [], list(self._parts)
        for one in self.bodies:
            given = one.problem.particles.poses
            assert given is not None
            poses = one.state.poses.copy()
            poses.angles_deg, poses.origin_px = given.angles_deg.copy(), given.shifts_A / one.problem.pixel_size_A
            tables.append(poses)
        told = count_phase(
            listener.progress,
            f"poses of the bodies from {('even', 'odd')[parity]} shells",
            2 * len(tables) * len(self.particles),
        )
        for fine, index in product((False, True), range(len(tables))):
            one, mask = self.bodies[index], self.bodies[index].state.mask
            assert mask is not None
            begin = one.step if fine else schedule.first_step(one.problem)
            radius = min(begin.radius, one.step.radius)
            step = replace(begin, phase="local", radius=radius, insert_radius=radius, final=False)
            problem = self.without_others(index, parts)
            for half in (1, 2):
                model = replace(one.state.halves[half - 1], volumes=one.state.halves[2 - half].volumes)
                model = replace(model, sigma2=_every_other_shell(model.sigma2, parity))
                HalfTask(problem, model, mask, step, half, []).run(tables[index], told)
            # The others are then taken away where this look has them: an error of their poses that both looks shared
            # would leave the same in the images of both, and move this body alike.
            matrices, displacement = euler_to_matrix(tables[index].angles_deg), -tables[index].origin_px
            parts[index] = [replace(p, matrices=matrices, displacement_px=displacement) for p in parts[index]]
        return tables

    def _progress(self, one: BodyRefinement, listener: Listener) -> Callable[[str, int, int], None]:
        name = f"iteration {self.iteration + 1}, body {one.body.number}"
        return lambda phase, done, total: listener.progress(name, done, total)

    @property
    def is_finished(self) -> bool:
        """Whether no body changes any more, or all iterations are made."""
        return self.iteration >= self.settings.iterations or all(one.state.finished for one in self.bodies)

    @property
    def complete(self) -> bool:
        """Whether the last maps reach the last shell."""
        return all(
            one.made is not None and may_end(one.problem, one.made.step) and one.made.maps[0].joint is not None
            for one in self.bodies
        )


def _every_other_shell(sigma2: FloatArray, parity: int) -> FloatArray:
    """Noise that is boundless where a shell's number has the other parity."""
    return np.where(np.arange(sigma2.shape[1]) % 2 == parity, sigma2, _BOUNDLESS)


def body_settings(settings: MultibodySettings, diameter_A: float) -> RefineSettings:
    """Those of the refinement of one body."""
    return RefineSettings(
        poses="local",
        diameter_A=diameter_A,
        initial_resolution_A=settings.initial_resolution_A,
        max_resolution_A=settings.max_resolution_A,
        prior_factor=settings.prior_factor,
        prior_deg=settings.prior_deg,
        prior_A=settings.prior_A,
        iterations=settings.iterations,
        scale=False,  # one grey scale for all bodies: each on its own would take from the others
        seed=settings.seed,
    )


def start_multibody(
    particles: Particles,
    power: Float32Array,
    volume: Map,
    bodies: list[Body],
    settings: MultibodySettings,
    *,
    threads: int | None = None,
    devices: tuple[str, ...] = ("cpu",),
) -> Multibodies:
    """Bodies before the first iteration: parts of a map, low-passed, on the images' grey scale.

    Parameters
    ----------
    particles : Particles
        All of them usable, plain images, with poses and half sets.
    power : (n, shells) float32
        Of their images (:class:`verglas.search.problem.Survey`).
    volume : Map
        Of the whole, on the particles' grid.
    bodies : list of Body
    settings : MultibodySettings
    threads : int, optional
    devices : tuple of str
    """
    given = particles.poses
    assert given is not None
    pixel_size_A = particles.pixel_size_A
    matrices = euler_to_matrix(given.angles_deg)
    scale = grey_scale(particles, volume, settings.initial_resolution_A, threads=threads)
    made = Multibodies(particles, [], settings, scale=scale)
    field_A = particles.box * pixel_size_A
    for body in bodies:
        diameter_A = min(body.diameter_px * pixel_size_A, field_A)
        origin_px = body.origins_px(given.shifts_A / pixel_size_A, matrices)
        about = particles.with_poses(Poses(given.angles_deg, origin_px * pixel_size_A))
        problem = start.make_problem(about, {}, body_settings(settings, diameter_A), mask_given=True, threads=threads)
        problem = replace(problem, devices=devices, job="multibody")
        part = Map(body.move_to_centre(volume.data * body.mask) * np.float32(scale), pixel_size_A)
        volumes = start.low_pass_references(problem, [part])
        # The noise is what is left of the images without the whole particle, not without this body.
        signal = start.mean_slice_power(problem, np.asarray(volume.data * np.float32(scale), np.float32))
        halves = [
            HalfModel(
                volumes.copy(),
                start.first_noise(problem, power, signal, problem.rows_of_half(half)),
                np.ones(problem.n_micrographs),
                np.ones(1),
            )
            for half in (1, 2)
        ]
        poses = PoseTable.unknown(len(problem))
        poses.angles_deg, poses.origin_px = given.angles_deg.copy(), origin_px
        step = schedule.first_step(problem)
        shells = problem.box // 2 + 1
        state = State(0, poses, halves, np.zeros((1, shells)), float(step.radius), body.move_to_centre(body.mask))
        made.bodies.append(BodyRefinement(body, problem, state, step))
    return made


def grey_scale(particles: Particles, volume: Map, resolution_A: float, *, threads: int | None = None) -> float:
    """Factor that puts a map on the images' grey scale: least squares at the particles' own poses.

    Raises
    ------
    InputError
        The images do not resemble the map at these poses.
    """
    poses = particles.poses
    assert poses is not None
    coarse = filters.apply(volume, filters.low_pass(resolution_A), threads=threads)
    rows = np.arange(len(particles))[:: max(1, len(particles) // _SCALE_IMAGES)]
    cross = power = 0.0
    step = max(8, (1 << 22) // particles.box**2)
    for begin in range(0, len(rows), step):
        some = rows[begin : begin + step]
        clean = project(
            coarse, Poses(poses.angles_deg[some], poses.shifts_A[some]), particles.optics[some], threads=threads
        )
        clean -= clean.mean(axis=(1, 2), keepdims=True)
        cross += float(np.einsum("iyx,iyx->", clean, particles.images(some), dtype=np.float64))
        power += float(np.einsum("iyx,iyx->", clean, clean, dtype=np.float64))
    if not cross > 0 or not power > 0:
        raise InputError(
            "multibody: the images do not resemble the map at the particles' poses; were these refined against it, and "
            "are particles and map white?"
        )
    return cross / power


def subtraction_bytes(made: Multibodies) -> float:
    """What all bodies hold beside the one at work: maps of both halves, masks, transforms that are taken away."""
    voxels = float(made.particles.box**3)
    spectrum = 8.0 * float(np.prod(made.grid.shape))
    return len(made.bodies) * (2 * spectrum + 4 * voxels * _BODY_MAPS)


def keep_multibody(made: Multibodies) -> Snapshot:
    """All bodies between two iterations, as a checkpoint holds them."""
    arrays: dict[str, Any] = {}
    records = []
    for number, one in enumerate(made.bodies):
        saved = keep_state(one.state, one.step)
        arrays |= {f"body{number}.{name}": value for name, value in saved.arrays.items()}
        records.append(saved.record | {"finished": one.state.finished})
    return Snapshot(arrays, {"iteration": made.iteration, "scale": made.scale, "bodies": records})


def restore_multibody(made: Multibodies, saved: Snapshot) -> None:
    """Put back what :func:`keep_multibody` took, in place."""
    made.iteration, made.scale = saved.record["iteration"], saved.record["scale"]
    for number, (one, record) in enumerate(zip(made.bodies, saved.record["bodies"], strict=True)):
        arrays = _with_prefix(saved.arrays, f"body{number}.")
        mask = one.state.mask
        one.state, one.step = restore_state(Snapshot(arrays, record))
        one.state.mask, one.state.finished = mask, record["finished"]


def _with_prefix(arrays: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    return {name[len(prefix) :]: value for name, value in arrays.items() if name.startswith(prefix)}


def refine_bodies(made: Multibodies, *, listener: Listener | None = None, keeper: Keeper | None = None) -> None:
    """Iterate until no body changes any more; then once more, with maps to the last shell (in place).

    Parameters
    ----------
    made : Multibodies
        From :func:`start_multibody`.
    listener : Listener, optional
    keeper : Keeper, optional
        Asked for where an earlier run stopped, and told after every iteration.
    """
    heard = listener or Silence()
    saved = None if keeper is None else keeper.load()
    if saved is not None:
        restore_multibody(made, saved)
    while not made.is_finished:
        made.advance(heard)
        for one in made.bodies:
            heard.say(_sentence(made.iteration, one))
        if keeper is not None:
            keeper.save(keep_multibody(made), needed=True)
    if not made.complete:
        made.advance(heard, final=True)


def _sentence(iteration: int, one: BodyRefinement) -> str:
    row = one.state.figures[-1]
    return (
        f"iteration {iteration}, body {one.body.number}: data to {row.search_resolution_A:.1f} A, resolution "
        f"{row.resolution_A:.2f} A"
    )
