"""How distinctly a map shows side chains and elements of secondary structure: against displaced copies of them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.spatial import cKDTree
from scipy.spatial.distance import cdist

from verglas.assessment.q_score import sample
from verglas.types import Map
from verglas.types.arrays import FloatArray, IntArray
from verglas.types.atoms import Atoms
from verglas.types.convert import MapLike, map_of

_BACKBONE = ("N", "CA", "C", "O", "OXT", "CB")  # what a turn about the axis CA-CB leaves where it is
_TURNS_DEG = np.arange(20, 341, 20)  # a side chain's other places
_CLASH_A = 2.2  # a copy whose atoms come closer to another residue's than this is no place it could have
_FEWEST_COPIES = 5
_SHIFTS_A = (3.0, 4.0, 5.0, 6.0)


class _Within(NamedTuple):
    value: float
    tolerance: float


# P-SEA (Labesse et al., CABIOS 13 (1997) 291): distances of a CA to the second, third and fourth after it, angstrom,
# and the dihedral angle of four, degrees, each with its tolerance. Distances alone call extended loops strands.
_RULES = {
    "helix": ((_Within(5.5, 0.5), _Within(5.3, 0.5), _Within(6.4, 0.6)), _Within(50.0, 20.0)),
    "strand": ((_Within(6.7, 0.6), _Within(9.9, 0.9), _Within(12.4, 1.1)), _Within(-170.0, 45.0)),
}
_STRETCH = 5  # residues that the longest of the distances spans
_CHAIN_STEP_A = 4.2  # CA to CA of residues that follow one another: 3.8 A, 2.9 in a cis peptide


def side_chain_z(volume: MapLike, atoms: Atoms) -> FloatArray:
    r"""Z-score of every residue's side chain: the map where it is, against where it would be when turned.

    Copies are the side chain turned about the axis from CA to CB in steps of 20 degrees, but those that would come
    within 2.2 angstrom of another residue. With m the mean of the map at a copy's atoms beyond CB,

    .. math:: Z = \frac{m_0 - \bar m_{copies}}{\mathrm{sd}(m_{copies})}

    Parameters
    ----------
    volume : Map or path
        Any box; its ``origin_A`` says where it lies.
    atoms : Atoms
        In the map's frame, without hydrogens.

    Returns
    -------
    (residues,) float64
        In the order of :attr:`~verglas.types.atoms.Atoms.residues`; NaN for glycine, alanine and what is no amino acid,
        where fewer than five copies are possible, and outside the map.

    References
    ----------
    Pintilie and Chiu, J. Struct. Biol. 204 (2018) 564; copies are chosen differently here.

    Examples
    --------
    >>> import numpy as np, verglas as vg
    >>> from verglas.assessment import side_chain_z
    >>> names, xyz = ["N", "CA", "C", "CB", "SG"], [[7, 9, 8], [8, 8, 8], [9, 9, 8], [8, 8, 9.5], [9.7, 8, 10]]
    >>> residue = vg.types.atoms.Atoms(xyz, ["C"] * 5, names, ["CYS"] * 5, ["A"] * 5, [1] * 5, [1] * 5, [20] * 5)
    >>> density = vg.assessment.model_density.model_density(residue, vg.Map(np.zeros((20, 20, 20)), 1.0))
    >>> bool(side_chain_z(density, residue)[0] > 2)
    True
    """
    volume = map_of(volume, "side_chain_z: the map")
    residue, tree = atoms.residues, cKDTree(atoms.xyz_A)
    starts = np.flatnonzero(np.diff(residue, prepend=-1))
    known: list[int] = []
    copies: list[FloatArray] = []
    for number, rows in enumerate(np.split(np.arange(len(atoms)), starts[1:])):
        beyond = rows[~np.isin(atoms.names[rows], _BACKBONE)]
        axis = _axis(atoms, rows)
        if axis is None or not len(beyond):
            continue
        places = _turn(atoms.xyz_A[beyond], *axis)
        reach = float(np.linalg.norm(places[0] - axis[0], axis=1).max()) + _CLASH_A
        near = np.array(tree.query_ball_point(axis[0], reach), np.int64)
        free = _are_free(places, atoms.xyz_A[near[residue[near] != number]])
        free[0] = True  # the model's own, whatever it touches
        known.append(number)
        copies.append(places[free])
    out = np.full(int(residue[-1]) + 1, np.nan)
    out[known] = _z_scores(volume, copies)
    return out


def secondary_structure(atoms: Atoms) -> pd.DataFrame:
    """Helices and strands of a model, from the distances between its CA atoms (the rules of P-SEA).

    Parameters
    ----------
    atoms : Atoms

    Returns
    -------
    DataFrame
        A row per element: kind ("helix" or "strand"), chain, first and last residue number, residues, and the numbers
        of its first and last residue in :attr:`~verglas.types.atoms.Atoms.residues` (``start``, ``end``).

    References
    ----------
    Labesse et al., Comput. Appl. Biosci. 13 (1997) 291.

    Examples
    --------
    >>> import numpy as np
    >>> from verglas.assessment import secondary_structure
    >>> from verglas.types.atoms import Atoms
    >>> turn = np.deg2rad(100) * np.arange(12)
    >>> xyz = np.column_stack([2.3 * np.cos(turn), 2.3 * np.sin(turn), 1.5 * np.arange(12)])
    >>> helix = Atoms(xyz, ["C"] * 12, ["CA"] * 12, ["ALA"] * 12, ["A"] * 12, range(1, 13), [1] * 12, [20] * 12)
    >>> secondary_structure(helix)[["kind", "first", "last"]].values.tolist()
    [['helix', 1, 12]]
    """
    trace = np.flatnonzero((atoms.names == "CA") & (atoms.elements == "C"))
    residue = atoms.residues[trace]
    xyz, chain = atoms.xyz_A[trace], atoms.chains[trace]
    follows = np.zeros(len(trace), bool)  # bonded to the next
    follows[:-1] = (np.linalg.norm(np.diff(xyz, axis=0), axis=1) < _CHAIN_STEP_A) & (chain[1:] == chain[:-1])
    rows = []
    for kind, (distances, dihedral) in _RULES.items():
        for start, end in _runs(_fits(xyz, follows, distances, dihedral), follows):
            first, last = (int(atoms.residue_numbers[trace[i]]) for i in (start, end))
            rows.append((kind, chain[start], first, last, end - start + 1, int(residue[start]), int(residue[end])))
    columns = ["kind", "chain", "first", "last", "residues", "start", "end"]
    return pd.DataFrame(rows, columns=columns).sort_values("start", ignore_index=True)


def element_z(volume: MapLike, atoms: Atoms, elements: pd.DataFrame | None = None) -> pd.DataFrame:
    r"""Z-score of every helix and strand: the map at its backbone against shifted copies of it.

    Copies are shifted by 3, 4, 5 and 6 angstrom at right angles to the element's axis, in twelve directions each; the
    score is that of :func:`side_chain_z`.

    Parameters
    ----------
    volume : Map or path
    atoms : Atoms
        In the map's frame.
    elements : DataFrame, optional
        From :func:`secondary_structure`, which is called if it is not given.

    Returns
    -------
    DataFrame
        ``elements`` with a column ``z``; NaN where copies leave the map.

    Examples
    --------
    >>> import numpy as np, verglas as vg
    >>> from verglas.assessment import element_z
    >>> turn = np.deg2rad(100) * np.arange(12)
    >>> xyz = np.column_stack([2.3 * np.cos(turn), 2.3 * np.sin(turn), 1.5 * np.arange(12)]) + [16, 16, 8]
    >>> of = (["C"] * 12, ["CA"] * 12, ["ALA"] * 12, ["A"] * 12, range(1, 13), [1] * 12, [80] * 12)
    >>> helix = vg.types.atoms.Atoms(xyz, *of)
    >>> density = vg.assessment.model_density.model_density(helix, vg.Map(np.zeros((32, 32, 32)), 1.0))
    >>> bool(element_z(density, helix)["z"][0] > 2)
    True
    """
    volume = map_of(volume, "element_z: the map")
    table = secondary_structure(atoms) if elements is None else elements
    residue, backbone = atoms.residues, np.isin(atoms.names, ("N", "CA", "C", "O"))
    copies = []
    for start, end in table[["start", "end"]].to_numpy(np.int64):
        xyz = atoms.xyz_A[backbone & (residue >= start) & (residue <= end)]
        across = np.linalg.svd(xyz - xyz.mean(axis=0), full_matrices=False)[2][1:]  # two, at right angles to its axis
        angle = np.deg2rad(30 * np.arange(12))
        around = np.cos(angle)[:, None] * across[0] + np.sin(angle)[:, None] * across[1]
        shifts = np.concatenate([[np.zeros(3)], *(reach * around for reach in _SHIFTS_A)])
        copies.append(xyz + shifts[:, None])
    return table.assign(z=_z_scores(volume, copies))


def _axis(atoms: Atoms, rows: IntArray) -> tuple[FloatArray, FloatArray] | None:
    """CA, and the unit vector from it to CB; None where a residue has no such axis."""
    names = atoms.names[rows]
    ends = [rows[names == name] for name in ("CA", "CB")]
    if any(len(end) != 1 for end in ends):
        return None
    at, to = (atoms.xyz_A[end[0]] for end in ends)
    length = float(np.linalg.norm(to - at))
    return (at, (to - at) / length) if length > 0 else None


def _turn(xyz: FloatArray, at: FloatArray, direction: FloatArray) -> FloatArray:
    """Positions as they are and turned about an axis (Rodrigues' formula), (1 + turns, atoms, 3)."""
    r, angle = xyz - at, np.deg2rad(np.concatenate([[0.0], _TURNS_DEG]))[:, None, None]
    along = (r @ direction)[:, None] * direction
    return np.asarray(at + along + np.cos(angle) * (r - along) + np.sin(angle) * np.cross(direction, r))


def _are_free(places: FloatArray, others: FloatArray) -> npt.NDArray[np.bool_]:
    """Which of some copies, (copies, atoms, 3), keep off the atoms of other residues."""
    if not len(others):
        return np.ones(len(places), bool)
    closest = cdist(places.reshape(-1, 3), others).min(axis=1).reshape(places.shape[:2])
    return np.asarray((closest >= _CLASH_A).all(axis=1))


def _z_scores(volume: Map, copies: list[FloatArray]) -> FloatArray:
    """Of the first of each set of copies, (copies, atoms, 3), against the others."""
    if not copies:
        return np.zeros(0)
    values = sample(volume, np.concatenate([places.reshape(-1, 3) for places in copies]))
    ends = np.cumsum([places.shape[0] * places.shape[1] for places in copies])
    scores = np.full(len(copies), np.nan)
    for row, (places, own) in enumerate(zip(copies, np.split(values, ends[:-1]), strict=True)):
        mean = own.reshape(places.shape[:2]).mean(axis=1)
        others = mean[1:][np.isfinite(mean[1:])]
        if np.isfinite(mean[0]) and len(others) >= _FEWEST_COPIES and others.std() > 0:
            scores[row] = (mean[0] - others.mean()) / others.std()
    return scores


def _fits(
    xyz: FloatArray,
    follows: npt.NDArray[np.bool_],
    distances: tuple[_Within, ...],
    dihedral: _Within,
) -> npt.NDArray[np.bool_]:
    """Which residues lie in a stretch of five whose distances and dihedral angles are those of the rule."""
    stretches, inside = len(xyz) - _STRETCH + 1, np.zeros(len(xyz), bool)
    if stretches < 1:
        return inside
    whole = np.logical_and.reduce([follows[step : step + stretches] for step in range(_STRETCH - 1)])
    for step, (length, tolerance) in enumerate(distances, 2):
        whole &= np.abs(np.linalg.norm(xyz[step:] - xyz[:-step], axis=1)[:stretches] - length) <= tolerance
    middle, tolerance = dihedral
    away = np.abs((_dihedrals_deg(xyz) - middle + 180) % 360 - 180)
    for step in range(2):
        whole &= away[step : step + stretches] <= tolerance
    for offset in range(_STRETCH):
        inside[offset : stretches + offset] |= whole
    return inside


def _dihedrals_deg(xyz: FloatArray) -> FloatArray:
    """Of every four positions in a row, (n - 3,)."""
    bonds = np.diff(xyz, axis=0)
    first, second = np.cross(bonds[:-2], bonds[1:-1]), np.cross(bonds[1:-1], bonds[2:])
    sine = np.linalg.norm(bonds[1:-1], axis=1) * (bonds[:-2] * second).sum(axis=1)
    return np.rad2deg(np.arctan2(sine, (first * second).sum(axis=1)))


def _runs(inside: npt.NDArray[np.bool_], follows: npt.NDArray[np.bool_]) -> list[tuple[int, int]]:
    """First and last of every stretch of residues that follow one another."""
    goes_on = inside[:-1] & inside[1:] & follows[:-1]
    starts = np.flatnonzero(inside & ~np.concatenate([[False], goes_on]))
    ends = np.flatnonzero(inside & ~np.concatenate([goes_on, [False]]))
    return [(int(start), int(end)) for start, end in zip(starts, ends, strict=True)]
