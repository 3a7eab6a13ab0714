"""``verglas tomogram``: a map from an aligned tilt series."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import typer

from verglas.cli.options import with_settings
from verglas.cli.usage import refuse_unless_positive
from verglas.run.tomogram import TomogramJob, TomogramSettings, tomogram_files


def register(app: typer.Typer) -> None:
    """Add the command."""
    example = "verglas tomogram tilts.st --tilt-angles tilts.rawtlt --pixel-size 8 --method sirt --out tomo"
    app.command(epilog=f"Example: {example}")(tomogram)


@with_settings(TomogramSettings)
def tomogram(
    tilts: Path = typer.Argument(..., help="Images (.mrc, .st), aligned, the tilt axis through pixel N // 2."),
    tilt_angles: Path = typer.Option(..., "--tilt-angles", help="One tilt a line, degrees (.tlt, .rawtlt)."),
    out: Path = typer.Option(..., "--out", "-o", help="Folder to write: map.mrc, tomogram.json, report.html."),
    pixel_size: float = typer.Option(..., "--pixel-size", help="Of the images, A."),
    transforms: Path = typer.Option(None, "--transforms", help="How to align them, IMOD's .xf [they are aligned]."),
    check_tilts: int = typer.Option(5, "--check-tilts", min=0, help="Tilts left out in turn and predicted."),
    threads: int = typer.Option(None, "--threads", min=1, help="Threads [all]."),
    as_json: bool = typer.Option(False, "--json", help="Print the summary as JSON."),
    *,
    settings: dict[str, Any],
) -> None:
    """Reconstruct a map from an aligned tilt series, and say how well left-out tilts are predicted."""
    refuse_unless_positive({"--pixel-size": pixel_size}, "A")
    job = TomogramJob(
        tilts, tilt_angles, out, pixel_size, TomogramSettings(**settings), check_tilts, threads, transforms
    )
    numbers = tomogram_files(job)
    if as_json:
        typer.echo(json.dumps(numbers, indent=2))
        return
    predicted = [one["correlation"] for one in numbers["left_out"]]
    said = (
        f", left-out tilts predicted with a correlation of {sum(predicted) / len(predicted):.3f}" if predicted else ""
    )
    typer.echo(f"{numbers['tilts']} tilts, {numbers['seconds']} s{said}: {numbers['map']}, {out}/report.html")
