"""``verglas mask``: a soft mask, a sphere or from the density of a map."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import typer

from verglas.cli.options import with_settings
from verglas.cli.usage import refuse_unless_positive
from verglas.run.maps import MaskShape, mask_file
from verglas.types.settings import settings_from

_EXAMPLE = "verglas mask map.mrc --threshold 0.02 --low-pass 15 --extend 5 --soft-edge 9 -o mask.mrc"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog=f"Example: {_EXAMPLE}")(mask)


@with_settings(MaskShape)
def mask(
    map: Path = typer.Argument(..., help="Map (MRC): gives box and pixel size, and the density."),
    out: Path = typer.Option(..., "--out", "-o", help="Mask to write (MRC)."),
    pixel_size: float = typer.Option(None, "--pixel-size", help="In place of the header's, A."),
    as_json: bool = typer.Option(False, "--json", help="Print JSON."),
    *,
    settings: dict[str, Any],
) -> None:
    """Make a soft mask: a sphere (--diameter) or from the density (--threshold)."""
    refuse_unless_positive({"--pixel-size": pixel_size}, "A")
    made = mask_file(map, out, settings_from("mask", MaskShape, **settings), pixel_size)
    inside = float(made.data.mean(dtype="float64"))
    volume = inside * made.data.size * made.pixel_size_A**3
    if as_json:
        typer.echo(json.dumps({"mask": str(out), "fraction": inside, "volume_A3": volume}, indent=2))
    else:
        typer.echo(f"{out}: {100 * inside:.1f} % of the box, {volume:.4g} A^3")
