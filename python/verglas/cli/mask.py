"""``verglas mask``: a soft mask, a sphere or from the density of a map."""

from __future__ import annotations

import json
from pathlib import Path

import typer


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command(epilog="Example: verglas mask map.mrc --threshold 0.02 --lowpass 15 --extend 5 --edge 9 -o mask.mrc")
    def mask(
        map: Path = typer.Argument(..., help="Map (MRC): gives box and pixel size, and the density."),
        out: Path = typer.Option(..., "--out", "-o", help="Mask to write (MRC)."),
        diameter: float = typer.Option(None, "--diameter", help="Sphere of this diameter about the centre, A."),
        threshold: float = typer.Option(None, "--threshold", help="Or: what reaches this density."),
        lowpass: float = typer.Option(None, "--lowpass", help="Low-pass filter before the threshold, A."),
        extend: float = typer.Option(0.0, "--extend", help="Dilation before the edge, A."),
        edge: float = typer.Option(9.0, "--edge", help="Width of the raised-cosine edge, A."),
        largest: bool = typer.Option(False, "--largest", help="Keep the largest connected part only."),
        dark: bool = typer.Option(False, "--dark", help="The particle is dark: what lies below the threshold."),
        pixel_size: float = typer.Option(None, "--pixel-size", help="In place of the header's, A."),
        as_json: bool = typer.Option(False, "--json", help="Print JSON."),
    ) -> None:
        """Make a soft mask: a sphere (--diameter) or from the density (--threshold)."""
        if (diameter is None) == (threshold is None):
            raise typer.BadParameter("give either --diameter or --threshold")
        for name, value, lowest in (
            ("--diameter", diameter, "> 0"),
            ("--lowpass", lowpass, "> 0"),
            ("--pixel-size", pixel_size, "> 0"),
            ("--extend", extend, ">= 0"),
            ("--edge", edge, ">= 0"),
        ):
            if value is not None and not (value > 0 or (lowest == ">= 0" and value == 0)):
                raise typer.BadParameter(f"expected a number {lowest} in A, got {value:g}", param_hint=name)
        if diameter is not None and (lowpass is not None or largest or dark):
            raise typer.BadParameter("--lowpass, --largest and --dark go with --threshold")
        from verglas.run.maps import MaskShape, mask_file

        made = mask_file(map, out, MaskShape(diameter, threshold, lowpass, extend, edge, largest, dark), pixel_size)
        inside = float(made.data.mean(dtype="float64"))
        volume = inside * made.data.size * made.pixel_size_A**3
        if as_json:
            typer.echo(json.dumps({"mask": str(out), "fraction": inside, "volume_A3": volume}, indent=2))
        else:
            typer.echo(f"{out}: {100 * inside:.1f} % of the box, {volume:.4g} A^3")
