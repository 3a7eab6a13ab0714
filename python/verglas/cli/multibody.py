"""``verglas multibody``: bodies of a particle that move against each other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import typer

from verglas.cli.options import with_settings
from verglas.cli.usage import refuse_unless_positive
from verglas.run.multibody import MultibodySettings, multibody_files
from verglas.types.settings import settings_from


def register(app: typer.Typer) -> None:
    """Add the command."""
    example = "verglas multibody run1/particles.star --map run1/map.mrc --mask a.mrc --mask b.mrc --out bodies1"
    app.command(epilog=f"Example: {example}")(multibody)


@with_settings(MultibodySettings)
def multibody(
    particles: Path = typer.Argument(..., help="Particles with poses: RELION STAR or cryoSPARC .cs."),
    map: Path = typer.Option(..., "--map", help="Map of the whole particle at these poses."),
    mask: list[Path] = typer.Option(..., "--mask", help="Mask of a body, 0 to 1; once for each body."),
    out: Path = typer.Option(..., "--out", "-o", help="Run folder."),
    stack: Path = typer.Option(None, "--stack", help="Image stack in place of the one the file names."),
    device: str = typer.Option("auto", "--device", help="cpu, cuda:0, cuda:0,cuda:1, or cuda for all [auto: cpu]."),
    threads: int = typer.Option(None, "--threads", min=1, help="Threads [all]."),
    memory: float = typer.Option(None, "--memory", help="Most memory to use, GB [0.8 of what there is]."),
    resume: bool = typer.Option(False, "--resume", help="Go on with the run in --out; fail if there is none."),
    as_json: bool = typer.Option(False, "--json", help="Print the summary as JSON."),
    *,
    settings: dict[str, Any],
) -> None:
    """Refine rigid bodies of a particle, each with poses of its own near those of the whole, and find how they move.

    Writes for every body map_body1.mrc, its half maps, mask and particles_body1.star; fsc.csv, states along the
    principal motions (motion1_state1.mrc, ...), particles.star with every particle's place along them, multibody.json
    and report.html. Stopped, the same command goes on from the last checkpoint.
    """
    refuse_unless_positive({"--memory": memory})
    chosen = settings_from("multibody", MultibodySettings, **settings)
    made = multibody_files(
        particles,
        map,
        mask,
        stack=stack,
        settings=chosen,
        out=out,
        resume=resume,
        device=device,
        threads=threads,
        memory_GB=memory,
    )
    told = json.dumps(made.summary(), indent=2)
    typer.echo(told if as_json else f"{made.sentence}. {made.seconds:.0f} s: {out}/report.html")
