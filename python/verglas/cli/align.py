"""``verglas align``: poses of particles against a map."""

from __future__ import annotations

import json
from pathlib import Path

import typer

from verglas._screen import Screen
from verglas.cli.usage import refuse_unless_positive
from verglas.types.listener import phase_progress


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command(epilog="Example: verglas align particles.star --reference map.mrc --diameter 140 --out aligned.star")
    def align(
        particles: Path = typer.Argument(..., help="Particles: RELION STAR or cryoSPARC .cs."),
        reference: Path = typer.Option(..., "--reference", "--ref", help="Map of the same box and pixel size."),
        out: Path = typer.Option(..., "--out", "-o", help="STAR file to write, with poses."),
        symmetry: str = typer.Option("C1", "--symmetry", "--sym", help="Point group of the map."),
        diameter: float = typer.Option(None, "--diameter", help="Diameter of the particle, A [0.8 of the box]."),
        max_resolution: float = typer.Option(None, "--max-resolution", help="Finest data used, A [Nyquist]."),
        step: float = typer.Option(7.5, "--step", help="Angular step at the end of the search, degrees."),
        shift_range: float = typer.Option(12.0, "--shift-range", help="Largest shift searched, A."),
        search_resolution: float = typer.Option(
            None, "--search-resolution", help="Finest data used in the search, A [what the step can resolve]."
        ),
        exhaustive: bool = typer.Option(False, "--exhaustive", help="Score every pose of a fine grid; very slow."),
        on_grid: bool = typer.Option(False, "--on-grid", help="Leave poses on the search grid."),
        stack: Path = typer.Option(None, "--stack", help="Image stack in place of the one the file names."),
        device: str = typer.Option("cpu", "--device", help="cpu, cuda:0, cuda:0,cuda:1, or cuda for all."),
        threads: int = typer.Option(None, "--threads", min=1, help="Threads [all]."),
        as_json: bool = typer.Option(False, "--json", help="Print the summary as JSON."),
    ) -> None:
        """Find the poses of particles by a global search against a map.

        Every direction, in-plane angle and shift is scored; the best is then refined on the exact likelihood. A step of
        3.75 degrees or less is reached by branch and bound: slower than the default, and surer where signal is weak.
        """
        refuse_unless_positive(
            {
                "--step": step,
                "--shift-range": shift_range,
                "--diameter": diameter,
                "--search-resolution": search_resolution,
            }
        )
        from verglas.run.align import AlignJob, AlignSettings, align_files

        with Screen() as screen:
            settings = AlignSettings(
                symmetry,
                max_resolution,
                diameter,
                step,
                shift_range,
                not on_grid,
                search_resolution,
                threads=threads,
                progress=phase_progress(screen, "particles searched"),
                exhaustive=exhaustive,
                device=device,
            )
            job = AlignJob(particles, reference, out, settings, stack)
            summary = align_files(job, say=screen.say)
        found = summary.as_dict()
        if as_json:
            typer.echo(json.dumps(found, indent=2))
            return
        typer.echo(
            f"{found['particles_aligned']} of {found['particles_read']} particles aligned in {found['seconds']} s "
            f"({found['particles_per_second']} per second); median probability of the best pose "
            f"{found['median_max_probability']:.2f}: {out}"
        )
