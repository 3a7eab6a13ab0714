"""How much memory a refinement will take, before it starts; and how many images it may work on at a time."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from verglas import ops
from verglas._devices import memory_bytes
from verglas._native import resolve_threads
from verglas.errors import InputError
from verglas.geometry import healpix_spacing_deg, unit_pixels
from verglas.reconstruction.accumulate import direct_grid
from verglas.refinement import schedule
from verglas.refinement.problem import RefineProblem
from verglas.search import blocks
from verglas.search.grid_step import MOST_CANDIDATES, GridLimits, images_at_a_time, wide_diameter_px
from verglas.search.pose_step import coarse_radius, poses_at_a_time
from verglas.search.problem import Problem
from verglas.search.step import Step

# Measured by bench/bench_memory.py and tests/test_memory_plan.py: the interpreter with NumPy, SciPy, pandas and
# matplotlib loaded (pages of a running job are drawn elsewhere); and what a page takes while it is drawn.
_BASE_BYTES = 0.26e9
_PAGE_BYTES = 0.075e9
_PAGE_MAPS = 5  # that a page reads
# Of a page of a running job, drawn beside it in a process of its own (0.29 GB measured; it reads no maps).
PAGE_PROCESS_GB = 0.365
_ITERATION_MAPS = 7  # of a class: what the iteration before made, and what is being filtered
# Bytes per image of a batch and pixel: raw, centred and transformed images, CTFs, slices and their copies.
PIXEL_BYTES = 60
# Of a half map, whose transform along two axes, half as large, is there while it is made; of both for credible radii.
_SPECTRUM, _SPECTRA = 1.5, 2.5
_LEAST_BATCH = 8
# The search over all orientations for credible radii, after the last iteration.
RADII_ORDER = 3  # 7.3 degrees
RADII_BATCH = 64  # images at most
RADII_CANDIDATES = 1 << 12  # of each
# Per pose of a list of candidates, with the posterior and the sums that it passes through.
LISTED_BYTES = 70
_LANES = 16  # images or shifts that a thread searches together
# On a GPU, per image of a batch and pixel: two buffers for upload, the masked image, transforms of both, CTF, slices,
# what is taken of them for insertion, the FFT's workspace.
_DEVICE_PIXEL_BYTES = 80
_DEVICE_BATCH_PIXELS = 1 << 25  # images enough to fill a large GPU
_CANDIDATE_BYTES = 32


@dataclass(frozen=True)
class DevicePlan:
    """Peak memory of each phase on one GPU.

    Attributes
    ----------
    device : str
    phases_GB : dict
        Phase -> peak of what is taken there, in GB.
    limit_GB : float
        Free when it was asked, less a margin.
    """

    device: str
    phases_GB: dict[str, float]
    limit_GB: float

    @property
    def peak_GB(self) -> float:
        """The largest phase."""
        return max(self.phases_GB.values())

    def __str__(self) -> str:
        phases = ", ".join(f"{name} {size:.2f}" for name, size in self.phases_GB.items())
        return f"{self.device}: at most {self.peak_GB:.2f} GB of {self.limit_GB:.1f} free ({phases})"


@dataclass(frozen=True)
class MemoryPlan:
    """Peak memory of each phase, and what was chosen to keep it below the limit.

    Attributes
    ----------
    phases_GB : dict
        Phase -> peak resident memory in GB, everything included.
    limit_GB : float
        Not to be passed.
    batch : int
        Images worked on at a time.
    cached : bool
        Whether all images are kept in memory, or read again in every iteration.
    devices : tuple of DevicePlan
        Of the GPUs in use; the figures above are then the host's.
    """

    phases_GB: dict[str, float]
    limit_GB: float
    batch: int
    cached: bool
    devices: tuple[DevicePlan, ...] = ()

    @property
    def peak_GB(self) -> float:
        """The largest phase."""
        return max(self.phases_GB.values())

    def __str__(self) -> str:
        phases = ", ".join(f"{name} {size:.2f}" for name, size in self.phases_GB.items())
        images = "kept in memory" if self.cached else "read again in every iteration"
        return (
            f"memory: at most {self.peak_GB:.2f} GB of {self.limit_GB:.1f} ({phases}); {self.batch} images at a time, "
            f"{images}{''.join(f'; {d}' for d in self.devices)}"
        )


def _model_bytes(problem: RefineProblem) -> float:
    """References, their next version, raw half maps, two masks; two weights of what is scored."""
    weights = 2 if problem.settings.score_mask != "off" else 0
    return 4.0 * problem.box**3 * (2 * problem.n_classes * 3 + 3 + weights)


def _phases(problem: RefineProblem, batch: int, cached: bool) -> dict[str, float]:
    box, classes = problem.box, problem.n_classes
    voxels = float(box**3)
    first = schedule.first_step(problem)
    images = 4.0 * len(problem) * box**2 if cached else 0.0
    batch = min(batch, max(1, len(problem) // 2))
    models = _model_bytes(problem)
    climbing = min(batch, poses_at_a_time(problem))
    per_batch = float(PIXEL_BYTES * climbing * box**2)
    pixels = len(unit_pixels(first.order, problem.symmetry))
    wide = ops.PolarGrid(box, first.insert_radius, diameter_px=wide_diameter_px(problem, first))
    slices = classes * pixels * (4.0 * wide.n_rings * wide.n_theta + ops.MaximisePlan(wide, 1).slice_bytes)
    last, early = direct_grid(box, problem.last_radius), direct_grid(box, first.insert_radius)
    points, group = float(np.prod(last.shape)), problem.symmetry != "C1"
    spectrum = 8 * float(np.prod(ops.Grid(box, max_radius=problem.last_radius).shape))
    sorting = float(last.insertion_bytes(climbing))
    # While the second half set is summed: the first and finished blocks are packed, one is whole. Of a single block
    # nothing else waits before it is packed, by when its images are gone.
    held = blocks.sums_at_once(len(problem) // 2, problem.block_particles)
    waiting = max(2, held) if held > 1 else 1

    def sums(grid: ops.Grid, images: float) -> float:
        whole, packed = (24.0 * classes * points for points in (float(np.prod(grid.shape)), ops.count_points(grid)))
        return whole + max(waiting * packed + images, 2 * packed)

    always = _BASE_BYTES + images + models
    searched = replace(problem, batch=batch)
    listed = images_at_a_time(searched, first, GridLimits(), 1 if first.split else classes)
    lists = float(LISTED_BYTES * listed * min(MOST_CANDIDATES, classes * count_poses(problem, first)))
    return {
        "grid": always
        + slices
        + sums(early, PIXEL_BYTES * listed * box**2)
        + classes * 8 * float(np.prod(ops.Grid(box, max_radius=first.insert_radius).shape))
        + lists
        + resolve_threads(problem.threads) * thread_bytes(problem, first),
        "poses": always + sums(last, per_batch + sorting) + _SPECTRUM * spectrum * classes,
        "reconstruction": always
        + _ITERATION_MAPS * classes * 4 * voxels
        + 24 * 2 * classes * ops.count_points(last)
        # Sums are whole while they are finished, and twice where they are symmetrised; maps are made of packed ones.
        + max(48 if group else 24, _solve_bytes(problem)) * points,
        "credible radii": always + _radii_bytes(problem, batch) + _SPECTRA * spectrum * classes,
        "page": always + _PAGE_BYTES + _PAGE_MAPS * 4 * voxels,
    }


def _radii_bytes(problem: RefineProblem, batch: int) -> float:
    """Slices of the grid on which credible radii are summed, to the shell that it serves, images, and their lists."""
    if problem.correlation:
        return 0.0
    serves = min(problem.last_radius, coarse_radius(problem, healpix_spacing_deg(RADII_ORDER)))
    polar = ops.PolarGrid(problem.box, serves, diameter_px=problem.diameter_px)
    directions, images = len(unit_pixels(RADII_ORDER, problem.symmetry)), min(batch, RADII_BATCH)
    slices = 8.0 * problem.n_classes * directions * polar.n_rings * polar.n_theta  # samples and their harmonics
    return slices + images * (PIXEL_BYTES * problem.box**2 + LISTED_BYTES * RADII_CANDIDATES)


def count_poses(problem: Problem, step: Step) -> int:
    """Poses of a grid that one image is scored at."""
    return len(unit_pixels(step.order, problem.symmetry)) * step.n_psi * len(step.shifts_px())


def thread_bytes(problem: Problem, step: Step) -> float:
    """What a thread of the search holds: harmonics of its images at every shift, twice, and the samples."""
    polar = ops.PolarGrid(problem.box, step.radius, diameter_px=problem.diameter_px)
    shifts = len(step.shifts_px())
    vectors = shifts + -(-shifts // _LANES)
    samples = polar.n_rings * polar.n_theta // 2
    return 4.0 * (vectors * polar.size * 2 * _LANES + samples * (2 * _LANES + 3))


# Of one grid point while a map is solved, besides the maps: the transform along z, and blocks of a thread (16 threads
# took 18 bytes, one 10: bench/bench_map_making.py).
_SOLVE_BYTES = 10
_SOLVE_BYTES_OF_A_THREAD = 0.5


def _solve_bytes(problem: RefineProblem) -> float:
    return _SOLVE_BYTES + _SOLVE_BYTES_OF_A_THREAD * resolve_threads(problem.threads)


def plan_memory(problem: RefineProblem, limit_GB: float, *, cached: bool) -> MemoryPlan:
    """Choose the batch so that no phase passes the limit.

    Parameters
    ----------
    problem : RefineProblem
        With GPUs, their free memory is asked for here, and the batch is the one that fits all of them.
    limit_GB : float
        Memory the process may take on the host.
    cached : bool
        Whether all images are in memory.

    Returns
    -------
    MemoryPlan

    Raises
    ------
    InputError
        Even with the smallest batch the limit would be passed.
    """
    if problem.devices != ("cpu",):
        return _plan_on_devices(problem, limit_GB, cached)

    def plan_for_batch(batch: int) -> MemoryPlan:
        phases = {name: size / 1e9 for name, size in _phases(problem, batch, cached).items()}
        return MemoryPlan(phases, limit_GB, batch, cached)

    batch = problem.batch
    while plan_for_batch(batch).peak_GB > limit_GB and batch > _LEAST_BATCH:
        batch = max(_LEAST_BATCH, batch // 2)
    plan = plan_for_batch(batch)
    if plan.peak_GB > limit_GB:
        raise InputError(
            f"{problem.job}: a box of {problem.box} px and {problem.n_classes} classes need {plan.peak_GB:.2f} GB, "
            f"allowed are {limit_GB:.2f}; allow more (--memory), use a smaller box (verglas resample) or "
            "--max-resolution"
        )
    return plan


def _device_phases(problem: RefineProblem, batch: int) -> dict[str, float]:
    """Bytes on one GPU; the first of them, which also makes the maps, is the largest."""
    box, classes, settings = problem.box, problem.n_classes, problem.settings
    first = schedule.first_step(problem)
    narrow = ops.PolarGrid(box, first.radius, diameter_px=problem.diameter_px)
    wide = ops.PolarGrid(box, first.insert_radius, diameter_px=wide_diameter_px(problem, first))
    directions, shifts = len(unit_pixels(first.order, settings.symmetry)), len(first.shifts_px())
    images = float(_DEVICE_PIXEL_BYTES * batch * box**2)
    search = batch * (16.0 * shifts * narrow.size + _CANDIDATE_BYTES * MOST_CANDIDATES)
    # Of a slice: samples and harmonics for the search and for residuals, and the sums.
    each = 8.0 * (narrow.n_rings * narrow.n_theta + wide.n_rings * wide.n_theta)
    slices = classes * directions * (each + ops.MaximisePlan(wide, 1).slice_bytes)
    early, points = (float(np.prod(direct_grid(box, r).shape)) for r in (first.insert_radius, problem.last_radius))
    spectra = 8.0 * classes * float(np.prod(ops.Grid(box, max_radius=problem.last_radius).shape))
    sums = 24 * 2 * classes  # of both halves, until their maps are made
    return {
        "grid": images + search + slices + spectra + sums * early,
        "poses": images + search + spectra + sums * points,
        "reconstruction": (sums + 24 + _DEVICE_SOLVE_BYTES) * points,
    }


# Of symmetrised sums and what is made of them; CuPy's whole-array expressions have temporaries.
_DEVICE_SOLVE_BYTES = 80


def _plan_on_devices(problem: RefineProblem, limit_GB: float, cached: bool) -> MemoryPlan:
    box, free = problem.box, {device: memory_bytes(device)[0] / 1e9 for device in problem.devices}
    share = max(1, -(-len(problem) // (2 * len(free))))

    def plan_for_batch(batch: int) -> tuple[DevicePlan, ...]:
        phases = {name: size / 1e9 for name, size in _device_phases(problem, batch).items()}
        return tuple(DevicePlan(device, phases, limit) for device, limit in free.items())

    batch = max(_LEAST_BATCH, min(_DEVICE_BATCH_PIXELS // box**2, share))
    while any(d.peak_GB > d.limit_GB for d in plan_for_batch(batch)) and batch > _LEAST_BATCH:
        batch = max(_LEAST_BATCH, batch // 2)
    plans = plan_for_batch(batch)
    for plan in plans:
        if plan.peak_GB > plan.limit_GB:
            raise InputError(
                f"{problem.job}: a box of {box} px and {problem.n_classes} classes need {plan.peak_GB:.2f} GB on "
                f"{plan.device}, {plan.limit_GB:.2f} can be had; end other programs on it, use a smaller box (verglas "
                "resample), --max-resolution, or --device cpu"
            )
    images = 4.0 * len(problem) * box**2 if cached else 0.0
    models = _model_bytes(problem)
    buffers = len(free) * batch * box**2 * 4.0 * 3  # two that are page-locked, one being read
    host = (_BASE_BYTES + _CUDA_BASE_BYTES * len(free) + images + models + buffers) / 1e9
    if host > limit_GB:
        raise InputError(
            f"{problem.job}: {len(problem)} images of {box} px need {host:.2f} GB on the host, allowed are "
            f"{limit_GB:.2f}; allow more (--memory)"
        )
    return MemoryPlan({"host": host}, limit_GB, batch, cached, plans)


# What a process with a GPU's context, CuPy and cuFFT takes on the host besides: an allowance, not yet measured.
_CUDA_BASE_BYTES = 1.0e9


def with_plan(problem: RefineProblem, plan: MemoryPlan) -> RefineProblem:
    """The problem with the batch of a plan."""
    return replace(problem, batch=plan.batch)
