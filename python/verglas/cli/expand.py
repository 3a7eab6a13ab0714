"""``verglas expand``: every particle once for each element of its point group."""

from __future__ import annotations

import json
from pathlib import Path

import typer


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command(epilog="Example: verglas expand run1/particles.star --symmetry D2 --out expanded.star")
    def expand(
        particles: Path = typer.Argument(..., help="Particles with poses: RELION STAR or cryoSPARC .cs."),
        out: Path = typer.Option(..., "--out", "-o", help="STAR file to write; images are not written again."),
        symmetry: str = typer.Option(None, "--symmetry", "--sym", help="Point group of the refinement, as D2."),
        collapse: bool = typer.Option(False, "--collapse", help="The best copy of each particle of an expanded set."),
        seed: int = typer.Option(0, "--seed", min=0, help="Of half sets, where the particles have none."),
        as_json: bool = typer.Option(False, "--json", help="Print the summary as JSON."),
    ) -> None:
        """Give every particle each of its equivalent poses, so that its units can be looked at one by one.

        Copies name one image and lie in one half set. Classify or refine them without symmetry, then --collapse keeps
        the pose of each particle that fits best: the symmetry is relaxed.
        """
        from verglas.run.subtract import collapse_files, expand_files

        if collapse:
            before, after = collapse_files(particles, out)
        elif symmetry is None:
            raise typer.BadParameter("give --symmetry, or --collapse", param_hint="--symmetry")
        else:
            before, after = expand_files(particles, out, symmetry, seed=seed)
        if as_json:
            typer.echo(json.dumps({"rows_before": before, "rows_after": after, "out": str(out)}))
            return
        typer.echo(f"{before} rows -> {after}: {out}")
