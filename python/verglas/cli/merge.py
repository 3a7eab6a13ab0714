"""``verglas merge``: several sets of particles as one, each particle once."""

from __future__ import annotations

import json
from pathlib import Path

import typer

from verglas.cli.usage import refuse_unless_positive


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command(epilog="Example: verglas merge day1.star day2.star --distance 60 --out all.star")
    def merge(
        sets: list[Path] = typer.Argument(..., help="Particles, several files or one to free of duplicates."),
        out: Path = typer.Option(..., "--out", "-o", help="STAR or CS file to write; the images stay where they are."),
        distance: float = typer.Option(
            None, "--distance", help="Particles of one micrograph closer than this are one, A [a tenth of the box]."
        ),
        as_json: bool = typer.Option(False, "--json", help="Print the summary as JSON."),
    ) -> None:
        """Join sets of particles and remove duplicates: of an image or particle that is there twice the first stays.

        Optics groups that agree in everything but number and name become one. Columns that not every set has are left
        out, and named.
        """
        refuse_unless_positive({"--distance": distance})
        from verglas.run.merge import merge_files

        merged = merge_files(sets, out, distance_A=distance)
        summary = {
            "particles_read": list(merged.read),
            "duplicates": merged.duplicates,
            "particles": len(merged.particles),
            "columns_left_out": list(merged.left_out),
        }
        if as_json:
            typer.echo(json.dumps(summary, indent=2))
            return
        read = " + ".join(map(str, merged.read))
        typer.echo(f"{read} particles, {merged.duplicates} of them duplicates: {len(merged.particles)} in {out}")
        if merged.left_out:
            typer.echo(f"columns that not every file has, left out: {', '.join(merged.left_out)}")
