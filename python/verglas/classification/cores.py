"""Cores of the classes of a 2D classification: columns that say which members lie near the middle of their class."""

from __future__ import annotations

import numpy as np

from verglas import fourier, ops
from verglas.classification.align2d import in_reference_frame
from verglas.classification.classes import Classes2D
from verglas.classification.members import core_members, stable_core
from verglas.image import fourier_resample
from verglas.masks import soft_circle
from verglas.optics.transfer import phase_flip
from verglas.types import Particles
from verglas.types.arrays import Float32Array, IntArray

CORE, STABLE_CORE, LEVEL = "verglasCore", "verglasStableCore", "verglasLevel"
_SIDE = 32  # pixels: what tells members of a class apart is coarse, and noise is fine
_MOST = 10_000  # members judged at once
_BATCH_PIXELS = 1 << 23  # of images as they are read, before they are small


def class_cores(
    result: Classes2D,
    *,
    threshold: float = 3.0,
    tolerance: int = 1,
    diameter_A: float | None = None,
    ctf: bool = True,
    threads: int | None = None,
) -> Particles:
    """The particles with columns that say who is in the core of its class.

    ``verglasCore`` is 1 for members whose distance in the class's own principal components (of images that are brought
    onto the average, their phases flipped, and at most 32 pixels wide) is no outlier's (:func:`core_members`); with
    levels (``start="split"``), ``verglasStableCore`` for those that were together with most of their class at all
    levels but ``tolerance`` (:func:`stable_core`). The empty class has no core.

    Parameters
    ----------
    result : Classes2D
    threshold : float
        Of the z-score within the class.
    tolerance : int
        Levels at which a member may have been elsewhere.
    diameter_A : float, optional
        Of the mask; four fifths of the box by default.
    ctf : bool
        Whether phases are flipped by the CTF.
    threads : int, optional
        Threads; all by default.

    Returns
    -------
    Particles

    Examples
    --------
    >>> import verglas as vg
    >>> from verglas.classification import class_cores
    >>> p = vg.simulate.particles(vg.simulate.phantom(24, 5.0, 75.0), 40, 24, 5.0, snr=1.0, listener=None)
    >>> found = vg.classify2d(p, classes=2, iterations=2, threads=1, listener=None)
    >>> sorted(set(class_cores(found).table["verglasCore"])) in ([0, 1], [1])
    True
    """
    particles, labels = result.particles, result.labels
    core = np.zeros(len(particles), np.int64)
    for label in range(result.n_classes):
        members = np.flatnonzero(labels == label)
        # Large classes in parts of members taken by turns: each is judged among as many as one can hold.
        parts = max(1, -(-len(members) // _MOST))
        for start in range(parts):
            rows = members[start::parts]
            if len(rows):
                images, mask = _align_members(particles, rows, result.pixel_size_A, diameter_A, ctf, threads)
                core[rows] = core_members(images, np.zeros(len(rows), np.int64), threshold=threshold, mask=mask)
    columns: dict[str, IntArray] = {CORE: core}
    if result.levels:
        together = stable_core([*result.levels, labels], tolerance=tolerance)
        columns[STABLE_CORE] = (together & (labels < result.n_classes)).astype(np.int64)
    return particles.with_columns(**columns)


def with_levels(result: Classes2D) -> Particles:
    """The particles with their class at every level of a start by splitting: ``verglasLevel1``, ..., from 1."""
    return result.particles.with_columns(
        **{f"{LEVEL}{number}": labels + 1 for number, labels in enumerate(result.levels, 1)}
    )


def _align_members(
    particles: Particles, rows: IntArray, pixel_size_A: float, diameter_A: float | None, ctf: bool, threads: int | None
) -> tuple[Float32Array, Float32Array]:
    """Images in the frame of their average, small, and the mask."""
    side = min(_SIDE, particles.box)
    scale = side / (particles.box * pixel_size_A)
    step = max(1, _BATCH_PIXELS // particles.box**2)
    parts = [particles[rows[begin : begin + step]] for begin in range(0, len(rows), step)]
    frames = np.concatenate([_in_frame(part, side, scale, ctf, threads) for part in parts])
    radius = 0.4 * side if diameter_A is None else min(0.5 * diameter_A * scale, 0.48 * side)
    return frames, soft_circle(side, radius, 2.0)


def _in_frame(particles: Particles, side: int, scale: float, ctf: bool, threads: int | None) -> Float32Array:
    """Images of ``side`` pixels on their average; ``scale`` such pixels are one angstrom."""
    assert particles.poses is not None
    images, box = particles.images(), particles.box
    if ctf:
        ctfs = ops.ctf(particles.optics.as_params(), box, particles.pixel_size_A, threads=threads)
        images = fourier.inverse(
            phase_flip(fourier.forward(images, 2, threads=threads), ctfs), (box, box), threads=threads
        )
    small = fourier_resample(images, (side, side), threads=threads)
    poses = particles.poses
    return in_reference_frame(small, poses.angles_deg[:, 2], poses.shifts_A * scale, threads=threads)
