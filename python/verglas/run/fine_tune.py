"""Weights of the trained picker for a job: those that come with verglas, a file's, or trained further on clicks."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from verglas.errors import InputError, VerglasError
from verglas.io import read_micrograph, read_picks, write_bytes
from verglas.io.coordinates import match_names
from verglas.io.micrographs import MICROGRAPH, PATH
from verglas.picking import PickSettings, pick, prepare
from verglas.run.pick_inputs import pixel_size_of
from verglas.types import Picks

if TYPE_CHECKING:
    from verglas.learned import Weights
    from verglas.run.pick import PickJob

CONSENSUS = "consensus"
# Micrographs that a consensus of the classical pickers is taken of: more teach nothing new in the time.
_TAUGHT = 8


def read_weights(path: Path) -> Weights:
    """Weights of a safetensors file.

    Raises
    ------
    FormatError, InputError
        Not such a file, of another network, or without what chances are made from.
    """
    from verglas.learned import from_safetensors

    weights = from_safetensors(path.read_bytes(), str(path))
    missing = [name for name in ("calibration", "data") if name not in weights.card]
    if missing:
        raise InputError(
            f"{path}: its card has no {' and no '.join(missing)}, so it says nothing of chances; expected weights that "
            "--fine-tune or tools/train_picker.py wrote"
        )
    if "joint_slope" not in weights.card["calibration"]:
        raise InputError(
            f"{path}: its calibration is one of the network alone, of an earlier version; expected one that weighs the "
            "classical picker as well: train the weights again, or use --fine-tune without --weights"
        )
    return weights


def chosen_weights(job: PickJob, table: pd.DataFrame) -> tuple[Weights | None, str]:
    """Weights of the method ``learned``, and what a further training came to; None and nothing for the other methods.

    Parameters
    ----------
    job : PickJob
    table : DataFrame
        Its micrographs.

    Raises
    ------
    InputError
        Weights or clicks for a method that has none; no or too few clicks.
    """
    if job.clicks_complete and job.fine_tune in (None, CONSENSUS):
        raise InputError("pick: --clicks-complete goes with --fine-tune and a file of clicks; leave it out")
    if job.settings.method != "learned":
        if job.weights is not None or job.fine_tune is not None:
            raise InputError("pick: weights and fine-tuning are those of --method learned; give it, or leave them out")
        return None, ""
    from verglas.learned import packaged_weights

    weights = packaged_weights("picker") if job.weights is None else read_weights(job.weights)
    if job.fine_tune is None:
        return weights, ""
    weights, said = tuned_weights(
        weights, table, job.fine_tune, job.diameter_A, job.settings, complete=job.clicks_complete
    )
    write_weights(job.out / "weights.safetensors", weights)
    return weights, said


def tuned_weights(
    weights: Weights, table: pd.DataFrame, given: str, diameter_A: float, settings: PickSettings, *, complete: bool
) -> tuple[Weights, str]:
    """Weights after further training, and the sentence that says whether they are new.

    Parameters
    ----------
    weights : Weights
    table : DataFrame
        Micrographs as :func:`verglas.io.find_micrographs` lists them.
    given : str
        A file of clicks, or ``consensus``.
    diameter_A : float
    settings : PickSettings
    complete : bool
        All particles of the clicked micrographs are clicked.

    Raises
    ------
    InputError
        No micrograph has clicks, or there are too few.
    """
    from verglas.picking.fine_tune import fine_tune

    clicks = _agreed_picks(table, diameter_A, settings) if given == CONSENSUS else _clicks_by_row(table, Path(given))
    clicked = []
    for row, picks in clicks.items():
        micrograph = read_micrograph(table.iloc[row][PATH], pixel_size_of(table.iloc[row]))
        clicked.append((prepare(micrograph, diameter_A, white=settings.white), picks.xy_px))
    tuned = fine_tune(weights, clicked, complete=complete)
    return tuned.weights, tuned.sentence


def write_weights(path: Path, weights: Weights) -> None:
    """As a safetensors file, the card inside."""
    from verglas.learned import to_safetensors

    write_bytes(path, to_safetensors(weights))


def _clicks_by_row(table: pd.DataFrame, path: Path) -> Mapping[int, Picks]:
    """Clicks of a file by row of the table."""
    clicks = read_picks(path)
    names = list(clicks)
    # Clicks look for their micrograph: of two of one name in different folders they must not be given to both.
    at = match_names(names, [str(name) for name in table[MICROGRAPH]])
    clicked = {int(row): clicks[name] for name, row in zip(names, at, strict=True) if row >= 0 and len(clicks[name])}
    if not clicked:
        raise InputError(
            f"{path}: no clicks for any of {len(table)} micrographs, such as {table[MICROGRAPH].iloc[0]}; "
            f"its names are such as {names[0] if names else 'none'}"
        )
    return clicked


def _agreed_picks(table: pd.DataFrame, diameter_A: float, settings: PickSettings) -> Mapping[int, Picks]:
    """What the classical pickers agree on, in micrographs spread over the set.

    Raises
    ------
    InputError
        None of them can be used.
    """
    rows = np.unique(np.linspace(0, len(table) - 1, min(_TAUGHT, len(table))).astype(int))
    agreed: dict[int, Picks] = {}
    why = ""
    for row in rows:
        try:
            micrograph = read_micrograph(table.iloc[row][PATH], pixel_size_of(table.iloc[row]))
            agreed[int(row)] = pick(micrograph, diameter_A, method="consensus", white=settings.white)
        # It teaches nothing; picking sets it aside by name when its turn comes.
        except (VerglasError, OSError) as error:
            why = str(error)
    if not agreed:
        raise InputError(f"fine-tune: none of {len(rows)} micrographs can be used for a consensus: {why}")
    return agreed
