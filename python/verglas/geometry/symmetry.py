"""Point groups Cn, Dn, T, O, I1..I4 in RELION's orientations, and what orientations and directions mean modulo them.

The elements R_g of ``symmetry_matrices`` act on the volume frame: a symmetric map has V(R_g r) = V(r). A pose A
therefore gives the same projection as A R_g (the element stands on the *right*; the set of A R_g is also the set of
A R_g^T, since a group holds its inverses), and its viewing axis d = A^T z becomes R_g^T d.

| group | order | axes |
| --- | --- | --- |
| Cn | n | n-fold on z |
| Dn | 2 n | n-fold on z, 2-fold on x |
| T | 12 | 3-folds on z and on (0, -2 sqrt 2, 1)/3 |
| O | 24 | 4-folds on x, y, z |
| I1 | 60 | 2-folds on x, y, z; 5-folds on (g, 0, +-1), g = (1 + sqrt 5)/2 |
| I2 (= I) | 60 | 2-folds on x, y, z; 5-folds on (+-1, 0, g) |
| I3 | 60 | 5-folds on z and (2, 0, -1); 2-fold on y |
| I4 | 60 | 5-folds on z and (2, 0, 1); 2-fold on y |
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from scipy.spatial.transform import Rotation

from verglas.errors import InputError
from verglas.geometry.euler import direction_vectors, euler_to_matrix, matrix_to_euler
from verglas.types.arrays import FloatArray, any_arrays

MAX_FOLD = 360
_GOLDEN = (1 + 5**0.5) / 2
_NORM = (1 + _GOLDEN**2) ** 0.5
# Two elements closer than this are one: far above rounding, far below the 1-degree step of C360.
_SAME = 1e-7
# Scores within this are a tie: a direction on the border of the asymmetric unit.
_TIE = 1e-9
# Which of two equivalent directions on the border is kept: the one nearer this axis of no symmetry.
_TIE_AXIS = np.array([1.0, 0.003, 0.1])
# Rows worked on at once, so that a million poses times 60 elements need no gigabytes.
_CHUNK = 65536

# Per icosahedral setting: two neighbouring 5-folds (they generate the group) and the 3-fold beside the first.
_ICOSAHEDRAL: dict[str, tuple[tuple[float, float, float], ...]] = {
    "I1": ((_GOLDEN, 0, 1), (_GOLDEN, 0, -1), (1, 1, 1)),
    "I2": ((1, 0, _GOLDEN), (-1, 0, _GOLDEN), (1, 1, 1)),
    "I3": ((0, 0, 1), (2, 0, -1), (_GOLDEN - 1, _NORM, _GOLDEN + 1)),
    "I4": ((0, 0, 1), (2, 0, 1), (1 - _GOLDEN, _NORM, _GOLDEN + 1)),
}


@dataclass(frozen=True)
class _Group:
    """Generators as (axis, fold); the order they must close to; a direction inside the asymmetric unit."""

    generators: tuple[tuple[tuple[float, float, float], int], ...]
    order: int
    inside: FloatArray


def parse_symmetry(symmetry: str) -> str:
    """The group's name as verglas writes it: upper case, bare I as I2.

    Raises
    ------
    InputError
        Not the name of a rotation group; the message says what was expected.

    Examples
    --------
    >>> from verglas.geometry import parse_symmetry
    >>> parse_symmetry("c10"), parse_symmetry("I")
    ('C10', 'I2')
    """
    name = str(symmetry).strip().upper()
    if name == "I":
        return "I2"
    if name in ("T", "O", *_ICOSAHEDRAL):
        return name
    match = re.fullmatch(r"([CD])([1-9][0-9]*)", name)
    if match and int(match[2]) <= MAX_FOLD:
        return name
    hint = f"expected Cn or Dn (n = 1 to {MAX_FOLD}), T, O, I, I1, I2, I3 or I4"
    if re.fullmatch(r"[CD][0-9O]*O[0-9O]*", name) and name[1] != "O":
        hint += f"; did you mean {name.replace('O', '0')}, with the digit zero?"
    elif name in ("CI", "CS", "TD", "TH", "OH", "IH") or re.fullmatch(
        r"C[0-9]+[HV]|D[0-9]+[HVD]|S[0-9]+|I[1-4]H", name
    ):
        hint += "; groups with mirrors or inversions have no place here, since proteins and nucleic acids are chiral"
    raise InputError(f"symmetry {symmetry!r}: {hint}")


def _unit(vector: npt.ArrayLike) -> FloatArray:
    v = np.asarray(vector, dtype=np.float64)
    return np.asarray(v / np.linalg.norm(v))


def _group(name: str) -> _Group:
    """Definition of a parsed name. ``inside`` makes the unit 0 <= rot < 360/n for Cn (and tilt <= 90 for Dn)."""
    z = (0.0, 0.0, 1.0)
    if name[0] in "CD":
        n = int(name[1:])
        wedge = np.pi / n
        if name[0] == "C":
            return _Group(((z, n),), n, np.array([np.cos(wedge), np.sin(wedge), 0.0]))
        return _Group(((z, n), ((1.0, 0.0, 0.0), 2)), 2 * n, _unit([np.cos(wedge), np.sin(wedge), 1.0]))
    # Polyhedral groups: a kite between the highest axis and the neighbouring 3-fold, so the unit is compact.
    if name == "T":
        second = (0.0, -2 * 2**0.5 / 3, 1 / 3)
        return _Group(((z, 3), (second, 3)), 12, _unit(_unit(z) + second))
    if name == "O":
        return _Group(((z, 4), ((1.0, 0.0, 0.0), 4)), 24, _unit(_unit(z) + _unit([1, 1, 1])))
    first, second, third = _ICOSAHEDRAL[name]
    return _Group(((first, 5), (second, 5)), 60, _unit(_unit(first) + _unit(third)))


def _close(generators: list[FloatArray], limit: int) -> FloatArray:
    """Every product of the generators, identity first; stops one element after ``limit``."""
    elements = np.empty((limit + 1, 9))
    elements[0] = np.eye(3).ravel()
    count, first = 1, 0
    while first < count <= limit:
        for generator in generators:
            product = (elements[first].reshape(3, 3) @ generator).ravel()
            if (np.abs(elements[:count] - product).max(axis=1) > _SAME).all() and count <= limit:
                elements[count] = product
                count += 1
        first += 1
    return elements[:count].reshape(-1, 3, 3)


@lru_cache(maxsize=32)
def _cached_matrices(name: str) -> FloatArray:
    group = _group(name)
    generators = [Rotation.from_rotvec(_unit(axis) * 2 * np.pi / fold).as_matrix() for axis, fold in group.generators]
    elements = _close(generators, group.order)
    if len(elements) != group.order:
        raise InputError(f"symmetry {name}: the generators close to {len(elements)} elements, not {group.order}")
    # Whole numbers come out whole: the cosine of 90 degrees is 0, not 6e-17.
    rounded = np.rint(2 * elements) / 2
    elements = np.where(np.abs(elements - rounded) < 1e-14, rounded + 0.0, elements)
    # Cached and handed out without a copy: a caller that wrote into it would change the group for all others.
    elements.setflags(write=False)
    return elements


def symmetry_matrices(symmetry: str) -> FloatArray:
    """The elements of a point group, by closure from two generators, order checked.

    Parameters
    ----------
    symmetry : str
        ``Cn``, ``Dn`` (n up to 360), ``T``, ``O``, ``I1`` .. ``I4``; bare ``I`` is ``I2``. Orientations as in RELION
        (see the table at the head of this module). Case does not matter.

    Returns
    -------
    (order, 3, 3) float64, read-only
        Identity first. A symmetric map has V(R_g r) = V(r); the poses A and A R_g give one projection.

    Raises
    ------
    InputError
        Not the name of a rotation group.

    References
    ----------
    Heymann, Chagoyen and Belnap (2005) J. Struct. Biol. 151, 196-207, for the settings of the icosahedral group.

    Examples
    --------
    >>> import verglas as vg
    >>> vg.symmetry_matrices("O").shape, vg.symmetry_matrices("C10").shape
    ((24, 3, 3), (10, 3, 3))
    """
    return _cached_matrices(parse_symmetry(symmetry))


def symmetry_order(symmetry: str) -> int:
    """Number of elements of a point group.

    Examples
    --------
    >>> from verglas.geometry import symmetry_order
    >>> [symmetry_order(s) for s in ("C1", "D7", "T", "O", "I3")]
    [1, 14, 12, 24, 60]
    """
    return _group(parse_symmetry(symmetry)).order


def _chunks(n: int) -> Iterator[slice]:
    return (slice(start, start + _CHUNK) for start in range(0, n, _CHUNK))


def _unit_choice(vectors: FloatArray, name: str) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
    """Element that takes each viewing axis d into the asymmetric unit (R_g^T d lies in it), and whether d is in it.

    The unit is the Dirichlet cell of the group's ``inside`` point c: R_g^T d . c is largest for the right g. Ties (the
    border) are decided by a second axis, so that one of several equivalent border directions is kept.
    """
    elements, inside = _cached_matrices(name), _group(name).inside
    scores, ties = vectors @ (elements @ inside).T, vectors @ (elements @ _TIE_AXIS).T
    ties[scores < scores.max(axis=1, keepdims=True) - _TIE] = -np.inf
    choice = ties.argmax(axis=1)
    return choice, ties[:, 0] >= ties.max(axis=1) - _TIE


@any_arrays
def asymmetric_unit(directions_deg: npt.ArrayLike, symmetry: str) -> npt.NDArray[np.bool_]:
    """Which viewing directions lie in the asymmetric unit of a group.

    Parameters
    ----------
    directions_deg : (n, 2)
        rot, tilt in degrees.
    symmetry : str
        Group as in :func:`symmetry_matrices`. The unit is 0 <= rot < 360/n for Cn, the same with tilt <= 90 for Dn, and
        for T, O, I a kite between the highest axis and a neighbouring 3-fold. Its area is 4 pi / order.

    Returns
    -------
    (n,) bool
        Of equivalent directions on the border one is in.

    Examples
    --------
    >>> from verglas.geometry import asymmetric_unit
    >>> asymmetric_unit([[10, 50], [100, 50], [10, 130]], "D4").tolist()
    [True, False, False]
    """
    name, vectors = parse_symmetry(symmetry), direction_vectors(directions_deg)
    parts = [_unit_choice(vectors[rows], name)[1] for rows in _chunks(len(vectors))]
    return np.concatenate(parts) if parts else np.zeros(0, dtype=bool)


@any_arrays
def to_asymmetric_unit(angles_deg: npt.ArrayLike, symmetry: str) -> FloatArray:
    """Equivalent poses A R_g whose viewing directions lie in the asymmetric unit.

    Parameters
    ----------
    angles_deg : (n, 3)
        rot, tilt, psi in degrees.
    symmetry : str
        Group as in :func:`symmetry_matrices`.

    Returns
    -------
    (n, 3) float64
        rot, tilt, psi of poses with the same projections of a symmetric map.

    Examples
    --------
    >>> from verglas.geometry import to_asymmetric_unit
    >>> (to_asymmetric_unit([[100, 50, 20]], "C4") + 0.0).round(9).tolist()
    [[10.0, 50.0, 20.0]]
    """
    name, poses = parse_symmetry(symmetry), euler_to_matrix(angles_deg)
    elements = _cached_matrices(name)
    parts = [poses[rows] @ elements[_unit_choice(poses[rows, 2], name)[0]] for rows in _chunks(len(poses))]
    return matrix_to_euler(np.concatenate(parts)) if parts else np.zeros((0, 3))


@any_arrays
def angular_distance(a_deg: npt.ArrayLike, b_deg: npt.ArrayLike, symmetry: str = "C1") -> FloatArray:
    r"""Angle of the rotation between poses, modulo symmetry.

    .. math:: d(A, B) = \min_g \angle(A R_g B^T), \quad \sin(d/2) = \|A R_g - B\|_F / \sqrt 8

    Parameters
    ----------
    a_deg, b_deg : (n, 3) or (3,)
        rot, tilt, psi in degrees; one pose stands for all.
    symmetry : str
        Group as in :func:`symmetry_matrices`.

    Returns
    -------
    (n,) float64
        Degrees, 0 to 180; exact for small angles too (no arccosine).

    Examples
    --------
    >>> from verglas.geometry import angular_distance
    >>> angular_distance([[0, 0, 0]], [[90, 0, 0]]).round(9).tolist()
    [90.0]
    >>> angular_distance([[0, 0, 0]], [[90, 0, 0]], "C4").round(9).tolist()
    [0.0]
    """
    elements = _cached_matrices(parse_symmetry(symmetry))
    a, b = np.broadcast_arrays(*(euler_to_matrix(np.atleast_2d(angles)) for angles in (a_deg, b_deg)))
    out = np.empty(len(a))
    for rows in _chunks(len(a)):
        # trace(A R B^T) = sum_ij R_ij (A^T B)_ij: one small matrix product for all elements.
        relative = np.swapaxes(a[rows], 1, 2) @ b[rows]
        best = (relative.reshape(-1, 9) @ elements.reshape(-1, 9).T).argmax(axis=1)
        # |A - B| = sqrt(8) sin(angle / 2): the arc cosine of the trace cannot tell angles below 1e-6 degrees from 0.
        gap = np.linalg.norm(a[rows] @ elements[best] - b[rows], axis=(1, 2))
        out[rows] = np.rad2deg(2 * np.arcsin(np.minimum(gap / 8**0.5, 1.0)))
    return out
