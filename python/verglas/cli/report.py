"""``verglas report``: the page of a run folder, written again."""

from __future__ import annotations

from pathlib import Path

import typer


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command(epilog="Example: verglas report run1")
    def report(
        run: Path = typer.Argument(..., help="Folder of verglas refine, finished or running."),
    ) -> None:
        """Write report.html of a run folder again, from the files that lie in it."""
        from verglas.report.refine import write_refine_page

        typer.echo(str(write_refine_page(run)))
