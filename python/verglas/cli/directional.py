"""``verglas directional``: how well two half maps agree in each direction."""

from __future__ import annotations

import json
import math
from pathlib import Path

import typer


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command(epilog="Example: verglas directional half1.mrc half2.mrc --mask mask.mrc")
    def directional(
        half1: Path = typer.Argument(..., help="Half map (MRC), unfiltered and unmasked."),
        half2: Path = typer.Argument(..., help="The other half map."),
        mask: Path = typer.Option(None, "--mask", help="Soft mask, 0 to 1, multiplied with both."),
        cone: float = typer.Option(20.0, "--cone", min=5, max=60, help="Half-angle of the cones, degrees."),
        pixel_size: float = typer.Option(None, "--pixel-size", help="In place of the headers', A."),
        out: Path = typer.Option(
            None, "--out", "-o", help="Folder to write: the conical FSC as a volume, curves, directions, a page."
        ),
        as_json: bool = typer.Option(False, "--json", help="Print JSON, with the resolution in every direction."),
    ) -> None:
        """Conical FSC: resolution in the best and the worst direction, sphericity, ratio of areas, and a verdict.

        With --out also fsc3d.mrc (3DFSC: at each Fourier voxel the FSC of the cone about it), curves.csv,
        directions.csv, directional.json and report.html. Views that are missing leave directions along which the map is
        smeared; one number of resolution hides them.
        """
        from verglas.run.directional import directional_files

        curves, verdict = directional_files(half1, half2, mask, cone_deg=cone, pixel_size_A=pixel_size, out=out)
        if as_json:
            numbers = [round(r, 3) if math.isfinite(r) else None for r in curves.resolution_A.tolist()]
            told = {"verdict": verdict.as_dict(), "directions": curves.directions.round(5).tolist()}
            typer.echo(json.dumps({**told, "resolution_A": numbers}, indent=1))
            return
        for finding in verdict.findings:
            typer.echo(finding.sentence)
