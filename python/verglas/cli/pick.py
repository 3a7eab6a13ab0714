"""``verglas pick``: particles in micrographs."""

from __future__ import annotations

import json
from pathlib import Path

import typer

from verglas.cli.progress import say_set_aside, say_verdict, show_progress
from verglas.cli.usage import refuse_unless_positive


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command(epilog='Example: verglas pick "mics/*.tif" --pixel-size 1.5 --diameter 130 --out picks')
    def pick(
        micrographs: list[str] = typer.Argument(..., help="Patterns, folders, files, or a STAR file that names them."),
        diameter: float = typer.Option(..., "--diameter", "-d", help="Of the particle, A."),
        out: Path = typer.Option(..., "--out", "-o", help="Folder to write: picks.star, pictures/, report.html."),
        method: str = typer.Option(None, "--method", help="reference-free, log or template [reference-free]."),
        templates: Path = typer.Option(None, "--templates", help="Map, or class averages (.mrcs), particles white."),
        symmetry: str = typer.Option("C1", "--symmetry", "--sym", help="Point group of the map."),
        pixel_size: float = typer.Option(None, "--pixel-size", help="Of the micrographs, A [their headers']."),
        threshold: float = typer.Option(
            None, "--threshold", help="Least figure of merit, -1 to 1 [found in each micrograph]."
        ),
        distance: float = typer.Option(None, "--distance", help="Least distance of picks, A [0.7 diameters]."),
        edge: float = typer.Option(None, "--edge", help="Least distance from the edge, A [half a diameter]."),
        everywhere: bool = typer.Option(False, "--everywhere", help="Pick on carbon, ice and contaminants too."),
        white: bool = typer.Option(False, "--white", help="Particles are white in the micrographs."),
        ctf: Path = typer.Option(None, "--ctf", help="CTFs for the projections: STAR, or table with defocus_A."),
        voltage: float = typer.Option(None, "--voltage", help="Accelerating voltage, kV."),
        cs: float = typer.Option(None, "--cs", help="Spherical aberration, mm."),
        amplitude_contrast: float = typer.Option(None, "--amplitude-contrast", help="Fraction, as 0.07."),
        compare: Path = typer.Option(None, "--compare", help="Picks taken as the truth: .star, .cs, .box, .csv."),
        one_file: bool = typer.Option(False, "--one-file", help="All coordinates in picks.star, not a file each."),
        no_pictures: bool = typer.Option(False, "--no-pictures", help="Write no PNG per micrograph."),
        threads: int = typer.Option(None, "--threads", min=1, help="Micrographs at a time [all cores]."),
        as_json: bool = typer.Option(False, "--json", help="Print the summary as JSON."),
    ) -> None:
        """Find particles in micrographs: without a reference, as blobs, or by templates.

        Carbon, ice crystals and contaminants are left out, the threshold is found in each micrograph. report.html
        shows every micrograph with its picks and what to look at; verdict.json says whether to go on.
        """
        refuse_unless_positive({"--diameter": diameter, "--pixel-size": pixel_size, "--distance": distance}, "A")
        if threshold is not None and not -1 <= threshold <= 1:
            raise typer.BadParameter(
                f"expected a figure of merit, which is a correlation from -1 to 1, got {threshold:g}; without the "
                "option it is found in each micrograph",
                param_hint="--threshold",
            )
        from verglas.run.extract import Microscope
        from verglas.run.pick import PickJob, PickSettings, pick_files

        if method is None:
            method = "reference-free" if templates is None else "template"
        settings = PickSettings(method, threshold, distance, edge, not everywhere, white=white, symmetry=symmetry)
        microscope = Microscope(pixel_size, voltage, cs, amplitude_contrast)
        job = PickJob(
            micrographs,
            diameter,
            out,
            settings,
            microscope,
            ctf,
            templates,
            compare,
            not no_pictures,
            threads,
            one_file,
        )
        with show_progress("micrographs") as progress:
            summary = pick_files(job, progress)
        found = summary.as_dict()
        if as_json:
            typer.echo(json.dumps(found, indent=2))
            return
        typer.echo(
            f"{found['picks']} particles in {found['micrographs']} micrographs, "
            f"{found['seconds_per_micrograph']} s each: {out / 'picks.star'}, {out / 'report.html'}"
        )
        say_set_aside(summary.set_aside, out / "verdict.json")
        if "comparison" in found:
            merit = found["comparison"]
            auc = f", AUC {merit['auc']:.3f}" if "auc" in merit else ""
            line = f"precision {merit['precision']:.3f}, recall {merit['recall']:.3f}, F {merit['f_score']:.3f}{auc}"
            typer.echo(f"against {compare}: {line}")
        say_verdict(summary.verdict.state, summary.verdict.reasons)
