"""``verglas class3d``: several structures in one set of particles."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import typer

from verglas.cli.options import with_settings
from verglas.run.class3d import ClassSettings, class3d_files
from verglas.run.cluster import cluster_request
from verglas.types.settings import settings_from


def register(app: typer.Typer) -> None:
    """Add the command."""
    example = "verglas class3d particles.star --map run1/map.mrc --classes auto --diameter 180 --out class3d1"
    app.command(epilog=f"Example: {example}")(class3d)


@with_settings(ClassSettings)
def class3d(
    particles: Path = typer.Argument(..., help="Particles: RELION STAR or cryoSPARC .cs."),
    map: list[Path] = typer.Option(None, "--map", help="Start map; several times: one for each class [made]."),
    out: Path = typer.Option(..., "--out", "-o", help="Run folder."),
    mask: Path = typer.Option(None, "--mask", help="With --poses fixed: where classes may differ, 0 to 1."),
    stack: Path = typer.Option(None, "--stack", help="Image stack in place of the one the file names."),
    device: str = typer.Option("auto", "--device", help="cpu, cuda:0, cuda:0,cuda:1, or cuda for all [auto: cpu]."),
    threads: int = typer.Option(None, "--threads", min=1, help="Threads [all]."),
    cluster: str = typer.Option(
        None, "--cluster", help="Workers that share the particles: local:4, slurm:16 or tcp://host:8786."
    ),
    cluster_profile: Path = typer.Option(
        None, "--cluster-profile", help="TOML file: queue, walltime, cores, memory, extra lines ..."
    ),
    resume: bool = typer.Option(False, "--resume", help="Go on with the run in --out; fail if there is none."),
    as_json: bool = typer.Option(False, "--json", help="Print the summary as JSON."),
    *,
    settings: dict[str, Any],
) -> None:
    """Sort particles into several structures, or into as many as held-out evidence supports (--classes auto).

    Writes map_class1.mrc, half1_class1.mrc, ..., particles.star with class numbers and posteriors, class3d.json and
    report.html. Stopped, the same command goes on from the last checkpoint.
    """
    if "classes" not in settings and map and len(map) > 1:
        settings["classes"] = str(len(map))
    chosen = settings_from("class3d", ClassSettings, **settings)
    made = class3d_files(
        particles,
        map or None,
        stack=stack,
        settings=chosen,
        mask=mask,
        out=out,
        resume=resume,
        device=device,
        threads=threads,
        cluster=cluster_request(cluster, cluster_profile),
    )
    summary = made.summary()
    typer.echo(
        json.dumps(summary, indent=2) if as_json else f"{made.sentence}. {made.seconds:.0f} s: {out}/report.html"
    )
