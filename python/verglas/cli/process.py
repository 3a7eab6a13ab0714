"""``verglas process``: from micrographs to particles, classes or a map."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import typer

from verglas.cli.options import with_settings
from verglas.cli.usage import refuse_unless_positive
from verglas.pipeline import Outcome, ProcessSettings, WatchOptions, watch_folder
from verglas.pipeline import process as run_process
from verglas.pipeline.settings import parse_setting
from verglas.pipeline.stages import STAGES
from verglas.run.cluster import cluster_request

_STAGES = f"Stages: {', '.join(STAGES)}."
_EXAMPLE = 'Example: verglas process "mics/*.tif" --pixel-size 1.5 --voltage 300 --cs 0.01 --diameter 130 --out proj'


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog=f"{_STAGES} {_EXAMPLE}")(process)


@with_settings(ProcessSettings, leave_out=("micrographs", "set"), resumes=True)
def process(
    micrographs: list[str] = typer.Argument(None, help="Patterns, folders, files, or a STAR file that names them."),
    out: Path = typer.Option(..., "--out", "-o", help="Project folder; what it knows need not be given again."),
    stage_settings: list[str] = typer.Option(
        None, "--set", help="stage.field=value, such as pick.threshold=0.4; again."
    ),
    redo: list[str] = typer.Option(None, "--redo", help="Do this stage again, and what depends on it; again."),
    force: bool = typer.Option(False, "--force", help="Go on whatever the verdicts say."),
    watch: Path = typer.Option(None, "--watch", help="Work on the files of this folder as they arrive."),
    once: bool = typer.Option(False, "--once", help="Watch until all that is there is done."),
    until_idle: float = typer.Option(None, "--until-idle", help="Watch until nothing is new for so many seconds."),
    settle: float = typer.Option(10.0, "--settle", help="A file is whole if unchanged for so many seconds."),
    memory: float = typer.Option(
        None, "--memory", help="Most memory that later stages may use, GB [0.8 of what there is]."
    ),
    device: str = typer.Option(
        "cpu", "--device", help="Where classes and maps are made: cpu, cuda:0, cuda:0,cuda:1, or cuda for all."
    ),
    cluster: str = typer.Option(
        None, "--cluster", help="Workers that share micrographs and particles: local:4, slurm:16 or tcp://host:8786."
    ),
    cluster_profile: Path = typer.Option(
        None, "--cluster-profile", help="TOML file: queue, walltime, cores, memory, extra lines ..."
    ),
    threads: int = typer.Option(None, "--threads", min=1, help="Micrographs at a time, threads [all]."),
    as_json: bool = typer.Option(False, "--json", help="Print the summary as JSON."),
    *,
    settings: dict[str, Any],
) -> None:
    """Go from micrographs to particles, 2D classes or a map, stage by stage.

    Each stage leaves a folder with stage.json and verdict.json; finished ones are not done again, a killed run goes on
    where it was. report.html shows all. Exit status 1 if a verdict is to stop.
    """
    refuse_unless_positive({"--memory": memory, "--settle": settle})
    if watch is not None and micrographs:
        raise typer.BadParameter("give micrographs or --watch, not both", param_hint="--watch")
    if watch is None and (once or until_idle is not None):
        raise typer.BadParameter("only with --watch", param_hint="--once" if once else "--until-idle")
    given = {
        "micrographs": tuple(micrographs) if micrographs else None,
        "set": dict(parse_setting(text) for text in stage_settings or ()),
        **settings,
    }
    shared: dict[str, Any] = {"force": force, "threads": threads, "memory_GB": memory, "device": device, **given}
    request = cluster_request(cluster, cluster_profile)
    if watch is not None and request is not None:
        raise typer.BadParameter("not with --watch, which works on files as they arrive", param_hint="--cluster")
    if watch is not None:
        done = watch_folder(watch, out, WatchOptions(settle, until_idle, once), **shared)
    else:
        done = run_process(out, redo=redo or (), cluster=request, **shared)
    _print(done, as_json)


def _print(done: Outcome, as_json: bool) -> None:
    numbers = done.summary()
    if as_json:
        typer.echo(json.dumps(numbers, indent=2))
    else:
        resolution = f", {numbers['resolution_A']:.2f} A" if numbers["resolution_A"] else ""
        if numbers["resolution_withheld_by"]:
            resolution += f" (not to be stated: {numbers['resolution_withheld_by']})"
        typer.echo(
            f"{numbers['particles']} particles from {numbers['micrographs_used']} of {numbers['micrographs']} "
            f"micrographs{resolution}, {numbers['seconds']:.0f} s: {numbers['report']}"
        )
        for name, reason in numbers["set_aside"].items():
            typer.echo(f"set aside: {name}: {reason}")
    if done.stopped:
        print(f"verglas: {done.stopped}", file=sys.stderr)
        raise typer.Exit(1)
