"""``verglas report``: the page of a folder, written again."""

from __future__ import annotations

from pathlib import Path

import typer


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command(epilog="Example: verglas report run1")
    def report(
        run: Path = typer.Argument(..., help="Folder of process, or of any of its stages."),
    ) -> None:
        """Write the page of a folder again, from the files that lie in it."""
        if (run / "project.json").is_file():
            from verglas.pipeline.report import rewrite_project_page

            typer.echo(str(rewrite_project_page(run)))
            return
        from verglas.run.report import rewrite_page

        typer.echo(str(rewrite_page(run)))
