"""Which particle of one image is which of the other: triangles of neighbours, and the affine map that most agree on.

The picks of each image are joined to triangles (Delaunay). Three corners onto three corners are an affine map; only
those that a tilt can be are kept, and each is judged by how many further particles it brings onto one another, near the
triangle first and then everywhere. A tilt changes which particles are neighbours, so the first image is also
triangulated as it would look at some tilts.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
import numpy.typing as npt
from scipy.spatial import Delaunay, QhullError, cKDTree
from scipy.special import rel_entr

from verglas.errors import InputError
from verglas.tilting.geometry import plane_turn
from verglas.types.arrays import FloatArray, IntArray, any_arrays
from verglas.types.display import one_line

_LEAST = 4
_ASSUMED_TILTS_DEG = (0.0, 40.0, 55.0, 65.0)
_ASSUMED_AXES_DEG = (0.0, 30.0, 60.0, 90.0, 120.0, 150.0)
_MOST_CANDIDATES = 1_200_000  # affine maps looked at: some seconds
_SCREEN = 4000  # ... of which so many, the best by their neighbours, are counted on all
_NEIGHBOURS = 8
_REFINED = 30
_MAGNIFICATION = 0.08  # largest deviation from 1 of the stretch along the axis that a triangle may show
_LARGEST_TILT_DEG = 75.0
_TOLERANCE = 0.3  # of the typical distance between neighbours: what counts as the same place at first
_CHANCE = 1e-6  # of so many agreeing by accident, above which a match is refused


@one_line
@dataclass(frozen=True)
class Correspondence:
    """Pairs of particles.

    Attributes
    ----------
    untilted, tilted : (n,) int64
        Places, from 0, in the picks of the two images.
    matrix : (2, 2) float64
        The affine map of the first onto the second: x_t = matrix x_u + shift_px.
    shift_px : (2,) float64
    tolerance_px : float
        Distance within which places were taken for the same.
    log_chance : float
        Natural logarithm of (a bound of) the probability that so many agree by accident.
    """

    untilted: IntArray
    tilted: IntArray
    matrix: FloatArray
    shift_px: FloatArray
    tolerance_px: float
    log_chance: float

    def __len__(self) -> int:
        return len(self.untilted)


@any_arrays
def match_particles(
    untilted_px: npt.ArrayLike,
    tilted_px: npt.ArrayLike,
    *,
    tolerance_px: float | None = None,
    largest_tilt_deg: float = _LARGEST_TILT_DEG,
    seed: int = 0,
) -> Correspondence:
    """Match picks of two images of one field at different tilts.

    Parameters
    ----------
    untilted_px, tilted_px : (n, 2), (m, 2) array_like
        x, y of the picks; particles may be missing, or picked wrongly, in either.
    tolerance_px : float, optional
        Places closer than this are the same; by default what the residuals of the agreed pairs say, at most 0.4 of the
        typical distance between neighbours.
    largest_tilt_deg : float
        Tilts beyond are not considered.
    seed : int
        Of the choice of triangles, where there are too many to try all.

    Returns
    -------
    Correspondence
        One to one, in the order of the first picks.

    Raises
    ------
    InputError
        Fewer than 4 picks, or no map that more particles agree on than chance brings about.

    References
    ----------
    Vilas et al. (2016) J. Struct. Biol. 195, 100-112 (triangles and affine maps); Hauer et al. (2013) J. Struct. Biol.
    181, 149-154.

    Examples
    --------
    >>> import numpy as np
    >>> from verglas.tilting import TiltGeometry, match_particles
    >>> rng = np.random.default_rng(1)
    >>> x = rng.uniform(0, 2000, (60, 2))
    >>> moved = TiltGeometry(45.0, 5.0, 2.0, [30.0, -8.0]).map_px(x) + rng.normal(0, 2, x.shape)
    >>> order = rng.permutation(60)[:48]                   # a fifth is missing, and in another order
    >>> pairs = match_particles(x, moved[order])
    >>> len(pairs), bool((order[pairs.tilted] == pairs.untilted).all())
    (48, True)
    """
    first, second = _check(untilted_px, "untilted"), _check(tilted_px, "tilted")
    rng = np.random.default_rng([seed, 20])
    spacing = float(np.median(cKDTree(second).query(second, 2)[0][:, 1]))
    wide = tolerance_px or _TOLERANCE * spacing
    matrices, shifts, near = _candidates(first, second, largest_tilt_deg, rng)
    if not len(matrices):
        raise InputError(_no_match(first, second))
    tree = cKDTree(second)
    best = _by_neighbours(first, tree, matrices, shifts, near, wide)
    maps = {int(i): _Affine(matrices[i], shifts[i]) for i in best}
    counts = np.array([_count_agreeing(first, tree, maps[int(i)], wide) for i in best])
    best_match: Correspondence | None = None
    for i in best[np.argsort(-counts, kind="stable")][:_REFINED]:
        grown = _grow(first, second, maps[int(i)], wide, tolerance_px, spacing)
        if grown is not None and (best_match is None or grown.log_chance < best_match.log_chance):
            best_match = grown
    if best_match is None or best_match.log_chance > np.log(_CHANCE):
        raise InputError(_no_match(first, second, best_match))
    return best_match


def _check(points: npt.ArrayLike, name: str) -> FloatArray:
    array = np.asarray(points, np.float64)
    if array.ndim != 2 or array.shape[1] != 2:
        raise InputError(f"match_particles: {name} picks: expected shape (n, 2), got {array.shape}")
    if not np.isfinite(array).all():
        bad = np.flatnonzero(~np.isfinite(array).all(axis=1))[0]
        raise InputError(f"match_particles: {name} picks: particle {bad} (from 0) has no finite position")
    if len(array) < _LEAST:
        raise InputError(f"match_particles: {len(array)} {name} picks; a match needs {_LEAST} or more")
    return array


def _no_match(first: FloatArray, second: FloatArray, best: Correspondence | None = None) -> str:
    said = "no map of a tilt brings them together" if best is None else f"only {len(best)} agree, as chance has it"
    return (
        f"match_particles: {len(first)} untilted and {len(second)} tilted picks do not match ({said}): are these the "
        "two images of one field, and the picks those of its particles?"
    )


def _triangles(points: FloatArray) -> IntArray:
    """(k, 3) corners, in the turning sense of +x towards +y."""
    try:
        simplices = Delaunay(points).simplices.astype(np.int64)
    except QhullError:
        raise InputError("match_particles: the picks lie on a line, so that triangles cannot be made") from None
    return _in_one_sense(points, simplices)


def _in_one_sense(points: FloatArray, corners: IntArray) -> IntArray:
    """The triangles (k, 3) with their corners in the turning sense of +x towards +y."""
    a, b, c = (points[corners[:, i]] for i in range(3))
    against = _cross(b - a, c - a) < 0
    return np.where(against[:, None], corners[:, [0, 2, 1]], corners)


def _cross(a: FloatArray, b: FloatArray) -> FloatArray:
    return a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]


def _candidates(
    first: FloatArray, second: FloatArray, largest_tilt_deg: float, rng: np.random.Generator
) -> tuple[FloatArray, FloatArray, IntArray]:
    """Affine maps of triangles onto triangles that a tilt can be: matrices, shifts, first corner in the first image."""
    pooled = []
    for tilt, axis in product(_ASSUMED_TILTS_DEG, _ASSUMED_AXES_DEG):
        look = first @ (np.diag([np.cos(np.radians(tilt)), 1.0]) @ plane_turn(axis)).T
        pooled.append(_triangles(look))
        if tilt == 0:
            pooled = pooled[-1:]
    mine = _in_one_sense(first, np.unique(np.concatenate([np.sort(t, axis=1) for t in pooled]), axis=0))
    theirs = _triangles(second)
    most = max(20, _MOST_CANDIDATES // (3 * len(theirs)))
    if len(mine) > most:
        mine = mine[np.sort(rng.permutation(len(mine))[:most])]
    parts = [_affine_maps(first, second, mine, np.roll(theirs, turn, axis=1), largest_tilt_deg) for turn in range(3)]
    matrices, shifts, corners = (np.concatenate(group) for group in zip(*parts, strict=True))
    return matrices, shifts, corners


def _affine_maps(
    first: FloatArray, second: FloatArray, mine: IntArray, theirs: IntArray, largest_tilt_deg: float
) -> tuple[FloatArray, FloatArray, IntArray]:
    """All maps of one list of triangles onto another that a tilt can be."""
    p, q = first[mine], second[theirs]
    sides, images = p[:, 1:] - p[:, :1], q[:, 1:] - q[:, :1]  # (k, 2 sides, xy)
    area = _cross(sides[:, 0], sides[:, 1])
    usable = area > 1e-9 * np.abs(sides).max()
    inverse = np.zeros_like(sides)
    inverse[usable] = np.linalg.inv(sides[usable])
    # rows of sides times M^T give rows of images
    transposed = np.einsum("kij,ljm->klim", inverse, images)
    squares = (transposed**2).sum(axis=(2, 3))
    ratio = _cross(images[:, 0], images[:, 1])[None] / np.where(usable, area, np.inf)[:, None]  # determinant
    larger = (squares + np.sqrt(np.maximum(squares**2 - 4 * ratio**2, 0))) / 2  # square of the larger singular value
    long_, short = np.sqrt(larger), ratio / np.sqrt(np.maximum(larger, 1e-300))
    least = np.cos(np.radians(largest_tilt_deg)) * (1 - _MAGNIFICATION)
    fits = (np.abs(long_ - 1) < _MAGNIFICATION) & (short > least) & usable[:, None]
    at, to = np.nonzero(fits)
    matrices = transposed[at, to].transpose(0, 2, 1)
    shifts = q[to].mean(axis=1) - np.einsum("nij,nj->ni", matrices, p[at].mean(axis=1))
    return matrices, shifts, mine[at, 0]


def _by_neighbours(
    first: FloatArray, tree: cKDTree, matrices: FloatArray, shifts: FloatArray, near: IntArray, tolerance: float
) -> IntArray:
    """The maps that bring most of a triangle's neighbours onto particles, best first."""
    k = min(len(first), _NEIGHBOURS + 1)
    around = cKDTree(first).query(first, k)[1].reshape(len(first), k)
    score = np.zeros(len(matrices))
    for start in range(0, len(matrices), 20000):
        part = slice(start, start + 20000)
        places = np.einsum("nij,nkj->nki", matrices[part], first[around[near[part]]]) + shifts[part, None]
        distance = tree.query(places, distance_upper_bound=tolerance)[0]
        score[part] = np.clip(1 - distance / tolerance, 0, None).sum(axis=1)  # infinite where none is near
    return np.argsort(-score, kind="stable")[:_SCREEN]


