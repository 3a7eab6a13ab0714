"""Electron scattering factors of neutral atoms, and the scale of the densities made from them.

A factor is a sum of five Gaussians, f(k) = sum_j a_j exp(-b_j k^2/4), in angstrom: table 4.3.2.2 of International
Tables for Crystallography C (Peng, Ren, Dudarev and Whelan (1996) Acta Cryst. A52, 257-276; k = 2 sin(theta)/lambda up
to 4 1/A), as the gemmi library holds it. The electrostatic potential in volt is its transform times h^2/(2 pi m e).
"""

from __future__ import annotations

import gemmi
import numpy as np
import numpy.typing as npt

from verglas.errors import InputError
from verglas.simulate.model import Model

# h^2 / (2 pi m_e e) in V A^2, CODATA 2018: turns a scattering length per volume (1/A^2) into a potential (V).
VOLT_PER_LENGTH_A2 = 47.87801


def factors(elements: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Gaussians of the scattering factors of chemical symbols.

    Parameters
    ----------
    elements : (n,) str
        "H", "C", "Zn" ...; upper and lower case alike.

    Returns
    -------
    (n, 5, 2) float64
        Amplitudes a (A) and exponents b (A^2).

    Raises
    ------
    InputError
        A symbol that is no element, or one that the table lacks.

    Examples
    --------
    >>> from verglas.simulate import scattering
    >>> float(scattering.factors(["C"])[0, :, 0].sum().round(4))
    2.5088
    """
    rows = []
    for symbol in np.atleast_1d(np.asarray(elements, str)):
        element = gemmi.Element(str(symbol))
        table = element.c4322
        if element.atomic_number == 0 or table is None:
            raise InputError(f"no electron scattering factor for element {symbol!r}")
        rows.append(np.column_stack([table.a, table.b]))
    return np.array(rows).reshape(-1, 5, 2)


def factor(element: str, k_per_A: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Scattering factor f(k) in angstrom.

    Parameters
    ----------
    element : str
        Chemical symbol.
    k_per_A : array_like
        Spatial frequency |k| = 2 sin(theta)/lambda in 1/A.

    Examples
    --------
    >>> from verglas.simulate import scattering
    >>> scattering.factor("C", [0.0, 0.5]).round(3).tolist()
    [2.509, 1.169]
    """
    k2 = np.asarray(k_per_A, np.float64)[..., None] ** 2
    a, b = factors([element])[0].T
    return (a * np.exp(-b * k2 / 4)).sum(-1)


def atom_table(
    model: Model, pixel_size_A: float, b_factor_A2: float = 0.0
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Model as the arguments ``atoms, types, factors`` of :func:`verglas.ops.scatter`.

    The factors carry the scale that makes the voxels of a map potentials in volt, so that an image is the sum of the
    voxels along the ray: the transform of the samples of V on a grid of step a is that of V divided by a^3.

    Parameters
    ----------
    model : Model
        The atoms.
    pixel_size_A : float
        Step a of the grid.
    b_factor_A2 : float
        Added to the B-factor of every atom.
    """
    symbols, types = np.unique(model.elements, return_inverse=True)
    atoms = np.column_stack([model.xyz_A, model.weights, model.b_factors_A2 + b_factor_A2])
    # A coefficient of a transform is a sum over voxels: the integral, V A^3, over the voxel's volume.
    scaled = factors(symbols) * np.array([VOLT_PER_LENGTH_A2 / pixel_size_A**3, 1.0])
    return atoms, types.reshape(-1).astype(np.int64), scaled
