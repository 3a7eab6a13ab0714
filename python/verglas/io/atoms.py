"""Atomic models with the names of their atoms, from and to PDB and mmCIF files."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import gemmi
import numpy as np

from verglas.errors import FormatError
from verglas.io.atomic import atomic_path
from verglas.types.atoms import Atoms

PathLike = str | os.PathLike[str]
_PLACE = 5  # column of number and insertion code


def read_atoms(path: PathLike, *, water: bool = True) -> Atoms:
    """Atoms of a model, without hydrogens; of alternative positions and alternative residues the first.

    Parameters
    ----------
    path : path
        ``.pdb``, ``.ent``, ``.cif`` (also ``.gz``); the first model of the file is read, its deposited chains alone.
    water : bool
        Keep water molecules.

    Returns
    -------
    Atoms
        In the file's frame.

    Raises
    ------
    FormatError
        The file cannot be read as a model, or has no atoms.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> from verglas.io import read_atoms
    >>> atom = "HETATM    1 ZN    ZN A   1       1.000   2.000   3.000  1.00 20.00          ZN"
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = pathlib.Path(folder, "one.pdb").write_text(atom)
    ...     read_atoms(pathlib.Path(folder, "one.pdb"))
    Atoms(one.pdb: 1 atoms, 1 chains)
    """
    structure = _structure(path)
    rows = [
        (a.pos.tolist(), a.element.name, a.name, residue.name, chain.name, residue.seqid, a.occ, a.b_iso)
        for chain in structure[0]
        for residue in _first_residues(chain)
        if water or not residue.is_water()
        for a in _first_positions(residue)
        if not a.is_hydrogen()
    ]
    if not rows:
        raise FormatError(f"{path}: no atoms besides hydrogen" + ("" if water else " and water"))
    columns: list[Any] = list(zip(*rows, strict=True))
    places = columns[_PLACE]
    columns[_PLACE] = [place.num for place in places]
    codes = [place.icode.strip() for place in places]
    return replace(Atoms(*columns), name=os.path.basename(os.fspath(path)), insertion_codes=np.array(codes))


def write_moved_model(source: PathLike, target: PathLike, matrix: list[list[float]], shift_A: list[float]) -> None:
    """A copy of a model file (mmCIF or PDB, by the target's suffix) with all atoms at ``matrix @ r + shift_A``."""
    structure = _structure(source)
    transform = gemmi.Transform(gemmi.Mat33(matrix), gemmi.Vec3(*shift_A))
    for model in structure:
        model.transform_pos_and_adp(transform)
    with atomic_path(target) as place:
        if Path(target).suffix.lower() in (".pdb", ".ent"):
            structure.write_pdb(str(place))
        else:
            structure.make_mmcif_document().write_file(str(place))


def _first_residues(chain: gemmi.Chain) -> Iterator[gemmi.Residue]:
    """Residues, of those that stand in one another's place (all of their atoms alternatives) the first."""
    taken = set()
    for residue in chain:
        place = str(residue.seqid)
        if all(atom.has_altloc() for atom in residue):
            if place in taken:
                continue
            taken.add(place)
        yield residue


def _first_positions(residue: gemmi.Residue) -> Iterator[gemmi.Atom]:
    """One atom of each name: which letters stand for alternatives, and where they begin, files do not agree on."""
    names = set()
    for atom in residue:
        if not atom.has_altloc():
            yield atom
        elif atom.name not in names:
            names.add(atom.name)
            yield atom


def _structure(path: PathLike) -> gemmi.Structure:
    if not os.path.isfile(path):
        raise FormatError(f"{path}: no such file")
    try:
        structure = gemmi.read_structure(os.fspath(path))
    except (ValueError, RuntimeError, OSError) as error:
        raise FormatError(f"{path}: not a readable PDB or mmCIF model: {error}") from None
    if len(structure) == 0:
        raise FormatError(f"{path}: no atoms")
    return structure
