"""``verglas ctf``: defocus and astigmatism of micrographs."""

from __future__ import annotations

import json
from pathlib import Path

import typer

from verglas.cli.progress import say_set_aside, say_verdict, show_progress
from verglas.cli.usage import refuse_unless_positive


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command(
        epilog='Example: verglas ctf "mics/*.tif" --pixel-size 1.5 --voltage 300 --cs 0.01 --amplitude-contrast 0.07 '
        "--out ctf"
    )
    def ctf(
        micrographs: list[str] = typer.Argument(..., help="Patterns, folders, files, or a STAR file that names them."),
        out: Path = typer.Option(..., "--out", "-o", help="Folder to write: STAR file, ctf.csv, png/, report.html."),
        pixel_size: float = typer.Option(None, "--pixel-size", help="Of the micrographs, A [their headers']."),
        voltage: float = typer.Option(None, "--voltage", help="Accelerating voltage, kV [300]."),
        cs: float = typer.Option(None, "--cs", help="Spherical aberration, mm [2.7]."),
        amplitude_contrast: float = typer.Option(None, "--amplitude-contrast", help="Fraction [0.1]."),
        defocus: tuple[float, float] = typer.Option((3000.0, 40000.0), "--defocus", help="Range of underfocus, A."),
        astigmatism: float = typer.Option(2000.0, "--astigmatism", help="Largest difference of the two defoci, A."),
        resolution: tuple[float, float] = typer.Option((20.0, 4.0), "--resolution", help="Band of the fit, A."),
        phase_shift: tuple[float, float] = typer.Option(None, "--phase-shift", help="Range to search, degrees [none]."),
        tilt: bool = typer.Option(False, "--tilt", help="Fit the plane of a tilted specimen."),
        no_pictures: bool = typer.Option(False, "--no-pictures", help="Write no PNG files."),
        threads: int = typer.Option(None, "--threads", min=1, help="Micrographs at a time [all processors]."),
        as_json: bool = typer.Option(False, "--json", help="Print the summary and all fits as JSON."),
    ) -> None:
        """Estimate the CTF of micrographs from their Thon rings.

        Micrographs without rings, and files that cannot be read, are set aside with the reason in ctf.csv.
        """
        refuse_unless_positive({"--pixel-size": pixel_size, "--voltage": voltage})
        from verglas.run.ctf import CtfJob, ctf_files, settings_of

        settings, given = settings_of(
            voltage_kV=voltage,
            cs_mm=cs,
            amplitude_contrast=amplitude_contrast,
            defocus_A=tuple(defocus),
            astigmatism_A=astigmatism,
            resolution_A=tuple(resolution),
            phase_shift_deg=phase_shift,
            tilt=tilt,
        )
        with show_progress("micrographs") as progress:
            job = CtfJob(micrographs, out, settings, pixel_size, not no_pictures, threads, given)
            summary = ctf_files(job, progress)
        found = summary.as_dict()
        if as_json:
            typer.echo(json.dumps(found, indent=2))
            return
        typer.echo(
            f"{found['good']} of {found['micrographs']} micrographs fitted in {found['seconds']} s, rings to "
            f"{found['median_resolution_A']:.1f} A in the median: {out / 'micrographs_ctf.star'}"
            + ("" if no_pictures else f", {out / 'report.html'}")
        )
        for name, flags in found["flagged"].items():
            typer.echo(f"look at {name}: {flags}")
        aside = summary.table[summary.table["reason"] != ""]
        say_set_aside(dict(zip(aside["micrograph"], aside["reason"], strict=True)), out / "ctf.csv")
        say_verdict(summary.verdict.state, summary.verdict.reasons)
