"""``verglas gain``: a gain reference estimated from movies."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import typer

_BYTES = ("auto", "signed", "unsigned")


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command(epilog='Example: verglas gain "movies/*.tif" --out gain.mrc')
    def gain(
        movies: list[str] = typer.Argument(..., help="Patterns, folders or files of movies: TIFF, MRC, EER."),
        out: Path = typer.Option(..., "--out", "-o", help="Gain to write (MRC); <name>_defects.txt beside it."),
        illumination: float = typer.Option(
            None, "--illumination", min=1.0, help="Take what is wider than this for the beam's, pixels [level all]."
        ),
        most_frames: int = typer.Option(None, "--most-frames", min=1, help="Most frames read of each movie [all]."),
        frames_per_fraction: int = typer.Option(None, "--frames-per-fraction", min=1, help="EER: frames in a sum."),
        upsampling: int = typer.Option(1, "--upsampling", help="EER: 1, 2 or 4."),
        mrc_bytes: str = typer.Option(
            "auto", "--mrc-bytes", help="Bytes of MRC mode 0: auto, as the header says; unsigned (0 to 255), signed."
        ),
        as_json: bool = typer.Option(False, "--json", help="Print JSON."),
    ) -> None:
        """Estimate the gain of a detector from the sum of many movies, and list its bad pixels."""
        from verglas.run.gain import estimate_gain_files

        if mrc_bytes not in _BYTES:
            raise typer.BadParameter(f"expected {', '.join(_BYTES)}, got {mrc_bytes!r}", param_hint="--mrc-bytes")
        known: dict[str, Any] = {} if frames_per_fraction is None else {"frames_per_fraction": frames_per_fraction}
        if mrc_bytes != "auto":
            known["unsigned_bytes"] = mrc_bytes == "unsigned"
        made = estimate_gain_files(
            movies, out, illumination_px=illumination, most_frames=most_frames, upsampling=upsampling, **known
        )
        numbers = made.as_dict()
        if as_json:
            typer.echo(json.dumps(numbers, indent=2))
            return
        typer.echo(
            f"{out}: from {numbers['frames']} frames of {numbers['movies']} movies; pixels differ by "
            f"{100 * numbers['pattern']:.1f} %, each factor is known to {100 * numbers['relative_error']:.2f} %; "
            f"{numbers['bad_pixels']} bad pixels in {numbers['defects']}"
        )
        if made.excluded:
            typer.echo(f"{len(made.excluded)} movies set aside; the first: {made.excluded[0]}")
