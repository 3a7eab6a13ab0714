"""``verglas orientations``: how evenly views sample the map, and which tilt would help."""

from __future__ import annotations

import json
from pathlib import Path

import typer

from verglas.run.orientations import orientations_file


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command(epilog="Example: verglas orientations run1/particles.star --symmetry C1 --out views")
    def orientations(
        particles: Path = typer.Argument(..., help="Particles with orientations (.star, .cs)."),
        out: Path = typer.Option(..., "--out", "-o", help="Folder to write."),
        symmetry: str = typer.Option("C1", "--symmetry", help="Point group of the map."),
        as_json: bool = typer.Option(False, "--json", help="Print the numbers as JSON."),
    ) -> None:
        """Sampling compensation factor, orientation efficiency, and the stage tilt that would even views out.

        Of uneven views also which particles may be left out (kept.star) and which views to collect (collect.csv).
        Writes orientations.json, sampling.csv, tilts.csv and report.html.
        """
        record = orientations_file(particles, out, symmetry)
        if as_json:
            typer.echo(json.dumps(record, indent=2))
            return
        typer.echo(record["finding"]["sentence"])
        typer.echo(f"{out / 'report.html'}")
