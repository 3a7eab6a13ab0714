r"""Point group of a map that was made without one: self-correlation under candidates, and the axes that fit best.

A map has the symmetry of a group G, turned by Q, if it correlates with its copies turned by all elements
:math:`Q^T g Q`:

.. math:: s_G(Q) = \frac{1}{|G| - 1} \sum_{g \neq 1} c(Q^T g Q), \qquad
          c(h) = \frac{\sum_s C_s \sum_{|k| = s} \mathrm{Re}\, \hat U(k)^* \hat U(h^T k)}{\sum_s C_s n_s}

U is the map without its spherical average, which every rotation leaves as it is, each shell brought to unit power; C is
the expected correlation of the map with the truth squared, from the FSC of its halves. What all the noise-free map's
copies agree on comes out as s = 1. Significance is counted in standard deviations of the same mean at random Q.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from threadpoolctl import threadpool_limits

from verglas import fourier
from verglas.errors import InputError
from verglas.geometry import (
    euler_to_matrix,
    healpix_directions,
    orientation_grid,
    parse_symmetry,
    random_orientations,
    symmetry_matrices,
)
from verglas.map_geometry.map_alignment import Sections, climb_rotation, turned_map
from verglas.map_geometry.sphere import spherical_part
from verglas.types.arrays import Float32Array, FloatArray, any_arrays

CANDIDATES = (*(f"C{n}" for n in range(2, 9)), *(f"D{n}" for n in range(2, 9)), "T", "O", "I")
_AXIS_ORDER = 4  # HEALPix: 3.7 degrees; an axis d off turns a two-fold copy by 2 d
_FRAME_STEP_DEG = 7.5
_SEARCH_RADIUS = 9  # shells that tolerate the steps of the search
_SEARCH_ELEMENTS, _DESCENT_ELEMENTS = 5, 8
_PEAKS = 3
_NULL = 48
_FIRST_SHELL = 2
LEAST_SCORE, LEAST_WORST, _LEAST_SIGMAS = 0.5, 0.75, 6.0


@dataclass(frozen=True)
class SymmetryScore:
    """How well a map fits a point group.

    Attributes
    ----------
    symmetry : str
        The group.
    order : int
        Its elements.
    score : float
        Mean correlation over all elements but the identity, on what the map's noise allows: 1 is perfect.
    worst : float
        The same of the element that fits worst.
    significance : float
        Score over that of random orientations, in their standard deviations.
    matrix : (3, 3) float64
        Rotation that brings the map onto the group's axes: what was at r goes to A r.
    """

    symmetry: str
    order: int
    score: float
    worst: float
    significance: float
    matrix: FloatArray

    @property
    def fits(self) -> bool:
        """Whether every element is there, and none by accident."""
        return (
            self.score >= LEAST_SCORE and self.worst >= LEAST_WORST * self.score and self.significance >= _LEAST_SIGMAS
        )


def without_sphere(volume: Float32Array, amplitude: FloatArray) -> Float32Array:
    """The map less its spherical average, every shell of its transform brought to an amplitude.

    Parameters
    ----------
    volume : (N, N, N) float32
    amplitude : (shells,) float64
        Root mean square wanted; shells beyond the last become zero.

    Examples
    --------
    >>> import numpy as np
    >>> from verglas.map_geometry.symmetry_search import without_sphere
    >>> v = np.zeros((8, 8, 8), np.float32); v[4, 4, 4] = 1
    >>> bool(np.abs(without_sphere(v, np.ones(4))).max() < 1e-6)
    True
    """
    spectrum = fourier.forward(volume, 3)
    shells = fourier.shells(volume.shape)
    weight = np.broadcast_to(fourier.half_weights(volume.shape), shells.shape).ravel()
    flat, count = shells.ravel(), np.bincount(shells.ravel(), weight)
    scale = np.sqrt(np.bincount(flat, np.abs(spectrum.ravel()) ** 2 * weight) / count)
    spectrum -= spherical_part(spectrum, len(volume))
    power = np.bincount(flat, np.abs(spectrum.ravel()) ** 2 * weight) / count
    target = np.zeros(len(count))
    target[: min(len(amplitude), len(count))] = amplitude[: len(count)]
    target[0] = 0
    # What rounding leaves of a map that is all sphere is nothing.
    there = power > 1e-10 * scale**2
    factor = np.divide(target, np.sqrt(power), out=np.zeros_like(target), where=there)
    return fourier.inverse((spectrum * factor[shells]).astype(np.complex64), volume.shape).astype(np.float32)


def elements_of(symmetry: str) -> FloatArray:
    """(n, 3, 3) elements but the identity, one of every pair of inverses, which correlate equally.

    Examples
    --------
    >>> from verglas.map_geometry.symmetry_search import elements_of
    >>> [len(elements_of(s)) for s in ("C2", "C4", "D2", "O", "I")]
    [1, 2, 3, 16, 37]
    """
    elements: list[FloatArray] = []
    for m in symmetry_matrices(symmetry)[1:]:
        if not any(np.abs(m.T - k).max() < 1e-6 for k in elements):
            elements.append(m)
    return np.array(elements)


def _spread(elements: FloatArray, most: int) -> FloatArray:
    """Some elements, of all kinds of axes: sorted by angle, then evenly spaced."""
    order = np.argsort(np.trace(elements, axis1=1, axis2=2), kind="stable")
    return elements[order[np.unique(np.linspace(0, len(order) - 1, most).round().astype(int))]]


class SelfCorrelation:
    """Correlation of a map with its own turned copies, without the part that any rotation keeps.

    Parameters
    ----------
    volume : (N, N, N) float32
        Centred and masked.
    reliability : (shells,) float64
        Expected squared correlation of each shell with the truth, C; its length says which shells count.
    threads : int, optional
        Threads; all by default.
    """

    def __init__(self, volume: Float32Array, reliability: FloatArray, *, threads: int | None = None) -> None:
        c = np.clip(np.asarray(reliability, np.float64), 0.0, 1.0)
        c[:_FIRST_SHELL] = 0
        radius = len(c) - 1
        if radius < _FIRST_SHELL + 1 or not c.sum() > 0:
            raise InputError("symmetry: the map has no shell that can be relied on")
        flattened = without_sphere(volume, np.sqrt(c))
        self.fine = Sections(flattened, radius, threads=threads)
        self.coarse = Sections(flattened, min(radius, _SEARCH_RADIUS), threads=threads)
        samples = np.arange(radius + 1)  # of a section, by shell
        self.expected = float((samples * c**2).sum() / (samples * c).sum())

    def scores(self, frames: FloatArray, elements: FloatArray, *, coarse: bool = False) -> FloatArray:
        """(frames, elements) correlations c(Q^T g Q)."""
        turned = np.einsum("qji,gjk,qkl->qgil", frames, elements, frames).reshape(-1, 3, 3)
        sections = self.coarse if coarse else self.fine
        return sections.correlations(sections, turned).reshape(len(frames), len(elements))


def _frames(symmetry: str, own: SelfCorrelation, axes: dict[int, FloatArray]) -> FloatArray:
    """Frames worth trying for a group; axes found for each fold are kept for the dihedral groups."""
    if symmetry[0] in "CD":
        fold = int(symmetry[1:])
        if fold not in axes:
            axes[fold] = _axis_frames(own, fold)
        if symmetry[0] == "C":
            return axes[fold]
        psi = np.arange(0, 180 / fold, _FRAME_STEP_DEG / 2)
        about_z = euler_to_matrix(np.column_stack([np.zeros((len(psi), 2)), psi]))
        return np.einsum("pij,ajk->apik", about_z, axes[fold]).reshape(-1, 3, 3)
    directions, psi = orientation_grid(_FRAME_STEP_DEG, symmetry)
    angles = np.column_stack([np.repeat(directions, len(psi), axis=0), np.tile(psi, len(directions))])
    return np.swapaxes(euler_to_matrix(angles), 1, 2)  # an element on the right of a pose is on the left of a frame


def _axis_frames(own: SelfCorrelation, fold: int) -> FloatArray:
    """Frames whose z stands on the best distinct axes of a fold."""
    directions = healpix_directions(_AXIS_ORDER)
    directions = directions[directions[:, 1] <= 90]
    frames = euler_to_matrix(np.column_stack([directions, np.zeros(len(directions))]))
    score = own.scores(frames, elements_of(f"C{fold}")[:1], coarse=True)[:, 0]
    vectors = frames[:, 2]
    axes: list[int] = []
    for i in np.argsort(-score, kind="stable"):
        if all(abs(vectors[i] @ vectors[k]) < np.cos(np.deg2rad(15)) for k in axes):
            axes.append(int(i))
        if len(axes) == 2 * _PEAKS:
            break
    return frames[axes]


def _refine_frame(own: SelfCorrelation, start: FloatArray, elements: FloatArray) -> tuple[FloatArray, float]:
    """Local maximum of the mean correlation over frames."""
    return climb_rotation(
        lambda frame: float(own.scores(frame[None], elements).mean()), start, first_deg=4.0, tolerance=1e-5, most=90
    )


def _best_frame(own: SelfCorrelation, symmetry: str, axes: dict[int, FloatArray]) -> FloatArray:
    elements = elements_of(symmetry)
    frames = _frames(symmetry, own, axes)
    score = own.scores(frames, _spread(elements, _SEARCH_ELEMENTS), coarse=True).mean(axis=1)
    few = _spread(elements, _DESCENT_ELEMENTS)
    starts: list[FloatArray] = []
    best, value = frames[0], -np.inf
    group = symmetry_matrices(symmetry)
    near = 1 + 2 * np.cos(np.deg2rad(2 * _FRAME_STEP_DEG))
    for i in np.argsort(-score, kind="stable"):
        if any(np.einsum("gij,jk,ik->g", group, frames[i], t).max() > near for t in starts):
            continue
        starts.append(frames[i])
        frame, score_there = _refine_frame(own, frames[i], few)
        if score_there > value:
            best, value = frame, score_there
        if len(starts) == _PEAKS:
            break
    return best


@any_arrays
def symmetry_scores(
    volume: Float32Array,
    reliability: FloatArray,
    candidates: Sequence[str] = CANDIDATES,
    *,
    seed: int = 0,
    threads: int | None = None,
) -> list[SymmetryScore]:
    """Fit of a map to each of some point groups, at the best orientation of its axes.

    Parameters
    ----------
    volume : (N, N, N) float32
        Masked, its centre of mass at the origin.
    reliability : (shells,) float64
        Expected squared correlation with the truth, shell by shell (2 F / (1 + F) for half maps of FSC F, of what is
        left without the spherical average); its length says which shells count. Ones for a map without noise.
    candidates : sequence of str
        Groups, RELION's orientation.
    seed : int
        Of the random orientations.
    threads : int, optional
        Threads; all by default.

    Returns
    -------
    list of SymmetryScore
        In the order of the candidates.

    Raises
    ------
    InputError
        Unknown group, or no shell can be relied on.

    Examples
    --------
    >>> import numpy as np
    >>> import verglas as vg
    >>> from verglas.map_geometry.symmetry_search import choose_symmetry, symmetry_scores
    >>> m = vg.simulate.density(vg.simulate.phantom(32, 4.0, 90.0, "C3"), 32, 4.0)
    >>> choose_symmetry(symmetry_scores(m.data, np.ones(9), ["C2", "C3"])).symmetry
    'C3'
    """
    own = SelfCorrelation(volume, reliability, threads=threads)
    with threadpool_limits(1, user_api="blas"):  # of hundreds of small products; threads would wait for each other
        return _scores_of(own, candidates, seed)


def _scores_of(own: SelfCorrelation, candidates: Sequence[str], seed: int) -> list[SymmetryScore]:
    random = euler_to_matrix(random_orientations(_NULL, seed))
    axes: dict[int, FloatArray] = {}
    results = []
    for name in candidates:
        symmetry = parse_symmetry(name)
        elements = elements_of(symmetry)
        frame = _best_frame(own, symmetry, axes)
        fit = own.scores(frame[None], elements)[0]
        null = own.scores(random, elements).mean(axis=1)
        middle = np.median(null)  # robust: some random frames fall near the axes of a symmetric map
        spread = max(1.4826 * float(np.median(np.abs(null - middle))), 1e-6)
        results.append(
            SymmetryScore(
                symmetry,
                len(symmetry_matrices(symmetry)),
                float(fit.mean() / own.expected),
                float(fit.min() / own.expected),
                float((fit.mean() - middle) / spread),
                frame,
            )
        )
    return results


def choose_symmetry(scores: Sequence[SymmetryScore]) -> SymmetryScore | None:
    """The largest group that fits; None where none does (C1).

    Examples
    --------
    >>> import numpy as np
    >>> from verglas.map_geometry.symmetry_search import SymmetryScore, choose_symmetry
    >>> c2 = SymmetryScore("C2", 2, 0.9, 0.9, 20.0, np.eye(3))
    >>> choose_symmetry([c2, SymmetryScore("D2", 4, 0.6, 0.1, 9.0, np.eye(3))]).symmetry
    'C2'
    """
    fitting = [s for s in scores if s.fits]
    return max(fitting, key=lambda s: (s.order, s.score)) if fitting else None


def symmetry_centre(volume: Float32Array, score: SymmetryScore, *, threads: int | None = None) -> FloatArray:
    r"""Where a group's axes meet, x, y, z in pixels from the origin.

    A copy turned by h about the origin is displaced by (1 - h) c; the displacements of several copies, from the peaks
    of their cross-correlations, give c by least squares (along the axis of a cyclic group: 0).

    Parameters
    ----------
    volume : (N, N, N) float32
    score : SymmetryScore
        With the axes.
    threads : int, optional
        Threads; all by default.
    """
    spectrum = fourier.forward(volume, 3, threads=threads)
    rows, values = [], []
    for g in _spread(elements_of(score.symmetry), _DESCENT_ELEMENTS):
        h = score.matrix.T @ g @ score.matrix
        copy = fourier.forward(turned_map(volume, h, threads=threads), 3, threads=threads)
        # With its axes through c, the map is its copy turned about the origin, displaced by (1 - h) c. A C group leaves
        # c free on its axis, where the least squares take the point nearest the origin.
        rows.append(np.eye(3) - h)
        values.append(_peak(fourier.inverse(spectrum * copy.conj(), volume.shape, threads=threads)))
    centre: FloatArray = np.linalg.lstsq(np.concatenate(rows), np.concatenate(values), rcond=1e-3)[0]
    return centre


def _peak(correlation: Float32Array) -> FloatArray:
    """Largest value, x, y, z from the origin, interpolated by a parabola on every axis."""
    at = np.unravel_index(int(correlation.argmax()), correlation.shape)
    out = []
    for axis in (2, 1, 0):
        n = correlation.shape[axis]
        beside = [
            tuple((a + d * (i == axis)) % m for i, (a, m) in enumerate(zip(at, correlation.shape, strict=True)))
            for d in (-1, 0, 1)
        ]
        line = [float(correlation[b]) for b in beside]
        bend = line[0] - 2 * line[1] + line[2]
        out.append(at[axis] - n // 2 + (0.5 * (line[0] - line[2]) / bend if bend < 0 else 0.0))
    return np.array(out)


@any_arrays
def mass_centre(volume: Float32Array) -> FloatArray:
    """Centre of mass of what is denser than a fifth of the largest value, x, y, z in pixels from the origin."""
    dense = np.where(volume > 0.2 * volume.max(), volume, 0).astype(np.float64)
    total = dense.sum()
    if not total > 0:
        return np.zeros(3)
    axes = [np.arange(n) - n // 2 for n in volume.shape]
    return np.array(
        [(dense.sum(axis=tuple(a for a in range(3) if a != axis)) * axes[axis]).sum() / total for axis in (2, 1, 0)]
    )


@any_arrays
def moved_map(volume: Float32Array, by_px: FloatArray, *, threads: int | None = None) -> Float32Array:
    """A map displaced by x, y, z pixels (a phase ramp)."""
    spectrum = fourier.forward(volume, 3, threads=threads)
    k = [np.fft.fftfreq(n) for n in volume.shape]
    # fftfreq calls Nyquist -1/2; the half transform has it at +1/2.
    k[2] = np.abs(k[2][: volume.shape[2] // 2 + 1])
    phase = k[0][:, None, None] * by_px[2] + k[1][None, :, None] * by_px[1] + k[2][None, None, :] * by_px[0]
    ramp = np.exp(-2j * np.pi * phase).astype(np.complex64)
    return fourier.inverse(spectrum * ramp, volume.shape, threads=threads)
