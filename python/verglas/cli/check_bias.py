"""``verglas check-bias``: what part of an alignment's result noise alone reproduces."""

from __future__ import annotations

import json
from pathlib import Path

import typer

from verglas.cli.progress import show_progress


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command("check-bias", epilog="Example: verglas check-bias particles.star --reference ref.mrc --diameter 150")
    def check_bias(
        particles: Path = typer.Argument(..., help="Particles: RELION STAR or cryoSPARC .cs."),
        reference: Path = typer.Option(..., "--reference", "--ref", help="Map, image or stack of images of their box."),
        diameter: float = typer.Option(None, "--diameter", help="Diameter of the mask, A [0.8 of the box]."),
        max_resolution: float = typer.Option(20.0, "--max-resolution", help="Finest data of the alignment, A."),
        shift_range: float = typer.Option(12.0, "--shift-range", help="Largest shift, A."),
        symmetry: str = typer.Option("C1", "--symmetry", "--sym", help="Point group of a map."),
        no_ctf: bool = typer.Option(False, "--no-ctf", help="The images have no CTF."),
        figure: Path = typer.Option(None, "--figure", help="PNG of the comparison."),
        out: Path = typer.Option(None, "--out", "-o", help="JSON file of the numbers."),
        stack: Path = typer.Option(None, "--stack", help="Image stack in place of the one the file names."),
        seed: int = typer.Option(0, "--seed", min=0, help="Seed of the noise."),
        device: str = typer.Option("cpu", "--device", help="cpu or cuda:0."),
        threads: int = typer.Option(None, "--threads", min=1, help="Threads [all]."),
        as_json: bool = typer.Option(False, "--json", help="Print JSON."),
    ) -> None:
        """Align noise images of the data's spectrum like the data, and compare the results.

        Aligning noise to a reference reproduces the reference. The share of the agreement that noise reaches, and
        whether data finer than the alignment used agree as well, tell evidence from bias.
        """
        from verglas.run.check_bias import CheckBiasJob, Class2DSettings, check_bias_files

        with show_progress("images aligned") as progress:
            settings = Class2DSettings(
                diameter_A=diameter,
                max_resolution_A=max_resolution,
                shift_range_A=shift_range,
                ctf=not no_ctf,
                seed=seed,
                threads=threads,
                device=device,
                progress=progress,
            )
            found, summary = check_bias_files(
                CheckBiasJob(particles, reference, settings, symmetry, figure, out, stack)
            )
        typer.echo(json.dumps(summary, indent=1) if as_json else found.verdict)
