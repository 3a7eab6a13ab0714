"""``verglas deform``: what bends, between maps or from particle to particle."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import typer

from verglas.cli.options import with_settings
from verglas.run.deform import DeformJob, DeformSettings, deform_files
from verglas.types.settings import settings_from


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog="Example: verglas deform state1.mrc state2.mrc --resolution 12 --out deform1")(deform)


@with_settings(DeformSettings)
def deform(
    maps: list[Path] = typer.Argument(..., help="Two maps or more on one grid, or one map with --particles."),
    out: Path = typer.Option(..., "--out", "-o", help="Folder to write."),
    particles: Path = typer.Option(None, "--particles", help="Particles with poses: how the map bends in each."),
    stack: Path = typer.Option(None, "--stack", help="Image stack in place of the one the particles' file names."),
    threads: int = typer.Option(None, "--threads", min=1, help="Threads [all]."),
    as_json: bool = typer.Option(False, "--json", help="Print the summary as JSON."),
    *,
    settings: dict[str, Any],
) -> None:
    """Find how one map must bend to become another, how far several maps are apart, or how particles bend.

    Two maps: displacement.mrc (A), rotation.mrc (degrees), strain.mrc, volume_change.mrc and deformed.mrc. Three or
    more: distances.csv and coordinates.csv. Particles: amplitudes with errors in particles.star, along normal modes or
    principal Zernike deformations, and motion1_state1.mrc, ... Always deform.json and report.html.
    """
    chosen = settings_from("deform", DeformSettings, **settings)
    made = deform_files(DeformJob(maps, out, particles, stack, chosen, threads))
    if as_json:
        typer.echo(json.dumps(made, indent=2))
    elif made["kind"] == "two maps":
        typer.echo(
            f"{made['displacement_A']:.2f} A root mean square, {made['largest_A']:.1f} A at most; correlation then "
            f"{made['correlation']:.3f}: {out}/report.html"
        )
    elif made["kind"] == "several maps":
        typer.echo(f"{len(made['maps'])} maps, stress {made['stress']:.3f}: {out}/report.html")
    else:
        spread = ", ".join(f"{s:.2f} A (error {e:.2f})" for s, e in zip(made["spread_A"], made["error_A"], strict=True))
        typer.echo(f"{made['particles']} particles; spread along motions {spread}: {out}/report.html")
