"""``verglas map-model`` on files: a map and a model in, tables and a page out."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

from verglas._screen import ListenerChoice, shown_to
from verglas._version import __version__
from verglas.assessment.fsc import fsc
from verglas.assessment.fsc_q import FscQ, fsc_q
from verglas.assessment.independence import refuse_one_map_twice
from verglas.assessment.map_model import MapModel, MapModelSettings, consistency, map_model
from verglas.assessment.model_tables import ModelTables
from verglas.errors import InputError
from verglas.io import (
    check_folder,
    make_folder,
    read_atoms,
    read_map,
    write_csv,
    write_json,
    write_moved_model,
    write_text,
)
from verglas.map_geometry.model_fit import fit_atoms
from verglas.report.map_model import map_model_page
from verglas.run.kept_inputs import keeps_inputs
from verglas.run.maps import warn_of_origins
from verglas.types import Map

_PIXEL_TOLERANCE = 1e-3  # of pixel sizes: headers round them


@dataclass(frozen=True)
class MapModelJob:
    """What ``verglas map-model`` is asked for.

    Attributes
    ----------
    map, model : Path
        MRC; mmCIF or PDB.
    out : Path
        Folder to write; it is made.
    fit : bool
        Place the model in the map first, as one rigid body.
    half_maps : (Path, Path), optional
        Tell the map's own resolution, which goes into the rules of consistency, and FSC-Q of every atom.
    pixel_size_A : float, optional
        In place of the header's.
    settings : MapModelSettings
        The rest.
    threads : int, optional
        Threads; the result does not depend on it.
    """

    map: Path
    model: Path
    out: Path
    fit: bool = False
    half_maps: tuple[Path, Path] | None = None
    pixel_size_A: float | None = None
    settings: MapModelSettings = field(default_factory=MapModelSettings)
    threads: int | None = None


@keeps_inputs("map-model")
def map_model_files(job: MapModelJob, *, listener: ListenerChoice = "screen") -> tuple[MapModel, dict[str, Any]]:
    """Judge a model by a map.

    Writes fsc.csv, atoms.csv, residues.csv, chains.csv, elements.csv, map_model.json and report.html; with ``fit`` also
    model_fitted.cif.

    Parameters
    ----------
    job : MapModelJob
    listener : Listener, "screen" or None
        Who is told how far the fit is (:class:`verglas.types.listener.Listener`).

    Returns
    -------
    MapModel, dict
        And the record that map_model.json holds.

    Raises
    ------
    InputError
        The model lies elsewhere, or the files do not go together.
    """
    check_folder(job.out)
    started = time.perf_counter()
    volume, atoms = read_map(job.map, job.pixel_size_A), read_atoms(job.model)
    halves = None if job.half_maps is None else _halves(job, volume)
    own_A = _own_resolution_A(halves, job.threads)
    placed: dict[str, Any] = {}
    if job.fit:
        with shown_to(listener) as heard:
            put = fit_atoms(volume, atoms, threads=job.threads, progress=heard.progress)
        atoms = put.atoms
        placed = {
            "matrix": put.matrix.round(6).tolist(),
            "shift_A": put.shift_A.round(4).tolist(),
            "density_sd": round(put.density, 3),
            "runner_up_sd": round(put.runner_up, 3) if np.isfinite(put.runner_up) else None,
        }
    fit = map_model(volume, atoms, job.settings, threads=job.threads)
    local, missing = _fsc_q(halves, fit, volume, job.threads, listener)
    tables = ModelTables.of(fit, volume, local)
    make_folder(job.out)
    if job.fit:
        write_moved_model(job.model, job.out / "model_fitted.cif", placed["matrix"], placed["shift_A"])
    for name in ("atoms", "residues", "chains", "elements"):
        table = getattr(tables, name)
        write_csv(job.out / f"{name}.csv", {str(column): table[column].to_numpy() for column in table})
    curves = {"map_model": fit.fsc, "map_model_masked": fit.fsc_masked}
    write_csv(job.out / "fsc.csv", {"frequency_per_A": fit.frequency_per_A, **curves})
    said = _sentences(fit, halves, own_A) + ([] if missing is None else [missing])
    record = {
        "verglas": __version__,
        "map": str(job.map),
        **fit.as_dict(),
        **tables.as_dict(),
        "half_map_resolution_A": own_A,
        "fsc_q_missing": missing,
        "consistency": said,
        "fit": placed or None,
        "settings": asdict(job.settings),
        "seconds": round(time.perf_counter() - started, 2),
    }
    write_json(job.out / "map_model.json", record)
    now = datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    page = map_model_page(fit, tables, said, f"verglas {__version__}, {now}", volume=volume)
    write_text(job.out / "report.html", page)
    return fit, record


def _halves(job: MapModelJob, volume: Map) -> tuple[Map, Map]:
    assert job.half_maps is not None
    first, second = (read_map(path, job.pixel_size_A) for path in job.half_maps)
    for path, half in zip(job.half_maps, (first, second), strict=True):
        if half.data.shape != volume.data.shape:
            shapes = f"{half.data.shape} and {job.map} {volume.data.shape}"
            raise InputError(f"{path} has shape {shapes} (z, y, x): resample one")
        if not np.isclose(half.pixel_size_A, volume.pixel_size_A, rtol=_PIXEL_TOLERANCE):
            sizes = f"{half.pixel_size_A:g} A and {job.map} {volume.pixel_size_A:g} A"
            raise InputError(f"{path} has a pixel size of {sizes}: resample one, or give --pixel-size")
    refuse_one_map_twice(first.data, second.data, "map-model")
    for path, half in zip(job.half_maps, (first, second), strict=True):
        warn_of_origins(volume, half, job.map, path)
    return first, second


def _is_cube(volume: Map) -> bool:
    return len(set(volume.data.shape)) == 1


def _own_resolution_A(halves: tuple[Map, Map] | None, threads: int | None) -> float | None:
    """Of the half maps at FSC 0.143; None without, of boxes that are no cubes, and where they agree nowhere."""
    if halves is None or not _is_cube(halves[0]):
        return None
    own_A = fsc(*halves, threads=threads).resolution_A(0.143)
    return round(own_A, 3) if np.isfinite(own_A) else None


def _sentences(fit: MapModel, halves: tuple[Map, Map] | None, own_A: float | None) -> list[str]:
    if own_A is not None:
        return consistency(fit, own_A)
    nowhere = halves is not None and _is_cube(halves[0])
    return ["The half maps agree at no scale (FSC 0.143): nothing tells what the map knows."] if nowhere else []


def _fsc_q(
    halves: tuple[Map, Map] | None, fit: MapModel, volume: Map, threads: int | None, listener: ListenerChoice
) -> tuple[FscQ | None, str | None]:
    """FSC-Q, or why half maps that were given have none: the rest is judged all the same."""
    if halves is None:
        return None, None
    if not _is_cube(volume):
        return None, f"No FSC-Q and no resolution of the half maps: they are no cubes, {volume.data.shape} (z, y, x)."
    try:
        return fsc_q(*halves, fit.atoms, volume, threads=threads, listener=listener), None
    except InputError as error:
        return None, f"No FSC-Q: {error}"
