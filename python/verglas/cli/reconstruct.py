"""``verglas reconstruct``: a map from particles with known poses."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import typer

from verglas.cli.options import StackType, with_settings
from verglas.run.reconstruct import ReconstructJob, ReconstructSettings, reconstruct_files
from verglas.types.settings import settings_from


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog="Example: verglas reconstruct particles.star --out map.mrc --symmetry O --halves")(reconstruct)


@with_settings(ReconstructSettings)
def reconstruct(
    particles: Path = typer.Argument(..., help="Particles with poses: RELION STAR or cryoSPARC .cs."),
    out: Path = typer.Option(..., "--out", "-o", help="Map to write; half maps go beside it."),
    halves: bool = typer.Option(False, "--halves", help="Also make half maps and their FSC."),
    wiener: bool = typer.Option(False, "--wiener", help="Weight the map by the SSNR of the half maps."),
    stack: Path = typer.Option(None, "--stack", help="Image stack in place of the one the file names."),
    dtype: StackType = typer.Option(None, "--dtype", help="Of the maps [float32, or what --map-dtype says]."),
    device: str = typer.Option("cpu", "--device", help="cpu, cuda:0, cuda:0,cuda:1, or cuda for all."),
    threads: int = typer.Option(None, "--threads", min=1, help="Threads [all]."),
    as_json: bool = typer.Option(False, "--json", help="Print the summary as JSON."),
    *,
    settings: dict[str, Any],
) -> None:
    """Reconstruct a map from particles whose poses are known.

    direct divides on the grid; least-squares solves the exact normal equations, for little noise or few views; sirt and
    cg end early; tv weighs total variation by what each half of the particles says of the other.
    """
    chosen = settings_from("reconstruct", ReconstructSettings, **settings)
    job = ReconstructJob(
        particles, out, chosen, halves, wiener, stack, threads, device, None if dtype is None else dtype.value
    )
    summary = reconstruct_files(job)
    if as_json:
        typer.echo(json.dumps(summary.as_dict(), indent=2))
        return
    for number, reason in list(summary.result.excluded.items())[:20]:
        print(f"set aside: particle {number}: {reason}", file=sys.stderr)
    if summary.result.excluded:
        print(f"{len(summary.result.excluded)} particles set aside", file=sys.stderr)
    typer.echo(f"{summary.result.used} particles, {summary.seconds:.1f} s: {', '.join(map(str, summary.files))}")
    if summary.fsc is not None:
        resolution = summary.fsc.resolution_A(0.143)
        text = f"{resolution:.2f} A" if math.isfinite(resolution) else "none"
        typer.echo(f"resolution between the half maps, FSC 0.143, unmasked: {text}")
