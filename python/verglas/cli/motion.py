"""``verglas motion``: movies to micrographs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import typer

from verglas._screen import Screen
from verglas.cli.progress import say_set_aside
from verglas.cli.usage import refuse_unless_positive

_MODELS = ("auto", "global", "polynomial", "spline")


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command(
        epilog='Example: verglas motion "movies/*.tif" --gain gain.mrc --dose 1.0 --pixel-size 1.2 --voltage 300 '
        "--out motion"
    )
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
        model: str = typer.Option("auto", "--model", help="auto (held-out evidence), global, polynomial, spline."),
        bin_factor: int = typer.Option(1, "--bin", min=1, help="Pixels of a frame per pixel of the micrograph."),
        frames_per_fraction: int = typer.Option(None, "--frames-per-fraction", min=1, help="Frames to sum (EER)."),
        upsampling: int = typer.Option(1, "--upsampling", help="EER: 1, 2 or 4."),
        flip_y: bool = typer.Option(False, "--flip-y", help="Reverse the rows, as RELION reads TIFF movies."),
        float16: bool = typer.Option(False, "--float16", help="Store half the bytes."),
        threads: int = typer.Option(None, "--threads", min=1, help="Threads [all]."),
        as_json: bool = typer.Option(False, "--json", help="Print the summary as JSON."),
    ) -> None:
        """Correct movies for motion, weight their frames by dose, and add them up.

        Movies that cannot be corrected are set aside and listed in excluded.csv; the rest goes on.
        """
        refuse_unless_positive({"--dose": dose, "--pixel-size": pixel_size, "--voltage": voltage})
        if model not in _MODELS:
            raise typer.BadParameter(f"expected one of {', '.join(_MODELS)}, got {model!r}", param_hint="--model")
        from verglas.run.motion import MotionOptions, MotionSettings, correct_movies

        given = {"pixel_size_A": pixel_size, "dose_per_frame_e_A2": dose, "voltage_kV": voltage,
                 "pre_exposure_e_A2": pre_exposure, "frames_per_fraction": frames_per_fraction}  # fmt: skip
        reading: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        reading |= {"upsampling": upsampling, "flip_y": flip_y}
        settings = MotionSettings(model=model, bin_factor=bin_factor)
        options = MotionOptions(settings, gain, placement, None if defects == "none" else defects, reading,
                                "float16" if float16 else "float32", threads)  # fmt: skip
        with Screen() as screen:
            made = correct_movies(movies, out, options, screen)
        if as_json:
            typer.echo(json.dumps(made.as_dict(), indent=2))
            return
        total = made.table["rlnAccumMotionTotal"]
        typer.echo(
            f"{len(made.table)} micrographs in {made.folder}; motion of whole frames {total.min():.1f} to "
            f"{total.max():.1f} A, median {total.median():.1f}; {int((made.table['flags'] != '').sum())} flagged"
        )
        say_set_aside(made.excluded, made.folder / "excluded.csv")
