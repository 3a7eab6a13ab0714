"""``verglas motion``: movies to micrographs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import typer

from verglas.cli.options import with_settings
from verglas.cli.progress import say_set_aside
from verglas.cli.usage import refuse_unless_positive
from verglas.run.motion import MotionOptions, MotionSettings, correct_movies


def register(app: typer.Typer) -> None:
    """Add the command."""
    example = 'verglas motion "movies/*.tif" --gain gain.mrc --dose 1.0 --pixel-size 1.2 --voltage 300 --out motion'
    app.command(epilog=f"Example: {example}")(motion)


@with_settings(MotionSettings, leave_out=("dose_per_frame_e_A2", "voltage_kV", "pixel_size_A", "pre_exposure_e_A2"))
def motion(
    movies: list[str] = typer.Argument(..., help="Patterns, folders, files, or a STAR file of movies."),
    out: Path = typer.Option(..., "--out", "-o", help="Folder to write: micrographs/, micrographs.star, ..."),
    gain: Path = typer.Option(None, "--gain", help="Gain reference: MRC, TIFF or EPU's .gain."),
    placement: str = typer.Option("auto", "--placement", help="Of the gain: auto finds it; 0, 90-flip, ..."),
    defects: str = typer.Option("auto", "--defects", help="Bad pixels: auto, none, or a list or map of them."),
    dose: float = typer.Option(None, "--dose", help="Exposure of a frame, e/A^2 [the metadata's]."),
    pre_exposure: float = typer.Option(None, "--pre-exposure", min=0, help="Before the first frame, e/A^2."),
    pixel_size: float = typer.Option(None, "--pixel-size", help="Of the frames, A [the file's or metadata's]."),
    voltage: float = typer.Option(None, "--voltage", help="Accelerating voltage, kV [the metadata's]."),
    frames_per_fraction: int = typer.Option(None, "--frames-per-fraction", min=1, help="Frames to sum (EER)."),
    upsampling: int = typer.Option(1, "--upsampling", help="EER: 1, 2 or 4."),
    flip_y: bool = typer.Option(False, "--flip-y", help="Reverse the rows, as RELION reads TIFF movies."),
    float16: bool = typer.Option(False, "--float16", help="Store half the bytes."),
    threads: int = typer.Option(None, "--threads", min=1, help="Threads [all]."),
    as_json: bool = typer.Option(False, "--json", help="Print the summary as JSON."),
    *,
    settings: dict[str, Any],
) -> None:
    """Correct movies for motion, weight their frames by dose, and add them up.

    Movies that cannot be corrected are set aside and listed in excluded.csv; the rest goes on.
    """
    refuse_unless_positive({"--dose": dose, "--pixel-size": pixel_size, "--voltage": voltage})
    given = {
        "pixel_size_A": pixel_size,
        "dose_per_frame_e_A2": dose,
        "voltage_kV": voltage,
        "pre_exposure_e_A2": pre_exposure,
        "frames_per_fraction": frames_per_fraction,
    }
    reading: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    reading |= {"upsampling": upsampling, "flip_y": flip_y}
    options = MotionOptions(
        MotionSettings(**settings),
        gain,
        placement,
        None if defects == "none" else defects,
        reading,
        "float16" if float16 else "float32",
        threads,
    )
    made = correct_movies(movies, out, options)
    if as_json:
        typer.echo(json.dumps(made.as_dict(), indent=2))
        return
    total = made.table["rlnAccumMotionTotal"]
    typer.echo(
        f"{len(made.table)} micrographs in {made.folder}; motion of whole frames {total.min():.1f} to "
        f"{total.max():.1f} A, median {total.median():.1f}; {int((made.table['flags'] != '').sum())} flagged"
    )
    say_set_aside(made.excluded, made.folder / "excluded.csv")
