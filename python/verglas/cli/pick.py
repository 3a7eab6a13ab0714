"""``verglas pick``: particles in micrographs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import typer

from verglas.cli.options import with_settings
from verglas.cli.progress import exit_if_stop, say_set_aside, say_verdict
from verglas.cli.usage import refuse_unless_positive
from verglas.run.extract import Microscope
from verglas.run.pick import FilamentSettings, PickJob, PickSettings, PickSummary, pick_files
from verglas.types.settings import settings_from


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        epilog='Examples: verglas pick "mics/*.tif" --pixel-size 1.5 --diameter 130 --out picks | '
        'verglas pick "mics/*.mrc" --diameter 100 --filaments --spacing 50 --out tubes'
    )(pick)


@with_settings(Microscope, parameter="microscope")
@with_settings(PickSettings)
def pick(
    micrographs: list[str] = typer.Argument(..., help="Patterns, folders, files, or a STAR file that names them."),
    diameter: float = typer.Option(..., "--diameter", "-d", help="Of the particle, A."),
    out: Path = typer.Option(..., "--out", "-o", help="Folder to write: picks.star, pictures/, report.html."),
    templates: Path = typer.Option(None, "--templates", help="Map, or class averages (.mrcs), particles white."),
    examples: Path = typer.Option(
        None,
        "--examples",
        help="Coordinates of 15 or more particles on some micrographs, to teach a method by features [invariants].",
    ),
    filaments: bool = typer.Option(
        False, "--filaments", help="Trace filaments, --diameter wide, and place segments along them."
    ),
    spacing: float = typer.Option(None, "--spacing", help="Of segments along a filament, A [half its width]."),
    shortest: float = typer.Option(None, "--shortest", help="Filament that is kept, A [six widths]."),
    ctf: Path = typer.Option(None, "--ctf", help="CTFs for the projections: STAR, or table with defocus_A."),
    compare: Path = typer.Option(None, "--compare", help="Picks taken as the truth: .star, .cs, .box, .csv."),
    leave_out: Path = typer.Option(
        None, "--leave-out", help="left_out.star of `verglas serve`: areas drawn by hand in which nothing is picked."
    ),
    weights: Path = typer.Option(None, "--weights", help="Of --method learned: .safetensors [those of verglas]."),
    fine_tune: str = typer.Option(
        None, "--fine-tune", help="Train the network further before picking: 15 or more clicks (.star), or `consensus`."
    ),
    clicks_complete: bool = typer.Option(
        False, "--clicks-complete", help="With --fine-tune: no particle of the clicked micrographs is left out."
    ),
    one_file: bool = typer.Option(False, "--one-file", help="All coordinates in picks.star, not a file each."),
    no_pictures: bool = typer.Option(False, "--no-pictures", help="Write no picture per micrograph."),
    threads: int = typer.Option(None, "--threads", min=1, help="Micrographs at a time [all processors]."),
    as_json: bool = typer.Option(False, "--json", help="Print the summary as JSON."),
    *,
    settings: dict[str, Any],
    microscope: dict[str, Any],
) -> None:
    """Find particles in micrographs: without a reference, as blobs, by templates, or by a few examples.

    Carbon, ice crystals and contaminants are left out, the threshold is found in each micrograph. report.html
    shows every micrograph with its picks and what to look at; verdict.json says whether to go on. Exit status 1 where
    most micrographs give no picks that can be relied on.
    """
    lengths = {"--diameter": diameter, "--spacing": spacing, "--shortest": shortest}
    refuse_unless_positive({flag: value for flag, value in lengths.items() if value is not None}, "A")
    if filaments and (templates is not None or examples is not None or "method" in settings):
        raise typer.BadParameter("goes without --method, --templates and --examples", param_hint="--filaments")
    if not filaments and (spacing is not None or shortest is not None):
        raise typer.BadParameter("goes with --filaments", param_hint="--spacing, --shortest")
    if templates is not None:
        settings = {"method": "template", **settings}
    if examples is not None:
        settings = {"method": "invariants", **settings}
    job = PickJob(
        micrographs,
        diameter,
        out,
        settings_from("pick", PickSettings, **settings),
        settings_from("pick", Microscope, **microscope),
        ctf,
        templates,
        compare,
        not no_pictures,
        threads,
        one_file,
        leave_out,
        examples,
        _filament_settings(settings, spacing, shortest) if filaments else None,
        weights,
        fine_tune,
        clicks_complete,
    )
    summary = pick_files(job)
    if as_json:
        typer.echo(json.dumps(summary.as_dict(), indent=2))
    else:
        _tell(summary, job)
    exit_if_stop(summary.verdict.state)


def _tell(summary: PickSummary, job: PickJob) -> None:
    numbers, out, what = summary.as_dict(), job.out, "particles" if job.filaments is None else "segments"
    typer.echo(
        f"{numbers['picks']} {what} in {numbers['micrographs']} micrographs, "
        f"{numbers['seconds_per_micrograph']} s each: {out / 'picks.star'}, {out / 'report.html'}"
    )
    say_set_aside(summary.set_aside, out / "verdict.json")
    if "comparison" in numbers:
        merit = numbers["comparison"]
        auc = f", AUC {merit['auc']:.3f}" if "auc" in merit else ""
        line = f"precision {merit['precision']:.3f}, recall {merit['recall']:.3f}, F {merit['f_score']:.3f}{auc}"
        typer.echo(f"against {job.compare}: {line}")
    say_verdict(summary.verdict.state, summary.verdict.reasons)


def _filament_settings(settings: dict[str, Any], spacing: float | None, shortest: float | None) -> FilamentSettings:
    """Those of picking that filaments share, and their own."""
    shared = {name: settings[name] for name in ("border_A", "exclude", "white") if name in settings}
    return settings_from("pick", FilamentSettings, spacing_A=spacing, shortest_A=shortest, **shared)
