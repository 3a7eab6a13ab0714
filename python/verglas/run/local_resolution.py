"""``verglas local-resolution`` on files: half maps in, resolution at every voxel, tables and a page out."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

from verglas._screen import ListenerChoice
from verglas._version import __version__
from verglas.assessment.local_directional import local_directions
from verglas.assessment.local_filter import filter_locally
from verglas.assessment.local_network import disagreement
from verglas.assessment.local_resolution import LocalResolution, LocalResolutionSettings, local_resolution
from verglas.assessment.local_tomogram import local_resolution_of_tomogram
from verglas.errors import InputError
from verglas.io import check_folder, make_folder, read_map, write_csv, write_json, write_map, write_text
from verglas.report.local_resolution import COLOUR_SCALE, write_local_resolution_page
from verglas.run.kept_inputs import keeps_inputs
from verglas.run.maps import read_half_maps, read_mask, warn_of_origins
from verglas.types import Map


@dataclass(frozen=True)
class LocalResolutionJob:
    """What ``verglas local-resolution`` is asked for.

    Attributes
    ----------
    half1, half2 : Path
        Unfiltered, unmasked half maps.
    out : Path
        Folder to write; it is made.
    mask : Path, optional
        Where the molecule is; made from the map if not given.
    map : Path, optional
        What the filter is applied to and the surface is of; the mean of the half maps if not given.
    filtered_map : bool
        Write a map filtered to the resolution of each voxel.
    pixel_size_A : float, optional
        In place of the headers'.
    settings : LocalResolutionSettings
        The rest.
    threads : int, optional
        Threads; the result does not depend on it.
    """

    half1: Path
    half2: Path
    out: Path
    mask: Path | None = None
    map: Path | None = None
    filtered_map: bool = False
    pixel_size_A: float | None = None
    settings: LocalResolutionSettings = field(default_factory=LocalResolutionSettings)
    threads: int | None = None


@keeps_inputs("local-resolution")
def local_resolution_files(
    job: LocalResolutionJob, *, listener: ListenerChoice = "screen"
) -> tuple[LocalResolution, dict[str, Any]]:
    """Local resolution of two half map files.

    Writes local_resolution.mrc, mask.mrc, map.mrc, histogram.csv, bands.csv, colour.cxc (ChimeraX),
    local_resolution.json and report.html; with ``filtered_map`` also map_filtered.mrc, by the method ``directional``
    local_resolution_finest.mrc, _coarsest, _radial and _tangential; by the method ``network``
    local_resolution_over_fsc.mrc, the ratio to what the windowed FSC says.

    Parameters
    ----------
    job : LocalResolutionJob
    listener : Listener, "screen" or None
        Who is told how it goes (:class:`verglas.types.listener.Listener`).

    Returns
    -------
    LocalResolution, dict
        And the record that local_resolution.json holds.

    Raises
    ------
    InputError
        The files do not go together; the message names them.
    """
    check_folder(job.out)
    started = time.perf_counter()
    method = job.settings.method
    if method == "tomogram" and job.filtered_map:
        raise InputError("local-resolution: --filtered-map filters cubes, not tomograms; leave it out")
    if method == "tomogram":
        first, second = (read_map(path, job.pixel_size_A) for path in (job.half1, job.half2))
        warn_of_origins(first, second, job.half1, job.half2)
    else:
        first, second = read_half_maps(job.half1, job.half2, job.pixel_size_A)
    mask = None if job.mask is None else first.with_data(read_mask(job.mask, first, job.half1))
    shown = first.with_data(0.5 * (first.data + second.data)) if job.map is None else _map_like(job.map, first)
    how: dict[str, Any] = {"threads": job.threads, "listener": listener}
    directions = local_directions(first, second, mask, job.settings, **how) if method == "directional" else None
    if directions is not None:
        result = directions.resolution
    elif method == "tomogram":
        result = local_resolution_of_tomogram(first, second, mask, job.settings, **how)
    else:
        result = local_resolution(first, second, mask, job.settings, **how)
    # Beside the network stands the method that needs no training, under the same window.
    against = None
    if method == "network":
        plain = replace(job.settings, method="fsc", window_radius_A=result.window_radius_A)
        against = disagreement(result, local_resolution(first, second, result.mask, plain, **how))
    make_folder(job.out)
    maps = {"map": shown, "mask": result.mask, "local_resolution": result.map}
    if directions is not None:
        names = ("finest", "coarsest", "radial", "tangential")
        maps |= {f"local_resolution_{name}": getattr(directions, name) for name in names}
    if against is not None:
        maps["local_resolution_over_fsc"] = result.map.with_data(against.ratio)
    if job.filtered_map:
        maps["map_filtered"] = filter_locally(shown, result.map, threads=job.threads)
    for name, volume in maps.items():
        write_map(job.out / f"{name}.mrc", volume)
    write_tables(job.out, result)
    surface = "map_filtered.mrc" if job.filtered_map else "map.mrc"
    write_text(job.out / "colour.cxc", chimerax_script(result, Path(surface)))
    sources = {"half1": str(job.half1), "half2": str(job.half2), "mask": str(job.mask or "made from the map")}
    sources["map"] = str(job.map or "mean of the half maps")
    record = {
        "verglas": __version__,
        **result.as_dict(),
        **({} if directions is None else {"directional": directions.as_dict()}),
        **({} if against is None else {"against_fsc": against.as_dict()}),
        "settings": {**sources, **asdict(job.settings)},
        "seconds": round(time.perf_counter() - started, 2),
    }
    write_json(job.out / "local_resolution.json", record)
    now = datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    write_local_resolution_page(job.out, result, maps, f"verglas {__version__}, {now}", directions=directions)
    return result, record


def _map_like(path: Path, like: Map) -> Map:
    volume = read_map(path, like.pixel_size_A)
    if volume.data.shape != like.data.shape:
        raise InputError(f"{path} has shape {volume.data.shape}, the half maps {like.data.shape} (z, y, x)")
    if bad := np.count_nonzero(~np.isfinite(volume.data)):
        raise InputError(f"{path}: {bad} voxels are not finite numbers")
    return volume


def write_tables(folder: Path, local: LocalResolution) -> None:
    """histogram.csv, of the voxels in the mask, and bands.csv."""
    values = local.values_A
    counts, edges = np.histogram(values, bins=min(80, max(10, values.size // 50)))
    write_csv(folder / "histogram.csv", {"from_A": edges[:-1], "to_A": edges[1:], "voxels": counts})
    columns = {
        "frequency_per_A": local.frequency_per_A,
        "threshold": local.threshold,
        "independent_voxels": local.independent,
    }
    write_csv(folder / "bands.csv", columns)


def chimerax_script(local: LocalResolution, surface: Path) -> str:
    """Commands for ChimeraX that open the map and colour its surface by resolution, from blue (fine) to red."""
    fine, coarse = local.quantiles_A((0.02, 0.98))
    steps = np.linspace(fine, max(coarse, fine + 0.1), len(COLOUR_SCALE))
    palette = ":".join(f"{value:.2f},{colour}" for value, colour in zip(steps, COLOUR_SCALE, strict=True))
    inside = local.mask.data >= 0.5
    return "\n".join(
        [
            "# Surface of the map coloured by local resolution, in angstrom; open with ChimeraX.",
            f"open {surface.name}",
            "open local_resolution.mrc",
            "volume #2 hide",
            f"# {int(inside.sum())} voxels of the mask; move the level with the slider, the colours follow.",
            "volume #1 step 1 style surface",
            f"color sample #1 map #2 palette {palette}",
            "key " + " ".join(f"{colour}:{value:.1f}" for value, colour in zip(steps, COLOUR_SCALE, strict=True)),
            "",
        ]
    )
