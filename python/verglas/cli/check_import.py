"""``verglas check-import``: a dry run of an import on one micrograph."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import typer


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command(name="check-import", epilog="Example: verglas check-import particles.star mics/m1.mrc")
    def check_import(
        particles: Path = typer.Argument(..., help="Particles with coordinates: RELION STAR or cryoSPARC .cs."),
        micrograph: Path = typer.Argument(..., help="One of their micrographs."),
        pixel_size: float = typer.Option(None, "--pixel-size", help="Of the micrograph, A [its header's]"),
        as_json: bool = typer.Option(False, "--json", help="Print JSON."),
    ) -> None:
        """Cut the particles of one micrograph anew and compare them with the set's own images.

        Coordinates, the order of rows (flip) and the sign of contrast are right where the correlation is high. Exit
        status 1 if neither order of rows gives the images at the coordinates.
        """
        from verglas.run.check_import import check_import as check

        checks = check(particles, micrograph, pixel_size_A=pixel_size)
        if as_json:
            typer.echo(json.dumps([asdict(one) | {"agrees": one.agrees} for one in checks], indent=2))
        else:
            for one in checks:
                agreement = f"correlation {one.correlation:.3f}, at the best offset {one.best_correlation:.3f}"
                typer.echo(f"rows {one.rows}: {agreement}, {one.particles} particles: {one.sentence}")
        if not any(one.agrees for one in checks):
            raise typer.Exit(1)
