"""``verglas deposit``: what a public archive asks for, from the folder of a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import typer

from verglas.cli.options import with_settings
from verglas.cli.progress import exit_if_stop
from verglas.run.deposit import DepositSettings, deposit


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("deposit", epilog="Example: verglas deposit refine1 --out dep --mass 440 --dose 40")(deposit_run)


@with_settings(DepositSettings)
def deposit_run(
    run: Path = typer.Argument(..., help="Folder of a refinement or postprocessing that has finished."),
    out: Path = typer.Option(..., "--out", "-o", help="Folder to write."),
    threads: int = typer.Option(None, "--threads", min=1, help="Threads [all]."),
    as_json: bool = typer.Option(False, "--json", help="Print the verdict as JSON."),
    *,
    settings: dict[str, Any],
) -> None:
    """Gather maps, half maps, mask, FSC (EMDB's XML), metadata (mmCIF) and picture of a run, and check them.

    Writes map.mrc, half1.mrc, half2.mrc, mask.mrc, map_unsharpened.mrc, fsc.xml, metadata.cif, image.png,
    deposition.json, report.html. Exit status 1 where an archive would refuse them, or should.
    """
    verdict = deposit(run, out, threads=threads, **settings)
    if as_json:
        typer.echo(json.dumps(verdict.as_dict(), indent=2))
    else:
        for finding in verdict.findings:
            typer.echo(f"{finding.state:<6} {finding.sentence}")
        typer.echo(f"{verdict.state}: {out / 'report.html'}")
    exit_if_stop(verdict.state)
