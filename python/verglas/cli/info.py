"""``verglas info``: what this installation and this machine offer."""

from __future__ import annotations

import json

import typer


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command(epilog="Example: verglas info --json")
    def info(as_json: bool = typer.Option(False, "--json", help="Print JSON.")) -> None:
        """Show version, instruction set in use, threads, devices, CUDA build and package versions."""
        from verglas.run.machine import info as collect

        versions = collect()
        if as_json:
            typer.echo(json.dumps(versions, indent=2))
            return
        for key, value in versions.items():
            if isinstance(value, dict):
                typer.echo(f"{key}:")
                for name, item in value.items():
                    typer.echo(f"  {name}: {item}")
            else:
                typer.echo(f"{key}: {', '.join(map(str, value)) if isinstance(value, list) else value}")
