"""``verglas sieve``: particles that a map is better without."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import typer

from verglas.cli.options import with_settings
from verglas.cli.progress import exit_if_stop
from verglas.run.sieve import SieveSettings
from verglas.run.sieve_files import SieveJob, sieve_files
from verglas.types.settings import settings_from


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("sieve", epilog="Example: verglas sieve refine1 --previous refine0/particles.star --out sieve1")(sieve)


@with_settings(SieveSettings)
def sieve(
    particles: Path = typer.Argument(..., help="Folder of a refinement, or particles with poses (RELION STAR)."),
    out: Path = typer.Option(..., "--out", "-o", help="Folder to write."),
    half1: Path = typer.Option(None, "--half1", help="Map of half set 1, for the first scores [reconstructed]."),
    half2: Path = typer.Option(None, "--half2", help="Map of half set 2."),
    mask: Path = typer.Option(None, "--mask", help="Soft solvent mask, 0 to 1 [made from the maps]."),
    previous: Path = typer.Option(None, "--previous", help="The same particles with other poses: how far each moved."),
    stack: Path = typer.Option(None, "--stack", help="Image stack in place of the one the file names."),
    threads: int = typer.Option(None, "--threads", min=1, help="Threads [all]."),
    as_json: bool = typer.Option(False, "--json", help="Print the summary as JSON."),
    *,
    settings: dict[str, Any],
) -> None:
    """Score every particle against the other half's map, and leave out those that a map is better without.

    Copies go first, then the lowest, round by round, for as long as particles that are in no map say that the maps get
    better, and better than by dropping as many at random. Writes kept.star, removed.star with reasons, half1.mrc,
    half2.mrc, rounds.csv, sieve.json and report.html. Exit status 1 where the maps explain nothing to sieve by.
    """
    if (half1 is None) != (half2 is None):
        raise typer.BadParameter("--half1 and --half2 go together: give both, or neither", param_hint="--half1")
    chosen = settings_from("sieve", SieveSettings, **settings)
    pair = None if half1 is None else (half1, half2)
    job = SieveJob(particles, out, pair, mask, previous, stack, chosen, threads)
    sieved, told = sieve_files(job, symmetry_given=settings.get("symmetry") is not None)
    if as_json:
        typer.echo(json.dumps(told, indent=2))
    else:
        for finding in sieved.verdict.findings:
            typer.echo(f"{finding.state:<6} {finding.sentence}")
        typer.echo(f"{told['kept']} of {told['particles']} particles in {out}/kept.star; {out}/report.html")
    exit_if_stop(sieved.verdict.state)
