"""``verglas resample``: another pixel size or box, for a map, a stack or particles."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import typer

from verglas.cli.options import StackType


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command(epilog="Example: verglas resample particles.star small.star --new-pixel-size 3 --new-box 64")
    def resample(
        source: Path = typer.Argument(..., help="Map (.mrc), stack (.mrcs) or particles (.star, .cs)."),
        target: Path = typer.Argument(..., help="File to write; particles get a new stack beside it."),
        pixel_size: float = typer.Option(None, "--new-pixel-size", help="New pixel size, A."),
        box: int = typer.Option(None, "--new-box", help="New side, pixels; alone: the same field in so many pixels."),
        resolution: float = typer.Option(None, "--resolution", help="Refuse pixels too large for this resolution, A."),
        old_pixel_size: float = typer.Option(None, "--old-pixel-size", help="In place of the map's or stack's, A."),
        dtype: StackType = typer.Option(StackType.FLOAT32, "--dtype", help="Of what is written."),
        as_json: bool = typer.Option(False, "--json", help="Print JSON."),
    ) -> None:
        """Resample by cropping or padding the Fourier transform: nothing folds back, the centre stays.

        The pixel size is realised exactly where some padding makes the sizes fit; otherwise the nearest is taken and
        printed. --new-box alone changes the pixel size to fit the box; with --new-pixel-size it crops or pads.
        """
        if pixel_size is None and box is None:
            raise typer.BadParameter("give --new-pixel-size, --new-box, or both")
        positive = {"--new-pixel-size": pixel_size, "--resolution": resolution, "--old-pixel-size": old_pixel_size}
        for name, value in positive.items():
            if value is not None and not value > 0:
                raise typer.BadParameter(f"expected a positive number of A, got {value:g}", param_hint=name)
        if box is not None and box < 2:
            raise typer.BadParameter(f"expected at least 2 pixels, got {box}", param_hint="--new-box")
        if source.suffix.lower() in (".star", ".cs") and old_pixel_size is not None:
            raise typer.BadParameter("particles bring their own pixel size", param_hint="--old-pixel-size")
        from verglas.run.maps import Wanted, resample_file

        plan = resample_file(source, target, Wanted(pixel_size, box, resolution, old_pixel_size, dtype.value))
        if as_json:
            typer.echo(json.dumps({"target": str(target), **asdict(plan), "exact": plan.exact}, indent=2))
            return
        typer.echo(f"{target}: box {plan.box} -> {plan.new_box}, pixel size {plan.pixel_size_A:.6g} A")
        if not plan.exact:
            typer.echo(f"note: {plan.asked_A:g} A was asked for; {plan.pixel_size_A:.6g} A is the nearest that fits")
