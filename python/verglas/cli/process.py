"""``verglas process``: from micrographs to particles, classes or a map."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from verglas.cli.usage import refuse_unless_positive

if TYPE_CHECKING:
    from verglas.pipeline import Outcome

_EXAMPLE = 'Example: verglas process "mics/*.tif" --pixel-size 1.5 --voltage 300 --cs 0.01 --diameter 130 --out proj'


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command(epilog=_EXAMPLE)
    def process(
        micrographs: list[str] = typer.Argument(None, help="Patterns, folders, files, or a STAR file that names them."),
        out: Path = typer.Option(..., "--out", "-o", help="Project folder; what it knows need not be given again."),
        diameter: float = typer.Option(None, "--diameter", "-d", help="Of the particle, A."),
        pixel_size: float = typer.Option(None, "--pixel-size", help="Of the micrographs, A [their headers']."),
        voltage: float = typer.Option(None, "--voltage", help="Accelerating voltage, kV [300]."),
        cs: float = typer.Option(None, "--cs", help="Spherical aberration, mm [2.7]."),
        amplitude_contrast: float = typer.Option(None, "--amplitude-contrast", help="Fraction [0.1]."),
        to: str = typer.Option(None, "--to", help="particles, classes or map [particles]."),
        symmetry: str = typer.Option(None, "--symmetry", "--sym", help="Point group of the particle [C1]."),
        box: int = typer.Option(None, "--box", min=8, help="Side of the images, pixels [1.5 diameters]."),
        classes: int = typer.Option(None, "--classes", "-K", min=1, help="2D classes [one per 75 particles]."),
        reference: Path = typer.Option(None, "--reference", "--ref", help="Start map, in place of an ab initio one."),
        keep: Path = typer.Option(None, "--keep", help="STAR file of the micrographs to use, as the page saves it."),
        selection: Path = typer.Option(None, "--selection", help="STAR file of the 2D classes ticked on their page."),
        settings: list[str] = typer.Option(None, "--set", help="stage.field=value, such as pick.threshold=0.4; again."),
        redo: list[str] = typer.Option(None, "--redo", help="Do this stage again, and what depends on it; again."),
        force: bool = typer.Option(False, "--force", help="Go on whatever the verdicts say."),
        watch: Path = typer.Option(None, "--watch", help="Work on the files of this folder as they arrive."),
        once: bool = typer.Option(False, "--once", help="Watch until all that is there is done."),
        until_idle: float = typer.Option(None, "--until-idle", help="Watch until nothing is new for so many seconds."),
        settle: float = typer.Option(10.0, "--settle", help="A file is whole if unchanged for so many seconds."),
        seed: int = typer.Option(None, "--seed", min=0, help="Seed of everything random [0]."),
        memory: float = typer.Option(
            None, "--memory", help="Most memory that later stages may use, GB [0.8 of what there is]."
        ),
        device: str = typer.Option(
            "cpu", "--device", help="Where classes and maps are made: cpu, cuda:0, cuda:0,cuda:1, or cuda for all."
        ),
        threads: int = typer.Option(None, "--threads", min=1, help="Micrographs at a time, threads [all]."),
        as_json: bool = typer.Option(False, "--json", help="Print the summary as JSON."),
    ) -> None:
        """Go from micrographs to particles, 2D classes or a map, stage by stage.

        Stages: ctf, pick, extract, centre; class2d; abinitio, refine, postprocess. Each leaves a folder with stage.json
        and verdict.json; finished ones are not done again, a killed run goes on where it was. report.html shows all.
        Exit status 1 if a verdict is to stop.
        """
        refuse_unless_positive(
            {
                "--diameter": diameter,
                "--pixel-size": pixel_size,
                "--voltage": voltage,
                "--memory": memory,
                "--settle": settle,
            }
        )
        if to not in (None, "particles", "classes", "map"):
            raise typer.BadParameter(f"expected particles, classes or map, got {to}", param_hint="--to")
        if watch is not None and micrographs:
            raise typer.BadParameter("give micrographs or --watch, not both", param_hint="--watch")
        if watch is None and (once or until_idle is not None):
            raise typer.BadParameter("only with --watch", param_hint="--once" if once else "--until-idle")
        from verglas.pipeline import WatchOptions, process, watch_folder
        from verglas.pipeline.request import parse_setting

        given = {
            "micrographs": tuple(micrographs) if micrographs else None,
            "diameter_A": diameter,
            "pixel_size_A": pixel_size,
            "voltage_kV": voltage,
            "cs_mm": cs,
            "amplitude_contrast": amplitude_contrast,
            "to": to,
            "symmetry": symmetry,
            "box": box,
            "classes": classes,
            "seed": seed,
            "reference": None if reference is None else str(reference),
            "keep": None if keep is None else str(keep),
            "selection": None if selection is None else str(selection),
            "set": dict(parse_setting(text) for text in settings or ()),
        }
        shared: dict[str, Any] = {"force": force, "threads": threads, "memory_GB": memory, "device": device, **given}
        if watch is not None:
            done = watch_folder(watch, out, WatchOptions(settle, until_idle, once), **shared)
        else:
            done = process(out, redo=redo or (), **shared)
        _print(done, as_json)


def _print(done: Outcome, as_json: bool) -> None:
    found = done.summary()
    if as_json:
        typer.echo(json.dumps(found, indent=2))
    else:
        resolution = f", {found['resolution_A']:.2f} A" if found["resolution_A"] else ""
        typer.echo(
            f"{found['particles']} particles from {found['micrographs_used']} of {found['micrographs']} "
            f"micrographs{resolution}, {found['seconds']:.0f} s: {found['report']}"
        )
        for name, reason in found["set_aside"].items():
            typer.echo(f"set aside: {name}: {reason}")
    if done.stopped:
        print(f"verglas: {done.stopped}", file=sys.stderr)
        raise typer.Exit(1)
