"""``verglas heterogeneity``: is there more than one structure, and of which kind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import typer

from verglas.cli.options import with_settings
from verglas.run.heterogeneity import TestSettings, heterogeneity_files
from verglas.types.settings import settings_from


def register(app: typer.Typer) -> None:
    """Add the command."""
    example = "verglas heterogeneity run1/particles.star --resolution 12 --diameter 180"
    app.command(epilog=f"Example: {example}")(heterogeneity)


@with_settings(TestSettings)
def heterogeneity(
    particles: Path = typer.Argument(..., help="Particles with poses: RELION STAR or cryoSPARC .cs."),
    out: Path = typer.Option(None, "--out", "-o", help="JSON file to write [none]."),
    map: Path = typer.Option(None, "--map", help="What the poses were found against, to be compared [not compared]."),
    stack: Path = typer.Option(None, "--stack", help="Image stack in place of the one the file names."),
    threads: int = typer.Option(None, "--threads", min=1, help="Threads [all]."),
    as_json: bool = typer.Option(False, "--json", help="Print the result as JSON."),
    *,
    settings: dict[str, Any],
) -> None:
    """Say whether particles at their poses show more than one structure: classes, continuous change, or wrong poses.

    One map, classes and linear components are learned in two half sets; each is judged by the particles of the half
    that it was not made from, in nats per particle over one map.
    """
    chosen = settings_from("heterogeneity", TestSettings, **settings)
    test = heterogeneity_files(particles, out, stack=stack, map=map, settings=chosen, threads=threads)
    if as_json:
        typer.echo(json.dumps(test.as_dict(), indent=2))
        return
    for row in test.models.to_dict("records"):
        gains = [f"{row[f'gain_{how}nats']:+9.4f} +- {row[f'error_{how}nats']:.4f}" for how in ("", "with_free_poses_")]
        typer.echo(f"{row['model']:>14}  {gains[0]} nats per particle; with free poses {gains[1]}")
    typer.echo(f"{test.verdict}: {test.sentence}")
