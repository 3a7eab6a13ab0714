"""``verglas check-conventions``: every reader against the same projections."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import typer


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command(name="check-conventions", epilog="Example: verglas check-conventions particles.star")
    def check_conventions(
        particles: Path = typer.Argument(..., help="Particles with poses: RELION STAR or cryoSPARC .cs."),
        as_json: bool = typer.Option(False, "--json", help="Print JSON."),
    ) -> None:
        """Project a chiral phantom at the poses of a file, through every format, and compare.

        Signs, axes, the order of angles, units of shifts and CTFs must survive each writer and reader. Exit status 1 if
        one does not.
        """
        from verglas.run.check_conventions import check_conventions as check

        conventions = check(particles)
        if as_json:
            typer.echo(json.dumps([asdict(one) for one in conventions], indent=2))
        else:
            for one in conventions:
                word = "agrees" if one.agrees else "DIFFERS"
                against = f"smallest correlation {one.correlation:.4f} (a mirror image: {one.mirror:.2f})"
                typer.echo(f"{word}  {one.name}: {against}")
        if not all(one.agrees for one in conventions):
            raise typer.Exit(1)
