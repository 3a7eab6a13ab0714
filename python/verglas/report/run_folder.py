"""The files of a refinement's run folder, read for a page; all but run.json may still be missing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from verglas.errors import FormatError
from verglas.io import read_csv, read_json, sample_star
from verglas.refinement.figures import Figures
from verglas.report.assessed import Assessed, read_assessed
from verglas.types.run_state import RunState, read_run_state


@dataclass(frozen=True)
class Snapshot:
    """What one iteration left in history/.

    Attributes
    ----------
    iteration : int
        Its number.
    slices : (n_maps, 3, N, N) float32
        Central planes z, y, x.
    names : list of str
        'half 1', 'half 2', 'map', or 'class 1', ...
    fsc : (n_classes, n_shells) float64
        Between half maps, unmasked.
    frequency_per_A : (n_shells,) float64
        Of the shells.
    """

    iteration: int
    slices: npt.NDArray[np.float32]
    names: list[str]
    fsc: npt.NDArray[np.float64]
    frequency_per_A: npt.NDArray[np.float64]


@dataclass(frozen=True)
class RunFolder:
    """A run folder, read.

    Attributes
    ----------
    folder : Path
        Where.
    run : dict
        run.json.
    iterations : DataFrame
        iterations.csv; empty before the first iteration has ended.
    history : dict of int -> Path
        Snapshot files by iteration, in order.
    assessed : dict of str -> Assessed
        Postprocessing per map ('map', or 'class 1', ...); empty until the run ends.
    particles : DataFrame or None
        particles.star joined with its optics, of a large set a sample.
    n_rows : int
        Rows of the whole particles.star.
    excluded : DataFrame
        excluded.csv.
    by_number : dict or None
        reslog.json: resolutions of parts of the particles; None where none were made.
    """

    folder: Path
    run: dict[str, Any]
    iterations: pd.DataFrame
    history: dict[int, Path]
    assessed: dict[str, Assessed]
    particles: pd.DataFrame | None
    n_rows: int
    excluded: pd.DataFrame
    by_number: dict[str, Any] | None = None

    @property
    def state(self) -> RunState:
        """How the run stands."""
        return read_run_state(self.run)

    @property
    def running(self) -> bool:
        """Whether the run has not ended."""
        return self.state.goes_on

    @property
    def n_classes(self) -> int:
        """Number of maps."""
        return int(self.run.get("n_classes", 1) or 1)

    def suffixes(self) -> dict[str, str]:
        """Title -> what follows the stem in file names."""
        return class_suffixes(self.n_classes)

    def column(self, name: str) -> npt.NDArray[np.float64]:
        """A column of iterations.csv as numbers; NaN where empty or not written."""
        if name not in self.iterations.columns:
            return np.full(len(self.iterations), np.nan)
        return pd.to_numeric(self.iterations[name], errors="coerce").to_numpy(np.float64)

    def populations(self) -> npt.NDArray[np.float64]:
        """Share of each class per iteration, (n_iterations, n_classes)."""
        rows = [Figures.populations_of(cell) for cell in self.iterations.get("populations", [])]
        out = np.full((len(rows), self.n_classes), np.nan)
        for i, row in enumerate(rows):
            shares = row[: self.n_classes]
            out[i, : len(shares)] = shares
        return out

    def snapshot(self, iteration: int) -> Snapshot:
        """The history of one iteration.

        Raises
        ------
        FormatError
            The file is no snapshot.
        """
        path = self.history[iteration]
        try:
            # No pickles: a page may be asked for a folder of strangers, and a pickle can run any code.
            with np.load(path, allow_pickle=False) as file:
                return Snapshot(
                    iteration,
                    file["slices"].astype(np.float32),
                    [str(name) for name in file["names"]],
                    np.atleast_2d(file["fsc"].astype(np.float64)),
                    file["frequency_per_A"].astype(np.float64),
                )
        except (KeyError, ValueError, OSError) as error:
            raise FormatError(f"{path}: not a snapshot of an iteration: {error}") from error


def class_suffixes(n_classes: int) -> dict[str, str]:
    """Title of each map -> what follows the stem in its file names.

    Examples
    --------
    >>> from verglas.report.run_folder import class_suffixes
    >>> class_suffixes(1), class_suffixes(2)
    ({'map': ''}, {'class 1': '_class1', 'class 2': '_class2'})
    """
    if n_classes == 1:
        return {"map": ""}
    return {f"class {k}": f"_class{k}" for k in range(1, n_classes + 1)}


def read_run_folder(folder: Path) -> RunFolder:
    """Read what there is.

    Parameters
    ----------
    folder : Path
        Of ``verglas refine``; the run may be going on.

    Returns
    -------
    RunFolder

    Raises
    ------
    FormatError
        No run.json, or a file that is not what its name says.
    """
    folder = Path(folder)
    if not (folder / "run.json").is_file():
        raise FormatError(f"{folder}: no run.json; expected the folder of a refinement (--out of verglas refine)")
    run = read_json(folder / "run.json")
    iterations = folder / "iterations.csv"
    table = read_csv(iterations, ("iteration",)) if iterations.is_file() else pd.DataFrame({"iteration": []})
    numbers = [int(number) for number in table["iteration"]]
    history = {n: path for n in numbers if (path := folder / "history" / f"iteration_{n:03d}.npz").is_file()}
    assessed = {
        title: one
        for title, suffix in class_suffixes(int(run.get("n_classes", 1) or 1)).items()
        if (one := read_assessed(folder, suffix)) is not None
    }
    particles, rows = _particles(folder / "particles.star")
    excluded = folder / "excluded.csv"
    left_out = read_csv(excluded) if excluded.is_file() else pd.DataFrame({"particle": [], "image": [], "reason": []})
    reslog = folder / "reslog.json"
    by_number = read_json(reslog) if reslog.is_file() else None
    return RunFolder(folder, run, table, history, assessed, particles, rows, left_out, by_number)


def _particles(path: Path) -> tuple[pd.DataFrame | None, int]:
    if not path.is_file():
        return None, 0
    tables, rows = sample_star(path)
    frames = {name: table for name, table in tables.items() if isinstance(table, pd.DataFrame)}
    particles = next((t for t in frames.values() if "rlnAngleRot" in t.columns), None)
    if particles is None:
        return None, 0
    optics = frames.get("optics")
    if optics is not None and {"rlnOpticsGroup"} <= set(optics.columns) & set(particles.columns):
        own = [c for c in optics.columns if c == "rlnOpticsGroup" or c not in particles.columns]
        particles = particles.merge(optics[own], on="rlnOpticsGroup", how="left")
    return particles, rows
