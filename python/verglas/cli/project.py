"""``verglas project``: projections of a map."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import typer

from verglas.cli.options import StackType


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command(epilog="Example: verglas project map.mrc --particles particles.star --out views.mrcs")
    def project(
        map_file: Path = typer.Argument(..., metavar="MAP", help="Cubic map (MRC)."),
        out: Path = typer.Option(..., "--out", "-o", help="Stack to write (.mrcs); a STAR file goes beside it."),
        particles: Path = typer.Option(None, "--particles", help="Poses and CTFs of these particles (STAR or .cs)."),
        step: float = typer.Option(15.0, "--step", help="Without particles: spacing of the directions, degrees."),
        symmetry: str = typer.Option("C1", "--symmetry", "--sym", help="Directions of this group's asymmetric unit."),
        no_ctf: bool = typer.Option(False, "--no-ctf", help="Leave the CTF of the particles out."),
        ewald: bool = typer.Option(
            False, "--ewald", help="Follow Ewald's sphere: two side bands in place of a flat slice."
        ),
        ewald_sign: str = typer.Option(
            None, "--ewald-sign", help="positive: electrons along the particle's +z; or negative. [positive]"
        ),
        dtype: StackType = typer.Option(StackType.FLOAT32, "--dtype", help="Of the stack."),
        threads: int = typer.Option(None, "--threads", min=1, help="Threads [all]."),
        as_json: bool = typer.Option(False, "--json", help="Print what was written as JSON."),
    ) -> None:
        """Project a map at the poses of particles, or over a grid of directions.

        Images are sums of voxels along the ray, CTF-modulated where the particles have CTFs.
        """
        if not 0 < step <= 90:
            raise typer.BadParameter(f"expected more than 0 and at most 90 degrees, got {step:g}", param_hint="--step")
        if out.suffix.lower() not in (".mrcs", ".mrc"):
            raise typer.BadParameter(f"expected a name ending in .mrcs, got {out}", param_hint="--out")
        if ewald_sign not in (None, "positive", "negative"):
            raise typer.BadParameter(f"expected positive or negative, got {ewald_sign}", param_hint="--ewald-sign")
        if ewald_sign is not None and not ewald:
            raise typer.BadParameter("has no effect without --ewald", param_hint="--ewald-sign")
        from verglas.run.reconstruct import ProjectJob, project_files

        sign: Any = (ewald_sign or "positive") if ewald else None
        job = ProjectJob(map_file, out, particles, step, symmetry, not no_ctf, sign, dtype.value)
        written = project_files(job, threads=threads)
        star = out.with_suffix(".star")
        if as_json:
            typer.echo(json.dumps({"images": len(written), "stack": str(out), "star": str(star)}, indent=2))
        else:
            typer.echo(f"{len(written)} projections of {written.box} px: {out}, {star}")
