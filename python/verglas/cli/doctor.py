"""``verglas doctor``: whether this installation is sound, and if not, how it is mended."""

from __future__ import annotations

import json

import typer


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command(epilog="Example: verglas doctor --json")
    def doctor(as_json: bool = typer.Option(False, "--json", help="Print JSON.")) -> None:
        """Check the installation on tiny problems, per device; say what is wrong and how to mend it.

        Exit status 1 if something is broken. Notes and skipped checks do not count as broken.
        """
        from verglas.run.doctor import as_rows
        from verglas.run.doctor import doctor as examine

        checks = examine()
        broken = [check for check in checks if check.status == "failed"]
        if as_json:
            typer.echo(json.dumps({"ok": not broken, "checks": as_rows(checks)}, indent=2))
        else:
            for check in checks:
                typer.echo(f"{check.status:8} {check.name}: {check.detail}")
                if check.remedy:
                    typer.echo(f"{'':8} -> {check.remedy}")
            typer.echo(
                f"{len(broken)} of {len(checks)} checks failed" if broken else "everything that was checked works"
            )
        raise typer.Exit(1 if broken else 0)
