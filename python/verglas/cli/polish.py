"""``verglas polish``: particles followed through the frames of their movies."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import typer

from verglas.cli.options import with_settings
from verglas.run.polish import PolishSettings, polish_files
from verglas.run.polish_inputs import MovieReading
from verglas.types.settings import settings_from


def register(app: typer.Typer) -> None:
    """Add the command."""
    example = "verglas polish ctf1/particles.star motion/micrographs.star --symmetry O --out polish1"
    app.command("polish", epilog=f"Example: {example}")(polish)


@with_settings(PolishSettings)
def polish(
    particles: Path = typer.Argument(..., help="Particles with poses and coordinates: RELION STAR."),
    micrographs: Path = typer.Argument(..., help="STAR file of the corrected micrographs (rlnMicrographMetadata)."),
    out: Path = typer.Option(..., "--out", "-o", help="Folder to write."),
    half_maps: tuple[Path, Path] = typer.Option(None, "--half-maps", help="Maps of half sets 1 and 2 [reconstructed]."),
    mask: Path = typer.Option(None, "--mask", help="Soft solvent mask, 0 to 1 [made from the maps]."),
    stack: Path = typer.Option(None, "--stack", help="Image stack in place of the one the file names."),
    gain: Path = typer.Option(None, "--gain", help="Gain reference [the one that the motion files name]."),
    defects: Path = typer.Option(None, "--defects", help="Bad pixels besides those of the motion files."),
    placement: str = typer.Option(
        "auto",
        "--placement",
        help="How the gain lies: auto as when the movies were corrected; else 0, 90, 180 or 270 degrees, with -flip "
        "columns reversed.",
    ),
    flip_y: bool = typer.Option(False, "--flip-y", help="Reverse the rows, as RELION reads TIFF movies."),
    resume: bool = typer.Option(False, "--resume", help="Go on with the run in --out; fail if there is none."),
    threads: int = typer.Option(None, "--threads", min=1, help="Threads [all]."),
    as_json: bool = typer.Option(False, "--json", help="Print the summary as JSON."),
    *,
    settings: dict[str, Any],
) -> None:
    """Follow particles through their movies against the other half's map, and sum the frames anew.

    Writes shiny.star with stacks, tracks.star, bfactors.star, polish.json and excluded.csv. Tracks and weights of
    frames are used only if held-out data gain by them; exit status 1 if nothing does, and nothing is changed. The same
    command again goes on from where it was stopped or killed.
    """
    chosen = settings_from("polish", PolishSettings, **settings)
    reading = MovieReading(gain, defects, placement, flip_y)
    made = polish_files(
        particles,
        micrographs,
        out,
        chosen,
        half_maps=half_maps or None,
        mask=mask,
        stack=stack,
        reading=reading,
        resume=resume,
        threads=threads,
    )
    typer.echo(json.dumps(made.as_dict(), indent=2) if as_json else f"{made.verdict}: {out}")
    if not made.changed:
        raise typer.Exit(1)
