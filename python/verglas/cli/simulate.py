"""``verglas simulate``: particle images with a known answer."""

from __future__ import annotations

import enum
import json
from pathlib import Path
from typing import Annotated, Any

import typer

from verglas.cli.options import with_settings
from verglas.run.simulate import Imaging, describe, models_of, particles

_DIAMETER_A = 100.0  # of a phantom
_EXAMPLE = (
    "Example: verglas simulate --phantom C1 --diameter 100 --box 128 --pixel-size 1.5 --n 5000 --snr 0.05 "
    "--seed 0 --out sim"
)


class _Noise(str, enum.Enum):
    white = "white"
    coloured = "coloured"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog=_EXAMPLE)(simulate)


@with_settings(Imaging)
def simulate(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder to write (made if it does not exist).")],
    phantom: str = typer.Option(
        None, "--phantom", help="Protein-like model of this point group [C1], or a text file of bodies."
    ),
    model: Annotated[
        list[Path] | None, typer.Option(help="PDB or mmCIF file instead; again for further conformations.")
    ] = None,
    assembly: str = typer.Option("1", "--assembly", help="Biological assembly of the file; 'none' for its chains."),
    diameter: float = typer.Option(
        None, "--diameter", min=0, help="Diameter of the phantom, A.", show_default=f"{_DIAMETER_A:g}"
    ),
    hinge: float = typer.Option(None, "--hinge", help="Second conformation of the phantom: half turned, degrees."),
    box: int = typer.Option(128, "--box", min=8, help="Image side, pixels."),
    pixel_size: float = typer.Option(1.5, "--pixel-size", min=1e-3, help="Pixel size, A."),
    n: int = typer.Option(1000, "--n", min=1, help="Number of particles."),
    snr: float = typer.Option(0.05, "--snr", help="Signal / noise power over the whole box; inf for no noise."),
    noise: _Noise = typer.Option(_Noise.white, "--noise", help="Spectrum of the noise."),
    seed: int = typer.Option(0, "--seed", min=0, help="Seed of everything random."),
    hide_poses: bool = typer.Option(False, "--hide-poses", help="Poses and classes go to truth.star only."),
    threads: int = typer.Option(None, "--threads", min=1, help="Threads; all by default."),
    as_json: bool = typer.Option(False, "--json", help="Print JSON."),
    *,
    settings: dict[str, Any],
) -> None:
    """Simulate particles of a phantom or an atomic model: stack, STAR file with true poses, true map, picture."""
    _check(phantom, model, hinge, snr)
    bodies = Path(phantom) if phantom and Path(phantom).is_file() else None
    if bodies and hinge is not None:
        raise typer.BadParameter("a text file of bodies has no hinge", param_hint="--hinge")
    if bodies and diameter is not None:
        raise typer.BadParameter("a text file of bodies states its own sizes", param_hint="--diameter")
    if phantom and not bodies and ("." in phantom or "/" in phantom):
        raise typer.BadParameter(f"{phantom}: no such file, and no point group", param_hint="--phantom")
    models = models_of(
        model or bodies or phantom or "C1",
        box=box,
        pixel_size_A=pixel_size,
        diameter_A=_DIAMETER_A if diameter is None else diameter,
        seed=seed,
        hinge_deg=hinge,
        assembly=None if assembly.lower() == "none" else assembly,
    )
    if noise is _Noise.coloured:
        settings["noise_power"] = "coloured"
    how: dict[str, Any] = {"seed": seed, "hide_poses": hide_poses, "threads": threads, **settings}
    particles(models, n, box, pixel_size, snr, out, listener=None if as_json else "screen", **how)
    description = describe(out)
    typer.echo(json.dumps(description, indent=2) if as_json else description["text"])


def _check(phantom: str | None, model: list[Path] | None, hinge: float | None, snr: float) -> None:
    """Errors of usage, by the option's name."""
    if phantom and model:
        raise typer.BadParameter("give --phantom or --model, not both", param_hint="--model")
    if hinge is not None and model:
        raise typer.BadParameter("only with --phantom; give --model twice for conformations", param_hint="--hinge")
    if not snr > 0:
        raise typer.BadParameter(f"expected a positive number or inf, got {snr:g}", param_hint="--snr")
