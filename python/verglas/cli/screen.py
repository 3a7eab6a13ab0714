"""``verglas screen``: which micrographs are worth picking."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import typer

from verglas.cli.options import with_settings
from verglas.cli.progress import exit_if_stop, say_set_aside, say_verdict
from verglas.run.extract import Microscope
from verglas.run.screen import ScreenJob, screen_files
from verglas.types.settings import settings_from


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog='Example: verglas screen "mics/*.tif" --pixel-size 1.5 --out screened')(screen)


@with_settings(Microscope, parameter="microscope")
def screen(
    micrographs: list[str] = typer.Argument(..., help="Patterns, folders, files, or a STAR file that names them."),
    out: Path = typer.Option(..., "--out", "-o", help="Folder to write: micrographs.star, screen.json, report.html."),
    squares: bool = typer.Option(
        False, "--squares", help="The images are of grid squares at low magnification (at least three holes across)."
    ),
    threads: int = typer.Option(None, "--threads", min=1, help="Micrographs at a time [all processors]."),
    as_json: bool = typer.Option(False, "--json", help="Print the judgements as JSON."),
    *,
    microscope: dict[str, Any],
) -> None:
    """Judge micrographs before anything is picked: crystalline ice, contamination, carbon, drift, defocus, broken film.

    Grey values and spectrum are compared with simulated good and bad micrographs (pixels of at most 2.2 A).
    micrographs.star lists those that nothing is said against. With --squares: thick ice, a broken foil,
    contamination and uneven ice, told from the lattice of holes; no pixel size is needed, and screen.json has a
    probability for every square to rank them by. Exit status 1 where none is good.
    """
    job = ScreenJob(micrographs, out, settings_from("screen", Microscope, **microscope), threads, squares)
    record = screen_files(job)
    if as_json:
        typer.echo(json.dumps(record, indent=2))
    else:
        _tell(record, out, "grid squares" if squares else "micrographs")
    exit_if_stop(record["verdict"]["state"])


def _tell(record: Mapping[str, Any], out: Path, what: str) -> None:
    kinds = ", ".join(f"{count} {kind}" for kind, count in record["kinds"].items())
    typer.echo(f"{record['good']} of {record['micrographs']} {what} are good{': ' + kinds if kinds else ''}")
    say_set_aside(record["set_aside"], out / "screen.json")
    say_verdict(record["verdict"]["state"], record["verdict"]["reasons"])
    typer.echo(f"{out / 'micrographs.star'}, {out / 'report.html'}")
