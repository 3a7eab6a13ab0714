"""``verglas report``: the page of a folder, written again."""

from __future__ import annotations

from pathlib import Path

import typer


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command(epilog="Example: verglas report run1")
    def report(
        run: Path = typer.Argument(..., help="Folder of verglas refine (finished or running) or postprocess."),
    ) -> None:
        """Write report.html of a folder again, from the files that lie in it."""
        if (run / "postprocess.json").is_file() and not (run / "run.json").is_file():
            from verglas.report.postprocess import write_postprocess_page

            typer.echo(str(write_postprocess_page(run)))
            return
        from verglas.report.refine import write_refine_page

        typer.echo(str(write_refine_page(run)))
