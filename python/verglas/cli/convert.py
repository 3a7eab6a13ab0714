"""``verglas convert``: particles between STAR and CS, coordinates to STAR, maps between types and compressions."""

from __future__ import annotations

import json
from pathlib import Path

import typer

from verglas.errors import InputError


def _prefixes(pairs: list[str]) -> dict[str, str]:
    mapping = {}
    for pair in pairs:
        old, equals, new = pair.partition("=")
        if not equals:
            raise typer.BadParameter(f"{pair!r}: expected OLD=NEW", param_hint="--map-prefix")
        mapping[old] = new
    return mapping


def register(app: typer.Typer) -> None:
    """Add the command."""

    @app.command(
        epilog="Examples: verglas convert J24/particles.cs particles.star --passthrough J24/passthrough_particles.cs | "
        "verglas convert particles.star particles.cs | verglas convert map.mrc map.mrc.gz | "
        "verglas convert CBOX/ picks.star"
    )
    def convert(
        source: Path = typer.Argument(
            help="What to read: .star, .cs or .par; .mrc, .map, .ccp4 (.gz, .bz2); coordinates as .cbox, .box, .json, "
            ".pos, .csv, .tsv, .txt, .cs, or a folder of them."
        ),
        target: Path = typer.Argument(help="What to write; the suffix says the format."),
        stack: Path = typer.Option(None, help="Stack that holds the images, or folder of the stacks."),
        map_prefix: list[str] = typer.Option([], metavar="OLD=NEW", help="Replace a prefix of stack names."),
        passthrough: Path = typer.Option(None, help="cryoSPARC's passthrough file of the same particles."),
        restack: Path = typer.Option(None, help="Write the images into this new MRC stack, too."),
        pixel_size: float = typer.Option(None, metavar="A", help="Pixel size of a map in angstrom."),
        dtype: str = typer.Option(
            "float32", help="Voxels of a map: float32, float16, int8, int16, uint16, uint4 (integers must fit exactly)."
        ),
        one_file: bool = typer.Option(False, "--one-file", help="All coordinates in one STAR file, not a file each."),
        as_json: bool = typer.Option(False, "--json", help="Print JSON."),
    ) -> None:
        """Convert particles between RELION (STAR) and cryoSPARC (CS), or a map between types and compressions.

        Coordinates of crYOLO, topaz, cryoSPARC, EMAN and Xmipp become STAR files of RELION, with scores and boxes.
        Poses, shifts (pixels and angstrom), half sets, CTF and order are kept; columns without a
        counterpart travel along.
        """
        from verglas.run.convert import ConvertOptions, check_kinds
        from verglas.run.convert import convert as do_convert

        if pixel_size is not None and not pixel_size > 0:
            raise typer.BadParameter(f"{pixel_size}: expected more than 0 angstrom", param_hint="--pixel-size")
        try:
            check_kinds(source, target)
        except InputError as error:
            raise typer.BadParameter(str(error)) from None
        options = ConvertOptions(stack, _prefixes(map_prefix), passthrough, restack, pixel_size, dtype, one_file)
        done = do_convert(source, target, options)
        if as_json:
            typer.echo(json.dumps(done, indent=2))
        else:
            what = {
                "particles": "{particles} particles",
                "map": "map {shape_zyx} (z, y, x)",
                "coordinates": "{picks} picks of {micrographs} micrographs",
            }[done["kind"]].format(**done)
            typer.echo(f"{target}: {what}")
