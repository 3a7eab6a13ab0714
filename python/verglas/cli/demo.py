"""``verglas demo``: from simulated particles and a blurred start to a map and a page."""

from __future__ import annotations

import json

import typer


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command(epilog="Example: verglas demo --out demo --n 2000 --snr 0.1")
    def demo(
        out: str = typer.Option("demo", "--out", help="Folder to write (made if missing)."),
        n: int = typer.Option(2000, "--n", min=20, help="Number of particles."),
        box: int = typer.Option(96, "--box", min=24, help="Box side, pixels of 1.6 A; 80 or more hold the phantom."),
        snr: float = typer.Option(0.1, "--snr", help="Signal to noise, a ratio of variances over the whole box."),
        seed: int = typer.Option(0, "--seed", help="Seed of everything random."),
        device: str = typer.Option("cpu", "--device", help="cpu, cuda:0, cuda:0,cuda:1, or cuda for all."),
        threads: int | None = typer.Option(None, "--threads", min=1, help="Threads; all processors by default."),
        as_json: bool = typer.Option(False, "--json", help="Print JSON."),
    ) -> None:
        """Simulate particles, refine them from a map blurred to 40 A, and compare the result with the truth.

        Writes report.html, map.mrc, start.mrc, truth.mrc, particles.star, particles.mrcs, and refine/, the run folder
        of the refinement with its own page. A demonstration already in the folder is replaced.
        """
        from verglas.run.demo import DemoSettings
        from verglas.run.demo import demo as run

        if not snr > 0:
            raise typer.BadParameter(f"expected a positive number, got {snr:g}", param_hint="--snr")
        settings = DemoSettings(n=n, box=box, snr=snr, seed=seed, threads=threads, device=device)
        found = run(out, settings)
        told = found.summary()
        if as_json:
            typer.echo(json.dumps(told, indent=2))
            return
        typer.echo(f"resolution against the truth: {found.resolution_A:.2f} A (FSC = 0.5)")
        typer.echo(f"resolution between the half maps: {found.half_map_resolution_A:.2f} A (FSC = 0.143)")
        typer.echo(
            f"median error of poses: {told['median_angular_error_deg']:.2f} deg, {told['median_shift_error_A']:.2f} A"
        )
        typer.echo(f"open {told['report']} and {told['refinement_report']}")
