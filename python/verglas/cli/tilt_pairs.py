"""``verglas tilt-pairs``: maps from micrographs taken at two tilts, without a starting model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import typer

from verglas.cli.options import with_settings
from verglas.cli.usage import refuse_unless_positive
from verglas.run.extract_inputs import Microscope
from verglas.run.tilt_pairs import ConicalSettings, TiltPairsJob, tilt_pairs_files
from verglas.types.settings import settings_from

_EXAMPLE = (
    'verglas tilt-pairs "untilted/*.mrc" --tilted "tilted/*.mrc" --untilted-picks u.star --tilted-picks t.star '
    "--box 96 --pixel-size 4 --classes 4 --out rct"
)


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog=f"Example: {_EXAMPLE}")(tilt_pairs)


@with_settings(Microscope, parameter="microscope", leave_out=("pixel_size_A",))
@with_settings(ConicalSettings)
def tilt_pairs(
    untilted: list[str] = typer.Argument(..., help="Untilted micrographs: patterns, folders, files, or a STAR file."),
    tilted: list[str] = typer.Option(..., "--tilted", help="The same fields tilted; repeat for several."),
    untilted_picks: list[Path] = typer.Option(..., "--untilted-picks", help="Coordinates, any format of extract."),
    tilted_picks: list[Path] = typer.Option(..., "--tilted-picks", help="Coordinates in the tilted micrographs."),
    box: int = typer.Option(..., "--box", min=8, help="Side of the box, pixels of the micrograph."),
    out: Path = typer.Option(..., "--out", "-o", help="Folder to write: class_01.mrc, pairs.csv, report.html, ..."),
    pairs: Path = typer.Option(
        None, "--pairs", help="Which belong together: Xmipp .xmd, or .csv with untilted, tilted [both lists by name]."
    ),
    classes: int = typer.Option(1, "--classes", "-K", min=1, help="Classes of untilted particles, a map each."),
    least: int = typer.Option(10, "--least", min=3, help="Classes of fewer pairs give no map."),
    pixel_size: float = typer.Option(None, "--pixel-size", help="Of the micrographs, A [their headers']."),
    new_pixel_size: float = typer.Option(None, "--new-pixel-size", help="Scale particles down to this, A."),
    axis: float = typer.Option(0.0, "--axis", help="Direction of the tilt axis, roughly, degrees from y towards -x."),
    negative_tilt: bool = typer.Option(False, "--negative-tilt", help="Tilted the other way: mirrors the maps."),
    invert: bool = typer.Option(True, "--invert/--no-invert", help="Micrographs have dark particles."),
    untilted_ctf: Path = typer.Option(None, "--untilted-ctf", help="CTFs: STAR, or table with defocus_A."),
    tilted_ctf: Path = typer.Option(None, "--tilted-ctf", help="CTFs of the tilted micrographs."),
    merge: bool = typer.Option(True, "--merge/--no-merge", help="Also one map of all classes that agree."),
    defocus_gradient: str = typer.Option(
        "auto",
        "--defocus-gradient",
        help="Underfocus with height across tilted micrographs: positive, negative, none, or auto (asks the halves).",
    ),
    test_map: Path = typer.Option(None, "--map", help="Test this map by the pairs (polar plot); needs CTFs."),
    seed: int = typer.Option(0, "--seed", min=0, help="Seed of everything random."),
    threads: int = typer.Option(None, "--threads", min=1, help="Threads [all]."),
    as_json: bool = typer.Option(False, "--json", help="Print the summary as JSON."),
    *,
    settings: dict[str, Any],
    microscope: dict[str, Any],
) -> None:
    """Match the particles of tilt pairs, find tilt and axes, and reconstruct each class (random conical tilt)."""
    if defocus_gradient not in ("auto", "positive", "negative", "none"):
        raise typer.BadParameter("expected auto, positive, negative or none", param_hint="--defocus-gradient")
    refuse_unless_positive({"--pixel-size": pixel_size, "--new-pixel-size": new_pixel_size}, "A")
    job = TiltPairsJob(
        untilted,
        tilted,
        untilted_picks,
        tilted_picks,
        out,
        box,
        pairs,
        pixel_size,
        new_pixel_size,
        classes,
        least,
        axis,
        negative_tilt,
        invert,
        untilted_ctf,
        tilted_ctf,
        settings_from("tilt_pairs", Microscope, **microscope),
        test_map,
        merge,
        cast("Any", defocus_gradient),
        settings_from("conical_tilt", ConicalSettings, **settings),
        seed,
        threads,
    )
    summary = tilt_pairs_files(job)
    if as_json:
        typer.echo(json.dumps(summary, indent=2))
        return
    typer.echo(f"{summary['particle_pairs']} pairs of particles, {len(summary['micrograph_pairs'])} of micrographs")
    for one in summary.get("classes", ()):
        made = one["map"] or "too few for a map"
        typer.echo(f"class {one['class']}: {one['pairs']} pairs: {made}")
    if summary.get("merged", {}).get("map"):
        merged = summary["merged"]
        typer.echo(
            f"classes {', '.join(map(str, merged['classes']))} together: {merged['pairs']} pairs: {merged['map']}"
        )
    if "validation" in summary:
        typer.echo(summary["validation"]["verdict"])
    typer.echo(f"{out}/report.html")
