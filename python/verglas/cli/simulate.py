"""``verglas simulate``: particle images with a known answer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from verglas._screen import shown_to

_EXAMPLE = (
    "Example: verglas simulate --phantom C1 --diameter 100 --box 128 --pixel-size 1.5 --n 5000 --snr 0.05 "
    "--seed 0 --out sim"
)


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command(epilog=_EXAMPLE)
    def simulate(
        out: Annotated[Path, typer.Option("--out", "-o", help="Folder to write (made if it does not exist).")],
        phantom: str = typer.Option(None, "--phantom", help="Procedural protein-like model of this point group [C1]."),
        model: Annotated[
            list[Path] | None, typer.Option(help="PDB or mmCIF file instead; again for further conformations.")
        ] = None,
        assembly: str = typer.Option("1", "--assembly", help="Biological assembly of the file; 'none' for its chains."),
        diameter: float = typer.Option(100.0, "--diameter", min=0, help="Diameter of the phantom, A."),
        hinge: float = typer.Option(None, "--hinge", help="Second conformation of the phantom: half turned, degrees."),
        box: int = typer.Option(128, "--box", min=8, help="Image side, pixels."),
        pixel_size: float = typer.Option(1.5, "--pixel-size", min=1e-3, help="Pixel size, A."),
        n: int = typer.Option(1000, "--n", min=1, help="Number of particles."),
        snr: float = typer.Option(0.05, "--snr", help="Signal / noise power over the whole box; inf for no noise."),
        seed: int = typer.Option(0, "--seed", min=0, help="Seed of everything random."),
        defocus: tuple[float, float] = typer.Option((8000.0, 20000.0), "--defocus", help="Range of underfocus, A."),
        voltage: float = typer.Option(300.0, "--voltage", min=1, help="Voltage, kV."),
        cs: float = typer.Option(2.7, "--cs", min=0, help="Spherical aberration, mm."),
        amplitude_contrast: float = typer.Option(0.1, "--amplitude-contrast", min=0, max=1, help="A fraction."),
        ctf: bool = typer.Option(True, "--ctf/--no-ctf", help="Apply the CTF."),
        shift: float = typer.Option(3.0, "--shift", min=0, help="Standard deviation of the origins in x and y, A."),
        b_factor: float = typer.Option(0.0, "--b-factor", min=0, help="Envelope B of the signal, A^2."),
        preferred: float = typer.Option(0.0, "--preferred", min=0, help="Concentration of views about z; 0: uniform."),
        noise: str = typer.Option("white", "--noise", help="white or coloured."),
        optics_groups: int = typer.Option(1, "--optics-groups", min=1, help="Number of optics groups."),
        hide_poses: bool = typer.Option(False, "--hide-poses", help="Poses and classes go to truth.star only."),
        threads: int = typer.Option(None, "--threads", min=1, help="Threads; all by default."),
        as_json: bool = typer.Option(False, "--json", help="Print JSON."),
    ) -> None:
        """Simulate particles of a phantom or an atomic model: stack, STAR file with true poses, true map, picture."""
        from verglas.run.simulate import describe, models_of, particles

        _check(phantom, model, hinge, snr, defocus, noise)
        models = models_of(
            model or phantom or "C1",
            box=box,
            pixel_size_A=pixel_size,
            diameter_A=diameter,
            seed=seed,
            hinge_deg=hinge,
            assembly=None if assembly.lower() == "none" else assembly,
        )
        with shown_to(None if as_json else "screen") as listener:
            particles(
                models,
                n,
                box,
                pixel_size,
                snr,
                out,
                seed=seed,
                hide_poses=hide_poses,
                threads=threads,
                progress=listener.progress,
                voltage_kV=voltage,
                cs_mm=cs,
                amplitude_contrast=amplitude_contrast,
                ctf=ctf,
                defocus_A=defocus,
                shift_sd_A=shift,
                envelope_b_factor_A2=b_factor,
                concentration=preferred,
                optics_groups=optics_groups,
                noise_power="coloured" if noise == "coloured" else None,
            )
        found = describe(out)
        typer.echo(json.dumps(found, indent=2) if as_json else found["text"])


def _check(
    phantom: str | None,
    model: list[Path] | None,
    hinge: float | None,
    snr: float,
    defocus: tuple[float, float],
    noise: str,
) -> None:
    """Errors of usage, by the option's name."""
    if phantom and model:
        raise typer.BadParameter("give --phantom or --model, not both", param_hint="--model")
    if hinge is not None and model:
        raise typer.BadParameter("only with --phantom; give --model twice for conformations", param_hint="--hinge")
    if noise not in ("white", "coloured"):
        raise typer.BadParameter(f"expected white or coloured, got {noise!r}", param_hint="--noise")
    if not snr > 0:
        raise typer.BadParameter(f"expected a positive number or inf, got {snr:g}", param_hint="--snr")
    if defocus[0] > defocus[1]:
        raise typer.BadParameter("expected the smaller value first", param_hint="--defocus")
