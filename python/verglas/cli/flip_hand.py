"""``verglas flip-hand``: the mirror image of maps, and the poses that go with it."""

from __future__ import annotations

from pathlib import Path

import typer


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command("flip-hand", epilog="Example: verglas flip-hand map.mrc particles.star --out flipped")
    def flip_hand(
        files: list[Path] = typer.Argument(..., help="Maps (.mrc) and particles with poses (.star, .cs)."),
        out: Path = typer.Option(..., "--out", "-o", help="Folder for the files, which keep their names."),
    ) -> None:
        """Turn maps into their mirror images, and poses into those of the same particles for the mirror image.

        Images cannot tell a structure from its mirror image: a map whose helices turn left is put right with this, and
        goes on with its particles from where it was.
        """
        from verglas.run.merge import flip_files

        for path in flip_files(files, out):
            typer.echo(str(path))
