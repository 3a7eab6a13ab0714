"""How an ab initio start goes: the box it works in, resolution, sampling and batch of every iteration."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from verglas import fourier
from verglas.image import fourier_resample
from verglas.initial_model.settings import AbInitioSettings
from verglas.refinement.schedule import angles_in_plane
from verglas.search.problem import Problem
from verglas.search.step import Step
from verglas.types.arrays import Float32Array

_LEAST_BOX = 32
_MARGIN_SHELLS = 3  # of the maps beyond what is scored


def working_box(box: int, pixel_size_A: float, final_resolution_A: float) -> int:
    """Side of images that hold a resolution with room for the maps' margin; the field of view stays.

    Examples
    --------
    >>> from verglas.initial_model.course import working_box
    >>> working_box(128, 1.5, 12.0), working_box(32, 4.0, 12.0)
    (40, 32)
    """
    radius = int(np.ceil(box * pixel_size_A / final_resolution_A)) + _MARGIN_SHELLS
    return min(box, fourier.fast_size(max(_LEAST_BOX, 2 * radius + 2), even=True))


def resample_to_box(volume: Float32Array, box: int) -> Float32Array:
    """A map in another box over the same field; grey values are per voxel, so that it projects to the same scale.

    Examples
    --------
    >>> import numpy as np
    >>> from verglas.initial_model.course import resample_to_box
    >>> float(resample_to_box(np.ones((8, 8, 8), np.float32), 16).mean())
    0.5
    """
    if len(volume) == box:
        return volume
    return np.ascontiguousarray(fourier_resample(volume, (box,) * 3) * np.float32(len(volume) / box), np.float32)


@dataclass(frozen=True)
class Course:
    """Resolution, sampling and batch of every iteration of a start."""

    problem: Problem
    settings: AbInitioSettings
    n_train: int

    @property
    def last_radius(self) -> int:
        """Last shell scored at the end."""
        shell = self.problem.shell_of(self.settings.final_resolution_A)
        return int(np.clip(shell, 3, (self.problem.box - 1) // 2 - 1))

    @property
    def first_radius(self) -> int:
        """Last shell scored at the beginning."""
        return int(np.clip(self.problem.shell_of(self.settings.initial_resolution_A), 3, self.last_radius))

    @property
    def grid_radius(self) -> int:
        """Last shell of the sums."""
        return min((self.problem.box - 1) // 2, self.last_radius + _MARGIN_SHELLS)

    def progress(self, iteration: int) -> float:
        """0 at the first mini-batch, 1 at the last."""
        # a schedule of one iteration is all beginning
        return min(1.0, iteration / max(self.settings.iterations - 1, 1))

    def radius(self, iteration: int, resolved: float) -> int:
        """Shell scored: what the schedule allows, and not far beyond what the halves agree on."""
        f = self.progress(iteration)
        by_schedule = self.first_radius + (self.last_radius - self.first_radius) * f**1.5
        # Two shells ahead of what the halves agree on: without any lead no new shell could ever come to agree.
        return int(np.clip(min(by_schedule, resolved + 2), self.first_radius, self.last_radius))

    def batch(self, iteration: int) -> int:
        """Particles of the mini-batch."""
        first = min(self.n_train, self.settings.first_batch * self.settings.classes)
        return round(first * (self.n_train / first) ** (self.progress(iteration) ** 1.5))

    def step_size(self, iteration: int) -> float:
        """gamma: 1 for the first batch, which forgets the random map."""
        if iteration == 0 or iteration >= self.settings.iterations:
            return 1.0
        f = self.progress(iteration)
        return self.settings.step_size + (1 - self.settings.step_size) * f**4

    def step(self, radius: int) -> Step:
        """Sampling that serves a radius: an angular step moves the particle's rim by about a third of a period."""
        order = 2 if radius <= 7 else 3
        reach = self.settings.shift_range_A / self.problem.pixel_size_A
        shift_step = max(1.0, self.problem.box / (6 * radius))
        return Step(
            "grid",
            radius,
            min(self.grid_radius, radius + _MARGIN_SHELLS),
            order,
            angles_in_plane(order),
            shift_step,
            max(reach, shift_step),
        )
