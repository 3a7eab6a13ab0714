"""``verglas class2d``: 2D classification."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import typer

from verglas.cli.options import with_settings
from verglas.cli.progress import exit_if_stop
from verglas.cli.usage import refuse_unless_positive
from verglas.run.class2d import MEMORY_GB, Class2DJob, Class2DSettings, class2d_files


def register(app: typer.Typer) -> None:
    """Add the command."""
    example = "verglas class2d particles.star --classes 50 --diameter 150 --out class2d"
    app.command(epilog=f"Example: {example}")(class2d)


@with_settings(Class2DSettings)
def class2d(
    particles: Path = typer.Argument(..., help="Particles: RELION STAR or cryoSPARC .cs."),
    out: Path = typer.Option(..., "--out", "-o", help="Folder for averages, tables and page; it is made."),
    repeats: int = typer.Option(0, "--repeats", min=0, help="Further runs, for the stability of classes."),
    stack: Path = typer.Option(None, "--stack", help="Image stack in place of the one the file names."),
    device: str = typer.Option("cpu", "--device", help="cpu or cuda:0."),
    threads: int = typer.Option(None, "--threads", min=1, help="Threads [all]."),
    memory: float = typer.Option(None, "--memory", help=f"Most memory to use, GB [{MEMORY_GB:g}]."),
    core: bool = typer.Option(False, "--core", help="Mark particles in the core of their class (verglasCore)."),
    resume: bool = typer.Option(False, "--resume", help="Go on with the run in --out; fail if there is none."),
    as_json: bool = typer.Option(False, "--json", help="Print the summary as JSON."),
    *,
    settings: dict[str, Any],
) -> None:
    """Sort particles into classes that show the same view, and average each.

    Writes averages.mrcs, classes.star, particles.star (class, pose, probability), classes.png, and classes.html,
    where classes can be ticked and the selection downloaded; it can be opened while the run goes on. Stopped, the
    same command goes on from the last iteration. Exit status 1 where there is nothing but noise.
    """
    refuse_unless_positive({"--memory": memory})
    chosen = Class2DSettings(**settings)
    summary = class2d_files(Class2DJob(particles, out, chosen, repeats, stack, resume, device, threads, memory, core))
    if as_json:
        typer.echo(json.dumps(summary.as_dict(), indent=1))
    else:
        counts = f"{len(summary.classes.particles)} particles, {chosen.classes} classes"
        typer.echo(f"{summary.classes.verdict}\n{counts}, {summary.seconds:.1f} s: {out}")
    exit_if_stop("go on" if summary.classes.signal else "stop")
