"""``verglas variability``: what varies linearly in particles at known poses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import typer

from verglas.cli.options import with_settings
from verglas.run.variability import VariabilitySettings, summary, variability_files
from verglas.types.settings import settings_from


def register(app: typer.Typer) -> None:
    """Add the command."""
    example = "verglas variability run1/particles.star --resolution 12 --diameter 180 --out variability1"
    app.command(epilog=f"Example: {example}")(variability)


@with_settings(VariabilitySettings)
def variability(
    particles: Path = typer.Argument(..., help="Particles with poses: RELION STAR or cryoSPARC .cs."),
    out: Path = typer.Option(..., "--out", "-o", help="Folder to write."),
    mean: Path = typer.Option(None, "--mean", help="Map about which components are sought [of the particles]."),
    mask: Path = typer.Option(None, "--mask", help="Where components may lie, 0 to 1 [sphere of the diameter]."),
    clusters: int = typer.Option(None, "--clusters", min=1, help="Clusters of the coordinates [held-out likelihood]."),
    stack: Path = typer.Option(None, "--stack", help="Image stack in place of the one the file names."),
    threads: int = typer.Option(None, "--threads", min=1, help="Threads [all]."),
    resume: bool = typer.Option(False, "--resume", help="Go on with the run in --out; fail if there is none."),
    as_json: bool = typer.Option(False, "--json", help="Print the summary as JSON."),
    *,
    settings: dict[str, Any],
) -> None:
    """Find mean and principal components of particles at known poses, with every particle's coordinates.

    The number of components is that which raises the likelihood of particles that they were not learned from: none in
    homogeneous data. The page shows the free energy over the coordinates. Writes mean.mrc, component1.mrc and states
    along it, deviation.mrc, path_state1.mrc, ... (maps of the particles along a way across), coordinates.csv,
    variability.npz, particles.star, particles_cluster1.star, ..., variability.json and report.html. Stopped, the same
    command goes on from the last checkpoint.
    """
    chosen = settings_from("variability", VariabilitySettings, **settings)
    made = variability_files(
        particles,
        out,
        stack=stack,
        mean=mean,
        mask=mask,
        settings=chosen,
        clusters=clusters,
        resume=resume,
        threads=threads,
    )
    typer.echo(json.dumps(summary(made), indent=2) if as_json else f"{made.sentence}: {out}/report.html")
