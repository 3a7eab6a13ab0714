"""Particles that a job sets aside: one sentence for whoever watches, a table for the run folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from verglas.io import write_csv
from verglas.types import Particles

_NAMED = 3  # particles that the sentence names


def set_aside_sentence(excluded: Mapping[int, str]) -> str:
    """How many particles, and the first of them with reasons; empty if there are none.

    Examples
    --------
    >>> from verglas.run.set_aside import set_aside_sentence
    >>> set_aside_sentence({7: "its pixels are all equal"})
    '1 particles set aside (particle 7: its pixels are all equal)'
    """
    if not excluded:
        return ""
    first = "; ".join(f"particle {i}: {why}" for i, why in sorted(excluded.items())[:_NAMED])
    return f"{len(excluded)} particles set aside ({first}{', ...' if len(excluded) > _NAMED else ''})"


def set_aside_table(particles: Particles, excluded: Mapping[int, str]) -> pd.DataFrame:
    """Particle number (from 0), image name and reason of those set aside."""
    numbers = sorted(excluded)
    has_names = "rlnImageName" in particles.table
    names = particles.table["rlnImageName"].iloc[numbers].to_numpy(str) if has_names else [""] * len(numbers)
    return pd.DataFrame({"particle": numbers, "image": names, "reason": [excluded[i] for i in numbers]})


def write_set_aside(folder: Path, particles: Particles, excluded: Mapping[int, str]) -> None:
    """``excluded.csv`` of a run folder; of its heading alone, if all particles are in use."""
    table = set_aside_table(particles, excluded)
    write_csv(folder / "excluded.csv", {str(name): table[name].to_numpy() for name in table})
