"""``verglas abinitio``: a first map from particles alone."""

from __future__ import annotations

import json
from pathlib import Path

import typer

from verglas._screen import Screen


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command(epilog="Example: verglas abinitio particles.star --diameter 140 --starts 3 --out init")
    def abinitio(
        particles: Path = typer.Argument(..., help="Particles or class averages: RELION STAR or cryoSPARC .cs."),
        out: Path = typer.Option(..., "--out", "-o", help="Folder to write."),
        symmetry: str = typer.Option("C1", "--symmetry", "--sym", help="Point group, imposed from the start; or auto."),
        diameter: float = typer.Option(None, "--diameter", help="Diameter of the particle, A [0.8 of the box]."),
        classes: int = typer.Option(1, "--classes", "-k", min=1, help="Maps made at once."),
        starts: int = typer.Option(3, "--starts", min=1, help="Random starts; one cannot be confirmed."),
        most_starts: int = typer.Option(None, "--most-starts", min=1, help="More while none agree, at most [8]."),
        initial_resolution: float = typer.Option(40.0, "--initial-resolution", help="Data used at first, A."),
        final_resolution: float = typer.Option(12.0, "--final-resolution", help="Data used at the end, A."),
        iterations: int = typer.Option(30, "--iterations", min=1, help="Mini-batches per start."),
        first_batch: int = typer.Option(100, "--first-batch", min=1, help="Particles of the first mini-batch."),
        shift_range: float = typer.Option(10.0, "--shift-range", help="Largest shift searched, A, once centred."),
        max_particles: int = typer.Option(20000, "--max-particles", min=1, help="Particles drawn to learn from."),
        method: str = typer.Option("em", "--method", help="em, hill-climbing, or common-lines for averages."),
        flip_hand: bool = typer.Option(False, "--flip-hand", help="Write the mirror image and its poses."),
        stack: Path = typer.Option(None, "--stack", help="Image stack in place of the one the file names."),
        seed: int = typer.Option(0, "--seed", min=0, help="Seed of everything random."),
        device: str = typer.Option("cpu", "--device", help="cpu or cuda:0."),
        threads: int = typer.Option(None, "--threads", min=1, help="Threads [all]."),
        resume: bool = typer.Option(False, "--resume", help="Go on with the run in --out; fail if there is none."),
        as_json: bool = typer.Option(False, "--json", help="Print the summary as JSON."),
    ) -> None:
        """Make a first map without a reference, from several random starts, with a verdict on it.

        Writes map.mrc (map_class1.mrc, ...), particles.star with poses, abinitio.json and report.html, which can be
        opened while the run goes on. Stopped, the same command goes on from the last checkpoint.
        """
        positive = {
            "--diameter": diameter,
            "--initial-resolution": initial_resolution,
            "--final-resolution": final_resolution,
            "--shift-range": shift_range,
        }
        for name, value in positive.items():
            if value is not None and not value > 0:
                raise typer.BadParameter(f"expected a positive number, got {value:g}", param_hint=name)
        if method not in ("em", "hill-climbing", "common-lines"):
            raise typer.BadParameter(
                f"expected em, hill-climbing or common-lines, got {method!r}", param_hint="--method"
            )
        if method == "common-lines":
            from verglas.run.common_lines import CommonLinesJob, common_lines_files

            made = common_lines_files(
                CommonLinesJob(particles, out, diameter, final_resolution, symmetry, mirror=flip_hand, threads=threads)
            )
            typer.echo(json.dumps(made.as_dict(), indent=2) if as_json else f"{made.sentence} {out}/map.mrc")
            return
        from verglas.run.abinitio import abinitio_files

        with Screen() as screen:
            found = abinitio_files(
                particles,
                symmetry,
                diameter,
                stack=stack,
                classes=classes,
                starts=starts,
                most_starts=most_starts,
                out=out,
                mirror=flip_hand,
                resume=resume,
                device=device,
                progress=screen.progress,
                say=screen.say,
                initial_resolution_A=initial_resolution,
                final_resolution_A=final_resolution,
                iterations=iterations,
                first_batch=first_batch,
                shift_range_A=shift_range,
                max_particles=max_particles,
                method=method,
                seed=seed,
                threads=threads,
            )
        if as_json:
            typer.echo(json.dumps(found.summary(), indent=2))
            return
        symmetry_said = "" if found.symmetry is None else f" {found.symmetry.sentence}"
        typer.echo(f"{found.verdict.sentence}{symmetry_said} {found.seconds:.0f} s: {out}/report.html")
