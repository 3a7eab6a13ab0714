"""``verglas reconstruct``: a map from particles with known poses."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import typer

from verglas._screen import Screen
from verglas.types.listener import phase_progress


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command(epilog="Example: verglas reconstruct particles.star --out map.mrc --symmetry O --halves")
    def reconstruct(
        particles: Path = typer.Argument(..., help="Particles with poses: RELION STAR or cryoSPARC .cs."),
        out: Path = typer.Option(..., "--out", "-o", help="Map to write; half maps go beside it."),
        symmetry: str = typer.Option("C1", "--symmetry", "--sym", help="Point group: C1, C4, D2, T, O, I1 ..."),
        max_resolution: float = typer.Option(None, "--max-resolution", help="Use data to this resolution only, A."),
        halves: bool = typer.Option(False, "--halves", help="Also make half maps and their FSC."),
        wiener: bool = typer.Option(False, "--wiener", help="Weight the map by the SSNR of the half maps."),
        method: str = typer.Option("direct", "--method", help="direct, least-squares or gridding."),
        iterations: int = typer.Option(None, "--iterations", min=1, help="At most; 30 (least-squares), 10 (gridding)."),
        no_ctf: bool = typer.Option(False, "--no-ctf", help="Take every CTF as 1."),
        stack: Path = typer.Option(None, "--stack", help="Image stack in place of the one the file names."),
        device: str = typer.Option("cpu", "--device", help="cpu, cuda:0, cuda:0,cuda:1, or cuda for all."),
        threads: int = typer.Option(None, "--threads", min=1, help="Threads [all]."),
        as_json: bool = typer.Option(False, "--json", help="Print the summary as JSON."),
    ) -> None:
        """Reconstruct a map from particles whose poses are known.

        direct divides on the grid; least-squares solves the exact normal equations, for little noise or few views.
        """
        if method not in ("least-squares", "direct", "gridding"):
            raise typer.BadParameter(f"expected least-squares, direct or gridding, got {method}", param_hint="--method")
        if max_resolution is not None and not max_resolution > 0:
            raise typer.BadParameter(
                f"expected a positive number of A, got {max_resolution:g}", param_hint="--max-resolution"
            )
        from verglas.run.reconstruct import Method, ReconstructJob, reconstruct_files

        how = Method(method, iterations, not no_ctf, threads=threads, device=device)  # type: ignore[arg-type]
        job = ReconstructJob(particles, out, symmetry, max_resolution, halves, wiener, how, stack)
        with Screen() as screen:
            summary = reconstruct_files(job, phase_progress(screen, "particles inserted"), say=screen.say)
        if as_json:
            typer.echo(json.dumps(summary.as_dict(), indent=2))
            return
        for number, reason in list(summary.result.excluded.items())[:20]:
            print(f"set aside: particle {number}: {reason}", file=sys.stderr)
        if summary.result.excluded:
            print(f"{len(summary.result.excluded)} particles set aside", file=sys.stderr)
        typer.echo(f"{summary.result.used} particles, {summary.seconds:.1f} s: {', '.join(map(str, summary.files))}")
        if summary.fsc is not None:
            resolution = summary.fsc.resolution_A(0.143)
            text = f"{resolution:.2f} A" if math.isfinite(resolution) else "none"
            typer.echo(f"resolution between the half maps, FSC 0.143, unmasked: {text}")
