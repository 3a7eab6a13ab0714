"""``verglas map-model``: how well a map supports a model."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from verglas.cli.options import with_settings
from verglas.cli.usage import refuse_unless_positive
from verglas.run.map_model import MapModelJob, MapModelSettings, map_model_files
from verglas.types.settings import settings_from


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog="Example: verglas map-model map.mrc model.cif --resolution 3.2 --out check")(map_model)


@with_settings(MapModelSettings)
def map_model(
    map_path: Path = typer.Argument(..., metavar="MAP", help="Map (MRC), sharpened, as it was modelled."),
    model: Path = typer.Argument(..., help="Model, mmCIF or PDB, in the map's frame."),
    out: Path = typer.Option(..., "--out", "-o", help="Folder to write."),
    fit: bool = typer.Option(False, "--fit", help="Place the model in the map first, as one rigid body."),
    half1: Path = typer.Option(None, "--half1", help="Half map: the map's own resolution, and FSC-Q of each atom."),
    half2: Path = typer.Option(None, "--half2", help="The other half map."),
    pixel_size: float = typer.Option(None, "--pixel-size", help="In place of the headers', A."),
    threads: int = typer.Option(None, "--threads", min=1, help="Threads [all]."),
    as_json: bool = typer.Option(False, "--json", help="Print the summary as JSON."),
    *,
    settings: dict[str, Any],
) -> None:
    """Map-model FSC, correlations, d_model, d99, Q-scores, Z-scores of side chains and secondary structure, FSC-Q.

    Writes fsc.csv, atoms.csv, residues.csv, chains.csv, elements.csv, map_model.json, report.html; with --fit
    model_fitted.cif. FSC-Q, what the half maps know of each atom's place against what the model says, needs both.
    """
    refuse_unless_positive({"--pixel-size": pixel_size}, "A", finite=True)
    if (half1 is None) != (half2 is None):
        raise typer.BadParameter("give both half maps or none", param_hint="--half1 and --half2")
    halves = None if half1 is None else (half1, half2)
    chosen = settings_from("map_model", MapModelSettings, **settings)
    support, record = map_model_files(MapModelJob(map_path, model, out, fit, halves, pixel_size, chosen, threads))
    if as_json:
        typer.echo(json.dumps(record, indent=2))
        return
    if record["fit"]:
        placed = record["fit"]
        other = (
            "no other place" if placed["runner_up_sd"] is None else f"the next best place {placed['runner_up_sd']:.2f}"
        )
        typer.echo(f"fit: mean density at the atoms {placed['density_sd']:.2f} sd above the map's, {other}")
    typer.echo(f"Q-score {support.q_mean:.3f} (proteins at {support.resolution_A:.2f} A: {support.expected_q:.2f})")
    typer.echo("CC " + ", ".join(f"{name} {value:.3f}" for name, value in support.correlations.items()))
    at = [f"{d:.2f} A" if math.isfinite(d) else "no scale" for d in map(support.d_fsc_A, (0.5, 0.143))]
    lengths = f"d_model {support.d_model_A:.2f} A, d99 {support.d99_A:.2f} A"
    typer.echo(f"{lengths}, FSC 0.5 at {at[0]}, 0.143 at {at[1]}")
    for line in _features(record):
        typer.echo(line)
    for line in record["consistency"]:
        typer.echo(line)
    typer.echo(f"{out / 'report.html'}, {record['seconds']:.1f} s")


def _features(record: dict[str, Any]) -> Iterator[str]:
    """What side chains, secondary structure and half maps say, a line each where there is something to say."""
    for key, name in (("side_chains", "side chains"), ("elements", "helices and strands")):
        score = record[key]
        if score["scored"]:
            yield (
                f"{name}: {100 * score['above_zero']:.0f} % of {score['scored']} stand out of displaced copies, "
                f"median Z {score['median_z']:.2f}"
            )
    if record["fsc_q"] and record["fsc_q"]["median_A"] is not None:
        q = record["fsc_q"]
        yield f"FSC-Q: median {q['median_A']:+.2f} A, nine tenths of the atoms {q['q05_A']:+.2f} to {q['q95_A']:+.2f} A"
