"""Job on files: what varies linearly in particles at known poses."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from verglas._screen import ListenerChoice, shown_to
from verglas._version import __version__
from verglas.errors import InputError
from verglas.heterogeneity import Landscape, Variability, VariabilitySettings
from verglas.heterogeneity.landscape import check_clusters
from verglas.heterogeneity.variability import analyse_variability
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
from verglas.io.atomic import remove_file
from verglas.report.heterogeneity import variability_page
from verglas.report.html import render
from verglas.report.landscape import landscape_section
from verglas.run.checkpoint import Checkpoints
from verglas.run.kept_inputs import keeps_inputs
from verglas.run.live_page import footer_text
from verglas.run.numbered_files import remove_numbered
from verglas.run.refine_inputs import close_identity, reference_name
from verglas.run.set_aside import set_aside_sentence, write_set_aside
from verglas.run.tenure import Tenure, now_text, tenure
from verglas.types import Map, Particles
from verglas.types.arrays import FloatArray
from verglas.types.settings import result_settings

_TRAJECTORY = 5


@keeps_inputs("variability")
def variability_files(
    particles: Path,
    out: Path,
    *,
    stack: Path | None = None,
    mean: Path | None = None,
    mask: Path | None = None,
    settings: VariabilitySettings | None = None,
    clusters: int | None = None,
    resume: bool = False,
    threads: int | None = None,
    listener: ListenerChoice = "screen",
) -> Variability:
    """What ``verglas variability`` does: read, :func:`verglas.variability`, leave everything in the folder.

    Parameters
    ----------
    particles, out : Path
        STAR or CS file with poses; folder to write.
    stack, mean, mask : Path, optional
        Image stack in place of the one that the file names; map about which components are sought; where they may lie.
    settings : VariabilitySettings, optional
    clusters : int, optional
        Clusters of the coordinates; by default as many as held-out particles ask for.
    resume : bool
        There must be a checkpoint in ``out`` to go on from; if there is one, it is used in any case.
    threads : int, optional
    listener : Listener, "screen" or None

    Raises
    ------
    InputError
        More clusters than the particles allow, or what :func:`verglas.variability` refuses.
    """
    given = read_particles(particles, stack=stack)
    check_clusters(len(given), clusters)
    with shown_to(listener) as heard, tenure(out, "variability", heard) as held:
        chosen = settings or VariabilitySettings()
        maps = {"mean": mean, "mask": mask}
        record = result_settings(chosen) | {k: None if v is None else reference_name(v) for k, v in maps.items()}
        checkpoints = Checkpoints(out, record, close_identity(given), held.say)
        checkpoints.open(resume=resume)
        held.write(state="running", n_particles=len(given))
        about, inside = (None if path is None else read_map(path) for path in maps.values())
        keeper = checkpoints.part("components")
        made = analyse_variability(given, chosen, inside, mean_map=about, threads=threads, listener=held, keeper=keeper)
        if made.excluded:
            held.note("set_aside", set_aside_sentence(made.excluded))
        spread = _spread(made, clusters, held) if made.n_components else None
        _write(out, made, spread)
        write_set_aside(out, given, made.excluded)
        checkpoints.remove()
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


def with_coordinates(made: Variability, land: Landscape | None = None) -> Particles:
    """The particles with a column for each coordinate, its standard deviation, the contrast, and the cluster."""
    names = map(str, made.particles.table)
    columns: dict[str, Any] = {n: None for n in names if n.startswith("verglasCoordinate")}  # of an earlier analysis
    columns["verglasContrast"] = made.contrast
    columns["verglasCluster"] = None if land is None else land.cluster
    for q in range(made.n_components):
        columns[f"verglasCoordinate{q + 1}"] = made.coordinates[:, q]
        columns[f"verglasCoordinateError{q + 1}"] = np.sqrt(made.covariances[:, q, q])
    return made.particles.with_columns(**columns)


@dataclass(frozen=True, eq=False)
class _Spread:
    """How particles are spread, and maps of those along a way across."""

    land: Landscape
    path: FloatArray
    maps: list[tuple[Map, float]]
    no_maps: str = ""

    def as_dict(self) -> dict[str, Any]:
        return {
            "clusters": self.land.clusters,
            "cluster_shares": self.land.mixture.shares.tolist(),
            "cluster_centres": self.land.mixture.means.tolist(),
            "cluster_particles": np.bincount(self.land.cluster, minlength=self.land.clusters + 1)[1:].tolist(),
            "cluster_trials": self.land.trials.to_dict("records"),
            "path": self.path.tolist(),
            "path_particles": [number for _, number in self.maps],
            "path_without_maps": self.no_maps,
        }


def _spread(made: Variability, clusters: int | None, held: Tenure) -> _Spread | None:
    try:
        land = made.landscape(clusters)
    except InputError as few:  # too many were set aside: mean and components are worth keeping
        held.note("landscape", f"no landscape: {few}")
        return None
    path = land.path(*land.ends(), count=_TRAJECTORY)
    try:
        return _Spread(land, path, [made.neighbours_map(z) for z in path])
    except InputError as few:
        held.note("path", f"no maps along the path: {few}")
        return _Spread(land, path, [], str(few))


def _write_spread(folder: Path, made: Variability, spread: _Spread | None) -> None:
    count = 0 if spread is None or spread.land.clusters == 1 else spread.land.clusters
    remove_numbered(folder, r"particles_cluster(?P<number>\d+)\.star", count)
    remove_numbered(folder, r"path_state(?P<number>\d+)\.mrc", 0 if spread is None else len(spread.maps))
    if made.n_components:
        write_map(folder / "deviation.mrc", made.deviation)
    else:
        remove_file(folder / "deviation.mrc")
    if spread is None:
        return
    for number, (volume, _) in enumerate(spread.maps, 1):
        write_map(folder / f"path_state{number}.mrc", volume)
    everyone = with_coordinates(made, spread.land)
    for k in range(1, count + 1):
        write_particles(folder / f"particles_cluster{k}.star", everyone[np.flatnonzero(spread.land.cluster == k)])


def _write(folder: Path, made: Variability, spread: _Spread | None) -> None:
    remove_numbered(folder, r"component(?P<number>\d+)(_state\d+)?\.mrc", made.n_components)
    _write_spread(folder, made, spread)
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
    write_particles(folder / "particles.star", with_coordinates(made, None if spread is None else spread.land))
    record = {
        "verglas": __version__,
        "command": "variability",
        "finished": now_text(),
        "settings": asdict(made.settings),
    }
    write_json(folder / "variability.json", record | summary(made) | ({} if spread is None else spread.as_dict()))
    shown = None if spread is None else landscape_section(spread.land, made.coordinates, spread.path, spread.no_maps)
    write_text(folder / "report.html", render(variability_page(made, asdict(made.settings), footer_text(), shown)))
