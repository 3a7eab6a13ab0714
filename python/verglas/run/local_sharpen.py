"""``verglas local-sharpen`` on files: a map in, the map sharpened place by place and a page out."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from verglas._screen import ListenerChoice, shown_to
from verglas._version import __version__
from verglas.assessment.guinier import amplitude_spectrum
from verglas.assessment.local_resolution import local_resolution
from verglas.assessment.local_sharpen import (
    LocallySharpened,
    LocalSharpenSettings,
    deblur_locally,
    scale_locally,
)
from verglas.assessment.map_model import map_model
from verglas.assessment.model_density import model_density
from verglas.errors import InputError
from verglas.io import check_folder, make_folder, read_atoms, read_map, write_csv, write_json, write_map
from verglas.report.local_sharpen import write_local_sharpen_page
from verglas.run.kept_inputs import keeps_inputs
from verglas.run.maps import read_half_maps, read_mask
from verglas.types import Map
from verglas.types.arrays import FloatArray
from verglas.types.listener import Listener


@dataclass(frozen=True)
class LocalSharpenJob:
    """What ``verglas local-sharpen`` is asked for: the resolution of each voxel, or a model, says how.

    Attributes
    ----------
    map : Path
        Neither sharpened nor filtered.
    out : Path
        Folder to write; it is made.
    half_maps : (Path, Path), optional
        Tell the resolution of each voxel.
    resolution : Path, optional
        A map of resolutions in angstrom, of any program, in place of half maps.
    model : Path, optional
        mmCIF or PDB in the map's frame, with refined B-factors: amplitudes are taken from it.
    mask : Path, optional
        Where the molecule is; made from the half maps if they are given.
    pixel_size_A : float, optional
        In place of the headers'.
    settings : LocalSharpenSettings
        The rest.
    threads : int, optional
        Threads; the result does not depend on it.
    """

    map: Path
    out: Path
    half_maps: tuple[Path, Path] | None = None
    resolution: Path | None = None
    model: Path | None = None
    mask: Path | None = None
    pixel_size_A: float | None = None
    settings: LocalSharpenSettings = field(default_factory=LocalSharpenSettings)
    threads: int | None = None

    def __post_init__(self) -> None:
        """Check that one way is asked for."""
        ways = [name for name in ("half_maps", "resolution", "model") if getattr(self, name) is not None]
        if len(ways) != 1:
            raise InputError(
                "local-sharpen: give one of --half1 and --half2, --resolution-map, --model; got "
                + (" and ".join(ways).replace("_", " ") or "none")
            )


@keeps_inputs("local-sharpen")
def local_sharpen_files(
    job: LocalSharpenJob, *, listener: ListenerChoice = "screen"
) -> tuple[LocallySharpened, dict[str, Any]]:
    """Sharpen a map file place by place.

    Writes map_sharpened.mrc, amplitudes.csv, local_sharpen.json and report.html; with half maps also
    local_resolution.mrc and mask.mrc.

    Parameters
    ----------
    job : LocalSharpenJob
    listener : Listener, "screen" or None
        Who is told how it goes (:class:`verglas.types.listener.Listener`).

    Returns
    -------
    LocallySharpened, dict
        And the record that local_sharpen.json holds.

    Raises
    ------
    InputError
        The files do not go together; the message names them.
    """
    check_folder(job.out)
    started = time.perf_counter()
    volume = read_map(job.map, job.pixel_size_A)
    with shown_to(listener) as heard:
        made = _by_model(job, volume, heard) if job.model else _by_resolution(job, volume, heard)
    done = made.sharpened
    make_folder(job.out)
    for name, one in {"map_sharpened": done.map, **made.written}.items():
        write_map(job.out / f"{name}.mrc", one)
    curves = _curves({"map": volume, "sharpened": done.map, **made.compared})
    write_csv(job.out / "amplitudes.csv", curves)
    record = {
        "verglas": __version__,
        "map": str(job.map),
        "method": done.method,
        "iterations": done.iterations,
        "noise_to_signal": _number(done.noise_to_signal),
        "finest_A": _number(done.finest_A),
        **made.said,
        "settings": asdict(job.settings),
        "seconds": round(time.perf_counter() - started, 2),
    }
    write_json(job.out / "local_sharpen.json", record)
    now = datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    write_local_sharpen_page(job.out, record, volume, done, curves, f"verglas {__version__}, {now}")
    return done, record


class _Made(NamedTuple):
    sharpened: LocallySharpened
    written: dict[str, Map]  # beside the map
    compared: dict[str, Map]  # by their amplitudes
    said: dict[str, Any]  # in the record


def _by_resolution(job: LocalSharpenJob, volume: Map, heard: Listener) -> _Made:
    """Deblurred by a map of resolutions, or by that of the half maps."""
    mask = None if job.mask is None else volume.with_data(read_mask(job.mask, volume, job.map))
    written: dict[str, Map] = {}
    if job.half_maps is not None:
        halves = read_half_maps(*job.half_maps, job.pixel_size_A)
        if halves[0].data.shape != volume.data.shape:
            raise InputError(
                f"{job.half_maps[0]} has shape {halves[0].data.shape} and {job.map} {volume.data.shape} (z, y, x)"
            )
        local = local_resolution(*halves, mask, method="significance", threads=job.threads, listener=heard)
        written = {"local_resolution": local.map, "mask": local.mask}
        resolution, mask = local.map, local.mask
    else:
        assert job.resolution is not None
        resolution = read_map(job.resolution, volume.pixel_size_A)
    done = deblur_locally(volume, resolution, mask, job.settings, threads=job.threads, listener=heard)
    inside = np.ones_like(resolution.data, bool) if mask is None else mask.data >= 0.5
    quantiles = np.quantile(resolution.data[inside], (0.05, 0.5, 0.95))
    said = {"resolution_A": dict(zip(("q05", "median", "q95"), quantiles.round(3).tolist(), strict=True))}
    return _Made(done, written, {}, said)


def _by_model(job: LocalSharpenJob, volume: Map, heard: Listener) -> _Made:
    """Amplitudes of a model's density, and how well map and model agree before and after."""
    assert job.model is not None
    atoms = read_atoms(job.model)
    # Refused where the model lies elsewhere: amplitudes of another place would look like a sharp map.
    before = map_model(volume, atoms, threads=job.threads)
    reference = model_density(atoms, volume, threads=job.threads)
    done = scale_locally(volume, reference, job.settings, threads=job.threads, listener=heard)
    after = map_model(done.map, atoms, threads=job.threads)
    said = {
        name: {key: round(value, 4) for key, value in one.correlations.items()}
        for name, one in (("correlations_before", before), ("correlations_after", after))
    }
    return _Made(done, {}, {"model": reference}, said)


def _curves(maps: dict[str, Map]) -> dict[str, FloatArray]:
    """Root-mean-square amplitude of each shell, scaled to agree at the coarsest."""
    first = next(iter(maps.values()))
    spectra = {name: amplitude_spectrum(one)[1:] for name, one in maps.items()}
    frequency = np.arange(1, len(spectra["map"]) + 1) / (first.box * first.pixel_size_A)
    return {"frequency_per_A": frequency, **{name: one / one[0] for name, one in spectra.items() if one[0] > 0}}


def _number(value: float) -> float | None:
    return round(float(value), 5) if np.isfinite(value) else None
