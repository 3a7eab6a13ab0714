"""Checkpoints: everything that the next iteration needs, in one file, replaced as a whole."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from verglas._version import __version__
from verglas.errors import FormatError, InputError
from verglas.io import atomic_path, read_json, write_json
from verglas.refinement.figures import Figures
from verglas.refinement.state import State
from verglas.run.refine_inputs import by_present_names, differences
from verglas.search.state import HalfModel, PoseTable
from verglas.search.step import Step
from verglas.types import Snapshot

_FOLDER = "checkpoint"
_NAME = f"{_FOLDER}/state.npz"
_RUN = f"{_FOLDER}/run.json"
_COST = 50  # a checkpoint waits so many times as long as the last one took to write: two per cent of the time


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
    if state.score_mask is not None:
        arrays["score_mask"] = state.score_mask
    record = {
        "iteration": state.iteration,
        "resolution_shell": state.resolution_shell,
        "unimproved": state.unimproved,
        "finished": state.finished,
        "figures": [figures.as_record() for figures in state.figures],
        "excluded": checkpoint.excluded,
        "inputs": checkpoint.inputs,
        "step": None if checkpoint.step is None else asdict(checkpoint.step),
    }
    write_snapshot(checkpoint_path(folder), Snapshot(arrays, record))


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
    snapshot = read_snapshot(path, "start without --resume")
    arrays, record = snapshot.arrays, snapshot.record
    try:
        poses = PoseTable(**_strip_prefix(arrays, "poses."))
        halves = [HalfModel(**_strip_prefix(arrays, f"half{number}.")) for number in (1, 2)]
        state = State(
            record["iteration"],
            poses,
            halves,
            arrays["fsc"],
            record["resolution_shell"],
            arrays.get("mask"),
            record["unimproved"],
            record["finished"],
            [Figures.from_record(row) for row in record["figures"]],
            arrays.get("score_mask"),
        )
        step = None if record["step"] is None else Step(**record["step"])
        # JSON has text alone for keys.
        reasons = {int(k): v for k, v in record["excluded"].items()}
        return Checkpoint(state, step, arrays["half"], reasons, record["inputs"])
    except (ValueError, KeyError, TypeError) as error:
        raise FormatError(f"{path}: cannot be read as a checkpoint ({error}); start without --resume") from error


def write_snapshot(path: Path, snapshot: Snapshot) -> None:
    """Replace a checkpoint: a kill at any moment leaves the old one or the new one."""
    arrays = dict(snapshot.arrays)
    # As bytes of JSON: an object array would need pickle, which runs what a file says.
    arrays["record"] = np.frombuffer(json.dumps(snapshot.record).encode(), np.uint8)
    path.parent.mkdir(exist_ok=True)
    with atomic_path(path) as temporary:
        np.savez(temporary, **arrays)  # type: ignore[arg-type]


def read_snapshot(path: Path, advice: str) -> Snapshot:
    """Read what :func:`write_snapshot` wrote.

    Raises
    ------
    FormatError
        It cannot be read; the message ends with the advice.
    """
    try:
        with np.load(path) as file:
            arrays = dict(file)
        return Snapshot(arrays, json.loads(arrays.pop("record").tobytes()))
    except (ValueError, KeyError, OSError, BadZipFile) as error:
        raise FormatError(f"{path}: cannot be read as a checkpoint ({error}); {advice}") from error


def _strip_prefix(arrays: dict[str, npt.NDArray], prefix: str) -> dict[str, Any]:
    return {name[len(prefix) :]: value for name, value in arrays.items() if name.startswith(prefix)}


class Checkpoints:
    """Checkpoints of a run in parts, such as the starts of an ab initio reconstruction; a file each, in its run folder.

    The same run started again goes on from them. They are removed when its results are there.

    Parameters
    ----------
    folder : Path
        The run folder; made if it is not there.
    settings, inputs : mapping
        What identifies the run, JSON-ready.
    say : callable, optional
        Told in one line if the run goes on, or why it does not.
    """

    def __init__(
        self,
        folder: Path,
        settings: Mapping[str, Any],
        inputs: Mapping[str, Any],
        say: Callable[[str], None] | None = None,
    ) -> None:
        self.folder, self.say = folder, say
        # Through JSON and back: tuples would differ from the lists that are read later.
        self.identity = json.loads(json.dumps({"verglas": __version__, "settings": settings, "inputs": inputs}))
        self.identity["directory"] = os.getcwd()  # what relative names among the settings are in
        self.parts: dict[str, Part] = {}

    def open(self, *, resume: bool = False) -> bool:
        """Go on with what lies in the folder, or begin; True if there is something.

        Parameters
        ----------
        resume : bool
            There must be.

        Raises
        ------
        InputError
            What lies there is of a run with other settings or other particles; or there is nothing.
        FormatError
            It cannot be read.
        """
        path = self.folder / _RUN
        # Names with a dot in front are files that were not finished when the run was killed.
        there = path.is_file() and any(path.parent.glob("[!.]*.npz"))
        if resume and not there:
            raise InputError(f"{self.folder}: nothing to resume: no checkpoint there; start without --resume")
        if there:
            had = read_json(path)
            self._refuse(had)
            # Another version may mean something else by the same arrays: no error, but nothing to go on from.
            if had.get("verglas") == __version__:
                self._say(f"{self.folder}: goes on from the checkpoint of a run that was stopped")
                return True
            self._say(
                f"{self.folder}: the checkpoint is of verglas {had.get('verglas')}, this is {__version__}: begins anew"
            )
        self.remove()
        path.parent.mkdir(parents=True)
        write_json(path, self.identity)
        return False

    def _refuse(self, had: Mapping[str, Any]) -> None:
        for name, what in (("settings", "other settings"), ("inputs", "other particles")):
            before = by_present_names(had.get(name, {}), self.identity[name], had.get("directory", os.curdir))
            changed = differences(before, self.identity[name])
            if changed:
                raise InputError(
                    f"{self.folder}: a run with {what} was stopped here ({changed}); go on with the same, "
                    f"remove {self.folder / _FOLDER} to begin anew, or name another folder"
                )

    def _say(self, line: str) -> None:
        if self.say is not None:
            self.say(line)

    def part(self, name: str) -> Part:
        """The checkpoint of a part."""
        return self.parts.setdefault(name, Part(self.folder / _FOLDER / f"{name}.npz"))

    def remove(self) -> None:
        """The results are there, or nothing can be made of them."""
        folder = self.folder / _FOLDER
        if folder.exists():
            shutil.rmtree(folder)


class Part:
    """One of them: a :class:`verglas.types.Keeper`.

    Parameters
    ----------
    path : Path
        Its file.
    """

    def __init__(self, path: Path) -> None:
        self.path, self._next = path, 0.0

    def load(self) -> Snapshot | None:
        """What was kept last."""
        if not self.path.is_file():
            return None
        return read_snapshot(self.path, f"remove {self.path.parent} to begin anew")

    def save(self, snapshot: Snapshot, *, needed: bool = False) -> None:
        """Keep it, unless the last one was written just now."""
        start_time = time.perf_counter()
        if needed or start_time >= self._next:
            write_snapshot(self.path, snapshot)
            now = time.perf_counter()
            # A checkpoint on a slow disk is written more rarely, so that it takes no more than its share.
            self._next = now + _COST * (now - start_time)
