"""Images of noise aligned to a run's map: whether its particles resolve more than as many of them, at every number."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import special

from verglas import fourier
from verglas.assessment.fsc import FSC, fsc
from verglas.errors import InputError
from verglas.geometry import symmetry_order
from verglas.masks import soft_sphere
from verglas.reconstruction import reconstruct
from verglas.run.align import align
from verglas.types import ArraySource, Map, Particles
from verglas.types.arrays import Float32Array
from verglas.types.verdict import Finding

PARTS = (4, 2, 1)  # of the images that are asked for
_FALSE_ALARM, _AGREE = 1e-3, 0.143
_FEWEST = 20  # in a half set of the smallest part


def judge_aligned_noise(
    particles: Particles,
    half_maps: tuple[Map, Map],
    *,
    count: int,
    symmetry: str = "C1",
    seed: int = 0,
    threads: int | None = None,
    **settings: Any,
) -> Finding:
    """Whether particles give a finer resolution than as many images of noise: ``better-than-noise``.

    Each image of noise has the power of a particle's image at every frequency and no phases of its own. Images of both
    kinds are aligned to the run's map of the other half set, as finely as it goes; noise then adds up to what it was
    aligned to. Of both a quarter, half and all are reconstructed, and their FSCs compared inside the largest sphere:
    particles are better where the mean difference, over the shells in which the run's half maps agree, exceeds chance
    (1e-3).

    Parameters
    ----------
    particles : Particles
        With images and half sets.
    half_maps : (Map, Map)
        Of the run, of the particles' box.
    count : int
        Images, half of each half set, at most; drawn at random.
    symmetry : str
        Point group.
    seed : int
        Of the draw and of the noise.
    threads : int, optional
        Threads; the result does not depend on it.
    **settings
        Of the alignment (:func:`verglas.align`).

    Returns
    -------
    Finding
        "stop" where noise does as well as all the particles asked. Where it does as well as a quarter or half of them,
        which says how many particles it takes and nothing against the others, the sentence names the number.

    Raises
    ------
    InputError
        No half sets or images, or too few particles.

    References
    ----------
    Heymann, AIMS Biophysics 2 (2015) 21.
    """
    half = particles.half_sets
    if half is None:
        raise InputError("validate: aligned noise is compared with particles that have half sets (rlnRandomSubset)")
    rng = np.random.default_rng((seed, 27))
    sets = [rng.permutation(np.flatnonzero(half == number))[: count // 2] for number in (1, 2)]
    most = min(map(len, sets))
    if most // PARTS[0] < _FEWEST:
        raise InputError(
            f"validate: aligned noise takes {2 * _FEWEST * PARTS[0]} particles and more in two half sets, got {most} "
            "in the smaller one"
        )
    numbers = [most // part for part in PARTS]
    curves: dict[str, list[FSC]] = {"particles": [], "noise": []}
    aligned: dict[str, list[Particles]] = {"particles": [], "noise": []}
    for rows, reference in zip(sets, half_maps[::-1], strict=True):
        images = particles[rows[:most]]
        bare = images.with_source(ArraySource(without_phases(images.images(), seed), images.pixel_size_A))
        for name, of in (("particles", images), ("noise", bare)):
            done = align(of, reference, symmetry=symmetry, listener=None, threads=threads, **settings)
            aligned[name].append(done)
    for name, (one, other) in aligned.items():
        for n in numbers:
            halves = [reconstruct(of[np.arange(n)], symmetry, threads=threads, listener=None) for of in (one, other)]
            curves[name].append(_curve(halves, symmetry, threads))
    return _finding(numbers, curves["particles"], curves["noise"], _curve(half_maps, symmetry, threads))


def _curve(halves: Sequence[Map], symmetry: str, threads: int | None) -> FSC:
    box = halves[0].box
    sphere = soft_sphere(box, 0.42 * box, 0.06 * box)
    return fsc(halves[0], halves[1], sphere, symmetry_order=symmetry_order(symmetry), threads=threads)


def _excess(particles: FSC, noise: FSC, run: FSC) -> float:
    """Mean difference, in standard deviations of that of noise, over the shells in which the run's half maps agree."""
    shells = np.flatnonzero((run.frequency_per_A > 0) & (run.frequency_per_A <= 1 / run.resolution_A(_AGREE)))
    if not shells.size:
        return -float("inf")
    n = run.n[shells]
    difference = float(np.average((particles.curve - noise.curve)[shells], weights=n))
    # Two curves, and neighbouring shells correlated over about two.
    return difference / float(np.sqrt(4.0 / n.sum()))


def _finding(numbers: list[int], of_particles: list[FSC], of_noise: list[FSC], run: FSC) -> Finding:
    """Which of the parts are better than noise."""
    least = -float(special.ndtri(_FALSE_ALARM))
    excess = [_excess(one, other, run) for one, other in zip(of_particles, of_noise, strict=True)]
    better = [value > least for value in excess]
    resolutions = [[curve.resolution_A(_AGREE) for curve in curves] for curves in (of_particles, of_noise)]
    text = ", ".join(
        f"{2 * n} images {_length(one)} and {_length(other)}"
        for n, one, other in zip(numbers, *resolutions, strict=True)
    )
    state = "go on" if better[-1] else "stop"
    said = f"Particles agree {'' if better[-1] else 'no '}farther than as many images of noise aligned to their map"
    short = [str(2 * n) for n, one in zip(numbers, better, strict=True) if not one]
    if short and better[-1]:
        said += f", but {' and '.join(short)} of them do not"
    known = [[round(d, 3) if np.isfinite(d) else None for d in values] for values in resolutions]
    values = {
        "images": [2 * n for n in numbers],
        "resolutions_A": known[0],
        "resolutions_of_noise_A": known[1],
        "standard_deviations": [round(value, 2) if np.isfinite(value) else None for value in excess],
    }
    return Finding("better-than-noise", state, f"{said} ({text}).", values)


def _length(resolution_A: float) -> str:
    return f"{resolution_A:.1f} A" if np.isfinite(resolution_A) else "nothing"


def without_phases(images: npt.NDArray[np.floating], seed: int) -> Float32Array:
    """Images with the amplitudes of others and the phases of white noise.

    Examples
    --------
    >>> import numpy as np
    >>> from verglas import fourier
    >>> from verglas.run.aligned_noise import without_phases
    >>> images = np.random.default_rng(0).normal(size=(2, 16, 16)).astype(np.float32)
    >>> made = without_phases(images, 1)
    >>> power = [np.abs(fourier.forward(one, 2)) for one in (images, made)]
    >>> bool(np.allclose(*power, rtol=1e-3, atol=1e-3)), abs(float(np.sum(images * made) / np.sum(images**2))) < 0.3
    (True, True)
    """
    shape = images.shape[-2:]
    rng = np.random.default_rng((seed, 28))
    out = np.empty(images.shape, np.float32)
    for number, image in enumerate(images):
        phases = fourier.forward(rng.standard_normal(shape, dtype=np.float32), 2)
        length = np.abs(phases)
        phases = np.divide(phases, length, out=np.ones_like(phases), where=length > 0)
        out[number] = fourier.inverse((np.abs(fourier.forward(image, 2)) * phases).astype(np.complex64), shape)
    return out