@dataclass(frozen=True)
class _Affine:
    """A map of the plane."""

    matrix: FloatArray
    shift: FloatArray

    def apply(self, points: FloatArray) -> FloatArray:
        return points @ self.matrix.T + self.shift


def _count_agreeing(first: FloatArray, tree: cKDTree, affine: _Affine, tolerance: float) -> int:
    return int(np.isfinite(tree.query(affine.apply(first), distance_upper_bound=tolerance)[0]).sum())


def _mutual(first: FloatArray, second: FloatArray, affine: _Affine, tolerance: float) -> tuple[IntArray, IntArray]:
    """Pairs that are each other's nearest, within the tolerance."""
    places = affine.apply(first)
    distance, to = cKDTree(second).query(places)
    back = cKDTree(places).query(second)[1]
    kept = np.flatnonzero((distance <= tolerance) & (back[to] == np.arange(len(first))))
    return kept.astype(np.int64), to[kept].astype(np.int64)


def _grow(
    first: FloatArray,
    second: FloatArray,
    affine: _Affine,
    wide: float,
    asked: float | None,
    spacing: float,
) -> Correspondence | None:
    """Refit on the pairs that agree, until they stay the same; then the tolerance that their residuals ask for."""
    tolerance, before = wide, np.zeros(0, np.int64)
    for _ in range(12):
        mine, theirs = _mutual(first, second, affine, tolerance)
        if len(mine) < _LEAST:
            return None
        design = np.column_stack([first[mine], np.ones(len(mine))])
        linear, _, rank, _ = np.linalg.lstsq(design, second[theirs], rcond=None)
        if rank < 3:
            return None
        affine = _Affine(linear[:2].T.astype(np.float64), linear[2].astype(np.float64))
        if asked is None:
            residual = np.abs(second[theirs] - first[mine] @ affine.matrix.T - affine.shift)
            # 4 standard deviations; in so few pairs the middle of the residuals is small by accident
            sigma = 1.4826 * float(np.median(residual)) * (1 + 5 / len(mine))
            tolerance = float(np.clip(4.5 * sigma, 0.05 * spacing, 0.4 * spacing))
        if np.array_equal(mine, before):
            break
        before = mine
    mine, theirs = _mutual(first, second, affine, tolerance)
    log_chance = _log_chance(first, second, len(mine), tolerance)
    return Correspondence(mine, theirs, affine.matrix, affine.shift, tolerance, log_chance)


def _log_chance(first: FloatArray, second: FloatArray, agreeing: int, tolerance: float) -> float:
    """Log of the probability that so many agree by accident: Chernoff's bound times the maps that could be tried."""
    area = max(float(np.prod(np.ptp(second, axis=0))), 1e-300)
    hit = min(0.5, len(second) * np.pi * tolerance**2 / area)
    # three of them define the map
    n, k = max(len(first) - 3, 1), agreeing - 3
    share = k / n
    if share <= hit:
        return 0.0
    divergence = rel_entr(share, hit) + rel_entr(1 - share, 1 - hit)
    return float(min(0.0, np.log(3.0 * len(first) * len(second)) - n * divergence))
