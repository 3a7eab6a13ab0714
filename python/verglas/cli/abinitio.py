"""``verglas abinitio``: a first map from particles alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import typer

from verglas.cli.options import option_name, with_settings
from verglas.cli.progress import exit_if_stop
from verglas.cli.usage import refuse_unless_positive
from verglas.run.abinitio import AbInitioSettings, abinitio_files
from verglas.run.abinitio_averages import AVERAGES_METHODS, NOT_RECOMMENDED, AveragesJob, averages_files
from verglas.run.common_lines import CommonLinesJob, common_lines_files

_COMMON_LINES = "common-lines"  # makes a map of averages in its own way, and reads few of the settings
_LINE_SETTINGS = ("symmetry", "diameter_A", "final_resolution_A")
_METHODS = ("em", "hill-climbing", _COMMON_LINES, *AVERAGES_METHODS)


def register(app: typer.Typer) -> None:
    """Add the command."""
    example = "verglas abinitio particles.star --diameter 140 --starts 3 --out init"
    app.command(epilog=f"Example: {example}")(abinitio)


@with_settings(AbInitioSettings, leave_out=("method",))
def abinitio(
    particles: Path = typer.Argument(..., help="Particles or class averages: RELION STAR or cryoSPARC .cs."),
    out: Path = typer.Option(..., "--out", "-o", help="Folder to write."),
    method: str = typer.Option(
        "em",
        "--method",
        help=f"em, hill-climbing; of class averages: common-lines, {', '.join(AVERAGES_METHODS)}. Not recommended "
        f"below hundreds of averages: {', '.join(NOT_RECOMMENDED)}.",
    ),
    maps: list[Path] = typer.Option([], "--map", help="Of swarm-consensus: a map; give it for each."),
    flip_hand: bool = typer.Option(False, "--flip-hand", help="Write the mirror image and its poses."),
    stack: Path = typer.Option(None, "--stack", help="Image stack in place of the one the file names."),
    device: str = typer.Option("cpu", "--device", help="cpu or cuda:0."),
    threads: int = typer.Option(None, "--threads", min=1, help="Threads [all]."),
    memory: float = typer.Option(None, "--memory", help="Most memory to use, GB: more is refused at once."),
    resume: bool = typer.Option(False, "--resume", help="Go on with the run in --out; fail if there is none."),
    as_json: bool = typer.Option(False, "--json", help="Print the summary as JSON."),
    *,
    settings: dict[str, Any],
) -> None:
    """Make a first map without a reference, from several random starts, with a verdict on it.

    Writes map.mrc (map_class1.mrc, ...), particles.star with poses, abinitio.json and report.html, which can be
    opened while the run goes on. Stopped, the same command goes on from the last checkpoint. Exit status 1 where the
    particles are no better explained than noise.
    """
    if method not in _METHODS:
        raise typer.BadParameter(f"expected one of {', '.join(_METHODS)}, got {method!r}", param_hint="--method")
    refuse_unless_positive({"--memory": memory})
    if method in AVERAGES_METHODS:
        if resume:
            raise typer.BadParameter(f"method {method} leaves no checkpoint to go on from", param_hint="--resume")
        if stack is not None or device != "cpu" or memory is not None:
            raise typer.BadParameter(f"method {method} takes no --stack, no --memory and no other device than cpu")
        made = averages_files(AveragesJob(particles, out, method, settings, maps, flip_hand, threads))
        said = f"{made.verdict.sentence} {made.seconds:.0f} s: {out}/report.html"
        typer.echo(json.dumps(made.summary(), indent=2) if as_json else said)
        exit_if_stop(made.verdict.state)
        return
    if maps:
        raise typer.BadParameter("maps are taken by --method swarm-consensus", param_hint="--map")
    if method == _COMMON_LINES:
        others = {"--resume": resume, "--stack": stack is not None, "--device": device != "cpu"}
        others["--memory"] = memory is not None
        unused = [option_name(s) for s in sorted(set(settings) - set(_LINE_SETTINGS))]
        unused += [name for name, given in others.items() if given]
        if unused:
            raise typer.BadParameter(
                f"method {method} does not use {', '.join(unused)}; it uses "
                f"{', '.join(map(option_name, _LINE_SETTINGS))}, --flip-hand and --threads"
            )
        chosen = AbInitioSettings(**settings)
        job = CommonLinesJob(
            particles, out, chosen.diameter_A, chosen.final_resolution_A, chosen.symmetry, flip_hand, threads=threads
        )
        first_map = common_lines_files(job)
        typer.echo(json.dumps(first_map.as_dict(), indent=2) if as_json else f"{first_map.sentence} {out}/map.mrc")
        exit_if_stop(first_map.state)
        return
    result = abinitio_files(
        particles,
        settings={"method": method, **settings},
        stack=stack,
        out=out,
        flip_hand=flip_hand,
        resume=resume,
        device=device,
        threads=threads,
        memory_GB=memory,
    )
    symmetry_said = "" if result.symmetry is None else f" {result.symmetry.sentence}"
    said = f"{result.verdict.sentence}{symmetry_said} {result.seconds:.0f} s: {out}/report.html"
    typer.echo(json.dumps(result.summary(), indent=2) if as_json else said)
    exit_if_stop(result.verdict.state)
