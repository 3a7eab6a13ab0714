"""Atomic models from PDB and mmCIF files, with their biological assemblies."""

from __future__ import annotations

import os

import gemmi
import numpy as np

from verglas.errors import FormatError, InputError
from verglas.simulate.model import Model


def read_model(
    path: str | os.PathLike[str], assembly: str | None = "1", *, water: bool = False, recentre: bool = True
) -> Model:
    """Atoms of a PDB or mmCIF file, plain or gzipped.

    Parameters
    ----------
    path : path
        ``.pdb``, ``.ent``, ``.cif`` (also ``.gz``); the first model of the file is read.
    assembly : str or None
        Biological assembly by its name in the file, usually "1"; None for the deposited chains alone.
    water : bool
        Keep water molecules. Every alternative position is kept, with its occupancy as weight.
    recentre : bool
        Move the centre of mass (weighted by occupancy) to the origin; the orientation is kept.

    Returns
    -------
    Model
        Weights are occupancies, B-factors those of the file.

    Raises
    ------
    FormatError
        The file cannot be read as a model, or has no atoms.
    InputError
        The file does not name this assembly; the message lists what it has.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> from verglas import simulate
    >>> atom = "HETATM    1 ZN    ZN A   1       1.000   2.000   3.000  1.00 20.00          ZN"
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = pathlib.Path(folder, "one.pdb").write_text(atom)
    ...     m = simulate.read_model(pathlib.Path(folder, "one.pdb"), assembly=None, recentre=False)
    >>> m.elements.tolist(), m.xyz_A.tolist(), m.b_factors_A2.tolist()
    (['Zn'], [[1.0, 2.0, 3.0]], [20.0])
    """
    structure = _read(path)
    chains = structure[0] if assembly is None else _assemble(structure, assembly, path)
    atoms = [
        (atom.pos.x, atom.pos.y, atom.pos.z, atom.occ, atom.b_iso, atom.element.name)
        for chain in chains
        for residue in chain
        if water or not residue.is_water()
        for atom in residue
    ]
    if not atoms:
        raise FormatError(f"{path}: no atoms" + ("" if water else " besides water"))
    numbers = np.array([row[:5] for row in atoms])
    if not numbers[:, 3].sum() > 0:
        raise FormatError(f"{path}: every occupancy is 0")
    name = os.path.basename(os.fspath(path)) + ("" if assembly is None else f" assembly {assembly}")
    model = Model(numbers[:, :3], np.array([row[5] for row in atoms]), numbers[:, 3], numbers[:, 4], name)
    return model.recentre() if recentre else model


def _read(path: str | os.PathLike[str]) -> gemmi.Structure:
    if not os.path.isfile(path):
        raise FormatError(f"{path}: no such file")
    try:
        structure = gemmi.read_structure(os.fspath(path))
    except (ValueError, RuntimeError, OSError) as error:
        raise FormatError(f"{path}: not a readable PDB or mmCIF model: {error}") from None
    if len(structure) == 0:
        raise FormatError(f"{path}: no atoms")
    return structure


def _assemble(structure: gemmi.Structure, name: str, path: str | os.PathLike[str]) -> gemmi.Model:
    for assembly in structure.assemblies:
        if assembly.name == str(name):
            return gemmi.make_assembly(assembly, structure[0], gemmi.HowToNameCopiedChain.AddNumber)
    names = ", ".join(repr(a.name) for a in structure.assemblies)
    raise InputError(
        f"{path}: no assembly {str(name)!r}; the file has {names or 'none'}: "
        "name one of these, or use assembly=None for the deposited chains"
    )
