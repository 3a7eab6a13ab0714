"""Atoms of a model with their names, in the frame of its file."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from verglas.errors import InputError
from verglas.types.arrays import FloatArray, IntArray


@dataclass(frozen=True, eq=False)
class Atoms:
    """Atoms of a model, in the order of its file.

    Attributes
    ----------
    xyz_A : (n, 3) float64
        Positions x, y, z in the frame of the file, that of a map's ``origin_A``.
    elements : (n,) str
        Chemical symbols.
    names, residue_names, chains : (n,) str
        "CA", "ALA", "A".
    residue_numbers : (n,) int64
        As in the file.
    occupancies, b_factors_A2 : (n,) float64
    name : str
        For titles and messages.
    insertion_codes : (n,) str
        "A" of residue 82A; empty, as all are where none are given, of most.

    Raises
    ------
    InputError
        No atoms, columns of different lengths, or positions that are not finite.

    Examples
    --------
    >>> from verglas.types.atoms import Atoms
    >>> a = Atoms([[0, 0, 0], [1.5, 0, 0]], ["C", "O"], ["C", "O"], ["GLY"] * 2, ["A"] * 2, [1, 1], [1, 1], [20, 30])
    >>> len(a), a.residues.tolist(), a.take([True, False]).names.tolist()
    (2, [0, 0], ['C'])
    """

    xyz_A: FloatArray
    elements: npt.NDArray[np.str_]
    names: npt.NDArray[np.str_]
    residue_names: npt.NDArray[np.str_]
    chains: npt.NDArray[np.str_]
    residue_numbers: IntArray
    occupancies: FloatArray
    b_factors_A2: FloatArray
    name: str = "model"
    insertion_codes: npt.NDArray[np.str_] = field(default_factory=lambda: np.zeros(0, "U1"))

    def __post_init__(self) -> None:
        """Convert and check once."""
        kinds: dict[str, Any] = {"xyz_A": float, "occupancies": float, "b_factors_A2": float, "residue_numbers": int}
        for name in _COLUMNS:
            object.__setattr__(self, name, np.asarray(getattr(self, name), kinds.get(name, str)))
        n = len(self.xyz_A)
        if not len(self.insertion_codes):
            object.__setattr__(self, "insertion_codes", np.zeros(n, "U1"))
        if n == 0 or self.xyz_A.shape != (n, 3):
            raise InputError(f"Atoms {self.name}: expected positions of shape (n, 3), n >= 1, got {self.xyz_A.shape}")
        for name in _COLUMNS:
            if len(getattr(self, name)) != n:
                raise InputError(f"Atoms {self.name}: {n} positions, {len(getattr(self, name))} {name}")
        if not np.isfinite(self.xyz_A).all():
            bad = int(np.flatnonzero(~np.isfinite(self.xyz_A).all(axis=1))[0])
            raise InputError(f"Atoms {self.name}: atom {bad} has a position that is not finite")

    def __len__(self) -> int:
        return len(self.xyz_A)

    def __repr__(self) -> str:
        return f"Atoms({self.name}: {len(self)} atoms, {len(np.unique(self.chains))} chains)"

    @property
    def residues(self) -> IntArray:
        """Number of each atom's residue, from 0, in the order of the file."""
        changes = (self.chains[1:] != self.chains[:-1]) | (self.residue_numbers[1:] != self.residue_numbers[:-1])
        changes |= self.residue_names[1:] != self.residue_names[:-1]
        changes |= self.insertion_codes[1:] != self.insertion_codes[:-1]  # 82, 82A, 82B: all may be serines
        return np.concatenate([[0], np.cumsum(changes)]).astype(np.int64)

    def take(self, rows: npt.ArrayLike) -> Atoms:
        """Some of the atoms, by numbers or a mask."""
        rows = np.asarray(rows)
        return replace(self, **{name: getattr(self, name)[rows] for name in _COLUMNS})

    def move(self, matrix: npt.ArrayLike, shift_A: npt.ArrayLike) -> Atoms:
        """Atoms at ``matrix @ r + shift_A``."""
        xyz = self.xyz_A @ np.asarray(matrix, np.float64).T + np.asarray(shift_A, np.float64)
        return replace(self, xyz_A=xyz)


_COLUMNS = tuple(one.name for one in fields(Atoms) if one.name != "name")
