"""``verglas consensus``: particles whose poses two runs agree on."""

from __future__ import annotations

import json
from pathlib import Path

import typer

from verglas.cli.usage import refuse_unless_positive


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command(epilog="Example: verglas consensus run1/particles.star run2/particles.star --within 8 --out both.star")
    def consensus(
        first: Path = typer.Argument(..., help="Particles with poses; those kept have these."),
        second: Path = typer.Argument(..., help="The same particles with the poses of another run."),
        out: Path = typer.Option(..., "--out", "-o", help="STAR or CS file to write: particles that agree."),
        symmetry: str = typer.Option("C1", "--symmetry", "--sym", help="Point group of both maps."),
        within: float = typer.Option(10.0, "--within", help="Largest angle between both poses, degrees."),
        within_shift: float = typer.Option(None, "--within-shift", help="Largest distance of shifts, A [any]."),
        as_json: bool = typer.Option(False, "--json", help="Print the summary as JSON."),
    ) -> None:
        """Keep the particles that two runs orient alike, whatever frame and hand their maps stand in.

        Writes the angle and the distance of every particle kept (verglasAngleChange, verglasShiftChange).
        """
        refuse_unless_positive({"--within": within, "--within-shift": within_shift})
        from verglas.run.consensus import ANGLE, consensus_files

        compared = consensus_files(first, second, out, symmetry, within_deg=within, within_A=within_shift)
        count, total = int(compared.agree.sum()), len(compared.agree)
        summary = {
            "particles_in_both": total,
            "particles_in_one": compared.only_one,
            "agree": count,
            "median_angle_deg": float(compared.particles.table[ANGLE].median()),
            "other_hand": compared.other_hand,
        }
        if as_json:
            typer.echo(json.dumps(summary, indent=2))
            return
        typer.echo(
            f"{count} of {total} particles agree within {within:g} degrees (median {summary['median_angle_deg']:.1f}): "
            f"{out}"
        )
        if compared.other_hand:
            typer.echo("the second run's map is the mirror image of the first's")
        if compared.only_one:
            typer.echo(f"in one of the two files only, left out: {compared.only_one}")
