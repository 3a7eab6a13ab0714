"""A model in a published map and in its mirror image, and Q-scores per second of processor.

    python bench/bench_map_model.py ../shared/data/models/emd_1997.map.gz ../shared/data/models/1oel.pdb.gz

The model is placed by the engine in the map and in its mirror image, as it would be by ``--fit``, and judged there.
"""

from __future__ import annotations

import argparse
import time

import numpy as np

import verglas as vg
from verglas.assessment import q_scores
from verglas.map_geometry.model_fit import fit_atoms

from common import write


def judged(volume: vg.Map, atoms: vg.Atoms, what: str) -> dict:
    began = time.process_time()
    placed = fit_atoms(volume, atoms, threads=1)
    fitted = time.process_time()
    found = vg.map_model(volume, placed.atoms, threads=1)
    row = {"what": what, "atoms": len(atoms), **found.correlations, "q_mean": found.q_mean}
    row |= {"d_model_A": found.d_model_A, "fit_processor_seconds": fitted - began}
    began = time.process_time()
    q_scores(volume, placed.atoms, threads=1)
    return {**row, "q_scores_per_processor_second": len(atoms) / (time.process_time() - began)}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("map")
    parser.add_argument("model")
    given = parser.parse_args()
    volume, atoms = vg.read_map(given.map), vg.read_atoms(given.model)
    mirrored = volume.with_data(np.ascontiguousarray(volume.data[::-1]))
    rows = [judged(volume, atoms, "map"), judged(mirrored, atoms, "mirror image")]
    write("map_model", rows, box=volume.box)
