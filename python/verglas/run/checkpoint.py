"""Checkpoints of a refinement: everything that the next iteration needs, in one file, replaced as a whole."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from verglas.errors import FormatError
from verglas.io import atomic_path
from verglas.refinement.settings import Step
from verglas.refinement.state import HalfModel, PoseTable, State

_NAME = "checkpoint/state.npz"


@dataclass(frozen=True)
class Checkpoint:
    """A refinement between two iterations.

    Attributes
    ----------
    state : State
    step : Step or None
        The next one; None after the final pass.
    half : (n,) int64
        Half set of each particle in use.
    excluded : dict
        Particle number in the input -> reason.
    inputs : dict
        What identifies the input: resuming with another is refused.
    """

    state: State
    step: Step | None
    half: npt.NDArray[np.int64]
    excluded: dict[int, str]
    inputs: dict[str, Any]


def checkpoint_path(folder: Path) -> Path:
    """Where the checkpoint of a run folder lies."""
    return folder / _NAME


def write_checkpoint(folder: Path, checkpoint: Checkpoint) -> None:
    """Replace the checkpoint of a run folder: a kill at any moment leaves the old one or the new one."""
    state = checkpoint.state
    arrays: dict[str, npt.NDArray] = {f"poses.{name}": value for name, value in vars(state.poses).items()}
    for number, half in enumerate(state.halves, 1):
        arrays |= {f"half{number}.{name}": value for name, value in vars(half).items()}
    arrays |= {"fsc": state.fsc, "half": checkpoint.half}
    if state.mask is not None:
        arrays["mask"] = state.mask
    record = {
        "iteration": state.iteration, "resolution_shell": state.resolution_shell, "unimproved": state.unimproved,
        "finished": state.finished, "rows": state.rows, "excluded": checkpoint.excluded,
        "inputs": checkpoint.inputs, "step": None if checkpoint.step is None else asdict(checkpoint.step),
    }  # fmt: skip
    arrays["record"] = np.frombuffer(json.dumps(record).encode(), np.uint8)
    path = checkpoint_path(folder)
    path.parent.mkdir(exist_ok=True)
    with atomic_path(path) as temporary:
        np.savez(temporary, **arrays)  # type: ignore[arg-type]


def read_checkpoint(folder: Path) -> Checkpoint:
    """Read the checkpoint of a run folder.

    Raises
    ------
    FormatError
        There is none, or it cannot be read.
    """
    path = checkpoint_path(folder)
    if not path.is_file():
        raise FormatError(f"{path}: no checkpoint; start this run without --resume")
    try:
        with np.load(path) as file:
            arrays = dict(file)
        record = json.loads(arrays["record"].tobytes())
        poses = PoseTable(**_named(arrays, "poses."))
        halves = [HalfModel(**_named(arrays, f"half{number}.")) for number in (1, 2)]
        state = State(
            record["iteration"], poses, halves, arrays["fsc"], record["resolution_shell"], arrays.get("mask"),
            record["unimproved"], record["finished"], record["rows"],
        )  # fmt: skip
        step = None if record["step"] is None else Step(**record["step"])
        excluded = {int(k): v for k, v in record["excluded"].items()}
        return Checkpoint(state, step, arrays["half"], excluded, record["inputs"])
    except (ValueError, KeyError, TypeError, OSError, BadZipFile) as error:
        raise FormatError(f"{path}: cannot be read as a checkpoint ({error}); start without --resume") from error


def _named(arrays: dict[str, npt.NDArray], prefix: str) -> dict[str, Any]:
    return {name[len(prefix) :]: value for name, value in arrays.items() if name.startswith(prefix)}
