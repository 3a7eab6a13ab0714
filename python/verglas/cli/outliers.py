"""``verglas outliers``: particles ranked by how unlike the others they are."""

from __future__ import annotations

import json
from pathlib import Path

import typer

from verglas.cli.usage import refuse_unless_positive


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command(epilog="Example: verglas outliers particles.star --diameter 140 --limit 2.5 --out clean.star")
    def outliers(
        particles: Path = typer.Argument(..., help="Particles: RELION STAR or cryoSPARC .cs."),
        out: Path = typer.Option(..., "--out", "-o", help="STAR or CS file to write, with the column verglasOutlierZ."),
        diameter: float = typer.Option(None, "--diameter", help="Of the particle, A [four fifths of the box]."),
        limit: float = typer.Option(None, "--limit", help="Leave out particles that score more [none]; 1 is typical."),
        as_json: bool = typer.Option(False, "--json", help="Print the summary as JSON."),
    ) -> None:
        """Score every particle by how far grey values, rim, profile and spectrum lie from those of the others.

        The score is a root mean square of robust z-scores. Without --limit every particle is written with its score.
        """
        refuse_unless_positive({"--diameter": diameter}, "A")
        refuse_unless_positive({"--limit": limit})
        from verglas.run.outliers import OUTLIER_Z, rank_files

        ranked = rank_files(particles, out, diameter_A=diameter, limit=limit)
        read, kept = len(ranked.particles), len(ranked.kept)
        summary = {
            "particles_read": read,
            "particles_kept": kept,
            "particles_not_finite": ranked.unreadable,
            "score_median": float(ranked.particles.table[OUTLIER_Z].median()),
            "score_highest": float(ranked.z.max()),
        }
        if as_json:
            typer.echo(json.dumps(summary, indent=2))
            return
        typer.echo(
            f"{kept} of {read} particles in {out}; scores: median {summary['score_median']:.2f}, "
            f"highest {summary['score_highest']:.2f}"
        )
        if ranked.unreadable:
            typer.echo(f"images with values that are not finite numbers, which score 50: {ranked.unreadable}")
