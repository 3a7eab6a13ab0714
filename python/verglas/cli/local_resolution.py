"""``verglas local-resolution``: how far each part of a map is resolved."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import typer

from verglas.cli.options import with_settings
from verglas.cli.usage import refuse_unless_positive
from verglas.run.local_resolution import LocalResolutionJob, LocalResolutionSettings, local_resolution_files
from verglas.types.settings import settings_from


def register(app: typer.Typer) -> None:
    """Add the command."""
    example = "verglas local-resolution half1.mrc half2.mrc --mask mask.mrc --filtered-map --out locres"
    app.command(epilog=f"Example: {example}")(local_resolution)


@with_settings(LocalResolutionSettings)
def local_resolution(
    half1: Path = typer.Argument(..., help="Half map (MRC), unfiltered and unmasked."),
    half2: Path = typer.Argument(..., help="The other half map."),
    out: Path = typer.Option(..., "--out", "-o", help="Folder to write."),
    mask: Path = typer.Option(None, "--mask", help="Where the molecule is, 0 to 1 [made from the map]."),
    map_path: Path = typer.Option(None, "--map", help="What is filtered and shown [mean of the half maps]."),
    filtered_map: bool = typer.Option(False, "--filtered-map", help="Write the map, each voxel at its resolution."),
    pixel_size: float = typer.Option(None, "--pixel-size", help="In place of the headers', A."),
    threads: int = typer.Option(None, "--threads", min=1, help="Threads [all]."),
    as_json: bool = typer.Option(False, "--json", help="Print the summary as JSON."),
    *,
    settings: dict[str, Any],
) -> None:
    """Resolution at every voxel, as a map, slices in colour, a histogram and a script for ChimeraX.

    Writes local_resolution.mrc, mask.mrc, map.mrc, histogram.csv, bands.csv, colour.cxc, local_resolution.json and
    report.html; with --method directional also the resolution along each voxel's best and worst axis, towards the
    middle and across; with --method network local_resolution_over_fsc.mrc, its ratio to what the windowed FSC says.
    """
    refuse_unless_positive({"--pixel-size": pixel_size}, "A", finite=True)
    chosen = settings_from("local_resolution", LocalResolutionSettings, **settings)
    job = LocalResolutionJob(half1, half2, out, mask, map_path, filtered_map, pixel_size, chosen, threads)
    local, record = local_resolution_files(job)
    if as_json:
        typer.echo(json.dumps(record, indent=2))
        return
    low, first, middle, third, high = local.quantiles_A()
    typer.echo(f"median {middle:.2f} A, quartiles {first:.2f} to {third:.2f} A, 5 to 95 %: {low:.2f} to {high:.2f} A")
    if local.unresolved > 0:
        typer.echo(f"{100 * local.unresolved:.1f} % of the voxels are not resolved to {local.coarsest_A:.1f} A")
    if "against_fsc" in record:
        told = record["against_fsc"]
        typer.echo(
            f"the windowed FSC says otherwise by more than a quarter at {100 * told['share_apart']:.1f} % of the "
            f"voxels: the network is coarser at {100 * told['share_coarser']:.1f} % and finer at "
            f"{100 * told['share_finer']:.1f} %"
        )
    if "directional" in record:
        told = record["directional"]
        axis, median_A = ", ".join(f"{v:.2f}" for v in told["coarsest_axis"]), told["median_A"]
        typer.echo(
            f"coarsest along ({axis}): {median_A['coarsest']:.2f} A, finest {median_A['finest']:.2f} A; "
            f"towards the middle {median_A['radial']:.2f} A, across {median_A['tangential']:.2f} A"
        )
    typer.echo(f"{out / 'report.html'}, {record['seconds']:.1f} s")
