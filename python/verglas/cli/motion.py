"""``verglas motion``: movies to micrographs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import typer

from verglas.cli.options import with_settings
from verglas.cli.progress import exit_if_stop, say_set_aside, say_verdict
from verglas.run.motion import MotionSummary, MovieSettings, correct_movies

_EXAMPLE = (
    'verglas motion "movies/*.tif" --gain gain.mrc --dose-per-frame 1.0 --pixel-size 1.2 --voltage 300 --out motion'
)


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog=f"Example: {_EXAMPLE}")(motion)


@with_settings(MovieSettings)
def motion(
    movies: list[str] = typer.Argument(..., help="Patterns, folders, files, or a STAR file of movies."),
    out: Path = typer.Option(..., "--out", "-o", help="Folder to write: micrographs/, micrographs.star, ..."),
    gain: Path = typer.Option(None, "--gain", help="Gain reference: MRC, TIFF or EPU's .gain."),
    defects: str = typer.Option("auto", "--defects", help="Bad pixels: auto, none, or a list or map of them."),
    metadata: Path = typer.Option(
        None, "--metadata", help="Folder below which EPU's XML or SerialEM's mdoc files lie [beside the movies]."
    ),
    threads: int = typer.Option(None, "--threads", min=1, help="Threads [all]."),
    as_json: bool = typer.Option(False, "--json", help="Print the summary as JSON."),
    *,
    settings: dict[str, Any],
) -> None:
    """Correct movies for motion, weight their frames by dose, and add them up.

    Movies that cannot be corrected are set aside and listed in excluded.csv; the rest goes on. The same command again
    keeps what is done. report.html shows the tracks. Exit status 1 where most movies cannot be corrected.
    """
    bad = None if defects == "none" else defects
    made = correct_movies(movies, out, gain=gain, defects=bad, metadata=metadata, threads=threads, **settings)
    if as_json:
        typer.echo(json.dumps(made.as_dict(), indent=2))
    else:
        _tell(made)
    exit_if_stop(made.verdict.state)


def _tell(made: MotionSummary) -> None:
    total = made.table["rlnAccumMotionTotal"]
    typer.echo(
        f"{len(made.table)} micrographs in {made.folder}; motion of whole frames {total.min():.1f} to "
        f"{total.max():.1f} A, median {total.median():.1f}; {int((made.table['flags'] != '').sum())} flagged"
    )
    say_set_aside(made.excluded, made.folder / "excluded.csv")
    say_verdict(made.verdict.state, made.verdict.reasons)
