"""``verglas class2d``: 2D classification."""

from __future__ import annotations

import json
from pathlib import Path

import typer

from verglas._screen import Screen
from verglas.types.listener import phase_progress


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command(epilog="Example: verglas class2d particles.star --classes 50 --diameter 150 --out class2d")
    def class2d(
        particles: Path = typer.Argument(..., help="Particles: RELION STAR or cryoSPARC .cs."),
        out: Path = typer.Option(..., "--out", "-o", help="Folder for averages, tables and page; it is made."),
        classes: int = typer.Option(50, "--classes", "-K", min=1, help="Number of classes."),
        diameter: float = typer.Option(None, "--diameter", help="Diameter of the mask, A [0.8 of the box]."),
        max_resolution: float = typer.Option(10.0, "--max-resolution", help="Finest data classes are judged by, A."),
        shift_range: float = typer.Option(None, "--shift-range", help="Largest shift, A [an eighth of the diameter]."),
        iterations: int = typer.Option(30, "--iterations", min=1, help="Most iterations after the seeding."),
        repeats: int = typer.Option(0, "--repeats", min=0, help="Further runs, for the stability of classes."),
        balance: float = typer.Option(
            6.0, "--balance", min=0.0, help="Largest prior that favours small classes, nats of log-likelihood."
        ),
        start: str = typer.Option("seeds", "--start", help="seeds, random, or split (hierarchical)."),
        mini_batch: int = typer.Option(None, "--mini-batch", min=0, help="Particles per iteration, 0 for all [auto]."),
        no_ctf: bool = typer.Option(False, "--no-ctf", help="The images have no CTF."),
        no_null: bool = typer.Option(False, "--no-null", help="No empty class for what noise explains."),
        memory: float = typer.Option(4.0, "--memory", help="Most memory for cached images and samples, GB."),
        stack: Path = typer.Option(None, "--stack", help="Image stack in place of the one the file names."),
        seed: int = typer.Option(0, "--seed", min=0, help="Seed."),
        device: str = typer.Option("cpu", "--device", help="cpu or cuda:0."),
        threads: int = typer.Option(None, "--threads", min=1, help="Threads [all]."),
        resume: bool = typer.Option(False, "--resume", help="Go on with the run in --out; fail if there is none."),
        as_json: bool = typer.Option(False, "--json", help="Print the summary as JSON."),
    ) -> None:
        """Sort particles into classes that show the same view, and average each.

        Writes averages.mrcs, classes.star, particles.star (class, pose, probability), classes.png, and classes.html,
        where classes can be ticked and the selection downloaded; it can be opened while the run goes on. Stopped, the
        same command goes on from the last iteration.
        """
        from verglas.run.class2d import Class2DJob, Class2DSettings, class2d_files

        with Screen() as screen:
            settings = Class2DSettings(
                n_classes=classes,
                diameter_A=diameter,
                max_resolution_A=max_resolution,
                shift_range_A=shift_range,
                iterations=iterations,
                balance=balance,
                start=start,
                null_class=not no_null,
                ctf=not no_ctf,
                mini_batch=mini_batch,
                seed=seed,
                memory_GB=memory,
                threads=threads,
                device=device,
                progress=phase_progress(screen, "particles of this iteration"),
                log=screen.say,
            )
            summary = class2d_files(Class2DJob(particles, out, settings, repeats, stack, resume))
        if as_json:
            typer.echo(json.dumps(summary.as_dict(), indent=1))
            return
        typer.echo(summary.classes.verdict)
        typer.echo(f"{len(summary.classes.particles)} particles, {classes} classes, {summary.seconds:.1f} s: {out}")
