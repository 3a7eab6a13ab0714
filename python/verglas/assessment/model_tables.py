"""What is known of a model's atoms, residues, chains and secondary structure in a map, as tables."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from verglas.assessment.fsc_q import FscQ
from verglas.assessment.map_model import MapModel
from verglas.assessment.structure_scores import element_z, side_chain_z
from verglas.types import Map


@dataclass(frozen=True)
class ModelTables:
    """A row per atom, residue, chain, helix or strand.

    Attributes
    ----------
    atoms : DataFrame
        Q-score, density; with half maps FSC-Q (``fsc_q_A``).
    residues : DataFrame
        Means of these, and the Z-score of the side chain.
    chains : DataFrame
        Means.
    elements : DataFrame
        Helices and strands with the Z-score of their backbone.
    fsc_q : FscQ, optional
        Where half maps were given.
    """

    atoms: pd.DataFrame
    residues: pd.DataFrame
    chains: pd.DataFrame
    elements: pd.DataFrame
    fsc_q: FscQ | None = None

    @classmethod
    def of(cls, fit: MapModel, volume: Map, fsc_q: FscQ | None = None) -> ModelTables:
        """Of a model that was compared with a map.

        Examples
        --------
        >>> import numpy as np, verglas as vg
        >>> from verglas.assessment.model_density import model_density
        >>> from verglas.assessment.model_tables import ModelTables
        >>> xyz, n = np.random.default_rng(0).uniform(8, 24, (40, 3)), 40
        >>> atoms = vg.types.atoms.Atoms(xyz, *(["C"] * n,) * 2, ["ALA"] * n, ["A"] * n, range(n), [1] * n, [30] * n)
        >>> density = model_density(atoms, vg.Map(np.zeros((32, 32, 32)), 1.0))
        >>> list(ModelTables.of(vg.map_model(density, atoms), density).residues)[-2:]
        ['density_sd', 'side_chain_z']
        """
        atoms = fit.by_atom()
        residues = fit.residues().assign(side_chain_z=side_chain_z(volume, fit.atoms))
        if fsc_q is not None:
            atoms = atoms.assign(fsc_q_A=fsc_q.difference_A)
            by_residue = atoms["fsc_q_A"].groupby(fit.atoms.residues).mean()
            residues = residues.assign(fsc_q_A=by_residue.to_numpy())
        return cls(atoms, residues, fit.chains(), element_z(volume, fit.atoms), fsc_q)

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready: how many side chains and elements the map shows better than displaced copies, and FSC-Q."""
        told: dict[str, Any] = {}
        for name, scores in (("side_chains", self.residues["side_chain_z"]), ("elements", self.elements["z"])):
            known = scores[np.isfinite(scores)]
            told[name] = {
                "scored": len(known),
                "median_z": round(float(known.median()), 3) if len(known) else None,
                "above_zero": round(float((known > 0).mean()), 4) if len(known) else None,
            }
        return {**told, "fsc_q": None if self.fsc_q is None else self.fsc_q.as_dict()}
