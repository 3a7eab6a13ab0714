"""``verglas align``: poses of particles against a map."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import typer

from verglas.cli.options import with_settings
from verglas.run.align import AlignJob, AlignSettings, align_files


def register(app: typer.Typer) -> None:
    """Add the command."""
    example = "verglas align particles.star --reference map.mrc --diameter 140 --out aligned.star"
    app.command(epilog=f"Example: {example}")(align)


@with_settings(AlignSettings)
def align(
    particles: Path = typer.Argument(..., help="Particles: RELION STAR or cryoSPARC .cs."),
    reference: Path = typer.Option(..., "--reference", "--ref", help="Map of the same box and pixel size."),
    out: Path = typer.Option(..., "--out", "-o", help="STAR file to write, with poses."),
    stack: Path = typer.Option(None, "--stack", help="Image stack in place of the one the file names."),
    device: str = typer.Option("cpu", "--device", help="cpu, cuda:0, cuda:0,cuda:1, or cuda for all."),
    threads: int = typer.Option(None, "--threads", min=1, help="Threads [all]."),
    as_json: bool = typer.Option(False, "--json", help="Print the summary as JSON."),
    *,
    settings: dict[str, Any],
) -> None:
    """Find the poses of particles by a global search against a map.

    Every direction, in-plane angle and shift is scored; the best is then refined on the exact likelihood. A step of
    3.75 degrees or less is reached by branch and bound: slower than the default, and surer where signal is weak.
    """
    summary = align_files(AlignJob(particles, reference, out, AlignSettings(**settings), stack, device, threads))
    numbers = summary.as_dict()
    if as_json:
        typer.echo(json.dumps(numbers, indent=2))
        return
    typer.echo(
        f"{numbers['particles_aligned']} of {numbers['particles_read']} particles aligned in {numbers['seconds']} s "
        f"({numbers['particles_per_second']} per second); median probability of the best pose "
        f"{numbers['median_max_probability']:.2f}: {out}"
    )
