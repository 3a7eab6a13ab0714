"""``verglas benchmark``: how quick this machine is, beside one whose results ship with the package."""

from __future__ import annotations

import json
from dataclasses import asdict

import typer


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command(epilog="Example: verglas benchmark --part processor --threads 8")
    def benchmark(
        part: list[str] = typer.Option(
            ["processor", "files", "gpu"], "--part", help="processor, files, gpu; again for more."
        ),
        repeats: int = typer.Option(20, "--repeats", min=1, help="Timed runs of each problem."),
        threads: int = typer.Option(1, "--threads", "-j", min=1, help="Threads; the reference has one."),
        as_json: bool = typer.Option(False, "--json", help="Print JSON."),
    ) -> None:
        """Time fixed small problems: kernels on the processor, reading and writing of files, kernels on GPUs.

        Times are milliseconds, the least of all runs; beside each stands that of the reference machine named above the
        table. Nothing else should run meanwhile. It takes half a minute.
        """
        from verglas.run.benchmark import benchmark as measure
        from verglas.run.benchmark import report
        from verglas.run.benchmark_reference import MACHINE

        machine, timings = measure(tuple(part), repeats=repeats, threads=threads)
        if as_json:
            rows = [asdict(one) | {"times_reference": one.times_reference} for one in timings]
            typer.echo(json.dumps({"machine": machine, "reference": MACHINE, "timings": rows}, indent=2))
        else:
            typer.echo(report(machine, timings))
