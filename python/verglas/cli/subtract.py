"""``verglas subtract``: take signal outside a mask out of the images, or put it back."""

from __future__ import annotations

import json
from pathlib import Path

import typer

from verglas.cli.options import StackType


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command(
        epilog="Example: verglas subtract run1/particles.star --map run1/map.mrc --mask keep.mrc --out left.star"
    )
    def subtract(
        particles: Path = typer.Argument(..., help="Particles with poses: RELION STAR or cryoSPARC .cs."),
        out: Path = typer.Option(..., "--out", "-o", help="STAR file to write; the new stack lies beside it."),
        map: Path = typer.Option(None, "--map", help="Map on the images' grey scale (map.mrc of refine)."),
        mask: Path = typer.Option(None, "--mask", help="1 where the signal stays, 0 where it is taken away."),
        revert: bool = typer.Option(False, "--revert", help="Name the images again that were subtracted from."),
        no_scale: bool = typer.Option(False, "--no-scale", help="The map's grey scale for all particles."),
        box: int = typer.Option(
            None, "--box", min=8, help="Cut boxes of so many pixels about the middle of the mask [images as they are]."
        ),
        stack: Path = typer.Option(None, "--stack", help="Image stack in place of the one the file names."),
        dtype: StackType = typer.Option(StackType.FLOAT32, "--dtype", help="Of the new stack."),
        threads: int = typer.Option(None, "--threads", min=1, help="Threads [all]."),
        as_json: bool = typer.Option(False, "--json", help="Print the summary as JSON."),
    ) -> None:
        """Subtract the projections of what a map holds outside a mask, with each particle's CTF, pose and scale.

        Poses, shifts and all other columns stay, so that --revert, which puts the old images back, leaves every pose
        found since as it is. With --box the middle of the mask becomes that of smaller images and of the map; --revert
        gives back the origins of the whole.
        """
        from verglas.run.set_aside import set_aside_sentence
        from verglas.run.subtract import revert_files, subtract_files

        if revert:
            count = revert_files(particles, out)
            typer.echo(json.dumps({"particles": count, "out": str(out)}) if as_json else f"{count} particles: {out}")
            return
        if map is None or mask is None:
            raise typer.BadParameter("give --map and --mask, or --revert", param_hint="subtract")
        made = subtract_files(
            particles, out, map, mask, stack=stack, fit_scale=not no_scale, box=box, dtype=dtype.value, threads=threads
        )
        if as_json:
            typer.echo(json.dumps(made, indent=2))
            return
        if made["scales_at_bound"]:
            typer.echo(
                f"{made['scales_at_bound']} particles have a scale at its bound (0.2 or 3): is the map on the images' "
                "grey scale, and are the poses right?",
                err=True,
            )
        if made.get("set_aside"):
            typer.echo(set_aside_sentence(made["set_aside"]), err=True)
        if made.get("boxes_beyond_image"):
            typer.echo(
                f"{made['boxes_beyond_image']} boxes reach beyond their image and hold the mean of its border there",
                err=True,
            )
        typer.echo(f"{made['particles']} particles, scale {made['scale_mean']:.3f} +- {made['scale_sd']:.3f}: {out}")
