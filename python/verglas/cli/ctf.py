"""``verglas ctf``: defocus and astigmatism of micrographs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import typer

from verglas.cli.options import with_settings
from verglas.cli.progress import exit_if_stop, say_set_aside, say_verdict
from verglas.cli.usage import refuse_unless_positive
from verglas.run.ctf import CtfJob, CtfSettings, CtfSummary, ctf_files
from verglas.types.settings import settings_from

_EXAMPLE = 'verglas ctf "mics/*.tif" --pixel-size 1.5 --voltage 300 --cs 0.01 --amplitude-contrast 0.07 --out ctf'


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog=f"Example: {_EXAMPLE}")(ctf)


@with_settings(CtfSettings)
def ctf(
    micrographs: list[str] = typer.Argument(..., help="Patterns, folders, files, or a STAR file that names them."),
    out: Path = typer.Option(..., "--out", "-o", help="Folder to write: STAR file, ctf.csv, png/, report.html."),
    pixel_size: float = typer.Option(None, "--pixel-size", help="Of the micrographs, A [their headers']."),
    no_pictures: bool = typer.Option(False, "--no-pictures", help="Write no PNG files."),
    threads: int = typer.Option(None, "--threads", min=1, help="Micrographs at a time [all processors]."),
    as_json: bool = typer.Option(False, "--json", help="Print the summary and all fits as JSON."),
    *,
    settings: dict[str, Any],
) -> None:
    """Estimate the CTF of micrographs from their Thon rings.

    Micrographs without rings, and files that cannot be read, are set aside with the reason in ctf.csv. Voltage, Cs and
    amplitude contrast that a STAR file states take the place of defaults, not of what is given here. Exit status 1
    where most micrographs are set aside.
    """
    refuse_unless_positive({"--pixel-size": pixel_size})
    chosen = settings_from("ctf", CtfSettings, **settings)
    summary = ctf_files(CtfJob(micrographs, out, chosen, pixel_size, not no_pictures, threads, tuple(settings)))
    if as_json:
        typer.echo(json.dumps(summary.as_dict(), indent=2))
    else:
        _tell(summary, out, not no_pictures)
    exit_if_stop(summary.verdict.state)


def _tell(summary: CtfSummary, out: Path, pictures: bool) -> None:
    numbers = summary.as_dict()
    typer.echo(
        f"{numbers['good']} of {numbers['micrographs']} micrographs fitted in {numbers['seconds']} s, rings to "
        f"{numbers['median_resolution_A']:.1f} A in the median: {out / 'micrographs_ctf.star'}"
        + (f", {out / 'report.html'}" if pictures else "")
    )
    for name, flags in numbers["flagged"].items():
        typer.echo(f"look at {name}: {flags}")
    aside = summary.table[summary.table["reason"] != ""]
    say_set_aside(dict(zip(aside["micrograph"], aside["reason"], strict=True)), out / "ctf.csv")
    say_verdict(summary.verdict.state, summary.verdict.reasons)
