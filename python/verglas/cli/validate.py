"""``verglas validate``: go on, warn or stop for every question that a finished run has to answer."""

from __future__ import annotations

import json
from pathlib import Path

import typer

from verglas.cli.progress import exit_if_stop
from verglas.run.validate import questions_not_asked, validate


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command("validate", epilog="Example: verglas validate refine1")
    def validate_run(
        run: Path = typer.Argument(..., help="Folder of a refinement that has finished."),
        out: Path = typer.Option(None, "--out", "-o", help="Folder to write [the run's]."),
        alignability: int = typer.Option(
            0, "--alignability", min=0, help="Particles whose orientation is searched for in the other half's map."
        ),
        refine_again: bool = typer.Option(
            False, "--refine-again", help="Refine the half sets again, apart, and compare: takes a refinement's time."
        ),
        aligned_noise: int = typer.Option(
            0, "--aligned-noise", min=0, help="Images of noise aligned to the map, compared with as many particles."
        ),
        threads: int = typer.Option(None, "--threads", min=1, help="Threads [all]."),
        as_json: bool = typer.Option(False, "--json", help="Print the verdict as JSON."),
    ) -> None:
        """Ask whether half maps are independent and hold signal, whether the mask makes it, whether directions differ.

        Writes validate.json and validate.html, with what the run itself found. Exit status 1 on "stop".
        """
        verdict = validate(
            run,
            out,
            alignability=alignability,
            refine_again=refine_again,
            aligned_noise=aligned_noise,
            threads=threads,
        )
        if as_json:
            typer.echo(json.dumps({**verdict.as_dict(), "not_asked": questions_not_asked(verdict)}, indent=2))
        else:
            for finding in verdict.findings:
                typer.echo(f"{finding.state:<6} {finding.sentence}")
            for code, reason in questions_not_asked(verdict).items():
                typer.echo(f"{code} was not asked: {reason}")
            typer.echo(f"{verdict.state}: {(out or run) / 'validate.html'}")
        exit_if_stop(verdict.state)
