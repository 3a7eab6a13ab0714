"""Aberrations of particles that are extracted anew: from the groups they were in to those they go to."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from verglas.errors import VerglasWarning
from verglas.types import Particles
from verglas.types import _columns as col
from verglas.types._columns import NO_ABERRATION
from verglas.types.even_aberrations import EVEN_ZERNIKE

_NONE: dict[str, float | str] = {**NO_ABERRATION, EVEN_ZERNIKE: "[0]"}
_SAME_DEFOCUS_A = 1.0
# what was done to images that are left behind
_OF_OLD_IMAGES = ("rlnCtfDataArePhaseFlipped", "rlnCtfDataAreCtfPremultiplied")


def aberration_columns(particles: Particles) -> dict[str, Any]:
    """Columns of aberrations, a value for each particle: its own, or else its group's."""
    table, optics = particles.table, particles.optics_table
    columns: dict[str, Any] = {}
    for label in _NONE:
        # even terms count in the optics table only; all others first in the particle table
        own = label in table and (label != EVEN_ZERNIKE or optics is None or label not in optics)
        if own:
            columns[label] = table[label].to_numpy()
        elif optics is not None and label in optics:
            group = col.Tables(table, optics, particles.where).group()
            columns[label] = optics[label].to_numpy()[group]
    return columns


def move_to_groups(body: pd.DataFrame, optics: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Particle and optics table with the aberrations of ``body`` in groups, split where they differ inside one.

    Examples
    --------
    >>> import pandas as pd
    >>> body = pd.DataFrame({"rlnOpticsGroup": [1, 1, 2], "rlnBeamTiltX": [0.5, -0.5, 0.5]})
    >>> optics = pd.DataFrame({"rlnOpticsGroup": [1, 2], "rlnOpticsGroupName": ["a", "b"]})
    >>> body, optics = move_to_groups(body, optics)
    >>> body.rlnOpticsGroup.tolist(), optics.rlnOpticsGroupName.tolist(), optics.rlnBeamTiltX.tolist()
    ([1, 2, 3], ['a', 'a_2', 'b'], [0.5, -0.5, 0.5])
    """
    body = body.drop(columns=[label for label in _OF_OLD_IMAGES if label in body])
    labels = [label for label in _NONE if label in body]
    if not labels or not len(body):
        return body, optics
    # particles of a file without these columns, beside those of one with them
    values = body[labels].fillna({label: _NONE[label] for label in labels})
    codes = [pd.factorize(values[label])[0] for label in labels]
    keys = np.column_stack([body["rlnOpticsGroup"].to_numpy(np.int64), *codes])
    unique, first, group = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    old = unique[:, 0] - 1  # groups are numbered from 1 in the order of their rows
    made = optics.iloc[old].reset_index(drop=True)
    made = made.assign(**{label: values[label].to_numpy()[first] for label in labels})
    made["rlnOpticsGroup"] = np.arange(1, len(made) + 1)
    number = made.groupby(old, sort=False).cumcount().to_numpy() + 1
    names = [str(name) for name in made["rlnOpticsGroupName"]]
    made["rlnOpticsGroupName"] = [name if n == 1 else f"{name}_{n}" for name, n in zip(names, number, strict=True)]
    return body.drop(columns=labels).assign(rlnOpticsGroup=group.reshape(-1) + 1), made


def settle_defoci(parts: Sequence[pd.DataFrame], own: Sequence[Mapping[str, Any]], *, keep: bool) -> list[pd.DataFrame]:
    """Tables of particles with the defoci that count: their own where these were refined, else their micrographs'.

    Parameters
    ----------
    parts : sequence of DataFrame
        Particles of each micrograph, with its CTF where it has one.
    own : sequence of mapping of label -> (n,) values
        CTF columns that came with the coordinates.
    keep : bool
        Own defoci that differ between particles of a micrograph, as refined ones do, go first.

    Warns
    -----
    VerglasWarning
        Either gave way to the other.
    """
    refined = keep and any(_spread_A(columns) > _SAME_DEFOCUS_A for columns in own)
    out, changed, total = list[pd.DataFrame](), 0, 0
    for part, columns in zip(parts, own, strict=True):
        if "rlnDefocusU" not in columns or "rlnDefocusU" not in part:
            out.append(part)
            continue
        had = {label: pd.to_numeric(pd.Series(v), errors="coerce").to_numpy(np.float64) for label, v in columns.items()}
        differs = np.abs(had["rlnDefocusU"] - part["rlnDefocusU"].to_numpy(np.float64)) > _SAME_DEFOCUS_A
        changed, total = changed + int(differs.sum()), total + len(part)
        if refined:
            whole = np.all([np.isfinite(values) for values in had.values()], axis=0)
            part = part.assign(**{k: np.where(whole, v, part[k]) if k in part else v for k, v in had.items()})
        out.append(part)
    if changed:
        which = (
            "refined, which are kept; keep_defoci=False (--no-keep-defoci) takes those of their micrographs"
            if refined
            else "not those of their micrographs, which replace them; to keep them, give micrographs without CTF"
        )
        warnings.warn(
            f"extract: the defoci of {changed} of {total} particles are {which}", VerglasWarning, stacklevel=4
        )
    return out


def _spread_A(columns: Mapping[str, Any]) -> float:
    values = pd.to_numeric(pd.Series(columns.get("rlnDefocusU", [])), errors="coerce").dropna()
    return float(np.ptp(values)) if len(values) else 0.0
