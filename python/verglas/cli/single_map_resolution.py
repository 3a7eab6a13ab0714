"""``verglas single-map-resolution``: what a map without half maps says of its resolution."""

from __future__ import annotations

import json
import math
from pathlib import Path

import typer

from verglas.cli.usage import refuse_unless_positive


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command("single-map-resolution", epilog="Example: verglas single-map-resolution emd_1997.map")
    def single_map_resolution(
        map_path: Path = typer.Argument(..., metavar="MAP", help="Map (MRC) with its solvent, not masked."),
        mask: Path = typer.Option(None, "--mask", help="Where the molecule is [made from the map]."),
        pixel_size: float = typer.Option(None, "--pixel-size", help="In place of the header's, A."),
        as_json: bool = typer.Option(False, "--json", help="Print JSON, with the curve."),
    ) -> None:
        """Resolution of a map that came alone: its power inside the molecule against that of the solvent.

        The solvent has to be as the reconstruction left it: maps of archives mostly had theirs flattened, and get no
        answer. Where half maps are at hand, verglas fsc and verglas postprocess are the better witnesses.
        """
        refuse_unless_positive({"--pixel-size": pixel_size}, "A", finite=True)
        from verglas.run.maps import single_map_resolution_of_file

        found = single_map_resolution_of_file(map_path, mask, pixel_size)
        if as_json:
            typer.echo(json.dumps(found.as_dict(), indent=1))
        elif found.never_falls:
            typer.echo(
                "no resolution can be told: at every scale the molecule is stronger than the solvent. Either signal "
                "reaches the sampling, or the solvent was masked or flattened"
            )
        elif not math.isfinite(found.resolution_A):
            typer.echo("no resolution: at every scale the molecule is no stronger than the solvent's noise")
        else:
            typer.echo(f"{found.resolution_A:.2f} A, where signal over noise is that of half maps at FSC 0.143")
