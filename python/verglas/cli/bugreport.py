"""``verglas bugreport``: what to send with a bug."""

from __future__ import annotations

from pathlib import Path

import typer


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command(epilog="Example: verglas bugreport run1 --out bugreport.zip")
    def bugreport(
        folder: Path = typer.Argument(None, help="Folder of the run or project that went wrong."),
        out: Path = typer.Option(Path("bugreport.zip"), "--out", "-o", help="ZIP archive to write."),
    ) -> None:
        """Pack versions, machine, self-test, and of a run its settings, verdicts, logs and last error.

        No image, map or particle table goes in; names of files and folders do. Look at it before you send it.
        """
        from verglas.run.bugreport import bugreport as pack

        typer.echo(f"{out}: {len(pack(out, folder))} texts, no images")
