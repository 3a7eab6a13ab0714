"""Simulated particle sets on disk: stack, metadata, true map and a picture."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from verglas._screen import ListenerChoice, shown_to
from verglas._version import __version__
from verglas.io import make_folder, read_particles, write_map, write_particles, write_text
from verglas.report.montage import montage
from verglas.run.kept_inputs import keeps_inputs
from verglas.simulate import SNR, Imaging, Model, Simulation, density, hinge, phantom, read_model
from verglas.simulate.text import TextPhantom, read_phantom, volume_of
from verglas.types import Particles, Poses
from verglas.types.listener import Listener
from verglas.types.settings import settings_from

_HIDDEN = ("rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi", "rlnOriginXAngst", "rlnOriginYAngst", "rlnClassNumber")
# A stack larger than this is made in a file, not in memory.
_IN_MEMORY_BYTES = 1 << 30
_SHOWN = 8
_WRITTEN = ("particles.*", "truth*.*", "montage.png", "simulation.json")


@keeps_inputs("simulate")
def particles(
    model: Model | TextPhantom | Sequence[Model | TextPhantom],
    n: int,
    box: int,
    pixel_size_A: float,
    snr: float = float("inf"),
    out: str | os.PathLike[str] | None = None,
    *,
    seed: int = 0,
    imaging: Imaging | None = None,
    poses: Poses | None = None,
    hide_poses: bool = False,
    threads: int | None = None,
    listener: ListenerChoice = "screen",
    **changes: Any,
) -> Particles:
    """Simulate particle images with exact projections, and write them if asked.

    Public as ``vg.simulate.particles``. With ``out``, the folder holds ``particles.mrcs`` and ``particles.star``,
    ``truth.mrc`` (``truth_class002.mrc``, ... for further conformations: the density with the envelope, which is what a
    perfect reconstruction gives), ``montage.png`` and ``simulation.json``.

    Parameters
    ----------
    model : Model or TextPhantom, or a sequence of them
        Atoms, or bodies of a text file, scaled to the box; several are conformations (rlnClassNumber).
    n, box, pixel_size_A : int, int, float
        Particles, image side in pixels, pixel size.
    snr : float
        Variance of the CTF-modulated, noise-free images over the whole box divided by the variance of the noise.
    out : path, optional
        Folder to write; it is made. Without it the images stay in memory.
    seed : int
        Particle i depends on the seed and on i alone: not on n, threads or batches (its noise level does on the mean
        signal of the set).
    imaging : Imaging, optional
        Microscope and distributions; further keywords (``defocus_A=(5000, 15000)``) change its fields.
    poses : Poses, optional
        Given instead of drawn.
    hide_poses : bool
        ``particles.star`` without poses and classes, which then stand in ``truth.star`` only.
    threads : int, optional
        Threads; no image depends on it.
    listener : Listener, "screen" or None
        Who is told how it goes (:class:`verglas.types.listener.Listener`).

    Returns
    -------
    Particles
        With true poses, CTFs, half sets and classes (without poses where ``hide_poses``).

    Raises
    ------
    InputError
        A model does not fit the box, or a setting is wrong or unknown.

    Examples
    --------
    >>> import verglas as vg
    >>> model = vg.simulate.phantom(box=32, pixel_size_A=4.0, diameter_A=80)
    >>> p = vg.simulate.particles(model, 20, box=32, pixel_size_A=4.0, snr=0.1, defocus_A=(10000, 20000))
    >>> p.images().shape, len(p.poses), p.pixel_size_A
    ((20, 32, 32), 20, 4.0)
    """
    simulation = Simulation(
        model,
        n,
        box,
        pixel_size_A,
        imaging=settings_from("simulate", Imaging, imaging, **changes),
        seed=seed,
        poses=poses,
        threads=threads,
    )
    with shown_to(listener) as heard:
        if out is None:
            images = np.empty((n, box, box), np.float32)
            simulation.render(images, snr, heard)
            complete = simulation.particles(images)
            return _without_poses(complete) if hide_poses else complete
        folder = Path(out)
        make_folder(folder)
        measured_snr = _write_images(simulation, folder, snr, heard)
    if hide_poses:
        # Read back: the images lie in the stack by now, and both tables have to name it.
        truth = read_particles(folder / "particles.star")
        write_particles(folder / "truth.star", truth)
        write_particles(folder / "particles.star", _without_poses(truth))
    _write_truth(simulation, folder, threads)
    _write_settings(simulation, measured_snr, folder)
    return read_particles(folder / "particles.star")


def _write_images(simulation: Simulation, folder: Path, snr: float, listener: Listener) -> SNR:
    """Stack, STAR file and picture; the signal-to-noise ratio that was reached."""
    with _stack(folder, (simulation.n, simulation.box, simulation.box)) as images:
        measured_snr = simulation.render(images, snr, listener)
        write_particles(folder / "particles.star", simulation.particles(images))
        _write_picture(simulation, images, folder)
    return measured_snr


def models_of(
    source: str | Path | Sequence[Path],
    *,
    box: int,
    pixel_size_A: float,
    diameter_A: float,
    seed: int = 0,
    hinge_deg: float | None = None,
    assembly: str | None = "1",
) -> list[Model | TextPhantom]:
    """The conformations of a job: those of the files, or a phantom of the point group ``source`` and its hinge.

    A path in place of the point group is a phantom of geometric bodies (:mod:`verglas.simulate.text`).
    """
    if isinstance(source, Path):
        return [read_phantom(source)]
    if not isinstance(source, str):
        return [read_model(path, assembly) for path in source]
    first = phantom(box, pixel_size_A, diameter_A, source, seed)
    return [first] if hinge_deg is None else [first, hinge(first, hinge_deg)]


def describe(out: str | os.PathLike[str]) -> dict[str, Any]:
    """What a folder written by :func:`particles` holds: its settings, files, and a ``text`` for people."""
    folder = Path(out)
    record: dict[str, Any] = json.loads((folder / "simulation.json").read_text())
    snr = SNR(np.inf if record["snr"] is None else record["snr"], record["snr_region"])
    # Not all that lies there: a folder may hold more than this job wrote.
    record["files"] = sorted({path.name for pattern in _WRITTEN for path in folder.glob(pattern)})
    models = " and ".join(
        f"{m['name']} ({m['atoms']} atoms)" if "atoms" in m else f"{m['name']} ({m['bodies']} bodies)"
        for m in record["models"]
    )
    record["text"] = (
        f"{record['n']} particles of {record['box']} px, {record['pixel_size_A']:g} A/px, of {models}\n"
        f"{snr}\n{folder}: {', '.join(record['files'])}"
    )
    return record


def _without_poses(truth: Particles) -> Particles:
    return truth.with_columns(**dict.fromkeys(_HIDDEN))


@contextmanager
def _stack(folder: Path, shape: tuple[int, int, int]) -> Iterator[npt.NDArray[np.float32]]:
    """Room for all images: memory, or a scratch file in the output folder that is gone afterwards."""
    if 4 * np.prod(shape, dtype=np.int64) <= _IN_MEMORY_BYTES:
        yield np.empty(shape, np.float32)
        return
    # In the output folder: the system's temporary folder may be memory, or too small for a stack.
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".images.", suffix=".part") as scratch:
        yield np.memmap(scratch.name, np.float32, "w+", shape=shape)


def _write_truth(simulation: Simulation, folder: Path, threads: int | None) -> None:
    b_factor_A2 = simulation.imaging.envelope_b_factor_A2
    box, pixel = simulation.box, simulation.pixel_size_A
    for i, model in enumerate(simulation.models):
        if isinstance(model, TextPhantom):
            truth = volume_of(model, box, pixel, b_factor_A2, threads=threads)
        else:
            truth = density(model, box, pixel, b_factor_A2=b_factor_A2, threads=threads)
        write_map(folder / ("truth.mrc" if i == 0 else f"truth_class{i + 1:03d}.mrc"), truth)


def _write_picture(simulation: Simulation, images: npt.NDArray[np.float32], folder: Path) -> None:
    sample = np.arange(min(_SHOWN, simulation.n))
    rows = [simulation.clean(sample), images[sample]]
    montage(rows, folder / "montage.png", labels=["no noise", "particles"], zoom=max(1, 128 // simulation.box))


def _write_settings(simulation: Simulation, measured_snr: SNR, folder: Path) -> None:
    settings = {
        "verglas": __version__,
        "seed": simulation.seed,
        "n": simulation.n,
        "box": simulation.box,
        "pixel_size_A": simulation.pixel_size_A,
        "snr": measured_snr.value if np.isfinite(measured_snr.value) else None,
        "snr_region": measured_snr.region,
        "models": [_model_record(m, simulation) for m in simulation.models],
        "imaging": asdict(simulation.imaging),
    }
    text = json.dumps(settings, indent=2, default=lambda array: np.asarray(array).tolist())
    write_text(folder / "simulation.json", text + "\n")


def _model_record(model: Model | TextPhantom, simulation: Simulation) -> dict[str, Any]:
    if isinstance(model, TextPhantom):
        radius_A = model.radius_A(simulation.box, simulation.pixel_size_A)
        return {"name": model.name, "bodies": len(model.features), "radius_A": radius_A}
    return {"name": model.name, "atoms": len(model), "radius_A": model.radius_A}
