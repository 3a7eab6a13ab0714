"""Half sets whose independence holds: rows of one image lie in one half, and neither half is empty."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from verglas.errors import InputError
from verglas.types import Particles
from verglas.types.arrays import FloatArray, IntArray
from verglas.types.verdict import Finding

_LEAST_SHARE = 0.05  # of the particles that a half set must hold to be one
_NEAR = 0.1  # of the box: half the radius of a particle that fills four tenths of it, and less than any real distance
_NAMES = ("rlnImageName",)
_PIXELS = ("rlnMicrographPixelSize", "rlnMicrographOriginalPixelSize")


@dataclass(frozen=True)
class HalfSplit:
    """Half sets, and what was not as the file had it.

    Attributes
    ----------
    half : (n,) int64
        1 or 2.
    notes : tuple of Finding
        What a reader must see, by code: ``half-set-small``, ``image-in-both-halves``, ``copies``.
    """

    half: IntArray
    notes: tuple[Finding, ...]


def images_of(particles: Particles, copy_of: IntArray | None = None) -> IntArray:
    """For every particle the first row of the same image, itself where there is no other.

    Rows are of one image if they name the same image, if their centres lie within half a particle's radius (a tenth of
    the box) in one micrograph, or if their pixels are equal (``copy_of``).

    Examples
    --------
    >>> import numpy as np, verglas as vg
    >>> from verglas.reconstruction.half_sets import images_of
    >>> p = vg.Particles.from_images(np.ones((4, 40, 40), np.float32), 1.0)
    >>> p = p.with_columns(rlnMicrographName=["a", "a", "b", "b"])
    >>> p = p.with_columns(rlnCoordinateX=[10.0, 12, 50, 90], rlnCoordinateY=[10.0, 10, 50, 50])
    >>> images_of(p).tolist()
    [0, 0, 2, 3]
    """
    n, table = len(particles), particles.table
    pairs = [] if copy_of is None else [np.column_stack([np.arange(n), copy_of])]
    for name in _NAMES:
        if name in table:
            codes = pd.factorize(table[name])[0]
            first = np.unique(codes, return_index=True)[1]
            pairs.append(np.column_stack([np.arange(n), first[codes]]))
    near = near_pairs(particles)
    if near is not None:
        pairs.append(near)
    if not pairs:
        return np.arange(n)
    edges = np.concatenate(pairs)
    edges = edges[edges[:, 0] != edges[:, 1]]
    if not len(edges):
        return np.arange(n)
    graph = coo_matrix((np.ones(len(edges), np.int8), edges.T), shape=(n, n))
    label = connected_components(graph, directed=False)[1]
    return np.asarray(np.unique(label, return_index=True)[1][label], np.int64)


def near_pairs(particles: Particles, distance_A: float | None = None) -> IntArray | None:
    """Rows (i, j) of particles of one micrograph that are closer than a distance, by default a tenth of the box.

    None without micrographs or coordinates in the table.
    """
    table = particles.table
    if not {"rlnMicrographName", "rlnCoordinateX", "rlnCoordinateY"} <= set(table):
        return None
    places = table[["rlnCoordinateX", "rlnCoordinateY"]].apply(pd.to_numeric, errors="coerce").to_numpy(np.float64)
    micrograph = pd.factorize(table["rlnMicrographName"])[0]
    # Coordinates count the micrograph's pixels; without their size the particle's, which are no smaller, are taken.
    optics = particles.optics_table
    sizes = [t[name] for t in (table, optics) if t is not None for name in _PIXELS if name in t]
    pixel = float(pd.to_numeric(sizes[0], errors="coerce").median()) if sizes else float("nan")
    if not (np.isfinite(pixel) and pixel > 0):
        pixel = particles.pixel_size_A
    distance_A = _NEAR * particles.box * particles.pixel_size_A if distance_A is None else distance_A
    reach = distance_A / pixel
    located = np.flatnonzero(np.isfinite(places).all(axis=1))
    # A third axis keeps micrographs apart: one tree for all of them.
    points = np.column_stack([places[located], 2.0 * reach * micrograph[located]])
    return located[cKDTree(points).query_pairs(reach, output_type="ndarray")] if len(located) else None


def split_halves(particles: Particles, *, seed: int = 0, copy_of: IntArray | None = None) -> HalfSplit:
    """Half sets as the file has them, where they can be used, else at random within each micrograph.

    Rows of one image (:func:`images_of`) come into the half of the first of them: the noise that they share would
    correlate between the half maps. Sets of which one is empty, or holds less than a twentieth of the particles, are
    split anew.

    Parameters
    ----------
    particles : Particles
    seed : int
        Of the random assignment.
    copy_of : (n,) int64, optional
        First particle with the same pixels (:class:`verglas.image.outliers.Inspection`).

    Returns
    -------
    HalfSplit

    Raises
    ------
    InputError
        All rows are one image.

    Examples
    --------
    >>> import numpy as np, verglas as vg
    >>> from verglas.reconstruction.half_sets import split_halves
    >>> p = vg.Particles.from_images(np.ones((6, 4, 4), np.float32), 1.0).with_columns(rlnRandomSubset=[1] * 6)
    >>> split = split_halves(p)
    >>> sorted(split.half.tolist()), split.notes[0].sentence[:61]
    ([1, 1, 1, 2, 2, 2], 'all 6 particles are in half set 1 (rlnRandomSubset): they wer')
    """
    n, first = len(particles), images_of(particles, copy_of)
    copies = int(np.count_nonzero(first != np.arange(n)))
    if n > 1 and copies == n - 1:
        raise InputError(f"{particles.where}: all {n} rows are of one image; two half sets need two images or more")
    subsets = particles.half_sets
    notes = [] if subsets is None or n < 2 else _too_small(subsets)
    if notes:
        subsets = None
    half = _random_halves(particles, first, seed) if subsets is None else subsets[first]
    if subsets is not None and (half != subsets).any():
        moved = np.flatnonzero(half != subsets)
        row, other = int(moved[0]), int(first[moved[0]])
        remedy = "they were put into one"
        if _too_small(half):
            half, remedy = _random_halves(particles, first, seed), "the half sets were dealt out anew"
        sentence = (
            f"rlnRandomSubset has rows of one image in both half sets ({len(moved)} rows, the first: particle {row} in "
            f"{subsets[row]}, particle {other} in {subsets[other]}): {remedy}, since the noise that they share "
            "correlates between the half maps"
        )
        notes.append(Finding("image-in-both-halves", "warn", sentence, {"rows": len(moved), "first": row}))
    elif copies:
        row = int(np.flatnonzero(first != np.arange(n))[0])
        sentence = (
            f"{copies} rows are of an image that another row has, too (the first: particles {first[row]} and {row}): "
            "rows of one image lie in one half set; remove the copies unless they are wanted"
        )
        notes.append(Finding("copies", "warn", sentence, {"rows": copies, "first": row}))
    return HalfSplit(np.asarray(half, np.int64), tuple(notes))


def _too_small(half: IntArray) -> list[Finding]:
    """A note if one of the half sets is empty or all but empty."""
    counts = np.bincount(half, minlength=3)[1:]
    if counts.min() >= max(1, _LEAST_SHARE * len(half)):
        return []
    small = int(np.argmin(counts)) + 1
    sentence = f"half set {small} holds {counts.min()} of {len(half)} particles"
    if counts.min() == 0:
        sentence = f"all {len(half)} particles are in half set {3 - small}"
    sentence += " (rlnRandomSubset): they were split anew, at random within each micrograph"
    return [Finding("half-set-small", "warn", sentence, {"particles": int(counts.min()), "of": len(half)})]


def _random_halves(particles: Particles, first: IntArray, seed: int) -> IntArray:
    """Images dealt out in turn, in a random order within each micrograph; rows follow their image."""
    n, table = len(particles), particles.table
    micrograph: npt.NDArray = np.zeros(n, np.int64)
    if "rlnMicrographName" in table:
        micrograph = np.unique(table["rlnMicrographName"].to_numpy(str), return_inverse=True)[1]
    chance: FloatArray = np.random.default_rng(seed).random(n)
    order = np.lexsort((chance, micrograph))
    # One row of each image is dealt out; its copies follow in the last line.
    order = order[first[order] == order]
    half = np.empty(n, np.int64)
    # In turn and not by a coin: the halves then differ by at most one image, in all and within each micrograph.
    half[order] = 1 + np.arange(len(order)) % 2
    return half[first]
