"""Job on files: what part of an alignment's result noise reproduces."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from verglas._screen import ListenerChoice
from verglas._version import __version__
from verglas.classification import BiasReport, BiasSettings, check_bias
from verglas.errors import InputError
from verglas.geometry import orientation_grid
from verglas.io import check_writable, read_header, read_map, read_particles, read_stack, write_bytes, write_text
from verglas.io.mrc import stated_pixel_A
from verglas.io.rules import RECALIBRATED
from verglas.reconstruction import project
from verglas.report.bias import figure, page
from verglas.run.kept_inputs import keeps_inputs
from verglas.types import Poses

_PROJECTION_STEP_DEG = 15.0


@dataclass(frozen=True)
class CheckBiasJob:
    """What ``verglas check-bias`` is asked for.

    Attributes
    ----------
    particles, reference : Path
        STAR or CS file; a map, an image or a stack of images.
    settings : BiasSettings
        Of the alignment.
    symmetry : str
        Of the map.
    figure, out : Path, optional
        A PNG or, named ``.html``, a page with curves that answer; and a JSON file of the numbers.
    stack : Path, optional
        Image stack in place of the one the file names.
    device : str
        Where images are aligned.
    threads : int, optional
        Threads; all by default.
    """

    particles: Path
    reference: Path
    settings: BiasSettings = field(default_factory=BiasSettings)
    symmetry: str = "C1"
    figure: Path | None = None
    out: Path | None = None
    stack: Path | None = None
    device: str = "cpu"
    threads: int | None = None


def references_of(path: Path, symmetry: str = "C1") -> np.ndarray:
    """Images of a file: a stack as it is, a map as projections every 15 degrees.

    Raises
    ------
    InputError
        Neither a cube nor square images.
    """
    header = read_header(path)
    sections, rows, columns = header.shape
    if path.suffix.lower() != ".mrcs" and sections == rows == columns:
        directions, _ = orientation_grid(_PROJECTION_STEP_DEG, symmetry)
        return project(read_map(path), Poses(np.column_stack([directions, np.zeros(len(directions))])))
    if rows != columns:
        raise InputError(f"{path}: expected a cubic map or square images, got {header.shape}")
    return read_stack(path)


@keeps_inputs("check-bias")
def check_bias_files(job: CheckBiasJob, *, listener: ListenerChoice = "screen") -> tuple[BiasReport, dict[str, Any]]:
    """Read, align twice, report.

    Returns
    -------
    (BiasReport, dict)
        The report, and the same JSON-ready without the averages.

    Raises
    ------
    InputError
        See :func:`verglas.classification.check_bias`.
    """
    for path in (job.figure, job.out):
        if path is not None:
            check_writable(path)
    particles = read_particles(job.particles, stack=job.stack)
    stated_A = stated_pixel_A(job.reference)
    if stated_A not in (0.0, 1.0) and abs(stated_A / particles.pixel_size_A - 1) > RECALIBRATED:
        raise InputError(
            f"check-bias: {job.reference} has {stated_A:g} A/px, the particles {particles.pixel_size_A:g}; resample it "
            "(verglas resample)"
        )
    references = references_of(job.reference, job.symmetry)
    how: dict[str, Any] = {"device": job.device, "threads": job.threads, "listener": listener}
    result = check_bias(particles, references, job.settings, **how)
    summary = {
        "verdict": result.verdict,
        "biased": result.biased,
        "share": result.share,
        "unseen_sigma": result.unseen_sigma,
        "alignment_resolution_A": result.alignment_resolution_A,
        "frequency_per_A": result.frequency_per_A.tolist(),
        "data": result.data.tolist(),
        "noise": result.noise.tolist(),
    }
    if job.figure is not None and job.figure.suffix.lower() in (".html", ".htm"):
        write_text(job.figure, page(result, f"verglas {__version__}"))
    elif job.figure is not None:
        write_bytes(job.figure, figure(result))
    if job.out is not None:
        write_text(job.out, json.dumps(summary, indent=1) + "\n")
    return result, summary
