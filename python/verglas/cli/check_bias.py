"""``verglas check-bias``: what part of an alignment's result noise alone reproduces."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import typer

from verglas.cli.options import with_settings
from verglas.run.check_bias import BiasSettings, CheckBiasJob, check_bias_files


def register(app: typer.Typer) -> None:
    """Add the command."""
    example = "verglas check-bias particles.star --reference ref.mrc --diameter 150"
    app.command("check-bias", epilog=f"Example: {example}")(check_bias)


@with_settings(BiasSettings)
def check_bias(
    particles: Path = typer.Argument(..., help="Particles: RELION STAR or cryoSPARC .cs."),
    reference: Path = typer.Option(..., "--reference", "--ref", help="Map, image or stack of images of their box."),
    symmetry: str = typer.Option("C1", "--symmetry", "--sym", help="Point group of a map."),
    figure: Path = typer.Option(None, "--figure", help="Comparison as a PNG, or as a page (.html)."),
    out: Path = typer.Option(None, "--out", "-o", help="JSON file of the numbers."),
    stack: Path = typer.Option(None, "--stack", help="Image stack in place of the one the file names."),
    device: str = typer.Option("cpu", "--device", help="cpu or cuda:0."),
    threads: int = typer.Option(None, "--threads", min=1, help="Threads [all]."),
    as_json: bool = typer.Option(False, "--json", help="Print JSON."),
    *,
    settings: dict[str, Any],
) -> None:
    """Align noise images of the data's spectrum like the data, and compare the results.

    Aligning noise to a reference reproduces the reference. The share of the agreement that noise reaches, and
    whether data finer than the alignment used agree as well, tell evidence from bias.
    """
    chosen = BiasSettings(**settings)
    bias, summary = check_bias_files(
        CheckBiasJob(particles, reference, chosen, symmetry, figure, out, stack, device, threads)
    )
    typer.echo(json.dumps(summary, indent=1) if as_json else bias.verdict)
