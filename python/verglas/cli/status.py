"""``verglas status``: where the job of a folder stands."""

from __future__ import annotations

import json
from pathlib import Path

import typer


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command(epilog="Example: verglas status run1 --json")
    def status(
        folder: Path = typer.Argument(..., help="Folder of refine, class2d, abinitio or process."),
        as_json: bool = typer.Option(False, "--json", help="Print the status as JSON."),
    ) -> None:
        """Say whether the job of a folder runs, hangs, has died, was stopped or has finished, and how to go on.

        Exit status 1 if it hangs, has died, or has failed.
        """
        from verglas.run.status import status as status_of

        job_status = status_of(folder)
        if as_json:
            typer.echo(json.dumps(job_status.as_dict(), indent=2))
        else:
            typer.echo(job_status.sentence)
            for name, value in job_status.details.get("stages", {}).items():
                typer.echo(f"  {name}: {value['state']}{', ' + value['verdict'] if value['verdict'] else ''}")
        if job_status.state in ("stalled", "dead", "failed"):
            raise typer.Exit(1)
