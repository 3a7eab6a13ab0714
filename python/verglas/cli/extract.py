"""``verglas extract``: particles out of micrographs."""

from __future__ import annotations

import json
from pathlib import Path

import typer

from verglas.cli.progress import say_verdict, show_progress
from verglas.cli.usage import refuse_unless_positive


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command(
        epilog='Example: verglas extract "mics/*.tif" --picks picks.star --box 128 --pixel-size 1.5 --ctf ctf.tsv '
        "--voltage 300 --cs 0.01 --amplitude-contrast 0.07 --diameter 140 --out extracted"
    )
    def extract(
        micrographs: list[str] = typer.Argument(..., help="Patterns, folders, files, or a STAR file that names them."),
        picks: list[Path] = typer.Option(..., "--picks", "-p", help="Coordinates: .star, .cs, .box, .csv, .tsv, .txt."),
        box: int = typer.Option(..., "--box", min=8, help="Side of the box, pixels of the micrograph."),
        out: Path = typer.Option(..., "--out", "-o", help="Folder to write: stacks/, particles.star, ..."),
        pixel_size: float = typer.Option(None, "--pixel-size", help="Of the micrographs, A [their headers']."),
        diameter: float = typer.Option(None, "--diameter", help="Of the particle, A; outside is background."),
        ctf: Path = typer.Option(None, "--ctf", help="CTFs of the micrographs: STAR, or table with defocus_A."),
        voltage: float = typer.Option(None, "--voltage", help="Accelerating voltage, kV."),
        cs: float = typer.Option(None, "--cs", help="Spherical aberration, mm."),
        amplitude_contrast: float = typer.Option(None, "--amplitude-contrast", help="Fraction, as 0.07."),
        new_pixel_size: float = typer.Option(None, "--new-pixel-size", help="Scale the images down to this, A."),
        new_box: int = typer.Option(None, "--new-box", min=8, help="Side of the scaled images, pixels."),
        flip_y: bool = typer.Option(False, "--flip-y", help="Count y from the last row (RELION on TIFF)."),
        keep_centres: bool = typer.Option(False, "--keep-centres", help="Ignore the shifts of refined particles."),
        no_invert: bool = typer.Option(False, "--no-invert", help="Micrographs have white particles already."),
        no_ramp: bool = typer.Option(False, "--no-ramp", help="Subtract the background's mean, not its gradient."),
        fill_edges: bool = typer.Option(False, "--fill-edges", help="Keep boxes that leave the micrograph."),
        float16: bool = typer.Option(False, "--float16", help="Store half the bytes."),
        threads: int = typer.Option(None, "--threads", min=1, help="Threads [all]."),
        as_json: bool = typer.Option(False, "--json", help="Print the summary as JSON."),
    ) -> None:
        """Cut particles out of micrographs: crop, invert, normalise the background, scale down.

        Boxes that leave the micrograph and files that cannot be read are set aside and listed in excluded.csv;
        verdict.json says whether to go on.
        """
        refuse_unless_positive({"--pixel-size": pixel_size, "--diameter": diameter, "--new-pixel-size": new_pixel_size})
        from verglas.run.extract import ExtractOptions, extract_files

        options = ExtractOptions(
            pixel_size_A=pixel_size,
            voltage_kV=voltage,
            cs_mm=cs,
            amplitude_contrast=amplitude_contrast,
            new_pixel_size_A=new_pixel_size,
            new_box=new_box,
            diameter_A=diameter,
            invert=not no_invert,
            ramp=not no_ramp,
            edge="fill" if fill_edges else "exclude",
            ctf=ctf,
            flip_y=flip_y,
            recentre=not keep_centres,
            dtype="float16" if float16 else "float32",
            threads=threads,
        )
        with show_progress("micrographs") as progress:
            summary = extract_files(micrographs, [*picks], box, options, out, progress)
        found = summary.as_dict()
        if as_json:
            typer.echo(json.dumps(found, indent=2))
            return
        typer.echo(
            f"{found['particles']} of {found['coordinates']} particles extracted in {found['seconds']} s, "
            f"{found['box']} px of {found['pixel_size_A']:g} A: {out / 'particles.star'}"
        )
        for reason, count in found["excluded"].items():
            typer.echo(f"set aside: {count}: {reason}")
        if summary.without_picks:
            typer.echo(f"micrographs without coordinates: {len(summary.without_picks)}")
        say_verdict(summary.verdict.state, summary.verdict.reasons)
