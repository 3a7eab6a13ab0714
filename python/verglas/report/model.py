"""A model for the viewer of the pages: the trace of each chain, drawn as a tube in the map that is shown.

``viewer.js`` reads what :func:`pack_model` writes: four bytes with the length of a JSON header, the header, and the
positions x, y, z in angstrom as float32, compressed by zlib.
"""

from __future__ import annotations

import numpy as np

from verglas.report.volume import packed_bytes
from verglas.types.arrays import IntArray
from verglas.types.atoms import Atoms

#: Next atoms of a trace that are further apart than this have something missing between them, in angstrom.
_BREAK_A = {"CA": 5.0, "P": 9.0}
_WATER = ("HOH", "WAT", "DOD")
_MOST_ALONE = 4000


def pack_model(atoms: Atoms, name: str = "") -> bytes:
    """A model as the viewer reads it: alpha carbons, phosphorus atoms, and all atoms of what has neither but water.

    Parameters
    ----------
    atoms : Atoms
        In the frame of the map's ``origin_A``.
    name : str
        For people; the model's own by default.

    Returns
    -------
    bytes

    Examples
    --------
    >>> import numpy as np, json
    >>> from verglas.report.model import pack_model
    >>> from verglas.types.atoms import Atoms
    >>> xyz = [[0, 0, 0], [3.8, 0, 0], [30, 0, 0]]
    >>> a = Atoms(xyz, ["C"] * 3, ["CA"] * 3, ["GLY"] * 3, ["A"] * 3, [1, 2, 9], [1] * 3, [20] * 3)
    >>> packed = pack_model(a)
    >>> json.loads(packed[4 : 4 + int.from_bytes(packed[:4], "little")])["runs"]
    [[0, 2, 0], [2, 1, 0]]
    """
    chains = list(dict.fromkeys(atoms.chains.tolist()))
    place_of = {chain: number for number, chain in enumerate(chains)}
    rows: list[int] = []
    runs = []
    for chosen in _traces(atoms):
        runs.append([len(rows), len(chosen), place_of[str(atoms.chains[chosen[0]])]])
        rows += chosen.tolist()
    header = {
        "name": name or atoms.name,
        "kind": "model",
        "atoms": len(atoms),
        "chains": chains,
        "runs": runs,
    }
    return packed_bytes(header, atoms.xyz_A[rows].astype("<f4").tobytes())


def _traces(atoms: Atoms) -> list[IntArray]:
    """Rows of atoms that follow one another in a chain without a gap; then those that stand alone, one each."""
    traces: list[IntArray] = []
    in_trace = np.zeros(len(atoms), bool)
    for atom, element in (("CA", "C"), ("P", "P")):
        rows = np.flatnonzero((atoms.names == atom) & (np.char.upper(atoms.elements) == element))
        in_trace[rows] = True
        if len(rows):
            far = np.linalg.norm(np.diff(atoms.xyz_A[rows], axis=0), axis=1) > _BREAK_A[atom]
            traces += np.split(rows, np.flatnonzero(far | (atoms.chains[rows[1:]] != atoms.chains[rows[:-1]])) + 1)
    drawn = np.unique(atoms.residues[in_trace])
    alone = np.flatnonzero(~np.isin(atoms.residues, drawn) & ~np.isin(atoms.residue_names, _WATER))[:_MOST_ALONE]
    return traces + [np.array([row]) for row in alone]
