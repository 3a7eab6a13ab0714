"""Job on files: what varies linearly in particles at known poses."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from verglas._screen import ListenerChoice, shown_to
from verglas._version import __version__
from verglas.heterogeneity import Variability, VariabilitySettings, variability
from verglas.io import (
    atomic_path,
    read_map,
    read_particles,
    write_csv,
    write_json,
    write_map,
    write_particles,
    write_text,
)
from verglas.report.heterogeneity import variability_page
from verglas.report.html import render
from verglas.run.live_page import footer_text
from verglas.run.numbered_files import remove_numbered
from verglas.run.set_aside import set_aside_sentence, write_set_aside
from verglas.run.tenure import now_text, tenure
from verglas.types import Particles

_TRAJECTORY = 5


def variability_files(
    particles: Path,
    out: Path,
    *,
    stack: Path | None = None,
    mask: Path | None = None,
    settings: VariabilitySettings | None = None,
    threads: int | None = None,
    listener: ListenerChoice = "screen",
) -> Variability:
    """What ``verglas variability`` does: read, :func:`verglas.variability`, leave everything in the folder.

    Parameters
    ----------
    particles, out : Path
        STAR or CS file with poses; folder to write.
    stack, mask : Path, optional
        Image stack in place of the one that the file names; where components may lie.
    settings : VariabilitySettings, optional
    threads : int, optional
    listener : Listener, "screen" or None
    """
    given = read_particles(particles, stack=stack)
    with shown_to(listener) as heard, tenure(out, "variability", heard) as held:
        held.write(state="running", n_particles=len(given))
        inside = None if mask is None else read_map(mask)
        made = variability(given, settings, mask=inside, threads=threads, listener=held)
        if made.excluded:
            held.note("set_aside", set_aside_sentence(made.excluded))
        _write(out, made)
        write_set_aside(out, given, made.excluded)
        return made


def summary(made: Variability) -> dict[str, Any]:
    """What ``verglas variability --json`` prints."""
    return {
        "components": made.n_components,
        "sentence": made.sentence,
        "gains": made.gains.to_dict("records"),
        "variance": [float(v) for v in made.eigenvalues],
        "particles": len(made.particles),
        "excluded": len(made.excluded),
        "resolution_A": made.settings.resolution_A,
        "contrast_sd": float(made.contrast.std()),
    }


def with_coordinates(made: Variability) -> Particles:
    """The particles with a column for each coordinate, its standard deviation, and the contrast."""
    names = map(str, made.particles.table)
    columns: dict[str, Any] = {n: None for n in names if n.startswith("verglasCoordinate")}  # of an earlier analysis
    columns["verglasContrast"] = made.contrast
    for q in range(made.n_components):
        columns[f"verglasCoordinate{q + 1}"] = made.coordinates[:, q]
        columns[f"verglasCoordinateError{q + 1}"] = np.sqrt(made.covariances[:, q, q])
    return made.particles.with_columns(**columns)


def _write(folder: Path, made: Variability) -> None:
    remove_numbered(folder, r"component(?P<number>\d+)(_state\d+)?\.mrc", made.n_components)
    write_map(folder / "mean.mrc", made.mean)
    for q, component in enumerate(made.components):
        write_map(folder / f"component{q + 1}.mrc", component)
        for number, volume in enumerate(made.trajectory(q, _TRAJECTORY)[1], 1):
            write_map(folder / f"component{q + 1}_state{number}.mrc", volume)
    table: dict[str, Any] = {
        "particle": np.setdiff1d(np.arange(len(made.particles) + len(made.excluded)), list(made.excluded))
    }
    for q in range(made.n_components):
        table[f"z{q + 1}"], table[f"z{q + 1}_sd"] = made.coordinates[:, q], np.sqrt(made.covariances[:, q, q])
    write_csv(folder / "coordinates.csv", table | {"contrast": made.contrast})
    with atomic_path(folder / "variability.npz") as temporary:
        np.savez_compressed(
            temporary,
            coordinates=made.coordinates,
            covariances=made.covariances,
            contrast=made.contrast,
            eigenvalues=made.eigenvalues,
            fsc=made.fsc,
        )
    write_particles(folder / "particles.star", with_coordinates(made))
    record = {
        "verglas": __version__,
        "command": "variability",
        "finished": now_text(),
        "settings": asdict(made.settings),
    }
    write_json(folder / "variability.json", record | summary(made))
    write_text(folder / "report.html", render(variability_page(made, asdict(made.settings), footer_text())))
