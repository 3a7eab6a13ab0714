"""``verglas model-statistics`` on files: what models say without a map."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gemmi
import numpy as np

from verglas.assessment.atom_statistics import (
    debye_power,
    fit_radius_of_gyration,
    model_variability_A,
    radius_of_gyration_A,
    wilson_moments,
)
from verglas.errors import InputError
from verglas.io import read_atoms, write_csv
from verglas.run.kept_inputs import keeps_inputs
from verglas.types.atoms import Atoms

_GUINIER_REACH = 1.0  # of 2 pi s R_g: where Guinier's law ends
_FREQUENCIES = 12


@keeps_inputs("model-statistics")
def model_statistics(models: Sequence[Path], out: Path | None = None) -> dict[str, Any]:
    """Size of a model, its amplitudes by Debye, Guinier and Wilson, and how far several models lie apart.

    Parameters
    ----------
    models : sequence of Path
        mmCIF or PDB; several: of the same atoms, built independently in one map.
    out : Path, optional
        CSV: with several models the root mean square fluctuation of every atom.

    Returns
    -------
    dict
        JSON-ready.

    Raises
    ------
    InputError
        Models of other atoms or without occupied ones, or a table asked for of one.
    """
    if out is not None and len(models) < 2:
        raise InputError("model-statistics: --out holds how far models lie apart, which needs two or more")
    read = [read_atoms(path) for path in models]
    told: dict[str, Any] = {"models": [_of_one(atoms) for atoms in read], "variability": None}
    if len(read) > 1:
        rmsf_A = model_variability_A(read)
        told["variability"] = {
            "mean_A": round(float(rmsf_A.mean()), 4),
            "median_A": round(float(np.median(rmsf_A)), 4),
            "q95_A": round(float(np.quantile(rmsf_A, 0.95)), 4),
            "largest": _largest(read[0], rmsf_A),
        }
        if out is not None:
            write_csv(out, _columns(read[0], rmsf_A))
    return told


def _of_one(atoms: Atoms) -> dict[str, Any]:
    electrons = np.array([gemmi.Element(name).atomic_number for name in atoms.elements]) * atoms.occupancies
    if not electrons.sum() > 0:
        raise InputError(f"model-statistics: no atom of {atoms.name} has an element and an occupancy above 0")
    mass_kDa = float(sum(gemmi.Element(name).weight for name in atoms.elements)) / 1000
    size_A = radius_of_gyration_A(atoms.xyz_A, electrons)
    frequency = np.linspace(0.1, 1.0, _FREQUENCIES) * _GUINIER_REACH / (2 * np.pi * size_A) if size_A > 0 else None
    by_law = None
    if frequency is not None:
        by_law = fit_radius_of_gyration(frequency, debye_power(atoms.xyz_A, frequency, electrons))[0]
    wilson = wilson_moments(electrons)
    return {
        "model": atoms.name,
        "atoms": len(atoms),
        "mass_without_hydrogen_kDa": round(mass_kDa, 3),
        "radius_of_gyration_A": round(size_A, 3),
        "radius_of_gyration_guinier_A": None if by_law is None else round(by_law, 3),
        "wilson_mean_electrons2": round(wilson.mean, 1),
        "wilson_sd_electrons2": round(wilson.variance**0.5, 1),
    }


def _columns(atoms: Atoms, rmsf_A: np.ndarray) -> dict[str, Any]:
    return {
        "chain": atoms.chains,
        "residue_number": atoms.residue_numbers,
        "residue_name": atoms.residue_names,
        "atom": atoms.names,
        "rmsf_A": rmsf_A,
    }


def _largest(atoms: Atoms, rmsf_A: np.ndarray) -> str:
    at = int(rmsf_A.argmax())
    place = f"{atoms.chains[at]} {atoms.residue_names[at]} {atoms.residue_numbers[at]} {atoms.names[at]}"
    return f"{place}, {rmsf_A[at]:.2f} A"
