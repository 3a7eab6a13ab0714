"""``verglas serve``: the jobs of folders in a browser."""

from __future__ import annotations

from pathlib import Path

import typer

from verglas.errors import InputError


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command(epilog="Example: verglas serve proj --port 8000")
    def serve(
        folders: list[Path] = typer.Argument(None, help="Folders with jobs or projects under them [the current one]."),
        port: int = typer.Option(0, "--port", min=0, max=65535, help="Port to listen at; 0 takes a free one."),
        host: str = typer.Option(
            "127.0.0.1", "--host", help="Address to listen at; others than loopback need --password."
        ),
        password: str = typer.Option(
            "",
            "--password",
            envvar="VERGLAS_PASSWORD",
            help="For browsers without the printed address.",
        ),
        allow_changes: bool = typer.Option(
            False, "--allow-changes", help="Let pages write selections, stop jobs and begin them again."
        ),
    ) -> None:
        """Show jobs, maps and micrographs in a browser, as they go on; the address is printed first.

        Whoever has the printed address can read what lies under the folders. Nothing is written unless --allow-changes
        is given. From another machine: ssh -L 8000:127.0.0.1:8000 THIS_MACHINE, with --port 8000.
        """
        try:
            from verglas.window.server import ServeJob
            from verglas.window.server import serve as run
        except ModuleNotFoundError as error:
            if error.name not in ("starlette", "uvicorn"):
                raise
            raise InputError(
                f"serve needs the package {error.name}, which is not installed: pip install 'verglas[serve]'"
            ) from error
        job = ServeJob(tuple(folders or [Path()]), host, port, password, allow_changes)
        # Flushed at once: a program that started this one waits for the line.
        run(job, lambda line: print(line, flush=True))
