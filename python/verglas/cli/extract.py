"""``verglas extract``: particles out of micrographs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import typer

from verglas.cli.options import with_settings
from verglas.cli.progress import exit_if_stop, say_verdict
from verglas.report.extract import boxes_in_words
from verglas.run.extract import ExtractOptions, ExtractSummary, extract_files
from verglas.types.settings import settings_from

_EXAMPLE = (
    'verglas extract "mics/*.tif" --picks picks.star --box 128 --pixel-size 1.5 --ctf ctf.tsv '
    "--voltage 300 --cs 0.01 --amplitude-contrast 0.07 --diameter 140 --out extracted"
)


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog=f"Example: {_EXAMPLE}")(extract)


@with_settings(ExtractOptions)
def extract(
    micrographs: list[str] = typer.Argument(..., help="Patterns, folders, files, or a STAR file that names them."),
    picks: list[Path] = typer.Option(..., "--picks", "-p", help="Coordinates: .star, .cs, .box, .csv, .tsv, .txt."),
    box: int = typer.Option(..., "--box", min=8, help="Side of the box, pixels of the micrograph."),
    out: Path = typer.Option(..., "--out", "-o", help="Folder to write: stacks/, particles.star, ..."),
    ctf: Path = typer.Option(None, "--ctf", help="CTFs of the micrographs: STAR, or table with defocus_A."),
    threads: int = typer.Option(None, "--threads", min=1, help="Micrographs at a time [all processors]."),
    as_json: bool = typer.Option(False, "--json", help="Print the summary as JSON."),
    *,
    settings: dict[str, Any],
) -> None:
    """Cut particles out of micrographs: crop, invert, normalise the background, scale down.

    Boxes that leave the micrograph and files that cannot be read are set aside and listed in excluded.csv;
    verdict.json says whether to go on.
    """
    chosen = settings_from("extract", ExtractOptions, **settings)
    summary = extract_files(micrographs, [*picks], box, chosen, out, ctf=ctf, threads=threads)
    if as_json:
        typer.echo(json.dumps(summary.as_dict(), indent=2))
    else:
        _tell(summary, out)
    exit_if_stop(summary.verdict.state)


def _tell(summary: ExtractSummary, out: Path) -> None:
    numbers = summary.as_dict()
    typer.echo(
        f"{numbers['particles']} of {numbers['coordinates']} particles extracted in {numbers['seconds']} s, "
        f"{boxes_in_words(numbers, 'A')}: {out / 'particles.star'}"
    )
    for reason, count in numbers["excluded"].items():
        typer.echo(f"set aside: {count}: {reason}")
    if summary.without_picks:
        typer.echo(f"micrographs without coordinates: {len(summary.without_picks)}")
    say_verdict(summary.verdict.state, summary.verdict.reasons)
