"""``verglas demo``: from simulated particles and a blurred start to a map and a page."""

from __future__ import annotations

import json
from typing import Any

import typer

from verglas.cli.options import with_settings
from verglas.run.demo import DemoSettings
from verglas.run.demo import demo as run


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog="Example: verglas demo --out demo --n 2000 --snr 0.1")(demo)


@with_settings(DemoSettings)
def demo(
    out: str = typer.Option("demo", "--out", "-o", help="Folder to write (made if missing)."),
    device: str = typer.Option("cpu", "--device", help="cpu, cuda:0, cuda:0,cuda:1, or cuda for all."),
    threads: int | None = typer.Option(None, "--threads", min=1, help="Threads; all processors by default."),
    as_json: bool = typer.Option(False, "--json", help="Print JSON."),
    *,
    settings: dict[str, Any],
) -> None:
    """Simulate particles, refine them from a map blurred to 40 A, and compare the result with the truth.

    Writes report.html, map.mrc, start.mrc, truth.mrc, particles.star, particles.mrcs, and refine/, the run folder
    of the refinement with its own page. A demonstration already in the folder is replaced.
    """
    demonstration = run(out, threads=threads, device=device, **settings)
    told = demonstration.summary()
    if as_json:
        typer.echo(json.dumps(told, indent=2))
        return
    typer.echo(f"resolution against the truth: {demonstration.resolution_A:.2f} A (FSC = 0.5)")
    typer.echo(f"resolution between the half maps: {demonstration.half_map_resolution_A:.2f} A (FSC = 0.143)")
    typer.echo(
        f"median error of poses: {told['median_angular_error_deg']:.2f} deg, {told['median_shift_error_A']:.2f} A"
    )
    typer.echo(f"open {told['report']} and {told['refinement_report']}")
