"""``verglas denoise``: micrographs to look at, from even and odd sums."""

from __future__ import annotations

import json
from pathlib import Path

import typer

from verglas.cli.progress import say_set_aside
from verglas.cli.usage import refuse_unless_positive


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog="Example: verglas denoise motion/micrographs --out denoised")(denoise)


def denoise(
    sums: list[Path] = typer.Argument(..., help="Folders of <name>_EVN.mrc and <name>_ODD.mrc, or these files."),
    out: Path = typer.Option(..., "--out", "-o", help="Folder to write: <name>_denoised.mrc, denoise.json."),
    working_pixel: float = typer.Option(6.0, "--working-pixel", help="Pixel that the network sees, A."),
    pixel_size: float = typer.Option(None, "--pixel-size", help="In place of the headers', A."),
    steps: int = typer.Option(200, "--steps", min=0, help="Steps of training for each micrograph; 0: Wiener filter."),
    seed: int = typer.Option(0, "--seed", min=0, help="Of the training."),
    threads: int = typer.Option(None, "--threads", min=1, help="Micrographs at a time [all processors]."),
    as_json: bool = typer.Option(False, "--json", help="Print the account as JSON."),
) -> None:
    """Take noise out of micrographs, for looking and for picking: nothing may be measured in the result.

    Of each micrograph two sums are needed, of its even and of its odd frames (verglas motion --even-odd). A small
    network that these two alone train learns to tell the one from the other, which leaves out what they do not share.
    The result has the sums' own pixels, so that coordinates picked on it fit; detail finer than the working pixel is
    left out. Particles must be extracted from the micrographs themselves.
    """
    refuse_unless_positive({"--working-pixel": working_pixel, "--pixel-size": pixel_size}, "A", finite=True)
    from verglas.run.denoise import DenoiseJob, DenoiseSettings, denoise_files

    job = DenoiseJob(sums, out, working_pixel, pixel_size, DenoiseSettings(steps=steps, seed=seed), threads)
    record = denoise_files(job)
    if as_json:
        typer.echo(json.dumps(record, indent=2))
        return
    made = record["micrographs"]
    agree = [sorted(one[name] for one in made.values()) for name in ("agreement", "agreement_filtered")]
    before, after = (values[len(values) // 2] for values in agree)
    typer.echo(f"{len(made)} micrographs denoised; the halves agree by {before:.3f}, filtered by {after:.3f} (median)")
    say_set_aside(record["set_aside"], out / "denoise.json")
    typer.echo(f"{out}: for display and picking only")
