"""``verglas postprocess``: an honest resolution and a sharpened map from two half maps."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import typer

from verglas.cli.options import with_settings
from verglas.cli.usage import refuse_unless_positive
from verglas.run.postprocess import PostprocessJob, PostprocessSettings, PostprocessSummary, postprocess_files
from verglas.types.settings import settings_from


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog="Example: verglas postprocess half1.mrc half2.mrc --symmetry O --out post")(postprocess)


@with_settings(PostprocessSettings)
def postprocess(
    half1: Path = typer.Argument(..., help="Half map (MRC), unfiltered and unmasked."),
    half2: Path = typer.Argument(..., help="The other half map."),
    out: Path = typer.Option(..., "--out", "-o", help="Folder to write."),
    mask: Path = typer.Option(None, "--mask", help="Soft mask, 0 to 1 [made from the map]."),
    b_factor: float = typer.Option(None, "--b-factor", help="B of the map to undo, A^2; 0: none [fitted]."),
    mtf: Path = typer.Option(None, "--mtf", help="Detector's MTF: RELION STAR or two columns (1/px, value)."),
    mtf_pixel_size: float = typer.Option(None, "--mtf-pixel-size", help="Detector pixel of the MTF, A [the map's]."),
    pixel_size: float = typer.Option(None, "--pixel-size", help="In place of the headers', A."),
    threads: int = typer.Option(None, "--threads", min=1, help="Threads [all]."),
    as_json: bool = typer.Option(False, "--json", help="Print the summary as JSON."),
    *,
    settings: dict[str, Any],
) -> None:
    """Masked FSC corrected by phase randomisation, B-factor, sharpened map, and a page with figures.

    Writes map.mrc, map_sharpened.mrc, mask.mrc, fsc.csv, guinier.csv, postprocess.json and report.html.
    """
    lengths = {"--pixel-size": pixel_size, "--mtf-pixel-size": mtf_pixel_size}
    refuse_unless_positive(lengths, "A", finite=True)
    if b_factor is not None and not b_factor >= 0:
        raise typer.BadParameter(
            f"expected the map's B-factor, >= 0 (to sharpen by -80 give 80), got {b_factor:g}",
            param_hint="--b-factor",
        )
    chosen = settings_from("postprocess", PostprocessSettings, **settings)
    job = PostprocessJob(half1, half2, out, mask, mtf, mtf_pixel_size, b_factor, pixel_size, chosen, threads)
    summary = postprocess_files(job)
    for line in summary.result.warnings:
        print(f"verglas: {line}", file=sys.stderr)
    if as_json:
        typer.echo(json.dumps(summary.as_dict(), indent=2))
    else:
        _print(summary, out)


def _length(value: float) -> str:
    return f"{value:.2f} A" if math.isfinite(value) else "none"


def _print(summary: PostprocessSummary, out: Path) -> None:
    done = summary.result
    table = done.table()
    names = list(next(iter(table.values())))
    typer.echo("threshold  " + "  ".join(f"{name:>10}" for name in names))
    for threshold, row in table.items():
        typer.echo(f"{threshold:<9}  " + "  ".join(f"{_length(row[name]):>10}" for name in names))
    finest, coarsest = done.resolution_interval_A
    chance = f"chance in the shells alone: {_length(finest)} to {_length(coarsest)}"
    typer.echo(f"resolution: {_length(done.resolution_A)} (corrected FSC = 0.143; {chance})")
    if summary.withheld_by is not None:
        typer.echo(f"state no resolution: the verdict on the refinement of these half maps is {summary.withheld_by}")
    elif done.claimed_resolution_A > done.resolution_A:
        typer.echo(f"state {_length(done.claimed_resolution_A)}: so few voxels leave the resolution open")
    if done.guinier.b_factor_A2 is not None and done.guinier.band_A is not None:
        coarse, fine = done.guinier.band_A
        error = done.guinier.b_error_A2 or 0.0
        typer.echo(
            f"B-factor: {done.guinier.b_factor_A2:.0f} +- {error:.0f} A^2, fitted from {coarse:.1f} to {fine:.2f} A"
        )
    typer.echo(f"sharpened with B = {done.b_factor_A2:.0f} A^2, low-pass {_length(done.low_pass_A)}")
    typer.echo(f"mask: {done.mask_source}, {100 * done.mask.data.mean(dtype='float64'):.1f} % of the box")
    typer.echo(f"{out / 'report.html'}, {summary.seconds:.1f} s")
