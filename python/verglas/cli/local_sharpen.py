"""``verglas local-sharpen``: a map sharpened place by place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import typer

from verglas.cli.options import with_settings
from verglas.cli.usage import refuse_unless_positive
from verglas.run.local_sharpen import LocalSharpenJob, LocalSharpenSettings, local_sharpen_files
from verglas.types.settings import settings_from


def register(app: typer.Typer) -> None:
    """Add the command."""
    example = "verglas local-sharpen map.mrc --half1 half1.mrc --half2 half2.mrc --out sharp"
    app.command(epilog=f"Example: {example}")(local_sharpen)


@with_settings(LocalSharpenSettings)
def local_sharpen(
    map_path: Path = typer.Argument(..., metavar="MAP", help="Map (MRC), neither sharpened nor filtered."),
    out: Path = typer.Option(..., "--out", "-o", help="Folder to write."),
    half1: Path = typer.Option(None, "--half1", help="Half map: tells, with the other, each voxel's resolution."),
    half2: Path = typer.Option(None, "--half2", help="The other half map."),
    resolution_map: Path = typer.Option(
        None, "--resolution-map", help="Resolution of each voxel in A, of any program, in place of half maps."
    ),
    model: Path = typer.Option(
        None, "--model", help="Model with refined B-factors, in the map's frame: amplitudes are taken from it."
    ),
    mask: Path = typer.Option(None, "--mask", help="Where the molecule is, 0 to 1 [made from the half maps]."),
    pixel_size: float = typer.Option(None, "--pixel-size", help="In place of the headers', A."),
    threads: int = typer.Option(None, "--threads", min=1, help="Threads [all]."),
    as_json: bool = typer.Option(False, "--json", help="Print the summary as JSON."),
    *,
    settings: dict[str, Any],
) -> None:
    """Undo the blur of each voxel as its resolution allows, or give each place the amplitudes of a model.

    Writes map_sharpened.mrc, amplitudes.csv, local_sharpen.json, report.html; with half maps local_resolution.mrc and
    mask.mrc.
    """
    refuse_unless_positive({"--pixel-size": pixel_size}, "A", finite=True)
    if (half1 is None) != (half2 is None):
        raise typer.BadParameter("give both half maps or none", param_hint="--half1 and --half2")
    halves = None if half1 is None else (half1, half2)
    chosen = settings_from("local_sharpen", LocalSharpenSettings, **settings)
    job = LocalSharpenJob(map_path, out, halves, resolution_map, model, mask, pixel_size, chosen, threads)
    done, record = local_sharpen_files(job)
    if as_json:
        typer.echo(json.dumps(record, indent=2))
        return
    if done.method == "model":
        before, after = record["correlations_before"], record["correlations_after"]
        typer.echo(f"CC mask {before['mask']:.3f} before, {after['mask']:.3f} after; cut at {done.finest_A:.2f} A")
    else:
        typer.echo(f"noise to signal {done.noise_to_signal:.3g}, {done.iterations} iterations")
    typer.echo(f"{out / 'report.html'}, {record['seconds']:.1f} s")
