"""Atomic and pseudo-atomic models."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from verglas.errors import InputError
from verglas.types.display import one_line

# Default of a column that __post_init__ fills in; typed so that readers of the class see the arrays it then holds.
_ABSENT: Any = None


@one_line
@dataclass(frozen=True)
class Model:
    """Atoms in the frame of a map: the origin is the centre of the box (voxel N // 2).

    Attributes
    ----------
    xyz_A : (n, 3) float64
        Positions in angstrom, columns x, y, z.
    elements : (n,) str
        Chemical symbols ("C", "Zn"): they choose the scattering factor (:mod:`verglas.simulate.scattering`).
    weights : (n,) float64
        Occupancy; pseudo-atoms carry the number of atoms they stand for. 1 by default.
    b_factors_A2 : (n,) float64
        Isotropic B-factors: the amplitude falls as exp(-B k^2/4). 0 by default.
    name : str
        For titles and messages.

    Raises
    ------
    InputError
        No atoms, columns of different lengths, or a number that is not finite; the first bad atom is named.

    Examples
    --------
    >>> from verglas.simulate import Model
    >>> m = Model([[0, 0, 0], [2.0, 0, 0]], "C")
    >>> len(m), m.radius_A, m.recentre().xyz_A.tolist()
    (2, 2.0, [[-1.0, 0.0, 0.0], [1.0, 0.0, 0.0]])
    """

    xyz_A: npt.NDArray[np.float64]
    elements: npt.NDArray[np.str_]
    weights: npt.NDArray[np.float64] = _ABSENT
    b_factors_A2: npt.NDArray[np.float64] = _ABSENT
    name: str = "model"

    def __post_init__(self) -> None:
        """Broadcast single values and check once."""
        xyz = np.ascontiguousarray(np.atleast_2d(np.asarray(self.xyz_A, np.float64)))
        if xyz.ndim != 2 or xyz.shape[1] != 3 or len(xyz) == 0:
            raise InputError(f"Model {self.name}: expected positions of shape (n, 3) with n >= 1, got {xyz.shape}")
        object.__setattr__(self, "xyz_A", xyz)
        for column, default, dtype in (("elements", "C", None), ("weights", 1.0, float), ("b_factors_A2", 0.0, float)):
            value = getattr(self, column)
            array = np.atleast_1d(np.asarray(default if value is None else value, dtype=dtype))
            if array.shape not in {(1,), (len(xyz),)}:
                raise InputError(f"Model {self.name}: {len(xyz)} atoms but {column} has shape {array.shape}")
            object.__setattr__(self, column, np.ascontiguousarray(np.broadcast_to(array, len(xyz))))
        finite = np.isfinite(xyz).all(1) & np.isfinite(self.weights) & np.isfinite(self.b_factors_A2)
        if not finite.all():
            bad = int(np.flatnonzero(~finite)[0])
            raise InputError(f"Model {self.name}: atom {bad} has a position, weight or B-factor that is not finite")

    def __len__(self) -> int:
        return len(self.xyz_A)

    @property
    def centre_A(self) -> npt.NDArray[np.float64]:
        """Weighted mean position."""
        return np.average(self.xyz_A, axis=0, weights=self.weights)

    @property
    def radius_A(self) -> float:
        """Distance of the farthest atom from the origin."""
        return float(np.sqrt((self.xyz_A**2).sum(1).max()))

    def __add__(self, other: Model) -> Model:
        """Both models in one, where they stand: a ligand on a protein.

        Examples
        --------
        >>> from verglas.simulate import Model
        >>> both = Model([[0.0, 0, 0]], "C") + Model([[2.0, 0, 0]], "Zn", weights=0.5)
        >>> len(both), both.elements.tolist(), both.weights.tolist()
        (2, ['C', 'Zn'], [1.0, 0.5])
        """
        return Model(
            np.concatenate([self.xyz_A, other.xyz_A]),
            np.concatenate([self.elements, other.elements]),
            np.concatenate([self.weights, other.weights]),
            np.concatenate([self.b_factors_A2, other.b_factors_A2]),
            f"{self.name} + {other.name}",
        )

    def recentre(self) -> Model:
        """The same atoms with their weighted mean position at the origin."""
        return replace(self, xyz_A=self.xyz_A - self.centre_A)

    def move(self, matrix: npt.ArrayLike, shift_A: npt.ArrayLike = (0.0, 0.0, 0.0)) -> Model:
        """Atoms at ``matrix @ r + shift_A``; the matrix is a rotation (3, 3)."""
        return replace(self, xyz_A=self.xyz_A @ np.asarray(matrix, np.float64).T + np.asarray(shift_A, np.float64))

    def symmetrise(self, symmetry: str) -> Model:
        """One copy of the atoms per operator of a point group.

        Parameters
        ----------
        symmetry : str
            Cn, Dn, T, O, I1 to I4, with the axes of :func:`verglas.symmetry_matrices`.

        Examples
        --------
        >>> from verglas.simulate import Model
        >>> len(Model([[10.0, 5, 3]], "C").symmetrise("O"))
        24
        """
        from verglas.geometry import symmetry_matrices

        operators = symmetry_matrices(symmetry)
        n = len(operators)
        return Model(
            np.einsum("sij,aj->sai", operators, self.xyz_A).reshape(-1, 3),
            np.tile(self.elements, n),
            np.tile(self.weights, n),
            np.tile(self.b_factors_A2, n),
            self.name if n == 1 else f"{self.name} {symmetry}",
        )
