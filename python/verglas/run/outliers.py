"""Particles ranked by how unlike the others they are (a multivariate z-score), and a set without the worst."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from verglas._screen import ListenerChoice, shown_to
from verglas.errors import InputError
from verglas.extraction.features import FEATURES, MOST_Z, outlier_z, particle_features, rotational_profiles
from verglas.io import check_writable, read_particles, write_particles
from verglas.run.kept_inputs import keeps_inputs
from verglas.types import Particles
from verglas.types.arrays import Float32Array, FloatArray, IntArray
from verglas.types.listener import Listener

OUTLIER_Z = "verglasOutlierZ"
_BATCH_PIXELS = 1 << 23
_SAMPLE = 5000  # images that the median profile is taken from


@dataclass(frozen=True)
class Ranked:
    """Particles with their score.

    Attributes
    ----------
    particles : Particles
        All, in their order, with the column verglasOutlierZ.
    kept : Particles
        Those at most at the limit; all without one.
    unreadable : int
        Images with values that are not finite numbers: they score 50, the most there is, and no other is compared with
        them.
    """

    particles: Particles
    kept: Particles
    unreadable: int

    @property
    def z(self) -> FloatArray:
        """(n,) the score: about 1 for a typical particle."""
        return self.particles.table[OUTLIER_Z].to_numpy(np.float64)


def rank_particles(
    particles: Particles,
    *,
    diameter_A: float | None = None,
    limit: float | None = None,
    listener: ListenerChoice = None,
) -> Ranked:
    """Score every particle by grey values, rim, rotational profile and spectrum against those of all the others.

    Contaminants, carbon, aggregates and empty fields stand out; a particle that only looks like another view does not.
    Images are read twice in batches.

    Parameters
    ----------
    particles : Particles
    diameter_A : float, optional
        Of the particle; four fifths of the box by default.
    limit : float, optional
        Largest score kept.
    listener : Listener, "screen" or None

    Returns
    -------
    Ranked

    Raises
    ------
    InputError
        Fewer than three particles with finite images, a limit that leaves none, or a diameter that leaves no rim.

    References
    ----------
    Vargas et al. (2013) J. Struct. Biol. 183, 342-353.

    Examples
    --------
    >>> import numpy as np, verglas as vg
    >>> from verglas.run.outliers import rank_particles
    >>> images = np.random.default_rng(0).normal(size=(50, 24, 24)); images[7] += np.arange(24) > 12
    >>> ranked = rank_particles(vg.Particles.from_images(images.astype(np.float32), 2.0))
    >>> int(ranked.z.argmax())
    7
    """
    if len(particles) < 3:
        raise InputError(f"outliers: {len(particles)} particles; there are no others to compare with")
    box = particles.box
    radius = 0.4 * box if diameter_A is None else 0.5 * diameter_A / particles.pixel_size_A
    if not 1 <= radius <= box / 2 - 1:
        raise InputError(f"outliers: a particle of {2 * radius:.0f} px leaves no rim in a box of {box} px")
    with shown_to(listener) as heard:
        z, unreadable = _scores(particles, radius, heard)
    scored = particles.with_columns(**{OUTLIER_Z: z})
    if limit is not None and not (z <= limit).any():
        raise InputError(f"outliers: no particle has a score of {limit:g} or less; the lowest is {z.min():.2f}")
    return Ranked(scored, scored if limit is None else scored[z <= limit], unreadable)


def _scores(particles: Particles, radius: float, heard: Listener) -> tuple[FloatArray, int]:
    """Score of every particle, and how many images hold values that are not finite numbers."""
    n = len(particles)
    # Spread over the whole set: the first thousands may be of one micrograph.
    sample = np.unique(np.linspace(0, n - 1, min(n, _SAMPLE)).astype(np.int64))
    profiles = [rotational_profiles(images[_finite(images)]) for _, images in _batches(sample, particles)]
    profile = np.median(np.concatenate(profiles), axis=0) if any(map(len, profiles)) else None
    features = np.full((n, len(FEATURES)), np.nan)
    for rows, images in _batches(np.arange(n), particles):
        finite = _finite(images)
        if finite.any():
            features[rows[finite]] = particle_features(images[finite], radius, profile=profile)
        heard.progress("particles scored", int(rows[-1]) + 1, n)
    known = np.isfinite(features).all(axis=1)
    if np.count_nonzero(known) < 3:
        raise InputError(
            f"{particles.where}: outliers: {n - np.count_nonzero(known)} of {n} images hold values that are not finite "
            "numbers; too few others are left to compare with"
        )
    # A median over what is not a number is none, and would make every particle a typical one.
    z = np.full(n, MOST_Z)
    z[known] = outlier_z(features[known])
    return z, int(n - np.count_nonzero(known))


def _finite(images: Float32Array) -> npt.NDArray[np.bool_]:
    return np.asarray(np.isfinite(images).all(axis=(1, 2)))


def _batches(rows: IntArray, particles: Particles) -> Iterator[tuple[IntArray, Float32Array]]:
    step = max(1, _BATCH_PIXELS // particles.box**2)
    for begin in range(0, len(rows), step):
        some = rows[begin : begin + step]
        yield some, particles.images(some)


@keeps_inputs("outliers")
def rank_files(
    particles: Path,
    out: Path,
    *,
    diameter_A: float | None = None,
    limit: float | None = None,
    listener: ListenerChoice = "screen",
) -> Ranked:
    """:func:`rank_particles` of a file; what is kept is written with its scores."""
    check_writable(out)
    ranked = rank_particles(read_particles(particles), diameter_A=diameter_A, limit=limit, listener=listener)
    write_particles(out, ranked.kept)
    return ranked
