"""``verglas refine``: from particles and a reference to half maps, a sharpened map and a page."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import typer

from verglas.cli.usage import refuse_unless_positive

_LINE_EVERY_S = 30.0


class Screen:
    """A progress bar per iteration on a terminal, a plain line now and then in a log; both on standard error."""

    def __init__(self) -> None:
        self.bar: Any = None
        self.task: Any = None
        self.iteration, self.begun, self.said = 0, time.monotonic(), time.monotonic()
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            self.bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[rate]}"),
                TimeRemainingColumn(),
                console=Console(stderr=True),
                transient=True,
            )
            self.bar.start()

    def close(self) -> None:
        """Leave the terminal as it was."""
        if self.bar is not None:
            self.bar.stop()

    def say(self, line: str) -> None:
        """One line."""
        if self.bar is not None:
            self.bar.console.print(line, highlight=False)
        else:
            print(line, file=sys.stderr, flush=True)

    def progress(self, iteration: int, phase: str, done: int, total: int) -> None:
        """Particles done in this iteration."""
        now = time.monotonic()
        if iteration != self.iteration:
            self.iteration = iteration
            if self.bar is not None:
                if self.task is not None:
                    self.bar.remove_task(self.task)
                self.task = self.bar.add_task(f"iteration {iteration}, {phase}", total=total, rate="")
        rate = done / max(now - self.begun, 1e-3)
        if self.bar is not None:
            self.bar.update(self.task, completed=done, rate=f"{rate:.0f} particles/s")
        elif now - self.said >= _LINE_EVERY_S and done < total:
            self.said = now
            left = (total - done) / max(rate, 1e-9)
            self.say(f"iteration {iteration}, {phase}: {done} of {total}, {rate:.0f} particles/s, {left:.0f} s left")

    def iteration_done(self, row: Mapping[str, Any]) -> None:
        """One line per iteration."""
        self.begun = time.monotonic()  # of the next one
        classes = "" if ";" not in row["populations"] else f", classes {row['populations'].replace(';', ' ')}"
        self.say(
            f"iteration {row['iteration']:2d}  {row['phase']:6s}  data to {row['search_resolution_A']:5.2f} A  "
            f"resolution {row['resolution_A']:5.2f} A  best pose {row['max_probability']:.2f}  "
            f"turned {row['angle_change_deg']:.2f} deg{classes}  {row['seconds']:.1f} s"
        )


def register(app: typer.Typer) -> None:
    """Add the command."""
    example = "verglas refine particles.star --reference init.mrc --symmetry O --diameter 140 --out run1"
    app.command(epilog=f"Example: {example}")(refine)


def refine(
    particles: Path = typer.Argument(..., help="Particles: RELION STAR or cryoSPARC .cs."),
    reference: list[Path] = typer.Option(
        None, "--reference", "--ref", help="Start map; give it several times for several classes."
    ),
    out: Path = typer.Option(..., "--out", "-o", help="Run folder."),
    symmetry: str = typer.Option("C1", "--symmetry", "--sym", help="Point group: C1, C4, D2, T, O, I1 ..."),
    diameter: float = typer.Option(None, "--diameter", help="Diameter of the particle, A [0.8 of the box]."),
    classes: int = typer.Option(None, "--classes", min=1, help="Classes to tell apart [one per reference]."),
    poses: str = typer.Option("global", "--poses", help="global, or local: start from the particles' poses."),
    mode: str = typer.Option("likelihood", "--mode", help="likelihood, or max-cc (FREALIGN's)."),
    initial_resolution: float = typer.Option(30.0, "--initial-resolution", help="Low-pass of the reference, A."),
    max_resolution: float = typer.Option(None, "--max-resolution", help="Use data to this resolution only, A."),
    join_resolution: float = typer.Option(40.0, "--join-resolution", help="Half maps are joined below this, A."),
    regularisation: float = typer.Option(None, "--tau2-fudge", "-T", help="Regularisation T [1; classes: 4]."),
    shift_range: float = typer.Option(12.0, "--shift-range", help="Largest shift searched at first, A."),
    iterations: int = typer.Option(25, "--iterations", min=1, help="At most."),
    mask: Path = typer.Option(None, "--mask", help="Soft solvent mask, 0 to 1 [made from the map]."),
    no_mask: bool = typer.Option(False, "--no-solvent-mask", help="Mask by the sphere alone during refinement."),
    no_scale: bool = typer.Option(False, "--no-scale", help="No grey scale per micrograph."),
    no_norm: bool = typer.Option(False, "--no-norm", help="No noise level per particle."),
    stack: Path = typer.Option(None, "--stack", help="Image stack in place of the one the file names."),
    seed: int = typer.Option(0, "--seed", min=0, help="Seed of half sets and first classes."),
    device: str = typer.Option("auto", "--device", help="cpu, cuda:0, cuda:0,cuda:1, or cuda for all [auto: cpu]."),
    threads: int = typer.Option(None, "--threads", min=1, help="Threads [all]."),
    memory: float = typer.Option(None, "--memory", help="GB not to be passed [0.8 of what there is]."),
    resume: bool = typer.Option(False, "--resume", help="Go on from the last iteration of the run in --out."),
    allow_changes: bool = typer.Option(False, "--allow-changes", help="Resume although settings differ."),
    as_json: bool = typer.Option(False, "--json", help="Print the summary as JSON."),
) -> None:
    """Refine poses and map of particles with two independent half sets.

    Writes map.mrc, map_sharpened.mrc, half1.mrc, half2.mrc, mask.mrc, fsc.csv, particles.star, iterations.csv and
    report.html into the run folder; the page can be opened while the run goes on.
    """
    refuse_unless_positive(
        {
            "--diameter": diameter,
            "--initial-resolution": initial_resolution,
            "--max-resolution": max_resolution,
            "--join-resolution": join_resolution,
            "--tau2-fudge": regularisation,
            "--shift-range": shift_range,
            "--memory": memory,
        }
    )
    if poses not in ("global", "local"):
        raise typer.BadParameter(f"expected global or local, got {poses}", param_hint="--poses")
    if mode not in ("likelihood", "max-cc"):
        raise typer.BadParameter(f"expected likelihood or max-cc, got {mode}", param_hint="--mode")
    from verglas.run.refine import refine_files, summary

    settings: dict[str, Any] = {
        "poses": poses,
        "mode": mode,
        "initial_resolution_A": initial_resolution,
        "max_resolution_A": max_resolution,
        "join_resolution_A": join_resolution,
        "regularisation": regularisation,
        "shift_range_A": shift_range,
        "iterations": iterations,
        "solvent_mask": not no_mask,
        "scale": not no_scale,
        "norm": not no_norm,
        "seed": seed,
        "threads": threads,
    }
    if classes is not None:
        settings["classes"] = classes
    screen = Screen()
    try:
        found = refine_files(
            particles,
            reference or None,
            symmetry,
            diameter,
            stack=stack,
            out=out,
            mask=mask,
            device=device,
            memory_GB=memory,
            resume=resume,
            allow_changes=allow_changes,
            watcher=screen,
            **settings,
        )
    finally:
        screen.close()
    _print(summary(found), out, as_json)


def _print(told: Mapping[str, Any], out: Path, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(told, indent=2))
        return
    resolution = told["resolution_A"]
    text = "no resolution: the half maps agree nowhere" if resolution is None else f"{resolution:.2f} A"
    typer.echo(
        f"resolution {text} (FSC 0.143, in the mask, corrected by phase randomisation); {told['particles']} "
        f"particles, {told['iterations']} iterations, {told['seconds']:.0f} s: {out}/report.html"
    )
