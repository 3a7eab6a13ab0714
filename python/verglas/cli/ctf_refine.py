"""``verglas ctf-refine``: defocus of particles and aberrations of optics groups."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import typer

from verglas.cli.options import with_settings
from verglas.run.ctf_refine import CtfRefineJob, CtfRefineSettings, ctf_refine_files
from verglas.run.ctf_refine_terms import WORDS, settings_of_words
from verglas.types.settings import settings_from


def register(app: typer.Typer) -> None:
    """Add the command."""
    example = "verglas ctf-refine run1/particles.star --even --symmetry O --out ctf1"
    app.command("ctf-refine", epilog=f"Example: {example}")(ctf_refine)


@with_settings(CtfRefineSettings)
def ctf_refine(
    particles: Path = typer.Argument(..., help="Particles with poses: RELION STAR."),
    out: Path = typer.Option(..., "--out", "-o", help="Folder to write."),
    half_maps: tuple[Path, Path] = typer.Option(
        None, "--half-maps", help="Maps of half sets 1 and 2 for the first round [reconstructed]."
    ),
    mask: Path = typer.Option(None, "--mask", help="Soft solvent mask, 0 to 1 [made from the maps]."),
    fit: str = typer.Option(
        None,
        "--fit",
        help=f"What to fit, and nothing else but what other options ask for: words of {', '.join(WORDS)}.",
    ),
    stack: Path = typer.Option(None, "--stack", help="Image stack in place of the one the file names."),
    resume: bool = typer.Option(False, "--resume", help="Go on with the job in --out; fail if there is none."),
    device: str = typer.Option("cpu", "--device", help="cpu or cuda:0."),
    threads: int = typer.Option(None, "--threads", min=1, help="Threads [all]."),
    as_json: bool = typer.Option(False, "--json", help="Print the summary as JSON."),
    *,
    settings: dict[str, Any],
) -> None:
    """Refine defocus and aberrations of particles against the other half's map, judged on held-out data.

    Writes particles.star (rlnDefocusU, V and Angle, rlnPhaseShift, rlnCtfBfactor, rlnBeamTiltX and Y, rlnOddZernike,
    rlnEvenZernike, rlnMagMat), half1.mrc, half2.mrc, ctf_refine.json and report.html. What held-out data do not gain by
    is not changed. After a stop or a kill the same command goes on from the last round that was finished.
    """
    words = settings_of_words(fit) if fit is not None else {}
    chosen = settings_from("ctf-refine", CtfRefineSettings, **(words | settings))
    job = CtfRefineJob(particles, out, half_maps or None, mask, stack, chosen, threads, resume, device)
    told = ctf_refine_files(job)
    if as_json:
        typer.echo(json.dumps(told, indent=2))
        return
    for number, made in enumerate(told["rounds"], 1):
        for one in made["fits"]:
            kept = "kept" if one["kept"] else "not kept"
            gain = f"{one['gain_nats']:+.1f} +- {one['gain_error_nats']:.1f} nats"
            typer.echo(f"round {number}: {one['what']}: held-out data gain {gain}: {kept}")
    typer.echo(f"{told['verdict']}; {told['particles']} particles, {told['seconds']} s: {out}/particles.star")
